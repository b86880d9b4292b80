package keyindex

import (
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
)

// model is the index as plain maps.
type model struct {
	stamp  Stamp
	newest map[Hash]place
	files  map[string]*modelFile
	order  []string // live files, oldest first
}

type place struct {
	path string
	pos  uint32
}

type modelFile struct {
	rows      int64
	partition int32
	deleted   map[uint32]bool
	keys      []Hash
}

func newModel() *model {
	return &model{newest: map[Hash]place{}, files: map[string]*modelFile{}}
}

func (m *model) clone() *model {
	c := &model{stamp: m.stamp, newest: maps.Clone(m.newest), files: map[string]*modelFile{}, order: slices.Clone(m.order)}
	for path, f := range m.files {
		g := *f
		g.deleted = maps.Clone(f.deleted)
		c.files[path] = &g
	}
	return c
}

func (m *model) add(a AddedFile) {
	f := &modelFile{rows: a.Rows, partition: a.Partition, deleted: map[uint32]bool{}, keys: a.Keys}
	if a.Deleted != nil {
		for _, pos := range a.Deleted.ToArray() {
			f.deleted[pos] = true
		}
	}
	m.files[a.Path] = f
	m.order = append(m.order, a.Path)
	for pos, h := range a.Keys {
		if h != (Hash{}) && !f.deleted[uint32(pos)] {
			m.newest[h] = place{a.Path, uint32(pos)}
		}
	}
}

// apply takes a change whose deletes are given by path.
func (m *model) apply(c Change, deletes map[string][]uint32) {
	m.stamp = c.Stamp
	for path, positions := range deletes {
		for _, pos := range positions {
			m.files[path].deleted[pos] = true
		}
	}
	for _, path := range c.RemovedFiles {
		delete(m.files, path)
		m.order = slices.DeleteFunc(m.order, func(p string) bool { return p == path })
	}
	for _, a := range c.Added {
		m.add(a)
	}
}

// live returns the live files as Rebuild wants them.
func (m *model) live() iter.Seq2[AddedFile, error] {
	return func(yield func(AddedFile, error) bool) {
		for _, path := range m.order {
			f := m.files[path]
			deleted := roaring.New()
			for pos := range f.deleted {
				deleted.Add(pos)
			}
			if !yield(AddedFile{Path: path, Rows: f.rows, Partition: f.partition, Keys: f.keys, Deleted: deleted}, nil) {
				return
			}
		}
	}
}

func (m *model) rebuilt(stamp Stamp) *model {
	c := newModel()
	c.stamp = stamp
	for a := range m.live() {
		c.add(a)
	}
	return c
}

// check compares the index with the model, for all keys.
func (m *model) check(t testing.TB, x *Index, keys []Hash) {
	t.Helper()
	if x.Stamp() != m.stamp {
		t.Fatalf("stamp %+v, want %+v", x.Stamp(), m.stamp)
	}
	out, found := make([]Location, len(keys)), make([]bool, len(keys))
	x.Resolve(keys, out, found)
	for i, h := range keys {
		want, ok := m.newest[h]
		if f := m.files[want.path]; f == nil || f.deleted[want.pos] {
			ok = false
		}
		if found[i] != ok {
			t.Fatalf("key %d: found %v, want %v (%+v)", i, found[i], ok, want)
		}
		if got := (place{x.FilePath(out[i].File), out[i].Pos}); ok && got != want {
			t.Fatalf("key %d: %+v, want %+v", i, got, want)
		}
	}
	var paths []string
	for f := range x.Files() {
		paths = append(paths, f.Path)
		want := m.files[f.Path]
		if want == nil {
			t.Fatalf("file %s should be gone", f.Path)
		}
		if f.Rows != want.rows || f.Partition != want.partition {
			t.Fatalf("file %s: %d rows of partition %d, want %d of %d", f.Path, f.Rows, f.Partition, want.rows, want.partition)
		}
		if got := f.Deleted.ToArray(); len(got) != len(want.deleted) {
			t.Fatalf("file %s: deleted %v, want %v", f.Path, got, want.deleted)
		}
		if id, ok := x.FileID(f.Path); !ok || id != f.ID {
			t.Fatalf("file %s: id %d %v, want %d", f.Path, id, ok, f.ID)
		}
	}
	if !slices.Equal(paths, m.order) {
		t.Fatalf("files %v, want %v", paths, m.order)
	}
}

