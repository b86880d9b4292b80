package activation

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// ratio is how many of the newest records were refused.
type ratio struct {
	mu      sync.Mutex
	newest  [1000]bool
	n, next int
	refused int
}

func (r *ratio) add(refused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == len(r.newest) {
		if r.newest[r.next] {
			r.refused--
		}
	} else {
		r.n++
	}
	r.newest[r.next] = refused
	if refused {
		r.refused++
	}
	r.next = (r.next + 1) % len(r.newest)
}

func (r *ratio) tripped(limit float64, rows int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n >= min(rows, len(r.newest)) && float64(r.refused) > limit*float64(r.n)
}

func (r *ratio) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n, r.next, r.refused = 0, 0, 0
}

// rolling counts what happened in the last hour.
type rolling struct {
	mu      sync.Mutex
	minutes [60]struct {
		minute int64
		n      int
	}
}

func (r *rolling) add(now time.Time, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	minute := now.Unix() / 60
	m := &r.minutes[minute%60]
	if m.minute != minute {
		m.minute, m.n = minute, 0
	}
	m.n += n
}

func (r *rolling) total(now time.Time) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.minutes {
		if now.Unix()/60-m.minute < 60 {
			n += m.n
		}
	}
	return n
}

// deletesMayGo reports whether deletes were let through by the guard; until
// then the entry is held. s.mu is held.
func (s *Sink) deletesMayGo(e *entry) bool {
	if !s.removing {
		s.held = append(s.held, e)
	}
	return s.removing
}

// releaseDeletes lets the deletes of a flush go, all or none: a source that
// lost its rows must not empty the destination. s.mu is held.
func (s *Sink) releaseDeletes(ctx context.Context) error {
	n := 0
	for _, e := range s.keys {
		if len(e.pending) > 0 && e.pending[0].remove && !e.pending[0].sweep && (e.there() && e.known.Owned || s.cfg.OwnMatch && e.doubt && !e.there()) {
			n++
		}
	}
	g := &s.cfg.Guards
	total := n + s.c.deletes.total(s.now())
	if n > 0 && total > g.DeleteRows && g.DeleteRatio < 1 && !s.waved {
		known, err := s.c.st.Known(ctx)
		if err != nil {
			return err
		}
		if gone := int64(total - n); float64(total) > g.DeleteRatio*float64(known+gone) {
			return &StopError{Connection: s.cfg.Name, Code: CodeDeleteGuard,
				Detail: fmt.Sprintf("%d of %d records in an hour, %d of them now", total, known+gone, n)}
		}
	}
	s.c.deletes.add(s.now(), n)
	s.removing = true
	for _, e := range s.held {
		if e.flight == nil && len(e.pending) > 0 {
			s.push(e)
		}
	}
	s.held = nil
	return nil
}

// control handles an op that speaks of the whole stream; each partition has its own.
func (s *Sink) control(op record.Op, b *record.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := b.Partition.Partition
	switch op {
	case record.OpBackfillBegin:
		s.loading[p] = true
	case record.OpBackfillEnd:
		s.loading[p] = false
		if s.cfg.OnDelete != IgnoreDelete {
			s.sweeps[p] = max(s.sweeps[p], b.Pos[0].Epoch)
		}
	case record.OpTruncate:
		if s.cfg.OnDelete == IgnoreDelete {
			return nil
		}
		if !s.waved {
			err := &StopError{Connection: s.cfg.Name, Code: CodeTruncateGuard}
			s.fail(err)
			return err
		}
		s.sweeps[p] = math.MaxInt64
	}
	return nil
}

// sweep removes the records that a backfill which has ended did not find. What
// it found is settled.
func (s *Sink) sweep(ctx context.Context) error {
	s.mu.Lock()
	sweeps, waved := s.sweeps, s.waved
	s.mu.Unlock()
	if len(sweeps) == 0 {
		return nil
	}
	if err := s.save(ctx, nil); err != nil { // the state must know what was found
		return err
	}
	known, err := s.c.st.Known(ctx)
	if err != nil {
		return err
	}
	for _, remove := range []bool{false, true} { // first count, then remove
		n := 0
		for part, epoch := range sweeps {
			if err := s.older(ctx, part, epoch, func(old state.Entry) {
				n++
				if remove {
					s.mu.Lock()
					s.enqueue(s.entry(old.Key, old, true), &item{key: old.Key, part: part, pos: old.Pos, offset: old.Offset, lane: delivery.Backfill, remove: true, sweep: true, bytes: 200})
					s.mu.Unlock()
				}
			}); err != nil {
				return err
			}
		}
		if g := s.cfg.Guards; !remove && !waved && n > g.DeleteRows && g.ShrinkRatio < 1 && float64(n) > g.ShrinkRatio*float64(known) {
			err := &StopError{Connection: s.cfg.Name, Code: CodeShrinkGuard, Detail: fmt.Sprintf("%d of %d records were not found", n, known)}
			s.mu.Lock()
			s.fail(err)
			s.mu.Unlock()
			return err
		}
	}
	return s.settle(ctx)
}

// older calls found with the records of a partition that are ours and older than epoch.
func (s *Sink) older(ctx context.Context, part int32, epoch uint64, found func(state.Entry)) error {
	const page = 1000
	var after state.Key
	for n := page; n == page; {
		var got []state.Entry
		if err := s.c.st.Older(ctx, part, epoch, after, page, func(e state.Entry) { got = append(got, e) }); err != nil {
			return err
		}
		if n = len(got); n > 0 {
			after = got[n-1].Key
		}
		for _, e := range got {
			if e.Owned && e.Fields.Len() > 0 {
				found(e)
			}
		}
	}
	return nil
}

// show tells people when the account makes us wait. s.mu is held.
func (s *Sink) show(now time.Time) {
	st := s.c.opts.Stats
	if st == nil {
		return
	}
	note := ""
	switch {
	case s.err != nil:
	case s.outage.open:
		note = fmt.Sprintf("%s: the destination does not answer since %s: %s", CodeUnavailable, s.outage.since.UTC().Format(time.TimeOnly), words(s.outage.last))
	case now.Before(s.paused) && s.paused.Sub(now) > time.Second:
		note = fmt.Sprintf("%s: account paused until %s", CodeThrottled, s.paused.UTC().Format(time.TimeOnly))
	case now.Before(s.hold):
		note = "waits for requests of an earlier process until " + s.hold.UTC().Format(time.TimeOnly)
	}
	switch {
	case note != "":
		if !s.shown {
			s.before, _ = st.State()
		}
		s.shown = true
		st.Set(progress.Throttled, note)
	case s.shown:
		s.shown = false
		st.Set(s.before, "")
	}
}
