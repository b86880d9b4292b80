package files

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-data/sluice/ingest/files/bucket"
	"github.com/sluice-data/sluice/ingest/files/root"
	"github.com/sluice-data/sluice/objects"
	"github.com/sluice-data/sluice/objects/gateway"
)

// serveEnv makes the test binary be the gateway of the folder it names: the
// gateway changes its process's working directory, so it gets its own.
const serveEnv = "FILES_TEST_GATEWAY"

var endpoint string

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveEnv); dir != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := gateway.Run(ctx, gateway.Config{Dir: dir, AccessKey: "key", SecretKey: "secret",
			Ready: func(addr string) { fmt.Println(addr) }}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(runWithGateway(m))
}

func runWithGateway(m *testing.M) int {
	dir, err := os.MkdirTemp("", "files-gateway")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), serveEnv+"="+dir), os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		panic(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // its folder goes with it
		_ = cmd.Wait()
	}()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		panic(err)
	}
	endpoint = "http://" + strings.TrimSpace(addr)
	return m.Run()
}

func testStore(t testing.TB, name string, byHash bool) *Store {
	t.Helper()
	c, err := objects.New(context.Background(), objects.Config{Endpoint: endpoint, Region: "us-east-1", AccessKey: "key", SecretKey: "secret", PathStyle: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.EnsureBucket(context.Background(), name); err != nil {
		t.Fatal(err)
	}
	return &Store{Client: c, Bucket: name, Prefix: "in/", ByHash: byHash}
}

// keys returns what is in the store.
func (st *Store) keys(t testing.TB) []string {
	t.Helper()
	var keys []string
	for o, err := range st.Client.List(context.Background(), st.Bucket, "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

// copied compares the claims of the sink with the folder, byte by byte.
func (w *world) copied(st *Store) {
	w.t.Helper()
	w.same()
	want := map[string]bool{}
	for name, d := range w.files() {
		c, err := objects.ParseClaim(d.object)
		if err != nil {
			w.t.Fatalf("%s: claim %q", name, d.object)
		}
		want[c.Key] = true
		r, err := objects.Bodies{S3: st.Client}.Open(context.Background(), d.object, d.objectETag)
		if err != nil {
			w.t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		_ = r.Close()
		if err != nil {
			w.t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(w.dir, name))
		if err != nil || !bytes.Equal(got, b) {
			w.t.Errorf("the copy of %s has %d bytes, want %d; %v", name, len(got), len(b), err)
		}
		if sum := sha256.Sum256(b); d.sha != string(sum[:]) {
			w.t.Errorf("%s has another hash", name)
		} else if st.ByHash && !strings.HasSuffix(c.Key, hex.EncodeToString(sum[:])) {
			w.t.Errorf("%s is at %s", name, c.Key)
		} else if !st.ByHash && c.Key != "in/"+name {
			w.t.Errorf("%s is at %s", name, c.Key)
		}
	}
	if keys := st.keys(w.t); len(keys) != len(want) {
		w.t.Errorf("the store has %q, want %d objects", keys, len(want))
	}
}

func noise(seed uint64, n int) string {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b)
	return string(b)
}

// TestCopyCrashesAtEveryStep copies, changes, renames and deletes with a crash
// at each fourth step, in the middle of a multipart upload too; with
// SLUICE_FILES_EVERY=1 at each step.
func TestCopyCrashesAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, byHash := range []bool{false, true} {
		n, step := 0, 4
		if os.Getenv("SLUICE_FILES_EVERY") != "" {
			step = 1
		}

		build := func() (*world, *Store) {
			n++
			st := testStore(t, fmt.Sprintf("copy-%v-%d", byHash, n), byHash)
			w := newWorld(t, func(c *Config) { c.CopyAll, c.Store, c.Workers, c.MaxGone = true, st, 1, 1 })
			w.write("small.txt", "small")
			w.write("twin.txt", "small")
			w.write("sub/big.bin", noise(1, 8<<20+1))
			return w, st
		}
		change := func(w *world) {
			w.write("small.txt", "changed")
			w.rename("sub/big.bin", "moved.bin")
			w.write("other.bin", noise(2, 100))
			w.remove("twin.txt")
		}
		calm, st := build()
		first := calm.points()
		calm.copied(st)
		change(calm)
		second := calm.points()
		calm.copied(st)
		for i := 1; i <= first; i += step {
			w, st := build()
			w.crash(i, i%2 == 0)
			w.must()
			w.copied(st)
		}
		for i := 1; i <= second; i += step {
			w, st := build()
			w.must()
			change(w)
			w.crash(i, i%2 == 0)
			w.must()
			w.copied(st)
		}
		t.Logf("by hash %v: %d steps", byHash, first+second)
	}
}

// TestCopyIsResumed: after a crash only what was not sent is read again.
func TestCopyIsResumed(t *testing.T) {
	st := testStore(t, "resumed", false)
	place := &counting{}
	w := newWorld(t, func(c *Config) {
		c.CopyAll, c.Store, c.Workers = true, st, 1
		open := c.Open
		c.Open = func(ctx context.Context) (Root, error) {
			r, err := open(ctx)
			place.Root = r
			return place, err
		}
	})
	w.write("big.bin", noise(3, 30<<20))
	parts := 0
	w.fault = func(point string) error {
		if point == "part" {
			if parts++; parts == 2 {
				return errCrash
			}
		}
		return nil
	}
	if err := w.run(); err == nil {
		t.Fatal("no crash")
	}
	w.fault = nil
	w.must()
	w.copied(st)
	if want := []int64{0, 16 << 20}; !slices.Equal(place.offsets, want) {
		t.Errorf("read from %d, want %d", place.offsets, want)
	}
}

// counting notes where bodies were read from.
type counting struct {
	Root
	offsets []int64
}

func (c *counting) Open(ctx context.Context, e root.Entry, offset int64) (io.ReadCloser, error) {
	c.offsets = append(c.offsets, offset)
	return c.Root.Open(ctx, e, offset)
}

// TestBucket reads a bucket: small bodies inline, big ones by claim, names that
// could leave a folder refused.
func TestBucket(t *testing.T) {
	st := testStore(t, "source-bucket", false)
	ctx := t.Context()
	put := func(key, text string) {
		t.Helper()
		if _, err := st.Client.Store(ctx, st.Bucket, "docs/"+key, []byte(text), nil); err != nil {
			t.Fatal(err)
		}
	}
	put("a.txt", "a")
	put("sub/big.txt", strings.Repeat("b", 2000))
	put("sub/empty.txt", "")
	if _, err := st.Client.Store(ctx, st.Bucket, "other/x.txt", []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *Config) {
		c.Inline = 1024
		c.Open = func(context.Context) (Root, error) { return bucket.Open(st.Client, st.Bucket, "docs/") }
	})
	w.must()
	w.want("read a.txt", "read sub/big.txt", "read sub/empty.txt")
	if d := w.files()["sub/big.txt"]; d.object != "s3://source-bucket/docs/sub/big.txt" || d.objectETag == "" || d.body != "" {
		t.Errorf("sub/big.txt: %+v", d)
	}
	w.must()
	w.want()
	put("a.txt", "A")
	put("moved/big.txt", strings.Repeat("b", 2000))
	if _, err := st.Client.Delete(ctx, st.Bucket, "docs/sub/big.txt"); err != nil {
		t.Fatal(err)
	}
	w.must()
	w.want("update a.txt", "delete sub/big.txt", "insert moved/big.txt")
	if got := w.files()["moved/big.txt"].metadata; got != `{"renamed_from":"sub/big.txt"}` {
		t.Errorf("metadata: %s", got)
	}
}

// TestLargeCopy copies SLUICE_FILES_LARGE GiB with bounded memory:
// SLUICE_FILES_LARGE=2 go test -run TestLargeCopy -v ./ingest/files
func TestLargeCopy(t *testing.T) {
	gib, _ := strconv.ParseFloat(os.Getenv("SLUICE_FILES_LARGE"), 64)
	if gib <= 0 {
		t.Log("without SLUICE_FILES_LARGE only 40 MiB are copied")
		gib = 40.0 / 1024
	}
	st := testStore(t, "large", true)
	size := int64(gib * (1 << 30))
	w := newWorld(t, func(c *Config) { c.CopyAll, c.Store = true, st })
	f, err := os.Create(filepath.Join(w.dir, "large.bin"))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.NewChaCha8([32]byte{9})
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, sum), r, size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	before := rss(t)
	at := time.Now()
	w.must()
	took := time.Since(at)
	after := rss(t)
	d := w.files()["large.bin"]
	if d.sha != string(sum.Sum(nil)) {
		t.Error("another hash")
	}
	c, err := objects.ParseClaim(d.object)
	if err != nil {
		t.Fatal(err)
	}
	o, err := st.Client.Head(t.Context(), c.Bucket, c.Key)
	if err != nil || o.Size != size || o.ETag != d.objectETag {
		t.Errorf("the copy: %+v, %v", o, err)
	}
	t.Logf("%d MiB in %s; peak memory %d MiB before, %d MiB after", size>>20, took.Round(time.Millisecond), before>>10, after>>10)
	if after-before > 128<<10 {
		t.Errorf("peak memory rose by %d MiB", (after-before)>>10)
	}
}

// rss returns the most memory that this process has ever had, in KiB.
func rss(t *testing.T) int64 {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return u.Maxrss
}
