package lake

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go/catalog"
	"github.com/sluice-data/sluice/objects"
	"github.com/sluice-data/sluice/objects/gateway"
	"github.com/sluice-data/sluice/record"
)

// serveEnv makes the test binary be the gateway of the folder it names: the
// gateway changes its process's working directory, so it gets its own.
const serveEnv = "LAKE_TEST_GATEWAY"

var endpoint string

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveEnv); dir != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := gateway.Run(ctx, gateway.Config{Dir: dir, AccessKey: "key", SecretKey: "secret",
			Ready: func(addr string) { fmt.Println(addr) }}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(runWithGateway(m))
}

func runWithGateway(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lake-gateway")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), serveEnv+"="+dir), os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		panic(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // its folder goes with it
		_ = cmd.Wait()
	}()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		panic(err)
	}
	endpoint = "http://" + strings.TrimSpace(addr)
	// Every check makes and reads a table: a few a run, more with -rapid.checks.
	if !slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-rapid.checks") }) {
		if err := flag.Set("rapid.checks", "12"); err != nil {
			panic(err)
		}
	}
	return m.Run()
}

const testTopic = "shop.shop-db.public.orders"

// world is one warehouse with its catalog; processes are lakes on it.
type world struct {
	t      testing.TB
	dir    string
	bucket string
	n      int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), bucket: fmt.Sprintf("world-%d", worlds())}
	l := w.open(nil)
	if err := l.EnsureBucket(context.Background()); err != nil {
		t.Fatal(err)
	}
	return w
}

var worldCount int

func worlds() int { worldCount++; return worldCount }

