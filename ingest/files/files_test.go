package files

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-data/sluice/ingest/files/root"
)

func TestFolder(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.md", "# A")
	w.write("sub/b.txt", "b")
	w.write("empty.txt", "")
	w.must()
	w.want("read a.md", "read sub/b.txt", "read empty.txt")
	w.same()
	if got := w.files()["a.md"]; got.mime != "text/markdown" || got.body != "# A" || got.acl != "" {
		t.Errorf("a.md: %+v", got)
	}
	w.must()
	w.want()
	w.write("a.md", "# B!")
	w.write("new.txt", "new")
	w.remove("sub/b.txt")
	w.must()
	w.want("update a.md", "insert new.txt", "delete sub/b.txt")
	w.rename("a.md", "deep/er/c.md")
	w.must()
	w.want("delete a.md", "insert deep/er/c.md")
	if got := w.files()["deep/er/c.md"].metadata; got != `{"renamed_from":"a.md"}` {
		t.Errorf("metadata of the renamed file: %s", got)
	}
	w.same()
	a := w.brokers.stream("files")
	if a.began != 1 || a.ended != 1 {
		t.Errorf("%d backfills began, %d ended", a.began, a.ended)
	}
}

func TestTouchIsNoNewBody(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "text")
	w.must()
	w.want("read a.txt")
	at := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(w.dir, "a.txt"), at, at); err != nil {
		t.Fatal(err)
	}
	w.must()
	w.want("update a.txt light")
	w.must()
	w.want()
	w.same()
}

func TestBigBodiesStayWhereTheyAre(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Inline = 1 << 10 })
	w.write("big.bin", strings.Repeat("x", 1<<10+1))
	w.write("small.bin", strings.Repeat("x", 1<<10))
	w.must()
	big, small := w.files()["big.bin"], w.files()["small.bin"]
	if big.object != "file:big.bin" || big.objectETag == "" || big.body != "" || len(big.sha) != 32 {
		t.Errorf("big.bin: %+v", big)
	}
	if small.object != "" || len(small.body) != 1<<10 {
		t.Errorf("small.bin: object %q, %d bytes", small.object, len(small.body))
	}
}

func TestAccessLists(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Permissions = true
		c.Groups = []root.Group{{Name: "group:eng", Members: []string{"user:b", "user:a"}}}
		c.Rules = []Rule{{Glob: mustGlob(t, "open/**"), ACL: root.ACL{Allow: []string{"public"}}}}
	})
	w.write("open/a.txt", "a")
	w.write("eng/.sluice-acl.yaml", "allow: [group:eng]\n")
	w.write("eng/b.txt", "b")
	w.write("eng/bad/.sluice-acl.yaml", "allow: [unclosed")
	w.write("eng/bad/c.txt", "c")
	w.write("d.txt", "d")
	w.must()
	for path, want := range map[string]string{"open/a.txt": `{"allow":["public"],"deny":[]}`, "eng/b.txt": `{"allow":["group:eng"],"deny":[]}`,
		"eng/bad/c.txt": "", "d.txt": ""} {
		if got := w.files()[path].acl; got != want {
			t.Errorf("acl of %s is %s, want %s", path, got, want)
		}
		if got := w.brokers.stream("permissions").docs[path].acl; got != want {
			t.Errorf("permission of %s is %s, want %s", path, got, want)
		}
	}
	if got := w.brokers.stream("groups").docs["group:eng"].body; got != `["user:a","user:b"]` {
		t.Errorf("members: %s", got)
	}
	w.take()
	w.write("eng/.sluice-acl.yaml", "allow: [group:eng]\ndeny: [user:b]\n")
	w.must()
	w.want("update eng/b.txt light")
	if got := w.files()["eng/b.txt"]; got.acl != `{"allow":["group:eng"],"deny":["user:b"]}` || got.body != "b" {
		t.Errorf("after the change: %+v", got)
	}
	if h := w.brokers.stream("permissions").history; h[len(h)-1] != "update eng/b.txt" {
		t.Errorf("permissions: %q", h)
	}
}

