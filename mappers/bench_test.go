package mappers

import (
	"fmt"
	"testing"

	"github.com/sluice-data/sluice/record"
)

var benchSchema = schemaOf("id int64 key, email text, phone text, country text, amount decimal(12,2), born date, created timestamptz, note text, n int32, ip text, doc json")

const benchRows = 4096

func benchBatch(b *testing.B, images bool) *record.Batch {
	var rows []string
	countries := []string{"DE", "FR", "US", "IT"}
	for i := range benchRows {
		row := fmt.Sprintf("%d, customer.%06d@mail.example, +49 30 %07d, %s, %d.%02d, 19%02d-02-03, 2024-02-29T12:%02d:00.123456Z, a note of some length for row %d, %d, 10.1.%d.7, {\"b\":{\"a\":%d}}",
			i, i, i, countries[i%4], i%200, i%100, i%100, i%60, i, i%1000, i%250, i)
		if images {
			rows = append(rows, "update | "+row+" | "+row)
		} else {
			rows = append(rows, "insert | "+row)
		}
	}
	return batchOf(b, benchSchema, rows...)
}

// again returns a batch with the rows of b, as a decoder with pooled memory would.
type again struct {
	src, dst *record.Batch
}

func (a *again) next() *record.Batch {
	d, s := a.dst, a.src
	if d == nil {
		d = record.NewBatch(s.Schema, func(*record.Batch) {})
		for range s.Before {
			d.Before = append(d.Before, &record.Vector{})
		}
		a.dst = d
	}
	d.Ops, d.Pos, d.Time, d.Offsets = append(d.Ops[:0], s.Ops...), append(d.Pos[:0], s.Pos...), append(d.Time[:0], s.Time...), append(d.Offsets[:0], s.Offsets...)
	for i := range s.After {
		again1(d.After[i], s.After[i])
		if s.Before != nil {
			again1(d.Before[i], s.Before[i])
		}
	}
	return d
}

func again1(d, s *record.Vector) {
	d.State, d.Fixed, d.Data = append(d.State[:0], s.State...), append(d.Fixed[:0], s.Fixed...), append(d.Data[:0], s.Data...)
	d.Offs = append(d.Offs[:0], s.Offs...)
}

