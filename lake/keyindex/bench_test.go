package keyindex

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// cpu returns the CPU time of the process, merges in the background included.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkChange is what the index costs a sink: 60 % updates, 30 % inserts
// and 10 % deletes, folded per key inside a commit. Figures are CPU time of
// the whole process per change, before folding.
func BenchmarkChange(b *testing.B) {
	for _, size := range []int{500_000, 5_000_000} {
		for _, batch := range []int{10_000, 50_000} {
			for _, dist := range []string{"uniform", "zipf"} {
				b.Run(fmt.Sprintf("keys=%d/commit=%d/%s", size, batch, dist), func(b *testing.B) {
					benchChange(b, size, batch, dist == "zipf")
				})
			}
		}
	}
}

type workload struct {
	x     *Index
	rnd   *rand.Rand
	zipf  *rand.Zipf
	next  uint64 // key not yet inserted
	batch int
	seen  map[Hash]int
	keys  []Hash
	gone  []bool
	out   []Location
	found []bool
}

func (w *workload) hash(id uint64) Hash {
	var key [36]byte // as long as a uuid in text
	binary.BigEndian.PutUint64(key[:], id*0x9e3779b97f4a7c15)
	return w.x.Hash(key[:])
}

// fold makes a commit of batch changes.
func (w *workload) fold() {
	clear(w.seen)
	w.keys, w.gone = w.keys[:0], w.gone[:0]
	for range w.batch {
		var id uint64
		kind := w.rnd.IntN(10)
		switch {
		case kind < 3:
			id = w.next
			w.next++
		case w.zipf != nil:
			id = w.zipf.Uint64() % w.next
		default:
			id = w.rnd.Uint64N(w.next)
		}
		h := w.hash(id)
		i, ok := w.seen[h]
		if !ok {
			i = len(w.keys)
			w.seen[h] = i
			w.keys, w.gone = append(w.keys, h), append(w.gone, false)
		}
		w.gone[i] = kind == 9
	}
}

// resolve returns the positions to delete by file id.
func (w *workload) resolve() [][]uint32 {
	n := len(w.keys)
	w.out, w.found = append(w.out[:0], make([]Location, n)...), append(w.found[:0], make([]bool, n)...)
	w.x.Resolve(w.keys, w.out, w.found)
	deletes := make([][]uint32, w.x.files.next)
	for i, l := range w.out {
		if w.found[i] {
			deletes[l.File] = append(deletes[l.File], l.Pos)
		}
	}
	return deletes
}

func (w *workload) change(snapshot int, deletes [][]uint32) Change {
	c := Change{Stamp: Stamp{TableUUID: "t", Snapshot: int64(snapshot)}}
	for f, positions := range deletes {
		if len(positions) > 0 {
			c.Deletes = append(c.Deletes, Delete{uint32(f), positions})
		}
	}
	rows := make([]Hash, 0, len(w.keys))
	for i, h := range w.keys {
		if !w.gone[i] {
			rows = append(rows, h)
		}
	}
	c.Added = []AddedFile{{Path: fmt.Sprintf("s3://lake/data/%08d.parquet", snapshot), Rows: int64(len(rows)), Keys: rows}}
	return c
}

func benchChange(b *testing.B, size, batch int, zipf bool) {
	x := open(b, b.TempDir(), Options{Logger: quiet})
	w := &workload{x: x, rnd: rand.New(rand.NewPCG(1, 2)), next: uint64(size), batch: batch, seen: map[Hash]int{}}
	if zipf {
		w.zipf = rand.NewZipf(w.rnd, 1.01, 1, uint64(size)-1)
	}
	load := cpu()
	if err := x.Rebuild(Stamp{TableUUID: "t"}, w.base(size)); err != nil {
		b.Fatal(err)
	}
	load = cpu() - load
	var fold, resolve, apply time.Duration
	unique := 0
	b.ResetTimer()
	start := cpu()
	for i := range b.N {
		t := cpu()
		w.fold()
		unique += len(w.keys)
		fold, t = fold+cpu()-t, cpu()
		deletes := w.resolve()
		resolve, t = resolve+cpu()-t, cpu()
		if err := x.Apply(w.change(i, deletes)); err != nil {
			b.Fatal(err)
		}
		apply += cpu() - t
	}
	x.finishMerge(true)
	total := cpu() - start
	b.StopTimer()
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(b.N*batch) }
	b.ReportMetric(per(total), "ns/change")
	b.ReportMetric(per(fold), "fold-ns")
	b.ReportMetric(per(resolve), "resolve-ns")
	b.ReportMetric(per(apply), "apply-ns")
	b.ReportMetric(float64(unique)/float64(b.N*batch), "unique")
	s := x.Stats()
	b.ReportMetric(float64(s.DiskBytes-s.LogBytes)/float64(max(s.Entries-int64(x.mem.n), 1)), "B/key")
	b.ReportMetric(float64(s.Runs), "runs")
	b.ReportMetric(float64(load.Nanoseconds())/float64(size), "load-ns/key")
	b.ReportMetric(0, "ns/op")
}

// base is the table before the first change: files of 250,000 rows.
func (w *workload) base(size int) func(func(AddedFile, error) bool) {
	return func(yield func(AddedFile, error) bool) {
		const rows = 250_000
		keys := make([]Hash, 0, rows)
		for id := range uint64(size) {
			keys = append(keys, w.hash(id))
			if len(keys) == rows || id == uint64(size)-1 {
				a := AddedFile{Path: fmt.Sprintf("s3://lake/base/%d.parquet", id), Rows: int64(len(keys)), Keys: keys}
				if !yield(a, nil) {
					return
				}
				keys = keys[:0]
			}
		}
	}
}
