package record

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"
)

// wideSchema and taxiSchema have the shape of an order table with 24 columns
// and about 750 bytes a row, and of a trip table with 12 narrow columns.
func wideSchema() *Schema {
	n := func(f Field) Field { f.Nullable = true; return f }
	return (&Schema{Stream: StreamName{Source: "shop-db", Namespace: "public", Name: "orders_wide"}, Fields: []Field{
		{Name: "id", Kind: Int64, Key: 1}, {Name: "customer_id", Kind: Int64}, {Name: "product_id", Kind: Int32},
		n(Field{Name: "warehouse_id", Kind: Int32}), {Name: "quantity", Kind: Int32},
		{Name: "unit_price", Kind: Decimal, Precision: 18, Scale: 4}, n(Field{Name: "discount", Kind: Decimal, Precision: 18, Scale: 4}),
		{Name: "total", Kind: Decimal, Precision: 18, Scale: 4}, n(Field{Name: "tax_rate", Kind: Float64}),
		{Name: "currency", Kind: Text}, {Name: "status", Kind: Text}, n(Field{Name: "channel", Kind: Text}), n(Field{Name: "email", Kind: Text}),
		n(Field{Name: "ship_name", Kind: Text}), n(Field{Name: "ship_address", Kind: Text}), n(Field{Name: "ship_country", Kind: Text}),
		n(Field{Name: "note", Kind: Text}), {Name: "created_at", Kind: TimestampTZ}, n(Field{Name: "shipped_at", Kind: TimestampTZ}),
		{Name: "order_date", Kind: Date}, {Name: "is_gift", Kind: Bool}, {Name: "order_uuid", Kind: UUID}, {Name: "attrs", Kind: JSON},
		{Name: "updated_at", Kind: TimestampTZ},
	}}).Seal()
}

func taxiSchema() *Schema {
	n := func(f Field) Field { f.Nullable = true; return f }
	return (&Schema{Stream: StreamName{Source: "shop-db", Namespace: "public", Name: "taxi_trips"}, Fields: []Field{
		{Name: "trip_id", Kind: Int64, Key: 1}, {Name: "vendor_id", Kind: Int32}, {Name: "pickup_at", Kind: TimestampTZ},
		{Name: "dropoff_at", Kind: TimestampTZ}, n(Field{Name: "passenger_count", Kind: Int32}), n(Field{Name: "trip_distance", Kind: Float64}),
		n(Field{Name: "pu_location", Kind: Int32}), n(Field{Name: "do_location", Kind: Int32}), n(Field{Name: "payment_type", Kind: Int32}),
		n(Field{Name: "fare_amount", Kind: Decimal, Precision: 10, Scale: 2}), n(Field{Name: "tip_amount", Kind: Decimal, Precision: 10, Scale: 2}),
		n(Field{Name: "total_amount", Kind: Decimal, Precision: 10, Scale: 2}),
	}}).Seal()
}

func wideBatch(s *Schema, rows int) *Batch {
	rng := rand.New(rand.NewPCG(1, 2))
	pool := strings.Repeat("order late customer please deliver before noon gift wrap fragile blue red return refund address changed call gate code left ", 14)
	words := func(n int) []byte { at := rng.IntN(len(pool) - n); return []byte(pool[at : at+n]) }
	pick := func(of ...string) []byte { return []byte(of[rng.IntN(len(of))]) }
	b := NewBatch(s, nil)
	for i := range rows {
		b.Ops, b.Pos, b.Time = append(b.Ops, OpRead), append(b.Pos, Position{1, 0x1980a28, 0}), append(b.Time, 1_700_000_000_123_456)
		a := b.After
		orNull := func(k, every int, add func(v *Vector)) {
			if rng.IntN(every) == 0 {
				a[k].AppendMissing(Null, s.Fields[k].Kind.Width())
			} else {
				add(a[k])
			}
		}
		a[0].AppendInt64(int64(i + 1))
		a[1].AppendInt64(1 + rng.Int64N(250_000))
		a[2].AppendInt32(1 + rng.Int32N(20_000))
		orNull(3, 20, func(v *Vector) { v.AppendInt32(rng.Int32N(40)) })
		a[4].AppendInt32(1 + rng.Int32N(12))
		a[5].AppendDecimal(0, rng.Uint64N(9_999_999)*10)
		orNull(6, 3, func(v *Vector) { v.AppendDecimal(0, rng.Uint64N(500_000)) })
		a[7].AppendDecimal(0, rng.Uint64N(1_000_000_000))
		a[8].AppendFloat64(float64(rng.IntN(2500)) / 10000)
		a[9].AppendData(pick("EUR", "USD", "GBP", "PLN"))
		a[10].AppendData(pick("new", "paid", "packed", "shipped", "delivered", "on_hold"))
		orNull(11, 5, func(v *Vector) { v.AppendData(pick("web", "app", "store", "phone")) })
		a[12].AppendData(fmt.Appendf(nil, "user%d@%s", rng.IntN(250_000), pick("example.com", "mail.example.net")))
		a[13].AppendData(words(8 + rng.IntN(14)))
		a[14].AppendData(words(28 + rng.IntN(50)))
		a[15].AppendData(pick("DE", "US", "GB"))
		orNull(16, 10, func(v *Vector) { v.AppendData(words(rng.IntN(600))) })
		a[17].AppendInt64(1_704_067_200_000_000 + rng.Int64N(63_072_000_000_000))
		orNull(18, 3, func(v *Vector) { v.AppendInt64(1_704_067_200_000_000 + 1_000_000*rng.Int64N(63_072_000)) })
		a[19].AppendInt32(19_723 + rng.Int32N(730))
		a[20].AppendBool(rng.IntN(17) == 0)
		var u [16]byte
		binary.LittleEndian.PutUint64(u[:], rng.Uint64())
		binary.LittleEndian.PutUint64(u[8:], rng.Uint64())
		a[21].AppendFixed(u[:])
		a[22].AppendData(fmt.Appendf(nil, `{"ip": "10.%d.%d.%d", "utm": "%s", "tags": ["%s", "%s"], "score": %d, "device": {"os": "%s", "ver": %d, "beta": true}, "session": "%x"}`,
			rng.IntN(256), rng.IntN(256), rng.IntN(256), words(20), words(8), words(8), rng.IntN(1000), pick("ios", "android", "linux"), rng.IntN(40), rng.Uint64()))
		a[23].AppendInt64(1_760_000_000_000_000 + rng.Int64N(1_000_000_000))
	}
	return b
}

