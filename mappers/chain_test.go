package mappers

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-data/sluice/record"
)

// broken is a step that panics with a row value.
type broken struct{ with any }

func (b broken) apply(*run) { panic(b.with) }

func TestPanicStopsTheStream(t *testing.T) {
	s := schemaOf("id int64 key, mail text")
	for _, with := range []any{"secret-value", errors.New("secret-value"), fmt.Errorf("x: %w", io.EOF), 7} {
		c := mustCompile(t, s, Protect, Rule{Hash: &Hash{Field: "mail", Key: ref("k")}}, Rule{Filter: &Filter{Where: "true"}})
		c.plan[1].start = func() step { return broken{with} }
		out, filtered, rejects, err := c.Apply(batchOf(t, s, "insert | 1, secret-value"))
		var run *RunError
		if out != nil || filtered != 0 || rejects != nil || !errors.As(err, &run) || run.Rule != 1 || run.Kind != "filter" {
			t.Fatalf("a panic gave %v, %d, %v, %v", out, filtered, rejects, err)
		}
		if strings.Contains(err.Error(), "secret-value") {
			t.Errorf("the error holds a row value: %v", err)
		}
	}
	// A batch that is broken itself stops the stream too.
	c := mustCompile(t, s, Protect, Rule{Hash: &Hash{Field: "mail", Key: ref("k")}})
	b := batchOf(t, s, "insert | 1, x")
	b.After[1].Offs = b.After[1].Offs[:1]
	if out, _, _, err := c.Apply(b); out != nil || err == nil || !strings.Contains(err.Error(), "rule 1 (hash)") {
		t.Errorf("a broken batch gave %v, %v", out, err)
	}
}

func TestOtherSchemaStopsTheStream(t *testing.T) {
	c := mustCompile(t, schemaOf("id int64 key, mail text"), Protect, Rule{Drop: &Drop{Fields: []string{"mail"}}})
	for _, b := range []*record.Batch{
		batchOf(t, schemaOf("id int64 key, mail text, new text"), "insert | 1, a, b"),
		batchOf(t, schemaOf("id int64 key, name text"), "insert | 1, a"),
		{Ops: []record.Op{record.OpInsert}},
	} {
		if out, _, _, err := c.Apply(b); out != nil || err == nil {
			t.Errorf("a batch of another schema gave %v, %v", out, err)
		}
	}
	b := batchOf(t, c.In(), "insert | 1, a")
	b.After = b.After[:1]
	if out, _, _, err := c.Apply(b); out != nil || err == nil {
		t.Errorf("a batch without its columns gave %v, %v", out, err)
	}
}

func TestControlPassesWithTheNewSchema(t *testing.T) {
	s := schemaOf("id int64 key, mail text")
	c := mustCompile(t, s, Protect, Rule{Drop: &Drop{Fields: []string{"mail"}}}, Rule{Filter: &Filter{Where: "id = 0"}})
	for _, op := range []record.Op{record.OpTruncate, record.OpBackfillBegin, record.OpBackfillEnd} {
		b := record.NewControl(s, op, record.Position{Epoch: 3, LSN: 9}, 77)
		b.Partition, b.Offsets = record.TopicPartition{Topic: "x", Partition: 2}, []int64{5}
		out, filtered, rejects, err := c.Apply(b)
		if err != nil || filtered != 0 || rejects != nil {
			t.Fatalf("%s gave %d, %v, %v", op, filtered, rejects, err)
		}
		if got, ok := out.Control(); !ok || got != op || out.Schema != c.Out() || out.Pos[0].LSN != 9 || out.Time[0] != 77 || out.Offsets[0] != 5 || out.Partition.Partition != 2 {
			t.Errorf("%s became %+v", op, out)
		}
	}
}

// TestReleaseGivesTheInputBack: the batch that came in is released exactly once, whatever becomes of it.
func TestReleaseGivesTheInputBack(t *testing.T) {
	s := schemaOf("id int64 key, mail text")
	c := mustCompile(t, s, Shape, Rule{Filter: &Filter{Where: "id > 1"}}, Rule{Hash: &Hash{Field: "mail", Method: "md5"}})
	for n, row := range []string{"insert | 1, a", "insert | 2, a"} {
		released := 0
		b := record.NewBatch(s, func(*record.Batch) { released++ })
		src := batchOf(t, s, row)
		b.Ops, b.Pos, b.Time, b.After = src.Ops, src.Pos, src.Time, src.After
		out, _, _, err := c.Apply(b)
		if err != nil {
			t.Fatal(err)
		}
		if out != nil {
			if released != 0 {
				t.Fatal("the input was released while its rows are in use")
			}
			out.Release()
			out.Release()
		}
		if released != 1 {
			t.Errorf("row %d: the input was released %d times", n, released)
		}
	}
}

