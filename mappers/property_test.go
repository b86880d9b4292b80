package mappers

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-data/sluice/record"
)

// everyKind has a field of every type; its names are k_ and the type.
var everyKind = func() *record.Schema {
	spec := "id int64 key, code text key"
	for k := record.Bool; k < record.Array; k++ {
		name := k.String()
		if k == record.Decimal {
			name = "decimal(20,4)"
		}
		spec += ", k_" + k.String() + " " + name
	}
	return schemaOf(spec + ", k_array text[], k_numbers decimal(9,2)[]")
}()

func drawValue(t *rapid.T, v *record.Vector, f *record.Field) {
	edge := func(values ...int64) int64 {
		return rapid.OneOf(rapid.SampledFrom(values), rapid.Int64()).Draw(t, "int")
	}
	switch f.Kind {
	case record.Bool:
		v.AppendBool(rapid.Bool().Draw(t, "bool"))
	case record.Int16:
		v.AppendInt16(int16(edge(0, 1, -1, math.MaxInt16)))
	case record.Int32, record.Date:
		v.AppendInt32(int32(edge(0, 1, 19782, math.MaxInt32, math.MinInt32, math.MinInt32+1)))
	case record.Time:
		v.AppendInt64(rapid.Int64Range(0, microsPerDay).Draw(t, "time"))
	case record.Int64, record.Timestamp, record.TimestampTZ:
		v.AppendInt64(edge(0, 1, -1, 1709164800000000, math.MaxInt64, math.MinInt64, math.MinInt64+1))
	case record.Float32:
		v.AppendFloat32(rapid.OneOf(rapid.SampledFrom([]float32{0, 1.5, float32(math.Inf(1)), float32(math.NaN())}), rapid.Float32()).Draw(t, "float"))
	case record.Float64:
		v.AppendFloat64(rapid.OneOf(rapid.SampledFrom([]float64{0, 1.5, math.Inf(-1), math.NaN(), 1e300}), rapid.Float64()).Draw(t, "float"))
	case record.Decimal:
		hi, lo, err := record.ParseDecimal([]byte(rapid.SampledFrom([]string{"0", "1", "-12.5", "99999.99", "0.01", "-0.1"}).Draw(t, "decimal")), f.Precision, f.Scale)
		if err != nil {
			t.Fatal(err)
		}
		v.AppendDecimal(hi, lo)
	case record.UUID:
		v.AppendFixed(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
	case record.DecimalText:
		v.AppendData([]byte(rapid.SampledFrom([]string{"0", "-1.50", "NaN", "Infinity", "-Infinity", "1e9999999", "1e5", "x", "", strings.Repeat("9", 50)}).Draw(t, "number")))
	case record.JSON:
		v.AppendData([]byte(rapid.SampledFrom([]string{`{"b":1,"a":[null,1.50]}`, `[]`, `"x"`, `{`, ``, `{"a":{"a":{}}}`}).Draw(t, "json")))
	case record.Array:
		for range rapid.IntRange(0, 3).Draw(t, "elements") {
			drawCell(t, v.Child, f.Elem, 1)
		}
		v.AppendList()
	default:
		v.AppendData(rapid.OneOf(
			rapid.SampledFrom([][]byte{nil, []byte("ann@gmail.com"), []byte("+49 30 1234567"), []byte("10.1.2.3"), []byte("\xff\xfe"), []byte("2024-02-29"), []byte("17"), []byte("paid")}),
			rapid.SliceOfN(rapid.Byte(), 0, 20)).Draw(t, "data"))
	}
}

// drawCell appends a value, or no value with one of the lowest states.
func drawCell(t *rapid.T, v *record.Vector, f *record.Field, states int) {
	switch n := rapid.IntRange(0, 5).Draw(t, "state"); {
	case n == 0 && f.Nullable:
		v.AppendMissing(record.Null, f.Kind.Width())
	case n == 1 && states > 1:
		v.AppendMissing(record.Unsent, f.Kind.Width())
	default:
		drawValue(t, v, f)
	}
}

func drawBatch(t *rapid.T, s *record.Schema) *record.Batch {
	b := record.NewBatch(s, nil)
	images := rapid.Bool().Draw(t, "images")
	if images {
		for i := range s.Fields {
			b.Before = append(b.Before, record.NewVector(&s.Fields[i]))
		}
	}
	n := rapid.IntRange(1, 6).Draw(t, "rows")
	for row := range n {
		op := rapid.SampledFrom([]record.Op{record.OpRead, record.OpInsert, record.OpUpdate, record.OpUpdate, record.OpDelete}).Draw(t, "op")
		b.Ops, b.Pos = append(b.Ops, op), append(b.Pos, record.Position{Epoch: 1, LSN: uint64(row)})
		b.Time, b.Offsets = append(b.Time, int64(row)), append(b.Offsets, int64(10*row))
		old := images && rapid.Bool().Draw(t, "old")
		for i := range s.Fields {
			f, v := &s.Fields[i], b.After[i]
			switch {
			case f.Key > 0:
				drawValue(t, v, f)
			case op == record.OpDelete:
				v.AppendMissing(record.Unsent, f.Kind.Width())
			case op == record.OpUpdate:
				drawCell(t, v, f, 2)
			default:
				drawCell(t, v, f, 1)
			}
			switch {
			case !images:
			case !old || op == record.OpInsert:
				b.Before[i].AppendMissing(record.Unsent, f.Kind.Width())
			case f.Key > 0:
				b.Before[i].AppendFrom(v, row, f.Kind.Width())
			default:
				drawCell(t, b.Before[i], f, 1)
			}
		}
	}
	return b
}

var conditions = []string{
	"k_text = 'paid'", "k_int16 > 0 and k_int64 <= 10.5", "not (k_bool or k_decimal >= 0.005)", "k_decimaltext < 3 or k_date = '2024-02-29'",
	"k_timestamptz between '1970-01-01' and '2024-01-01T00:00:00Z'", "k_text like '%a_n%' or k_enum ilike 'P%'", "k_json is null", "id in (1, 2, 3)",
	"k_float64 > 1e10 or k_float32 = 1.5", "k_uuid > '00000000-0000-0000-0000-000000000001'", "k_int16 < k_int64", "k_text = k_enum", "k_bytes >= '\\x00'",
	"k_time < '12:00'", "k_timestamp = 'infinity'", "true", "code <> ''",
}

var celConditions = []string{
	"k_text == 'paid'", "k_int16 > 0 && k_int64 <= 10", "!(k_bool || k_decimal >= 0.005)", "k_date == date('2024-02-29') || k_text.startsWith('a')",
	"k_int64 / k_int16 > 1", "k_json == null", "id in [1, 2, 3]", "k_float64 > 1e10 || double(k_float32) == 1.5", "k_text.matches('[a-m]+')",
	"k_timestamptz > timestamp('1970-01-01')", "int(k_text) > 3 || k_bool",
}

var expressions = []string{
	"k_text + string(k_int64)", "k_int64 * 2 + k_int32", "k_decimal * k_decimal - k_int16", "k_bool ? k_text : null", "coalesce(k_text, code)",
	"k_timestamptz + duration('24h')", "k_timestamp - duration('1ms')", "string(k_timestamp) + string(k_date) + string(k_time)", "date(k_timestamptz)",
	"k_text.substring(1)", "k_text.replace('a', 'bb').upperAscii().trim()", "k_text.size() + k_bytes.size()", "k_float64 / double(k_float32)",
	"int(k_float64) % k_int32", "k_date.getDayOfYear() + k_timestamptz.getHours()", "-k_decimal + 1.5", "int(k_decimal)",
	"double(k_decimal) * 2.0", "k_enum == k_text && k_uuid != ''", "k_json == null || k_array != null", "k_decimal > 5 ? 1 : 0", "id + 1",
}

var testTables = tables{"t.csv": func() *Table {
	t, err := ParseTable(strings.NewReader("k,v\n1,one\npaid,yes\n"))
	if err != nil {
		panic(err)
	}
	return t
}()}

func testScope(phase Phase) Scope { return Scope{Phase: phase, Keys: testRing, Tables: testTables} }

var castTargets = []string{"text", "bool", "int16", "int32", "int64", "float32", "float64", "decimal(12,3)", "decimaltext", "date", "time", "timestamp", "timestamptz", "uuid", "json", "bytes"}

// drawRule draws a rule for a schema; many do not fit and fail to compile, which is fine.
func drawRule(t *rapid.T, s *record.Schema) Rule {
	name := s.Fields[rapid.IntRange(0, len(s.Fields)-1).Draw(t, "field")].Name
	switch rapid.IntRange(0, 20).Draw(t, "rule") {
	case 13, 14:
		return Rule{Derive: &Derive{Field: "derived", CEL: rapid.SampledFrom(expressions).Draw(t, "cel")}}
	case 15:
		return Rule{Filter: &Filter{CEL: rapid.SampledFrom(celConditions).Draw(t, "cel")}}
	case 16:
		if rapid.Bool().Draw(t, "pseudonym") {
			return Rule{Pseudonym: &Pseudonym{Field: name, Key: ref("k"), Prefix: "p_"}}
		}
		return Rule{Tokenize: &Tokenize{Field: rapid.SampledFrom([]string{name, "k_json.a", "k_array[*]", "k_array[1]"}).Draw(t, "token"), Key: ref("k"), Keep: rapid.IntRange(0, 3).Draw(t, "keep")}}
	case 17:
		path := rapid.SampledFrom([]string{"k_json.a", "k_json.a[1]", "k_json.a.a", "k_json.b"}).Draw(t, "path")
		switch rapid.IntRange(0, 3).Draw(t, "document") {
		case 0:
			return Rule{JSONExtract: &JSONExtract{From: path, Field: "extracted", Type: rapid.SampledFrom(castTargets).Draw(t, "to")}}
		case 1:
			return Rule{Move: &Move{From: path, To: "moved", Type: rapid.SampledFrom(castTargets).Draw(t, "to")}}
		case 2:
			return Rule{Move: &Move{From: name, To: "k_json.x.y"}}
		}
		return Rule{Flatten: &Flatten{Field: "k_json", Fields: map[string]string{"a": "json", "b": "decimal(9,2)"}, Keep: rapid.Bool().Draw(t, "keep")}}
	case 18:
		return Rule{Nest: &Nest{Field: "nested", Fields: []string{name, "k_text"}}}
	case 19:
		s := &Split{Field: name, Separator: rapid.SampledFrom([]string{"a", " ", "@"}).Draw(t, "separator"), Keep: rapid.Bool().Draw(t, "keep")}
		if rapid.Bool().Draw(t, "into") {
			s.Into = []string{"part1", "part2"}
		}
		return Rule{Split: s}
	case 20:
		if rapid.Bool().Draw(t, "lookup") {
			return Rule{Lookup: &Lookup{Field: "found", From: name, File: "t.csv", Key: "k", Value: "v", Missing: rapid.SampledFrom([]string{"null", "reject", "default"}).Draw(t, "missing")}}
		}
		return Rule{Hash: &Hash{Field: rapid.SampledFrom([]string{name, "k_array[*]", "k_array[0]", "type:text", "k_json.*"}).Draw(t, "selector"), Method: "sha256", SaltField: rapid.SampledFrom([]string{"", "id", "k_int16"}).Draw(t, "salt")}}
	case 12:
		return Rule{Hash: &Hash{Field: rapid.SampledFrom([]string{"k_json.a", "k_json.a.a", "k_json.b"}).Draw(t, "path"), Method: "md5",
			Normalize: rapid.SampledFrom([]string{"", "phone"}).Draw(t, "normalize")}}
	case 0:
		m := rapid.SampledFrom([]string{"sha256", "md5", "md2", "hmac-sha256", "sha512"}).Draw(t, "method")
		h := &Hash{Field: name, Method: m, Suffix: rapid.SampledFrom([]string{"", "_h"}).Draw(t, "suffix"),
			Normalize: rapid.SampledFrom([]string{"", "", "email-google", "phone", "trim-lower"}).Draw(t, "normalize")}
		if hashMethods[methodName(m)].keyed {
			h.Key = ref("k")
		}
		return Rule{Hash: h}
	case 1:
		return Rule{Drop: &Drop{Fields: []string{name}}}
	case 2:
		return Rule{Rename: map[string]string{name: name + "x"}}
	case 3, 4:
		return Rule{Filter: &Filter{Where: rapid.SampledFrom(conditions).Draw(t, "where")}}
	case 5:
		return Rule{Mask: &Mask{Field: name, Kind: rapid.SampledFrom([]string{"chars", "email", "phone", "ip"}).Draw(t, "mask"), KeepLast: 2}}
	case 6:
		return Rule{Cast: &Cast{Field: name, To: rapid.SampledFrom(castTargets).Draw(t, "to")}}
	case 7:
		return Rule{Truncate: &Truncate{Field: name, To: rapid.SampledFrom([]string{"hour", "day", "month", "year"}).Draw(t, "unit")}}
	case 8:
		return Rule{Concat: &Concat{Field: "joined", Fields: []string{name, "id"}, Separator: "-"}}
	case 9:
		return Rule{Encrypt: &Encrypt{Field: name, Method: methodSIV, Key: ref("k")}}
	case 10:
		return Rule{Redact: &Redact{Fields: []string{name}}}
	}
	return Rule{Default: &Default{Field: name, Value: "1"}}
}

// drawChain compiles rules one by one and leaves out those that do not fit.
func drawChain(t *rapid.T, s *record.Schema, phase Phase) *Chain {
	var rules []Rule
	c, err := testScope(phase).Compile(nil, s)
	if err != nil {
		t.Fatal(err)
	}
	for range rapid.IntRange(1, 6).Draw(t, "rules") {
		r := drawRule(t, c.Out())
		if next, err := testScope(phase).Compile(append(slices.Clone(rules), r), s); err == nil {
			rules, c = append(rules, r), next
		}
	}
	return c
}

// outcome is what became of a batch, by the position of its rows.
func outcome(c *Chain, b *record.Batch) (rows map[uint64]string, err error) {
	in := slices.Clone(b.Pos)
	out, filtered, rejects, err := c.Apply(b)
	if err != nil {
		return nil, err
	}
	rows = map[uint64]string{}
	if out != nil {
		if out.Schema != c.Out() {
			return nil, fmt.Errorf("the batch has not the schema of the chain")
		}
		if err := verify(out); err != nil {
			return nil, err
		}
		for i, r := range rowsOf(out) {
			rows[out.Pos[i].LSN] = fmt.Sprint(r, out.Time[i], out.Offsets[i])
		}
	}
	for _, r := range rejects {
		if _, both := rows[in[r.Row].LSN]; both {
			return nil, fmt.Errorf("row %d is rejected and delivered", r.Row)
		}
		rows[in[r.Row].LSN] = r.Code + r.Reason
	}
	if len(rows)+filtered != len(in) {
		return nil, fmt.Errorf("%d rows in, %d delivered or rejected, %d filtered", len(in), len(rows), filtered)
	}
	if out != nil {
		out.Release()
	}
	return rows, nil
}

// slice returns rows [from, to) of b as a batch of its own.
func slice(b *record.Batch, from, to int) *record.Batch {
	c := record.NewBatch(b.Schema, nil)
	c.Ops, c.Pos = slices.Clone(b.Ops[from:to]), slices.Clone(b.Pos[from:to])
	c.Time, c.Offsets = slices.Clone(b.Time[from:to]), slices.Clone(b.Offsets[from:to])
	part := func(v *record.Vector, f *record.Field) *record.Vector {
		w := record.NewVector(f)
		for i := from; i < to; i++ {
			w.AppendFrom(v, i, f.Kind.Width())
		}
		return w
	}
	for i := range b.Schema.Fields {
		c.After[i] = part(b.After[i], &b.Schema.Fields[i])
		if b.Before != nil {
			c.Before = append(c.Before, part(b.Before[i], &b.Schema.Fields[i]))
		}
	}
	return c
}

// TestProperties: every chain runs on every batch, its output is what its
// schema says, every row is accounted for, and how rows are cut into batches
// changes nothing, also when the memory of earlier batches is used again.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawChain(t, everyKind, Phase(rapid.IntRange(1, 2).Draw(t, "phase")))
		for range 2 {
			b := drawBatch(t, everyKind)
			n := b.Len()
			whole, err := outcome(c, slice(b, 0, n))
			if err != nil {
				t.Fatal(err)
			}
			cut := rapid.IntRange(0, n).Draw(t, "cut")
			parts := map[uint64]string{}
			for _, p := range [][2]int{{0, cut}, {cut, n}} {
				if p[0] == p[1] {
					continue
				}
				rows, err := outcome(c, slice(b, p[0], p[1]))
				if err != nil {
					t.Fatal(err)
				}
				for k, v := range rows {
					parts[k] = v
				}
			}
			if fmt.Sprint(whole) != fmt.Sprint(parts) {
				t.Fatalf("one batch:\n%v\ncut at %d:\n%v", whole, cut, parts)
			}
			single := map[uint64]string{}
			for i := range n {
				rows, err := outcome(c, slice(b, i, i+1))
				if err != nil {
					t.Fatal(err)
				}
				maps.Copy(single, rows)
			}
			if fmt.Sprint(whole) != fmt.Sprint(single) {
				t.Fatalf("column by column:\n%v\nrow by row:\n%v", whole, single)
			}
		}
	})
}

