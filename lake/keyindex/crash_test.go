package keyindex

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func logPath(t *testing.T, dir string) string {
	t.Helper()
	names, _ := filepath.Glob(filepath.Join(dir, "log-*"))
	if len(names) != 1 {
		t.Fatalf("logs: %v", names)
	}
	return names[0]
}

// A log that ends anywhere inside its last record, or has a wrong bit there,
// is the log without that record, and takes new records.
func TestTornRecordIsCutOff(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir, small())
	s := &script{rnd: rand.New(rand.NewPCG(7, 7)), keys: hashes(x, 60)}
	m := newModel()
	var before *model
	var start int64
	for i := range 4 {
		before, start = m.clone(), x.wal.size
		c := Change{Stamp: Stamp{Snapshot: int64(i + 1)}, Added: []AddedFile{s.file(12)}}
		if err := x.Apply(c); err != nil {
			t.Fatal(err)
		}
		m.apply(c, nil)
	}
	end := x.wal.size
	x.Close()
	for cut := start; cut < end; cut++ {
		for _, flip := range []bool{false, true} {
			to := filepath.Join(t.TempDir(), "index")
			copyDir(t, dir, to)
			log := logPath(t, to)
			if flip {
				b, _ := os.ReadFile(log)
				b[cut] ^= 0x10
				os.WriteFile(log, b, 0o600)
			} else {
				os.Truncate(log, cut)
			}
			y := open(t, to, small())
			before.check(t, y, s.keys)
			c := Change{Stamp: Stamp{Snapshot: 99}, Added: []AddedFile{{Path: "new", Rows: 1, Keys: s.keys[:1]}}}
			if err := y.Apply(c); err != nil {
				t.Fatal(err)
			}
			y.Close()
			after := before.clone()
			after.apply(c, nil)
			after.check(t, open(t, to, small()), s.keys)
		}
	}
}

var errFull = fmt.Errorf("write: %w", syscall.ENOSPC)

// Whatever operation on disk fails first, whether once or from then on: the
// call says so, the open index goes on at its old stamp, and what the next
// Open finds is the state before or after the call.
func TestEveryDiskFault(t *testing.T) {
	for _, forever := range []bool{false, true} {
		t.Run(fmt.Sprintf("forever=%v", forever), func(t *testing.T) {
			for n := int64(1); ; n++ {
				if !faultAt(t, n, forever) {
					break
				}
				if n > 5000 {
					t.Fatal("faults never end")
				}
			}
		})
	}
}

