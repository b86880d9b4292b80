package keyindex

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
)

func one(x *Index, h Hash) (place, bool) {
	out, found := make([]Location, 1), make([]bool, 1)
	x.Resolve([]Hash{h}, out, found)
	return place{x.FilePath(out[0].File), out[0].Pos}, found[0]
}

func TestNewestWins(t *testing.T) {
	x := open(t, t.TempDir(), small())
	k := x.Hash([]byte("k"))
	apply := func(c Change) {
		t.Helper()
		if err := x.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	want := func(path string, pos uint32) {
		t.Helper()
		if got, ok := one(x, k); !ok || got != (place{path, pos}) {
			t.Fatalf("%+v %v, want %s row %d", got, ok, path, pos)
		}
	}
	apply(Change{Added: []AddedFile{{Path: "a", Rows: 3, Keys: []Hash{k, {}, k}}, {Path: "b", Rows: 2, Keys: []Hash{k, k}}}})
	want("b", 1)
	b, _ := x.FileID("b")
	apply(Change{Deletes: []Delete{{b, []uint32{0}}}})
	want("b", 1)
	// A compaction that moves a row which was superseded meanwhile.
	apply(Change{RemovedFiles: []string{"a"}, Added: []AddedFile{{Path: "c", Rows: 1, Keys: []Hash{k}, Deleted: roaring.BitmapOf(0)}}})
	want("b", 1)
	// The same path again is another file.
	apply(Change{RemovedFiles: []string{"b"}, Added: []AddedFile{{Path: "b", Rows: 1, Keys: []Hash{k}}}})
	want("b", 0)
	if id, _ := x.FileID("b"); id == b || x.FilePath(b) != "" {
		t.Fatalf("id %d used again", b)
	}
	b, _ = x.FileID("b")
	apply(Change{Deletes: []Delete{{b, []uint32{0}}}})
	if got, ok := one(x, k); ok {
		t.Fatalf("deleted row found at %+v", got)
	}
	if _, ok := one(x, Hash{}); ok {
		t.Fatal("the zero Hash has a row")
	}
}

func TestChangeThatDoesNotFit(t *testing.T) {
	x := open(t, t.TempDir(), small())
	if err := x.Apply(Change{Stamp: Stamp{Snapshot: 1}, Added: []AddedFile{{Path: "a", Rows: 2}}}); err != nil {
		t.Fatal(err)
	}
	a, _ := x.FileID("a")
	for want, c := range map[string]Change{
		"remove file b: not in the index":     {RemovedFiles: []string{"b"}},
		"remove file 1: not in the index":     {RemovedFiles: []string{"a", "a"}},
		"add file a: already in the index":    {Added: []AddedFile{{Path: "a", Rows: 1}}},
		"add file b: already in the index":    {Added: []AddedFile{{Path: "b"}, {Path: "b"}}},
		"add file b: 1 keys for 2 rows":       {Added: []AddedFile{{Path: "b", Rows: 2, Keys: make([]Hash, 1)}}},
		"add file b: row 2 deleted, it has 2": {Added: []AddedFile{{Path: "b", Rows: 2, Deleted: roaring.BitmapOf(2)}}},
		"add file b: -1 rows":                 {Added: []AddedFile{{Path: "b", Rows: -1}}},
		"add file b: 4294967296 rows":         {Added: []AddedFile{{Path: "b", Rows: 1 << 32}}},
		"delete from file 77: not in":         {Deletes: []Delete{{77, []uint32{1}}}},
		"delete row 2 of a: it has 2":         {Deletes: []Delete{{a, []uint32{2}}}},
	} {
		c.Stamp.Snapshot = 2
		if err := x.Apply(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if s := x.Stats(); x.Stamp().Snapshot != 1 || s.Files != 1 {
		t.Fatalf("%+v %+v", x.Stamp(), s)
	}
}

func TestRebuildErrorKeepsTheIndex(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir, small())
	s := &script{rnd: rand.New(rand.NewPCG(1, 2)), keys: hashes(x, 300)}
	m := newModel()
	for range 20 {
		c, deletes := s.next(x, m)
		if err := x.Apply(c); err != nil {
			t.Fatal(err)
		}
		m.apply(c, deletes)
	}
	gone := errors.New("file is gone")
	err := x.Rebuild(Stamp{Snapshot: 9}, func(yield func(AddedFile, error) bool) {
		if yield(s.file(300), nil) {
			yield(AddedFile{}, gone)
		}
	})
	if !errors.Is(err, gone) {
		t.Fatal(err)
	}
	m.check(t, x, s.keys)
	x.Close()
	m.check(t, open(t, dir, small()), s.keys)
}

func TestRebuildCountsDuplicates(t *testing.T) {
	x := open(t, t.TempDir(), small())
	keys := hashes(x, 200)
	files := func(yield func(AddedFile, error) bool) {
		_ = yield(AddedFile{Path: "a", Rows: 200, Keys: keys}, nil) &&
			yield(AddedFile{Path: "b", Rows: 30, Keys: keys[:30], Deleted: roaring.BitmapOf(4)}, nil)
	}
	if err := x.Rebuild(Stamp{Snapshot: 1}, files); err != nil {
		t.Fatal(err)
	}
	if s := x.Stats(); s.Duplicates != 29 || s.Entries != 200 || s.Runs != 1 {
		t.Fatalf("%+v", s)
	}
	if got, _ := one(x, keys[4]); got != (place{"a", 4}) {
		t.Fatal(got)
	}
	if got, _ := one(x, keys[5]); got != (place{"b", 5}) {
		t.Fatal(got)
	}
	if err := x.Rebuild(Stamp{Snapshot: 2}, func(func(AddedFile, error) bool) {}); err != nil {
		t.Fatal(err)
	}
	if s := x.Stats(); s.Entries != 0 || s.Runs != 0 || s.Duplicates != 0 || s.Files != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir, small())
	if _, err := Open(dir, small()); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Fatal(err)
	}
	x.Close()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, small())
}