// TestPlaintextLeaves: nothing of a protected field is anywhere in what leaves the protect phase.
func TestPlaintextLeaves(t *testing.T) {
	const canary = "canary-7731"
	s := schemaOf("mail text key, note text, other text, tag text")
	rules := map[string]Rule{
		"hash":    {Hash: &Hash{Field: "mail", Key: ref("k")}},
		"encrypt": {Encrypt: &Encrypt{Field: "mail", Method: methodSIV, Key: ref("k")}},
	}
	for name, r := range rules {
		c := mustCompile(t, s, Protect, r, Rule{Drop: &Drop{Fields: []string{"note"}}}, Rule{Redact: &Redact{Fields: []string{"other"}}},
			Rule{Filter: &Filter{Where: "tag <> 'x'"}}, Rule{Cast: &Cast{Field: "tag", To: "int32"}})
		out, _, rejects := mustApply(t, c, batchOf(t, s,
			"insert | "+canary+", "+canary+", "+canary+", 1",
			"update | "+canary+", "+canary+", -, 2 | "+canary+", "+canary+", "+canary+", 1",
			"update | "+canary+", "+canary+", -, x | "+canary+", "+canary+", "+canary+", 1",
			"update | "+canary+", "+canary+", -, "+canary,
			"delete | "+canary+", -, -, - | "+canary+", "+canary+", "+canary+", 2"))
		text := fmt.Sprint(rowsOf(out), rejects)
		for _, vs := range [][]*record.Vector{out.After, out.Before} {
			for _, v := range vs {
				text += string(v.Data[:cap(v.Data)])
			}
		}
		if strings.Contains(text, canary) || len(rejects) != 1 || out.Len() != 4 {
			t.Errorf("%s: plaintext left, or %d rows and %v", name, out.Len(), rejects)
		}
	}
}

