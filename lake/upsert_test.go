package lake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/sluice-data/sluice/record"
	"pgregory.net/rapid"
)

func TestUpsertKeepsTheNewestRow(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	s := testSchema()
	u := openWriter(t, l, TableConfig{Mode: Upsert})
	u.write(batchOf(t, s, 0, 0, row{record.OpRead, at(1, 1), []any{1, "a", 1}}, row{record.OpRead, at(1, 1), []any{2, "b", 2}},
		row{record.OpUpdate, at(1, 2), []any{1, "aa", 1}}))
	u.mustFlush()
	wantRows(t, rowsOf(t, l, "shop.orders"), "id=1 name=aa n=1", "id=2 name=b n=2")
	if c := u.marks[0].Counts; c.Superseded != 1 || c.Delivered != 2 {
		t.Errorf("counts %+v", c)
	}
	u.write(batchOf(t, s, 0, 3, row{record.OpUpdate, at(1, 3), []any{2, "bb", 2}}, row{record.OpDelete, at(1, 4), []any{1}},
		row{record.OpInsert, at(1, 5), []any{3, nil, nil}}, row{record.OpDelete, at(1, 6), []any{9}}))
	u.mustFlush()
	wantRows(t, rowsOf(t, l, "shop.orders"), "id=2 name=bb n=2", "id=3 name=(null) n=(null)")
	u.write(batchOf(t, s, 0, 7, row{record.OpInsert, at(1, 7), []any{1, "again", 1}}))
	u.mustFlush()
	wantRows(t, rowsOf(t, l, "shop.orders"), "id=1 name=again n=1", "id=2 name=bb n=2", "id=3 name=(null) n=(null)")
}

func TestUpsertFillsUnsentCells(t *testing.T) {
	w := newWorld(t)
	// A tiny chunk sends rows into the open file at once, a large one keeps them in memory.
	for _, chunk := range []int{1, 1 << 20} {
		l := w.open(func(c *Config) { c.ChunkBytes = chunk })
		s := testSchema()
		u := openWriter(t, l, TableConfig{Mode: Upsert, Table: fmt.Sprintf("shop.unsent%d", chunk)})
		u.write(batchOf(t, s, 0, 0, row{record.OpRead, at(1, 1), []any{1, "a", 1}}, row{record.OpRead, at(1, 1), []any{2, "b", nil}}))
		u.mustFlush()
		u.write(batchOf(t, s, 0, 2, row{record.OpUpdate, at(1, 2), []any{1, unsent, 10}}, row{record.OpUpdate, at(1, 3), []any{2, "bb", unsent}}))
		u.mustFlush()
		u.write(batchOf(t, s, 0, 4, row{record.OpUpdate, at(1, 4), []any{1, "new", unsent}}, row{record.OpInsert, at(1, 5), []any{3, "c", 3}}))
		u.write(batchOf(t, s, 0, 6, row{record.OpUpdate, at(1, 6), []any{1, unsent, 11}}, row{record.OpUpdate, at(1, 7), []any{3, unsent, 33}}))
		u.write(batchOf(t, s, 0, 8, row{record.OpUpdate, at(1, 8), []any{3, "cc", unsent}}, row{record.OpUpdate, at(1, 9), []any{2, unsent, unsent}}))
		u.mustFlush()
		wantRows(t, rowsOf(t, l, u.tbl.cfg.Table), "id=1 name=new n=11", "id=2 name=bb n=(null)", "id=3 name=cc n=33")

		// Without an old row there is nothing to take cells from.
		rejects := u.write(batchOf(t, s, 0, 10, row{record.OpUpdate, at(1, 10), []any{7, unsent, 1}}, row{record.OpDelete, at(1, 11), []any{1}},
			row{record.OpUpdate, at(1, 12), []any{1, unsent, 1}}, row{record.OpUpdate, at(1, 13), []any{7, "full", 1}}, row{record.OpUpdate, at(1, 14), []any{7, unsent, 2}}))
		if len(rejects) != 2 || rejects[0].Row != 0 || rejects[1].Row != 2 || rejects[0].Code != "missing_old_row" {
			t.Errorf("rejects %+v", rejects)
		}
		u.mustFlush()
		wantRows(t, rowsOf(t, l, u.tbl.cfg.Table), "id=7 name=full n=2", "id=2 name=bb n=(null)", "id=3 name=cc n=33")
	}
}

