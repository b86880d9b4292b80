package mappers

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/record"
)

// ring is a key ring for tests.
type ring map[string][]byte

func (r ring) Ring(ref keys.Ref) (*keys.Ring, bool) {
	k, ok := r[ref.Name]
	if !ok {
		return nil, false
	}
	return keys.Single(k), true
}

func (r ring) Key(ref keys.Ref) ([]byte, bool) {
	k, ok := r[ref.Name]
	return k, ok
}

var testRing = ring{"k": []byte("0123456789abcdef0123456789abcdef"), "short": []byte("short"),
	"k64": []byte(strings.Repeat("0123456789abcdef", 4))}

func ref(name string) keys.Ref { return keys.Ref{Scheme: keys.Env, Name: name} }

// schemaOf reads "id int64 key, email text, price decimal(10,2)"; a ! behind the type = not null.
func schemaOf(spec string) *record.Schema {
	s := &record.Schema{Stream: record.StreamName{Source: "shop-db", Namespace: "public", Name: "t"}}
	key := 0
	for _, part := range splitTop(spec) {
		words := strings.Fields(part)
		f := record.Field{Name: words[0], Nullable: true}
		kind := words[1]
		if strings.HasSuffix(kind, "[]") {
			e := fieldOfType(strings.TrimSuffix(kind, "[]"))
			e.Name, e.Nullable = "element", true
			f.Kind, f.Elem = record.Array, &e
		} else {
			g := fieldOfType(kind)
			f.Kind, f.Precision, f.Scale = g.Kind, g.Precision, g.Scale
		}
		if len(words) > 2 && words[2] == "key" {
			key++
			f.Key, f.Nullable = key, false
		}
		s.Fields = append(s.Fields, f)
	}
	return s.Seal()
}

// splitTop splits at commas outside parentheses.
func splitTop(s string) []string {
	var parts []string
	depth, from := 0, 0
	for i, c := range s {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				parts, from = append(parts, s[from:i]), i+1
			}
		}
	}
	return append(parts, s[from:])
}

func fieldOfType(s string) record.Field {
	if rest, ok := strings.CutPrefix(s, "decimal("); ok {
		p, sc, _ := strings.Cut(strings.TrimSuffix(rest, ")"), ",")
		f := record.Field{Kind: record.Decimal}
		f.Precision, _ = strconv.Atoi(p)
		f.Scale, _ = strconv.Atoi(sc)
		return f
	}
	k, err := record.ParseKind(s)
	if err != nil {
		panic(err)
	}
	return record.Field{Kind: k}
}

// Cells that are no value.
const (
	null   = "NULL"
	absent = "-" // unsent
)

func appendCell(t helper, v *record.Vector, f *record.Field, cell string) {
	t.Helper()
	switch cell {
	case null:
		v.AppendMissing(record.Null, f.Kind.Width())
		return
	case absent:
		v.AppendMissing(record.Unsent, f.Kind.Width())
		return
	}
	fail := func(err error) {
		if err != nil {
			t.Fatalf("cell %s of %s: %v", cell, f.Name, err)
		}
	}
	switch f.Kind {
	case record.Bool:
		v.AppendBool(cell == "true")
	case record.Int16, record.Int32, record.Int64:
		n, err := strconv.ParseInt(cell, 10, 64)
		fail(err)
		switch f.Kind {
		case record.Int16:
			v.AppendInt16(int16(n))
		case record.Int32:
			v.AppendInt32(int32(n))
		default:
			v.AppendInt64(n)
		}
	case record.Float32, record.Float64:
		x, err := strconv.ParseFloat(cell, 64)
		fail(err)
		if f.Kind == record.Float32 {
			v.AppendFloat32(float32(x))
		} else {
			v.AppendFloat64(x)
		}
	case record.Decimal:
		hi, lo, err := record.ParseDecimal([]byte(cell), f.Precision, f.Scale)
		fail(err)
		v.AppendDecimal(hi, lo)
	case record.Date:
		d, ok := parseDate([]byte(cell))
		if !ok {
			t.Fatalf("date %s", cell)
		}
		v.AppendInt32(d)
	case record.Time:
		c, ok := parseClock([]byte(cell))
		if !ok {
			t.Fatalf("time %s", cell)
		}
		v.AppendInt64(c)
	case record.Timestamp, record.TimestampTZ:
		c, ok := parseTimestamp([]byte(cell), f.Kind == record.TimestampTZ)
		if !ok {
			t.Fatalf("timestamp %s", cell)
		}
		v.AppendInt64(c)
	case record.UUID:
		u, ok := parseUUID([]byte(cell))
		if !ok {
			t.Fatalf("uuid %s", cell)
		}
		v.AppendFixed(u[:])
	case record.Array:
		for _, e := range strings.Split(strings.Trim(cell, "[]"), ";") {
			if cell != "[]" {
				appendCell(t, v.Child, f.Elem, e)
			}
		}
		v.AppendList()
	default:
		v.AppendData([]byte(cell))
	}
}

