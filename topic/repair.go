package topic

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/record"
)

// repairEvery is how often a parked lane looks whether a new backfill has begun.
const repairEvery = 5 * time.Second

// lostParts are the partitions of a lane of which records are gone before the
// sink had them, with the newest epoch the sink knows. Only a backfill of a
// higher epoch makes good for what is missing: it supersedes everything before.
type lostParts struct {
	epochs  map[int32]uint64
	scanned map[int32]int64 // up to where the log was looked through
	topicID string          // of that log
	next    time.Time       // when to look again
}

// lose remembers a partition whose records are gone.
func (s *lostParts) lose(p int32, epoch uint64) {
	if s.epochs == nil {
		s.epochs = map[int32]uint64{}
	}
	s.epochs[p] = epoch
}

// find returns where in partition p a backfill begins that is newer than epoch.
func (s *lostParts) find(ctx context.Context, l *lane, p int32, epoch uint64, log logState) (at int64, found bool, err error) {
	if s.topicID != log.id {
		s.topicID, s.scanned = log.id, map[int32]int64{}
	}
	start, _ := log.starts.Lookup(l.topic, p)
	end, _ := log.ends.Lookup(l.topic, p)
	from := max(start.Offset, s.scanned[p])
	if from >= end.Offset {
		return 0, false, nil
	}
	cl, err := l.c.k.client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.topic: {p: kgo.NewOffset().At(from).WithEpoch(-1)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(fetchAheadMax),
		kgo.FetchMaxPartitionBytes(fetchAheadMax),
	)
	if err != nil {
		return 0, false, err
	}
	defer cl.Close()
	var heads record.HeadReader
	for next := from; next < end.Offset && !found; s.scanned[p] = next {
		fetches := cl.PollFetches(ctx)
		fetches.EachError(func(_ string, _ int32, e error) { err = e })
		if err != nil {
			return 0, false, fmt.Errorf("look for a backfill in topic %s partition %d: %w", l.topic, p, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if found {
				return
			}
			next = r.Offset + 1
			if r.Attrs.IsControl() || len(r.Key) > 0 || r.Value == nil {
				return // no control op
			}
			if head, bad := heads.Read(r.Value); bad == nil && head.Op == record.OpBackfillBegin && head.Pos.Epoch > epoch {
				at, found = r.Offset, true
				next = r.Offset // to be found again: the sink may fail before it has stored a mark
			}
		})
	}
	return at, found, nil
}

// mend returns where to go on in a partition whose mark does not fit the log,
// or the error that parks the lane until there is such a place.
func (l *lane) mend(ctx context.Context, p int32, m record.Mark, log logState, misfit *parkError) (int64, error) {
	look, cancel := context.WithCancel(l.c.work)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	at, found, err := l.lost.find(look, l, p, m.Last.Epoch, log)
	switch {
	case ctx.Err() != nil:
		return 0, errStopping
	case err != nil:
		return 0, err
	case !found:
		l.lost.lose(p, m.Last.Epoch)
		return 0, misfit
	}
	l.c.cfg.Logger.Warn("records are gone; the stream goes on with the backfill that makes good for them", "sink", l.c.cfg.Name,
		"stream", l.stream.Name.String(), "partition", p, "mark", m.Next, "backfill", at)
	return at, nil
}

// tryRepair resumes a lane that was parked for lost records once a new
// backfill has begun in all their partitions.
func (l *lane) tryRepair(ctx context.Context) {
	if !l.halted || len(l.lost.epochs) == 0 || time.Now().Before(l.lost.next) {
		return
	}
	l.lost.next = time.Now().Add(repairEvery)
	log, err := l.look(ctx)
	if err != nil || log.id == "" {
		return
	}
	for p, epoch := range l.lost.epochs {
		if _, found, err := l.lost.find(ctx, l, p, epoch, log); err != nil || !found {
			return
		}
	}
	l.resume()
}
