package topic

import (
	"context"
	"errors"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/record"
)

// A slab holds encoded records that the brokers have not acknowledged: one
// arena of bytes and the client's records that point into it. Slabs are the
// byte limit and the back-pressure of a Publisher: there are n of them.
const (
	slabBytes   = 512 << 10
	slabRecords = 1024
)

// slabRoom is what a slab must have left to be filled on.
const slabRoom = 16 << 10

// bigBytes is above what goes into a batch with others.
const bigBytes = batchBytes - 64<<10

type slab struct {
	arena   []byte // never grown: the client's records point into it
	records [slabRecords]kgo.Record
	used    int // records
	waiting int // of them not acknowledged; guarded by slabs.mu
	lent    bool
}

// slabs hands them out, one borrower at a time each.
type slabs struct {
	mu    sync.Mutex
	free  []*slab
	open  []*slab // have room, wait for acknowledgements
	left  int     // may still be made
	moved chan struct{}
}

func newSlabs(n int) *slabs { return &slabs{left: max(n, 2), moved: make(chan struct{}, 1)} }

// errStopped says that the Publisher has failed, whose own error says why.
var errStopped = errors.New("the publisher has failed")

// sent counts n records of b as on their way.
func (s *slabs) sent(b *slab, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.waiting += n
}

// take returns a slab with room, waiting until one is acknowledged.
func (s *slabs) take(ctx context.Context, failed <-chan struct{}) (*slab, error) {
	for {
		if got := s.tryTake(); got != nil {
			return got, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-failed:
			return nil, errStopped
		case <-s.moved:
		}
	}
}

func (s *slabs) tryTake() *slab {
	s.mu.Lock()
	defer s.mu.Unlock()
	var got *slab
	switch {
	case len(s.open) > 0:
		got, s.open = s.open[len(s.open)-1], s.open[:len(s.open)-1]
	case len(s.free) > 0:
		got, s.free = s.free[len(s.free)-1], s.free[:len(s.free)-1]
	case s.left > 0:
		s.left--
		got = &slab{arena: make([]byte, 0, slabBytes)}
	default:
		return nil
	}
	got.lent = true
	if len(s.open)+len(s.free)+s.left > 0 {
		s.wake() // another one may be waiting for what is left
	}
	return got
}

func (s *slabs) wake() {
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

// give takes a slab back after its borrower has filled it.
func (s *slabs) give(b *slab) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.lent = false
	s.settle(b)
}

// acked takes n records of b as acknowledged.
func (s *slabs) acked(b *slab, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.waiting -= n
	if !b.lent {
		s.settle(b)
	}
}

// settle puts b where it belongs: with the free ones once nothing of it waits.
func (s *slabs) settle(b *slab) {
	switch {
	case b.waiting == 0:
		for i, o := range s.open {
			if o == b {
				s.open = append(s.open[:i], s.open[i+1:]...)
				break
			}
		}
		clear(b.records[:b.used]) // the client's contexts and headers go too
		b.used, b.arena = 0, b.arena[:0]
		s.free = append(s.free, b)
	case b.hasRoom():
		for _, o := range s.open {
			if o == b {
				return
			}
		}
		s.open = append(s.open, b)
	default:
		return // full and waiting: nobody can use it
	}
	s.wake()
}

func (b *slab) hasRoom() bool {
	return b.used < slabRecords && cap(b.arena)-len(b.arena) >= slabRoom
}

// add encodes one row into b. A row that does not fit into the arena gets
// memory of its own and fills the slab; one above bigBytes is not kept at all:
// big tells, and r is a record of its own.
func (b *slab) add(enc *record.Encoder, batch *record.Batch, i int) (r *kgo.Record, big bool) {
	start := b.arena[len(b.arena):] // what outgrows it is copied alone, not the whole arena
	key := enc.AppendKey(start, batch, i)
	value := enc.AppendValue(key, batch, i)
	all := enc.AppendUnsent(value, batch, i)
	if len(all) > bigBytes {
		r = new(kgo.Record)
		big = true
	} else {
		r = &b.records[b.used]
		b.used++
		b.arena = b.arena[:min(cap(b.arena), len(b.arena)+len(all))]
	}
	k, v := len(key), len(value)
	if k > 0 {
		r.Key = all[:k:k]
	}
	r.Value = all[k:v:v]
	if len(all) > v {
		r.Headers = []kgo.RecordHeader{{Key: record.UnsentHeader, Value: all[v:len(all):len(all)]}}
	}
	return r, big
}
