package hardvalues

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-data/sluice/internal/binary"
	"github.com/sluice-data/sluice/internal/judge"
)

var update = flag.Bool("update", false, "write docs/types.md")

// TestHardValuesSurviveOrAreRefused takes every value through backfill, insert
// and update, and holds what DuckDB and PyIceberg read against Postgres.
func TestHardValuesSurviveOrAreRefused(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	fl := startFlow(ctx, t)
	engines := []string{"duckdb", "pyiceberg"}
	want, got := fl.prints(ctx, t, engines...)
	doc := head
	count := 0
	for i := range families {
		f := &families[i]
		for _, engine := range engines {
			wholeRows(t, f, engine, want[i], got[engine][i])
		}
		types := fl.columnTypes(ctx, t, f.name)
		for v := range f.values {
			count++
			doc += fl.line(t, f, v, types, engines, want[i], got, i)
		}
	}
	if count < 40 {
		t.Errorf("%d values are few", count)
	}
	path := filepath.Join(binary.Root(t), "docs", "types.md")
	if *update {
		if t.Failed() {
			t.Fatal("not written")
		}
		if err := os.WriteFile(path, []byte(doc), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(old) != doc {
		t.Errorf("docs/types.md says something else: go test ./internal/hardvalues -update\n%s", differing(string(old), doc))
	}
}

// wholeRows checks what no column of a value shows: that nothing is missing, and nothing combined wrongly.
func wholeRows(t *testing.T, f *family, engine string, want, got judge.Print) {
	t.Helper()
	if want.Rows != got.Rows {
		t.Errorf("%s: %s reads %d rows, %d are wanted", f.name, engine, got.Rows, want.Rows)
	}
	if err := judge.Equal(want, got); err != nil {
		for i := range f.values {
			if strings.Contains(f.values[i].engines, engine) {
				return
			}
		}
		t.Errorf("%s: %s: %v", f.name, engine, err)
	}
}

// line is the value's line of the document.
func (fl *flow) line(t *testing.T, f *family, v int, types map[string]string, engines []string, want judge.Print, got map[string][]judge.Print, at int) string {
	t.Helper()
	val := &f.values[v]
	column := f.columnOf(v)
	name := f.name + "." + column + " " + val.typ
	cells := []string{code(val.typ), code(plain(val.literal))}
	if val.show != "" {
		cells[1] = val.show
	}
	if val.column != "" {
		cells[1] = "column " + code(val.column)
	}
	kind, there := types[column]
	if there == val.absent {
		t.Errorf("%s: its column is there: %t", name, there)
	}
	if val.absent {
		return row(append(cells, "–", "–", "–", val.note))
	}
	cells = append(cells, code(kind))
	dead := map[string]int{}
	for r := range rowsOf {
		if why := fl.refused[f.stream()][id(v, r)]; why != "" {
			dead[why]++
		}
	}
	note := val.note
	if len(dead) > 0 {
		total, reason := 0, ""
		for why, n := range dead {
			total += n
			if c, _, _ := strings.Cut(why, ":"); c != "missing_old_row" || reason == "" {
				reason = c
			}
		}
		if total != rowsOf {
			t.Errorf("%s: %d of its %d rows are dead letters: %v", name, total, rowsOf, dead)
		}
		for range engines {
			cells = append(cells, "rejected")
		}
		note = strings.TrimSuffix(code(reason)+": "+note, ": ")
		return row(append(cells, note))
	}
	for _, engine := range engines {
		w, g := want.Columns[column], got[engine][at].Columns[column]
		switch {
		case w.Hash == g.Hash && w.Nulls == g.Nulls:
			cells = append(cells, "equal")
			if strings.Contains(val.engines, engine) {
				t.Errorf("%s: %s reads it by now; its note is old", name, engine)
			}
		case strings.Contains(val.engines, engine):
			cells = append(cells, "**differs**")
		default:
			cells = append(cells, "**differs**")
			t.Errorf("%s: differs in %s", name, engine)
		}
	}
	if val.engines != "" {
		note = strings.TrimPrefix(note+"; "+val.engines, "; ")
	}
	return row(append(cells, note))
}

const head = `# Types

What becomes of a Postgres value in an Iceberg table. A test writes this page: it takes each value through the whole flow by backfill, by insert and by an update of another column, and compares what the engines read with Postgres. ` + "`rejected`" + ` rows are on the dead-letter topic with the reason; they are never changed into something else, and the table's other rows go on. Spark 4.1 reads the same as the two engines here: ` + "`make engines`" + `.

One name in two spellings: DuckDB refuses a table with columns such as ` + "`Aa` and `aa`" + `; drop or rename one by a rule.

| Postgres type | value | Iceberg type | DuckDB | PyIceberg | note |
|---|---|---|---|---|---|
`

func code(s string) string {
	if s == "" {
		return "empty"
	}
	return "`" + strings.ReplaceAll(strings.ReplaceAll(s, "|", `\|`), "\n", " ") + "`"
}

// plain takes the quotes off a literal that is nothing but quoted.
func plain(literal string) string {
	if strings.HasPrefix(literal, "'") {
		return strings.Trim(literal, "'")
	}
	return literal
}

func row(cells []string) string { return "| " + strings.Join(cells, " | ") + " |\n" }

// differing shows the lines that only one of two texts has.
func differing(a, b string) string {
	var out strings.Builder
	for _, side := range []struct{ sign, of, other string }{{"-", a, b}, {"+", b, a}} {
		for line := range strings.Lines(side.of) {
			if !strings.Contains(side.other, line) {
				fmt.Fprintf(&out, "%s%s", side.sign, line)
			}
		}
	}
	return out.String()
}
