package mappers

import (
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/sluice-data/sluice/record"
)

// Chain is a list of rules compiled for one schema. It is immutable; several
// goroutines may call Apply at once.
type Chain struct {
	in, out *record.Schema
	slots   []record.Field // what each column of a run holds; the first are those of in
	outSlot []int          // the slot of each field of out
	plan    []planned
	runs    sync.Pool // of *run
}

// planned is one rule that has work to do per batch.
type planned struct {
	rule  int
	kind  string
	read  []int       // slots it reads
	live  []live      // columns that later steps or the output read: they follow when rows are taken out
	start func() step // a step keeps state such as a digest, so every run has its own
}

// live is a column whose rows still matter.
type live struct {
	slot  int
	field *record.Field
}

// step is one rule at work.
type step interface {
	apply(r *run)
}

// In returns the schema that c was compiled for.
func (c *Chain) In() *record.Schema { return c.in }

// Out returns the schema of what Apply returns; it is sealed.
func (c *Chain) Out() *record.Schema { return c.out }

// Apply runs the rules over b, which it takes over, and returns the batch to
// go on with, the number of rows filtered away, and the rows that were refused
// with their row numbers in b. The batch is nil when no row is left. An error
// is a *RunError and means that the stream must stop: nothing of b may go on.
func (c *Chain) Apply(b *record.Batch) (out *record.Batch, filtered int, rejects []record.Reject, err error) {
	if b.Schema != c.in && (b.Schema == nil || b.Schema.ID == "" || b.Schema.ID != c.in.ID) {
		return nil, 0, nil, c.failed(-1, "", "the batch has another schema than the rules")
	}
	if op, ok := b.Control(); ok {
		return c.control(b, op), 0, nil, nil
	}
	if b.Len() == 0 {
		b.Release()
		return nil, 0, nil, nil
	}
	if len(b.After) != len(c.in.Fields) || b.Before != nil && len(b.Before) != len(c.in.Fields) {
		return nil, 0, nil, c.failed(-1, "", "the batch has not the columns of its schema")
	}
	if len(c.plan) == 0 && c.in.ID == c.out.ID {
		return b, 0, nil, nil
	}
	r, _ := c.runs.Get().(*run)
	if r == nil {
		r = c.newRun()
	}
	at := 0
	defer func() {
		// Invariant 6: a rule that cannot run stops the stream; its rows do not go on.
		if p := recover(); p != nil {
			out, filtered, rejects = nil, 0, nil
			rule, kind := -1, ""
			if at < len(c.plan) {
				rule, kind = c.plan[at].rule, c.plan[at].kind
			}
			err = c.failed(rule, kind, panicText(p))
		}
	}()
	r.begin(b)
	for at = range c.plan {
		r.live = c.plan[at].live
		r.steps[at].apply(r)
		r.dropRejected()
		if r.n == 0 {
			break
		}
	}
	filtered, rejects = r.filtered, r.rejects
	slices.SortFunc(rejects, func(x, y record.Reject) int { return x.Row - y.Row })
	return r.finish(), filtered, rejects, nil
}

func (c *Chain) failed(rule int, kind, msg string) error {
	return &RunError{Stream: c.in.Stream.String(), Rule: rule, Kind: kind, Msg: msg}
}

// panicText says what a panic was without a row value (Invariant 7): only the
// text of the language's own errors is known to hold none.
func panicText(p any) string {
	if e, ok := p.(runtime.Error); ok {
		return "panic: " + e.Error()
	}
	if e, ok := p.(stop); ok {
		return string(e)
	}
	return fmt.Sprintf("panic of type %T", p)
}

// stop is what a step panics with when it cannot run; the text holds no row value.
type stop string

// control gives a truncate or backfill mark the schema of what follows it.
func (c *Chain) control(b *record.Batch, op record.Op) *record.Batch {
	out := record.NewControl(c.out, op, b.Pos[0], b.Time[0])
	out.Partition, out.Offsets = b.Partition, slices.Clone(b.Offsets)
	b.Release()
	return out
}

// The images of a row.
const (
	after  = 0
	before = 1
)

