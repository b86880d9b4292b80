package topic

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// Bytes that the lanes of one sink fetch ahead, together; a lane gets its
// share, within limits. They count compressed: in memory rows take ten times
// as much, and one fetch waits while another is on its way.
const (
	fetchAhead    = 12 << 20
	fetchAheadMin = 1 << 20
	fetchAheadMax = 3 << 20
)

// open opens the sink and goes to where its marks are.
func (l *lane) open(ctx context.Context) error {
	if l.failures == 0 {
		l.show(progress.Starting, "")
	}
	sink, err := l.stream.Open(l.c.work)
	if err != nil {
		return fmt.Errorf("open the sink of %s: %w", l.stream.Name, err)
	}
	l.sink = sink
	l.versions = map[string]*version{}
	if err := l.load(ctx, l.partNumbers()); err != nil {
		return err
	}
	if l.failures == 0 {
		l.show(l.state, "")
	} else if l.caughtUp() {
		// What failed has been done, or there is nothing to do: no flush will say so.
		l.setTrouble(nil)
		l.show(l.state, "")
	}
	return nil
}

// load reads the sink's marks of ps and has the client go on from there. The
// marks always win: what the group has committed is not looked at.
func (l *lane) load(ctx context.Context, ps []int32) error {
	marks, err := l.sink.Load(l.c.work, ps)
	if err != nil {
		return fmt.Errorf("load the marks of %s: %w", l.stream.Name, err)
	}
	log, err := l.look(ctx)
	if err != nil {
		return err
	}
	if log.id == "" {
		if len(marks) > 0 {
			for p, m := range marks {
				l.lost.lose(p, m.Last.Epoch)
			}
			return &parkError{fmt.Sprintf("topic %s is gone; run a new backfill: %s, or drop the sink's table", l.topic, l.backfillCommand())}
		}
		return fmt.Errorf("topic %s does not exist yet", l.topic)
	}
	l.topicID = log.id
	for _, p := range ps {
		m, stored := marks[p]
		if stored {
			if misfit := l.check(p, m, log); misfit != nil {
				if m.Next, err = l.mend(ctx, p, m, log, misfit); err != nil {
					return err
				}
			}
			// Its last owner may have ended between its flush and its commit.
			l.c.commits.note(l.topic, p, m.Next)
		} else {
			start, _ := log.starts.Lookup(l.topic, p)
			m = record.Mark{Next: start.Offset}
		}
		end, _ := log.ends.Lookup(l.topic, p)
		l.parts[p] = &part{mark: m, next: m.Next, last: m.Last, high: end.Offset}
		l.setDurable(p, m.Next)
	}
	l.count()
	return l.connect()
}

// logState is what Kafka knows of the lane's topic.
type logState struct {
	id           string // empty = no such topic
	starts, ends kadm.ListedOffsets
}

func (l *lane) look(ctx context.Context) (logState, error) {
	look, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var s logState
	all, err := l.c.k.describe(look, l.topic)
	if t, there := all[l.topic]; err == nil && there {
		s.id = t.id
		s.starts, s.ends, err = l.c.k.bounds(look, l.topic)
	}
	if ctx.Err() != nil {
		return s, errStopping
	}
	if err != nil {
		return s, fmt.Errorf("look at topic %s: %w", l.topic, err)
	}
	return s, nil
}

// check says where a mark does not fit the log: offsets mean nothing on another
// topic, and records that are gone are a loss.
func (l *lane) check(p int32, m record.Mark, log logState) *parkError {
	start, _ := log.starts.Lookup(l.topic, p)
	end, _ := log.ends.Lookup(l.topic, p)
	fix := "run a new backfill: " + l.backfillCommand()
	var note string
	switch {
	case m.Cluster != "" && m.Cluster != l.c.k.cluster:
		note = fmt.Sprintf("the sink has read topic %s from Kafka cluster %s and this one is %s: %s, or connect to the old one", l.topic, m.Cluster, l.c.k.cluster, fix)
	case m.TopicID != "" && m.TopicID != log.id:
		note = fmt.Sprintf("topic %s has been created anew: %s", l.topic, fix)
	case m.Next < start.Offset:
		note = fmt.Sprintf("topic %s partition %d begins at offset %d and the sink has come to %d: the records between are gone: %s, and raise topics.retention", l.topic, p, start.Offset, m.Next, fix)
	case m.Next > end.Offset:
		note = fmt.Sprintf("topic %s partition %d ends at offset %d and the sink has come to %d: the log has lost records: %s", l.topic, p, end.Offset, m.Next, fix)
	default:
		return nil
	}
	return &parkError{note}
}

// backfillCommand is what somebody has to type to make good for lost records.
func (l *lane) backfillCommand() string { return "sluice backfill " + l.stream.Name.String() }

// connect starts a client at the next offset of every partition.
func (l *lane) connect() error {
	if l.cl != nil {
		l.cl.Close()
		l.cl = nil
	}
	offsets := make(map[int32]kgo.Offset, len(l.parts))
	for n, p := range l.parts {
		offsets[n] = kgo.NewOffset().At(p.next).WithEpoch(-1)
	}
	ahead := int32(min(max(fetchAhead/len(l.c.lanes), fetchAheadMin), fetchAheadMax))
	cl, err := l.c.k.client(append([]kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.topic: offsets}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // an offset out of range is an incident
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // the end of a log may be one, and it has to be reached
		kgo.FetchMaxBytes(ahead),
		kgo.FetchMaxPartitionBytes(min(ahead, 1<<20)),
		kgo.WithPools(l.c.k.pools),
	}, l.c.k.laneOpts...)...)
	if err != nil {
		return err
	}
	l.cl = cl
	return nil
}

func (l *lane) setDurable(p int32, next int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.durable[p] = next
}
