// Package drivetest serves the APIs of Google Drive and Microsoft Graph from a
// tree in memory, as strictly as the real ones: tokens are checked, unknown
// parameters refused, pages small, page tokens valid once.
package drivetest

import (
	"crypto/md5" //nolint:gosec // Drive's checksum
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"
)

// pageItems is the size of a page.
const pageItems = 2

// Node is one file or folder.
type Node struct {
	ID, Name, Parent string
	Folder           bool
	Content          string
	MIME             string
	Google           bool // a document of Google's own: exported, not downloaded
	Version          int  // of everything
	Written          int  // of the content
	Readers          []string
	Gone             bool
}

// Tree is a drive and the server of its API.
type Tree struct {
	t      testing.TB
	server *httptest.Server
	files  *httptest.Server // where Graph redirects downloads to

	mu       sync.Mutex
	nodes    map[string]*Node
	log      []string // ids in the order of their changes
	forget   int      // changes before this one are not told any more
	pages    map[string]pageState
	n        int
	throttle int
	hidden   map[string]bool // permissions that may not be read
	Asked    map[string]int  // requests by kind
}

type pageState struct {
	query string
	at    int
}

// Secret is what the applications log in with.
const Secret = "s3cret-of-the-app"

const bearer = "access-t0ken"

func newTree(t testing.TB, handler func(*Tree) http.Handler) *Tree {
	tr := &Tree{t: t, nodes: map[string]*Node{"top": {ID: "top", Folder: true, Version: 1}}, pages: map[string]pageState{},
		hidden: map[string]bool{}, Asked: map[string]int{}}
	tr.server = httptest.NewServer(tr.guard(handler(tr)))
	tr.files = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the token was sent to another host")
		}
		tr.mu.Lock()
		defer tr.mu.Unlock()
		n := tr.nodes[r.URL.Query().Get("id")]
		if n == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		serve(w, r, n.Content)
	}))
	t.Cleanup(func() { tr.server.Close(); tr.files.Close() })
	return tr
}

// API is the address of the API.
func (tr *Tree) API() string { return tr.server.URL + "/api" }

// TokenURL is where tokens are given out.
func (tr *Tree) TokenURL() string { return tr.server.URL + "/token" }

// guard checks tokens and is too busy now and then.
func (tr *Tree) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		if r.URL.Path == "/token" {
			if err := r.ParseForm(); err != nil || r.Method != http.MethodPost || r.PostForm.Get("client_secret") != Secret {
				w.WriteHeader(http.StatusBadRequest)
				reply(w, map[string]string{"error": "invalid_client", "error_description": "the secret was " + r.PostForm.Get("client_secret")})
				return
			}
			reply(w, map[string]any{"access_token": bearer, "expires_in": 3600, "token_type": "Bearer"})
			return
		}
		if r.Header.Get("Authorization") != "Bearer "+bearer {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if tr.throttle > 0 {
			tr.throttle--
			tr.Asked["throttled"]++
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Throttle answers the next n requests with 429.
func (tr *Tree) Throttle(n int) { tr.mu.Lock(); tr.throttle = n; tr.mu.Unlock() }

// Forget makes all tokens of changes too old.
func (tr *Tree) Forget() {
	tr.mu.Lock()
	tr.forget = len(tr.log) + 1
	tr.log = append(tr.log, "top")
	tr.mu.Unlock()
}

// Hide makes the permissions of a file unreadable.
func (tr *Tree) Hide(id string) { tr.mu.Lock(); tr.hidden[id] = true; tr.mu.Unlock() }

// Put makes or replaces a node.
func (tr *Tree) Put(n Node) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if n.Parent == "" {
		n.Parent = "top"
	}
	old := tr.nodes[n.ID]
	n.Version, n.Written = 1, 1
	if old != nil {
		n.Version, n.Written = old.Version+1, old.Written
		if old.Content != n.Content {
			n.Written++
		}
	}
	tr.nodes[n.ID] = &n
	tr.log = append(tr.log, n.ID)
}

// Edit changes one node.
func (tr *Tree) Edit(id string, edit func(*Node)) {
	tr.mu.Lock()
	n := *tr.nodes[id]
	tr.mu.Unlock()
	edit(&n)
	tr.Put(n)
}

// Remove deletes a node.
func (tr *Tree) Remove(id string) { tr.Edit(id, func(n *Node) { n.Gone = true }) }

func (tr *Tree) children(id string) []*Node {
	var list []*Node
	for _, n := range tr.nodes {
		if n.Parent == id && !n.Gone {
			list = append(list, n)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name+list[i].ID < list[j].Name+list[j].ID })
	return list
}

// page cuts a page out of n items and returns its bounds and the next token.
func (tr *Tree) page(query, token string, n int) (from, to int, next string, ok bool) {
	if token != "" {
		st, known := tr.pages[token]
		if !known || st.query != query {
			return 0, 0, "", false
		}
		delete(tr.pages, token) // valid once
		from = st.at
	}
	to = min(from+pageItems, n)
	if to < n {
		tr.n++
		next = fmt.Sprintf("page-%d", tr.n)
		tr.pages[next] = pageState{query, to}
	}
	return from, to, next, true
}

// only reports parameters that the API does not know.
func only(q url.Values, names ...string) string {
	for k := range q {
		if !slices.Contains(names, k) {
			return k
		}
	}
	return ""
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func serve(w http.ResponseWriter, r *http.Request, content string) {
	var from int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write([]byte(content[from:]))
		return
	}
	_, _ = w.Write([]byte(content))
}

func when(n int) string {
	return time.Date(2026, 1, 1, 0, 0, n, 0, time.UTC).Format(time.RFC3339)
}

func sum(s string) string {
	h := md5.Sum([]byte(s)) //nolint:gosec // see the import
	return hex.EncodeToString(h[:])
}
