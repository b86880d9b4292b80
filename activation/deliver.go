package activation

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
)

// outage knows whether the destination as a whole does not answer. While it
// does not, one request at a time asks, and no record counts an attempt.
type outage struct {
	failed int // requests in a row of which every record failed
	open   bool
	since  time.Time
	probe  time.Time // not before
	last   delivery.Result
}

// outageAfter failed requests in a row it is not the fault of their records.
const outageAfter = 3

func (o *outage) answered() { *o = outage{} }

// deliver sends a batch and settles its results.
func (s *Sink) deliver(b *batch) {
	if b.job != nil {
		s.deliverJob(b.job)
	} else if b.op == 0 {
		s.readBack(s.ctx, b)
	} else {
		// A batch of n halves down to one record in 2·log2(n) further requests;
		// the budget lets several culprits be found.
		budget := 8
		for n := len(b.flights); n > 1; n /= 2 {
			budget += 4
		}
		s.send(b, b.flights, &budget)
	}
	s.mu.Lock()
	s.inflight--
	if b.job != nil {
		s.working--
	}
	if s.busy == 0 {
		s.settled.Broadcast()
	}
	s.mu.Unlock()
	s.poke()
}

// send sends flights as one request. A refusal of all that names no record is
// split to find the culprits, and beyond the budget each is sent alone.
func (s *Sink) send(b *batch, flights []*flight, budget *int) {
	req := delivery.Request{Object: s.cfg.Object, Operation: b.op, Lane: b.lane, Changes: make([]delivery.Change, len(flights))}
	for i, f := range flights {
		req.Changes[i] = f.change
	}
	s.point(BeforeSend)
	if s.ctx.Err() != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, f := range flights {
			s.back(f.e, f.it) // not sent
		}
		return
	}
	results := s.c.dest.Send(s.ctx, req)
	s.point(AfterSend)
	for len(results) < len(flights) { // what the answer does not name is unknown, never applied
		results = append(results, delivery.Result{})
	}
	if len(flights) > 1 && s.ctx.Err() == nil && slices.ContainsFunc(results[:len(flights)], func(r delivery.Result) bool { return r.WholeBatch && r.Outcome == delivery.Rejected }) {
		s.split(b, flights, budget)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleAll(flights, results)
}

// split sends the parts of a refused batch.
func (s *Sink) split(b *batch, flights []*flight, budget *int) {
	size := (len(flights) + 1) / 2
	if *budget -= 2; *budget < 0 {
		size = 1
	}
	for part := range slices.Chunk(flights, size) {
		s.mu.Lock()
		stop := s.err != nil || s.ctx.Err() != nil
		if stop {
			for _, f := range part {
				s.back(f.e, f.it) // not sent
			}
		}
		s.mu.Unlock()
		if !stop {
			s.send(b, part, budget)
		}
	}
}

// settleAll settles the results of one request. s.mu is held.
func (s *Sink) settleAll(flights []*flight, results []delivery.Result) {
	down := true
	for _, r := range results[:len(flights)] {
		down = down && (r.Outcome == delivery.Retry || r.Outcome == delivery.Unknown) && (r.Status == 0 || r.Status >= 500)
	}
	if down && s.ctx.Err() == nil {
		s.noteOutage(results[0])
	} else if !down {
		s.outage.answered()
	}
	for i, f := range flights {
		s.settleOne(f, results[i])
	}
	s.poke()
}

// noteOutage notes a request that failed as a whole. s.mu is held.
func (s *Sink) noteOutage(r delivery.Result) {
	o := &s.outage
	now := s.now()
	if o.failed++; o.failed == 1 {
		o.since = now
	}
	o.last = r
	o.open = o.failed >= outageAfter
	o.probe = now.Add(s.backoff(o.failed))
	if o.open && now.Sub(o.since) >= s.cfg.Patience {
		s.fail(fmt.Errorf("%s: %s: the destination does not answer since %s (HTTP %d)", s.cfg.Name, CodeUnavailable, o.since.UTC().Format(time.RFC3339), r.Status))
	}
}

