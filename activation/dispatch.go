package activation

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
)

const (
	holdAgain    = 20 * time.Millisecond  // until an entry that waits for another one is looked at again
	waitRefAgain = 500 * time.Millisecond // until a missing reference is looked up again
)

// flight is an item that was sent, and what its record is once it is applied.
type flight struct {
	e      *entry
	it     *item
	op     delivery.Operation
	change delivery.Change
	hashes []fieldHash // of what was sent
	taken  *entry      // whose record this one takes over
	bytes  int
}

type fieldHash struct {
	tag  uint32
	hash uint64
}

// batch is the flights of one request.
type batch struct {
	op      delivery.Operation // 0: read back what became of them
	lane    delivery.Lane
	flights []*flight
	job     *openJob // it goes by a job of the vendor, or is what became of one
}

// run is the dispatcher: it forms requests while the account and the
// destination take them, and stores what was acknowledged.
func (s *Sink) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for s.ctx.Err() == nil {
		s.mu.Lock()
		now := s.now()
		s.wakeDelayed(now)
		batches := s.form(now)
		next := s.nextLook(now)
		save := len(s.dirty) >= storeKeys || len(s.dirty) > 0 && now.Sub(s.dirtyAt) >= storeEvery
		s.inflight += len(batches)
		for _, b := range batches {
			if b.job != nil {
				s.working++
			}
		}
		s.show(now)
		s.mu.Unlock()
		if len(batches) > 0 && s.ctx.Err() == nil {
			if err := s.announce(); err != nil {
				s.mu.Lock()
				s.fail(err)
				s.mu.Unlock()
			}
		}
		for _, b := range batches {
			s.done.Go(func() { s.deliver(b) })
		}
		if save {
			if err := s.save(s.ctx, nil); err != nil && s.ctx.Err() == nil {
				s.mu.Lock()
				s.fail(err)
				s.mu.Unlock()
			}
		}
		if len(batches) > 0 || save {
			continue
		}
		timer.Reset(next)
		select {
		case <-s.ctx.Done():
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// announce stores how far records are about to be sent, if that is not known.
func (s *Sink) announce() error {
	s.mu.Lock()
	ahead := map[int32]int64{}
	for p, taken := range s.taken {
		if taken > s.announced[p] {
			ahead[p] = taken
		}
	}
	s.mu.Unlock()
	if len(ahead) == 0 {
		return nil
	}
	if err := s.lease.Announce(s.ctx, ahead); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, n := range ahead {
		s.announced[p] = max(s.announced[p], n)
	}
	return nil
}

// nextLook returns how long nothing can happen by itself. s.mu is held.
func (s *Sink) nextLook(now time.Time) time.Duration {
	next := time.Minute
	sooner := func(at time.Time) { next = min(next, max(at.Sub(now), time.Millisecond)) }
	for _, e := range s.delayed {
		sooner(e.notBefore)
	}
	if len(s.dirty) > 0 {
		sooner(s.dirtyAt.Add(storeEvery))
	}
	for _, at := range []time.Time{s.hold, s.paused, s.outage.probe} {
		if at.After(now) {
			sooner(at)
		}
	}
	for lane, q := range s.ready {
		if len(q) > 0 && s.inflight-s.working < s.cfg.Concurrency && (s.bulk.items == 0 || delivery.Lane(lane) == delivery.Stream) {
			sooner(q[0].since.Add(s.cfg.Linger))
		}
	}
	return next
}

// wakeDelayed puts entries whose time has come into their queues. s.mu is held.
func (s *Sink) wakeDelayed(now time.Time) {
	kept := s.delayed[:0]
	for _, e := range s.delayed {
		if e.notBefore.After(now) {
			kept = append(kept, e)
			continue
		}
		e.delayed = false
		if e.flight == nil && !e.idle() {
			s.push(e)
		}
	}
	clear(s.delayed[len(kept):])
	s.delayed = kept
}

// maySend reports whether a request may start. s.mu is held.
func (s *Sink) maySend(now time.Time) bool {
	if s.err != nil || s.inflight-s.working >= s.cfg.Concurrency || now.Before(s.hold) || now.Before(s.paused) {
		return false
	}
	if !s.flushing {
		for p, sent := range s.announced {
			if s.taken[p] < sent {
				// Rows up to there may have been sent before a crash: they are folded
				// first, so that no older value of a key follows a newer one.
				return false
			}
		}
	}
	return !s.outage.open || s.inflight == s.working && !now.Before(s.outage.probe)
}

// form takes entries from the queues and makes them requests, the stream's
// before those of a backfill. s.mu is held.
func (s *Sink) form(now time.Time) []*batch {
	out := s.resumeJobs()
	for _, lane := range []delivery.Lane{delivery.Stream, delivery.Backfill} {
		for s.maySend(now) {
			if !s.due(lane, now) {
				break
			}
			var bs []*batch
			if lane == delivery.Backfill && s.bulk.items > 0 && len(s.ready[lane]) >= s.cfg.BulkAbove && !s.outage.open {
				bs = s.fillJob(now)
			} else {
				bs = s.fill(lane, now, s.cfg.BatchItems, s.cfg.BatchBytes)
			}
			if len(bs) == 0 {
				break
			}
			out = append(out, bs...)
			if s.inflight-s.working+len(out) >= s.cfg.Concurrency || s.outage.open {
				return out
			}
		}
	}
	return out
}

// due reports whether the entries of a lane wait no longer for others. Those of
// a backfill that may go by a job wait for a flush. s.mu is held.
func (s *Sink) due(lane delivery.Lane, now time.Time) bool {
	q := s.ready[lane]
	switch {
	case len(q) == 0 || s.flushing:
		return len(q) > 0
	case lane == delivery.Backfill && s.bulk.items > 0:
		return len(q) >= s.bulk.items
	}
	return len(q) >= s.cfg.BatchItems || now.Sub(q[0].since) >= s.cfg.Linger
}

// fillJob forms a job, and requests of what cannot go by one or is too little
// for it. s.mu is held.
func (s *Sink) fillJob(now time.Time) (out []*batch) {
	for _, b := range s.fill(delivery.Backfill, now, s.bulk.items, s.bulk.bytes) {
		if b.op == delivery.Upsert && len(b.flights) >= s.cfg.BulkAbove {
			s.jobOf(b)
			out = append(out, b)
			continue
		}
		for part := range slices.Chunk(b.flights, s.cfg.BatchItems) {
			out = append(out, &batch{op: b.op, lane: b.lane, flights: part})
		}
	}
	return out
}

// fill takes entries from the queue of a lane until a request is full or none
// is left; each operation is a request of its own. s.mu is held.
func (s *Sink) fill(lane delivery.Lane, now time.Time, items, size int) []*batch {
	var out []*batch
	bytes := 0
	for len(s.ready[lane]) > 0 {
		q := s.ready[lane] // resolve may put entries into it
		e := q[0]
		if len(e.pending) > 0 {
			if bytes += e.pending[0].bytes; bytes > size && len(out) > 0 {
				break
			}
		}
		q[0], s.ready[lane] = nil, q[1:]
		e.ready[lane] = false
		if e.flight != nil || e.notBefore.After(now) || e.idle() || len(e.pending) > 0 && e.pending[0].lane != lane && e.unsure == nil {
			continue // it is somewhere else by now
		}
		if l, ok := s.locked[e.known.Key]; ok {
			l.job.waiting = append(l.job.waiting, e)
			continue
		}
		f := s.resolve(e, now)
		if f == nil {
			continue
		}
		if f.op != 0 {
			e.pop()
		}
		e.flight = f
		at := slices.IndexFunc(out, func(b *batch) bool { return b.op == f.op })
		if at < 0 {
			out = append(out, &batch{op: f.op, lane: lane})
			at = len(out) - 1
		}
		out[at].flights = append(out[at].flights, f)
		if len(out[at].flights) >= items || s.outage.open {
			break
		}
	}
	return out
}

// later has an entry looked at again after d. s.mu is held.
func (s *Sink) later(e *entry, d time.Duration) {
	e.notBefore = s.now().Add(d)
	s.push(e)
}

// resolve decides what is to be done about an entry: it returns what to send,
// or settles it, or puts it off. s.mu is held.
func (s *Sink) resolve(e *entry, now time.Time) *flight {
	if e.unsure != nil {
		if f := s.resolveUnsure(e); f != nil || e.unsure != nil || len(e.pending) == 0 {
			return f
		}
	}
	it := e.pending[0]
	if it.remove {
		return s.resolveDelete(e, it)
	}
	if s.cfg.Operation == delivery.Append {
		return s.flightOf(e, it, delivery.Append, true)
	}
	if !s.resolveReferences(e, it, now) {
		return nil
	}
	if it.partial && e.known.Outcome == delivery.Rejected && s.lacks(e, it) {
		s.drop(e, e.pop(), delivery.Result{Outcome: delivery.Rejected}, CodeNeedsFullRow)
		return nil
	}
	taken, ok := s.claim(e, it)
	if !ok {
		return nil
	}
	op := s.cfg.Operation
	if op == delivery.Insert && e.there() && taken == nil {
		s.drop(e, e.pop(), delivery.Result{Outcome: delivery.Skipped}, CodeExists)
		return nil
	}
	if op == delivery.Upsert && e.there() && e.known.ID != "" && it.matchID != (state.Key{}) && it.matchID != e.known.Match {
		op = delivery.Update // of the record by its id: its match value is one of the changes
	}
	f := s.flightOf(e, it, op, s.cfg.Whole)
	if f == nil {
		s.apply(&flight{e: e, it: e.pop(), op: op}, delivery.Result{Outcome: delivery.Unchanged})
		return nil
	}
	f.taken = taken
	return f
}

// there reports whether the destination has the record, by what it acknowledged.
func (e *entry) there() bool {
	return e.exists && !e.known.Gone && (e.known.Fields.Len() > 0 || e.known.Match != state.Key{})
}

// lacks reports whether it misses a cell that the destination never
// acknowledged: one that came with a record that was refused. s.mu is held.
func (s *Sink) lacks(e *entry, it *item) bool {
	for i, c := range it.cells {
		if _, ok := e.known.Fields.Lookup(tagOf(s.cfg.Fields[i].Name)); c.state == absent && !ok {
			return true
		}
	}
	return false
}

// flightOf returns the change that makes the record equal to it, nil if it is
// so already. s.mu is held.
func (s *Sink) flightOf(e *entry, it *item, op delivery.Operation, whole bool) *flight {
	f := &flight{e: e, it: it, op: op, bytes: it.bytes}
	known := e.known.Fields
	if e.known.Gone {
		known = nil
	}
	c := delivery.Change{Key: string(it.key[:]), ID: e.known.ID}
	if e.known.Gone || e.maybeGone && op == delivery.Upsert && it.matchID == e.known.Match {
		c.ID = "" // of a record that is not there any more nothing can be made again
	}
	changed := !e.there() || e.doubt
	var scratch [64]byte
	for i := range it.cells {
		cl := &it.cells[i]
		if cl.state == absent {
			continue
		}
		name := s.cfg.Fields[i].Name
		tag := tagOf(name)
		hash := s.h.word(ofField, append(append(append(scratch[:0], name...), 0, cl.state), cl.value...))
		old, have := known.Lookup(tag)
		same := have && old == hash
		changed = changed || !same
		if same && !whole && !e.doubt {
			continue
		}
		f.hashes = append(f.hashes, fieldHash{tag, hash})
		c.Fields = append(c.Fields, delivery.Field{Name: name, Value: cl.value, Clear: cl.state == cleared})
		if cl.state == cleared {
			c.Fields[len(c.Fields)-1].Value = nil
		}
	}
	changed = s.changeReferences(f, &c, it, known) || changed
	if it.match != nil {
		c.Match = delivery.Field{Name: s.cfg.Match.Name, Value: it.match}
		if it.matchID != e.known.Match && op == delivery.Update && c.ID != "" {
			c.Fields = append(c.Fields, c.Match)
			c.Match = delivery.Field{}
		}
		changed = changed || it.matchID != e.known.Match
	}
	if !changed && op != delivery.Append {
		return nil
	}
	c.Idempotency = s.h.idempotency(it, op)
	f.change = c
	return f
}

// resolveDelete removes a record that we created. s.mu is held.
func (s *Sink) resolveDelete(e *entry, it *item) *flight {
	ghost := s.cfg.OwnMatch && e.doubt && !e.there() && it.old != nil // a creation may have been applied unnoticed
	switch {
	case !e.there() && !ghost:
		s.drop(e, e.pop(), delivery.Result{Outcome: delivery.Skipped}, CodeNotThere)
		return nil
	case !e.known.Owned && !ghost:
		s.drop(e, e.pop(), delivery.Result{Outcome: delivery.Skipped}, CodeNotOurs)
		return nil
	case !it.sweep && !s.deletesMayGo(e):
		return nil
	}
	op := delivery.Delete
	if s.cfg.OnDelete == ArchiveRecord {
		op = delivery.Archive
	}
	f := &flight{e: e, it: it, op: op, bytes: it.bytes}
	f.change = delivery.Change{Key: string(it.key[:]), ID: e.known.ID, Idempotency: s.h.idempotency(it, op)}
	if it.old != nil {
		f.change.Match = delivery.Field{Name: s.cfg.Match.Name, Value: it.old}
	}
	return f
}

// claim makes sure that no other row has the match value of it. It returns the
// entry whose record is taken over, and false if the item was settled or put
// off. s.mu is held.
func (s *Sink) claim(e *entry, it *item) (taken *entry, ok bool) {
	if it.matchID == (state.Key{}) || it.matchID == e.known.Match && !e.known.Gone {
		return nil, true
	}
	if it.unasked {
		s.later(e, holdAgain)
		return nil, false
	}
	owner := it.owner
	if owner != nil && s.keys[owner.known.Key] != nil {
		owner = s.keys[owner.known.Key] // it may have given the value up
	}
	if k := s.claims[it.matchID]; k != it.key && s.keys[k] != nil {
		owner = s.keys[k]
	}
	switch {
	case owner == nil, owner.idle() && !owner.has(it.matchID):
		s.claims[it.matchID] = it.key
		return nil, true
	case !owner.idle() && (e.waits.IsZero() || s.now().Sub(e.waits) < s.cfg.ReferenceWait):
		if e.waits.IsZero() { // two rows may wait for each other's value
			e.waits = s.now()
		}
		s.later(e, holdAgain) // its row may be about to take the value, or to give it up
		return nil, false
	case !owner.idle(), s.cfg.Conflict == RejectSecond:
		s.drop(e, e.pop(), delivery.Result{Outcome: delivery.Rejected}, CodeMatchConflict)
		return nil, false
	case owner.known.Pos.Compare(it.pos) > 0:
		s.outcomes(it.part).Superseded++
		s.finish(e, e.pop())
		return nil, false
	}
	s.claims[it.matchID] = it.key
	return owner, true
}

// has reports whether the record of e has a match value.
func (e *entry) has(match state.Key) bool { return e.known.Match == match && !e.known.Gone }

// resolveUnsure asks what became of a change that nobody knows of, unless it
// may simply be sent again or a newer one takes its place. s.mu is held.
func (s *Sink) resolveUnsure(e *entry) *flight {
	f := e.unsure
	if s.c.canRead() && f.op != delivery.Append && f.it.match != nil {
		return &flight{e: e, it: f.it, change: f.change, hashes: f.hashes, taken: f.taken, bytes: f.bytes}
	}
	return s.again(e)
}

// again has an unsure change sent again, or what is newer instead. s.mu is held.
func (s *Sink) again(e *entry) *flight {
	f := e.unsure
	e.unsure = nil
	if s.cfg.AtMostOnce && (f.op == delivery.Insert || f.op == delivery.Append) {
		s.drop(e, f.it, delivery.Result{Outcome: delivery.Rejected}, CodeUnknown)
		return nil
	}
	s.back(e, f.it)
	return nil
}

// canRead reports whether the destination can be read, as far as is known.
func (c *Connection) canRead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.readable
}

// readBack reads what became of unsure changes.
func (s *Sink) readBack(ctx context.Context, b *batch) {
	values := make([]string, len(b.flights))
	names := make([]string, 0, len(s.cfg.Fields))
	for _, f := range s.cfg.Fields {
		names = append(names, f.Name)
	}
	for i, f := range b.flights {
		values[i] = plain(f.it.match)
	}
	found, err := s.c.dest.Read(ctx, s.cfg.Object, s.cfg.Match.Name, values, names)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	if errors.Is(err, ErrUnreadable) {
		s.c.mu.Lock()
		s.c.readable = false
		s.c.mu.Unlock()
	}
	for i, f := range b.flights {
		f.e.flight = nil
		if err != nil && !errors.Is(err, ErrUnreadable) {
			s.later(f.e, s.backoff(f.e.attempts))
			continue
		}
		at := slices.IndexFunc(found, func(x delivery.Found) bool { return x.Match == values[i] })
		was := f.e.unsure
		switch {
		case err != nil || at < 0 && was.op != delivery.Delete && was.op != delivery.Archive:
			s.again(f.e)
		case at < 0, was.op != delivery.Delete && was.op != delivery.Archive && holds(found[at], was.change.Fields):
			f.e.unsure = nil
			r := delivery.Result{Outcome: delivery.Applied}
			if at >= 0 {
				r.ID = found[at].ID
			}
			s.apply(was, r)
		default:
			if f.e.known.ID == "" {
				f.e.known.ID = found[at].ID
			}
			s.again(f.e)
		}
	}
	s.outage.answered()
}
