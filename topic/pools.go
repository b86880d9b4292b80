package topic

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pools keeps the memory of fetched records: halves what a row costs the
// collector. The client clears a buffer whenever it comes back, so that giant
// ones cost more than they save and are left to the collector.
type pools struct {
	bytes   sync.Pool
	records sync.Pool
}

const (
	poolBytesMax   = 8 << 20
	poolRecordsMax = 32 << 10
)

// GetDecompressBytes returns memory for one batch.
func (p *pools) GetDecompressBytes(compressed []byte, _ kgo.CompressionCodecType) []byte {
	if b, ok := p.bytes.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, min(5*len(compressed), poolBytesMax))
}

// PutDecompressBytes takes it back.
func (p *pools) PutDecompressBytes(b []byte) {
	if cap(b) <= poolBytesMax {
		p.bytes.Put(&b)
	}
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
