package mappers

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestRulesDocument: docs/rules.md is what the rules say of themselves, and
// every rule has an example, which TestGolden runs.
func TestRulesDocument(t *testing.T) {
	text, err := os.ReadFile("testdata/examples.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var examples []*golden
	if err := yaml.Unmarshal(text, &examples); err != nil {
		t.Fatal(err)
	}
	head, err := os.ReadFile("testdata/rules-head.md")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.Write(head)
	for _, k := range Kinds() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", k.Name, k.Doc)
		options(&b, k)
		found := 0
		for _, e := range examples {
			if e.Name == k.Name {
				e.write(t, &b)
				found++
			}
		}
		if found == 0 {
			t.Errorf("%s has no example", k.Name)
		}
	}
	figures(t, &b)
	const path = "../docs/rules.md"
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old, err := os.ReadFile(path); err != nil || !bytes.Equal(old, b.Bytes()) {
		t.Errorf("docs/rules.md is not what the rules say; fix: go test ./mappers -run TestRulesDocument -update (%v)", err)
	}
}

func options(b *bytes.Buffer, k Kind) {
	typ := reflect.TypeOf(k.New()).Elem()
	if typ.Kind() != reflect.Struct {
		return
	}
	b.WriteString("| option | meaning |\n|---|---|\n")
	for i := range typ.NumField() {
		tag := typ.Field(i).Tag
		name := "`" + tag.Get("yaml") + "`"
		if tag.Get("required") == "true" {
			name = "**" + name + "**"
		}
		doc := strings.ReplaceAll(tag.Get("doc"), "|", "\\|")
		if e := tag.Get("enum"); e != "" {
			doc += " One of " + strings.ReplaceAll(e, ",", ", ") + "."
		}
		if d := tag.Get("default"); d != "" {
			doc += " Default: `" + d + "`."
		}
		fmt.Fprintf(b, "| %s | %s |\n", name, doc)
	}
	b.WriteByte('\n')
}

func (c *golden) write(t *testing.T, b *bytes.Buffer) {
	t.Helper()
	if c.Note != "" {
		b.WriteString(c.Note + "\n\n")
	}
	var rules bytes.Buffer
	e := yaml.NewEncoder(&rules)
	e.SetIndent(2)
	if err := e.Encode(c.Rules); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(b, "```yaml\n%s```\n\n```text\n", rules.String())
	for name, table := range c.Tables {
		fmt.Fprintf(b, "%s:\n%s\n", name, table)
	}
	fmt.Fprintf(b, "in   %s\n", c.Schema)
	for _, r := range c.Rows {
		fmt.Fprintf(b, "     %s\n", strings.TrimSpace(r))
	}
	fmt.Fprintf(b, "out  %s\n", c.Out)
	for _, r := range c.Want {
		fmt.Fprintf(b, "     %s\n", r)
	}
	if c.Filtered > 0 {
		fmt.Fprintf(b, "filtered: %d\n", c.Filtered)
	}
	for row := range c.Rows {
		if reason := c.Rejects[row]; reason != "" {
			fmt.Fprintf(b, "row %d refused: %s\n", row+1, reason)
		}
	}
	b.WriteString("```\n\n")
}

var benchLine = regexp.MustCompile(`^BenchmarkRules/(insert|update)/(\S+)\s.*?([0-9.]+) ns/row.*?([0-9]+) allocs/op`)

// figures writes the table of testdata/bench.txt, which is the output of
// go test -run xxx -bench BenchmarkRules with a line about machine and date before it.
func figures(t *testing.T, b *bytes.Buffer) {
	t.Helper()
	text, err := os.ReadFile("testdata/bench.txt")
	if err != nil {
		t.Fatal(err)
	}
	about, rest, _ := strings.Cut(string(text), "\n")
	cells := map[string][4]string{}
	var order []string
	for line := range strings.Lines(rest) {
		m := benchLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		c, known := cells[m[2]]
		if !known {
			order = append(order, m[2])
		}
		i := 0
		if m[1] == "update" {
			i = 2
		}
		c[i], c[i+1] = m[3], m[4]
		cells[m[2]] = c
	}
	fmt.Fprintf(b, "## What a rule costs\n\n%s\n\nA batch has 4096 rows of 11 fields; an update carries the old row too, which the rule works on as well. "+
		"Allocations are those of a whole batch.\n\n| rule | insert ns/row | allocs/batch | update with old row ns/row | allocs/batch |\n|---|---:|---:|---:|---:|\n", about)
	for _, name := range order {
		c := cells[name]
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", name, c[0], c[1], c[2], c[3])
	}
}
