package activation

import (
	"context"
	"errors"
	"fmt"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/record"
)

// Work counts what would become of rows.
type Work struct {
	Creates   int64 `json:"creates"` // or updates of records that the state does not know: see Adopt
	Updates   int64 `json:"updates"`
	Deletes   int64 `json:"deletes"`
	Unchanged int64 `json:"unchanged"`
	Skipped   int64 `json:"skipped"`
	Rejected  int64 `json:"rejected"`
}

// Calls returns about how many requests w takes, with batches of items.
func (w Work) Calls(items int) int64 {
	calls := int64(0)
	for _, n := range []int64{w.Creates, w.Updates, w.Deletes} {
		calls += (n + int64(items) - 1) / int64(items)
	}
	return calls
}

// Plan is what a connection would send.
type Plan struct {
	Next     Work   `json:"next"`     // by the next run: rows that are not delivered yet
	Backfill Work   `json:"backfill"` // by a backfill of the stream: rows that were delivered, but the mapping has changed since
	Samples  []Diff `json:"samples"`  // the first creates and updates
}

// Diff is one record that would change. It holds values.
type Diff struct {
	Create bool        `json:"create,omitempty"`
	Match  string      `json:"match"`
	Fields []FieldDiff `json:"fields"`
}

// FieldDiff is one field of it.
type FieldDiff struct {
	Name string `json:"name"`
	Old  string `json:"old"` // what the destination has; empty where that is not known
	New  string `json:"new"`
}

// Plan compares the newest rows with the state and says what would be sent,
// with the first n records. It sends nothing: the destination is read for the
// old values of these n.
func (c *Connection) Plan(ctx context.Context, st *state.Connection, rows Rows, n int) (Plan, error) {
	out := Plan{Samples: []Diff{}}
	marks, err := st.Marks(ctx)
	if err != nil {
		return out, err
	}
	p := &planner{c: c, plan: &out}
	err = c.newest(ctx, rows, func(m *mapping, b *record.Batch, rows []int, keys []state.Key) error {
		known := map[state.Key]state.Entry{}
		if err := st.Get(ctx, keys, func(e state.Entry) { known[e.Key] = e }); err != nil {
			return err
		}
		for i, row := range rows {
			have, exists := known[keys[i]]
			e := &entry{known: have, exists: exists}
			w := &out.Backfill
			if mark, ok := marks[b.Partition.Partition]; !ok || b.Offsets[row] >= mark.Next {
				w = &out.Next
			}
			p.row(m, b, row, e, keys[i], w, len(out.Samples) < n)
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	return out, p.old(ctx)
}

// planner is one Plan under way.
type planner struct {
	c    *Connection
	plan *Plan
}

// row decides as the engine does; see Sink.takeRow and Sink.resolve.
func (p *planner) row(m *mapping, b *record.Batch, row int, e *entry, k state.Key, w *Work, sample bool) {
	cfg := &p.c.cfg
	remove := b.Ops[row] == record.OpDelete
	if lost := !remove && !m.allowed(b, row); remove || lost {
		if cfg.OnDelete == IgnoreDelete || lost && !cfg.Consent.Delete || !e.there() || !e.known.Owned {
			w.Skipped++
			return
		}
		w.Deletes++
		return
	}
	full := m.encode(b, row)
	refs := m.references(b, row)
	it := m.item(b, row, k, refs)
	switch {
	case cfg.Operation == delivery.Append:
		w.Creates++
		return
	case full && e.there() && e.known.Row == m.rowHash(refs):
		w.Unchanged++
		return
	case m.match >= 0 && it.match == nil && e.known.ID == "":
		w.Rejected++
		return
	case cfg.Operation == delivery.Insert && e.there():
		w.Skipped++
		return
	}
	d := Diff{Create: !e.there(), Match: plain(it.match)}
	for i, cl := range it.cells {
		name := cfg.Fields[i].Name
		hash := m.h.word(ofField, append(append([]byte(name), 0, cl.state), cl.value...))
		if old, sent := e.known.Fields.Lookup(tagOf(name)); cl.state != absent && (d.Create || !sent || old != hash) {
			d.Fields = append(d.Fields, FieldDiff{Name: name, New: plain(cl.value)})
		}
	}
	moved := it.match != nil && it.matchID != e.known.Match
	switch {
	case d.Create && cfg.Operation == delivery.Update:
		w.Updates++ // of a record that is there, as the mapping says
	case d.Create:
		w.Creates++
	case len(d.Fields) == 0 && !moved && len(refs) == 0:
		w.Unchanged++
		return
	default:
		w.Updates++
	}
	if sample {
		p.plan.Samples = append(p.plan.Samples, d)
	}
}

// old reads what the destination has of the samples.
func (p *planner) old(ctx context.Context) error {
	var values []string
	for _, d := range p.plan.Samples {
		values = append(values, d.Match)
	}
	if len(values) == 0 {
		return nil
	}
	cfg := &p.c.cfg
	found, err := p.c.dest.Read(ctx, cfg.Object, cfg.Match.Name, values, fieldNames(cfg))
	if errors.Is(err, ErrUnreadable) || errors.Is(err, delivery.ErrUnreadable) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: read the old values: %w", cfg.Name, err)
	}
	for _, f := range found {
		for i := range p.plan.Samples {
			d := &p.plan.Samples[i]
			if d.Match != f.Match {
				continue
			}
			for j := range d.Fields {
				d.Fields[j].Old = valueOf(f.Fields, d.Fields[j].Name)
			}
		}
	}
	return nil
}

// Batch returns how many records a request of the connection has at most.
func (c *Connection) Batch() int { return c.cfg.BatchItems }
