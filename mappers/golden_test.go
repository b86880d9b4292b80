package mappers

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-data/sluice/record"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

// golden is one case of a file in testdata: rules over rows, and what becomes of them.
type golden struct {
	Name     string              `yaml:"name"`
	Note     string              `yaml:"note,omitempty"` // for docs/rules.md
	Phase    string              `yaml:"phase,omitempty"`
	Tags     map[string][]string `yaml:"tags,omitempty"`
	Tables   map[string]string   `yaml:"tables,omitempty"` // content of lookup files
	Schema   string              `yaml:"schema"`
	Rules    []map[string]any    `yaml:"rules"`
	Rows     []string            `yaml:"rows,omitempty"`
	Out      string              `yaml:"out,omitempty"`
	Want     []string            `yaml:"want,omitempty"`
	Filtered int                 `yaml:"filtered,omitempty"`
	Rejects  map[int]string      `yaml:"rejects,omitempty"`
	Errors   []string            `yaml:"errors,omitempty"`
}

// decodeRules reads rules as the configuration does: one key per rule.
func decodeRules(t testing.TB, list []map[string]any) []Rule {
	t.Helper()
	var rules []Rule
	for _, one := range list {
		for name, settings := range one {
			found := false
			for _, k := range Kinds() {
				if k.Name != name {
					continue
				}
				found = true
				text, err := yaml.Marshal(settings)
				if err != nil {
					t.Fatal(err)
				}
				into := k.New()
				d := yaml.NewDecoder(bytes.NewReader(text))
				d.KnownFields(true)
				if err := d.Decode(into); err != nil {
					t.Fatalf("rule %s: %v", name, err)
				}
				r, ok := RuleOf(into)
				if !ok {
					t.Fatalf("rule %s cannot be made", name)
				}
				rules = append(rules, r)
			}
			if !found {
				t.Fatalf("there is no rule %s", name)
			}
		}
	}
	return rules
}

type tables map[string]*Table

func (t tables) Table(file string) (*Table, bool) {
	f, ok := t[file]
	return f, ok
}

func specOf(s *record.Schema) string {
	var parts []string
	for _, f := range s.Fields {
		p := f.Name + " " + f.Kind.String()
		if f.Kind == record.Array {
			p = f.Name + " " + f.Elem.Kind.String() + "[]"
		}
		if f.Key > 0 {
			p += " key"
		}
		parts = append(parts, p)
	}
	return strings.Join(parts, ", ")
}

func TestGolden(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.yaml")
	if len(files) == 0 {
		t.Fatal("no files in testdata")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var cases []*golden
		d := yaml.NewDecoder(bytes.NewReader(text))
		d.KnownFields(true)
		if err := d.Decode(&cases); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, c := range cases {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml")+"/"+c.Name, func(t *testing.T) { c.run(t) })
		}
		if *update {
			var b bytes.Buffer
			e := yaml.NewEncoder(&b)
			e.SetIndent(2)
			if err := e.Encode(cases); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (c *golden) run(t *testing.T) {
	phase := Shape
	if c.Phase == "protect" {
		phase = Protect
	}
	s := schemaOf(c.Schema)
	got := golden{Rejects: map[int]string{}}
	files := tables{}
	for name, text := range c.Tables {
		table, err := ParseTable(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = table
	}
	scope := Scope{Phase: phase, Keys: testRing, Tables: files, Tags: func(field string) []string { return c.Tags[field] }}
	chain, err := scope.Compile(decodeRules(t, c.Rules), s)
	if err != nil {
		got.Errors = strings.Split(err.Error(), "\n")
	} else {
		got.Out = specOf(chain.Out())
		if len(c.Rows) > 0 {
			out, filtered, rejects := mustApply(t, chain, batchOf(t, s, c.Rows...))
			got.Want, got.Filtered = rowsOf(out), filtered
			for _, r := range rejects {
				got.Rejects[r.Row] = r.Code + ": " + r.Reason
			}
			if n := len(c.Rows); n != len(got.Want)+filtered+len(rejects) {
				t.Errorf("%d rows in, %d out, %d filtered, %d rejected", n, len(got.Want), filtered, len(rejects))
			}
		}
	}
	if *update {
		c.Out, c.Want, c.Filtered, c.Rejects, c.Errors = got.Out, got.Want, got.Filtered, got.Rejects, got.Errors
		return
	}
	same := func(what, got, want string) {
		if got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
		}
	}
	same("output schema", got.Out, c.Out)
	same("errors", strings.Join(got.Errors, "\n"), strings.Join(c.Errors, "\n"))
	same("rows", strings.Join(got.Want, "\n"), strings.Join(c.Want, "\n"))
	if got.Filtered != c.Filtered {
		t.Errorf("%d rows filtered, want %d", got.Filtered, c.Filtered)
	}
	if len(got.Rejects) != len(c.Rejects) {
		t.Errorf("rejects %v, want %v", got.Rejects, c.Rejects)
	}
	for row, want := range c.Rejects {
		same("reject", got.Rejects[row], want)
	}
}
