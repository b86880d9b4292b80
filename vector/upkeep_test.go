package vector_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/vector"
	"github.com/sluice-data/sluice/vector/search"
	"github.com/sluice-data/sluice/vector/store"
)

// The index is built after the load, an unfinished one is built anew, and with it a user of few documents still
// finds all of them.
func TestTheIndexOfVectors(t *testing.T) {
	url := database(t)
	x := open(t, url, func(c *vector.Config) { c.Store.IndexFrom = 500 })
	f := newFeed(t, x, filesSchema())
	var rows []row
	for i := range 600 {
		acl := `{"allow":["user:many"]}`
		if i%60 == 0 {
			acl = `{"allow":["user:few"]}`
		}
		rows = append(rows, put(fmt.Sprintf("%03d.txt", i), fmt.Sprintf("note %d about subject %d and item %d", i, i%50, i%7), acl))
	}
	f.write(rows...)
	ctx := context.Background()
	m, err := x.Store().Maintainer(ctx)
	if err != nil || m == nil {
		t.Fatalf("no maintenance: %v", err)
	}
	conn := dial(t, url)
	if _, err := conn.Exec(ctx, `create index emb_1_hnsw on rag.emb_1 using hnsw (e halfvec_cosine_ops); update pg_index set indisvalid = false where indexrelid = 'rag.emb_1_hnsw'::regclass`); err != nil {
		t.Fatal(err)
	}
	if built, err := m.Index(ctx); err != nil || !built {
		t.Fatalf("built %v: %v", built, err)
	}
	if built, err := m.Index(ctx); err != nil || built {
		t.Fatalf("built again %v: %v", built, err)
	}
	if share, err := m.Recall(ctx); err != nil || share < 0.9 {
		t.Errorf("the index finds %.2f of the nearest: %v", share, err)
	}
	if rebuilt, err := m.Rebuild(ctx); err != nil || rebuilt {
		t.Errorf("nothing is gone, built anew %v: %v", rebuilt, err)
	}
	// Twice what is left comes and goes; a statement of its own tells the server's counters.
	for _, sql := range []string{`create index emb_1_hnsw_ccnew on rag.emb_1 (hash)`,
		`insert into rag.emb_1 select sha256(n::text::bytea), (select e from rag.emb_1 limit 1) from generate_series(1, 1200) n`,
		`delete from rag.emb_1 where hash not in (select hash from rag.content)`, `select pg_stat_force_next_flush()`} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	if rebuilt, err := m.Rebuild(ctx); err != nil || !rebuilt {
		t.Errorf("most is gone, built anew %v: %v", rebuilt, err)
	}
	if rebuilt, err := m.Rebuild(ctx); err != nil || rebuilt {
		t.Errorf("built anew once more %v: %v", rebuilt, err)
	}
	m.Release()
	// The planner shall take the index although sorting few rows were cheaper.
	if _, err := conn.Exec(ctx, `alter database `+conn.Config().Database+` set enable_sort = off`); err != nil {
		t.Fatal(err)
	}
	a, err := searcher(t, url).Search(ctx, search.Question{Text: "subject item", As: []string{"user:few"}, Results: 100})
	if err != nil {
		t.Fatal(err)
	}
	few := 0
	for _, h := range a.Hits {
		if n, err := strconv.Atoi(h.ID[:3]); err == nil && n%60 == 0 {
			few++
		}
	}
	if few != 10 {
		t.Errorf("the user finds %d of 10 documents of their own", few)
	}
}

// Texts that no document has go, those that are in use or young stay.
func TestUnusedTextsAreCollected(t *testing.T) {
	url := database(t)
	x := open(t, url)
	f := newFeed(t, x, filesSchema())
	f.write(put("a.txt", "first text", everybody), put("b.txt", "second text", everybody), put("c.txt", "third text", everybody))
	f.write(gone("a.txt"), gone("b.txt"))
	f.flush()
	ctx := context.Background()
	conn := dial(t, url)
	if _, err := conn.Exec(ctx, `update rag.content set created_at = now() - interval '2 hours' where body <> 'second text'`); err != nil {
		t.Fatal(err)
	}
	m, err := x.Store().Maintainer(ctx)
	for deadline := time.Now().Add(10 * time.Second); err == nil && m == nil && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
		m, err = x.Store().Maintainer(ctx)
	}
	if err != nil || m == nil {
		t.Fatalf("no maintenance: %v", err)
	}
	defer m.Release()
	if n, err := m.Collect(ctx); err != nil || n != 1 {
		t.Errorf("%d collected: %v", n, err)
	}
	f.write(put("again.txt", "second text", everybody))
	if c := count(t, x); c.Texts != 2 || c.Vectors != 2 || c.Documents != 2 {
		t.Errorf("%+v", c)
	}
}

// Other programs read the documents in their own shapes, and no more of them than their principals may see.
func TestViewsOfOtherPrograms(t *testing.T) {
	url := database(t)
	x := open(t, url)
	f := newFeed(t, x, filesSchema())
	f.write(put("a.txt", "a public text", everybody), put("b.txt", "a text of anna", `{"allow":["user:anna"]}`))
	f.flush()
	ctx := context.Background()
	if err := x.Views(ctx, store.Views{Airbyte: "airbyte", Streams: []record.StreamName{{Source: "docs", Name: "files"}}}); err != nil {
		t.Fatal(err)
	}
	conn := dial(t, url)
	read := func(sql string) (n int) {
		t.Helper()
		if err := conn.QueryRow(ctx, sql).Scan(&n); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return n
	}
	queries := []string{
		`select count(*) from airbyte.files where document_id like 'Stream_files_Key_%' and metadata->>'_ab_stream' = 'files' and document_content like 'a %' and vector_dims(embedding) = 64`,
		`select count(*) from rag.langchain_pg_embedding e join rag.langchain_pg_collection c on c.uuid = e.collection_id where c.name = 'docs.files' and e.cmetadata->>'source' like '%.txt'`,
		`select count(*) from rag.data_documents where metadata_->>'source' like '%.txt' and text <> '' and embedding is not null`,
	}
	for _, q := range queries {
		if n := read(q); n != 1 {
			t.Errorf("everybody sees %d: %s", n, q)
		}
	}
	if _, err := conn.Exec(ctx, `set sluice.principals = 'user:anna'`); err != nil {
		t.Fatal(err)
	}
	for _, q := range queries {
		if n := read(q); n != 2 {
			t.Errorf("anna sees %d: %s", n, q)
		}
	}
}
