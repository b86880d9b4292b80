package topic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var prefixes atomic.Int64

// onBrokers runs a test on the fake broker and, if SLUICE_KAFKA names one, on a real one.
func onBrokers(t *testing.T, test func(t *testing.T, k *Kafka)) {
	t.Run("fake", func(t *testing.T) { test(t, connect(t, fake(t).ListenAddrs()[0], nil)) })
	if addr := os.Getenv("SLUICE_KAFKA"); addr != "" {
		t.Run("kafka", func(t *testing.T) { test(t, connect(t, addr, nil)) })
	}
}

func fake(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(100 * time.Millisecond),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"})}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func connect(t *testing.T, addr string, edit func(*Config)) *Kafka {
	t.Helper()
	cfg := Config{Brokers: []string{addr}, Prefix: fmt.Sprintf("p%d-%d", os.Getpid(), prefixes.Add(1)), Partitions: 3, Logger: testLog(t)}
	if edit != nil {
		edit(&cfg)
	}
	k, err := Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func testLog(t *testing.T) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("test", t.Name())
}

// until polls cond for a generous while.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func testSchema(table string) *record.Schema {
	return (&record.Schema{Stream: record.StreamName{Source: "db", Namespace: "public", Name: table}, Fields: []record.Field{
		{Name: "id", Kind: record.Int64, Key: 1},
		{Name: "note", Kind: record.Text, Nullable: true},
	}}).Seal()
}

// change is one row change of the test schema.
type change struct {
	op   record.Op
	pos  record.Position
	id   int64
	note string
}

func (c change) String() string { return fmt.Sprintf("%v %v id=%d %.12q", c.pos, c.op, c.id, c.note) }

func inserts(epoch uint64, from, to int64) []change {
	var cs []change
	for i := from; i < to; i++ {
		cs = append(cs, change{record.OpInsert, record.Position{Epoch: epoch, LSN: uint64(i + 1)}, i % 50, fmt.Sprint("row ", i)})
	}
	return cs
}

// batch turns changes into a batch; a control op is alone.
func batch(s *record.Schema, cs ...change) *record.Batch {
	if len(cs) == 1 && cs[0].op.Control() {
		return record.NewControl(s, cs[0].op, cs[0].pos, 1)
	}
	b := record.NewBatch(s, nil)
	for _, c := range cs {
		b.Ops, b.Pos, b.Time = append(b.Ops, c.op), append(b.Pos, c.pos), append(b.Time, 1_700_000_000_000_000)
		b.After[0].AppendInt64(c.id)
		if c.op == record.OpDelete {
			b.After[1].AppendMissing(record.Unsent, 0)
		} else {
			b.After[1].AppendData([]byte(c.note))
		}
	}
	return b
}

