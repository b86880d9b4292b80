package topic

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// A batch that goes to a sink ends at this many rows or bytes on the topic.
const (
	batchRows      = 16 << 10
	batchDataBytes = 4 << 20
)

// version is one schema of the stream, ready to be read.
type version struct {
	schema  *record.Schema
	decoder *record.Decoder
	chain   Chain
	batches sync.Pool // a sink may release them on its own goroutines
}

// run is a part of what one poll has brought from one partition: up to one
// batch and the records around it that do not reach the sink. Nothing of it
// counts before the sink has taken it.
type run struct {
	p       *part
	number  int32
	version *version
	batch   *record.Batch
	records []*kgo.Record // of the rows of batch
	bytes   int
	letters []*kgo.Record
	counts  record.Counts
	next    int64
	last    record.Position
	newest  int64
}

func (l *lane) newRun(number int32, p *part) *run {
	return &run{p: p, number: number, next: p.next, last: p.last, newest: p.newest}
}

// take handles what a poll has brought.
func (l *lane) take(ctx context.Context, fetches kgo.Fetches) error {
	var failed error
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if p := l.parts[f.Partition]; failed == nil && p != nil && f.Topic == l.topic {
			p.high = max(p.high, f.HighWatermark)
			failed = l.takeRecords(ctx, l.newRun(f.Partition, p), f.Records)
			if failed == nil {
				for _, r := range f.Records {
					r.Recycle() // everything was copied: by the decoder, or into dead letters that are written
				}
			}
		}
		if failed == nil {
			failed = l.fetchError(f)
		}
	})
	return failed
}

func (l *lane) fetchError(f kgo.FetchTopicPartition) error {
	p := l.parts[f.Partition]
	switch err := f.Err; {
	case err == nil, p == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, kgo.ErrClientClosed):
		return nil
	case errors.Is(err, kerr.OffsetOutOfRange):
		l.lost.lose(f.Partition, p.last.Epoch)
		return &parkError{fmt.Sprintf("topic %s partition %d has no offset %d any more: records are gone: run a new backfill: %s, and raise topics.retention", l.topic, f.Partition, p.next, l.backfillCommand())}
	default:
		return fmt.Errorf("fetch topic %s partition %d: %w", l.topic, f.Partition, err)
	}
}

// takeRecords goes through the records of one partition, in order.
func (l *lane) takeRecords(ctx context.Context, r *run, rs []*kgo.Record) error {
	for _, rec := range rs {
		if rec.Offset < r.next {
			continue
		}
		if err := l.takeRecord(ctx, r, rec); err != nil {
			return err
		}
		r.next = rec.Offset + 1
		if r.batch != nil && (r.batch.Len() >= batchRows || r.bytes >= batchDataBytes) || len(r.letters) >= batchRows {
			if err := l.hand(ctx, r); err != nil {
				return err
			}
		}
	}
	return l.hand(ctx, r)
}

// takeRecord puts one record where it belongs (invariant 5): into the batch,
// to the dead letters, or among those that need not be delivered.
func (l *lane) takeRecord(ctx context.Context, r *run, rec *kgo.Record) error {
	if rec.Attrs.IsControl() {
		return nil // a transaction's marker is no record
	}
	if rec.Value == nil { // a foreign tombstone says nothing that its delete has not said
		r.counts.Add(record.Counts{Read: 1, Filtered: 1})
		return nil
	}
	head, err := r.p.heads.Read(rec.Value)
	if err == nil && head.SchemaID == "" {
		err = errors.New("it names no schema")
	}
	if err != nil {
		l.refuse(r, rec, codeUndecodable, err.Error())
		return nil
	}
	if c, stale := stale(head, r.last); stale {
		if !head.Op.Control() {
			r.counts.Add(c)
		}
		return nil
	}
	if r.version == nil || r.version.schema.ID != head.SchemaID {
		if err := l.hand(ctx, r); err != nil {
			return err
		}
		if r.version, err = l.version(ctx, head.SchemaID); err != nil {
			return err
		}
	}
	if head.Op.Control() {
		return l.takeControl(ctx, r, rec, head)
	}
	if r.batch == nil {
		r.batch = r.version.batches.Get().(*record.Batch)
		r.batch.Partition = record.TopicPartition{Topic: l.topic, Partition: r.number}
	}
	if err := r.version.decoder.Append(r.batch, rec.Key, rec.Value, unsent(rec)); err != nil {
		l.refuse(r, rec, codeUndecodable, err.Error())
		return nil
	}
	r.batch.Offsets = append(r.batch.Offsets, rec.Offset)
	r.records = append(r.records, rec)
	r.bytes += len(rec.Value)
	r.done(head)
	return nil
}

// takeControl hands a control op over, alone in its batch.
func (l *lane) takeControl(ctx context.Context, r *run, rec *kgo.Record, head record.Head) error {
	if err := l.hand(ctx, r); err != nil {
		return err
	}
	r.batch = record.NewControl(r.version.schema, head.Op, head.Pos, head.Time)
	r.batch.Partition = record.TopicPartition{Topic: l.topic, Partition: r.number}
	r.batch.Offsets = []int64{rec.Offset}
	r.records = append(r.records, rec)
	r.done(head)
	r.next = rec.Offset + 1
	return l.hand(ctx, r)
}

// done counts a record that is in the batch. Counters are of rows: a control
// op is none.
func (r *run) done(head record.Head) {
	if !head.Op.Control() {
		r.counts.Read++
	}
	r.newest = max(r.newest, head.Time)
	if head.Pos.Compare(r.last) > 0 {
		r.last = head.Pos
	}
}

