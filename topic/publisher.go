package topic

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// LostError says that the brokers did not take a record. The Publisher is of
// no use any more: no later barrier fires (invariant 1), and the source has to
// start again from its checkpoint with a new Publisher.
type LostError struct {
	Topic string // empty if the brokers took nothing in time
	Err   error
}

// Error names the topic and the cause.
func (e *LostError) Error() string {
	cause := e.Err.Error()
	if errors.Is(e.Err, kerr.UnknownServerError) || errors.Is(e.Err, kerr.KafkaStorageError) {
		cause += " The disk of the broker may be full: look at its log and free space" // how brokers answer then
	}
	if e.Topic == "" {
		return fmt.Sprintf("publish: %s: the source starts again from its checkpoint", cause)
	}
	return fmt.Sprintf("publish to topic %s: %s: the source starts again from its checkpoint", e.Topic, cause)
}

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Err }

// Lost tells a source, which knows no topics, that its output as a whole is of
// no use any more: no stream of its own has failed.
func (e *LostError) Lost() bool { return true }

var (
	errClosed = errors.New("the publisher is closed")
	errLate   = errors.New("the brokers took no record in time")
)

// Publisher writes the records of one source to their topics. It is what a
// source gets as its output. Rows of one stream that are not backfill rows are
// published by one goroutine at a time: their positions rise on the topic.
type Publisher struct {
	k      *Kafka
	source string
	origin record.Origin
	board  *progress.Board // may be nil
	cl     *kgo.Client
	slabs  *slabs
	acks   *acks

	mu      sync.Mutex
	outlets map[string]*outlet // by schema id
	err     error
	failed  chan struct{} // closed once err is set
	ended   chan struct{} // closed once the client is
}

// Publisher returns the output of one source. It counts on board what the
// brokers hold; nil counts nothing. Close it.
func (k *Kafka) Publisher(source string, origin record.Origin, board *progress.Board) (*Publisher, error) {
	n := max(k.cfg.BufferBytes/slabBytes, 2)
	cl, err := k.clientBehind(new(gate), append([]kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchMaxBytes(batchBytes),
		kgo.ProducerBatchCompression(kgo.SnappyCompression()),
		kgo.ProducerLinger(5 * time.Millisecond),
		kgo.RecordPartitioner(partitioner{}),
		kgo.MaxBufferedRecords((n + 1) * slabRecords * 2), // the slabs are the limit
		// The client itself gives up nothing, see watch. What the brokers refuse
		// for good shuts the gate.
		kgo.UnknownTopicRetries(-1),
	}, k.producerOpts...)...)
	if err != nil {
		return nil, err
	}
	p := &Publisher{k: k, source: source, origin: origin, board: board, cl: cl,
		slabs: newSlabs(n), acks: newAcks(), outlets: map[string]*outlet{},
		failed: make(chan struct{}), ended: make(chan struct{})}
	p.acks.gaps = k.cfg.Unsafe.Gaps
	go p.watch()
	return p, nil
}

// watch ends the client as a whole once a record is lost or waits for too long.
func (p *Publisher) watch() {
	defer close(p.ended)
	tick := time.NewTicker(max(p.k.cfg.DeliveryTimeout/8, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if p.acks.oldest() > p.k.cfg.DeliveryTimeout {
				p.fail(&LostError{Err: fmt.Errorf("%w (%v)", errLate, p.k.cfg.DeliveryTimeout)})
			}
		case <-p.failed:
			p.cl.Close()
			return
		}
	}
}

// fail ends the Publisher with its first error.
func (p *Publisher) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
		close(p.failed)
	}
}

// Failed is closed once the Publisher has lost a record or is closed: see Err.
func (p *Publisher) Failed() <-chan struct{} { return p.failed }

// Err returns why the Publisher is of no use any more, nil while it is.
func (p *Publisher) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Close ends the Publisher. What is not acknowledged may be lost: Flush before.
func (p *Publisher) Close() {
	p.fail(&LostError{Err: errClosed})
	<-p.ended
}

// Publish takes b over: it encodes its rows and returns once all of them are
// in the buffers, blocking while these are full. A *LostError says that the
// whole Publisher has failed, any other error that b's stream cannot go on.
func (p *Publisher) Publish(ctx context.Context, b *record.Batch) error {
	defer b.Release()
	o, err := p.outlet(ctx, b.Schema)
	if err != nil {
		return err
	}
	enc := p.encoder(o)
	defer p.giveEncoder(o, enc)
	if _, control := b.Control(); control {
		return p.publishControl(o, enc, b)
	}
	for row := 0; row < b.Len(); {
		s, err := p.slabs.take(ctx, p.failed)
		if err != nil {
			return p.orErr(err)
		}
		if err := p.Err(); err != nil {
			p.slabs.give(s)
			return err
		}
		n, big := p.fill(s, o, enc, b, row)
		row += n
		if big == nil {
			continue
		}
		if err := p.publishBig(ctx, o, big); err != nil {
			return err
		}
		row++
	}
	return nil
}