func cellText(f *record.Field, v *record.Vector, i int) string {
	switch v.State[i] {
	case record.Null:
		return null
	case record.Unsent:
		return absent
	}
	if f.Kind == record.JSON {
		return string(v.Value(i))
	}
	b, ok := AppendCanonical(nil, f, v, i)
	if !ok {
		return "?" + string(v.Value(i))
	}
	return string(b)
}

var opOf = map[string]record.Op{"read": record.OpRead, "insert": record.OpInsert, "update": record.OpUpdate, "delete": record.OpDelete}

// batchOf reads rows as "op | cell, cell" or "op | new cells | old cells".
func batchOf(t helper, s *record.Schema, rows ...string) *record.Batch {
	t.Helper()
	b := record.NewBatch(s, nil)
	images := false
	for _, row := range rows {
		images = images || strings.Count(row, "|") == 2
	}
	if images {
		for i := range s.Fields {
			b.Before = append(b.Before, record.NewVector(&s.Fields[i]))
		}
	}
	for n, row := range rows {
		parts := strings.Split(row, "|")
		op, ok := opOf[strings.TrimSpace(parts[0])]
		if !ok {
			t.Fatalf("row %q: unknown op", row)
		}
		b.Ops, b.Pos = append(b.Ops, op), append(b.Pos, record.Position{Epoch: 1, LSN: uint64(100 + n)})
		b.Time, b.Offsets = append(b.Time, int64(1000+n)), append(b.Offsets, int64(n))
		appendRow(t, b.After, s, parts[1])
		if images {
			old := strings.TrimSuffix(strings.Repeat(absent+",", len(s.Fields)), ",")
			if len(parts) > 2 {
				old = parts[2]
			}
			appendRow(t, b.Before, s, old)
		}
	}
	return b
}

func appendRow(t helper, vs []*record.Vector, s *record.Schema, text string) {
	t.Helper()
	cells := strings.Split(text, separatorOf(text))
	if len(cells) != len(s.Fields) {
		t.Fatalf("row %q has %d cells, the schema %d fields", text, len(cells), len(s.Fields))
	}
	for i := range s.Fields {
		appendCell(t, vs[i], &s.Fields[i], strings.TrimSpace(cells[i]))
	}
}