func TestWhatIsNotRead(t *testing.T) {
	w := newWorld(t, nil)
	outside := filepath.Join(t.TempDir(), "secret.txt")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.write("in/real.txt", "real")
	for name, to := range map[string]string{"out.txt": outside, "up.txt": "../../../../etc/passwd", "dir": "in", "fine.txt": "in/real.txt", "none.txt": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(w.dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "bad\xff.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.must()
	w.must() // refused once, not at every pass
	got := w.brokers.stream("files").rejects
	slices.Sort(got)
	want := []string{`bad\xff.txt bad_name`, "dir symlink_folder", "none.txt symlink_outside", "out.txt symlink_outside", "pipe special_file", "up.txt symlink_outside"}
	if !slices.Equal(got, want) {
		t.Errorf("refused %q, want %q", got, want)
	}
	if len(w.files()) != 2 || w.files()["fine.txt"].body != "real" {
		t.Errorf("files: %v", w.files())
	}
	w.take()
	w.remove("in/real.txt") // a document whose place is taken by a link that leads out goes
	if err := os.Symlink(outside, filepath.Join(w.dir, "in/real.txt")); err != nil {
		t.Fatal(err)
	}
	w.must()
	w.want("delete in/real.txt", "delete fine.txt")
}

// TestUnreadableFileKeepsItsDocument: a file that may not be read for a while
// is refused once, stays as it was, and is followed again afterwards.
func TestUnreadableFileKeepsItsDocument(t *testing.T) {
	forbidden := false
	w := newWorld(t, func(c *Config) {
		open := c.Open
		c.Open = func(ctx context.Context) (Root, error) {
			r, err := open(ctx)
			return forbidding{r, &forbidden}, err
		}
	})
	w.write("a.txt", "one")
	w.must()
	w.take()
	forbidden = true
	w.write("a.txt", "second")
	w.must()
	w.must()
	w.want()
	if got := w.brokers.stream("files").rejects; !slices.Equal(got, []string{"a.txt forbidden"}) {
		t.Errorf("refused %q", got)
	}
	if w.files()["a.txt"].body != "one" {
		t.Errorf("a.txt: %+v", w.files()["a.txt"])
	}
	forbidden = false
	w.must()
	w.want("update a.txt")
	w.same()
	w.must()
	w.want()
}

type forbidding struct {
	Root
	forbidden *bool
}

func (f forbidding) Open(ctx context.Context, e root.Entry, offset int64) (io.ReadCloser, error) {
	if *f.forbidden {
		return nil, root.Forbidden
	}
	return f.Root.Open(ctx, e, offset)
}

func TestSuspiciousListingIsRefused(t *testing.T) {
	share := 0.0
	w := newWorld(t, func(c *Config) { c.MaxGone = share })
	for i := range 30 {
		w.write(fmt.Sprintf("f%02d.txt", i), fmt.Sprint("text ", i))
	}
	w.must()
	w.take()
	for i := range 20 {
		w.remove(fmt.Sprintf("f%02d.txt", i))
	}
	for range 2 {
		if err := w.run(); err == nil || !strings.Contains(err.Error(), "20 of 30 known files are missing") {
			t.Fatalf("want a refusal, got %v", err)
		}
	}
	w.want()
	share = 1
	w.must()
	w.same()
	for i := range 10 {
		w.remove(fmt.Sprintf("f%02d.txt", 20+i))
	}
	share = 0
	if err := w.run(); err == nil {
		t.Fatal("an empty listing was believed")
	}
}

func TestLostStateIsANewEpoch(t *testing.T) {
	w := newWorld(t, nil)
	w.write("a.txt", "a")
	w.write("b.txt", "b")
	w.must()
	w.remove("b.txt")
	w.write("c.txt", "c")
	w.state = t.TempDir()
	w.must()
	w.same() // without a ghost of b.txt
	if a := w.brokers.stream("files"); a.epoch != 2 || a.ended != 2 {
		t.Errorf("epoch %d, %d backfills", a.epoch, a.ended)
	}
}

// points are all steps that a run passes.
func (w *world) points() (n int) {
	w.fault = func(string) error { n++; return nil }
	w.must()
	w.fault = nil
	return n
}

// TestCrashAtEveryStep crashes a run at its n-th step, for every n, with the
// last records on the brokers or not, and compares what a sink has applied
// with the run of a world that was left in peace.
func TestCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	build := func(t *testing.T) *world {
		w := newWorld(t, func(c *Config) { c.Inline = 64; c.Permissions = true; c.MaxGone = 1 })
		for i := range 12 {
			w.write(fmt.Sprintf("d%d/f%d.txt", i%3, i), strings.Repeat(fmt.Sprint("text ", i), i+1))
		}
		return w
	}
	change := func(w *world) {
		w.write("d0/f0.txt", "changed")
		w.write("d1/.sluice-acl.yaml", "allow: [public]")
		w.write("new.txt", "new one")
		w.rename("d2/f2.txt", "moved.txt")
		w.remove("d2/f5.txt")
	}
	calm := build(t)
	first := calm.points()
	firstHistory := calm.take()
	change(calm)
	second := calm.points()
	secondHistory := calm.take()
	for _, loses := range []bool{false, true} {
		for n := 1; n <= first; n++ {
			w := build(t)
			w.crash(n, loses)
			w.must()
			w.same()
			if a := w.brokers.stream("files"); len(w.files()) != 12 || a.ended < 1 {
				t.Fatalf("crash %d: %d files", n, len(w.files()))
			}
		}
		for n := 1; n <= second; n++ {
			w := build(t)
			w.must()
			w.want(firstHistory...)
			change(w)
			w.crash(n, loses)
			w.must()
			w.same()
			if got := w.take(); !slices.Equal(got, secondHistory) {
				t.Fatalf("crash %d (loses %v): applied %q, want %q", n, loses, got, secondHistory)
			}
		}
	}
	t.Logf("%d crashes", 2*(first+second))
}

// crash runs until step n; with loses, what was published since the step
// before the last is lost too.
func (w *world) crash(n int, loses bool) {
	w.t.Helper()
	i := 0
	w.fault = func(point string) error {
		i++
		if loses && i == n-1 && point == "journaled" {
			w.brokers.lost = true
		}
		if i == n {
			return errCrash
		}
		return nil
	}
	if err := w.run(); err == nil {
		w.t.Fatalf("no crash at step %d", n)
	}
	w.fault, w.brokers.lost = nil, false
}

// TestChangedBetweenCrashAndRestart: what cannot be published again as it was
// gets a new position.
func TestChangedBetweenCrashAndRestart(t *testing.T) {
	for _, loses := range []bool{false, true} {
		w := newWorld(t, nil)
		w.write("a.txt", "one")
		w.write("b.txt", "one")
		w.must()
		w.write("a.txt", "second")
		w.write("b.txt", "other")
		w.write("c.txt", "short lived")
		w.fault = func(point string) error {
			w.brokers.lost = loses && point == "journaled"
			if point == "published" {
				return errCrash
			}
			return nil
		}
		if err := w.run(); err == nil {
			t.Fatal("no crash")
		}
		w.fault, w.brokers.lost = nil, false
		w.write("a.txt", "the third")
		w.remove("b.txt")
		w.remove("c.txt")
		w.must()
		w.same()
	}
}

// TestRandomLife changes a folder at random, crashes at random steps and
// compares folder and sink after each quiet pass.
func TestRandomLife(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t, func(c *Config) { c.Inline = 40; c.MaxGone = 1; c.Permissions = true })
		var names []string
		for step := range 12 {
			for range r.IntN(5) {
				switch k := r.IntN(5); {
				case k < 2 || len(names) == 0:
					name := fmt.Sprintf("d%d/%d-%d.txt", r.IntN(3), step, r.IntN(100))
					w.write(name, strings.Repeat("x", r.IntN(60)))
					if !slices.Contains(names, name) {
						names = append(names, name)
					}
				case k == 2:
					i := r.IntN(len(names))
					w.remove(names[i])
					names = slices.Delete(names, i, i+1)
				case k == 3:
					i := r.IntN(len(names))
					to := fmt.Sprintf("moved/%d-%d.txt", step, r.IntN(1000))
					if slices.Contains(names, to) {
						continue
					}
					w.rename(names[i], to)
					names[i] = to
				default:
					w.write(names[r.IntN(len(names))], fmt.Sprint("text of step ", step))
				}
			}
			if r.IntN(2) == 0 {
				left, loses := r.IntN(12), r.IntN(2) == 0
				w.fault = func(point string) error {
					if left--; left < 0 {
						return errCrash
					}
					if loses && left == 0 && point == "journaled" {
						w.brokers.lost = true
					}
					return nil
				}
				_ = w.run()
				w.fault, w.brokers.lost = nil, false
				continue
			}
			w.must()
			w.same()
		}
		w.must()
		w.same()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestTenThousandFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for i := range 10_000 {
		w.write(fmt.Sprintf("%02d/%04d.txt", i%50, i), fmt.Sprint("file ", i))
	}
	at := time.Now()
	w.must()
	t.Logf("first pass of 10,000 files: %s", time.Since(at).Round(time.Millisecond))
	if len(w.files()) != 10_000 {
		t.Fatalf("%d files", len(w.files()))
	}
	w.take()
	at = time.Now()
	w.must()
	t.Logf("second pass: %s", time.Since(at).Round(time.Millisecond))
	w.write("07/0007.txt", "changed")
	w.must()
	w.want("update 07/0007.txt")
}

