package postgres

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
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
	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// shared is the server of all tests; each test has a database of its own.
var shared struct {
	once sync.Once
	dir  string
	srv  *pgserver.Server
	err  error
	n    atomic.Int32
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.srv != nil {
		shared.srv.Stop()
	}
	if shared.dir != "" {
		os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// programs finds a PostgreSQL server.
func programs() (string, error) {
	if bin := os.Getenv("SLUICE_PG_BIN"); bin != "" {
		return bin, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", errors.New("no PostgreSQL server: SLUICE_PG_BIN=$(deploy/dev/postgres.sh) go test ./ingest/postgres")
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1]), nil
}

func startServer(dir string, settings ...string) (*pgserver.Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return pgserver.Start(ctx, bin, dir, append([]string{"fsync=off", "max_replication_slots=40", "max_wal_senders=40", "wal_sender_timeout=5s"}, settings...)...)
}

// tempDir is a folder that another user may pass.
func tempDir() (string, error) {
	dir, err := os.MkdirTemp("", "sluice-pg")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// database makes an empty database and returns its URL and a connection.
func database(t *testing.T) (string, *pgx.Conn) {
	t.Helper()
	shared.once.Do(func() {
		if shared.dir, shared.err = tempDir(); shared.err == nil {
			shared.srv, shared.err = startServer(filepath.Join(shared.dir, "pg"))
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return newDatabase(t, shared.srv.URL)
}

func newDatabase(t *testing.T, server string) (string, *pgx.Conn) {
	t.Helper()
	name := fmt.Sprintf("t%d", shared.n.Add(1))
	admin := dial(t, server)
	run(t, admin, "CREATE DATABASE "+name)
	url := strings.Replace(server, "/postgres?", "/"+name+"?", 1)
	return url, dial(t, url)
}

func dial(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func run(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(context.Background(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func query[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// eventually polls until ok or a generous deadline.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so after 30 s", what)
		}
	}
}

// event is one row, or control op, that the recorder was given.
type event struct {
	stream string
	op     record.Op
	pos    record.Position
	time   int64
	schema *record.Schema
	cells  []string // nil for control ops
	before []string
	reject string
}

func (e event) String() string {
	return fmt.Sprintf("%s %s %s %v before=%v %s", e.stream, e.op, e.pos, e.cells, e.before, e.reject)
}

// errGone is what a crashed output answers.
type errGone struct{}

func (errGone) Error() string { return "the process is gone" }
func (errGone) Lost() bool    { return true }

// recorder is an Output that keeps everything. It can hold acknowledgements
// back, refuse batches, and crash.
type recorder struct {
	mu          sync.Mutex
	events      []event
	checkpoints map[string][]byte
	saves       int
	holding     bool // barriers wait for release
	barriers    []func()
	refuse      func(*record.Batch) error
	gone        bool
	onSave      func(n int)
}

func newRecorder() *recorder { return &recorder{checkpoints: map[string][]byte{}} }

// again is the output of the next process: what was durable is still there.
func (r *recorder) again() *recorder {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := newRecorder()
	n.events = slices.Clone(r.events)
	for k, v := range r.checkpoints {
		n.checkpoints[k] = v
	}
	return n
}

func (r *recorder) Publish(ctx context.Context, b *record.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return errGone{}
	}
	if r.refuse != nil {
		if err := r.refuse(b); err != nil {
			b.Release()
			return err
		}
	}
	rejects := map[int]string{}
	for _, j := range b.Rejects {
		rejects[j.Row] = j.Code + ": " + j.Reason
	}
	for i := range b.Ops {
		e := event{stream: b.Schema.Stream.Local(), op: b.Ops[i], pos: b.Pos[i], time: b.Time[i], schema: b.Schema, reject: rejects[i]}
		if !b.Ops[i].Control() {
			e.cells = render(b.Schema, b.After, i)
			if b.Before != nil {
				e.before = render(b.Schema, b.Before, i)
			}
		}
		r.events = append(r.events, e)
	}
	b.Release()
	return nil
}

func (r *recorder) Barrier(done func()) {
	r.mu.Lock()
	hold := r.holding || r.gone
	if hold {
		r.barriers = append(r.barriers, done)
	}
	r.mu.Unlock()
	if !hold {
		done()
	}
}

func (r *recorder) Flush(ctx context.Context) error {
	r.mu.Lock()
	if r.gone {
		r.mu.Unlock()
		return errGone{}
	}
	waiting := r.barriers
	if r.holding {
		r.mu.Unlock()
		<-ctx.Done() // the brokers do not answer
		return ctx.Err()
	}
	r.barriers = nil
	r.mu.Unlock()
	for _, done := range waiting {
		done()
	}
	return nil
}

func (r *recorder) hold(on bool) {
	r.mu.Lock()
	r.holding = on
	var waiting []func()
	if !on {
		waiting, r.barriers = r.barriers, nil
	}
	r.mu.Unlock()
	for _, done := range waiting {
		done()
	}
}

func (r *recorder) LoadCheckpoint(_ context.Context, key string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.checkpoints[key], nil
}

func (r *recorder) SaveCheckpoint(_ context.Context, key string, data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return errGone{}
	}
	r.checkpoints[key] = slices.Clone(data)
	r.saves++
	if r.onSave != nil {
		r.onSave(r.saves)
	}
	return nil
}

func (r *recorder) all() []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// rows returns the events of data ops of one stream.
func (r *recorder) rows(stream string) []event {
	var out []event
	for _, e := range r.all() {
		if e.stream == stream && !e.op.Control() {
			out = append(out, e)
		}
	}
	return out
}

// folded is what an upserting sink holds of a stream: rows by key, from the
// rules of positions and epochs alone.
func (r *recorder) folded(t *testing.T, stream string) map[string][]string {
	t.Helper()
	table := map[string][]string{}
	var last record.Position
	for _, e := range r.all() {
		if e.stream != stream || e.pos.Epoch < last.Epoch {
			continue
		}
		if e.op == record.OpBackfillBegin || e.op == record.OpRead || e.op == record.OpBackfillEnd {
			if e.pos.Compare(last) < 0 {
				continue
			}
		} else if e.pos.Compare(last) <= 0 {
			continue
		}
		if e.op == record.OpBackfillBegin && e.pos.Epoch > last.Epoch {
			clear(table)
		}
		last = e.pos
		if e.op == record.OpTruncate {
			clear(table)
		}
		if e.op.Control() || e.reject != "" {
			continue
		}
		key := ""
		for _, k := range e.schema.Keys() {
			key += e.cells[k] + "|"
		}
		if e.op == record.OpDelete {
			delete(table, key)
			continue
		}
		row := slices.Clone(e.cells)
		for i, c := range row {
			if c == unsent {
				if old, ok := table[key]; ok {
					row[i] = old[i]
				}
			}
		}
		table[key] = row
	}
	return table
}

const (
	unsent = "<unsent>"
	null   = "<null>"
)

func render(s *record.Schema, vectors []*record.Vector, row int) []string {
	out := make([]string, len(vectors))
	for i, v := range vectors {
		out[i] = cellText(&s.Fields[i], v, row)
	}
	return out
}

// cellText writes a cell so that different values differ.
func cellText(f *record.Field, v *record.Vector, i int) string {
	switch v.State[i] {
	case record.Null:
		return null
	case record.Unsent:
		return unsent
	}
	switch f.Kind {
	case record.Int16:
		return fmt.Sprint(v.Int16At(i))
	case record.Int32, record.Date:
		return fmt.Sprint(v.Int32At(i))
	case record.Int64, record.Time, record.Timestamp, record.TimestampTZ:
		return fmt.Sprint(v.Int64At(i))
	case record.Float32:
		return fmt.Sprintf("%v/%08x", v.Float32At(i), math.Float32bits(v.Float32At(i)))
	case record.Float64:
		return fmt.Sprintf("%v/%016x", v.Float64At(i), math.Float64bits(v.Float64At(i)))
	case record.Decimal:
		hi, lo := v.DecimalAt(i)
		return fmt.Sprintf("%x:%x", uint64(hi), lo)
	case record.Bool, record.UUID:
		return hex.EncodeToString(v.FixedAt(i, f.Kind.Width()))
	case record.Bytes:
		return "0x" + hex.EncodeToString(v.Value(i))
	case record.Array:
		var parts []string
		for j := v.Offs[i]; j < v.Offs[i+1]; j++ {
			parts = append(parts, cellText(f.Elem, v.Child, int(j)))
		}
		return "[" + strings.Join(parts, ";") + "]"
	}
	return string(v.Value(i))
}

// source makes a Source for tables of url.
func source(t *testing.T, url string, change func(*Config), tables ...string) *Source {
	t.Helper()
	level := slog.LevelError + 1
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	cfg := Config{Name: "s" + filepath.Base(strings.Split(url, "?")[0]), URL: url, Tables: tables, Board: &progress.Board{},
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: level}))}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// running is a Source at work.
type running struct {
	t      *testing.T
	cancel context.CancelFunc
	done   chan error
}

func start(t *testing.T, s *Source, out Output) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{t: t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx, out) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-r.done:
		case <-time.After(30 * time.Second):
			t.Error("Run does not end")
		}
	})
	return r
}

// stop ends the Source in order and returns its error.
func (r *running) stop() error {
	r.t.Helper()
	r.cancel()
	return r.wait()
}

func (r *running) wait() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(60 * time.Second):
		r.t.Fatal("Run does not end")
		return nil
	}
}

// catchUp runs a Source until it has read everything there is.
func catchUp(t *testing.T, url string, out Output, tables ...string) {
	t.Helper()
	s := source(t, url, func(c *Config) { c.UntilCaughtUp = true }, tables...)
	if err := start(t, s, out).wait(); err != nil {
		t.Fatal(err)
	}
}
