package record

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// hardSchema has a field of every kind.
func hardSchema() *Schema {
	elem := func(k Kind) *Field { return &Field{Name: "element", Kind: k, Nullable: true} }
	return (&Schema{Stream: StreamName{Source: "shop-db", Namespace: "public", Name: "hard"}, Fields: []Field{
		{Name: "id", Kind: Int64, Key: 1},
		{Name: "flag", Kind: Bool, Nullable: true},
		{Name: "i2", Kind: Int16, Nullable: true},
		{Name: "i4", Kind: Int32, Nullable: true},
		{Name: "i8", Kind: Int64, Nullable: true},
		{Name: "f4", Kind: Float32, Nullable: true},
		{Name: "f8", Kind: Float64, Nullable: true},
		{Name: "n38", Kind: Decimal, Precision: 38, Scale: 10, Nullable: true},
		{Name: "n", Kind: DecimalText, Nullable: true},
		{Name: "txt", Kind: Text, Nullable: true},
		{Name: "raw", Kind: Bytes, Nullable: true},
		{Name: "day", Kind: Date, Nullable: true},
		{Name: "clock", Kind: Time, Nullable: true},
		{Name: "local", Kind: Timestamp, Nullable: true},
		{Name: "at", Kind: TimestampTZ, Nullable: true},
		{Name: "uid", Kind: UUID, Nullable: true},
		{Name: "doc", Kind: JSON, Nullable: true},
		{Name: "mood", Kind: Enum, Nullable: true},
		{Name: "ints", Kind: Array, Nullable: true, Elem: elem(Int32)},
		{Name: "texts", Kind: Array, Nullable: true, Elem: elem(Text)},
		{Name: "moments", Kind: Array, Nullable: true, Elem: elem(TimestampTZ)},
	}}).Seal()
}

