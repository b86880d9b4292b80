package vector_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/vector"
	"github.com/sluice-data/sluice/vector/embed"
	"github.com/sluice-data/sluice/vector/embedtest"
	"github.com/sluice-data/sluice/vector/store"
)

const everybody = `{"allow":["public"]}`

func mock(t testing.TB, o embedtest.Options) (*embedtest.Server, func(*vector.Config)) {
	t.Helper()
	if o.Dims == 0 {
		o.Dims = 64
	}
	s := embedtest.Start(o)
	t.Cleanup(s.Close)
	e, err := embed.Open(embed.Config{Provider: "openai", URL: s.URL + "/v1", Model: "m", Dims: o.Dims})
	if err != nil {
		t.Fatal(err)
	}
	return s, func(c *vector.Config) { c.Embedder = e }
}

func count(t testing.TB, x *vector.Index) store.Counts {
	t.Helper()
	c, err := x.Store().Count(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if c.Orphans != 0 {
		t.Fatalf("%d chunks have no vector", c.Orphans)
	}
	return c
}

func TestOnlyWhatIsNewIsEmbedded(t *testing.T) {
	s, with := mock(t, embedtest.Options{})
	x := open(t, database(t), with)
	f := newFeed(t, x, filesSchema())
	inputs := func() int { return s.Stats().Inputs }

	f.write(put("a.md", long("alpha", 20), everybody), put("b.md", long("beta", 20), everybody), put("copy.md", long("alpha", 20), everybody))
	f.flush()
	first, c := inputs(), count(t, x)
	if c.Documents != 3 || c.Chunks < 12 || first != int(c.Vectors) || first >= int(c.Chunks) {
		t.Fatalf("%d inputs for %+v", first, c)
	}

	f.write(put("a.md", long("alpha", 20), everybody)) // nothing changed
	f.write(put("a.md", long("alpha", 20), `{"allow":["user:u"]}`))
	f.write(row{op: record.OpUpdate, values: map[string]any{"path": "a.md", "acl": everybody}})
	f.write(gone("b.md"), put("moved.md", long("beta", 20), everybody)) // renamed
	if n := inputs(); n != first {
		t.Errorf("%d texts were embedded again", n-first)
	}
	f.write(put("a.md", strings.Replace(long("alpha", 20), "Sentence 3 of part 2", "Another sentence of part 2", 1), everybody))
	if n := inputs() - first; n < 1 || n > 3 {
		t.Errorf("one changed sentence had %d texts embedded", n)
	}
	f.write(gone("a.md"), gone("moved.md"), gone("copy.md"))
	m := f.flush()
	if c := count(t, x); c.Documents != 0 || c.Chunks != 0 {
		t.Errorf("after all are deleted: %+v", c)
	}
	if m.Counts.Read != 12 || m.Counts.Delivered != 12 {
		t.Errorf("counts are %+v", m.Counts)
	}
}

func TestTheNewestOfABatchCounts(t *testing.T) {
	x := open(t, database(t))
	f := newFeed(t, x, filesSchema())
	f.write(put("a.md", "one", everybody), put("a.md", "two", everybody), gone("b.md"), put("b.md", "bee", everybody),
		row{op: record.OpUpdate, values: map[string]any{"path": "b.md", "acl": `{"allow":["user:u"]}`}}, put("c.md", "sea", everybody), gone("c.md"))
	m := f.flush()
	if c := count(t, x); c.Documents != 2 || c.Chunks != 2 {
		t.Errorf("%+v", c)
	}
	if m.Counts.Superseded != 4 || m.Counts.Delivered != 3 {
		t.Errorf("counts are %+v", m.Counts)
	}
}

func TestWhatCannotBeReadIsRejectedAndTheOldTextStays(t *testing.T) {
	x := open(t, database(t))
	f := newFeed(t, x, filesSchema())
	f.write(put("a.txt", "a text about tides", everybody))
	rejects := f.write(put("a.txt", "\x00\x01\x02\x7fELF\x00\x00", everybody), put("new.bin", "\x00\x03\x02\x01\xff\x00\x00", everybody), put("fine.txt", "fine", everybody))
	f.flush()
	if len(rejects) != 2 || rejects[0].Row != 0 || rejects[1].Row != 1 || rejects[0].Code == "" {
		t.Fatalf("rejects are %+v", rejects)
	}
	if c := count(t, x); c.Documents != 2 || c.Chunks != 2 {
		t.Errorf("%+v", c)
	}
	rejects = f.write(row{op: record.OpUpdate, values: map[string]any{"path": "x.txt", "body": nil, "object": "file:x.txt", "acl": nil}})
	if len(rejects) != 1 || rejects[0].Code != "no_store" {
		t.Errorf("a claim that nobody can read: %+v", rejects)
	}
}

func TestARefusedTextRejectsItsDocumentOnly(t *testing.T) {
	_, with := mock(t, embedtest.Options{Poison: "forbidden"})
	x := open(t, database(t), with)
	f := newFeed(t, x, filesSchema())
	rejects := f.write(put("a.txt", "fine", everybody), put("b.txt", "a forbidden word", everybody), put("c.txt", "fine too", everybody))
	f.flush()
	if len(rejects) != 1 || rejects[0].Row != 1 || rejects[0].Code != "embed_refused" || strings.Contains(rejects[0].Reason, "forbidden") {
		t.Errorf("rejects are %+v", rejects)
	}
	if c := count(t, x); c.Documents != 2 {
		t.Errorf("%+v", c)
	}
}

func TestAnotherWriterFencesTheMarks(t *testing.T) {
	url := database(t)
	old, young := newFeed(t, open(t, url), filesSchema()), newFeed(t, open(t, url), filesSchema())
	young.write(put("a.md", "newer", everybody))
	young.next, young.counts.Read = 2, 1
	young.flush()
	if _, err := old.sink.Write(context.Background(), batch(old.schema, 0, -1, put("a.md", "older", everybody))); err != nil {
		t.Fatal(err)
	}
	_, err := old.sink.Flush(context.Background(), map[int32]record.Mark{0: {Next: 1, TopicID: "id"}})
	if !errors.Is(err, record.ErrFenced) {
		t.Errorf("the older writer: %v", err)
	}
	var body string
	if err := dial(t, url).QueryRow(context.Background(), `select body from rag.content join rag.chunk using (hash)`).Scan(&body); err != nil || body != "newer" {
		t.Errorf("the document says %q, %v", body, err)
	}
}

func TestABackfillLeavesNoGhosts(t *testing.T) {
	x := open(t, database(t))
	f := newFeed(t, x, filesSchema())
	f.write(put("a.md", "first", everybody), put("b.md", "second", everybody))
	at := func(epoch uint64, op record.Op, r row) row {
		r.op, r.pos = op, record.Position{Epoch: epoch, LSN: 50}
		return r
	}
	f.write(at(2, record.OpBackfillBegin, row{}))
	f.write(at(2, record.OpRead, put("a.md", "first", everybody)), at(2, record.OpRead, put("c.md", "third", everybody)))
	f.write(at(2, record.OpBackfillEnd, row{}))
	f.flush()
	if c := count(t, x); c.Documents != 2 {
		t.Errorf("after the backfill: %+v", c)
	}
	f.write(row{op: record.OpTruncate, pos: record.Position{Epoch: 2, LSN: 99, Seq: 2}})
	f.flush()
	if c := count(t, x); c.Documents != 0 || c.Chunks != 0 {
		t.Errorf("after the truncate: %+v", c)
	}
}

func TestRecordsAreDocuments(t *testing.T) {
	url := database(t)
	x := open(t, url)
	schema := (&record.Schema{Stream: record.StreamName{Source: "shop", Namespace: "public", Name: "tickets"}, Fields: []record.Field{
		{Name: "id", Kind: record.Int64, Key: 1}, {Name: "subject", Kind: record.Text, Nullable: true}, {Name: "text", Kind: record.Text, Nullable: true},
		{Name: "status", Kind: record.Text, Nullable: true}}}).Seal()
	f := newFeed(t, x, schema, func(s *vector.Stream) {
		s.Holds, s.ACL = vector.Records, []string{"public"}
		s.Fields = vector.Fields{Title: "subject", Text: []string{"subject", "text"}, Metadata: []string{"status"}}
	})
	f.write(row{op: record.OpInsert, values: map[string]any{"id": int64(7), "subject": "Broken pump", "text": "it leaks oil", "status": "open"}})
	f.write(row{op: record.OpUpdate, values: map[string]any{"id": int64(7), "subject": "Broken pump", "status": "closed"}}) // text was not sent
	f.flush()
	var id, title, status, body string
	err := dial(t, url).QueryRow(context.Background(), `select d.id, title, meta->>'status', body from rag.doc d join rag.chunk on doc_pk = pk join rag.content using (hash)`).Scan(&id, &title, &status, &body)
	if err != nil || id != "7" || title != "Broken pump" || status != "closed" || !strings.Contains(body, "leaks oil") {
		t.Errorf("%s %s %s %q: %v", id, title, status, body, err)
	}
	if r := f.write(row{op: record.OpUpdate, values: map[string]any{"id": int64(8), "subject": "x", "status": "s"}}); len(r) != 1 || r[0].Code != "unsent_field" {
		t.Errorf("a row without a base: %+v", r)
	}
	f.write(row{op: record.OpDelete, values: map[string]any{"id": int64(7)}})
	f.flush()
	if c := count(t, x); c.Documents != 0 {
		t.Errorf("after the delete: %+v", c)
	}
}
