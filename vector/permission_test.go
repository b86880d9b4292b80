package vector_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/vector"
	"github.com/sluice-data/sluice/vector/search"
)

// acl is what the model knows of a document; nil = nobody knows.
type acl struct {
	Allow []string `json:"allow"`
	Deny  []string `json:"deny,omitempty"`
}

func (a *acl) json() string {
	if a == nil {
		return ""
	}
	b, err := json.Marshal(a)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// model says who may see what, in the plainest way.
type model struct {
	docs        map[string]*acl // of documents that are there
	permissions map[string]*acl // of the permissions stream, for documents that may not be there
	groups      map[string][]string
	stale       bool
}

// are returns everything that a user is.
func (m *model) are(user string) map[string]bool {
	are := map[string]bool{"public": true, user: true}
	if user == "" {
		delete(are, user)
	}
	for grown := !m.stale; grown; {
		grown = false
		for g, members := range m.groups {
			if !are["group:"+g] && slices.ContainsFunc(members, func(p string) bool { return are[p] }) {
				are["group:"+g], grown = true, true
			}
		}
	}
	return are
}

func (m *model) sees(user string) []string {
	are := m.are(user)
	var ids []string
	for id, a := range m.docs {
		if own, ok := m.permissions[id]; ok {
			a = own
		}
		if a == nil || !slices.ContainsFunc(a.Allow, func(p string) bool { return are[p] }) {
			continue
		}
		if slices.ContainsFunc(a.Deny, func(p string) bool { return are[p] || m.stale && strings.HasPrefix(p, "group:") }) {
			continue
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// replay keeps the rows that a crash makes a consumer read again.
type replay struct {
	feed *feed
	rows []row
}

func (p *replay) write(rows ...row) {
	p.rows = append(p.rows, rows...)
	p.feed.write(rows...)
}

func (p *replay) flush() {
	p.feed.flush()
	p.rows = nil
}

// Random users, nested groups, permissions from both streams, deletes, crashes and stale groups: what is found
// is what the model allows, never more.
func TestNobodyFindsWhatTheModelForbids(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { checkPermissions(t, rand.New(rand.NewPCG(seed, 5)), 40) })
	}
}

func checkPermissions(t *testing.T, r *rand.Rand, steps int) {
	url := database(t)
	x := open(t, url)
	m := &model{docs: map[string]*acl{}, permissions: map[string]*acl{}, groups: map[string][]string{}}
	principals := []string{"public", "user:u0", "user:u1", "user:u2", "group:g0", "group:g1", "group:g2", "group:g3"}
	some := func(most int) []string {
		out := []string{}
		for range r.IntN(most + 1) {
			out = append(out, principals[r.IntN(len(principals))])
		}
		return out
	}
	someACL := func() *acl {
		if r.IntN(6) == 0 {
			return nil
		}
		return &acl{Allow: some(3), Deny: some(1)}
	}
	var docs, permissions, groups *replay
	start := func() {
		docs = &replay{feed: newFeed(t, x, filesSchema())}
		permissions = &replay{feed: newFeed(t, x, pairSchema("permissions", "path", "acl"), func(s *vector.Stream) { s.Holds, s.Of = vector.Permissions, "docs.files" })}
		groups = &replay{feed: newFeed(t, x, pairSchema("groups", "group", "members"), func(s *vector.Stream) { s.Holds, s.MaxAge = vector.Groups, time.Hour })}
	}
	start()
	groups.write(row{op: record.OpUpdate, values: map[string]any{"group": "g0", "members": `[]`}})
	groups.flush()
	permissions.flush() // heard of, with nothing to say yet
	s := searcher(t, url)
	check := func(step int) {
		t.Helper()
		for _, user := range []string{"", "user:u0", "user:u1", "user:u2"} {
			var as []string
			if user != "" {
				as = []string{user}
			}
			a, err := s.Search(context.Background(), search.Question{Text: "tides", As: as, Results: 100})
			if err != nil {
				t.Fatal(err)
			}
			found := map[string]bool{}
			for _, h := range a.Hits {
				found[h.ID] = true
			}
			got, want := slices.Sorted(maps.Keys(found)), m.sees(user)
			if !slices.Equal(got, want) {
				t.Fatalf("step %d: %q finds %v, the model allows %v\ndocs %v\ngroups %v", step, user, got, want, m.docs, m.groups)
			}
			if id := fmt.Sprintf("d%d.md", r.IntN(8)); m.docs[id] != nil {
				_, err := s.Fetch(context.Background(), "docs.files", id, "", as)
				if (err == nil) != found[id] {
					t.Fatalf("step %d: %q fetches %s: %v", step, user, id, err)
				}
			}
		}
	}
	for step := range steps {
		id := fmt.Sprintf("d%d.md", r.IntN(8))
		switch r.IntN(9) {
		case 0, 1:
			a := someACL()
			docs.write(put(id, "tides and "+id, a.json()))
			m.docs[id] = a
		case 2:
			if _, ok := m.docs[id]; ok {
				a := someACL()
				v := map[string]any{"path": id, "acl": a.json()}
				if a == nil {
					v["acl"] = nil
				}
				docs.write(row{op: record.OpUpdate, values: v})
				m.docs[id] = a
			}
		case 3:
			docs.write(gone(id))
			delete(m.docs, id)
		case 4:
			if r.IntN(3) == 0 {
				a := someACL()
				v := map[string]any{"path": id, "acl": a.json()}
				if a == nil {
					v["acl"] = nil
				}
				permissions.write(row{op: record.OpUpdate, values: v})
				m.permissions[id] = a
			}
		case 5, 6:
			g := fmt.Sprintf("g%d", r.IntN(4))
			members := some(3)
			members = slices.DeleteFunc(members, func(p string) bool { return p == "public" })
			raw, err := json.Marshal(members)
			if err != nil {
				t.Fatal(err)
			}
			groups.write(row{op: record.OpUpdate, values: map[string]any{"group": g, "members": string(raw)}})
			m.groups[g] = members
			if r.IntN(4) == 0 {
				groups.write(row{op: record.OpDelete, values: map[string]any{"group": g}})
				delete(m.groups, g)
			}
		case 7: // a crash: what was not flushed is read again
			crashed := []*replay{docs, permissions, groups}
			x.Close()
			x = open(t, url)
			start()
			for i, p := range []*replay{docs, permissions, groups} {
				for _, again := range crashed[i].rows {
					p.write(again)
				}
			}
		case 8:
			docs.flush()
			permissions.flush()
			groups.flush()
			m.stale = false
			if r.IntN(3) == 0 {
				if _, err := dial(t, url).Exec(context.Background(), `update rag.identity set synced_at = now() - interval '3 hours'`); err != nil {
					t.Fatal(err)
				}
				m.stale = true
			}
		}
		if !m.stale || r.IntN(2) == 0 {
			fresh(t, url, m.stale)
			check(step)
		}
	}
}

// fresh sets the age of the groups to what the model has: maintenance of an open index may have spoken meanwhile.
func fresh(t *testing.T, url string, stale bool) {
	t.Helper()
	age := "0 seconds"
	if stale {
		age = "3 hours"
	}
	if _, err := dial(t, url).Exec(context.Background(), `update rag.identity set synced_at = now() - $1::text::interval`, age); err != nil {
		t.Fatal(err)
	}
}
