package topic

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// outlet is where the rows of one schema go.
type outlet struct {
	schema     *record.Schema
	topic      string
	partitions int
	stats      *progress.Stream // nil = not counted

	mu    sync.Mutex // held while the topic and the schema are made sure of
	ready bool
	idle  []*record.Encoder // guarded by Publisher.mu
}

func (o *outlet) count(delivered, rejected int) {
	if o.stats != nil {
		o.stats.Delivered.Add(int64(delivered))
		o.stats.Rejected.Add(int64(rejected))
	}
}

// outlet returns the way of rows of schema s. Before the first of them the
// topic is as declared and the brokers hold the schema.
func (p *Publisher) outlet(ctx context.Context, s *record.Schema) (*outlet, error) {
	p.mu.Lock()
	way := s.ID + s.Mapping // rows of other rules say so in their source block
	o, err := p.outlets[way], p.err
	if o == nil {
		o = &outlet{schema: s}
		p.outlets[way] = o
	}
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ready {
		return o, nil
	}
	if o.topic, err = TopicName(p.k.cfg.Prefix, s.Stream); err != nil {
		return nil, err
	}
	o.partitions = p.k.cfg.Partitions
	if len(s.Keys()) == 0 {
		o.partitions = 1 // without a key only one partition keeps the order
	}
	if err := p.k.ensureData(ctx, o.topic, o.partitions); err != nil {
		return nil, err
	}
	if err := p.k.schemas.publish(ctx, s); err != nil {
		return nil, err
	}
	if p.board != nil {
		o.stats = p.board.Stream(progress.Source, p.source, s.Stream.String())
	}
	o.ready = true
	return o, nil
}

func (p *Publisher) encoder(o *outlet) *record.Encoder {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(o.idle); n > 0 {
		enc := o.idle[n-1]
		o.idle = o.idle[:n-1]
		return enc
	}
	return record.NewEncoder(o.schema, p.origin)
}

func (p *Publisher) giveEncoder(o *outlet, enc *record.Encoder) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o.idle = append(o.idle, enc)
}

// ticket is a run of records on their way: its method value done is the one
// promise they share.
type ticket struct {
	p      *Publisher
	outlet *outlet // nil = not counted
	slab   *slab   // nil = memory of its own
	gen    *generation
	n      int
	left   atomic.Int64
	lost   atomic.Bool
}

func (p *Publisher) ticket(o *outlet, s *slab, n int) *ticket {
	t := &ticket{p: p, outlet: o, slab: s, gen: p.acks.begin(n), n: n}
	t.left.Store(int64(n))
	if s != nil {
		p.slabs.sent(s, n)
	}
	return t
}

// done is called for each record, by one goroutine of the client at a time.
func (t *ticket) done(r *kgo.Record, err error) {
	if err != nil {
		t.lost.Store(true)
		t.p.fail(&LostError{Topic: r.Topic, Err: err})
	}
	if t.left.Add(-1) > 0 {
		return
	}
	lost := t.lost.Load()
	if t.slab != nil {
		t.p.slabs.acked(t.slab, t.n)
	}
	if t.outlet != nil && !lost {
		t.outlet.count(t.n, 0)
	}
	t.p.acks.end(t.gen, t.n, lost)
}
