package vector_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/vector"
	"github.com/sluice-data/sluice/vector/embed"
	"github.com/sluice-data/sluice/vector/search"
)

func searcher(t testing.TB, url string) *search.Searcher {
	t.Helper()
	s, err := search.Open(context.Background(), search.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func ids(t testing.TB, s *search.Searcher, text string, as ...string) string {
	t.Helper()
	a, err := s.Search(context.Background(), search.Question{Text: text, As: as, Results: 100})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, h := range a.Hits {
		out = append(out, h.ID)
	}
	return strings.Join(out, " ")
}

// count words now, as the maintenance does
func counted(t testing.TB, x *vector.Index) {
	t.Helper()
	m, err := x.Store().Maintainer(context.Background())
	for deadline := time.Now().Add(10 * time.Second); err == nil && m == nil && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
		m, err = x.Store().Maintainer(context.Background())
	}
	if err != nil || m == nil {
		t.Fatalf("no maintenance: %v", err)
	}
	defer m.Release()
	if err := m.CountWords(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestRareWordsCountMore(t *testing.T) {
	url := database(t)
	x := open(t, url)
	f := newFeed(t, x, filesSchema())
	var rows []row
	for i := range 40 {
		rows = append(rows, put(fmt.Sprintf("n%02d.txt", i), fmt.Sprintf("The server restarts the server and the server logs number %d.", i), everybody))
	}
	rows = append(rows, put("rare.txt", "A zyzzyva beetle was seen near a machine once, long ago, by somebody who wrote a rather long sentence about it and its server.", everybody))
	f.write(rows...)
	f.flush()
	counted(t, x)
	s := searcher(t, url)
	if got := ids(t, s, "server zyzzyva"); !strings.HasPrefix(got, "rare.txt ") {
		t.Errorf("the rare word does not decide: %s", got)
	}
	a, err := s.Search(context.Background(), search.Question{Text: "zyzzyva"})
	if err != nil || len(a.Hits) == 0 || a.Hits[0].ID != "rare.txt" || a.Hits[0].Words != 1 || a.Hits[0].End == 0 || !strings.Contains(a.Hits[0].Citation(), "rare.txt") {
		t.Errorf("%+v, %v", a, err)
	}
	if got := ids(t, s, "!!! ... '"); got != "" && a.Note != "" {
		t.Logf("a question without words: %s", got)
	}
}

func TestOccurrencesAreReadFromTheRank(t *testing.T) {
	url := database(t)
	open(t, url)
	conn := dial(t, url)
	for _, n := range []int{1, 2, 3, 7, 12} {
		var got float64
		err := conn.QueryRow(context.Background(), `select rag.occurrences(ts_rank(to_tsvector('simple', $1), 'w'))`, strings.Repeat("w x ", n)).Scan(&got)
		if err != nil || got != float64(n) {
			t.Errorf("%d occurrences are read as %v: %v", n, got, err)
		}
	}
}

func TestPermissions(t *testing.T) {
	url := database(t)
	x := open(t, url)
	f := newFeed(t, x, filesSchema())
	f.write(put("public.md", "tides for everybody", everybody), put("unknown.md", "tides nobody knows", ""), put("anna.md", "tides of anna", `{"allow":["user:anna"]}`),
		put("staff.md", "tides of staff", `{"allow":["group:staff"],"deny":["user:bob"]}`), put("bad.md", "tides broken", `{"allow":"public"}`),
		put("denied.md", "tides but not for group out", `{"allow":["public"],"deny":["group:out"]}`))
	f.flush()
	s := searcher(t, url)
	sorted := func(as ...string) string {
		out := strings.Fields(ids(t, s, "tides", as...))
		for i := range out {
			for j := i + 1; j < len(out); j++ {
				if out[j] < out[i] {
					out[i], out[j] = out[j], out[i]
				}
			}
		}
		return strings.Join(out, " ")
	}
	want := func(what, want string, as ...string) {
		t.Helper()
		if got := sorted(as...); got != want {
			t.Errorf("%s: %v sees %q, not %q", what, as, got, want)
		}
	}
	want("before any group is known", "public.md")
	want("before any group is known", "anna.md public.md", "user:anna")

	g := newFeed(t, x, pairSchema("groups", "group", "members"), func(st *vector.Stream) { st.Holds = vector.Groups; st.MaxAge = time.Hour })
	group := func(name, members string) row {
		return row{op: record.OpUpdate, values: map[string]any{"group": name, "members": members}}
	}
	g.write(group("staff", `["group:team"]`), group("team", `["user:anna","user:bob","group:staff"]`), group("out", `["user:eve"]`))
	g.flush()
	want("nested groups", "anna.md denied.md public.md staff.md", "user:anna")
	want("deny wins", "denied.md public.md", "user:bob")
	want("denied by a group", "public.md", "user:eve")

	p := newFeed(t, x, pairSchema("permissions", "path", "acl"), func(st *vector.Stream) { st.Holds, st.Of, st.MaxAge = vector.Permissions, "docs.files", time.Hour })
	p.write(row{op: record.OpUpdate, values: map[string]any{"path": "anna.md", "acl": `{"allow":["user:eve"]}`}},
		row{op: record.OpUpdate, values: map[string]any{"path": "later.md", "acl": `{"allow":["user:eve"]}`}})
	p.flush()
	f.write(put("later.md", "tides that came later", everybody), put("anna.md", "tides of anna", `{"allow":["user:anna"]}`))
	f.flush()
	want("a permission of its own stream", "denied.md public.md staff.md", "user:anna")
	want("a permission of its own stream", "anna.md later.md public.md", "user:eve")
	p.write(row{op: record.OpDelete, values: map[string]any{"path": "anna.md"}})
	p.flush()
	want("a permission that is gone", "later.md public.md", "user:eve")

	if _, err := dial(t, url).Exec(context.Background(), `update rag.identity set synced_at = now() - interval '2 hours' where name like 'permissions:%'`); err != nil {
		t.Fatal(err)
	}
	want("stale permissions", "public.md", "user:eve")
	want("stale permissions", "denied.md public.md staff.md", "user:anna")
	if _, err := dial(t, url).Exec(context.Background(), `update rag.identity set synced_at = now() - interval '2 hours'`); err != nil {
		t.Fatal(err)
	}
	want("stale groups", "public.md", "user:anna")
	if _, err := s.Fetch(context.Background(), "docs.files", "staff.md", "", []string{"user:anna"}); !errors.Is(err, search.ErrNotFound) {
		t.Errorf("fetch with stale groups: %v", err)
	}
	if _, err := s.Fetch(context.Background(), "docs.files", "public.md", "", nil); err != nil {
		t.Error(err)
	}
}

func TestAnotherModelIsBuiltBesideAndSwitched(t *testing.T) {
	url := database(t)
	x := open(t, url)
	f := newFeed(t, x, filesSchema())
	f.write(put("a.md", long("alpha", 4), everybody))
	f.flush()
	x.Close()
	if got := ids(t, searcher(t, url), "alpha"); !strings.Contains(got, "a.md") {
		t.Fatalf("before: %q", got)
	}
	y := open(t, url, func(c *vector.Config) { c.Embedder = embed.NewHash(128) })
	f = newFeed(t, y, filesSchema())
	f.write(put("b.md", long("beta", 4), everybody))
	f.flush()
	for deadline := time.Now().Add(10 * time.Second); !y.Store().IsActive() && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if c := count(t, y); c.Vectors < c.Texts {
		t.Errorf("%+v", c)
	}
	var dims int
	if err := dial(t, url).QueryRow(context.Background(), `select dims from rag.spec where state = 'active'`).Scan(&dims); err != nil || dims != 128 {
		t.Errorf("the active space is %d wide: %v", dims, err)
	}
	if got := ids(t, searcher(t, url), "alpha beta"); !strings.Contains(got, "a.md") || !strings.Contains(got, "b.md") {
		t.Errorf("after: %q", got)
	}
}

func TestAgentsReadOnlyWhatTheirUserMay(t *testing.T) {
	url := database(t)
	x := open(t, url)
	f := newFeed(t, x, filesSchema())
	f.write(put("dir/a.md", "# Tides\n\nTides rise twice a day.", everybody), put("b.md", "Tides are secret.", `{"allow":["user:anna"]}`))
	f.flush()
	talk := func(as []string, lines ...string) []map[string]any {
		var out bytes.Buffer
		srv := &search.Server{Searcher: searcher(t, url), As: as, Version: "test"}
		if err := srv.Serve(context.Background(), strings.NewReader(strings.Join(lines, "\n")+"\n"), &out); err != nil {
			t.Fatal(err)
		}
		var replies []map[string]any
		for _, l := range strings.Split(strings.TrimSpace(out.String()), "\n") {
			var m map[string]any
			if err := json.Unmarshal([]byte(l), &m); err != nil {
				t.Fatalf("%s: %v", l, err)
			}
			replies = append(replies, m)
		}
		return replies
	}
	r := talk(nil, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26"}}`, `{"jsonrpc":"2.0","method":"notifications/initialized"}`,
		`{"jsonrpc":"2.0","id":2,"method":"tools/list"}`, `{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"search","arguments":{"query":"tides"}}}`,
		`{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"fetch","arguments":{"id":"docs.files/b.md"}}}`,
		`{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"fetch","arguments":{"id":"docs.files/dir/a.md"}}}`, `nonsense`, `{"jsonrpc":"2.0","id":6,"method":"none"}`)
	all := fmt.Sprint(r)
	if len(r) != 7 || !strings.Contains(all, "rise twice") || strings.Contains(all, "secret") || !strings.Contains(fmt.Sprint(r[3]), "no such document") {
		t.Errorf("%d replies: %s", len(r), all)
	}
	if r := talk([]string{"user:anna"}, `{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"fetch","arguments":{"id":"docs.files/b.md"}}}`); !strings.Contains(fmt.Sprint(r), "secret") {
		t.Errorf("anna: %v", r)
	}
	if _, err := search.Users("group:staff"); err == nil {
		t.Error("a group is a caller")
	}
}

// A text's lexemes are made by the sink, a question's by the SQL function: both find the same words in the same text.
func TestQuestionsAreTakenApartAsTextsAre(t *testing.T) {
	url := database(t)
	f := newFeed(t, open(t, url), filesSchema())
	texts := []string{
		"The valves are closing; the valve's 12.5e3 closings, v1.2.3-rc4, e.g. os.ReadFile and foo_bar@example.com/a?b=c#d",
		"größer Straßen, “naïve” — café… 漢字かな交じり文 Ελληνικά שלום \\ ' '' \\' :1,2 :*A & | ! <->",
		strings.Repeat("again ", 20_000) + strings.Repeat("x", 3000) + " \x7f\x01\u0000end",
		"a the of and", // nothing to look for
	}
	for i, text := range texts {
		if r := f.write(put(fmt.Sprintf("%d.txt", i), text, everybody)); len(r) > 0 {
			t.Fatal(r)
		}
	}
	f.flush()
	var texted, different int
	err := dial(t, url).QueryRow(context.Background(), `select count(*), count(*) filter (where tsvector_to_array(tsv) is distinct from
		coalesce((select array_agg(l order by l collate "C") from rag.lexemes(coalesce(whole, head || body)) l), '{}')) from rag.content`).Scan(&texted, &different)
	if err != nil || texted < len(texts) || different != 0 {
		t.Errorf("%d of %d texts differ: %v", different, texted, err)
	}
}