func TestConcurrentApply(t *testing.T) {
	s := schemaOf("id int64 key, mail text, n int64")
	c := mustCompile(t, s, Protect, Rule{Hash: &Hash{Field: "mail", Key: ref("k")}}, Rule{Filter: &Filter{Where: "n >= 5"}})
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() {
			for i := range 50 {
				var rows []string
				for k := range 10 {
					rows = append(rows, fmt.Sprintf("insert | %d, m%d, %d", k, g*1000+i*10+k, k))
				}
				out, filtered, _, err := c.Apply(batchOf(t, s, rows...))
				if err != nil || filtered != 5 || out.Len() != 5 {
					t.Errorf("%d filtered: %v", filtered, err)
					return
				}
				want := mustCompile(t, s, Protect, Rule{Hash: &Hash{Field: "mail", Key: ref("k")}})
				one, _, _, _ := want.Apply(batchOf(t, s, rows[9]))
				if string(one.After[1].Value(0)) != string(out.After[1].Value(4)) {
					t.Error("another digest")
				}
				out.Release()
			}
		})
	}
	group.Wait()
}

func TestCheck(t *testing.T) {
	rules := decodeRules(t, []map[string]any{
		{"rename": map[string]string{"mail": "email"}},
		{"hash": map[string]any{"field": "email", "method": "sha256", "suffix": "_hashed"}},
		{"drop": map[string]any{"fields": []string{"email_hashed", "mail"}}},
		{"constant": map[string]any{"field": "c", "value": "x"}},
		{"keep": map[string]any{"fields": []string{"id", "c", "c"}}},
		{"filter": map[string]any{"where": "id ="}},
	})
	rules = append(rules, Rule{}, Rule{Drop: &Drop{}}, Rule{Drop: &Drop{Fields: []string{"a"}}, Keep: &Keep{Fields: []string{"a"}}})
	for _, c := range []struct {
		fields []string
		want   []string
	}{
		{nil, []string{"rule 5 (keep) fields[2]: c is named twice", "rule 6 (filter) where at 5: want a field or a value, got the end",
			"rule 7: a rule is exactly one of " + strings.Join(kindNames(), ", "), "rule 8 (drop) fields: name at least one field",
			"rule 9: a rule is exactly one of " + strings.Join(kindNames(), ", ")}},
		{[]string{"id", "mail"}, []string{"rule 3 (drop): the stream has no field mail here"}},
	} {
		err := Check(rules, Protect, c.fields)
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q is not in:\n%v", w, err)
			}
		}
	}
	if err := Check(rules[:2], Protect, []string{"id", "mail"}); err != nil {
		t.Errorf("good rules: %v", err)
	}
}

func TestNamed(t *testing.T) {
	rules := []Rule{{Hash: &Hash{Field: "*mail*", Key: ref("k")}}, {Allow: &Allow{Fields: []string{"city"}}}, {Rename: map[string]string{"a": "b"}}}
	for field, want := range map[string]bool{"Mail2": true, "city": true, "a": true, "b": false, "phone": false} {
		if Named(rules, field) != want {
			t.Errorf("%s: want %v", field, want)
		}
	}
}

// TestKinds: the list for the configuration and the Rule type agree.
func TestKinds(t *testing.T) {
	typ := reflect.TypeFor[Rule]()
	if typ.NumField() != len(Kinds()) {
		t.Fatalf("%d rules, %d kinds", typ.NumField(), len(Kinds()))
	}
	for _, k := range Kinds() {
		found := false
		for i := range typ.NumField() {
			found = found || typ.Field(i).Tag.Get("yaml") == k.Name
		}
		into := k.New()
		if m, ok := into.(*map[string]string); ok {
			*m = map[string]string{"a": "b"}
		}
		r, ok := RuleOf(into)
		if !found || !ok || r.Kind() != k.Name || r.Settings() == nil {
			t.Errorf("kind %s: in Rule %v, made %s", k.Name, found, r.Kind())
		}
		if reflect.TypeOf(into).Elem().Kind() != reflect.Struct {
			continue
		}
		settings := reflect.TypeOf(into).Elem()
		for j := range settings.NumField() {
			if g := settings.Field(j); g.Tag.Get("yaml") == "" || !strings.HasSuffix(g.Tag.Get("doc"), ".") {
				t.Errorf("%s.%s has no name or no doc sentence", k.Name, g.Name)
			}
		}
	}
}
