package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-data/sluice/ingest/files/root"
)

// server lists a folder as Apache (HTML) or nginx (JSON) would.
func server(t *testing.T, dir string, asJSON bool) *httptest.Server {
	t.Helper()
	files := http.FileServer(http.Dir(dir))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "pa55" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		p, below := strings.CutPrefix(r.URL.Path, "/pub/")
		if !below {
			w.WriteHeader(http.StatusTeapot) // nothing outside the root is ever asked for
			t.Errorf("asked for %s", r.URL.Path)
			return
		}
		r.URL.Path = "/" + p
		if asJSON && strings.HasSuffix(r.URL.Path, "/") {
			items, _ := os.ReadDir(filepath.Join(dir, p))
			list := []map[string]any{{"name": "../up", "type": "file", "mtime": "Mon, 02 Jan 2006 15:04:05 GMT", "size": 1}}
			for _, it := range items {
				fi, _ := it.Info()
				m := map[string]any{"name": it.Name(), "type": "file", "mtime": fi.ModTime().UTC().Format(http.TimeFormat), "size": fi.Size()}
				if it.IsDir() {
					m["type"] = "directory"
					delete(m, "size")
				}
				list = append(list, m)
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(list)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/") {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = io.WriteString(w, `<a href="?C=N;O=D">Name</a><a href="../">Up</a><a href="/">Top</a><a href="http://other.example/x.txt">x</a>`+
				`<a href="%2e%2e/%2e%2e/etc/passwd">p</a><a href="javascript:alert(1)">j</a><a href="mailto:a@b">m</a>`)
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func open(t *testing.T, s *httptest.Server) *Site {
	t.Helper()
	site, err := Open(Config{URL: s.URL + "/pub/", User: "u", Password: "pa55", Private: true})
	if err != nil {
		t.Fatal(err)
	}
	return site
}

func list(t *testing.T, s *Site) map[string]root.Entry {
	t.Helper()
	got := map[string]root.Entry{}
	for e, err := range s.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got[e.Path] = e
	}
	return got
}

func TestListings(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a b&c.txt": "text", "sub/ü.md": "# ü", "sub/deep/x.bin": strings.Repeat("x", 5000)} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, asJSON := range []bool{false, true} {
		s := open(t, server(t, dir, asJSON))
		got := list(t, s)
		var names []string
		for name, e := range got {
			if e.Skip == nil {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		if want := []string{"a b&c.txt", "sub/deep/x.bin", "sub/ü.md"}; !slices.Equal(names, want) {
			t.Fatalf("json %v: listed %q, want %q", asJSON, names, want)
		}
		e := got["sub/deep/x.bin"]
		if e.Size != 5000 || e.ETag == "" || e.Modified.IsZero() {
			t.Errorf("json %v: %+v", asJSON, e)
		}
		for _, offset := range []int64{0, 4990} {
			r, err := s.Open(t.Context(), e, offset)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil || len(b) != 5000-int(offset) {
				t.Errorf("from %d: %d bytes, %v", offset, len(b), err)
			}
			_ = r.Close()
		}
		if _, err := s.Open(t.Context(), root.Entry{Path: "gone.txt"}, 0); !errors.Is(err, root.ErrChanged) {
			t.Errorf("a file that is gone: %v", err)
		}
	}
}

func TestPrivateAddressesAreRefused(t *testing.T) {
	s := server(t, t.TempDir(), false)
	site, err := Open(Config{URL: s.URL + "/pub/", User: "u", Password: "pa55"})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range site.List(t.Context()) {
		if !errors.Is(err, root.ErrPrivate) {
			t.Fatalf("want ErrPrivate, got %v", err)
		}
	}
	for _, ip := range []string{"127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "::1", "fd00::1", "fe80::1", "0.0.0.0",
		"100.64.1.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "224.0.0.1", "255.255.255.255", "172.16.0.1"} {
		if root.Public(netip.MustParseAddr(ip)) {
			t.Errorf("%s counts as public", ip)
		}
	}
	for _, ip := range []string{"1.1.1.1", "2606:4700::1111"} {
		if !root.Public(netip.MustParseAddr(ip)) {
			t.Errorf("%s counts as private", ip)
		}
	}
}

func TestRedirectOutOfTheRootIsRefused(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer other.Close()
	s := httptest.NewServer(http.RedirectHandler(other.URL+"/pub/", http.StatusFound))
	defer s.Close()
	site := open(t, s)
	site.client.Pause = noPause
	for _, err := range site.List(t.Context()) {
		if err == nil || strings.Contains(err.Error(), s.URL) {
			t.Errorf("want an error without address, got %v", err)
		}
	}
}

func TestBusyServerIsAskedAgain(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked < 3 {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		w.Header().Set("Content-Type", "text/html")
	}))
	defer s.Close()
	site := open(t, s)
	site.client.Pause = noPause
	if got := list(t, site); len(got) != 0 || asked != 3 {
		t.Errorf("%d entries after %d requests", len(got), asked)
	}
}

func TestAddresses(t *testing.T) {
	for _, bad := range []string{"", "ftp://h/", "http://h/no-slash", "http://u:p@h/", "http:///x/", "http://h/?q=1"} {
		if _, err := Open(Config{URL: bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzListing(f *testing.F) {
	f.Add([]byte(`<a href="a.txt">`), []byte(`[{"name":"a","type":"file","size":1}]`))
	s, err := Open(Config{URL: "http://host.example/pub/"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, page, list []byte) {
		items, _ := s.parseHTML(page, "sub/")
		for _, it := range items {
			if strings.Contains(strings.TrimSuffix(it.name, "/"), "/") || it.name == ".." {
				t.Errorf("name %q", it.name)
			}
		}
		_, _ = parseJSON(list)
	})
}

func noPause(context.Context, time.Duration) error { return nil }
