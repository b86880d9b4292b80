package keyindex

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"
)

// Hash stands for a key. 96 bits: with 64 a collision, which would delete a
// stranger's row, is likely within the life of a large table. The zero Hash
// is that of no key.
type Hash [12]byte

// Hash returns the hash of a key in its canonical form. The seed is random
// and the index's own, because keys come from users who could otherwise
// choose colliding ones; so a Hash means nothing to another index.
func (x *Index) Hash(canonicalKey []byte) Hash {
	u := xxh3.Hash128Seed(canonicalKey, x.seed)
	var h Hash
	binary.BigEndian.PutUint64(h[:8], u.Hi)
	binary.BigEndian.PutUint32(h[8:], uint32(u.Lo>>32))
	if h == (Hash{}) {
		h[11] = 1
	}
	return h
}

const entryBytes = 20

// entry is one line of the index: the hash as three big-endian words, so that
// their order is that of the bytes, and the location.
type entry struct{ h0, h1, h2, file, pos uint32 }

func newEntry(h Hash, file, pos uint32) entry {
	return entry{
		h0: binary.BigEndian.Uint32(h[0:]), h1: binary.BigEndian.Uint32(h[4:]), h2: binary.BigEndian.Uint32(h[8:]),
		file: file, pos: pos,
	}
}

// hi is the first two thirds of the hash.
func (e *entry) hi() uint64 { return uint64(e.h0)<<32 | uint64(e.h1) }

func (e *entry) empty() bool { return e.h0|e.h1|e.h2 == 0 }

func (e *entry) sameKey(o *entry) bool { return e.h0 == o.h0 && e.h1 == o.h1 && e.h2 == o.h2 }

func (e *entry) before(o *entry) bool {
	if a, b := e.hi(), o.hi(); a != b {
		return a < b
	}
	return e.h2 < o.h2
}

func (e *entry) put(b []byte) {
	_ = b[entryBytes-1]
	binary.BigEndian.PutUint32(b[0:], e.h0)
	binary.BigEndian.PutUint32(b[4:], e.h1)
	binary.BigEndian.PutUint32(b[8:], e.h2)
	binary.LittleEndian.PutUint32(b[12:], e.file)
	binary.LittleEndian.PutUint32(b[16:], e.pos)
}

func readEntry(b []byte) entry {
	_ = b[entryBytes-1]
	return entry{
		h0: binary.BigEndian.Uint32(b[0:]), h1: binary.BigEndian.Uint32(b[4:]), h2: binary.BigEndian.Uint32(b[8:]),
		file: binary.LittleEndian.Uint32(b[12:]), pos: binary.LittleEndian.Uint32(b[16:]),
	}
}