func TestGlobs(t *testing.T) {
	for _, c := range []struct {
		glob, path string
		want       bool
	}{
		{"*.md", "a.md", true}, {"*.md", "x/y/a.md", true}, {"/*.md", "x/a.md", false}, {"/*.md", "a.md", true},
		{"docs/**", "docs/a/b", true}, {"docs/**", "docs", false}, {"docs/**", "other/docs/a", false}, {"docs/", "docs/a", true},
		{"**/a/**/b", "x/a/y/z/b", true}, {"**/a/**/b", "a/b", true}, {"a/*/b", "a/x/y/b", false}, {"[ab].txt", "b.txt", true},
		{"**", "any/thing", true}, {"a?c", "abc", true},
	} {
		if got := mustGlob(t, c.glob).Match(c.path); got != c.want {
			t.Errorf("%s on %s: %v", c.glob, c.path, got)
		}
	}
	for _, bad := range []string{"", "[a", "a/[", strings.Repeat("**/a/", 9)} {
		if _, err := ParseGlob(bad); err == nil {
			t.Errorf("glob %q was taken", bad)
		}
	}
	w := newWorld(t, func(c *Config) {
		c.Include, c.Exclude = []Glob{mustGlob(t, "*.md")}, []Glob{mustGlob(t, "draft/**")}
	})
	w.write("a.md", "a")
	w.write("b.txt", "b")
	w.write("draft/c.md", "c")
	w.must()
	w.want("read a.md")
}

func TestOneProcessAtATime(t *testing.T) {
	w := newWorld(t, nil)
	st, err := openState(t.Context(), w.state)
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	if err := w.run(); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("want a refusal, got %v", err)
	}
}

func FuzzCheckPath(f *testing.F) {
	for _, s := range []string{"a/b", "../x", "a//b", "", "/a", `..\x`, "a\x00b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if root.CheckPath(s) == nil && !filepath.IsLocal(s) {
			t.Errorf("%q leaves its folder", s)
		}
		if bad := root.CheckPath(root.Printable(s)); len(root.Printable(s)) > root.MaxPath || root.Printable(s) == "" {
			t.Errorf("%q is not printable: %v", s, bad)
		}
	})
}
