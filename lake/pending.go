package lake

import (
	"encoding/binary"
	"iter"

	"github.com/sluice-data/sluice/lake/keyindex"
)

// pendingOps holds where the newest op of each key of an interval is. It is an
// open table with linear probing: keys are seeded hashes already, and a row
// comes here twice, so that Go's map was an eighth of a narrow row.
type pendingOps struct {
	slots []pendingSlot // a power of two of them, at most three quarters in use
	n     int
}

// pendingSlotBytes is the size of one of them.
const pendingSlotBytes = 24

// pendingSlot is free when its hash is zero, which no key has.
type pendingSlot struct {
	hash  keyindex.Hash
	place place
}

func (o *pendingOps) len() int { return o.n }

// slot returns where h is, or the free slot where it would be.
func (o *pendingOps) slot(h keyindex.Hash) *pendingSlot {
	mask := uint64(len(o.slots) - 1)
	for i := binary.LittleEndian.Uint64(h[:8]) & mask; ; i = (i + 1) & mask {
		if s := &o.slots[i]; s.hash == h || s.hash == (keyindex.Hash{}) {
			return s
		}
	}
}

func (o *pendingOps) get(h keyindex.Hash) (place, bool) {
	if o.n == 0 {
		return place{}, false
	}
	s := o.slot(h)
	return s.place, s.hash == h
}

func (o *pendingOps) put(h keyindex.Hash, p place) {
	if (o.n+1)*4 > len(o.slots)*3 {
		o.resize(max(1024, 2*len(o.slots)))
	}
	s := o.slot(h)
	if s.hash != h {
		o.n++
	}
	s.hash, s.place = h, p
}

// all yields the keys and their places in no order. Places may be put for
// keys that are there, nothing else may change.
func (o *pendingOps) all() iter.Seq2[keyindex.Hash, place] {
	return func(yield func(keyindex.Hash, place) bool) {
		for i := range o.slots {
			if s := &o.slots[i]; s.hash != (keyindex.Hash{}) && !yield(s.hash, s.place) {
				return
			}
		}
	}
}

// keep removes the keys whose place is not wanted any more.
func (o *pendingOps) keep(want func(place) bool) {
	old := o.slots
	o.slots, o.n = make([]pendingSlot, len(old)), 0
	for i := range old {
		if old[i].hash != (keyindex.Hash{}) && want(old[i].place) {
			*o.slot(old[i].hash) = old[i]
			o.n++
		}
	}
}

func (o *pendingOps) resize(size int) {
	old := o.slots
	o.slots = make([]pendingSlot, size)
	for i := range old {
		if old[i].hash != (keyindex.Hash{}) {
			*o.slot(old[i].hash) = old[i]
		}
	}
}
