package keyindex

import (
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// fileTable knows the live data files.
type fileTable struct {
	next   uint32 // the id of the next file: ids are never reused
	byID   map[uint32]*File
	byPath map[string]uint32
}

func newFileTable(next uint32) *fileTable {
	return &fileTable{next: next, byID: map[uint32]*File{}, byPath: map[string]uint32{}}
}

func (t *fileTable) add(f File) {
	t.byID[f.ID] = &f
	t.byPath[f.Path] = f.ID
	t.next = max(t.next, f.ID+1)
}

func (t *fileTable) remove(id uint32) {
	if f := t.byID[id]; f != nil {
		delete(t.byID, id)
		delete(t.byPath, f.Path)
	}
}

// live says whether a row is in the table.
func (t *fileTable) live(l Location) bool {
	f := t.byID[l.File]
	return f != nil && !f.Deleted.Contains(l.Pos)
}

func (t *fileTable) clone() *fileTable {
	c := newFileTable(t.next)
	for _, f := range t.byID {
		g := *f
		g.Deleted = f.Deleted.Clone()
		c.add(g)
	}
	return c
}

func (t *fileTable) all() iter.Seq[File] {
	return func(yield func(File) bool) {
		for _, id := range slices.Sorted(maps.Keys(t.byID)) {
			if f := t.byID[id]; f != nil && !yield(*f) {
				return
			}
		}
	}
}

// take applies a record's deletes, removals and additions.
func (t *fileTable) take(r *record) {
	for _, d := range r.deletes {
		t.byID[d.File].Deleted.AddMany(d.Positions)
	}
	for _, id := range r.removed {
		t.remove(id)
	}
	for i := range r.added {
		t.add(r.added[i].File)
	}
	t.next = max(t.next, r.next)
}

// check says whether the record can be applied to the table. It is asked
// before a change is logged and again of every record that comes from disk.
func (t *fileTable) check(r *record) error {
	for _, d := range r.deletes {
		f := t.byID[d.File]
		if f == nil {
			return fmt.Errorf("delete from file %d: not in the index", d.File)
		}
		for _, pos := range d.Positions {
			if int64(pos) >= f.Rows {
				return fmt.Errorf("delete row %d of %s: it has %d", pos, f.Path, f.Rows)
			}
		}
	}
	gone := map[uint32]bool{}
	for _, id := range r.removed {
		if t.byID[id] == nil || gone[id] {
			return fmt.Errorf("remove file %d: not in the index", id)
		}
		gone[id] = true
	}
	paths := map[string]bool{}
	for i := range r.added {
		f := &r.added[i]
		id, known := t.byPath[f.Path]
		if f.ID < t.next || known && !gone[id] || paths[f.Path] {
			return fmt.Errorf("add file %s: already in the index", f.Path)
		}
		paths[f.Path] = true
		if err := f.check(); err != nil {
			return err
		}
	}
	return nil
}

// newFile is a file that comes to the index with its keys.
type newFile struct {
	File
	keys []Hash
}

func (t *fileTable) newFile(id uint32, a *AddedFile) newFile {
	f := newFile{File: File{ID: id, Path: a.Path, Rows: a.Rows, Partition: a.Partition}, keys: a.Keys}
	if f.Deleted = roaring.New(); a.Deleted != nil {
		f.Deleted = a.Deleted.Clone()
	}
	return f
}

func (f *newFile) check() error {
	if f.Rows < 0 || f.Rows > math.MaxUint32 {
		return fmt.Errorf("add file %s: %d rows", f.Path, f.Rows)
	}
	if n := len(f.keys); n != 0 && int64(n) != f.Rows {
		return fmt.Errorf("add file %s: %d keys for %d rows", f.Path, n, f.Rows)
	}
	if !f.Deleted.IsEmpty() && int64(f.Deleted.Maximum()) >= f.Rows {
		return fmt.Errorf("add file %s: row %d deleted, it has %d", f.Path, f.Deleted.Maximum(), f.Rows)
	}
	return nil
}

// entries goes over the live rows that have a key.
func (f *newFile) entries(yield func(entry) bool) {
	deleted := f.Deleted.Iterator()
	for pos, h := range f.keys {
		if deleted.HasNext() && deleted.PeekNext() == uint32(pos) {
			deleted.Next()
			continue
		}
		if h != (Hash{}) && !yield(newEntry(h, f.ID, uint32(pos))) {
			return
		}
	}
}
