package lake

import (
	"context"
	"maps"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/sluice-data/sluice/record"
)

// cpuMicros returns the CPU time this process has used.
func cpuMicros() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return (u.Utime.Sec+u.Stime.Sec)*1e6 + u.Utime.Usec + u.Stime.Usec
}

// wideSchema is a shop's order: numbers, money, times and text, about 700 bytes a row.
func wideSchema() *record.Schema {
	f := []record.Field{{Name: "id", Kind: record.Int64, Key: 1}}
	add := func(k record.Kind, names ...string) {
		for _, n := range names {
			f = append(f, record.Field{Name: n, Kind: k, Nullable: true})
		}
	}
	add(record.Int32, "status_id", "store_id", "quantity")
	add(record.TimestampTZ, "created_at", "updated_at")
	add(record.Float64, "lat", "lon")
	add(record.Bool, "gift", "paid")
	add(record.Enum, "currency", "state")
	add(record.UUID, "external_id")
	add(record.Text, "email", "name", "note", "street")
	add(record.JSON, "attributes")
	f = append(f, record.Field{Name: "total", Kind: record.Decimal, Precision: 12, Scale: 2})
	return testSchema(f...)
}

func wideRow(r *rand.Rand, id int) []any {
	word := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "etaoin shrdlu"[r.IntN(13)]
		}
		return string(b)
	}
	uuid := make([]byte, 16)
	for i := range uuid {
		uuid[i] = byte(r.Uint32())
	}
	at := 1_700_000_000_000_000 + id*1_000_000
	return []any{id, r.IntN(9), r.IntN(200), r.IntN(20), at, at + r.IntN(1e9), r.Float64() * 90, r.Float64() * 180, r.IntN(2) == 0, r.IntN(2) == 0,
		[]string{"EUR", "USD", "SEK"}[r.IntN(3)], []string{"new", "sent", "done"}[r.IntN(3)], uuid,
		word(8) + "@example.com", word(18), word(300), word(24), `{"k":"` + word(40) + `"}`, r.IntN(1e7)}
}

func wideBatches(b *testing.B, rows, size int) []*record.Batch {
	r := rand.New(rand.NewPCG(1, 2))
	s := wideSchema()
	var out []*record.Batch
	for k := 0; k < rows; k += size {
		list := make([]row, size)
		for i := range list {
			list[i] = row{record.OpInsert, at(1, uint64(k+i+1)), wideRow(r, k+i)}
		}
		out = append(out, batchOf(b, s, 0, int64(k), list...))
	}
	return out
}

// BenchmarkWrite measures columns → Parquet → store → commit; µs is CPU of
// this process for one row, without the gateway's.
func BenchmarkWrite(b *testing.B) {
	const rows = 131072
	batches := wideBatches(b, rows, 8192)
	for _, mode := range []string{Append, Upsert} {
		b.Run(mode, func(b *testing.B) {
			w := newWorld(b)
			u := openWriter(b, w.open(nil), TableConfig{Mode: mode})
			start := cpuMicros()
			for n := range b.N {
				for _, x := range batches {
					y := *x
					y.Offsets = make([]int64, x.Len())
					for i := range y.Offsets {
						y.Offsets[i] = int64(n*rows) + x.Offsets[i]
					}
					u.write(&y)
				}
				if err := u.flush(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuMicros()-start)/float64(b.N*rows), "cpu-µs/row")
		})
	}
}

// BenchmarkUpsertMix measures W3: 60 % updates, 30 % inserts, 10 % deletes of a table of 200 k rows.
func BenchmarkUpsertMix(b *testing.B) {
	w := newWorld(b)
	u := openWriter(b, w.open(nil), TableConfig{Mode: Upsert})
	r := rand.New(rand.NewPCG(3, 4))
	s := wideSchema()
	rows := 0
	for _, x := range wideBatches(b, 204800, 8192) {
		rows += x.Len()
		u.write(x)
	}
	u.mustFlush()
	const changes = 50_000
	var batches []*record.Batch
	offset := rows
	pool := make([][]any, 2000)
	for i := range pool {
		pool[i] = wideRow(r, i)
	}
	for k := 0; k < 4*changes; k += 1000 {
		list := make([]row, 1000)
		for i := range list {
			offset++
			values := append([]any{}, pool[r.IntN(len(pool))]...)
			values[0] = r.IntN(rows)
			list[i] = row{record.OpUpdate, at(1, uint64(offset)), values}
			switch p := r.IntN(10); {
			case p < 3:
				rows++
				values[0] = rows
				list[i].op = record.OpInsert
			case p == 3:
				list[i].op, list[i].values = record.OpDelete, values[:1]
			}
		}
		batches = append(batches, batchOf(b, s, 0, int64(offset-1000), list...))
	}
	b.ResetTimer()
	start, n := cpuMicros(), 0
	for range b.N {
		for i, x := range batches {
			u.write(x)
			n += x.Len()
			if (i+1)%50 == 0 {
				if _, err := u.tbl.Flush(context.Background(), maps.Clone(u.marks)); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.ReportMetric(float64(cpuMicros()-start)/float64(n), "cpu-µs/change")
	b.ReportMetric(0, "ns/op")
}
