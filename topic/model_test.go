package topic

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sluice-data/sluice/record"
)

// model is a database, the source that follows it and two members of a sink,
// all of which crash at random. The publisher, the consumers and the broker
// are the real ones.
type model struct {
	t      *testing.T
	rng    *rand.Rand
	k      *Kafka
	schema *record.Schema
	st     *store

	// The database.
	log   []change // every change ever, epoch not set
	table map[int64]string
	lsn   uint64

	// The source. Its checkpoint is the epoch and how much of the log is acknowledged.
	epoch   uint64
	pub     *Publisher
	cursor  int // changes of log that are published
	mu      sync.Mutex
	acked   int
	applied uint64 // epoch of the last complete backfill
	began   int    // log length at the view of that backfill

	members []*sinkOf
}

// TestProtocolModel drives the protocol through random steps and checks that
// the sink has what the database has, and every change of the last epoch once.
func TestProtocolModel(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5, 6}
	if s, err := strconv.ParseUint(os.Getenv("SLUICE_SEED"), 10, 64); err == nil {
		seeds = []uint64{s}
	}
	addr := fake(t).ListenAddrs()[0]
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 0)), schema: testSchema("orders"), st: newStore(), table: map[int64]string{}}
			m.k = connect(t, addr, nil)
			m.pub = newPublisher(t, m.k)
			m.change(30)
			m.backfill(false)
			for range 60 {
				m.step()
			}
			m.finish()
		})
	}
}

func (m *model) step() {
	switch n := m.rng.IntN(100); {
	case n < 35:
		m.change(1 + m.rng.IntN(20))
	case n < 65:
		m.publish(1 + m.rng.IntN(40))
	case n < 72:
		m.crashSource()
	case n < 75:
		m.truncate()
	case n < 79:
		m.backfill(m.rng.IntN(2) == 0)
	case n < 86:
		m.sinkFault()
	case n < 93:
		m.join()
	case len(m.members) > 0:
		m.leave()
	}
}

// change commits n changes, one transaction each.
func (m *model) change(n int) {
	for range n {
		m.lsn++
		c := change{op: record.OpInsert, id: int64(m.rng.IntN(15)), note: fmt.Sprint("v", m.lsn), pos: record.Position{LSN: m.lsn}}
		if _, there := m.table[c.id]; there {
			c.op = record.OpUpdate
			if m.rng.IntN(3) == 0 {
				c.op, c.note = record.OpDelete, ""
			}
		}
		if c.op == record.OpDelete {
			delete(m.table, c.id)
		} else {
			m.table[c.id] = c.note
		}
		m.log = append(m.log, c)
	}
}

func (m *model) truncate() {
	m.lsn++
	clear(m.table)
	m.log = append(m.log, change{op: record.OpTruncate, pos: record.Position{LSN: m.lsn}})
}

// publish has the source publish n changes from its cursor on.
func (m *model) publish(n int) {
	to := min(m.cursor+n, len(m.log))
	for m.cursor < to {
		c := m.log[m.cursor]
		c.pos.Epoch = m.epoch
		m.send(m.pub, c)
		m.cursor++
		at := m.cursor
		m.pub.Barrier(func() { m.mu.Lock(); m.acked = at; m.mu.Unlock() })
	}
}

func (m *model) send(p *Publisher, cs ...change) {
	if err := p.Publish(m.t.Context(), batch(m.schema, cs...)); err != nil {
		m.t.Fatal(err)
	}
}

// crashSource loses what was not acknowledged and starts from the checkpoint.
func (m *model) crashSource() {
	m.pub.Close()
	m.pub = newPublisher(m.t, m.k)
	m.mu.Lock()
	m.cursor = m.acked
	m.mu.Unlock()
}