// stale tells whether a record need not be delivered, and how it counts. A
// source that started again repeats positions, and one that was replaced has
// an epoch of its own. Rows of a backfill share one position; begin and end of
// a backfill do no harm when repeated and may share it too.
func stale(h record.Head, last record.Position) (record.Counts, bool) {
	switch {
	case h.Pos.IsZero():
		return record.Counts{}, false
	case h.Pos.Epoch < last.Epoch:
		return record.Counts{Read: 1, Superseded: 1}, true
	case h.Op == record.OpRead, h.Op == record.OpBackfillBegin, h.Op == record.OpBackfillEnd:
		return record.Counts{}, false
	case h.Pos.Compare(last) <= 0:
		return record.Counts{Read: 1, Duplicate: 1}, true
	}
	return record.Counts{}, false
}

func unsent(rec *kgo.Record) []byte {
	for i := range rec.Headers {
		if rec.Headers[i].Key == record.UnsentHeader {
			return rec.Headers[i].Value
		}
	}
	return nil
}

// refuse makes a record a dead letter.
func (l *lane) refuse(r *run, rec *kgo.Record, code, reason string) {
	r.counts.Add(record.Counts{Read: 1})
	l.bury(r, rec, code, reason)
}

// bury makes a record, which counts as read already, a dead letter.
func (l *lane) bury(r *run, rec *kgo.Record, code, reason string) {
	r.counts.Add(record.Counts{Rejected: 1})
	r.letters = append(r.letters, l.c.k.deadLetter(deadSink, l.c.cfg.Name, l.stream.Name, rec, code, reason))
}

// hand gives the run to the sink, after which its records count as taken, and
// flushes if the sink is full. The run is empty afterwards.
func (l *lane) hand(ctx context.Context, r *run) error {
	written := 0
	if r.batch != nil {
		var err error
		if written, err = l.write(r); err != nil {
			return err
		}
	}
	// Invariant 5: dead letters are held by the brokers before their offsets are done.
	if err := l.c.k.bury(l.c.work, r.letters); err != nil {
		return err
	}
	for _, letter := range r.letters {
		l.stats.Refused(codeOf(letter), 1)
	}
	p := r.p
	if p.next != r.next && !l.dirty {
		l.dirty, l.since = true, time.Now()
	}
	p.next, p.last, p.newest = r.next, r.last, r.newest
	p.pending.Add(r.counts)
	l.rows += written
	*r = run{p: p, number: r.number, version: r.version, records: r.records[:0], letters: r.letters[:0],
		next: r.next, last: r.last, newest: r.newest}
	l.c.k.budget.use(l, l.sink.Buffered())
	if l.full() {
		return l.flush()
	}
	if ctx.Err() != nil {
		return errStopping
	}
	return nil
}

// write runs the rules over the batch of r and gives the sink what is left. It
// returns the number of rows the sink has kept.
func (l *lane) write(r *run) (int, error) {
	b, in := r.batch, r.batch.Len()
	r.batch, r.bytes = nil, 0
	l.phase(b)
	if r.version.chain != nil {
		out, filtered, rejects, err := r.version.chain.Apply(b)
		if err != nil {
			// Invariant 6: no record passes a rule that cannot run.
			return 0, &parkError{fmt.Sprintf("the rules of stream %s: %v", l.stream.Name, err)}
		}
		for _, rej := range rejects {
			l.bury(r, r.records[rej.Row], rej.Code, rej.Reason)
		}
		r.counts.Filtered += int64(filtered)
		left := 0
		if out != nil {
			left = out.Len()
		}
		if left+filtered+len(rejects) != in {
			return 0, &parkError{fmt.Sprintf("the rules of stream %s lost %d of %d rows", l.stream.Name, in-left-filtered-len(rejects), in)}
		}
		if left == 0 {
			if out != nil {
				out.Release()
			}
			return 0, nil
		}
		b, in = out, left
	}
	offsets := append([]int64(nil), b.Offsets...) // b is the sink's from here on
	rejects, err := l.sink.Write(l.c.work, b)
	if err != nil {
		return 0, fmt.Errorf("write %d rows of %s: %w", in, l.stream.Name, err)
	}
	for _, rej := range rejects {
		at := sort.Search(len(r.records), func(i int) bool { return r.records[i].Offset >= offsets[rej.Row] })
		l.bury(r, r.records[at], rej.Code, rej.Reason)
	}
	return in - len(rejects), nil
}

// phase shows whether the stream is in its backfill.
func (l *lane) phase(b *record.Batch) {
	state := progress.Streaming
	if op := b.Ops[b.Len()-1]; op == record.OpRead || op == record.OpBackfillBegin {
		state = progress.Backfilling
	}
	if state != l.state {
		l.state = state
		l.show(state, "")
	}
}

// version returns the schema id, which its source has published before the first record.
func (l *lane) version(ctx context.Context, id string) (*version, error) {
	if v := l.versions[id]; v != nil {
		return v, nil
	}
	wait, cancel := context.WithTimeout(ctx, l.c.k.schemaWait)
	defer cancel()
	schema, err := l.c.k.schemas.Get(wait, l.stream.Name, id)
	if err != nil {
		if ctx.Err() != nil {
			return nil, errStopping
		}
		return nil, &parkError{fmt.Sprintf("schema %s of stream %s is not on the schemas topic: start the source again, which publishes it, then resume the stream", id, l.stream.Name)}
	}
	v := &version{schema: schema, decoder: record.NewDecoder(schema)}
	v.batches.New = func() any {
		return record.NewBatch(schema, func(b *record.Batch) {
			b.Reset()
			v.batches.Put(b)
		})
	}
	if l.stream.Chain != nil {
		if v.chain, err = l.stream.Chain(schema); err != nil {
			return nil, &parkError{fmt.Sprintf("the rules of stream %s: %v", l.stream.Name, err)}
		}
	}
	l.versions[id] = v
	return v, nil
}
