package mappers

import (
	"errors"
	"fmt"
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

var castTargets = []string{"text", "bool", "int16", "int32", "int64", "float32", "float64", "decimal(12,3)", "decimaltext", "date", "time", "timestamp", "timestamptz", "uuid", "json", "bytes"}

// drawRule draws a rule for a schema; many do not fit and fail to compile, which is fine.
func drawRule(t *rapid.T, s *record.Schema) Rule {
	name := s.Fields[rapid.IntRange(0, len(s.Fields)-1).Draw(t, "field")].Name
	switch rapid.IntRange(0, 12).Draw(t, "rule") {
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
	c, err := Compile(nil, s, testRing, phase)
	if err != nil {
		t.Fatal(err)
	}
	for range rapid.IntRange(1, 6).Draw(t, "rules") {
		r := drawRule(t, c.Out())
		if next, err := Compile(append(slices.Clone(rules), r), s, testRing, phase); err == nil {
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