var benchRules = []struct {
	name  string
	rules []Rule
}{
	{"drop", []Rule{{Drop: &Drop{Fields: []string{"note"}}}}},
	{"rename", []Rule{{Rename: map[string]string{"note": "remark"}}}},
	{"hash_sha256", []Rule{{Hash: &Hash{Field: "email", Method: "sha256"}}}},
	{"hash_hmac_sha256", []Rule{{Hash: &Hash{Field: "email", Key: ref("k")}}}},
	{"hash_md5", []Rule{{Hash: &Hash{Field: "email", Method: "md5"}}}},
	{"hash_decimal", []Rule{{Hash: &Hash{Field: "amount", Key: ref("k")}}}},
	{"hash_timestamp", []Rule{{Hash: &Hash{Field: "created", Key: ref("k")}}}},
	{"filter_text_half", []Rule{{Filter: &Filter{Where: "country in ('DE', 'US')"}}}},
	{"filter_all_stay", []Rule{{Filter: &Filter{Where: "amount >= 0 and country <> 'XX'"}}}},
	{"filter_3_percent", []Rule{{Filter: &Filter{Where: "country = 'DE' and amount > 100 and email like '%1@mail.example'"}}}},
	{"mask_email", []Rule{{Mask: &Mask{Field: "email", Kind: "email"}}}},
	{"mask_phone", []Rule{{Mask: &Mask{Field: "phone", Kind: "phone"}}}},
	{"mask_ip", []Rule{{Mask: &Mask{Field: "ip", Kind: "ip"}}}},
	{"redact", []Rule{{Redact: &Redact{Fields: []string{"note"}}}}},
	{"cast_decimal_text", []Rule{{Cast: &Cast{Field: "amount", To: "text"}}}},
	{"cast_int_decimal", []Rule{{Cast: &Cast{Field: "n", To: "decimal(10,2)"}}}},
	{"default", []Rule{{Default: &Default{Field: "country", Value: "XX"}}}},
	{"constant", []Rule{{Constant: &Constant{Field: "region", Value: "eu"}}}},
	{"concat", []Rule{{Concat: &Concat{Field: "label", Fields: []string{"email", "country", "n"}, Separator: " "}}}},
	{"truncate_day", []Rule{{Truncate: &Truncate{Field: "created", To: "day"}}}},
	{"encrypt_gcm", []Rule{{Encrypt: &Encrypt{Field: "email", Key: ref("k")}}}},
	{"encrypt_siv", []Rule{{Encrypt: &Encrypt{Field: "email", Method: methodSIV, Key: ref("k")}}}},
	{"hash_salt_field", []Rule{{Hash: &Hash{Field: "email", Key: ref("k"), SaltField: "country"}}}},
	{"tokenize", []Rule{{Tokenize: &Tokenize{Field: "phone", Key: ref("k")}}}},
	{"pseudonym", []Rule{{Pseudonym: &Pseudonym{Field: "email", Key: ref("k")}}}},
	{"nest", []Rule{{Nest: &Nest{Field: "contact", Fields: []string{"email", "phone"}}}}},
	{"json_extract", []Rule{{JSONExtract: &JSONExtract{From: "doc.b.a", Field: "c"}}}},
	{"flatten", []Rule{{Flatten: &Flatten{Field: "doc", Fields: map[string]string{"b": "json", "b.a": "int64"}}}}},
	{"move_out", []Rule{{Move: &Move{From: "doc.b.a", To: "c"}}}},
	{"move_in", []Rule{{Move: &Move{From: "country", To: "doc.b.country"}}}},
	{"split", []Rule{{Split: &Split{Field: "email", Separator: "@", Into: []string{"name", "host"}}}}},
	{"lookup", []Rule{{Lookup: &Lookup{Field: "country_name", From: "country", File: "t.csv", Key: "k", Value: "v"}}}},
	{"filter_cel_3_percent", []Rule{{Filter: &Filter{CEL: "country == 'DE' && amount > 100 && email.endsWith('1@mail.example')"}}}},
	{"derive_decimal", []Rule{{Derive: &Derive{Field: "gross", CEL: "amount * 1.19 + n"}}}},
	{"derive_text", []Rule{{Derive: &Derive{Field: "label", CEL: "country + '-' + email"}}}},
	{"derive_choice", []Rule{{Derive: &Derive{Field: "size", CEL: "amount > 100 ? 'large' : 'small'"}}}},
	{"six_typical", []Rule{{Hash: &Hash{Field: "email", Key: ref("k")}}, {Mask: &Mask{Field: "phone", Kind: "phone"}}, {Drop: &Drop{Fields: []string{"note"}}},
		{Rename: map[string]string{"n": "number"}}, {Filter: &Filter{Where: "amount >= 1"}}, {Truncate: &Truncate{Field: "created", To: "day"}}}},
}

func compileBench(t testing.TB, rules []Rule) *Chain {
	t.Helper()
	c, err := testScope(Shape).Compile(rules, benchSchema)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// BenchmarkRules measures each rule; ns/row and allocs/row leave out what it costs to copy the batch in.
func BenchmarkRules(b *testing.B) {
	for _, images := range []bool{false, true} {
		src := benchBatch(b, images)
		name := "insert"
		if images {
			name = "update"
		}
		for _, c := range benchRules {
			b.Run(name+"/"+c.name, func(b *testing.B) {
				chain := compileBench(b, c.rules)
				a := &again{src: src}
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					in := a.next()
					b.StartTimer()
					out, _, rejects, err := chain.Apply(in)
					if err != nil || len(rejects) > 0 {
						b.Fatal(err, len(rejects))
					}
					if out != nil {
						out.Release()
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRows, "ns/row")
			})
		}
	}
}

// TestNoAllocationPerRow: the rules that run on every stream allocate nothing per row.
func TestNoAllocationPerRow(t *testing.T) {
	var b testing.B
	for _, images := range []bool{false, true} {
		src := benchBatch(&b, images)
		for _, c := range benchRules {
			chain := compileBench(t, c.rules)
			a := &again{src: src}
			per := testing.AllocsPerRun(5, func() {
				out, _, _, err := chain.Apply(a.next())
				if err != nil {
					t.Fatal(err)
				}
				if out != nil {
					out.Release()
				}
			})
			if per > benchRows/50 {
				t.Errorf("%s: %.0f allocations for %d rows", c.name, per, benchRows)
			}
		}
	}
}
