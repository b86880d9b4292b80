// Package web reads the files that an HTTP server lists: the index pages of
// Apache, nginx and their likes, as HTML or as JSON.
package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/html"

	"github.com/sluice-data/sluice/ingest/files/root"
)

const (
	maxDepth   = 64      // of folders
	maxFolders = 100_000 // a server may list folders without end
)

// Config says where the listing is.
type Config struct {
	URL      string // of the first folder, with a slash at its end
	User     string
	Password string
	Token    string // bearer token instead of a user
	Private  bool   // the server may be on this machine or in a private network
}

// Site is the root of one server's folder.
type Site struct {
	base   *url.URL
	client *root.Client
	header http.Header
}

// Open returns the files below an address. It does not connect.
func Open(cfg Config) (*Site, error) {
	base, err := url.Parse(cfg.URL)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" ||
		!strings.HasSuffix(base.Path, "/") {
		return nil, errors.New("url: want http(s)://host/folder/ without user and query")
	}
	s := &Site{base: base, header: http.Header{}}
	if cfg.Token != "" {
		s.header.Set("Authorization", "Bearer "+cfg.Token)
	} else if cfg.User != "" {
		r := http.Request{Header: s.header}
		r.SetBasicAuth(cfg.User, cfg.Password)
	}
	s.client = &root.Client{HTTP: &http.Client{Transport: root.Transport(cfg.Private), CheckRedirect: s.redirect}}
	return s, nil
}

// redirect follows an answer inside the root only.
func (s *Site) redirect(req *http.Request, via []*http.Request) error {
	if _, ok := s.below(req.URL); !ok || len(via) > 5 {
		return errors.New("the server redirects out of the folder")
	}
	return nil
}

// below returns the path of u below the root.
func (s *Site) below(u *url.URL) (string, bool) {
	if u.Scheme != s.base.Scheme || u.Host != s.base.Host || u.User != nil {
		return "", false
	}
	p, ok := strings.CutPrefix(u.Path, s.base.Path)
	return p, ok && !slices.Contains(strings.Split(u.Path, "/"), "..")
}

// item is one line of a listing.
type item struct {
	name     string // with a slash at its end if it is a folder
	size     int64  // -1 = unknown
	modified time.Time
}

// List yields every file that the server lists.
func (s *Site) List(ctx context.Context) iter.Seq2[root.Entry, error] {
	return func(yield func(root.Entry, error) bool) {
		folders, seen := []string{""}, map[string]bool{"": true}
		for len(folders) > 0 {
			dir := folders[len(folders)-1]
			folders = folders[:len(folders)-1]
			items, err := s.folder(ctx, dir)
			if err != nil {
				yield(root.Entry{}, err)
				return
			}
			for _, it := range items {
				p := dir + it.name
				if strings.HasSuffix(it.name, "/") {
					if !seen[p] && root.CheckPath(strings.TrimSuffix(p, "/")) == nil {
						seen[p] = true
						folders = append(folders, p)
					}
					continue
				}
				e, ok, err := s.entry(ctx, p, it)
				if err != nil {
					yield(root.Entry{}, err)
					return
				}
				if ok && !yield(e, nil) {
					return
				}
			}
			if len(seen) > maxFolders || strings.Count(dir, "/") > maxDepth {
				yield(root.Entry{}, errors.New("list http folder: too many or too deep folders"))
				return
			}
		}
	}
}

// address returns where the file or folder p is.
func (s *Site) address(p string) string {
	u := *s.base
	u.Path, u.RawPath = s.base.Path+p, ""
	return u.String()
}

func (s *Site) folder(ctx context.Context, dir string) ([]item, error) {
	res, err := s.client.Do(ctx, "list http folder", http.MethodGet, s.address(dir), s.header, http.StatusOK)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := root.ReadAnswer(res.Body)
	if err != nil {
		return nil, fmt.Errorf("list http folder: %w", err)
	}
	if t, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); t == "application/json" {
		return parseJSON(b)
	} else if t != "text/html" && t != "application/xhtml+xml" {
		return nil, fmt.Errorf("list http folder: the answer is %q, want text/html or application/json", t)
	}
	return s.parseHTML(b, dir)
}

