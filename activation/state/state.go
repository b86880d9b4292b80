// Package state remembers what destinations have acknowledged: per connection
// and key, with the marks of the partitions in the same transaction.
//
// It holds no values: keys, match values and fields are keyed hashes. Only the
// destination's own ids of records are in clear.
package state

import (
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/record"
)

// Key is a keyed hash of a record's identity or of its match value. The zero
// Key is none.
type Key [16]byte

// String returns k in hexadecimal.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// Entry is what is known of one key of a connection.
type Entry struct {
	Key   Key
	Match Key    // of the value by which the destination finds the record; zero = none or given up
	ID    string // the destination's id of the record, empty while unknown
	Owned bool   // we created the record: only such a one is ever deleted
	Gone  bool   // the destination has no such record by our doing, or never had

	// Row is the hash of the whole mapped record and Fields those of its fields,
	// as the destination has acknowledged them. Row is 0 where Fields have come
	// together from several records.
	Row    uint64
	Fields Hashes

	Part   int32           // partition and
	Offset int64           // offset of the newest record that is settled,
	Pos    record.Position // and its position

	Outcome    delivery.Outcome // of that record
	Code       string           // of the outcome catalogue; empty where nothing is wrong
	Attempts   int              // of that record that ended in Retry
	Quarantine time.Time        // nothing may be sent before; zero = none

	// SameMatch tells Write that what is stored of the key, if anything, has the
	// same Match: that is not looked at, and spares the index. It is not stored.
	SameMatch bool
}

// Hashes are the hashes of fields: 4 bytes that stand for the name and 8 bytes
// of hash each.
type Hashes []byte

const hashBytes = 12

// Len returns the number of fields.
func (h Hashes) Len() int { return len(h) / hashBytes }

// Lookup returns the hash of the field that tag stands for, and whether there is one.
func (h Hashes) Lookup(tag uint32) (uint64, bool) {
	for i := 0; i+hashBytes <= len(h); i += hashBytes {
		if binary.LittleEndian.Uint32(h[i:]) == tag {
			return binary.LittleEndian.Uint64(h[i+4:]), true
		}
	}
	return 0, false
}

// Each calls do with every field.
func (h Hashes) Each(do func(tag uint32, hash uint64)) {
	for i := 0; i+hashBytes <= len(h); i += hashBytes {
		do(binary.LittleEndian.Uint32(h[i:]), binary.LittleEndian.Uint64(h[i+4:]))
	}
}

// Append appends a field that h does not have.
func (h Hashes) Append(tag uint32, hash uint64) Hashes {
	h = binary.LittleEndian.AppendUint32(h, tag)
	return binary.LittleEndian.AppendUint64(h, hash)
}

// With returns h with the hash of one field set; it may change h in place.
func (h Hashes) With(tag uint32, hash uint64) Hashes {
	for i := 0; i+hashBytes <= len(h); i += hashBytes {
		if binary.LittleEndian.Uint32(h[i:]) == tag {
			binary.LittleEndian.PutUint64(h[i+4:], hash)
			return h
		}
	}
	return h.Append(tag, hash)
}

// Without returns h without one field; it may change h in place.
func (h Hashes) Without(tag uint32) Hashes {
	for i := 0; i+hashBytes <= len(h); i += hashBytes {
		if binary.LittleEndian.Uint32(h[i:]) == tag {
			return append(h[:i], h[i+hashBytes:]...)
		}
	}
	return h
}

// Outcomes count what became of the records of a partition. Invariant 5:
// read = applied + unchanged + superseded + skipped + duplicate + rejected.
type Outcomes struct {
	Applied    int64 `json:"applied"`
	Unchanged  int64 `json:"unchanged"`
	Superseded int64 `json:"superseded"`
	Skipped    int64 `json:"skipped"`
	Duplicate  int64 `json:"duplicate"`
	Rejected   int64 `json:"rejected"`
}

// Add adds p to o.
func (o *Outcomes) Add(p Outcomes) {
	o.Applied += p.Applied
	o.Unchanged += p.Unchanged
	o.Superseded += p.Superseded
	o.Skipped += p.Skipped
	o.Duplicate += p.Duplicate
	o.Rejected += p.Rejected
}

// Total returns the sum of all counters.
func (o Outcomes) Total() int64 {
	return o.Applied + o.Unchanged + o.Superseded + o.Skipped + o.Duplicate + o.Rejected
}

// Mark is how far a connection has come in one partition.
type Mark struct {
	record.Mark
	Outcomes Outcomes `json:"outcomes"`
	Loading  bool     `json:"loading,omitempty"` // a backfill has begun and not ended
}