// backfill starts a new epoch from a consistent view, perhaps several times
// because the source crashes in the middle, and perhaps with a zombie of the
// old epoch that goes on for a while.
func (m *model) backfill(zombie bool) {
	old, oldCursor, oldEpoch := m.pub, m.cursor, m.epoch
	m.pub = newPublisher(m.t, m.k)
	for {
		m.epoch++
		view := record.Position{Epoch: m.epoch, LSN: m.lsn}
		m.send(m.pub, change{op: record.OpBackfillBegin, pos: view})
		ids := slices.Sorted(maps.Keys(m.table))
		crash := -1
		if m.rng.IntN(2) == 0 {
			crash = m.rng.IntN(len(ids) + 1)
		}
		for i, id := range ids {
			if i == crash {
				break
			}
			m.send(m.pub, change{record.OpRead, view, id, m.table[id]})
			if zombie && i%3 == 0 && oldEpoch > 0 && oldCursor < len(m.log) {
				c := m.log[oldCursor]
				c.pos.Epoch = oldEpoch
				m.send(old, c)
				oldCursor++
			}
		}
		if crash < 0 {
			m.send(m.pub, change{op: record.OpBackfillEnd, pos: view})
			break
		}
		m.pub.Close()
		m.pub = newPublisher(m.t, m.k)
		m.change(m.rng.IntN(5)) // the next view is another one
	}
	if err := m.pub.Flush(m.t.Context()); err != nil { // the checkpoint says: complete
		m.t.Fatal(err)
	}
	old.Close()
	m.applied, m.began, m.cursor = m.epoch, len(m.log), len(m.log)
	m.mu.Lock()
	m.acked = m.cursor
	m.mu.Unlock()
}

// sinkFault has one of the next calls of the sink fail, before or after it took effect.
func (m *model) sinkFault() {
	name := []string{"load", "write", "flush", "flushed"}[m.rng.IntN(4)]
	m.st.mu.Lock()
	defer m.st.mu.Unlock()
	at := m.st.calls[name] + 1 + m.rng.IntN(3)
	m.st.faults = func(call string, n int) error {
		if call == name && n == at {
			return errors.New("injected")
		}
		return nil
	}
}

func (m *model) join() {
	if len(m.members) > 1 {
		m.leave()
	}
	m.members = append(m.members, consume(m.t, m.k, ConsumerConfig{Every: time.Duration(1+m.rng.IntN(30)) * time.Millisecond, Rows: 1 + m.rng.IntN(30)},
		Stream{Name: m.schema.Stream, Open: m.st.open}))
}

func (m *model) leave() {
	i := m.rng.IntN(len(m.members))
	_ = m.members[i].stop() // its last flush may be the one that fails
	m.members = slices.Delete(m.members, i, i+1)
}

// finish brings everything to an end and compares.
func (m *model) finish() {
	m.publish(len(m.log))
	if err := m.pub.Flush(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
	m.st.mu.Lock()
	m.st.faults = nil
	m.st.mu.Unlock()
	m.join()
	catchUp(m.t, m.members[len(m.members)-1])
	if m.st.broken != nil {
		m.t.Fatal(m.st.broken)
	}
	rows, marks := m.st.snapshot()
	var counts record.Counts
	for _, mark := range marks {
		counts.Add(mark.Counts)
	}
	if !counts.Balanced() || counts.Delivered != int64(dataRows(rows)) {
		m.t.Errorf("counts %+v for %d rows", counts, len(rows))
	}
	if got := materialise(rows); !maps.Equal(got, m.table) {
		m.t.Errorf("the sink has %d rows, the database %d:\n%v\n%v", len(got), len(m.table), got, m.table)
	}
	m.onceInLastEpoch(rows)
}

// onceInLastEpoch checks the changelog: of the last epoch every change of
// every key is there exactly once, in order.
func (m *model) onceInLastEpoch(rows []row) {
	got, want := map[int64][]change{}, map[int64][]change{}
	for _, r := range rows {
		if r.pos.Epoch == m.applied && r.op != record.OpRead && !r.op.Control() {
			got[r.id] = append(got[r.id], r.change)
		}
	}
	for _, c := range m.log[m.began:] {
		c.pos.Epoch = m.applied
		if !c.op.Control() {
			want[c.id] = append(want[c.id], c)
		}
	}
	for id := range want {
		if !slices.Equal(got[id], want[id]) {
			m.t.Errorf("key %d: %d changes, want %d, from %v", id, len(got[id]), len(want[id]), firstDifference(got[id], want[id]))
		}
	}
}

// materialise applies rows as a table sink does, each partition in its order.
func materialise(rows []row) map[int64]string {
	type cell struct {
		note  string
		part  int32
		epoch uint64
	}
	table := map[int64]cell{}
	for _, r := range rows {
		switch r.op {
		case record.OpTruncate:
			maps.DeleteFunc(table, func(_ int64, c cell) bool { return c.part == r.part })
		case record.OpBackfillBegin:
			maps.DeleteFunc(table, func(_ int64, c cell) bool { return c.part == r.part && c.epoch < r.pos.Epoch })
		case record.OpBackfillEnd:
		case record.OpDelete:
			delete(table, r.id)
		default:
			table[r.id] = cell{r.note, r.part, r.pos.Epoch}
		}
	}
	out := map[int64]string{}
	for id, c := range table {
		out[id] = c.note
	}
	return out
}