// script makes random changes that fit a model.
type script struct {
	rnd      *rand.Rand
	keys     []Hash
	snapshot int64
	files    int
}

func (s *script) next(x *Index, m *model) (Change, map[string][]uint32) {
	s.snapshot++
	c := Change{Stamp: Stamp{TableUUID: "t", Snapshot: s.snapshot, KeyFields: "id", Format: 1}}
	deletes := map[string][]uint32{}
	for range s.rnd.IntN(3) {
		c.Added = append(c.Added, s.file(s.rnd.IntN(60)))
	}
	if s.rnd.IntN(20) == 0 {
		c.Added = append(c.Added, s.file(200)) // more than the memtable
	}
	for _, path := range m.order {
		switch s.rnd.IntN(12) {
		case 0:
			c.RemovedFiles = append(c.RemovedFiles, path)
			fallthrough
		case 1, 2, 3:
			if f := m.files[path]; f.rows > 0 {
				for range s.rnd.IntN(20) {
					deletes[path] = append(deletes[path], uint32(s.rnd.IntN(int(f.rows))))
				}
			}
		}
	}
	for path, positions := range deletes {
		id, _ := x.FileID(path)
		c.Deletes = append(c.Deletes, Delete{File: id, Positions: positions})
	}
	return c, deletes
}

func (s *script) file(rows int) AddedFile {
	s.files++
	a := AddedFile{Path: fmt.Sprintf("s3://lake/%d.parquet", s.files), Rows: int64(rows), Partition: int32(s.files % 4)}
	if s.rnd.IntN(10) == 0 {
		return a
	}
	for range rows {
		var h Hash
		if s.rnd.IntN(20) != 0 {
			h = s.keys[s.rnd.IntN(len(s.keys))]
		}
		a.Keys = append(a.Keys, h)
	}
	if rows > 0 && s.rnd.IntN(4) == 0 {
		a.Deleted = roaring.BitmapOf(uint32(s.rnd.IntN(rows)), uint32(s.rnd.IntN(rows)))
	}
	return a
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func small() Options {
	return Options{MemtableEntries: 90, chunkEntries: 70, Logger: quiet, volatile: true}
}

func open(t testing.TB, dir string, o Options) *Index {
	t.Helper()
	x, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

func hashes(x *Index, n int) []Hash {
	keys := make([]Hash, n)
	for i := range keys {
		keys[i] = x.Hash(binary.BigEndian.AppendUint32(nil, uint32(i)))
	}
	// Neighbours that differ late exercise the compare of the last word, and
	// extremes the ends of the directory.
	keys[1], keys[2] = keys[0], keys[0]
	keys[1][11]++
	keys[2][7]++
	keys[3], keys[4] = Hash{11: 1}, Hash{11: 2}
	for i := range keys[5] {
		keys[5][i] = 0xff
	}
	return keys
}

func TestModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := t.TempDir()
			x := open(t, dir, small())
			s := &script{rnd: rand.New(rand.NewPCG(seed, 1)), keys: hashes(x, 700)}
			m := newModel()
			for range 200 {
				switch s.rnd.IntN(30) {
				case 0:
					if err := x.Close(); err != nil {
						t.Fatal(err)
					}
					x = open(t, dir, small())
				case 1:
					s.snapshot++
					stamp := Stamp{TableUUID: "t", Snapshot: s.snapshot}
					if err := x.Rebuild(stamp, m.live()); err != nil {
						t.Fatal(err)
					}
					m = m.rebuilt(stamp)
				case 2:
					x.finishMerge(true)
				default:
					c, deletes := s.next(x, m)
					if err := x.Apply(c); err != nil {
						t.Fatal(err)
					}
					m.apply(c, deletes)
				}
				m.check(t, x, s.keys)
			}
			if x.Discarded() != nil {
				t.Fatal(x.Discarded())
			}
			fresh := open(t, t.TempDir(), small())
			fresh.seed = x.seed
			if err := fresh.Rebuild(m.stamp, m.live()); err != nil {
				t.Fatal(err)
			}
			m.rebuilt(m.stamp).check(t, fresh, s.keys)
		})
	}
}
