package record

import (
	"bytes"
	"fmt"
	"math"
	"strconv"

	"pgregory.net/rapid"
)

// Generators of schemas and batches, and what it means that two batches are equal.

var scalarKinds = []Kind{Bool, Int16, Int32, Int64, Float32, Float64, Decimal, DecimalText, Text, Bytes, Date, Time,
	Timestamp, TimestampTZ, UUID, JSON, Enum}

func drawField(t *rapid.T, name string, kinds []Kind) Field {
	f := Field{Name: name, Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Nullable: rapid.Bool().Draw(t, "nullable")}
	if f.Kind == Decimal {
		f.Precision = rapid.IntRange(1, 38).Draw(t, "precision")
		f.Scale = rapid.IntRange(0, f.Precision).Draw(t, "scale")
	}
	if f.Kind == Array {
		elem := drawField(t, "element", scalarKinds)
		f.Elem = &elem
	}
	return f
}

func drawSchema(t *rapid.T) *Schema {
	s := &Schema{Stream: StreamName{Source: "shop-db", Namespace: "public", Name: rapid.SampledFrom([]string{"orders", `we"ird/`, "größe"}).Draw(t, "table")}}
	keys := rapid.IntRange(0, 2).Draw(t, "keys")
	for i := range keys + rapid.IntRange(0, 6).Draw(t, "more") {
		kinds := append([]Kind{Array}, scalarKinds...)
		name := rapid.SampledFrom([]string{"a", "id", "back\\slash", "quo\"te", "ünïcode", "with space", "tab\t"}).Draw(t, "name") + strconv.Itoa(i)
		f := drawField(t, name, kinds)
		if i < keys {
			f.Key, f.Nullable = keys-i, false
		}
		s.Fields = append(s.Fields, f)
	}
	if len(s.Fields) == 0 {
		s.Fields = append(s.Fields, Field{Name: "only", Kind: Text, Nullable: true})
	}
	return s.Seal()
}

func drawMicros(t *rapid.T) int64 {
	return rapid.OneOf(rapid.Int64(), rapid.Int64Range(-4e15, 4e15), rapid.SampledFrom([]int64{0, -1, math.MaxInt64, math.MinInt64,
		math.MaxInt64 - 1, math.MinInt64 + 1, 253402300799999999, 253402300800000000, -62167219200000000, -62167219200000001})).Draw(t, "micros")
}

