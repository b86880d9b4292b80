package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// discard is an Output that keeps nothing.
type discard struct{ rows int }

func (d *discard) Publish(_ context.Context, b *record.Batch) error {
	d.rows += b.Len()
	b.Release()
	return nil
}
func (d *discard) Barrier(done func())                                    { done() }
func (d *discard) Flush(context.Context) error                            { return nil }
func (d *discard) LoadCheckpoint(context.Context, string) ([]byte, error) { return nil, nil }
func (d *discard) SaveCheckpoint(context.Context, string, []byte) error   { return nil }

// BenchmarkChanges decodes messages as the log brings them, about 750 bytes
// each, into batches: 40 % inserts, 50 % updates, 10 % deletes of a wide table.
func BenchmarkChanges(b *testing.B) {
	for _, format := range []string{"text", "binary"} {
		b.Run(format, func(b *testing.B) { benchmarkChanges(b, format == "binary") })
	}
}

func benchmarkChanges(b *testing.B, inBinary bool) {
	cols, cells := wideRow(inBinary)
	kinds := &types{byOID: map[uint32]pgType{1700: {oid: 1700, kind: 'b'}}, text: map[column]string{}}
	for oid := range builtin {
		kinds.byOID[oid] = pgType{oid: oid, kind: 'b'}
	}
	name := record.StreamName{Source: "s", Namespace: "public", Name: "wide"}
	shape, err := kinds.shape(name, cols, []string{"c0"})
	if err != nil {
		b.Fatal(err)
	}
	key := make([]cell, len(cells))
	for i := range key {
		key[i].kind = 'n'
	}
	key[0] = cells[0]
	insert, update, remove := rowBytes('I', 1, 0, nil, cells), rowBytes('U', 1, 0, nil, cells), rowBytes('D', 1, 'K', key, nil)
	messages := [][]byte{insert, update, update, insert, update, insert, remove, update, insert, update}

	out := &discard{}
	s := &Source{cfg: Config{BatchRows: 1024, BatchBytes: 1 << 20}}
	st := &followed{t: &table{name: name}, epoch: 1, progress: (&progress.Board{}).Stream(progress.Source, "s", "wide")}
	f := &follower{ss: &session{s: s, out: out}, lsn: 10, streams: map[record.StreamName]*followed{name: st},
		relations: map[uint32]*relation{1: {st: st, w: newWriter(shape)}}}
	ctx := context.Background()
	b.SetBytes(int64(len(insert)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := f.change(ctx, messages[i%len(messages)]); err != nil {
			b.Fatal(err)
		}
	}
}

// wideRow is one row of 24 columns of the usual types.
func wideRow(inBinary bool) (cols []column, cells []cell) {
	add := func(oid uint32, typmod int32, text string, bin []byte) {
		c := cell{'t', []byte(text)}
		if inBinary {
			c = cell{'b', bin}
		}
		cols = append(cols, column{fmt.Sprint("c", len(cols)), oid, typmod})
		cells = append(cells, c)
	}
	add(20, -1, "123456789", u64(nil, 123456789))
	for range 4 {
		add(23, -1, "654321", u32(nil, 654321))
		add(25, -1, "a customer's remark of common length, sixty characters or so", []byte("a customer's remark of common length, sixty characters or so"))
		add(1184, -1, "2024-05-06 07:08:09.123456+00", binary.BigEndian.AppendUint64(nil, 768294489123456))
		add(1700, 12<<16+2+4, "12345.67", numericBytes("1234567", 2, false))
		add(16, -1, "t", []byte{1})
	}
	add(2950, -1, "00112233-4455-6677-8899-aabbccddeeff", []byte("0123456789abcdef"))
	doc := `{"tags": ["a", "b"], "note": "some words that stand for a small document", "n": 42}`
	add(3802, -1, doc, append([]byte{1}, doc...))
	add(701, -1, "1234.5678", u64(nil, 0x40934A456D5CFAAD))
	return cols, cells
}