// Runs stay few and dead entries leave the disk, however many changes come.
func TestMergesBoundRunsAndBytes(t *testing.T) {
	x := open(t, t.TempDir(), Options{MemtableEntries: 500, chunkEntries: 1000, Logger: quiet, volatile: true})
	keys := hashes(x, 5000)
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range 300 {
		batch := make([]Hash, 200)
		for j := range batch {
			batch[j] = keys[rnd.IntN(len(keys))]
		}
		out, found := make([]Location, len(batch)), make([]bool, len(batch))
		x.Resolve(batch, out, found)
		deletes := map[uint32][]uint32{}
		for j := range out {
			if found[j] {
				deletes[out[j].File] = append(deletes[out[j].File], out[j].Pos)
			}
		}
		c := Change{Stamp: Stamp{Snapshot: int64(i)}, Added: []AddedFile{{Path: fmt.Sprint(i), Rows: 200, Keys: batch}}}
		for f, positions := range deletes {
			c.Deletes = append(c.Deletes, Delete{f, positions})
		}
		if err := x.Apply(c); err != nil {
			t.Fatal(err)
		}
		x.finishMerge(true)
		if s := x.Stats(); s.Runs > 6 || s.Entries > 8000 || s.LogBytes > 2<<20 {
			t.Fatalf("after %d changes: %+v", i, s)
		}
	}
}

// Updates of the same few keys never fill the memtable; the log is cut anyway.
func TestLogIsBounded(t *testing.T) {
	x := open(t, t.TempDir(), Options{MemtableEntries: 200, Logger: quiet})
	keys := hashes(x, 80)
	limit := int64(200*32 + 1<<20)
	flushed := false
	for i := range 2500 {
		before := x.Stats().LogBytes
		var removed []string
		if i > 0 {
			removed = []string{fmt.Sprint(i - 1)}
		}
		if err := x.Apply(Change{Added: []AddedFile{{Path: fmt.Sprint(i), Rows: 80, Keys: keys}}, RemovedFiles: removed}); err != nil {
			t.Fatal(err)
		}
		after := x.Stats().LogBytes
		if after > limit {
			t.Fatalf("log of %d bytes", after)
		}
		flushed = flushed || after < before
	}
	if got, _ := one(x, keys[7]); !flushed || got != (place{"2499", 7}) {
		t.Fatal(flushed, got)
	}
}

func TestSort(t *testing.T) {
	for _, n := range []int{0, 1, 2, 64, 65, 1000, 1 << 16, 1<<16 + 1, 200_000} {
		for _, mask := range []uint32{^uint32(0), 0xff, 0xff000000, 0} {
			if mask == 0xff && n > 1000 && n <= 1<<16 {
				continue // two passes leave these bits to the insertion sort
			}
			rnd := rand.New(rand.NewPCG(uint64(n), uint64(mask)))
			es := make([]entry, n)
			for i := range es {
				es[i] = entry{h0: rnd.Uint32() & mask, pos: uint32(i)}
				if mask == ^uint32(0) {
					es[i].h1, es[i].h2 = rnd.Uint32(), rnd.Uint32()
				}
			}
			want := slices.Clone(es)
			slices.SortStableFunc(want, func(a, b entry) int {
				switch {
				case a.before(&b):
					return -1
				case b.before(&a):
					return 1
				}
				return 0
			})
			(&sorter{}).sort(es)
			if !slices.Equal(es, want) {
				t.Fatalf("%d entries, mask %x: wrong order", n, mask)
			}
		}
	}
}

func TestChooseMerge(t *testing.T) {
	for _, c := range []struct {
		runs []int64
		want int
	}{
		{nil, -1},
		{[]int64{10}, -1},
		{[]int64{10, 10}, 0},
		{[]int64{100, 10}, -1},
		{[]int64{100, 10, 10}, 0},
		{[]int64{1000, 10, 10}, 1},
		{[]int64{1000, 20, 10}, -1},
		{[]int64{1000, 40, 20, 10, 10}, 1},
		{[]int64{1000, 80, 20, 10, 10}, 2},
	} {
		if got := chooseMerge(c.runs); got != c.want {
			t.Errorf("%v: %d, want %d", c.runs, got, c.want)
		}
	}
}

func TestFormatOfTheFuture(t *testing.T) {
	m := manifest{Format: manifestFormat + 1}
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeManifest(b); !errors.Is(err, errDamaged) {
		t.Fatal(err)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	r := &record{
		stamp: Stamp{"uuid", 7, "id", 2}, next: 9, deletes: []Delete{{3, []uint32{1, 5}}}, removed: []uint32{4},
		added: []newFile{{File{8, "s3://a", 2, 1, roaring.BitmapOf(1)}, []Hash{{1}, {2}}}},
	}
	b, err := r.appendTo(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		once, err := r.appendTo(nil)
		if err != nil {
			return
		}
		again, err := decodeRecord(once)
		if err != nil {
			t.Fatal(err)
		}
		twice, err := again.appendTo(nil)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%x\n%x\n%v", once, twice, err)
		}
	})
}