// settleOne settles one result. s.mu is held.
func (s *Sink) settleOne(f *flight, r delivery.Result) {
	e, it := f.e, f.it
	e.flight = nil
	switch r.Outcome {
	case delivery.Applied, delivery.Unchanged:
		s.apply(f, r)
	case delivery.Skipped:
		code := CodeNotThere
		if f.op == delivery.Insert {
			code = CodeExists
		}
		if it.remove { // what is not there need not be removed
			s.apply(f, delivery.Result{Outcome: delivery.Unchanged, Status: r.Status, RequestID: r.RequestID})
			return
		}
		s.drop(e, it, r, code)
	case delivery.Rejected:
		s.drop(e, it, r, CodeRefused)
	case delivery.Throttled:
		pause := r.RetryAfter
		if pause <= 0 {
			pause = s.cfg.RetryBase
		}
		if until := s.now().Add(pause); until.After(s.paused) {
			s.paused = until
		}
		s.back(e, it)
	case delivery.Auth, delivery.Config:
		code := CodeAuth
		if r.Outcome == delivery.Config {
			code = CodeConfig
		}
		s.back(e, it)
		s.fail(&StopError{Connection: s.cfg.Name, Code: code, Detail: words(r)})
	case delivery.Retry:
		s.retry(e, it, r)
	default:
		s.unsure(f, r)
	}
}

// words are what the vendor says of a result.
func words(r delivery.Result) string {
	s := fmt.Sprintf("HTTP %d", r.Status)
	for _, w := range []string{r.VendorCode, r.Message, r.RequestID} {
		if w != "" {
			s += ", " + w
		}
	}
	return s
}

// retry sends it, or what is newer, again after a while. s.mu is held.
func (s *Sink) retry(e *entry, it *item, r delivery.Result) {
	e.doubt, e.maybeGone = true, e.maybeGone || it.remove // a server error may come after the change was made
	if !s.outage.open {
		e.attempts++
	}
	if e.attempts >= s.cfg.Attempts && (len(e.pending) == 0 || s.cfg.Operation == delivery.Append) {
		s.drop(e, it, r, CodeAttempts)
		return
	}
	wait := s.backoff(e.attempts)
	if r.RetryAfter > 0 {
		wait = min(r.RetryAfter, time.Hour)
	}
	e.notBefore = s.now().Add(wait)
	s.back(e, it)
}

// unsure puts a key into quarantine: an older request may still have effect,
// so nothing newer is sent before that cannot be any more. s.mu is held.
func (s *Sink) unsure(f *flight, r delivery.Result) {
	e := f.e
	e.doubt, e.maybeGone = true, e.maybeGone || f.it.remove
	if !s.outage.open {
		e.attempts++
	}
	if e.attempts >= s.cfg.Attempts && len(e.pending) == 0 {
		s.drop(e, f.it, r, CodeUnknown)
		return
	}
	e.unsure = f
	e.known.Quarantine = s.now().Add(s.cfg.Ambiguous)
	e.notBefore = e.known.Quarantine
	s.push(e)
}

// backoff is how long the n-th attempt waits: full jitter, so that records that
// failed together do not come back together.
func (s *Sink) backoff(n int) time.Duration {
	full := min(s.cfg.RetryBase<<min(max(n-1, 0), 20), s.cfg.RetryMax)
	return full/4 + rand.N(full)
}

// back has it delivered again, unless something newer of its key waits.
// s.mu is held.
func (s *Sink) back(e *entry, it *item) {
	e.flight = nil
	switch {
	case s.cfg.Operation == delivery.Append, len(e.pending) == 0:
		e.pending = slices.Insert(e.pending, 0, it)
	default:
		e.pending[0].inherit(it)
		if !it.sweep {
			s.outcomes(it.part).Superseded++
		}
		s.buffered -= it.bytes
	}
	s.push(e)
}

// finish ends it, which is settled. s.mu is held.
func (s *Sink) finish(e *entry, it *item) {
	s.buffered -= it.bytes
	e.flight, e.waits = nil, time.Time{}
	e.known.Quarantine = time.Time{}
	if len(e.pending) > 0 {
		s.push(e)
		return
	}
	s.quiet(e)
}

// pop takes the first pending item of e out: it is being sent, or settled.
func (e *entry) pop() *item {
	it := e.pending[0]
	if e.pending = e.pending[1:]; len(e.pending) == 0 {
		e.pending = nil
	}
	return it
}

// apply settles a record that the destination has. s.mu is held.
func (s *Sink) apply(f *flight, r delivery.Result) {
	e, it := f.e, f.it
	k := &e.known
	lost := s.cfg.OwnMatch && e.doubt && !e.there() && it.matchID != (state.Key{}) // an attempt whose answer was lost has made it
	if f.op == delivery.Delete || f.op == delivery.Archive {
		k.Gone, k.Fields, k.Row, k.Match = true, nil, 0, state.Key{}
	} else {
		if k.Gone {
			k.Gone, k.Fields, k.Owned, k.ID = false, nil, false, ""
		}
		if f.taken != nil {
			s.takeOver(e, f.taken)
		}
		if f.op != delivery.Append { // an event is never compared with another one
			for _, h := range f.hashes {
				k.Fields = k.Fields.With(h.tag, h.hash)
			}
		}
		if it.matchID != (state.Key{}) {
			k.Match = it.matchID
		}
		k.Row = it.row
		if slices.ContainsFunc(it.refs, func(r refCell) bool { return r.state == present && r.id == "" }) {
			k.Row = 0 // left out: the same row again brings it
		}
		k.Owned = k.Owned || lost || r.Created || f.op == delivery.Insert && r.Outcome == delivery.Applied
	}
	if r.ID != "" {
		k.ID = r.ID
	}
	e.exists, e.doubt, e.maybeGone = true, false, false
	if !it.sweep {
		count := s.outcomes(it.part)
		if r.Outcome == delivery.Applied {
			count.Applied++
		} else {
			count.Unchanged++
		}
	}
	s.c.refused.add(false)
	s.conclude(e, it, r, "")
	s.note(e, it, f.op.String(), r, "")
	s.finish(e, it)
}