func FuzzCondition(f *testing.F) {
	for _, c := range conditions {
		f.Add(c)
	}
	f.Add("((((not not x is not null))))")
	f.Add(`"quo""ted" in ('a''b', 'c') and -1.5e-3 < k_int64`)
	f.Fuzz(func(t *testing.T, where string) {
		err := Check([]Rule{{Filter: &Filter{Where: where}}}, Shape, nil)
		c, err2 := Compile([]Rule{{Filter: &Filter{Where: where}}}, everyKind, nil, Shape)
		if err != nil && err2 == nil {
			t.Fatalf("Check refuses what Compile takes: %v", err)
		}
		for _, e := range []error{err, err2} {
			if list := (Errors)(nil); errors.As(e, &list) && (list[0].Offset < 0 || list[0].Offset > len(where)) {
				t.Fatalf("offset %d outside of the condition", list[0].Offset)
			}
		}
		if c != nil {
			row := "insert | 1" + strings.Repeat(", "+null, len(everyKind.Fields)-1)
			if _, _, _, err := c.Apply(batchOf(t, everyKind, row)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzExpression(f *testing.F) {
	for _, e := range slices.Concat(expressions, celConditions) {
		f.Add(e)
	}
	f.Add("[1,2].map(x, x)[0]")
	f.Add("code in [code in ['a', null], 'b']")
	f.Fuzz(func(t *testing.T, text string) {
		err := Check([]Rule{{Derive: &Derive{Field: "d", CEL: text}}}, Shape, nil)
		c, err2 := Compile([]Rule{{Derive: &Derive{Field: "d", CEL: text}}}, everyKind, nil, Shape)
		if err != nil && err2 == nil {
			t.Fatalf("Check refuses what Compile takes: %v", err)
		}
		for _, e := range []error{err, err2} {
			if list := (Errors)(nil); errors.As(e, &list) && (list[0].Offset < 0 || list[0].Offset > len(text)) {
				t.Fatalf("offset %d outside of the expression", list[0].Offset)
			}
		}
		if c == nil {
			return
		}
		row := "insert | 1" + strings.Repeat(", "+null, len(everyKind.Fields)-1)
		out, _, _, err := c.Apply(batchOf(t, everyKind, row))
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(out); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzPath(f *testing.F) {
	f.Add("a.b[0]", `{"a":{"b":[1,"x"]}}`)
	f.Add(`"a.b".*[*]`, `{"a.b":{"c":[{}]}}`)
	f.Add("a[1].b", `[[],[[{"b":null}]]]`)
	s := schemaOf("id int64 key, d json")
	f.Fuzz(func(t *testing.T, path, doc string) {
		for _, r := range []Rule{{Hash: &Hash{Field: "d." + path, Method: "md5"}}, {Drop: &Drop{Fields: []string{"d." + path}}},
			{JSONExtract: &JSONExtract{From: "d." + path, Field: "x"}}, {Move: &Move{From: "d." + path, To: "x", Type: "json"}}} {
			c, err := Compile([]Rule{r}, s, testRing, Shape)
			if err != nil {
				continue
			}
			b := record.NewBatch(s, nil)
			b.Ops, b.Pos, b.Time = []record.Op{record.OpInsert}, make([]record.Position, 1), make([]int64, 1)
			b.After[0].AppendInt64(1)
			b.After[1].AppendData([]byte(doc))
			out, _, _, err := c.Apply(b)
			if err != nil {
				t.Fatal(err)
			}
			if out != nil && out.Schema.Index("d") >= 0 && !json.Valid(out.After[out.Schema.Index("d")].Value(0)) {
				t.Fatalf("%s made %q no JSON", c.plan[0].kind, doc)
			}
		}
	})
}

// TestDrawnExpressions: what the properties draw is what the checker takes.
func TestDrawnExpressions(t *testing.T) {
	for _, e := range expressions {
		mustCompile(t, everyKind, Shape, Rule{Derive: &Derive{Field: "d", CEL: e}})
	}
	for _, e := range celConditions {
		mustCompile(t, everyKind, Shape, Rule{Filter: &Filter{CEL: e}})
	}
}
