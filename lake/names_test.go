package lake

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/record"
	"pgregory.net/rapid"
)

func namedSchema(names ...string) *record.Schema {
	fields := []record.Field{{Name: "id", Kind: record.Int32, Key: 1}}
	for _, n := range names {
		fields = append(fields, record.Field{Name: n, Kind: record.Text, Nullable: true})
	}
	return testSchema(fields...)
}

// TestNamesThatDifferInCase: a table whose columns differ in nothing but
// capitals is refused by engines as a whole.
func TestNamesThatDifferInCase(t *testing.T) {
	for _, c := range []struct {
		fields  []string
		appends bool
		want    string
	}{
		{[]string{"note", "Note", "NOTE"}, false, "id note Note__2 NOTE__3"},
		{[]string{"Note", "note"}, false, "id Note note__2"},
		{[]string{"ID", "id__2"}, false, "id ID__3 id__2"},
		{[]string{"_op", "_LSN"}, true, "id _op__source _LSN__source"},
		{[]string{"_op"}, false, "id _op"},
		{[]string{"É", "é"}, false, "id É é__2"},
	} {
		if got := strings.Join(columnNames(nil, namedSchema(c.fields...), c.appends), " "); got != c.want {
			t.Errorf("%v: %s, want %s", c.fields, got, c.want)
		}
	}

	// A column that comes later never takes the name of one that is there, be
	// that in the stream still or not.
	w := newWorld(t)
	l := w.open(nil)
	u := openWriter(t, l, TableConfig{Mode: Upsert})
	u.write(batchOf(t, namedSchema("Note"), 0, 0, row{record.OpInsert, at(1, 1), []any{1, "a"}}))
	u.mustFlush()
	u.write(batchOf(t, namedSchema("note"), 0, 1, row{record.OpInsert, at(1, 2), []any{2, "b"}}))
	u.mustFlush()
	u.write(batchOf(t, namedSchema("note", "Note"), 0, 2, row{record.OpInsert, at(1, 3), []any{3, "c", "C"}}))
	u.mustFlush()
	wantRows(t, rowsOf(t, l, "shop.orders"), "id=1 Note=a note__2=(null)", "id=2 Note=(null) note__2=b", "id=3 Note=C note__2=c")
}

func TestNamesAreDistinctForEveryEngine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[aA][bB](__[23])?`), 1, 8, rapid.ID[string]).Draw(t, "names")
		seen := map[string]bool{}
		got := columnNames(nil, namedSchema(names...), rapid.Bool().Draw(t, "append"))
		for _, n := range got {
			if low := strings.ToLower(n); seen[low] {
				t.Fatalf("%v became %v", names, got)
			} else {
				seen[low] = true
			}
		}
		if again := columnNames(nil, namedSchema(names...), false); fmt.Sprint(again) != fmt.Sprint(columnNames(nil, namedSchema(names...), false)) {
			t.Fatal("the names are not always the same")
		}
	})
}