// conclude records the outcome of it in what is known of its key. s.mu is held.
func (s *Sink) conclude(e *entry, it *item, r delivery.Result, code Code) {
	k := &e.known
	k.Outcome, k.Code, k.Attempts = r.Outcome, string(code), e.attempts
	if e.doubt { // nothing was applied, and what is there nobody knows
		k.Fields, k.Row, e.doubt, e.maybeGone = nil, 0, false, false
	}
	if !it.sweep {
		k.Pos, k.Part, k.Offset = it.pos, it.part, it.offset
	}
	e.attempts = 0
	if !it.loose {
		s.soil(e)
	}
}

// takeOver gives e the record of another row. s.mu is held.
func (s *Sink) takeOver(e, other *entry) {
	k, o := &e.known, &other.known
	if k.ID == "" {
		k.ID = o.ID
	}
	k.Owned = o.Owned
	k.Fields = slices.Clone(o.Fields)
	o.Match, o.ID, o.Owned, o.Gone, o.Fields, o.Row = state.Key{}, "", false, true, nil, 0
	if s.keys[o.Key] == nil {
		s.keys[o.Key] = other
	}
	s.soil(other)
}

// drop settles it without delivering it: rejected or
// skipped. s.mu is held.
func (s *Sink) drop(e *entry, it *item, r delivery.Result, code Code) {
	count := s.outcomes(it.part)
	k := &e.known
	if r.Outcome == delivery.Skipped {
		if !it.sweep {
			count.Skipped++
		}
	} else {
		r.Outcome = delivery.Rejected
		reason := about(code)
		if r.Status != 0 || r.VendorCode != "" || r.Message != "" {
			reason = words(r) + ": " + reason
		}
		if !it.sweep {
			count.Rejected++
			count.async++
			s.letters = append(s.letters, Letter{Stream: s.cfg.Stream, Partition: it.part, Offset: it.offset, Code: string(code), Reason: s.cfg.Name + ": " + reason})
		}
		k.Row = 0
		s.forgetRefused(e, it)
		s.c.refused.add(true)
		if s.c.refused.tripped(s.cfg.Guards.RejectRatio, s.cfg.Guards.RejectRows) && !s.waved {
			s.fail(&StopError{Connection: s.cfg.Name, Code: CodeRejectGuard, Detail: "the newest: " + reason})
		}
	}
	s.note(e, it, s.cfg.Operation.String(), r, code)
	s.conclude(e, it, r, code)
	if len(e.pending) > 0 && s.cfg.Operation != delivery.Append {
		e.pending[0].inherit(it)
	}
	s.finish(e, it)
}

// forgetRefused forgets the fields that a refused record would have changed: a
// later row that leaves them out cannot be told from one that has them.
func (s *Sink) forgetRefused(e *entry, it *item) {
	for i, c := range it.cells {
		if c.state == absent {
			continue
		}
		name := s.cfg.Fields[i].Name
		hash := s.h.word(ofField, append(append([]byte(name), 0, c.state), c.value...))
		if old, have := e.known.Fields.Lookup(tagOf(name)); have && old != hash {
			e.known.Fields = e.known.Fields.Without(tagOf(name))
		}
	}
}

// plain returns a JSON value as text without quotes.
func plain(v []byte) string {
	var s string
	if len(v) > 0 && v[0] == '"' && json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

// holds reports whether a record has the values of fields, whatever their JSON types.
func holds(r delivery.Found, fields []delivery.Field) bool {
	for _, f := range fields {
		want := plain(f.Value)
		if f.Clear || want == "null" {
			want = ""
		}
		got := ""
		if i := slices.IndexFunc(r.Fields, func(x delivery.Field) bool { return x.Name == f.Name }); i >= 0 {
			got = plain(r.Fields[i].Value)
		}
		if got == "null" {
			got = ""
		}
		if got != want {
			return false
		}
	}
	return true
}