// run is one batch on its way through a chain, with the memory to do it. It
// goes back to the pool when the batch that came out of it is released.
type run struct {
	chain    *Chain
	steps    []step
	in, out  *record.Batch
	n        int // rows now
	cols     [2][]*record.Vector
	own      [2][]*record.Vector // memory for slots that are computed
	rows     []int32             // the input row of each row; empty while nothing was taken out
	live     []live
	rejected []int32 // rows refused by the step at work, in rising order
	rejects  []record.Reject
	filtered int
	picked   []int32 // memory of dropRejected
	children []int32 // memory of keepRows
}

func (c *Chain) newRun() *run {
	r := &run{chain: c}
	for i := range r.own {
		r.cols[i] = make([]*record.Vector, len(c.slots))
		r.own[i] = make([]*record.Vector, len(c.slots))
		for s := len(c.in.Fields); s < len(c.slots); s++ {
			r.own[i][s] = record.NewVector(&c.slots[s])
		}
	}
	for i := range c.plan {
		r.steps = append(r.steps, c.plan[i].start())
	}
	return r
}

func (r *run) begin(b *record.Batch) {
	r.in, r.n, r.filtered, r.rejects, r.rows = b, b.Len(), 0, nil, r.rows[:0]
	copy(r.cols[after], b.After)
	for s := len(b.After); s < len(r.cols[after]); s++ {
		r.own[after][s].Reset()
		r.cols[after][s] = r.own[after][s]
	}
	clear(r.cols[before])
	if b.Before == nil {
		return
	}
	copy(r.cols[before], b.Before)
	for s := len(b.Before); s < len(r.cols[before]); s++ {
		r.own[before][s].Reset()
		r.cols[before][s] = r.own[before][s]
	}
}

// hasBefore reports whether the batch has before-images.
func (r *run) hasBefore() bool { return r.in.Before != nil }

// finish hands out what is left. The columns of the input batch are shared, so
// that batch is released with the one handed out.
func (r *run) finish() *record.Batch {
	if r.n == 0 {
		r.release(nil)
		return nil
	}
	if r.out == nil {
		r.out = record.NewBatch(r.chain.out, r.release)
	}
	o, b := r.out, r.in
	o.Ops, o.Pos, o.Time = b.Ops[:r.n], b.Pos[:r.n], b.Time[:r.n]
	o.Partition, o.Offsets = b.Partition, b.Offsets
	if len(o.Offsets) > r.n {
		o.Offsets = o.Offsets[:r.n]
	}
	for i, s := range r.chain.outSlot {
		o.After[i] = r.cols[after][s]
	}
	if r.in.Before == nil {
		o.Before = nil
		return o
	}
	o.Before = o.Before[:0]
	for _, s := range r.chain.outSlot {
		o.Before = append(o.Before, r.cols[before][s])
	}
	return o
}

func (r *run) release(*record.Batch) {
	if r.in == nil {
		return
	}
	b := r.in
	r.in, r.rejects = nil, nil
	b.Release()
	r.chain.runs.Put(r)
}

// inputRow returns the row number that row i had in the batch given to Apply.
func (r *run) inputRow(i int) int {
	if len(r.rows) == 0 {
		return i
	}
	return int(r.rows[i])
}

// reject refuses row i, which is taken out after the step; steps call it in
// rising order of i. A row that is refused twice keeps its first reason.
func (r *run) reject(i int, code, reason string) {
	if n := len(r.rejected); n > 0 && r.rejected[n-1] == int32(i) {
		return
	}
	r.rejected = append(r.rejected, int32(i))
	r.refuse(i, code, reason)
}

// refuse notes that row i is refused; the caller takes it out.
func (r *run) refuse(i int, code, reason string) {
	r.rejects = append(r.rejects, record.Reject{Row: r.inputRow(i), Code: code, Reason: reason})
}

// dropRejected takes the rows out that the step at work has refused.
func (r *run) dropRejected() {
	if len(r.rejected) == 0 {
		return
	}
	r.picked = r.picked[:0]
	next := 0
	for i := range int32(r.n) {
		if next < len(r.rejected) && r.rejected[next] == i {
			next++
			continue
		}
		r.picked = append(r.picked, i)
	}
	r.rejected = r.rejected[:0]
	r.keep(r.picked, nil)
}
