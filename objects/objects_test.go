package objects

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-data/sluice/objects/gateway"
)

// serveEnv makes the test binary be the gateway of the folder it names: the
// gateway changes its process's working directory, so it gets its own.
const serveEnv = "OBJECTS_TEST_GATEWAY"

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
	dir, err := os.MkdirTemp("", "objects-gateway")
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

func testClient(t *testing.T, edit func(*Config)) *Client {
	t.Helper()
	c := Config{Endpoint: endpoint, Region: "us-east-1", AccessKey: "key", SecretKey: "secret", PathStyle: true,
		maxBackoff: 10 * time.Millisecond}
	if edit != nil {
		edit(&c)
	}
	client, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func testBucket(t *testing.T, c *Client) string {
	t.Helper()
	bucket := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	for range 2 {
		if err := c.EnsureBucket(t.Context(), bucket); err != nil {
			t.Fatal(err)
		}
	}
	return bucket
}

func TestWriteReadRoundTrip(t *testing.T) {
	c := testClient(t, nil)
	bucket := testBucket(t, c)
	for _, size := range []int{0, 1, tailBytes - 1, tailBytes + 1, PartBytes - 1, PartBytes, 2*PartBytes + 12345} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			want := make([]byte, size)
			_, _ = rand.Read(want)
			key := fmt.Sprintf("a/%d", size)
			w := c.Create(t.Context(), bucket, key)
			for chunk := range slices.Chunk(want, 1<<20+7) {
				if _, err := w.Write(chunk); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := c.Head(t.Context(), bucket, key); !errors.Is(err, ErrNotFound) {
				t.Fatalf("object is visible before Close: %v", err)
			}
			for range 2 {
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if w.Size() != int64(size) {
				t.Fatalf("size %d", w.Size())
			}
			checkReads(t, c, bucket, key, want)
		})
	}
}

func checkReads(t *testing.T, c *Client, bucket, key string, want []byte) {
	t.Helper()
	got, err := c.Get(t.Context(), bucket, key)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("Get: %d bytes, %v", len(got), err)
	}
	r := c.Open(t.Context(), bucket, key)
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("Read: %d bytes, %v", len(got), err)
	}
	if end, err := r.Seek(0, io.SeekEnd); err != nil || end != int64(len(want)) {
		t.Fatalf("SeekEnd: %d, %v", end, err)
	}
	for _, at := range []int{0, len(want) / 3, max(0, len(want)-9)} {
		p := make([]byte, min(100, len(want)-at)+5)
		n, err := r.ReadAt(p, int64(at))
		if rest := want[at:]; !bytes.Equal(p[:n], rest[:min(len(p), len(rest))]) || (n < len(p)) != errors.Is(err, io.EOF) {
			t.Fatalf("ReadAt %d: %d bytes, %v", at, n, err)
		}
		if _, err := r.Seek(int64(at), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want[at:]) {
			t.Fatalf("Read from %d: %d bytes, %v", at, len(got), err)
		}
	}
}

func TestErrorsAreTyped(t *testing.T) {
	c := testClient(t, nil)
	bucket := testBucket(t, c)
	if err := c.Put(t.Context(), bucket, "k", []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := c.Put(t.Context(), bucket, "k", []byte("one")); err != nil {
		t.Errorf("putting the same bytes again is a retry: %v", err)
	}
	wrong := testClient(t, func(c *Config) { c.SecretKey = "wrong" })
	_, missing := c.Get(t.Context(), bucket, "nothing")
	_, denied := wrong.Get(t.Context(), bucket, "k")
	_, noBucket := c.Get(t.Context(), "no-such-bucket", "k")
	for _, tc := range []struct {
		err  error
		is   error
		text []string
	}{
		{c.Put(t.Context(), bucket, "k", []byte("two")), ErrExists, []string{bucket + "/k"}},
		{missing, ErrNotFound, []string{"get s3://" + bucket + "/nothing"}},
		{missing, fs.ErrNotExist, nil},
		{denied, ErrForbidden, []string{"check access_key"}},
		{noBucket, ErrNotFound, []string{"create the bucket"}},
	} {
		if !errors.Is(tc.err, tc.is) {
			t.Errorf("%v is not %v", tc.err, tc.is)
			continue
		}
		for _, s := range tc.text {
			if !strings.Contains(tc.err.Error(), s) {
				t.Errorf("%q lacks %q", tc.err, s)
			}
		}
		if strings.Contains(tc.err.Error(), "secret\"") {
			t.Errorf("secret in %q", tc.err)
		}
	}
}

func TestListAndDelete(t *testing.T) {
	c := testClient(t, nil)
	bucket := testBucket(t, c)
	var keys []string
	for i := range 25 {
		keys = append(keys, fmt.Sprintf("p/%03d", i))
		if err := c.Put(t.Context(), bucket, keys[i], nil); err != nil {
			t.Fatal(err)
		}
	}
	list := func() (got []string) {
		for o, err := range c.List(t.Context(), bucket, "p/") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, o.Key)
		}
		return got
	}
	if got := list(); !slices.Equal(got, keys) {
		t.Fatalf("listed %v", got)
	}
	deleted, err := c.Delete(t.Context(), bucket, append(keys, "p/never")...)
	if err != nil || len(deleted) != 26 {
		t.Fatalf("deleted %d: %v", len(deleted), err)
	}
	if got := list(); len(got) != 0 {
		t.Fatalf("still there: %v", got)
	}
}

// trip fails or loses chosen requests.
type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(r *http.Request, status int, code string) *http.Response {
	body := "<Error><Code>" + code + "</Code><Message>made up</Message></Error>"
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/xml"}},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r}
}

func TestLostRepliesAndSlowDown(t *testing.T) {
	for _, size := range []int{100, PartBytes + 1} {
		var puts atomic.Int64
		c := testClient(t, func(c *Config) {
			c.Transport = trip(func(r *http.Request) (*http.Response, error) {
				final := r.Method == http.MethodPut && !r.URL.Query().Has("partNumber") ||
					r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
				n := int64(0)
				if final && strings.Contains(r.URL.Path, "obj") {
					n = puts.Add(1)
				}
				if n == 1 {
					return answer(r, http.StatusServiceUnavailable, "SlowDown"), nil
				}
				resp, err := http.DefaultTransport.RoundTrip(r)
				if n == 2 && err == nil { // it did happen, but nobody hears of it
					resp.Body.Close()
					return answer(r, http.StatusInternalServerError, "InternalError"), nil
				}
				return resp, err
			})
		})
		bucket := testBucket(t, c)
		w := c.Create(t.Context(), bucket, fmt.Sprintf("obj%d", size))
		if _, err := w.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		if puts.Load() < 3 {
			t.Errorf("only %d tries", puts.Load())
		}
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	c := testClient(t, nil)
	bucket := testBucket(t, c)
	w := c.Create(t.Context(), bucket, "k")
	if _, err := w.Write(make([]byte, PartBytes+1)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Abort(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("a write after Abort succeeds")
	}
	if _, err := c.Head(t.Context(), bucket, "k"); !errors.Is(err, ErrNotFound) {
		t.Errorf("head: %v", err)
	}
}
