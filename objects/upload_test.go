package objects

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestUploadIsResumed(t *testing.T) {
	c, ctx := testClient(t, nil), t.Context()
	if err := c.EnsureBucket(ctx, "resume"); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, 13<<20)
	_, _ = rand.Read(body)
	u, err := c.BeginUpload(ctx, "resume", "a b/ü.bin", map[string]string{"origin": "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Put(ctx, body[:6<<20]); err != nil {
		t.Fatal(err)
	}
	saved := u.State()
	if err := u.Put(ctx, body[6<<20:12<<20]); err != nil { // its state is lost
		t.Fatal(err)
	}
	again, etag, err := c.ResumeUpload(ctx, "resume", "a b/ü.bin", saved)
	if err != nil || etag != "" {
		t.Fatalf("resume: %q, %v", etag, err)
	}
	if got := again.State().Size(); got != 6<<20 {
		t.Fatalf("resumed at %d", got)
	}
	for _, part := range [][]byte{body[6<<20 : 12<<20], body[12<<20:]} {
		if err := again.Put(ctx, part); err != nil {
			t.Fatal(err)
		}
	}
	etag, err = again.Complete(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, done, err := c.ResumeUpload(ctx, "resume", "a b/ü.bin", again.State()); err != nil || done != etag {
		t.Fatalf("resume a completed upload: %q, %v; want %q", done, err, etag)
	}
	if got := readVersion(t, c, "a b/ü.bin", etag); !bytes.Equal(got, body) {
		t.Fatal("the object is not what was sent")
	}
	copied, err := c.Copy(ctx, Claim{Bucket: "resume", Key: "a b/ü.bin"}, etag, int64(len(body)), Claim{Bucket: "resume", Key: "copy"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := readVersion(t, c, "copy", copied); !bytes.Equal(got, body) {
		t.Fatal("the copy is not the object")
	}
}

func readVersion(t *testing.T, c *Client, key, etag string) []byte {
	t.Helper()
	r, err := Bodies{S3: c}.Open(t.Context(), "s3://resume/"+key, etag)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestClaimOfAnotherVersionIsRefused(t *testing.T) {
	c, ctx := testClient(t, nil), context.Background()
	if err := c.EnsureBucket(ctx, "claims"); err != nil {
		t.Fatal(err)
	}
	etag, err := c.Store(ctx, "claims", "doc", []byte("one"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Store(ctx, "claims", "doc", []byte("two"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := (Bodies{S3: c}).Open(ctx, "s3://claims/doc", etag); !errors.Is(err, ErrChanged) {
		t.Fatalf("want ErrChanged, got %v", err)
	}
	if _, err := (Bodies{S3: c}).Open(ctx, "s3://claims/none", etag); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("want fs.ErrNotExist, got %v", err)
	}
}

func TestFileClaims(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"in/a.txt", "secret.txt"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../secret.txt", filepath.Join(dir, "in", "link")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(filepath.Join(dir, "in"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	fi, err := root.Stat("a.txt")
	if err != nil {
		t.Fatal(err)
	}
	b := Bodies{Root: root}
	r, err := b.Open(t.Context(), "file:a.txt", FileETag(fi))
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	if _, err := b.Open(t.Context(), "file:a.txt", "other"); !errors.Is(err, ErrChanged) {
		t.Fatalf("want ErrChanged, got %v", err)
	}
	for _, claim := range []string{"file:link", "file:../secret.txt", "file:/etc/passwd", "file:", "file:.", "s3://b", "s3:///k", "http://x/y", ""} {
		if r, err := b.Open(t.Context(), claim, ""); err == nil {
			_ = r.Close()
			t.Errorf("claim %q was opened", claim)
		}
	}
}

func FuzzParseClaim(f *testing.F) {
	f.Add("s3://bucket/key")
	f.Add("file:a/b")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseClaim(s)
		if err == nil && c.String() != s {
			t.Fatalf("%q became %q", s, c.String())
		}
	})
}
