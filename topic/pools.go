package topic

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pools keeps the memory of fetched records: halves what a row costs the
// collector. The client clears a buffer whenever it comes back, so that giant
// ones cost more than they save and are left to the collector.
type pools struct {
	small, large sync.Pool // of bytes
	records      sync.Pool
}

const (
	poolBytesLarge = 256 << 10 // from here on a buffer is a large one
	poolBytesMax   = 8 << 20
	poolRecordsMax = 32 << 10
)

// GetDecompressBytes returns memory for one batch. What is too small is made
// anew by the client, so that the guess is generous: rows as JSON shrink to a
// tenth, and our batches hold batchBytes at most.
func (p *pools) GetDecompressBytes(compressed []byte, _ kgo.CompressionCodecType) []byte {
	n := min(16*len(compressed), batchBytes+64<<10)
	if b, ok := p.class(n).Get().(*[]byte); ok && cap(*b) >= n/2 {
		return (*b)[:0]
	}
	return make([]byte, 0, n)
}

// PutDecompressBytes takes it back.
func (p *pools) PutDecompressBytes(b []byte) {
	if cap(b) <= poolBytesMax {
		p.class(cap(b)).Put(&b)
	}
}

func (p *pools) class(n int) *sync.Pool {
	if n < poolBytesLarge {
		return &p.small
	}
	return &p.large
}

// GetRecords returns room for n records.
func (p *pools) GetRecords(n int) []kgo.Record {
	if rs, ok := p.records.Get().(*[]kgo.Record); ok && cap(*rs) >= n {
		return (*rs)[:0]
	}
	return make([]kgo.Record, 0, n)
}

// PutRecords takes it back.
func (p *pools) PutRecords(rs []kgo.Record) {
	if cap(rs) <= poolRecordsMax {
		p.records.Put(&rs)
	}
}