// faultAt makes operation n fail and reports whether there was one.
func faultAt(t *testing.T, n int64, forever bool) bool {
	dir := filepath.Join(t.TempDir(), "index")
	var count atomic.Int64
	o := small()
	o.fault = func(op, name string) error {
		if c := count.Add(1); c == n || forever && c > n {
			return fmt.Errorf("%s %s: %w", op, filepath.Base(name), errFull)
		}
		return nil
	}
	x, err := Open(dir, o)
	if err != nil {
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		newModel().check(t, open(t, dir, small()), nil)
		return true
	}
	defer x.Close()
	s := &script{rnd: rand.New(rand.NewPCG(3, 3)), keys: hashes(x, 300)}
	m := newModel()
	for i := range 16 {
		var after *model
		if i == 8 {
			after = m.rebuilt(Stamp{Snapshot: 1000})
			err = x.Rebuild(after.stamp, m.live())
		} else {
			c, deletes := s.next(x, m)
			after = m.clone()
			after.apply(c, deletes)
			err = x.Apply(c)
		}
		// The merges between the calls meet faults too; nobody hears of them.
		x.finishMerge(true)
		if err == nil {
			m = after
		}
		m.check(t, x, s.keys)
		if err == nil {
			continue
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		x.Close()
		y := open(t, dir, small())
		if y.Discarded() != nil {
			t.Fatal(y.Discarded())
		}
		if y.Stamp() == after.stamp {
			m = after
		}
		m.check(t, y, s.keys)
		names, _ := y.disk.own()
		for _, name := range names {
			if !slices.Contains(y.manifest.names(), name) {
				t.Fatalf("%s left behind", name)
			}
		}
		return true
	}
	x.Close()
	y := open(t, dir, small())
	m.check(t, y, s.keys)
	y.Close()
	return count.Load() >= n
}

// After a failed Apply the same change can be applied again.
func TestApplyAgainAfterDiskFull(t *testing.T) {
	var full atomic.Bool // merges run beside
	o := small()
	o.fault = func(op, name string) error {
		if full.Load() {
			return errFull
		}
		return nil
	}
	dir := t.TempDir()
	x := open(t, dir, o)
	s := &script{rnd: rand.New(rand.NewPCG(5, 5)), keys: hashes(x, 300)}
	m := newModel()
	for range 60 {
		c, deletes := s.next(x, m)
		full.Store(true)
		if err := x.Apply(c); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		full.Store(false)
		m.check(t, x, s.keys)
		if err := x.Apply(c); err != nil {
			t.Fatal(err)
		}
		m.apply(c, deletes)
		m.check(t, x, s.keys)
	}
	x.Close()
	m.check(t, open(t, dir, small()), s.keys)
}

// Any wrong byte in a file that the MANIFEST vouches for empties the index.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir, small())
	s := &script{rnd: rand.New(rand.NewPCG(9, 9)), keys: hashes(x, 300)}
	m := newModel()
	for range 30 {
		c, deletes := s.next(x, m)
		if err := x.Apply(c); err != nil {
			t.Fatal(err)
		}
		m.apply(c, deletes)
	}
	x.Close()
	names, _ := os.ReadDir(dir)
	for _, e := range names {
		name := e.Name()
		if name == "LOCK" || strings.HasPrefix(name, "log-") {
			continue
		}
		for _, how := range []string{"flip", "cut", "gone", "empty"} {
			t.Run(strings.SplitN(name, "-", 2)[0]+" "+how, func(t *testing.T) {
				to := filepath.Join(t.TempDir(), "index")
				copyDir(t, dir, to)
				path := filepath.Join(to, name)
				b, _ := os.ReadFile(path)
				switch how {
				case "flip":
					b[len(b)/2] ^= 1
					os.WriteFile(path, b, 0o600)
				case "cut":
					os.Truncate(path, int64(len(b)-1))
				case "gone":
					os.Remove(path)
				case "empty":
					os.Truncate(path, 0)
				}
				y := open(t, to, small())
				if y.Discarded() == nil {
					t.Fatal("not noticed")
				}
				newModel().check(t, y, s.keys)
				if y.seed == x.seed {
					t.Error("seed of the damaged index kept")
				}
				c := Change{Stamp: Stamp{Snapshot: 1}, Added: []AddedFile{{Path: "a", Rows: 1, Keys: s.keys[:1]}}}
				if err := y.Apply(c); err != nil {
					t.Fatal(err)
				}
				y.Close()
				again := open(t, to, small())
				if again.Stamp().Snapshot != 1 || again.Discarded() != nil {
					t.Fatal(again.Stamp(), again.Discarded())
				}
			})
		}
	}
}

func TestErrorsOfTheDiskDoNotDiscard(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir, small())
	if err := x.Apply(Change{Stamp: Stamp{Snapshot: 5}}); err != nil {
		t.Fatal(err)
	}
	x.Close()
	manifest := filepath.Join(dir, manifestName)
	saved := manifest + ".saved"
	if err := os.Rename(manifest, saved); err != nil {
		t.Fatal(err)
	}
	// A folder in its place is neither missing nor damaged: it cannot be read.
	if err := os.Mkdir(manifest, 0o700); err != nil {
		t.Fatal(err)
	}
	if y, err := Open(dir, small()); err == nil {
		y.Close()
		t.Fatal("opened")
	}
	os.Remove(manifest)
	os.Rename(saved, manifest)
	if y := open(t, dir, small()); y.Stamp().Snapshot != 5 {
		t.Fatal(y.Stamp(), y.Discarded())
	}
}
