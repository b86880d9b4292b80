package vector_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pgvector/pgvector-go"

	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/vector"
	"github.com/sluice-data/sluice/vector/chunk"
	"github.com/sluice-data/sluice/vector/embed"
	"github.com/sluice-data/sluice/vector/embedtest"
	"github.com/sluice-data/sluice/vector/parse"
)

// manual is a document of about eleven chunks of 250 tokens.
func manual(n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Manual %d\n\n", n)
	for part := range 6 {
		fmt.Fprintf(&b, "## Chapter %d of manual %d\n\n", part, n)
		for s := range 22 {
			fmt.Fprintf(&b, "Step %d of chapter %d in manual %d explains the valve %d and how to close it. ", s, part, n, n*31+part*7+s)
		}
		b.WriteString("\n\n")
	}
	return b.String()
}

// recordByRecord is how Airbyte's destination does it: for each record one call of the model and its rows, as
// text, one by one into a temporary table, each over a connection of its own; then the document's old rows are
// deleted and the new ones copied. With one connection kept open it is what careful people write by hand.
func recordByRecord(b testing.TB, url string, conn *pgx.Conn, ownConnections bool, client *embed.Client, id, text string, cut chunk.Config) int {
	ctx := context.Background()
	exec := func(sql string, args ...any) {
		b.Helper()
		c := conn
		if ownConnections {
			var err error
			if c, err = pgx.Connect(ctx, url); err != nil {
				b.Fatal(err)
			}
			defer c.Close(ctx)
		}
		if _, err := c.Exec(ctx, sql, args...); err != nil {
			b.Fatal(err)
		}
	}
	doc, err := parse.Parse(ctx, parse.Input{Name: id, Size: int64(len(text)), Body: bytes.NewReader([]byte(text))}, parse.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	chunks := chunk.Split(doc, cut)
	texts := make([]string, len(chunks))
	for i, c := range chunks {
		texts[i] = c.EmbedText
	}
	vs, err := client.Documents(ctx, texts)
	if err != nil {
		b.Fatal(err)
	}
	for i, c := range chunks {
		exec(`insert into incoming values ($1, $2, '{}', $3, $4::text::vector)`, id, fmt.Sprint(i), c.Text, pgvector.NewVector(vs.Of[i]).String())
	}
	exec(`with gone as (delete from incoming returning *), old as (delete from plain where document_id in (select $1)) insert into plain select * from gone`, id)
	return len(chunks)
}

// The same documents, the same model of 20 ms a call: a second run embeds nothing, one with a document in a
// hundred changed what changed. With SLUICE_VECTOR_BENCH=1 the first load must be ten times as fast as record
// by record.
func TestDocumentsAgainstRecordByRecord(t *testing.T) {
	ours, theirs, timed := 100, 3, os.Getenv("SLUICE_VECTOR_BENCH") != ""
	if timed {
		ours, theirs = 3000, 100
	}
	cut := chunk.Config{MaxTokens: 400, OverlapTokens: -1}
	server := embedtest.Start(embedtest.Options{Dims: 1536, Delay: 20 * time.Millisecond})
	t.Cleanup(server.Close)
	model, err := embed.Open(embed.Config{Provider: "openai", URL: server.URL + "/v1", Model: "m", Dims: 1536})
	if err != nil {
		t.Fatal(err)
	}
	url := database(t)
	x := open(t, url, func(c *vector.Config) { c.Embedder, c.Chunk, c.Store.IndexFrom = model, cut, -1 })
	conn := dial(t, url)
	if _, err := conn.Exec(context.Background(), `create table plain (document_id text, chunk_id text, metadata json, document_content text, embedding vector(1536)); create table incoming (like plain)`); err != nil {
		t.Fatal(err)
	}
	client := embed.NewClient(model)
	chunks := 0
	slow := func(ownConnections bool) float64 {
		began := time.Now()
		chunks = 0
		for i := range theirs {
			chunks += recordByRecord(t, url, conn, ownConnections, client, fmt.Sprintf("%d.md", i), manual(i), cut)
		}
		return float64(theirs) / time.Since(began).Seconds()
	}
	plain, kept := slow(true), slow(false)

	load := func(change func(int) string) (rate float64, inputs, calls int) {
		before := server.Stats()
		f := newFeed(t, x, filesSchema())
		began := time.Now()
		var rows []row
		for i := range ours {
			rows = append(rows, put(fmt.Sprintf("%d.md", i), change(i), everybody))
			if len(rows) == 256 || i == ours-1 {
				f.write(rows...)
				rows = nil
			}
		}
		f.flush()
		after := server.Stats()
		return float64(ours) / time.Since(began).Seconds(), after.Inputs - before.Inputs, after.Calls - before.Calls
	}
	first, inputs, calls := load(func(i int) string { return "New. " + manual(i) })
	again, none, _ := load(func(i int) string { return "New. " + manual(i) })
	changed, few, fewCalls := load(func(i int) string {
		if i%100 == 0 {
			return "New. " + strings.Replace(manual(i), "Step 3 of chapter 5", "Step three of chapter 5", 1)
		}
		return "New. " + manual(i)
	})
	t.Logf("record by record %.1f documents/s (%d chunks each), %.1f with one connection", plain, chunks/theirs, kept)
	t.Logf("first load       %.1f documents/s = %.1f times and %.1f times, %d texts in %d calls", first, first/plain, first/kept, inputs, calls)
	t.Logf("nothing changed  %.1f documents/s, %d texts", again, none)
	t.Logf("1 %% changed      %.1f documents/s, %d texts in %d calls for %d documents", changed, few, fewCalls, (ours+99)/100)
	if timed && first < 10*plain {
		t.Errorf("%.1f documents/s is less than ten times %.1f", first, plain)
	}
	if none != 0 || few < (ours+99)/100 || few > 3*((ours+99)/100) {
		t.Errorf("%d texts without a change, %d for one document in a hundred", none, few)
	}
}

// A change of permissions alone: no text is read or embedded, one row is written.
func BenchmarkPermissionChange(b *testing.B) {
	x := open(b, database(b))
	f := newFeed(b, x, filesSchema())
	f.write(put("a.md", manual(1), everybody))
	f.flush()
	for i := 0; b.Loop(); i++ {
		rows := make([]row, 100)
		for k := range rows {
			rows[k] = row{op: record.OpUpdate, values: map[string]any{"path": fmt.Sprintf("%d.md", k), "acl": `{"allow":["user:a"]}`}}
		}
		f.write(rows...)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/100, "µs/document")
}