func taxiBatch(s *Schema, rows int) *Batch {
	rng := rand.New(rand.NewPCG(3, 4))
	b := NewBatch(s, nil)
	for i := range rows {
		b.Ops, b.Pos, b.Time = append(b.Ops, OpRead), append(b.Pos, Position{1, 0x1980a28, 0}), append(b.Time, 1_700_000_000_123_456)
		a := b.After
		t0 := 1_735_689_600_000_000 + 1_000_000*rng.Int64N(31_536_000)
		dur := rng.Int64N(5400)
		a[0].AppendInt64(int64(i + 1))
		a[1].AppendInt32(1 + rng.Int32N(2))
		a[2].AppendInt64(t0)
		a[3].AppendInt64(t0 + 1_000_000*(60+dur))
		if rng.IntN(25) == 0 {
			a[4].AppendMissing(Null, 4)
		} else {
			a[4].AppendInt32(1 + rng.Int32N(6))
		}
		a[5].AppendFloat64(float64(dur)/300 + float64(rng.IntN(100))/100)
		a[6].AppendInt32(1 + rng.Int32N(263))
		a[7].AppendInt32(1 + rng.Int32N(263))
		a[8].AppendInt32(1 + rng.Int32N(4))
		a[9].AppendDecimal(0, uint64(300+100*dur/60))
		a[10].AppendDecimal(0, rng.Uint64N(1500))
		a[11].AppendDecimal(0, uint64(350+100*dur/60))
	}
	return b
}

const benchRows = 2048

func benchBatches() map[string]*Batch {
	return map[string]*Batch{"wide": wideBatch(wideSchema(), benchRows), "taxi": taxiBatch(taxiSchema(), benchRows)}
}

// cpuTime returns the CPU time of this process: on a busy machine it says more than the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkEncode(b *testing.B) {
	for name, batch := range benchBatches() {
		b.Run(name, func(b *testing.B) {
			e := NewEncoder(batch.Schema, Origin{"postgresql", "shop.shop-db", "shop"})
			var buf []byte
			bytes := 0
			b.ReportAllocs()
			start := cpuTime()
			for i := 0; b.Loop(); i++ {
				row := i % benchRows
				buf = e.AppendKey(buf[:0], batch, row)
				buf = e.AppendValue(buf[:0], batch, row)
				bytes += len(buf)
			}
			b.ReportMetric(float64(cpuTime()-start)/float64(b.N), "cpu-ns/row")
			b.ReportMetric(float64(bytes)/float64(b.N), "B/row")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, batch := range benchBatches() {
		b.Run(name, func(b *testing.B) {
			e := NewEncoder(batch.Schema, Origin{"postgresql", "shop.shop-db", "shop"})
			values := make([][]byte, benchRows)
			for i := range values {
				values[i] = e.AppendValue(nil, batch, i)
			}
			d, out := NewDecoder(batch.Schema), NewBatch(batch.Schema, nil)
			var heads HeadReader
			b.ReportAllocs()
			start := cpuTime()
			for i := 0; b.Loop(); i++ {
				row := i % benchRows
				if row == 0 {
					out.Reset()
				}
				if _, err := heads.Read(values[row]); err != nil {
					b.Fatal(err)
				}
				if err := d.Append(out, nil, values[row], nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime()-start)/float64(b.N), "cpu-ns/row")
		})
	}
}

func BenchmarkCanonicalKey(b *testing.B) {
	batch := wideBatch(wideSchema(), benchRows)
	var buf []byte
	for i := 0; b.Loop(); i++ {
		buf = CanonicalKey(buf[:0], batch, i%benchRows)
	}
}

// TestNoAllocations holds the codecs to no allocation a row once they have seen one batch.
func TestNoAllocations(t *testing.T) {
	batch := wideBatch(wideSchema(), 256)
	for i := range batch.Pos {
		batch.Ops[i] = []Op{OpInsert, OpUpdate, OpUpdate}[i%3]
		batch.Pos[i] = Position{1, uint64(1000 + i/4), uint64(2 * (i % 4))}
		batch.Time[i] = int64(1_700_000_000_000_000 + i/4)
	}
	e, d, out := NewEncoder(batch.Schema, testOrigin), NewDecoder(batch.Schema), NewBatch(batch.Schema, nil)
	var heads HeadReader
	var key, value []byte
	pass := func() {
		out.Reset()
		for i := range batch.Ops {
			key = e.AppendKey(key[:0], batch, i)
			value = e.AppendValue(value[:0], batch, i)
			if _, err := heads.Read(value); err != nil {
				t.Fatal(err)
			}
			if err := d.Append(out, key, value, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	pass()
	if n := testing.AllocsPerRun(5, pass); n > 0 {
		t.Errorf("%v allocations for %d rows", n, batch.Len())
	}
	requireSame(t, batch, out)
}
