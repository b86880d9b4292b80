package lake

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/record"
	"pgregory.net/rapid"
)

// staleSchema has a column with values that no table can hold.
func staleSchema() *record.Schema {
	return testSchema(record.Field{Name: "id", Kind: record.Int32, Key: 1}, record.Field{Name: "name", Kind: record.Text, Nullable: true},
		record.Field{Name: "day", Kind: record.Date, Nullable: true})
}

// TestRejectedKeysSurviveARestart: after a rejected update the row in the table
// is not the last one; no later update may take cells from it, whichever
// process comes to it, and when.
func TestRejectedKeysSurviveARestart(t *testing.T) {
	w := newWorld(t)
	s := staleSchema()
	process := func() *writer { return openWriter(t, w.open(nil), TableConfig{Mode: Upsert}) }
	u := process()
	next := int64(0)
	write := func(r row) []record.Reject {
		t.Helper()
		next++
		r.pos = at(1, uint64(next))
		return u.write(batchOf(t, s, 0, next-1, r))
	}
	reject := func(r row, code string) {
		t.Helper()
		if got := write(r); len(got) != 1 || got[0].Code != code {
			t.Fatalf("rejects %+v, want %s", got, code)
		}
	}
	take := func(r row) {
		t.Helper()
		if got := write(r); len(got) != 0 {
			t.Fatalf("rejects %+v", got)
		}
	}
	update := func(values ...any) row { return row{op: record.OpUpdate, values: values} }
	take(row{op: record.OpInsert, values: []any{1, "a", 1}})
	take(row{op: record.OpInsert, values: []any{2, "b", 2}})
	u.mustFlush()
	reject(update(1, "newer", math.MaxInt32), "value_out_of_range")
	u.mustFlush() // nothing but a mark

	u.tbl.Close()
	u = process()
	reject(update(1, unsent, 11), "missing_old_row")
	take(update(2, unsent, 22))
	reject(update(2, "bb", math.MaxInt32), "value_out_of_range")
	u.tbl.Close() // before a flush: what was rejected is read and rejected again
	u = process()
	next = u.marks[0].Next
	take(update(2, unsent, 22))
	reject(update(1, unsent, 11), "missing_old_row")
	u.mustFlush()
	wantRows(t, rowsOf(t, u.tbl.lake, "shop.orders", "id", "name"), "id=1 name=a", "id=2 name=b")

	take(update(1, "whole", 12))
	u.mustFlush()
	u.tbl.Close()
	u = process()
	take(update(1, unsent, 13))
	u.mustFlush()
	wantRows(t, rowsOf(t, u.tbl.lake, "shop.orders", "id", "name"), "id=1 name=whole", "id=2 name=b")
	if text := u.tbl.tbl.Properties()[u.tbl.staleProperty(0)]; text != "" {
		t.Errorf("keys are left behind: %q", text)
	}
}

// TestTooManyRejectedKeys: what cannot be remembered key by key is remembered
// as a whole, until older rows are gone.
func TestTooManyRejectedKeys(t *testing.T) {
	w := newWorld(t)
	s := staleSchema()
	process := func() *writer { return openWriter(t, w.open(nil), TableConfig{Mode: Upsert}) }
	u := process()
	u.write(batchOf(t, s, 0, 0, row{record.OpInsert, at(1, 1), []any{-1, "a", 1}}))
	rows := make([]row, maxStaleKeys+1)
	for i := range rows {
		rows[i] = row{record.OpInsert, at(1, uint64(i+2)), []any{i, "a", math.MaxInt32}}
	}
	u.write(batchOf(t, s, 0, 1, rows...))
	u.mustFlush()
	u.tbl.Close()
	u = process()
	next := u.marks[0].Next
	if got := u.write(batchOf(t, s, 0, next, row{record.OpUpdate, at(1, 9000), []any{-1, unsent, 2}})); len(got) != 1 {
		t.Errorf("rejects %+v", got)
	}
	u.write(controlOf(s, record.OpBackfillBegin, 0, next+1, at(2, 9001)))
	u.write(batchOf(t, s, 0, next+2, row{record.OpRead, at(2, 9001), []any{-1, "b", 3}}))
	if got := u.write(batchOf(t, s, 0, next+3, row{record.OpUpdate, at(2, 9002), []any{-1, unsent, 4}})); len(got) != 0 {
		t.Errorf("rejects %+v after a backfill", got)
	}
	u.mustFlush()
	wantRows(t, rowsOf(t, u.tbl.lake, "shop.orders", "id", "name"), "id=-1 name=b")
}

func TestStaleKeysAsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := readStaleKeys("")
		for i := range rapid.IntRange(0, 40).Draw(t, "keys") {
			s.keys[staleKey([]byte(fmt.Sprintf("%09d", i)))] = true
		}
		if got := readStaleKeys(s.text()); got.all || got.text() != s.text() || len(got.keys) != len(s.keys) {
			t.Fatalf("%q came back as %q", s.text(), got.text())
		}
	})
	for _, text := range []string{allStale, "no base64!", "AAAA", strings.Repeat("AAAAAAAAAAAA,", 3)} {
		if s := readStaleKeys(text); !s.all || s.text() != allStale {
			t.Errorf("%q is not read with care", text)
		}
	}
}
