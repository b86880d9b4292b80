package mappers

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-data/sluice/record"
)

// table is a sink: rows by key, cell by cell.
type table map[string][]string

// write applies a batch as a sink does. strict says that an insert must find no
// row, an update and a delete one.
func (w table) write(b *record.Batch, strict bool) error {
	if b == nil {
		return nil
	}
	for i, op := range b.Ops {
		cells := strings.Split(image(b.Schema, b.After, i), ", ")
		key := cells[0]
		old, found := w[key]
		if strict && found != (op == record.OpUpdate || op == record.OpDelete) {
			return fmt.Errorf("%s of key %s: row found: %v", op, key, found)
		}
		if op == record.OpDelete {
			delete(w, key)
			continue
		}
		for k, c := range cells {
			if c != absent {
				continue
			}
			if !found {
				return fmt.Errorf("%s of key %s: cell %d is unsent and there is no row", op, key, k)
			}
			cells[k] = old[k]
		}
		w[key] = cells
	}
	return nil
}

// TestFilterKeepsTheTableRight replays random changes: what a sink holds after
// a filter is what a query with the same condition finds at the source.
func TestFilterKeepsTheTableRight(t *testing.T) {
	s := schemaOf("id int64 key, v int64, big text")
	rapid.Check(t, func(t *rapid.T) {
		images, unsent, hashed := rapid.Bool().Draw(t, "images"), rapid.Bool().Draw(t, "unsent"), rapid.Bool().Draw(t, "hashed")
		rules := []Rule{{Filter: &Filter{Where: rapid.SampledFrom([]string{"v > 2", "v <> 2 and big like 'a%'", "v is null or big = 'a'", "id > 2"}).Draw(t, "where")}}}
		if hashed {
			rules = append(rules, Rule{Hash: &Hash{Field: "id", Key: ref("k")}})
		}
		c, err := Compile(rules, s, testRing, Shape)
		if err != nil {
			t.Fatal(err)
		}
		source, sink := table{}, table{}
		var rows []string
		for range rapid.IntRange(1, 25).Draw(t, "changes") {
			key := fmt.Sprint(rapid.IntRange(1, 4).Draw(t, "key"))
			old, found := source[key]
			row := []string{key, rapid.SampledFrom([]string{"1", "2", "3", "4", null}).Draw(t, "v"), rapid.SampledFrom([]string{"a", "ab", "b"}).Draw(t, "big")}
			sent := strings.Join(row, ",")
			switch {
			case !found:
				rows = append(rows, "insert |"+sent)
			case rapid.IntRange(0, 3).Draw(t, "delete") == 0:
				rows = append(rows, "delete |"+key+",-,-")
				row = nil
			default:
				if unsent && images && rapid.Bool().Draw(t, "toast") {
					row[2], sent = old[2], key+","+row[1]+",-"
				}
				rows = append(rows, "update |"+sent)
			}
			if images && found {
				rows[len(rows)-1] += "|" + strings.Join(old, ",")
			}
			if row == nil {
				delete(source, key)
			} else {
				source[key] = row
			}
		}
		for len(rows) > 0 {
			n := rapid.IntRange(1, len(rows)).Draw(t, "batch")
			out, _, rejects, err := c.Apply(batchOf(t, s, rows[:n]...))
			if err != nil || len(rejects) > 0 {
				t.Fatal(err, rejects)
			}
			if err := sink.write(out, images); err != nil {
				t.Fatal(err)
			}
			rows = rows[n:]
		}
		want := table{}
		for _, row := range source {
			out, _, _, err := c.Apply(batchOf(t, s, "read |"+strings.Join(row, ",")))
			if err != nil {
				t.Fatal(err)
			}
			if err := want.write(out, true); err != nil {
				t.Fatal(err)
			}
		}
		if !maps.EqualFunc(sink, want, func(a, b []string) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
			t.Fatalf("the sink holds %v, the source %v", sink, want)
		}
	})
}