func drawText(t *rapid.T) []byte {
	parts := rapid.SliceOfN(rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", `"`, `\`, "\x00", "\x1f", "\x7f", "plain ascii text", "ü", "€", "😀",
		"\u2028", "{\"a\": \"b\\\\c\"}", "},\"op\":\"d\",", string(bytes.Repeat([]byte{'x', '"'}, 700))})), 0, 3).Draw(t, "text")
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func drawValue(t *rapid.T, f *Field, v *Vector) {
	switch f.Kind {
	case Bool:
		v.AppendBool(rapid.Bool().Draw(t, "bool"))
	case Int16:
		v.AppendInt16(rapid.Int16().Draw(t, "int16"))
	case Int32:
		v.AppendInt32(rapid.Int32().Draw(t, "int32"))
	case Int64:
		v.AppendInt64(rapid.Int64().Draw(t, "int64"))
	case Date:
		v.AppendInt32(rapid.OneOf(rapid.Int32(), rapid.Int32Range(-800_000, 3_000_000), rapid.SampledFrom([]int32{math.MaxInt32, math.MinInt32})).Draw(t, "date"))
	case Float32:
		v.AppendFloat32(rapid.OneOf(rapid.Float32(), rapid.SampledFrom([]float32{0, float32(math.Copysign(0, -1)), float32(math.NaN()),
			float32(math.Inf(1)), float32(math.Inf(-1)), 1.5, 0.1, 16777216, math.SmallestNonzeroFloat32, math.MaxFloat32})).Draw(t, "float32"))
	case Float64:
		v.AppendFloat64(rapid.OneOf(rapid.Float64(), rapid.Float64Range(-1000, 1000), rapid.SampledFrom([]float64{0, math.Copysign(0, -1), math.NaN(),
			math.Inf(1), math.Inf(-1), 0.1, 12.34, -99.999999, 1 << 53, 1e22, 1e23, math.SmallestNonzeroFloat64, math.MaxFloat64})).Draw(t, "float64"))
	case Decimal:
		digits := rapid.StringMatching(fmt.Sprintf(`-?[0-9]{1,%d}`, f.Precision)).Draw(t, "decimal")
		hi, lo, err := ParseDecimal([]byte(digits), f.Precision, 0)
		if err != nil {
			t.Fatal(err)
		}
		v.AppendDecimal(hi, lo)
	case DecimalText:
		v.AppendData([]byte(rapid.OneOf(rapid.StringMatching(`-?[0-9]{1,60}(\.[0-9]{1,60})?`), rapid.SampledFrom([]string{textNaN, textInf, textNegInf})).Draw(t, "digits")))
	case Bytes:
		v.AppendData(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	case Time:
		v.AppendInt64(rapid.Int64Range(0, microsPerDay).Draw(t, "time"))
	case Timestamp, TimestampTZ:
		v.AppendInt64(drawMicros(t))
	case UUID:
		v.AppendFixed(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
	case Array:
		for range rapid.IntRange(0, 4).Draw(t, "elements") {
			drawCell(t, f.Elem, v.Child, []byte{Present, Null})
		}
		v.AppendList()
	case JSON:
		v.AppendData(append(appendString([]byte(`{"k": [1, 2.5e3, null], "s": `), drawText(t)), '}'))
	default:
		v.AppendData(drawText(t))
	}
}

func drawCell(t *rapid.T, f *Field, v *Vector, states []byte) {
	state := rapid.SampledFrom(states).Draw(t, "state")
	if state == Null && !f.Nullable {
		state = Present
	}
	if state == Present {
		drawValue(t, f, v)
	} else {
		v.AppendMissing(state, f.Kind.Width())
	}
}

func drawBatch(t *rapid.T, s *Schema) *Batch {
	b := NewBatch(s, nil)
	withBefore := rapid.Bool().Draw(t, "withBefore")
	if withBefore {
		b.Before = NewBatch(s, nil).After
	}
	for row := range rapid.IntRange(0, 6).Draw(t, "rows") {
		op := rapid.SampledFrom([]Op{OpRead, OpInsert, OpUpdate, OpDelete}).Draw(t, "op")
		b.Ops = append(b.Ops, op)
		b.Time = append(b.Time, drawMicros(t))
		if row > 0 && rapid.Bool().Draw(t, "sameTransaction") {
			b.Time[row] = b.Time[row-1]
			b.Pos = append(b.Pos, Position{b.Pos[row-1].Epoch, b.Pos[row-1].LSN, rapid.Uint64().Draw(t, "seq")})
		} else {
			b.Pos = append(b.Pos, Position{rapid.Uint64().Draw(t, "epoch"), rapid.Uint64().Draw(t, "lsn"), rapid.Uint64().Draw(t, "seq")})
		}
		old := withBefore && rapid.Bool().Draw(t, "hasBefore")
		for i := range s.Fields {
			f := &s.Fields[i]
			width := f.Kind.Width()
			switch {
			case f.Key > 0:
				drawValue(t, f, b.After[i])
			case op == OpDelete:
				b.After[i].AppendMissing(Unsent, width)
			default:
				drawCell(t, f, b.After[i], []byte{Present, Present, Null, Unsent})
			}
			if !withBefore {
				continue
			}
			switch {
			case !old:
				b.Before[i].AppendMissing(Unsent, width)
			case op == OpDelete && f.Key > 0:
				b.Before[i].AppendFrom(b.After[i], row, width)
			default:
				drawCell(t, f, b.Before[i], []byte{Present, Present, Null, Unsent})
			}
		}
		if op == OpDelete && old {
			dropLoneKey(b, row)
		}
	}
	return b
}

// dropLoneKey makes the old row of a delete Unsent if it holds the key only: After has that already.
func dropLoneKey(b *Batch, row int) {
	for i := range b.Schema.Fields {
		if b.Schema.Fields[i].Key == 0 && b.Before[i].State[row] != Unsent {
			return
		}
	}
	for i := range b.Schema.Fields {
		f := &b.Schema.Fields[i]
		b.Before[i].truncate(row, f)
		b.Before[i].AppendMissing(Unsent, f.Kind.Width())
	}
}

func sameCell(f *Field, v *Vector, i int, u *Vector, j int) bool {
	if v.State[i] != u.State[j] {
		return false
	}
	switch w := f.Kind.Width(); {
	case v.State[i] != Present:
		return true
	case w > 0:
		return bytes.Equal(v.FixedAt(i, w), u.FixedAt(j, w))
	case f.Kind == Array:
		n := v.Offs[i+1] - v.Offs[i]
		if n != u.Offs[j+1]-u.Offs[j] {
			return false
		}
		for k := range n {
			if !sameCell(f.Elem, v.Child, int(v.Offs[i]+k), u.Child, int(u.Offs[j]+k)) {
				return false
			}
		}
		return true
	}
	return bytes.Equal(v.Value(i), u.Value(j))
}

// sameRow returns what differs between row i of b and row j of c, empty if nothing.
func sameRow(b *Batch, i int, c *Batch, j int) string {
	if b.Ops[i] != c.Ops[j] || b.Pos[i] != c.Pos[j] || b.Time[i] != c.Time[j] {
		return fmt.Sprintf("head: %v %v %v, want %v %v %v", c.Ops[j], c.Pos[j], c.Time[j], b.Ops[i], b.Pos[i], b.Time[i])
	}
	if b.Ops[i].Control() {
		return ""
	}
	for k := range b.Schema.Fields {
		f := &b.Schema.Fields[k]
		if !sameCell(f, b.After[k], i, c.After[k], j) {
			return "after: " + f.Name
		}
		old, new := anySent(b.Before, i), anySent(c.Before, j)
		if old != new || old && !sameCell(f, b.Before[k], i, c.Before[k], j) {
			return "before: " + f.Name
		}
	}
	return ""
}

// reporter is what both testing and rapid offer.
type reporter interface {
	Helper()
	Fatalf(format string, args ...any)
}

func requireSame(t reporter, want, got *Batch) {
	t.Helper()
	if want.Len() != got.Len() {
		t.Fatalf("%d rows, want %d", got.Len(), want.Len())
	}
	requireConsistent(t, got)
	for i := range want.Ops {
		if diff := sameRow(want, i, got, i); diff != "" {
			t.Fatalf("row %d: %s", i, diff)
		}
	}
}

// requireConsistent checks that all columns of b have the same number of rows and their layout holds.
func requireConsistent(t reporter, b *Batch) {
	t.Helper()
	if _, control := b.Control(); control {
		return
	}
	for _, vs := range [][]*Vector{b.After, b.Before} {
		for i, v := range vs {
			if v.Len() != b.Len() {
				t.Fatalf("field %s: %d rows, want %d", b.Schema.Fields[i].Name, v.Len(), b.Len())
			}
			requireLayout(t, v, &b.Schema.Fields[i])
		}
	}
}

func requireLayout(t reporter, v *Vector, f *Field) {
	t.Helper()
	if w := f.Kind.Width(); w > 0 {
		if len(v.Fixed) != w*len(v.State) {
			t.Fatalf("field %s: %d bytes for %d rows", f.Name, len(v.Fixed), len(v.State))
		}
		return
	}
	if len(v.Offs) != len(v.State)+1 {
		t.Fatalf("field %s: %d offsets for %d rows", f.Name, len(v.Offs), len(v.State))
	}
	end := len(v.Data)
	if f.Kind == Array {
		requireLayout(t, v.Child, f.Elem)
		end = v.Child.Len()
	}
	if int(v.Offs[len(v.State)]) != end {
		t.Fatalf("field %s: last offset %d, want %d", f.Name, v.Offs[len(v.State)], end)
	}
}

// message is one encoded row.
type message struct{ key, value, unsent []byte }

var testOrigin = Origin{Connector: "postgresql", Name: "shop.shop-db", Database: `sh"op`}

func encodeAll(b *Batch) []message {
	e := NewEncoder(b.Schema, testOrigin)
	var out []message
	for i := range b.Ops {
		out = append(out, message{e.AppendKey(nil, b, i), e.AppendValue(nil, b, i), e.AppendUnsent(nil, b, i)})
	}
	return out
}