// model is what a table must hold: the newest row of each key, by Kafka partition.
type model map[int32]map[int]string

func (m model) rows() []string {
	var out []string
	for _, part := range m {
		for id, rest := range part {
			out = append(out, fmt.Sprintf("id=%d %s", id, rest))
		}
	}
	slices.Sort(out)
	return out
}

func TestUpsertAgainstModel(t *testing.T) {
	layouts := []TableConfig{
		{Mode: Upsert},
		{Mode: Upsert, PartitionBy: []string{"bucket(3, id)"}, SortBy: []string{"name desc", "id"}},
		{Mode: Upsert, PartitionBy: []string{"truncate(10, n)", "name"}},
	}
	n := 0
	w := newWorld(t)
	rapid.Check(t, func(rt *rapid.T) {
		n++
		c := layouts[rapid.IntRange(0, len(layouts)-1).Draw(rt, "layout")]
		c.Table = fmt.Sprintf("shop.model%d", n)
		chunk := rapid.SampledFrom([]int{1, 600, 1 << 20}).Draw(rt, "chunk")
		process := func() *writer {
			return openWriter(t, w.open(func(c *Config) { c.ChunkBytes = chunk }), c, 0, 1)
		}
		u := process()
		m := model{0: {}, 1: {}}
		cells := map[int][2]any{}
		s := testSchema()
		lsn, epoch, offsets := uint64(1), uint64(1), map[int32]int64{}
		steps := rapid.IntRange(5, 25).Draw(rt, "steps")
		for range steps {
			part := int32(rapid.IntRange(0, 1).Draw(rt, "part"))
			switch rapid.IntRange(0, 11).Draw(rt, "step") {
			case 0:
				u.mustFlush()
			case 1:
				u.mustFlush()
				u.tbl.Close()
				u = process() // its own local state: the index is rebuilt
			case 2:
				lsn++
				u.write(controlOf(s, record.OpTruncate, part, offsets[part], at(epoch, lsn)))
				offsets[part]++
				m[part] = map[int]string{}
			case 3:
				epoch++
				lsn++
				u.write(controlOf(s, record.OpBackfillBegin, part, offsets[part], at(epoch, lsn)))
				offsets[part]++
				m[part] = map[int]string{}
			default:
				var rows []row
				for range rapid.IntRange(1, 8).Draw(rt, "rows") {
					lsn++
					id := rapid.IntRange(0, 7).Draw(rt, "id")*2 + int(part)
					_, there := m[part][id]
					name, num := any(rapid.SampledFrom([]string{"x", "y", "zz"}).Draw(rt, "name")), any(rapid.IntRange(0, 30).Draw(rt, "n"))
					if rapid.IntRange(0, 9).Draw(rt, "null") == 0 {
						name = nil
					}
					switch k := rapid.IntRange(0, 5).Draw(rt, "op"); {
					case k == 0:
						rows = append(rows, row{record.OpDelete, at(epoch, lsn), []any{id}})
						delete(m[part], id)
						continue
					case k <= 2 && there: // an update that sends only some columns
						sent := []any{id, name, num}
						if k == 1 {
							name, sent[1] = cells[id][0], unsent
						} else {
							num, sent[2] = cells[id][1], unsent
						}
						rows = append(rows, row{record.OpUpdate, at(epoch, lsn), sent})
					default:
						rows = append(rows, row{record.OpInsert, at(epoch, lsn), []any{id, name, num}})
					}
					cells[id] = [2]any{name, num}
					text := "(null)"
					if name != nil {
						text = name.(string)
					}
					m[part][id] = fmt.Sprintf("name=%s n=%v", text, num)
				}
				if rejects := u.write(batchOf(t, s, part, offsets[part], rows...)); len(rejects) > 0 {
					rt.Fatalf("rejects %+v", rejects)
				}
				offsets[part] += int64(len(rows))
			}
		}
		u.mustFlush()
		got, want := rowsOf(t, u.tbl.lake, c.Table), m.rows()
		if !slices.Equal(got, want) {
			rt.Fatalf("%s: rows\n%q\nwant\n%q", c.Table, got, want)
		}
		u.tbl.Close()
		u.tbl.lake.Close()
	})
}