// open starts another process on the world, with its own local state.
func (w *world) open(edit func(*Config)) *Lake {
	w.t.Helper()
	w.n++
	c := Config{Pipeline: "shop", Owner: "lake", Warehouse: "s3://" + w.bucket + "/wh", Dir: filepath.Join(w.dir, fmt.Sprint("local", w.n)),
		Catalog: CatalogConfig{SQL: "sqlite:" + filepath.Join(w.dir, "catalog.db")},
		S3:      objects.Config{Endpoint: endpoint, Region: "us-east-1", AccessKey: "key", SecretKey: "secret", PathStyle: true},
		Logger:  slog.New(slog.DiscardHandler)}
	if testing.Verbose() {
		c.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if edit != nil {
		edit(&c)
	}
	l, err := Open(context.Background(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	return l
}

func testSchema(fields ...record.Field) *record.Schema {
	if fields == nil {
		fields = []record.Field{
			{Name: "id", Kind: record.Int32, Key: 1},
			{Name: "name", Kind: record.Text, Nullable: true},
			{Name: "n", Kind: record.Int64, Nullable: true},
		}
	}
	return (&record.Schema{Stream: record.StreamName{Source: "shop-db", Namespace: "public", Name: "orders"}, Fields: fields}).Seal()
}

// row is one change; a missing value is null, unsent is not sent.
type row struct {
	op     record.Op
	pos    record.Position
	values []any
}

type unsentCell struct{}

var unsent unsentCell

func appendValue(t testing.TB, v *record.Vector, f *record.Field, x any) {
	t.Helper()
	switch x := x.(type) {
	case nil:
		v.AppendMissing(record.Null, f.Kind.Width())
	case unsentCell:
		v.AppendMissing(record.Unsent, f.Kind.Width())
	case int:
		switch f.Kind {
		case record.Int16:
			v.AppendInt16(int16(x))
		case record.Int32, record.Date:
			v.AppendInt32(int32(x))
		case record.Decimal:
			hi := int64(0)
			if x < 0 {
				hi = -1
			}
			v.AppendDecimal(hi, uint64(x))
		default:
			v.AppendInt64(int64(x))
		}
	case float64:
		if f.Kind == record.Float32 {
			v.AppendFloat32(float32(x))
		} else {
			v.AppendFloat64(x)
		}
	case bool:
		v.AppendBool(x)
	case string:
		v.AppendData([]byte(x))
	case []byte:
		if f.Kind == record.UUID {
			v.AppendFixed(x)
		} else {
			v.AppendData(x)
		}
	case []any:
		for _, e := range x {
			appendValue(t, v.Child, f.Elem, e)
		}
		v.AppendList()
	default:
		t.Fatalf("no %T in a test row", x)
	}
}

func batchOf(t testing.TB, s *record.Schema, partition int32, offset int64, rows ...row) *record.Batch {
	t.Helper()
	b := record.NewBatch(s, nil)
	b.Partition = record.TopicPartition{Topic: testTopic, Partition: partition}
	for i, r := range rows {
		b.Ops, b.Pos, b.Time = append(b.Ops, r.op), append(b.Pos, r.pos), append(b.Time, int64(1_700_000_000_000_000+i))
		b.Offsets = append(b.Offsets, offset+int64(i))
		for f := range s.Fields {
			var x any
			if f < len(r.values) {
				x = r.values[f]
			} else if r.op == record.OpDelete {
				x = unsent
			}
			appendValue(t, b.After[f], &s.Fields[f], x)
		}
	}
	return b
}

func controlOf(s *record.Schema, op record.Op, partition int32, offset int64, pos record.Position) *record.Batch {
	b := record.NewControl(s, op, pos, 1_700_000_000_000_000)
	b.Partition = record.TopicPartition{Topic: testTopic, Partition: partition}
	b.Offsets = []int64{offset}
	return b
}

// writer drives a Table as a consumer does.
type writer struct {
	t     testing.TB
	tbl   *Table
	marks map[int32]record.Mark
}

func openWriter(t testing.TB, l *Lake, c TableConfig, parts ...int32) *writer {
	t.Helper()
	c.Topic, c.Stream = testTopic, testSchema().Stream
	if c.Table == "" {
		c.Table = "shop.orders"
	}
	tbl, err := l.Table(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tbl.Close() })
	w := &writer{t: t, tbl: tbl}
	if len(parts) == 0 {
		parts = []int32{0}
	}
	if w.marks, err = tbl.Load(context.Background(), parts); err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if _, ok := w.marks[p]; !ok {
			w.marks[p] = record.Mark{}
		}
	}
	return w
}

func (w *writer) write(b *record.Batch) []record.Reject {
	w.t.Helper()
	n, part := b.Len(), b.Partition.Partition
	next, last := b.Offsets[n-1]+1, b.Pos[n-1]
	if _, control := b.Control(); control {
		n = 0 // counters are of rows
	}
	rejects, err := w.tbl.Write(context.Background(), b)
	if err != nil {
		w.t.Fatal(err)
	}
	m := w.marks[part]
	m.Next, m.Last = next, last
	m.Counts.Read += int64(n)
	m.Counts.Rejected += int64(len(rejects))
	w.marks[part] = m
	return rejects
}

func (w *writer) flush() error {
	out, err := w.tbl.Flush(context.Background(), maps.Clone(w.marks))
	if err == nil {
		w.marks = out
	}
	return err
}

func (w *writer) mustFlush() {
	w.t.Helper()
	if err := w.flush(); err != nil {
		w.t.Fatal(err)
	}
	for p, m := range w.marks {
		if !m.Counts.Balanced() {
			w.t.Fatalf("partition %d: counts do not balance: %+v", p, m.Counts)
		}
	}
}

// rowsOf scans a table with the library's own reader and spells each row.
func rowsOf(t testing.TB, l *Lake, table string, columns ...string) []string {
	t.Helper()
	tbl, err := l.loadTable(context.Background(), strings.Split(table, "."))
	if errors.Is(err, catalog.ErrNoSuchTable) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	_, seq, err := tbl.Scan().ToArrowRecords(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for rec, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, spell(rec, columns)...)
	}
	slices.Sort(out)
	return out
}

func spell(rec arrow.RecordBatch, columns []string) []string {
	out := make([]string, rec.NumRows())
	for i := range out {
		var b strings.Builder
		for c := range int(rec.NumCols()) {
			name := rec.ColumnName(c)
			if len(columns) > 0 && !slices.Contains(columns, name) {
				continue
			}
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			fmt.Fprintf(&b, "%s=%s", name, rec.Column(c).ValueStr(i))
		}
		out[i] = b.String()
	}
	return out
}

func wantRows(t testing.TB, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("rows\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func at(epoch, lsn uint64) record.Position { return record.Position{Epoch: epoch, LSN: lsn} }