// rowsOf is the inverse of batchOf; rows without an old row have two parts.
func rowsOf(b *record.Batch) []string {
	if b == nil {
		return nil
	}
	var rows []string
	for i, op := range b.Ops {
		row := op.String() + " | " + image(b.Schema, b.After, i)
		if b.Before != nil {
			if old := image(b.Schema, b.Before, i); strings.Trim(old, "-, ") != "" {
				row += " | " + old
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func image(s *record.Schema, vs []*record.Vector, i int) string {
	cells := make([]string, len(vs))
	for k := range vs {
		cells[k] = cellText(&s.Fields[k], vs[k], i)
	}
	return strings.Join(cells, ", ")
}

// verify checks that b is what its schema says.
func verify(b *record.Batch) error {
	if b == nil {
		return nil
	}
	n := b.Len()
	if len(b.Pos) != n || len(b.Time) != n || len(b.Offsets) != 0 && len(b.Offsets) != n {
		return fmt.Errorf("%d ops, %d positions, %d times, %d offsets", n, len(b.Pos), len(b.Time), len(b.Offsets))
	}
	for _, vs := range [][]*record.Vector{b.After, b.Before} {
		if vs == nil {
			continue
		}
		if len(vs) != len(b.Schema.Fields) {
			return fmt.Errorf("%d columns, %d fields", len(vs), len(b.Schema.Fields))
		}
		for i, v := range vs {
			if err := verifyVector(&b.Schema.Fields[i], v, n); err != nil {
				return fmt.Errorf("%s: %w", b.Schema.Fields[i].Name, err)
			}
		}
	}
	return nil
}

func verifyVector(f *record.Field, v *record.Vector, n int) error {
	w := f.Kind.Width()
	switch {
	case len(v.State) != n:
		return fmt.Errorf("%d states, want %d", len(v.State), n)
	case w > 0:
		if len(v.Fixed) != n*w {
			return fmt.Errorf("%d fixed bytes, want %d", len(v.Fixed), n*w)
		}
		return nil
	case len(v.Offs) != n+1 || v.Offs[0] != 0:
		return fmt.Errorf("%d offsets, want %d", len(v.Offs), n+1)
	}
	for i := range n {
		if v.Offs[i+1] < v.Offs[i] || v.State[i] != record.Present && v.Offs[i+1] != v.Offs[i] {
			return fmt.Errorf("row %d: offsets %d to %d, state %d", i, v.Offs[i], v.Offs[i+1], v.State[i])
		}
	}
	if f.Kind == record.Array {
		return verifyVector(f.Elem, v.Child, int(v.Offs[n]))
	}
	if int(v.Offs[n]) != len(v.Data) {
		return fmt.Errorf("last offset %d, %d bytes", v.Offs[n], len(v.Data))
	}
	return nil
}

func mustCompile(t testing.TB, s *record.Schema, phase Phase, rules ...Rule) *Chain {
	t.Helper()
	c, err := Compile(rules, s, testRing, phase)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	return c
}

func mustApply(t testing.TB, c *Chain, b *record.Batch) (*record.Batch, int, []record.Reject) {
	t.Helper()
	out, filtered, rejects, err := c.Apply(b)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	if err := verify(out); err != nil {
		t.Fatalf("the output is not what its schema says: %v", err)
	}
	return out, filtered, rejects
}

func TestCanonicalText(t *testing.T) {
	for _, c := range []struct{ kind, cell, want string }{
		{"bool", "true", "true"}, {"int16", "-7", "-7"}, {"int64", "-9223372036854775808", "-9223372036854775808"},
		{"float64", "1.50", "1.5"}, {"float64", "1e20", "100000000000000000000"}, {"float64", "-0", "0"},
		{"float32", "0.1", "0.1"}, {"float64", "NaN", "NaN"}, {"float64", "-Inf", "-Infinity"},
		{"decimal(10,2)", "1.50", "1.5"}, {"decimal(10,2)", "-0.00", "0"}, {"decimal(10,2)", "-12.00", "-12"}, {"decimal(10,0)", "100", "100"},
		{"decimal(38,10)", "9999999999999999999999999999.9999999999", "9999999999999999999999999999.9999999999"},
		{"decimaltext", "001.500", "1.5"}, {"decimaltext", "1.5e3", "1500"}, {"decimaltext", "-15e-1", "-1.5"}, {"decimaltext", "-0.0", "0"},
		{"decimaltext", ".5", "0.5"}, {"decimaltext", "NaN", "NaN"}, {"decimaltext", "12e-4", "0.0012"},
		{"text", " a B", "a B"}, {"date", "2024-02-29", "2024-02-29"}, {"date", "-0043-03-15", "-0043-03-15"}, {"date", "infinity", "infinity"},
		{"date", "+10000-01-01", "+10000-01-01"}, {"time", "24:00", "24:00:00.000000"}, {"timestamp", "1969-12-31 23:59:59.5", "1969-12-31T23:59:59.500000"},
		{"timestamptz", "2024-02-29T01:00:00.123456+01:00", "2024-02-29T00:00:00.123456Z"}, {"timestamptz", "-infinity", "-infinity"},
		{"uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{"int32[]", "[1;NULL;3]", "[1,null,3]"}, {"text[]", `[a"b;c]`, `["a\"b","c"]`}, {"text[]", "[]", "[]"},
	} {
		f := &schemaOf("x " + c.kind).Fields[0]
		v := record.NewVector(f)
		appendCell(t, v, f, strings.TrimSpace(c.cell))
		if c.kind == "text" {
			v = record.NewVector(f)
			v.AppendData([]byte(" a B"))
			c.want = " a B"
		}
		got, ok := AppendCanonical(nil, f, v, 0)
		if !ok || string(got) != c.want {
			t.Errorf("%s %s: got %q %v, want %q", c.kind, c.cell, got, ok, c.want)
		}
	}
	for doc, want := range map[string]string{
		`{"b": 1.50, "a": [1, "x\u00e4", null, true] }`: `{"a":[1,"xä",null,true],"b":1.5}`,
		`"<&>"`: `"<&>"`, `1e400000`: `1e400000`, ` [] `: `[]`,
	} {
		if got, ok := appendJSON(nil, []byte(doc)); !ok || string(got) != want {
			t.Errorf("json %s: got %s %v, want %s", doc, got, ok, want)
		}
	}
	if d, _ := parseDate([]byte("0000-12-31")); civilText(d) != "0000-12-31" {
		t.Errorf("1 BC is %s", civilText(d))
	}
}

func civilText(day int32) string { return string(appendDate(nil, day)) }

// helper is what testing.TB and rapid.T have in common.
type helper interface {
	Helper()
	Fatalf(format string, args ...any)
}

// separatorOf lets rows hold documents: a row with ; between blanks is split there.
func separatorOf(row string) string {
	if strings.Contains(row, " ; ") {
		return " ; "
	}
	return ","
}