// hardValues are the values that are easily lost, field by field: each is
// appended by its function and written as its text.
var hardValues = []struct {
	field, text string
	add         func(v *Vector)
}{
	{"flag", `true`, func(v *Vector) { v.AppendBool(true) }},
	{"i2", `-32768`, func(v *Vector) { v.AppendInt16(math.MinInt16) }},
	{"i4", `-2147483648`, func(v *Vector) { v.AppendInt32(math.MinInt32) }},
	{"i8", `-9223372036854775808`, func(v *Vector) { v.AppendInt64(math.MinInt64) }},
	{"i8", `9223372036854775807`, func(v *Vector) { v.AppendInt64(math.MaxInt64) }},
	{"f4", `3.4028235e+38`, func(v *Vector) { v.AppendFloat32(math.MaxFloat32) }},
	{"f4", `1e-45`, func(v *Vector) { v.AppendFloat32(math.SmallestNonzeroFloat32) }},
	{"f4", `0.1`, func(v *Vector) { v.AppendFloat32(0.1) }},
	{"f4", `"NaN"`, func(v *Vector) { v.AppendFloat32(float32(math.NaN())) }},
	{"f8", `-0.0`, func(v *Vector) { v.AppendFloat64(math.Copysign(0, -1)) }},
	{"f8", `5e-324`, func(v *Vector) { v.AppendFloat64(math.SmallestNonzeroFloat64) }},
	{"f8", `1.7976931348623157e+308`, func(v *Vector) { v.AppendFloat64(math.MaxFloat64) }},
	{"f8", `0.1`, func(v *Vector) { v.AppendFloat64(0.1) }},
	{"f8", `0.30000000000000004`, func(v *Vector) { v.AppendFloat64(math.Nextafter(0.3, 1)) }},
	{"f8", `"NaN"`, func(v *Vector) { v.AppendFloat64(math.NaN()) }},
	{"f8", `"Infinity"`, func(v *Vector) { v.AppendFloat64(math.Inf(1)) }},
	{"f8", `"-Infinity"`, func(v *Vector) { v.AppendFloat64(math.Inf(-1)) }},
	{"n38", `"9999999999999999999999999999.9999999999"`, decimalText("9999999999999999999999999999.9999999999")},
	{"n38", `"-9999999999999999999999999999.9999999999"`, decimalText("-9999999999999999999999999999.9999999999")},
	{"n38", `"0.0000000001"`, decimalText("0.0000000001")},
	{"n38", `"-0.0000000001"`, decimalText("-0.0000000001")},
	{"n38", `"0.0000000000"`, decimalText("0")},
	{"n", `"1.50"`, raw("1.50")},
	{"n", `"123456789012345678901234567890123456789012345678901234567890.000000000000000000000000000001"`,
		raw("123456789012345678901234567890123456789012345678901234567890.000000000000000000000000000001")},
	{"n", `"NaN"`, raw("NaN")},
	{"n", `"Infinity"`, raw("Infinity")},
	{"n", `"-Infinity"`, raw("-Infinity")},
	{"txt", `""`, raw("")},
	{"txt", `"\"\\\b\f\n\r\t\u0001/ ü€😀"`, raw("\"\\\b\f\n\r\t\x01/ ü€😀")},
	{"txt", `"null"`, raw("null")},
	{"txt", `"__debezium_unavailable_value"`, raw("__debezium_unavailable_value")},
	{"raw", `""`, raw("")},
	{"raw", `"AAAA/w=="`, raw("\x00\x00\x00\xff")},
	{"day", `"0001-01-01"`, func(v *Vector) { v.AppendInt32(-719162) }},
	{"day", `"0000-12-31"`, func(v *Vector) { v.AppendInt32(-719163) }},
	{"day", `"-4713-11-24"`, func(v *Vector) { v.AppendInt32(-2440588) }},
	{"day", `"9999-12-31"`, func(v *Vector) { v.AppendInt32(2932896) }},
	{"day", `"+10000-01-01"`, func(v *Vector) { v.AppendInt32(2932897) }},
	{"day", `"infinity"`, func(v *Vector) { v.AppendInt32(math.MaxInt32) }},
	{"day", `"-infinity"`, func(v *Vector) { v.AppendInt32(math.MinInt32) }},
	{"clock", `"00:00:00.000000"`, func(v *Vector) { v.AppendInt64(0) }},
	{"clock", `"23:59:59.999999"`, func(v *Vector) { v.AppendInt64(microsPerDay - 1) }},
	{"clock", `"24:00:00.000000"`, func(v *Vector) { v.AppendInt64(microsPerDay) }},
	{"local", `"1969-12-31T23:59:59.999999"`, func(v *Vector) { v.AppendInt64(-1) }},
	{"local", `"-0043-03-15T12:00:00.000001"`, func(v *Vector) { v.AppendInt64(-63517780799999999) }},
	{"local", `"+10000-01-01T00:00:00.000000"`, func(v *Vector) { v.AppendInt64(253402300800000000) }},
	{"local", `"infinity"`, func(v *Vector) { v.AppendInt64(math.MaxInt64) }},
	{"at", `"2024-02-29T12:34:56.789012Z"`, func(v *Vector) { v.AppendInt64(1709210096789012) }},
	{"at", `"+294247-01-10T04:00:54.775806Z"`, func(v *Vector) { v.AppendInt64(math.MaxInt64 - 1) }},
	{"at", `"-290308-12-21T19:59:05.224193Z"`, func(v *Vector) { v.AppendInt64(math.MinInt64 + 1) }},
	{"at", `"infinity"`, func(v *Vector) { v.AppendInt64(math.MaxInt64) }},
	{"at", `"-infinity"`, func(v *Vector) { v.AppendInt64(math.MinInt64) }},
	{"uid", `"00112233-4455-6677-8899-aabbccddeeff"`, func(v *Vector) {
		v.AppendFixed([]byte{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff})
	}},
	{"doc", `"{\"k\": \"ü\\u0000\\\"\", \"n\": 1.0}"`, raw(`{"k": "ü\u0000\"", "n": 1.0}`)},
	{"doc", `"null"`, raw(`null`)},
	{"doc", `"\"text\""`, raw(`"text"`)},
	{"mood", `"so-so"`, raw("so-so")},
	{"ints", `[]`, func(v *Vector) { v.AppendList() }},
	{"ints", `[1,null,-2147483648]`, func(v *Vector) {
		v.Child.AppendInt32(1)
		v.Child.AppendMissing(Null, 4)
		v.Child.AppendInt32(math.MinInt32)
		v.AppendList()
	}},
	{"texts", `["","a\"b",null]`, func(v *Vector) {
		v.Child.AppendData(nil)
		v.Child.AppendData([]byte(`a"b`))
		v.Child.AppendMissing(Null, 0)
		v.AppendList()
	}},
	{"moments", `["infinity","1970-01-01T00:00:00.000000Z"]`, func(v *Vector) {
		v.Child.AppendInt64(math.MaxInt64)
		v.Child.AppendInt64(0)
		v.AppendList()
	}},
}

func raw(s string) func(v *Vector) { return func(v *Vector) { v.AppendData([]byte(s)) } }

func decimalText(s string) func(v *Vector) {
	return func(v *Vector) {
		hi, lo, err := ParseDecimal([]byte(s), 38, 10)
		if err != nil {
			panic(err)
		}
		v.AppendDecimal(hi, lo)
	}
}

// hardBatch has one row for each hard value, nulls in its other fields.
func hardBatch() *Batch {
	s := hardSchema()
	b := NewBatch(s, nil)
	for row, h := range hardValues {
		b.Ops, b.Time = append(b.Ops, OpInsert), append(b.Time, 1_700_000_000_000_000)
		b.Pos = append(b.Pos, Position{1, 0x1980a28, uint64(2 * row)})
		b.After[0].AppendInt64(int64(row))
		for i := 1; i < len(s.Fields); i++ {
			if s.Fields[i].Name == h.field {
				h.add(b.After[i])
			} else {
				b.After[i].AppendMissing(Null, s.Fields[i].Kind.Width())
			}
		}
	}
	return b
}