// parseJSON reads the listing of nginx (autoindex_format json) and its likes.
func parseJSON(b []byte) ([]item, error) {
	var list []struct {
		Name  string `json:"name"`
		Type  string `json:"type"`
		MTime string `json:"mtime"`
		Size  *int64 `json:"size"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, errors.New("list http folder: the JSON is no list of names, types, times and sizes")
	}
	var items []item
	for _, f := range list {
		it := item{name: strings.TrimSuffix(f.Name, "/"), size: -1}
		if strings.Contains(it.name, "/") {
			it.name = "" // refused as a bad name
		}
		if f.Type == "directory" {
			it.name += "/"
		}
		if f.Size != nil && *f.Size >= 0 {
			it.size = *f.Size
		}
		for _, form := range []string{time.RFC1123, time.RFC3339} {
			if t, err := time.Parse(form, f.MTime); err == nil {
				it.modified = t
			}
		}
		items = append(items, it)
	}
	return items, nil
}

// parseHTML takes the links of an index page that lead one step down.
func (s *Site) parseHTML(b []byte, dir string) ([]item, error) {
	here, err := url.Parse(s.address(dir))
	if err != nil {
		return nil, errors.New("list http folder: no valid address")
	}
	var items []item
	seen := map[string]bool{}
	z := html.NewTokenizer(bytes.NewReader(b))
	z.SetMaxBuf(1 << 20)
	for {
		switch z.Next() {
		case html.ErrorToken:
			if err := z.Err(); !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("list http folder: %w", err)
			}
			return items, nil
		case html.StartTagToken:
			name, more := z.TagName()
			for string(name) == "a" && more {
				var key, value []byte
				key, value, more = z.TagAttr()
				if string(key) != "href" {
					continue
				}
				if child, ok := s.child(here, dir, string(value)); ok && !seen[child] {
					seen[child] = true
					items = append(items, item{name: child, size: -1})
				}
			}
		}
	}
}

// child returns the name of a link that leads to something right in dir.
func (s *Site) child(here *url.URL, dir, href string) (string, bool) {
	u, err := here.Parse(href)
	if err != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", false // the sort links of index pages have a query
	}
	p, ok := s.below(u)
	if !ok {
		return "", false
	}
	name, ok := strings.CutPrefix(p, dir)
	if !ok || name == "" || name == "/" || strings.Contains(strings.TrimSuffix(name, "/"), "/") {
		return "", false
	}
	return name, true
}

// entry describes one file. What the listing does not tell is asked for.
func (s *Site) entry(ctx context.Context, p string, it item) (root.Entry, bool, error) {
	if bad := root.CheckPath(p); bad != nil {
		return root.Entry{Path: root.Printable(p), Skip: bad}, true, nil
	}
	e := root.Entry{Path: p, Size: it.size, Modified: it.modified, URI: s.address(p)}
	if it.size >= 0 && !it.modified.IsZero() {
		e.ETag, e.Weak = fmt.Sprintf("%x-%x", it.modified.Unix(), it.size), true
		return e, true, nil
	}
	res, err := s.client.Do(ctx, "look at http file", http.MethodHead, s.address(p), s.header, http.StatusOK)
	if err != nil {
		err = root.OpenError(err)
		var reason *root.Reason
		switch {
		case errors.Is(err, root.ErrChanged):
			return e, false, nil
		case errors.As(err, &reason):
			e.Skip = reason
			return e, true, nil
		}
		return e, false, err
	}
	_ = res.Body.Close()
	e.Size, e.MIME = res.ContentLength, root.BareType(res.Header.Get("Content-Type"))
	e.Modified, _ = http.ParseTime(res.Header.Get("Last-Modified"))
	if tag := res.Header.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		e.ETag, e.Ref = tag, tag
	} else {
		e.ETag, e.Weak = fmt.Sprintf("%x-%x", e.Modified.Unix(), e.Size), true
	}
	return e, true, nil
}

// Open reads the listed version of a file from offset on.
func (s *Site) Open(ctx context.Context, e root.Entry, offset int64) (io.ReadCloser, error) {
	h := s.header.Clone()
	status := http.StatusOK
	if offset > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		status = http.StatusPartialContent
	}
	if e.Ref != "" {
		h.Set("If-Match", e.Ref)
	} else if !e.Modified.IsZero() {
		h.Set("If-Unmodified-Since", e.Modified.UTC().Format(http.TimeFormat))
	}
	h.Set("Accept-Encoding", "identity") // the stored bytes, and their length
	res, err := s.client.Do(ctx, "read http file", http.MethodGet, s.address(e.Path), h, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return nil, root.OpenError(err)
	}
	changed := e.Ref != "" && res.Header.Get("ETag") != e.Ref
	if e.Ref == "" && !e.Modified.IsZero() {
		if t, err := http.ParseTime(res.Header.Get("Last-Modified")); err == nil && t.Unix() != e.Modified.Unix() {
			changed = true
		}
	}
	if changed || res.StatusCode == http.StatusPartialContent && status == http.StatusOK {
		_ = res.Body.Close()
		return nil, root.ErrChanged
	}
	if res.StatusCode != status { // a server without ranges sends all
		if _, err := io.CopyN(io.Discard, res.Body, offset); err != nil {
			_ = res.Body.Close()
			return nil, root.ErrChanged
		}
	}
	return res.Body, nil
}
