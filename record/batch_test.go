package record

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"pgregory.net/rapid"
)

func TestKeep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSchema(t)
		b := drawBatch(t, s)
		for i := range b.Ops {
			b.Offsets = append(b.Offsets, int64(100+i))
		}
		var rows []int32
		for i := range b.Ops {
			if rapid.IntRange(0, 2).Draw(t, "keep") > 0 {
				rows = append(rows, int32(i))
			}
		}
		got := NewBatch(s, nil)
		d := NewDecoder(s)
		for _, m := range encodeAll(b) {
			if err := d.Append(got, m.key, m.value, m.unsent); err != nil {
				t.Fatal(err)
			}
		}
		got.Offsets = slices.Clone(b.Offsets)
		got.Keep(rows)
		requireConsistent(t, got)
		if got.Len() != len(rows) || len(got.Offsets) != len(rows) {
			t.Fatalf("%d rows and %d offsets, want %d", got.Len(), len(got.Offsets), len(rows))
		}
		for to, from := range rows {
			if diff := sameRow(b, int(from), got, to); diff != "" || got.Offsets[to] != b.Offsets[from] {
				t.Fatalf("row %d, once %d: %s, offset %d", to, from, diff, got.Offsets[to])
			}
		}
	})
}

func TestKeepAllocatesNothing(t *testing.T) {
	b := wideBatch(wideSchema(), 64)
	rows := make([]int32, 0, 64)
	n := testing.AllocsPerRun(10, func() {
		rows = rows[:0]
		for i := range b.Ops {
			if i != 3 {
				rows = append(rows, int32(i))
			}
		}
		b.Keep(rows)
	})
	if n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestArrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSchema(t)
		b := drawBatch(t, s)
		as := ArrowSchema(s)
		for i := range s.Fields {
			f := &s.Fields[i]
			a := ArrowArray(b.After[i], f)
			if as.Field(i).Name != f.Name || as.Field(i).Nullable != f.Nullable || !arrow.TypeEqual(as.Field(i).Type, a.DataType()) {
				t.Fatalf("field %s: %v for %v", f.Name, as.Field(i), a.DataType())
			}
			if a.Len() != b.Len() {
				t.Fatalf("field %s: %d values, want %d", f.Name, a.Len(), b.Len())
			}
			for row := range b.Len() {
				requireArrowCell(t, a, row, f, b.After[i], row)
			}
			if full, ok := a.(interface{ ValidateFull() error }); ok {
				if err := full.ValidateFull(); err != nil {
					t.Fatalf("field %s: %v", f.Name, err)
				}
			}
			a.Release()
		}
	})
}

func requireArrowCell(t reporter, a arrow.Array, at int, f *Field, v *Vector, row int) {
	t.Helper()
	if a.IsNull(at) != (v.State[row] != Present) {
		t.Fatalf("field %s row %d: null is %v", f.Name, row, a.IsNull(at))
	}
	if a.IsNull(at) {
		return
	}
	same := false
	switch a := a.(type) {
	case *array.Boolean:
		same = a.Value(at) == (v.Fixed[row] != 0)
	case *array.Int16:
		same = a.Value(at) == v.Int16At(row)
	case *array.Int32:
		same = a.Value(at) == v.Int32At(row)
	case *array.Int64:
		same = a.Value(at) == v.Int64At(row)
	case *array.Float32:
		same = math.Float32bits(a.Value(at)) == uint32(v.Int32At(row))
	case *array.Float64:
		same = math.Float64bits(a.Value(at)) == uint64(v.Int64At(row))
	case *array.Decimal128:
		hi, lo := v.DecimalAt(row)
		same = a.Value(at).HighBits() == hi && a.Value(at).LowBits() == lo
	case *array.Date32:
		same = int32(a.Value(at)) == v.Int32At(row)
	case *array.Time64:
		same = int64(a.Value(at)) == v.Int64At(row)
	case *array.Timestamp:
		same = int64(a.Value(at)) == v.Int64At(row)
	case *array.FixedSizeBinary:
		same = bytes.Equal(a.Value(at), v.FixedAt(row, 16))
	case *array.Binary:
		same = bytes.Equal(a.Value(at), v.Value(row))
	case *array.String:
		same = a.Value(at) == string(v.Value(row))
	case *array.List:
		start, end := a.ValueOffsets(at)
		same = end-start == int64(v.Offs[row+1]-v.Offs[row])
		for j := start; same && j < end; j++ {
			requireArrowCell(t, a.ListValues(), int(j), f.Elem, v.Child, int(j))
		}
	}
	if !same {
		t.Fatalf("field %s row %d: %T differs", f.Name, row, a)
	}
}

