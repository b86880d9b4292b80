package quality_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-data/sluice/internal/pgserver"
	"github.com/sluice-data/sluice/vector/chunk"
	"github.com/sluice-data/sluice/vector/embed"
	"github.com/sluice-data/sluice/vector/parse"
	"github.com/sluice-data/sluice/vector/search"
	"github.com/sluice-data/sluice/vector/store"
)

// server starts a PostgreSQL with pgvector and returns its address.
func server(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("SLUICE_PG_BIN")
	if bin == "" {
		t.Fatal("no PostgreSQL with pgvector: SLUICE_PG_BIN=$(deploy/dev/postgres.sh) go test ./vector/quality")
	}
	dir, err := os.MkdirTemp("", "sluice-quality")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // the server runs as somebody else
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	srv, err := pgserver.Start(ctx, bin, filepath.Join(dir, "pg"), "fsync=off", "shared_buffers=256MB")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Stop() })
	return srv.URL
}

// stored is pages, cut in one way, in a schema of their own, and the question to it.
type stored struct {
	chunks   int
	searcher *search.Searcher
}

// load stores pages as the sink does: with the words counted and a vector for each text.
func load(t *testing.T, url, schema string, pages []*parse.Document, w way) stored {
	t.Helper()
	ctx, embedder := context.Background(), embed.NewHash(0)
	s, err := store.Open(ctx, store.Config{URL: url, Schema: schema, Spec: embedder.Spec()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	client := embed.NewClient(embedder)
	var docs []*store.Document
	out := stored{}
	for i, p := range pages {
		d := &store.Document{Op: store.Replace, Stream: "pages", ID: fmt.Sprint(i), Version: store.Version{1}, ACL: &store.ACL{Allow: []string{store.Public}}}
		var texts []string
		for _, c := range w.cut(p) {
			// Told apart by their page: a hit names the page that it was asked of.
			d.Chunks = append(d.Chunks, store.Chunk{Hash: store.ContentHash(d.ID, "", c.Text, c.EmbedText), Body: c.Text, Whole: c.EmbedText, Tokens: c.Tokens})
			texts = append(texts, c.EmbedText)
		}
		vs, err := client.Documents(ctx, texts)
		if err != nil {
			t.Fatal(err)
		}
		for k := range d.Chunks {
			d.Chunks[k].Vector = vs.Of[k]
		}
		out.chunks += len(d.Chunks)
		docs = append(docs, d)
	}
	done, err := s.Write(ctx, docs)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range done {
		if o != store.Written {
			t.Fatalf("a page is not stored: %d", o)
		}
	}
	m, err := s.Maintainer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Release()
	if err := m.CountWords(ctx); err != nil {
		t.Fatal(err)
	}
	if out.searcher, err = search.Open(ctx, search.Config{URL: url, Schema: schema, Embedder: embedder}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(out.searcher.Close)
	return out
}

// ask measures the product's own search: the SQL function, with its own ranks and weights.
func (s stored) ask(t *testing.T, questions []question) result {
	t.Helper()
	var r result
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(4)
	for _, q := range questions {
		g.Go(func() error {
			a, err := s.searcher.Search(context.Background(), search.Question{Text: q.text, Results: 100})
			if err != nil {
				return err
			}
			if a.Note != "" {
				return fmt.Errorf("search: %s", a.Note)
			}
			passage, found := grams(q.passage), make([]hit, len(a.Hits))
			for i, h := range a.Hits {
				found[i].page = h.ID
				found[i].holds = i < 10 && h.ID == fmt.Sprint(q.page) && holds(grams(h.Text), passage)
			}
			mu.Lock()
			defer mu.Unlock()
			r.add(fmt.Sprint(q.page), found)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	r.divide(len(questions))
	return r
}

// hit is a chunk that was found.
type hit struct {
	page  string
	holds bool // the passage that was asked for
}

// TestTheProductsSearchFinds holds the SQL function with our chunks against the same function with fixed windows of
// the same size, in the same run. SLUICE_QUALITY=full asks all questions and prints a table of sizes and splitters.
func TestTheProductsSearchFinds(t *testing.T) {
	full, step := os.Getenv("SLUICE_QUALITY") == "full", 4
	if full {
		step = 1
	}
	pages, questions := material(t, packages, step)
	url := server(t)
	ways := []way{window(512), split("structure 512", chunk.Config{})}
	if full {
		for _, size := range []int{256, 1024} {
			ways = append(ways, window(size), split(fmt.Sprint("structure ", size), chunk.Config{MaxTokens: size}))
		}
		ways = append(ways, split("structure 512, overlap 64", chunk.Config{OverlapTokens: 64}),
			split("structure 512, no path", chunk.Config{Template: "{text}"}),
			split("separator 512", chunk.Config{Splitter: chunk.Separator, Encoding: "cl100k_base"}),
			split("markdown 512", chunk.Config{Splitter: chunk.Markdown, SplitLevel: 3, Encoding: "cl100k_base"}))
	}
	t.Logf("%d pages, %d questions", len(pages), len(questions))
	found := map[string]result{}
	for i, w := range ways {
		s := load(t, url, fmt.Sprint("way", i), pages, w)
		r := s.ask(t, questions)
		found[w.name] = r
		t.Logf("| %s (%d chunks) | %s |", w.name, s.chunks, r)
	}
	base, ours := found["fixed 512"], found["structure 512"]
	if ours.docR5 < 0.80 || ours.passR5 < 0.65 {
		t.Errorf("page R@5 %.3f, passage R@5 %.3f: want 0.80, 0.65", ours.docR5, ours.passR5)
	}
	if ours.docR5 <= base.docR5 || ours.passR5 <= base.passR5 {
		t.Errorf("structure: page %.3f, passage %.3f; fixed windows: %.3f, %.3f", ours.docR5, ours.passR5, base.docR5, base.passR5)
	}
}