// fill encodes rows of b from row on into s, hands them to the client and
// gives s back. It returns how many rows that were; big is the next row if it
// is too large for a slab.
func (p *Publisher) fill(s *slab, o *outlet, enc *record.Encoder, b *record.Batch, row int) (n int, big *kgo.Record) {
	first := s.used
	for ; row+n < b.Len() && s.hasRoom(); n++ {
		r, isBig := s.add(enc, b, row+n)
		r.Topic = o.topic
		if isBig {
			big = r
			break
		}
	}
	if n > 0 {
		t := p.ticket(o, s, n)
		for i := first; i < s.used; i++ {
			p.cl.Produce(context.Background(), &s.records[i], t.done)
		}
	}
	p.slabs.give(s)
	return n, big
}

// publishControl writes a control op to every partition, so that it reaches
// the rows of each in their order.
func (p *Publisher) publishControl(o *outlet, enc *record.Encoder, b *record.Batch) error {
	if err := p.Err(); err != nil {
		return err
	}
	value := enc.AppendValue(nil, b, 0)
	t := p.ticket(nil, nil, o.partitions)
	for i := range o.partitions {
		p.cl.Produce(context.Background(), &kgo.Record{Topic: o.topic, Partition: int32(i), Value: value}, t.done)
	}
	return nil
}

// publishBig writes a row that is too large for a batch with others, after
// everything before it and before everything behind it.
func (p *Publisher) publishBig(ctx context.Context, o *outlet, r *kgo.Record) error {
	size := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		size += len(h.Value)
	}
	if size > MaxRecordBytes {
		return p.rejectBig(ctx, o, r, size)
	}
	// Invariant 4: another client writes this row, so those before it go first.
	if err := p.Flush(ctx); err != nil {
		return err
	}
	if err := p.k.produce(ctx, r); err != nil {
		if ctx.Err() == nil {
			p.fail(&LostError{Topic: o.topic, Err: err})
		}
		return p.orErr(err)
	}
	o.count(1, 0)
	return nil
}

// rejectBig buries a row that no topic takes: its key and its size.
func (p *Publisher) rejectBig(ctx context.Context, o *outlet, r *kgo.Record, size int) error {
	r.Value, r.Headers = nil, nil
	reason := fmt.Sprintf("the record takes %d bytes and topics take %d", size, MaxRecordBytes)
	letter := p.k.deadLetter(deadSource, p.source, o.schema.Stream, r, codeTooLarge, reason)
	if err := p.k.bury(ctx, []*kgo.Record{letter}); err != nil {
		return err
	}
	o.count(0, 1)
	if o.stats != nil {
		o.stats.Refused(codeTooLarge, 1)
	}
	return nil
}

// Reject writes rows that were refused before they reached their topic to the
// dead letters: only their key, position and reason. rejects name rows of b,
// which stays the caller's.
func (p *Publisher) Reject(ctx context.Context, b *record.Batch, rejects []record.Reject) error {
	enc := record.NewEncoder(b.Schema, p.origin)
	letters := make([]*kgo.Record, len(rejects))
	for i, rej := range rejects {
		r := &kgo.Record{Key: enc.AppendKey(nil, b, rej.Row)}
		letters[i] = p.k.deadLetter(deadSource, p.source, b.Schema.Stream, r, rej.Code, rej.Reason)
		letters[i].Headers = append(letters[i].Headers, kgo.RecordHeader{Key: deadPosition, Value: []byte(b.Pos[rej.Row].String())})
	}
	return p.k.bury(ctx, letters)
}

// Barrier calls done once the brokers hold every record published before it,
// in order of the Barrier calls. done must not block.
func (p *Publisher) Barrier(done func()) { p.acks.barrier(done) }

// Flush waits until the brokers hold every record published so far.
func (p *Publisher) Flush(ctx context.Context) error {
	held := make(chan struct{})
	p.Barrier(func() { close(held) })
	select {
	case <-held:
		return nil
	case <-p.failed:
		return p.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// orErr returns the Publisher's own error if it has one, err otherwise.
func (p *Publisher) orErr(err error) error {
	if own := p.Err(); own != nil {
		return own
	}
	return err
}