func TestHardValues(t *testing.T) {
	b := hardBatch()
	d, got := NewDecoder(b.Schema), NewBatch(b.Schema, nil)
	for row, m := range encodeAll(b) {
		var e struct{ After map[string]json.RawMessage }
		if err := json.Unmarshal(m.value, &e); err != nil {
			t.Fatal(err)
		}
		h := hardValues[row]
		if text := string(e.After[h.field]); text != h.text {
			t.Errorf("%s is written as %s, want %s", h.field, text, h.text)
		}
		if err := d.Append(got, m.key, m.value, m.unsent); err != nil {
			t.Fatalf("%s %s: %v", h.field, h.text, err)
		}
	}
	requireSame(t, b, got)
	big := NewBatch(b.Schema, nil)
	big.Ops, big.Pos, big.Time = []Op{OpInsert}, []Position{{}}, []int64{0}
	for i := range b.Schema.Fields {
		switch f := &b.Schema.Fields[i]; f.Name {
		case "id":
			big.After[i].AppendInt64(1)
		case "txt":
			big.After[i].AppendData(bytes.Repeat([]byte("1 MB of \"text\" \x00€ "), 50_000))
		default:
			big.After[i].AppendMissing(Null, f.Kind.Width())
		}
	}
	m := encodeAll(big)[0]
	got.Reset()
	if err := d.Append(got, m.key, m.value, m.unsent); err != nil {
		t.Fatal(err)
	}
	requireSame(t, big, got)
}

// TestGolden holds the bytes of the wire format still: what is on a topic must stay readable.
func TestGolden(t *testing.T) {
	b := hardBatch()
	messages := encodeAll(b)
	ops := NewBatch(b.Schema, nil)
	ops.Before = NewBatch(b.Schema, nil).After
	txt := b.Schema.Index("txt")
	for row, op := range []Op{OpRead, OpUpdate, OpUpdate, OpDelete, OpDelete} {
		ops.Ops, ops.Time, ops.Pos = append(ops.Ops, op), append(ops.Time, int64(-1+row)), append(ops.Pos, Position{2, 16, uint64(row)})
		full := row == 2 || row == 4
		for i := range b.Schema.Fields {
			after, before, w := ops.After[i], ops.Before[i], b.Schema.Fields[i].Kind.Width()
			switch {
			case i == 0:
				after.AppendInt64(7)
			case op == OpDelete || row == 1 && i == txt:
				after.AppendMissing(Unsent, w)
			default:
				after.AppendMissing(Null, w)
			}
			switch {
			case !full:
				before.AppendMissing(Unsent, w)
			case i == 0:
				before.AppendInt64(7)
			case i == txt:
				before.AppendData([]byte("old"))
			default:
				before.AppendMissing(Null, w)
			}
		}
	}
	messages = append(messages, encodeAll(ops)...)
	for _, op := range []Op{OpTruncate, OpBackfillBegin, OpBackfillEnd} {
		messages = append(messages, encodeAll(NewControl(b.Schema, op, Position{3, 0xff, 1}, 1_700_000_000_000_000))...)
	}
	var out bytes.Buffer
	for _, m := range messages {
		fmt.Fprintf(&out, "key    %s\nvalue  %s\nunsent %s\n\n", m.key, m.value, m.unsent)
		requireDebezium(t, m)
	}
	path := filepath.Join("testdata", "envelope.golden")
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, out.Bytes()) {
		t.Errorf("the envelope is not what %s holds; if it may change, run: go test ./record -run Golden -update", path)
	}
}

// requireDebezium checks a value against the field list of Debezium's envelope.
func requireDebezium(t *testing.T, m message) {
	t.Helper()
	var e map[string]any
	if err := json.Unmarshal(m.value, &e); err != nil {
		t.Fatal(err)
	}
	for name := range e {
		if !slices.Contains([]string{"before", "after", "source", "op", "ts_ms", "ts_us", "ts_ns", "transaction", "message"}, name) {
			t.Errorf("member %s is not of the envelope", name)
		}
	}
	if op, _ := e["op"].(string); len(op) != 1 || !slices.Contains([]string{"c", "u", "d", "r", "t", "m"}, op) {
		t.Errorf("op %v", e["op"])
	}
	if _, ok := e["ts_ms"].(float64); !ok {
		t.Errorf("ts_ms %v", e["ts_ms"])
	}
	source, _ := e["source"].(map[string]any)
	for _, name := range []string{"connector", "name", "db", "schema", "table", "snapshot"} {
		if _, ok := source[name].(string); !ok {
			t.Errorf("source.%s is %v", name, source[name])
		}
	}
	for _, name := range []string{"ts_ms", "ts_us", "lsn"} {
		if _, ok := source[name].(float64); !ok {
			t.Errorf("source.%s is %v", name, source[name])
		}
	}
	if s := source["snapshot"]; s != "true" && s != "false" || (s == "true") != (e["op"] == "r") {
		t.Errorf("source.snapshot is %v with op %v", s, e["op"])
	}
	if (e["op"] == "m") != (e["message"] != nil) {
		t.Errorf("message is %v with op %v", e["message"], e["op"])
	}
}
