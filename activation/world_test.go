package activation

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/record"
)

var customers = (&record.Schema{Stream: record.StreamName{Source: "shop", Namespace: "public", Name: "customers"}, Fields: []record.Field{
	{Name: "id", Kind: record.Int64, Key: 1},
	{Name: "email", Kind: record.Text, Nullable: true},
	{Name: "v", Kind: record.Int64},
	{Name: "note", Kind: record.Text, Nullable: true},
	{Name: "consent", Kind: record.Bool, Nullable: true},
	{Name: "company", Kind: record.Int32, Nullable: true},
}}).Seal()

// row is one change of customers. A note of "?" was not sent, one of "" is null.
type row struct {
	op      record.Op
	id      int64
	email   string // "" = null, "?" = not sent
	v       int64
	note    string
	consent bool
	company int32 // 0 = null
	epoch   uint64
	lsn     uint64
	oldMail string // of the image before
}

func text(v *record.Vector, s string) {
	switch s {
	case "":
		v.AppendMissing(record.Null, 0)
	case "?":
		v.AppendMissing(record.Unsent, 0)
	default:
		v.AppendData([]byte(s))
	}
}

// batchOf makes a batch of rows that are on a partition from an offset on.
func batchOf(part int32, offset int64, rows ...row) *record.Batch {
	b := record.NewBatch(customers, nil)
	b.Partition = record.TopicPartition{Topic: "customers", Partition: part}
	b.Before = make([]*record.Vector, len(customers.Fields))
	for i := range b.Before {
		b.Before[i] = record.NewVector(&customers.Fields[i])
	}
	for i, r := range rows {
		seq := uint64(2)
		if r.op == record.OpRead {
			seq = 0
		}
		b.Ops, b.Time = append(b.Ops, r.op), append(b.Time, 1)
		b.Pos = append(b.Pos, record.Position{Epoch: max(r.epoch, 1), LSN: r.lsn, Seq: seq})
		b.Offsets = append(b.Offsets, offset+int64(i))
		b.After[0].AppendInt64(r.id)
		if r.op == record.OpDelete {
			for c := 1; c < len(customers.Fields); c++ {
				b.After[c].AppendMissing(record.Unsent, customers.Fields[c].Kind.Width())
			}
		} else {
			text(b.After[1], r.email)
			b.After[2].AppendInt64(r.v)
			text(b.After[3], r.note)
			b.After[4].AppendBool(r.consent)
			if r.company == 0 {
				b.After[5].AppendMissing(record.Null, 4)
			} else {
				b.After[5].AppendInt32(r.company)
			}
		}
		for c := range b.Before {
			if c == 1 && r.oldMail != "" {
				text(b.Before[c], r.oldMail)
			} else {
				b.Before[c].AppendMissing(record.Unsent, customers.Fields[c].Kind.Width())
			}
		}
	}
	return b
}

// world is one connection on a state in a file, with its fake.
type world struct {
	t       *testing.T
	cfg     Config
	fake    *fake
	dest    Destination // in place of fake
	hook    func(string)
	address string
	store   *state.Store
	c       *Connection
	s       *Sink
	letters sync.Map // "part/offset" → code
	events  []Event
	marks   map[int32]record.Mark
}

func contacts() Config {
	return Config{Name: "crm.contacts", Stream: customers.Stream, Object: "contacts", Operation: delivery.Upsert,
		Match:  Field{Name: "email", From: "email"},
		Fields: []Field{{Name: "v", From: "v"}, {Name: "note", From: "note"}},
		Linger: time.Millisecond, RetryBase: time.Millisecond, RetryMax: 5 * time.Millisecond, Ambiguous: 3 * time.Second, Attempts: 50,
		Patience: 10 * time.Second, ReferenceWait: 20 * time.Millisecond}
}