func newPublisher(t *testing.T, k *Kafka) *Publisher {
	t.Helper()
	p, err := k.Publisher("db", record.Origin{Connector: "postgresql", Name: "x", Database: "x"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func publish(t *testing.T, p *Publisher, s *record.Schema, cs ...change) {
	t.Helper()
	for chunk := range slices.Chunk(cs, 7) {
		if err := p.Publish(t.Context(), batch(s, chunk...)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// store is what a sink keeps: data and marks, changed in one step only. It
// outlives the sinks opened on it, as a table does.
type store struct {
	mu     sync.Mutex
	marks  map[int32]record.Mark
	rows   []row
	faults func(call string, n int) error // "write", "flush" (nothing is stored), "flushed" (it is)
	calls  map[string]int
	peak   int
	fenced int
	gate   func() // called inside Flush, before anything is stored
	broken error  // a rule of the contract that was not kept
}

type row struct {
	change
	part   int32
	offset int64
}

func newStore() *store { return &store{marks: map[int32]record.Mark{}, calls: map[string]int{}} }

func (s *store) call(name string) error {
	s.calls[name]++
	if s.faults == nil {
		return nil
	}
	return s.faults(name, s.calls[name])
}

func (s *store) snapshot() ([]row, map[int32]record.Mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	marks := map[int32]record.Mark{}
	for p, m := range s.marks {
		marks[p] = m
	}
	return slices.Clone(s.rows), marks
}

func (s *store) open(context.Context) (Sink, error) {
	return &memSink{store: s, loaded: map[int32]record.Mark{}}, nil
}

// memSink is a strict sink: it checks what a sink may rely on.
type memSink struct {
	store  *store
	loaded map[int32]record.Mark
	rows   []row
	bytes  int
	busy   atomic.Bool
	closed bool
}

func (m *memSink) enter() func() {
	if !m.busy.CompareAndSwap(false, true) {
		m.store.broken = errors.New("two calls at once")
	}
	if m.closed {
		m.store.broken = errors.New("a call after Close")
	}
	return func() { m.busy.Store(false) }
}

func (m *memSink) Load(_ context.Context, parts []int32) (map[int32]record.Mark, error) {
	defer m.enter()()
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	out := map[int32]record.Mark{}
	for _, p := range parts {
		mark, ok := m.store.marks[p]
		m.loaded[p] = mark
		if ok {
			out[p] = mark
		}
	}
	return out, m.store.call("load")
}

func (m *memSink) Write(_ context.Context, b *record.Batch) ([]record.Reject, error) {
	defer m.enter()()
	defer b.Release()
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	if err := m.store.call("write"); err != nil {
		return nil, err
	}
	var rejects []record.Reject
	for i := range b.Ops {
		r := row{change: change{op: b.Ops[i], pos: b.Pos[i]}, part: b.Partition.Partition, offset: b.Offsets[i]}
		if !r.op.Control() {
			r.id = b.After[0].Int64At(i)
			if b.After[1].State[i] == record.Present {
				r.note = string(b.After[1].Value(i))
			}
		}
		if strings.HasPrefix(r.note, "reject") {
			rejects = append(rejects, record.Reject{Row: i, Code: "unwanted", Reason: "note: unwanted"})
			continue
		}
		m.rows = append(m.rows, r)
		m.bytes += 100 + len(r.note)
	}
	m.store.peak = max(m.store.peak, m.bytes)
	return rejects, nil
}

func (m *memSink) Buffered() int { return m.bytes }

func (m *memSink) Flush(_ context.Context, marks map[int32]record.Mark) (map[int32]record.Mark, error) {
	defer m.enter()()
	if m.store.gate != nil {
		m.store.gate()
	}
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	if err := m.store.call("flush"); err != nil {
		return nil, err
	}
	out := map[int32]record.Mark{}
	for p, mark := range marks {
		if m.store.marks[p].Next != m.loaded[p].Next {
			m.store.fenced++
			return nil, fmt.Errorf("partition %d: %w", p, record.ErrFenced)
		}
		for _, r := range m.rows {
			if r.part != p {
				continue
			}
			if r.offset < m.loaded[p].Next || r.offset >= mark.Next {
				m.store.broken = fmt.Errorf("row at offset %d outside of marks %d to %d", r.offset, m.loaded[p].Next, mark.Next)
			}
			if !r.op.Control() {
				mark.Counts.Delivered++
			}
		}
		if !mark.Counts.Balanced() {
			m.store.broken = fmt.Errorf("partition %d: unbalanced %+v", p, mark.Counts)
		}
		out[p] = mark
	}
	for _, r := range m.rows {
		if _, ok := marks[r.part]; !ok {
			m.store.broken = fmt.Errorf("a row of partition %d without a mark", r.part)
		}
	}
	m.store.rows = append(m.store.rows, m.rows...)
	for p, mark := range out {
		m.store.marks[p] = mark
		m.loaded[p] = mark
	}
	m.rows, m.bytes = nil, 0
	return out, m.store.call("flushed")
}

func (m *memSink) Close() error { m.closed = true; return nil }

// sinkOf is a running consumer of the tests.
type sinkOf struct {
	c      *Consumer
	board  *progress.Board
	cancel func()
	stop   func() error
}

func consume(t *testing.T, k *Kafka, cfg ConsumerConfig, streams ...Stream) *sinkOf {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "lake"
	}
	if cfg.Every == 0 {
		cfg.Every = 20 * time.Millisecond
	}
	if cfg.Session == 0 {
		cfg.Session = 10 * time.Second
	}
	cfg.Streams, cfg.Board = streams, new(progress.Board)
	c, err := k.Consume(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stop := sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { stop() })
	return &sinkOf{c: c, board: cfg.Board, cancel: cancel, stop: stop}
}

func catchUp(t *testing.T, s *sinkOf) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := s.c.CatchUp(ctx); err != nil {
		for name, l := range s.c.lanes {
			l.mu.Lock()
			t.Logf("%s: ours %v, durable %v, target %v", name, l.ours, l.durable, l.target)
			l.mu.Unlock()
		}
		t.Fatal(err)
	}
}

// once checks that the store has every change exactly once, in order per key.
func once(t *testing.T, s *store, want []change) {
	t.Helper()
	rows, marks := s.snapshot()
	if s.broken != nil {
		t.Fatal(s.broken)
	}
	byKey := func(cs []change) map[int64][]change {
		m := map[int64][]change{}
		for _, c := range cs {
			m[c.id] = append(m[c.id], c)
		}
		return m
	}
	var got []change
	for _, r := range rows {
		got = append(got, r.change)
	}
	if len(got) != len(want) {
		t.Errorf("%d rows, want %d", len(got), len(want))
	}
	gotKeys, wantKeys := byKey(got), byKey(want)
	for id, w := range wantKeys {
		if g := gotKeys[id]; !slices.Equal(g, w) {
			t.Fatalf("key %d: %d changes, want %d, from %v", id, len(g), len(w), firstDifference(g, w))
		}
	}
	var sum record.Counts
	for _, m := range marks {
		sum.Add(m.Counts)
	}
	if !sum.Balanced() || sum.Delivered != int64(dataRows(rows)) {
		t.Errorf("counts %+v for %d rows", sum, len(got))
	}
}

func stateOf(s *sinkOf, table string) (progress.State, string) {
	for _, r := range s.board.Rows(time.Now()) {
		if strings.HasSuffix(r.Stream, "."+table) {
			return r.State, r.Note
		}
	}
	return "", ""
}

// readAll returns the records of a topic of one partition.
func readAll(t *testing.T, k *Kafka, topic string) []*kgo.Record {
	t.Helper()
	end, err := k.end(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var rs []*kgo.Record
	if err := k.read(t.Context(), topic, end, func(r *kgo.Record) { rs = append(rs, r) }); err != nil {
		t.Fatal(err)
	}
	return rs
}

func firstDifference(got, want []change) string {
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			return fmt.Sprintf("%v on; got %v", want[i], got[min(i, len(got)):min(i+2, len(got))])
		}
	}
	return "the end on"
}

// dataRows counts the rows that are no control ops.
func dataRows(rows []row) (n int) {
	for _, r := range rows {
		if !r.op.Control() {
			n++
		}
	}
	return n
}
