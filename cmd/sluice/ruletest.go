package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/record"
)

// ruleTests is the result of test.
type ruleTests struct {
	Passed int        `json:"passed"`
	Failed int        `json:"failed"`
	Tests  []ruleTest `json:"tests"`
}

// ruleTest is what became of one test of the file.
type ruleTest struct {
	Name   string   `json:"name"`
	Stream string   `json:"stream"`
	OK     bool     `json:"ok"`
	Diff   []string `json:"diff,omitempty"` // lines with "  ", "- " (wanted) or "+ " (came out) in front
}

func (a *app) testCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "test [NAME]",
		Short: "Run the tests of the rules that are in the configuration file, offline",
		Long: "test runs the rows of each entry of tests: through the rules of its stream and compares what comes out.\n" +
			"It needs no database and no keys: every key is replaced by one made of its reference, so that\n" +
			"what a hash or aes-siv rule gives is the same on every machine and says nothing about the real key.\n" +
			"The exit code is 1 if a test fails.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := a.load()
			if err != nil {
				return err
			}
			if err := checkAll(f); err != nil {
				return err
			}
			return a.runTests(f, args)
		},
	}
}

func (a *app) runTests(f *config.File, args []string) error {
	c := chains{f: f, keys: func() *keys.Snapshot { return testKeys(f) }}
	r := ruleTests{Tests: []ruleTest{}}
	var names []string
	for i := range f.Tests {
		t := &f.Tests[i]
		names = append(names, t.Name)
		if len(args) > 0 && t.Name != args[0] {
			continue
		}
		diff, err := c.runTest(t)
		var problems config.Problems
		if errors.As(err, &problems) {
			return invalid(problems)
		}
		if err != nil {
			return invalid(config.Problems{f.Problem(fmt.Sprintf("tests[%d]", i), err.Error())})
		}
		one := ruleTest{Name: t.Name, Stream: t.Stream, OK: !slices.ContainsFunc(diff, func(l string) bool { return l[0] != ' ' })}
		if one.OK {
			r.Passed++
		} else {
			r.Failed++
			one.Diff = diff
		}
		r.Tests = append(r.Tests, one)
	}
	a.result = r
	switch {
	case len(f.Tests) == 0:
		return invalid(fmt.Errorf("%s has no tests: section", f.Path()))
	case len(r.Tests) == 0:
		return invalid(fmt.Errorf("no test %q; there are %s", args[0], strings.Join(names, ", ")))
	}
	if !a.json {
		fmt.Fprint(a.stdout, plainText(r.text()))
	}
	if r.Failed > 0 {
		return fmt.Errorf("%s of %d failed", count(r.Failed, "test"), len(r.Tests))
	}
	return nil
}

func (r ruleTests) text() string {
	var b strings.Builder
	for _, t := range r.Tests {
		word := "ok  "
		if !t.OK {
			word = "FAIL"
		}
		fmt.Fprintf(&b, "%s  %s   %s\n", word, t.Stream, t.Name)
		for _, l := range t.Diff {
			fmt.Fprintf(&b, "      %s\n", l)
		}
	}
	fmt.Fprintf(&b, "%s passed, %d failed\n", count(r.Passed, "test"), r.Failed)
	return b.String()
}

// testPublicKey stands for the public key of an RSA rule where only the form of
// its result matters: its private key is in the tests of mappers.
const testPublicKey = "30820122300d06092a864886f70d01010105000382010f003082010a028201010096af1e2889169de45f1e3998d088668f365c2721a008d2ad138503" +
	"efbc3914f4e346772d3556fbcef07b487603a0b272910b07194056c8f5f68b0d37d6f5d1fb09fe5a2f2d9b1b4402b4e46bb027503ad844faeddb4c34" +
	"d686687ee45dab082df33808ffa37fbffd7659fe1412abaa05a1d5eda9ad71cabdda4121c44331f2e649a1218371658ce7d8ff2d9b8bfbafb02a1170" +
	"4e2d1e3a43b192e476f18a045bd499ea59eb73451160c2bc5c7388612bed7396ccc9ca945d9fb03e8ddc4e61c1bcd3b6af4a27971dbe1ab5bdddea6d" +
	"9439091ad351cf29b5dbc1e57ac71f37ed59ac8ba1b81fa1678f1d8ce6cf545ab3eefccac951681f79a9f915f057536e5b0203010001"

// testKeys makes a key of every reference of f.
func testKeys(f *config.File) *keys.Snapshot {
	made := map[keys.Ref][]byte{}
	for _, u := range keyUses(f) {
		sum := sha256.Sum256([]byte("sluice test key " + u.ref.String()))
		made[u.ref] = sum[:]
		for _, r := range u.rules {
			if e, ok := r.Settings.(*mappers.Encrypt); ok && strings.HasPrefix(e.Method, "rsa") {
				made[u.ref] = []byte(testPublicKey) // no digest is one
			}
		}
	}
	return keys.Fixed(made)
}

// runTest returns the lines of what was wanted and of what came out.
func (c chains) runTest(t *config.Test) (diff []string, err error) {
	in, err := testSchema(t)
	if err != nil {
		return nil, err
	}
	batch, err := testBatch(in, t.Rows)
	if err != nil {
		return nil, err
	}
	out, err := c.passTest(t, batch)
	if t.Parked != "" {
		message := ""
		if err != nil {
			message = err.Error()
		}
		if strings.Contains(message, t.Parked) {
			return []string{"  parked: " + t.Parked}, nil
		}
		if err == nil {
			message = "the rules ran"
		}
		return []string{"- parked: " + t.Parked, "+ " + message}, nil
	}
	var parked *mappers.RunError
	if errors.As(err, &parked) {
		return []string{"+ parked: " + err.Error()}, nil
	}
	if err != nil {
		return nil, err
	}
	diff = diffRows(out, t.Want)
	if out.filtered != t.Filtered {
		diff = append(diff, fmt.Sprintf("- filtered: %d", t.Filtered), fmt.Sprintf("+ filtered: %d", out.filtered))
	}
	var got, want []string
	for _, r := range out.rejects {
		got = append(got, fmt.Sprintf("rejects: row %d, %s", r.Row+1, r.Code))
	}
	for _, r := range t.Rejects {
		want = append(want, fmt.Sprintf("rejects: row %d, %s", r.Row, r.Code))
	}
	return append(diff, diffLines(want, got)...), nil
}