func newWorld(t *testing.T, cfg Config, f *fake) *world {
	w := &world{t: t, cfg: cfg, fake: f, address: "sqlite:" + filepath.Join(t.TempDir(), "state.db"), marks: map[int32]record.Mark{}}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	w.t.Helper()
	ctx := context.Background()
	var err error
	if w.store, err = state.Open(ctx, w.address); err != nil {
		w.t.Fatal(err)
	}
	st, err := w.store.Connection(ctx, w.cfg.Name)
	if err != nil {
		w.t.Fatal(err)
	}
	dest := w.dest
	if dest == nil {
		dest = w.fake
	}
	if w.c, err = New(w.cfg, dest, st, Options{Hook: w.hook, Bury: w.bury, Log: w.logged, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}); err != nil {
		w.t.Fatal(err)
	}
	w.sink()
}

// sink opens the sink, as the consumer does after a failure.
func (w *world) sink() {
	w.t.Helper()
	var err error
	if w.s, err = w.c.Sink(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	if w.marks, err = w.s.Load(context.Background(), []int32{0, 1}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) close() {
	if err := w.s.Close(); err != nil {
		w.t.Error(err)
	}
	w.fake.late.Wait()
	_ = w.store.Close()
}

func (w *world) bury(_ context.Context, ls []Letter) error {
	for _, l := range ls {
		w.letters.Store(fmt.Sprintf("%d/%d", l.Partition, l.Offset), l.Code)
	}
	return nil
}

func (w *world) logged(_ context.Context, es []Event) error {
	w.events = append(w.events, es...)
	return nil
}

// write writes rows on partition 0, each newer than all before.
func (w *world) write(rows ...row) []record.Reject {
	w.t.Helper()
	next := w.marks[0].Next
	for i := range rows {
		if rows[i].lsn == 0 {
			rows[i].lsn = uint64(next) + uint64(i) + 1
		}
	}
	rejects, err := w.s.Write(context.Background(), batchOf(0, next, rows...))
	if err != nil {
		w.t.Fatal(err)
	}
	m := w.marks[0]
	m.Next += int64(len(rows))
	m.Counts.Read += int64(len(rows))
	m.Counts.Rejected += int64(len(rejects))
	w.marks[0] = m
	return rejects
}

// tryFlush flushes and checks that every record has an outcome.
func (w *world) tryFlush() error {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	got, err := w.s.Flush(ctx, w.marks)
	if err != nil {
		return err
	}
	for p, m := range got {
		if !m.Counts.Balanced() { // Invariant 5
			w.t.Errorf("partition %d: records are unaccounted for: %+v", p, m.Counts)
		}
		w.marks[p] = m
	}
	return nil
}

func (w *world) flush() {
	w.t.Helper()
	if err := w.tryFlush(); err != nil {
		w.t.Fatal(err)
	}
}

// deliver writes and flushes.
func (w *world) deliver(rows ...row) []record.Reject {
	w.t.Helper()
	rejects := w.write(rows...)
	w.flush()
	return rejects
}

func (w *world) outcomes() state.Outcomes {
	w.t.Helper()
	st, err := w.store.Connection(context.Background(), w.cfg.Name)
	if err != nil {
		w.t.Fatal(err)
	}
	marks, err := st.Marks(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	var o state.Outcomes
	for _, m := range marks {
		o.Add(m.Outcomes)
	}
	return o
}

func (w *world) want(o state.Outcomes) {
	w.t.Helper()
	if got := w.outcomes(); got != o {
		w.t.Errorf("outcomes %+v, want %+v", got, o)
	}
}

func (w *world) letterCodes() map[string]int {
	codes := map[string]int{}
	w.letters.Range(func(_, code any) bool {
		codes[code.(string)]++
		return true
	})
	return codes
}

func customer(id, v int64) row {
	return row{op: record.OpInsert, id: id, email: fmt.Sprintf("c%d@x.io", id), v: v, note: "n", consent: true}
}

func update(id, v int64) row {
	r := customer(id, v)
	r.op = record.OpUpdate
	return r
}