func TestIndexIsRebuiltAndCatchesUp(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	s := testSchema()
	u := openWriter(t, l, TableConfig{Mode: Upsert})
	rows := make([]row, 500)
	for i := range rows {
		rows[i] = row{record.OpInsert, at(1, uint64(i+1)), []any{i, "old", i}}
	}
	u.write(batchOf(t, s, 0, 0, rows...))
	u.mustFlush()
	// The process dies between its commit and the index.
	died := errors.New("killed")
	l.cfg.Hook = func(point string) {
		if point == AfterCommit {
			panic(died)
		}
	}
	u.write(batchOf(t, s, 0, 500, row{record.OpUpdate, at(1, 501), []any{7, "new", 7}}, row{record.OpDelete, at(1, 502), []any{8}}, row{record.OpInsert, at(1, 503), []any{1000, "new", 1}}))
	func() {
		defer func() {
			if r := recover(); r != any(died) {
				t.Fatalf("recovered %v", r)
			}
		}()
		_ = u.flush()
	}()
	l.cfg.Hook = nil
	u.tbl.Close()
	for round := range 2 {
		if round == 1 { // the folder is lost
			if err := os.RemoveAll(l.indexDir("shop.orders", testTopic)); err != nil {
				t.Fatal(err)
			}
		}
		u = openWriter(t, l, TableConfig{Mode: Upsert})
		next := u.marks[0].Next
		u.write(batchOf(t, s, 0, next, row{record.OpUpdate, at(1, uint64(next)+1), []any{7, fmt.Sprint("newer", round), 7}},
			row{record.OpUpdate, at(1, uint64(next)+2), []any{1000, "newer", 1}}, row{record.OpUpdate, at(1, uint64(next)+3), []any{8, "back", 1}}))
		u.mustFlush()
		got := rowsOf(t, l, "shop.orders")
		if len(got) != 501 || !slices.Contains(got, fmt.Sprintf("id=7 name=newer%d n=7", round)) || !slices.Contains(got, "id=1000 name=newer n=1") {
			t.Fatalf("round %d: %d rows", round, len(got))
		}
		u.tbl.Close()
	}
}

func TestManyTouchedFilesShareDeleteFiles(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	s := testSchema()
	u := openWriter(t, l, TableConfig{Mode: Upsert})
	const files = ownDeleteFiles + 6
	var rows []row
	for i := range files {
		u.write(batchOf(t, s, 0, int64(i), row{record.OpInsert, at(1, uint64(i+1)), []any{i, "a", i}}))
		u.mustFlush()
		rows = append(rows, row{record.OpUpdate, at(1, uint64(files+i+1)), []any{i, "b", i}})
	}
	u.write(batchOf(t, s, 0, files, rows...))
	u.mustFlush()
	got := rowsOf(t, l, "shop.orders", "name")
	if len(got) != files || got[0] != "name=b" {
		t.Errorf("%d rows, %q", len(got), got[0])
	}
	set, err := u.tbl.fileSet(context.Background())
	if err != nil || len(set.deletes) != ownDeleteFiles+1 {
		t.Errorf("%d delete files: %v", len(set.deletes), err)
	}
}
