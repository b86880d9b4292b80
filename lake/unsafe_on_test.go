//go:build sluicetest

package lake

import (
	"testing"

	"github.com/sluice-data/sluice/record"
)

// TestEachSafetyLineIsNeeded switches the lines off one by one and sees the
// harm that they prevent.
func TestEachSafetyLineIsNeeded(t *testing.T) {
	s := testSchema()
	insert := func(id int) row { return row{record.OpInsert, at(1, uint64(id)), []any{id, "a", id}} }
	t.Run("pin", func(t *testing.T) {
		w := newWorld(t)
		free := func(c *Config) { c.Unsafe.NoPin = true }
		first := openWriter(t, w.open(free), TableConfig{Mode: Append})
		first.write(batchOf(t, s, 0, 0, insert(1)))
		first.mustFlush()
		zombie := openWriter(t, w.open(free), TableConfig{Mode: Append})
		zombie.write(batchOf(t, s, 0, 1, insert(2)))
		first.write(batchOf(t, s, 0, 1, insert(2)))
		first.mustFlush()
		if err := zombie.flush(); err != nil {
			t.Fatal(err)
		}
		wantRows(t, rowsOf(t, first.tbl.lake, "shop.orders", "id"), "id=1", "id=2", "id=2") // once too often
	})
	t.Run("marks", func(t *testing.T) {
		w := newWorld(t)
		free := func(c *Config) { c.Unsafe.NoMarks = true }
		for range 2 { // the second process does not know how far the first came
			u := openWriter(t, w.open(free), TableConfig{Mode: Append})
			u.write(batchOf(t, s, 0, u.marks[0].Next, insert(1)))
			u.mustFlush()
		}
		wantRows(t, rowsOf(t, w.open(nil), "shop.orders", "id"), "id=1", "id=1")
	})
}
