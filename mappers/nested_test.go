package mappers

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sluice-data/sluice/record"
)

// replaced does what nested does, on decoded documents: nil for with leaves the value out.
func replaced(v any, path []string, with *string) (out any, blocked bool) {
	switch v := v.(type) {
	case []any:
		if len(path) == 0 {
			break
		}
		for i := range v {
			var b bool
			v[i], b = replaced(v[i], path, with)
			blocked = blocked || b
		}
		return v, blocked
	case map[string]any:
		if len(path) == 0 {
			break
		}
		e, found := v[path[0]]
		switch {
		case found && len(path) == 1 && with == nil:
			delete(v, path[0])
		case found:
			v[path[0]], blocked = replaced(e, path[1:], with)
		}
		return v, blocked
	}
	if len(path) > 0 {
		return v, v != nil
	}
	if v == nil {
		return nil, false
	}
	return *with, false
}

func FuzzNested(f *testing.F) {
	for _, doc := range []string{`{"a":1}`, `{"a":{"b":[{"c":"x"},null,"y"]}, "b":[]}`, `[{"a":{"b":2}},{"a":[{"b":null}]}]`, `"a"`, `{"\u0061":{"b":"\""}}`, ` { } `, `{"a":-1e5 }`} {
		f.Add(doc, "a", true)
		f.Add(doc, "a.b", false)
		f.Add(doc, "a.b.c", true)
	}
	f.Fuzz(func(t *testing.T, doc, path string, drop bool) {
		if !utf8.ValidString(doc) || !utf8.ValidString(path) || strings.ContainsAny(path, "*") || path == "" || strings.Contains("."+path+".", "..") {
			return
		}
		with := "[redacted]"
		text := &with
		rule := Rule{Redact: &Redact{Fields: []string{"x." + path}}}
		if drop {
			text, rule = nil, Rule{Drop: &Drop{Fields: []string{"x." + path}}}
		}
		s := schemaOf("id int64 key, x json")
		c, err := Compile([]Rule{rule}, s, testRing, Protect)
		if err != nil {
			t.Fatal(err)
		}
		b := record.NewBatch(s, nil)
		b.Ops, b.Pos, b.Time = []record.Op{record.OpInsert}, make([]record.Position, 1), make([]int64, 1)
		b.After[0].AppendInt64(1)
		b.After[1].AppendData([]byte(doc))
		out, _, rejects, err := c.Apply(b)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		bad := json.Unmarshal([]byte(doc), &v) != nil
		blocked := false
		if !bad {
			v, blocked = replaced(v, strings.Split(path, "."), text)
		}
		if bad || blocked {
			// A name that is there twice may hide what blocks the last one from the reference.
			if len(rejects) != 1 {
				t.Fatalf("%s in %s is not refused", path, doc)
			}
			return
		}
		if len(rejects) == 1 && rejects[0].Code == codePath && hasTwice(doc) {
			return
		}
		if len(rejects) > 0 {
			t.Fatalf("%s in %s: %v", path, doc, rejects)
		}
		want, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := json.Unmarshal(out.After[1].Value(0), &got); err != nil {
			t.Fatalf("%s became %s: %v", doc, out.After[1].Value(0), err)
		}
		if again, _ := json.Marshal(got); string(again) != string(want) && !hasTwice(doc) {
			t.Fatalf("%s in %s: got %s, want %s", path, doc, again, want)
		}
	})
}

// hasTwice reports whether a document may name a member twice: the reference
// knows the last one only.
func hasTwice(doc string) bool {
	d := json.NewDecoder(strings.NewReader(doc))
	names, n := map[string]bool{}, 0
	for {
		tok, err := d.Token()
		if err != nil {
			return n > len(names)
		}
		if s, ok := tok.(string); ok {
			names[s] = true
			n++
		}
	}
}