// TestCanonicalKey: equal keys and only they have equal bytes, also when a column has grown.
func TestCanonicalKey(t *testing.T) {
	cell := func(f Field, add func(v *Vector)) string {
		v := NewVector(&f)
		add(v)
		return string(AppendCanonical(nil, &f, v, 0))
	}
	text := func(k Kind, s string) string {
		return cell(Field{Kind: k}, func(v *Vector) { v.AppendData([]byte(s)) })
	}
	dec := func(p, s int, lo uint64) string {
		return cell(Field{Kind: Decimal, Precision: p, Scale: s}, func(v *Vector) { v.AppendDecimal(0, lo) })
	}
	f64 := func(x float64) string { return cell(Field{Kind: Float64}, func(v *Vector) { v.AppendFloat64(x) }) }
	equal := [][]string{
		{cell(Field{Kind: Int16}, func(v *Vector) { v.AppendInt16(-5) }), cell(Field{Kind: Int32}, func(v *Vector) { v.AppendInt32(-5) }),
			cell(Field{Kind: Int64}, func(v *Vector) { v.AppendInt64(-5) })},
		{f64(0), f64(math.Copysign(0, -1)), cell(Field{Kind: Float32}, func(v *Vector) { v.AppendFloat32(0) })},
		{f64(math.NaN()), f64(math.Float64frombits(0xfff8000000000001)), cell(Field{Kind: Float32}, func(v *Vector) { v.AppendFloat32(float32(math.NaN())) })},
		{dec(10, 2, 150), dec(12, 3, 1500), text(DecimalText, "1.5"), text(DecimalText, "1.500"), text(DecimalText, "01.50")},
		{dec(10, 2, 0), text(DecimalText, "-0.00"), text(DecimalText, "0")},
		{dec(10, 0, 100), text(DecimalText, "100"), text(DecimalText, "100.0")},
		{text(Text, "100"), text(Enum, "100")},
		{text(Bytes, "100")},
		{cell(Field{Kind: Text}, func(v *Vector) { v.AppendMissing(Null, 0) }), cell(Field{Kind: Int64}, func(v *Vector) { v.AppendMissing(Unsent, 8) })},
		{cell(Field{Kind: Int64}, func(v *Vector) { v.AppendInt64(100) })},
		{cell(Field{Kind: Timestamp}, func(v *Vector) { v.AppendInt64(100) })},
		{cell(Field{Kind: TimestampTZ}, func(v *Vector) { v.AppendInt64(100) })},
	}
	seen := map[string]int{}
	for i, group := range equal {
		for _, c := range group {
			if j, ok := seen[c]; ok && j != i || c != group[0] {
				t.Errorf("group %d: %q, group %d; want %q", i, c, j, group[0])
			}
			seen[c] = i
		}
	}
}

func TestCanonicalKeyIsPrefixFree(t *testing.T) {
	s := (&Schema{Fields: []Field{{Name: "b", Kind: Text, Key: 2}, {Name: "x", Kind: Text}, {Name: "a", Kind: Text, Key: 1}}}).Seal()
	b := NewBatch(s, nil)
	for _, pair := range [][2]string{{"a", "bc"}, {"ab", "c"}, {"abc", ""}, {"", "abc"}} {
		b.Ops = append(b.Ops, OpInsert)
		b.After[2].AppendData([]byte(pair[0]))
		b.After[1].AppendData(nil)
		b.After[0].AppendData([]byte(pair[1]))
	}
	seen := map[string]bool{}
	for row := range b.Ops {
		seen[string(CanonicalKey(nil, b, row))] = true
	}
	if len(seen) != 4 {
		t.Errorf("4 keys have %d forms", len(seen))
	}
	if want := "s\x01as\x02bc"; string(CanonicalKey(nil, b, 0)) != want {
		t.Errorf("key %q, want %q", CanonicalKey(nil, b, 0), want)
	}
}

func TestKeysOfEqualNumbersAreEqual(t *testing.T) {
	s := (&Schema{Stream: StreamName{Source: "s", Name: "t"}, Fields: []Field{
		{Name: "n", Kind: DecimalText, Key: 1}, {Name: "f", Kind: Float64, Key: 2}}}).Seal()
	b := NewBatch(s, nil)
	for _, n := range []string{"1.0", "1.00", "1"} {
		b.Ops, b.Pos, b.Time = append(b.Ops, OpInsert), append(b.Pos, Position{}), append(b.Time, 0)
		b.After[0].AppendData([]byte(n))
		b.After[1].AppendFloat64(math.Copysign(0, float64(len(b.Ops)%2)-0.5))
	}
	e := NewEncoder(s, testOrigin)
	for i := range b.Ops {
		if key := string(e.AppendKey(nil, b, i)); key != `{"n":"1","f":0}` {
			t.Errorf("key %s", key)
		}
		if value := string(e.AppendValue(nil, b, i)); !strings.Contains(value, string(b.After[0].Value(i))) {
			t.Errorf("the value lost its digits: %s", value)
		}
	}
}
