package vector_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/internal/pgserver"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/vector"
	"github.com/sluice-data/sluice/vector/embed"
	"github.com/sluice-data/sluice/vector/store"
)

var shared struct {
	once sync.Once
	srv  *pgserver.Server
	dir  string
	err  error
	n    atomic.Int32
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "crash-child" {
		crashChild(os.Args[2:])
		return
	}
	code := m.Run()
	if shared.srv != nil {
		shared.srv.Stop()
	}
	if shared.dir != "" {
		os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// database makes an empty database and returns its URL.
func database(t testing.TB) string {
	t.Helper()
	shared.once.Do(func() {
		bin := os.Getenv("SLUICE_PG_BIN")
		if bin == "" {
			shared.err = errors.New("no PostgreSQL with pgvector: SLUICE_PG_BIN=$(deploy/dev/postgres.sh) go test ./vector")
			return
		}
		if shared.dir, shared.err = os.MkdirTemp("", "sluice-vector"); shared.err != nil {
			return
		}
		if shared.err = os.Chmod(shared.dir, 0o755); shared.err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		shared.srv, shared.err = pgserver.Start(ctx, bin, filepath.Join(shared.dir, "pg"), "fsync=off", "max_connections=200")
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	conn := dial(t, shared.srv.URL)
	defer conn.Close(context.Background())
	name := fmt.Sprintf("v%d", shared.n.Add(1))
	if _, err := conn.Exec(context.Background(), "create database "+name); err != nil {
		t.Fatal(err)
	}
	return strings.Replace(shared.srv.URL, "/postgres?", "/"+name+"?", 1)
}

func dial(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func open(t testing.TB, url string, change ...func(*vector.Config)) *vector.Index {
	t.Helper()
	cfg := vector.Config{Owner: "p.docs", Store: store.Config{URL: url}, Embedder: embed.NewHash(64), Maintain: time.Hour}
	for _, f := range change {
		f(&cfg)
	}
	x, err := vector.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// Schemas as sources of files publish them.
func filesSchema() *record.Schema {
	text := func(name string) record.Field { return record.Field{Name: name, Kind: record.Text, Nullable: true} }
	return (&record.Schema{Stream: record.StreamName{Source: "docs", Name: "files"}, Fields: []record.Field{
		{Name: "path", Kind: record.Text, Key: 1}, text("etag"), {Name: "size", Kind: record.Int64, Nullable: true},
		{Name: "modified", Kind: record.TimestampTZ, Nullable: true}, text("mime"), {Name: "sha256", Kind: record.Bytes, Nullable: true},
		text("title"), text("uri"), {Name: "body", Kind: record.Bytes, Nullable: true}, text("object"), text("object_etag"),
		{Name: "metadata", Kind: record.JSON, Nullable: true}, {Name: "acl", Kind: record.JSON, Nullable: true}}}).Seal()
}

func pairSchema(name, key, value string) *record.Schema {
	return (&record.Schema{Stream: record.StreamName{Source: "docs", Name: name}, Fields: []record.Field{
		{Name: key, Kind: record.Text, Key: 1}, {Name: value, Kind: record.JSON, Nullable: true}}}).Seal()
}

// row is one record of a test; an absent value is not sent, nil is null.
type row struct {
	op     record.Op
	pos    record.Position
	values map[string]any
}

func put(path, body, acl string) row {
	sum := sha256.Sum256([]byte(body))
	v := map[string]any{"path": path, "body": []byte(body), "sha256": sum[:], "object": nil, "acl": acl}
	if acl == "" {
		v["acl"] = nil
	}
	return row{op: record.OpUpdate, values: v}
}

func gone(path string) row { return row{op: record.OpDelete, values: map[string]any{"path": path}} }

func batch(s *record.Schema, part int32, offset int64, rows ...row) *record.Batch {
	if rows[0].op.Control() {
		b := record.NewControl(s, rows[0].op, rows[0].pos, 0)
		b.Partition, b.Offsets = record.TopicPartition{Topic: "t", Partition: part}, []int64{offset}
		return b
	}
	b := record.NewBatch(s, nil)
	b.Partition = record.TopicPartition{Topic: "t", Partition: part}
	for i, r := range rows {
		if r.pos.IsZero() {
			r.pos = record.Position{Epoch: 1, LSN: uint64(offset) + uint64(i) + 1, Seq: 2}
		}
		b.Ops, b.Pos, b.Time, b.Offsets = append(b.Ops, r.op), append(b.Pos, r.pos), append(b.Time, 1), append(b.Offsets, offset+int64(i))
		for k := range s.Fields {
			f, v := &s.Fields[k], b.After[k]
			switch x := r.values[f.Name].(type) {
			case nil:
				if _, sent := r.values[f.Name]; sent {
					v.AppendMissing(record.Null, f.Kind.Width())
				} else {
					v.AppendMissing(record.Unsent, f.Kind.Width())
				}
			case string:
				v.AppendData([]byte(x))
			case []byte:
				v.AppendData(x)
			case int64:
				v.AppendInt64(x)
			}
		}
	}
	return b
}

// feed plays the consumer of one partition: it writes rows and flushes, from the sink's own mark on.
type feed struct {
	t      testing.TB
	sink   *vector.Sink
	schema *record.Schema
	part   int32
	next   int64
	counts record.Counts
}

func newFeed(t testing.TB, x *vector.Index, schema *record.Schema, change ...func(*vector.Stream)) *feed {
	t.Helper()
	st := vector.Stream{Name: schema.Stream, Topic: schema.Stream.String()}
	for _, f := range change {
		f(&st)
	}
	sink, err := x.Sink(st)
	if err != nil {
		t.Fatal(err)
	}
	f := &feed{t: t, sink: sink, schema: schema}
	marks, err := sink.Load(context.Background(), []int32{0})
	if err != nil {
		t.Fatal(err)
	}
	f.next, f.counts = marks[0].Next, marks[0].Counts
	t.Cleanup(func() { sink.Close() })
	return f
}

func (f *feed) write(rows ...row) []record.Reject {
	f.t.Helper()
	rejects, err := f.sink.Write(context.Background(), batch(f.schema, f.part, f.next, rows...))
	if err != nil {
		f.t.Fatal(err)
	}
	f.next += int64(len(rows))
	if !rows[0].op.Control() {
		f.counts.Read += int64(len(rows))
		f.counts.Rejected += int64(len(rejects))
	}
	return rejects
}

func (f *feed) flush() record.Mark {
	f.t.Helper()
	stored, err := f.sink.Flush(context.Background(), map[int32]record.Mark{f.part: {Next: f.next, TopicID: "id", Counts: f.counts}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.counts = stored[f.part].Counts
	if !f.counts.Balanced() {
		f.t.Fatalf("records are unaccounted for: %+v", f.counts)
	}
	return stored[f.part]
}

// picture is what the tables hold, without what differs between two equal runs.
func picture(t testing.TB, url string) string {
	t.Helper()
	conn := dial(t, url)
	defer conn.Close(context.Background())
	rows, err := conn.Query(context.Background(), `select d.stream, d.id, d.state, d.title, d.allow::text, d.deny::text, d.problem, encode(d.content_sha, 'hex'), encode(d.version, 'hex'),
		coalesce((select string_agg(c.ord || ' ' || encode(c.hash, 'hex') || ' ' || c.page || ' ' || c.start_at || ' ' || c.end_at || ' ' || c.heading::text || ' ' || x.body || ' ' || e.e::text, E'\n' order by c.ord)
			from rag.chunk c join rag.content x on x.hash = c.hash join rag.emb_1 e on e.hash = c.hash where c.doc_pk = d.pk), '')
		from rag.doc d order by 1, 2`)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprint(values...))
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// long makes a document of several chunks.
func long(seed string, paragraphs int) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# About %s\n\n", seed)
	for i := range paragraphs {
		fmt.Fprintf(&b, "## Part %d of %s\n\n", i, seed)
		for k := range 12 {
			fmt.Fprintf(&b, "Sentence %d of part %d tells something about %s and number %d. ", k, i, seed, i*k)
		}
		b.WriteString("\n\n")
	}
	return b.String()
}