// passed is what a test's rows have become.
type passed struct {
	rows     []resultRow
	filtered int
	rejects  []record.Reject
}

// resultRow is a row behind the rules, cell by cell as topics spell it.
type resultRow struct {
	op    record.Op
	names []string
	cells []string
}

// passTest runs the rows through the protect rules and those of the sink. Rows
// go one by one, so that every reject knows where its row came from.
func (c chains) passTest(t *config.Test, rows []*record.Batch) (passed, error) {
	var p passed
	var phases []phaseRules
	for _, s := range c.f.Sources {
		if local, ok := strings.CutPrefix(t.Stream, s.Name+"."); ok {
			phases = append(phases, phaseRules{"protect", protectRules(s, local), mappers.Protect})
		}
	}
	for _, s := range c.f.Sinks {
		for _, stream := range s.Streams {
			if s.Name == t.Sink && stream.Source+"."+stream.Local == t.Stream {
				phases = append(phases, phaseRules{s.Name, stream.Shape, mappers.Shape})
			}
		}
	}
	for i, b := range rows {
		for _, phase := range phases {
			chain, err := c.compile(phase.rules, b.Schema, c.keys(), phase.phase)
			if err != nil {
				return p, err
			}
			if chain == nil {
				continue
			}
			out, filtered, rejects, err := chain.Apply(b)
			if err != nil {
				return p, err
			}
			p.filtered += filtered
			for _, r := range rejects {
				r.Row = i
				p.rejects = append(p.rejects, r)
			}
			if b = out; b == nil {
				break
			}
		}
		if b != nil {
			p.rows = append(p.rows, resultRows(b)...)
		}
	}
	return p, nil
}

// phaseRules are the rules of one phase of a stream; name is protect or that of the sink.
type phaseRules struct {
	name  string
	rules config.Rules
	phase mappers.Phase
}

func resultRows(b *record.Batch) []resultRow {
	var rows []resultRow
	for row := range b.Len() {
		r := resultRow{op: b.Ops[row]}
		for i := range b.Schema.Fields {
			cell := ""
			if b.After[i].State[row] != record.Unsent {
				cell = string(record.AppendJSON(nil, &b.Schema.Fields[i], b.After[i], row))
			}
			r.names, r.cells = append(r.names, b.Schema.Fields[i].Name), append(r.cells, cell)
		}
		rows = append(rows, r)
	}
	return rows
}

// diffRows compares row by row, so that a mistake shows beside what it should be.
func diffRows(p passed, want []config.Row) []string {
	var lines []string
	for i := range max(len(p.rows), len(want)) {
		switch {
		case i >= len(want):
			lines = append(lines, "+ "+p.rows[i].text())
		case i >= len(p.rows):
			lines = append(lines, "- "+rowText(want[i]))
		default:
			if bad := p.rows[i].mismatches(want[i]); len(bad) > 0 {
				lines = append(lines, "- "+rowText(want[i]), "+ "+p.rows[i].text())
				for _, b := range bad {
					lines = append(lines, "+   "+b)
				}
			} else {
				lines = append(lines, "  "+p.rows[i].text())
			}
		}
	}
	return lines
}

// mismatches says what of r is not as wanted, field by field.
func (r resultRow) mismatches(want config.Row) []string {
	var bad []string
	for i, name := range r.names {
		v, ok := want.Get(name)
		switch {
		case !ok && r.cells[i] != "":
			bad = append(bad, name+" is not wanted and came out")
		case !ok:
		default:
			if why := unlike(r.cells[i], v); why != "" {
				bad = append(bad, name+": "+why)
			}
		}
	}
	for _, c := range want {
		if c.Name == "_op" {
			if c.Value.Text != r.op.String() {
				bad = append(bad, "_op: is "+r.op.String())
			}
		} else if !slices.Contains(r.names, c.Name) {
			bad = append(bad, c.Name+" is wanted and is no field")
		}
	}
	return bad
}

// unlike says why a cell, as topics spell it, is not the wanted value; "" = it is.
func unlike(cell string, want config.Value) string {
	if want.Kind == config.Map && len(want.Fields) == 1 && want.Fields[0].Name == "matches" {
		re, err := regexp.Compile(want.Fields[0].Value.Text)
		if err != nil {
			return "matches: " + err.Error()
		}
		if text := unquoted(cell); cell == "" || !re.MatchString(text) {
			return fmt.Sprintf("does not match %s", re)
		}
		return ""
	}
	if got, wanted := canonicalCell(cell), canonicalValue(want); got != wanted {
		return fmt.Sprintf("want %s, got %s", wanted, got)
	}
	return ""
}

// diffLines lists what only one side has.
func diffLines(want, got []string) []string {
	var lines []string
	for _, l := range want {
		if !slices.Contains(got, l) {
			lines = append(lines, "- "+l)
		}
	}
	for _, l := range got {
		mark := "+ "
		if slices.Contains(want, l) {
			mark = "  "
		}
		lines = append(lines, mark+l)
	}
	return lines
}
