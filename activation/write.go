package activation

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/record"
)

// Write takes the rows of b: unchanged ones are settled at once, the others
// wait for their delivery, folded by key.
func (s *Sink) Write(ctx context.Context, b *record.Batch) ([]record.Reject, error) {
	defer b.Release()
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if op, ok := b.Control(); ok {
		s.took(b)
		return nil, s.control(op, b)
	}
	m, err := s.mapping(b.Schema)
	if err != nil {
		return nil, err
	}
	var rejects []record.Reject
	for from := 0; from < b.Len(); from += takeRows {
		if rejects, err = s.takeRows(ctx, m, b, from, min(from+takeRows, b.Len()), rejects); err != nil {
			return nil, err
		}
	}
	s.took(b)
	s.poke()
	return rejects, nil
}

// took notes how far the partition of b was taken.
func (s *Sink) took(b *record.Batch) {
	if n := len(b.Offsets); n > 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.taken[b.Partition.Partition] = max(s.taken[b.Partition.Partition], b.Offsets[n-1])
	}
}

// mapping returns the mapping of a schema.
func (s *Sink) mapping(schema *record.Schema) (*mapping, error) {
	if m := s.maps[schema.ID]; m != nil {
		return m, nil
	}
	m, err := compile(s.cfg, schema, s.c.st.Secret())
	if err != nil {
		return nil, &StopError{Connection: s.cfg.Name, Code: CodeConfig, Detail: err.Error()}
	}
	s.maps[schema.ID] = m
	return m, nil
}

// takeRows takes some rows, whose keys are looked up together.
func (s *Sink) takeRows(ctx context.Context, m *mapping, b *record.Batch, from, to int, rejects []record.Reject) ([]record.Reject, error) {
	keys := make([]state.Key, to-from)
	ask := make([]state.Key, 0, to-from)
	known := make(map[state.Key]state.Entry, to-from)
	s.mu.Lock()
	for i := range keys {
		k, ok := m.key(b, from+i)
		if !ok {
			continue
		}
		keys[i] = k
		if s.keys[k] != nil {
			continue
		}
		if _, asked := known[k]; !asked {
			known[k] = state.Entry{Part: -1} // nothing is known of it
			ask = append(ask, k)
		}
	}
	s.mu.Unlock()
	if err := s.c.st.Get(ctx, ask, func(e state.Entry) { known[e.Key] = e }); err != nil {
		return nil, err
	}
	refs, err := s.references(ctx, m, b, from, to)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	for i, k := range keys {
		row := from + i
		var code Code
		if k == (state.Key{}) {
			code = CodeNoKey
		} else {
			var cells []refCell
			if refs != nil {
				cells = refs[i]
			}
			code = s.takeRow(m, b, row, k, known, cells)
		}
		if code != "" {
			s.outcomes(b.Partition.Partition).Rejected++
			rejects = append(rejects, record.Reject{Row: row, Code: string(code), Reason: fmt.Sprintf("%s: %s", s.cfg.Name, about(code))})
		}
	}
	s.mu.Unlock()
	return rejects, s.askOwners(ctx, keys)
}

// takeRow takes one row. It returns the code of a row that can never be
// delivered. s.mu is held.
func (s *Sink) takeRow(m *mapping, b *record.Batch, row int, k state.Key, known map[state.Key]state.Entry, refs []refCell) Code {
	e := s.keys[k]
	have, exists := known[k]
	exists = exists && have.Part >= 0
	if e != nil {
		have, exists = e.known, e.exists
	}
	count := s.outcomes(b.Partition.Partition)
	if exists || e != nil {
		if s.settledBefore(b, row, &have, count) {
			return ""
		}
	}
	doubt := row < len(b.Offsets) && b.Offsets[row] <= s.inherits(b.Partition.Partition)
	op := b.Ops[row]
	allowed := op == record.OpDelete || m.allowed(b, row)
	if op == record.OpDelete || !allowed {
		if op == record.OpDelete && (s.cfg.OnDelete == IgnoreDelete || s.cfg.Operation == delivery.Append) {
			s.skip(e, b, row, k, CodeIgnoredDelete)
			return ""
		}
		if !allowed && (!s.cfg.Consent.Delete || s.cfg.OnDelete == IgnoreDelete) {
			s.skip(e, b, row, k, CodeNoConsent)
			return ""
		}
		it := m.blank(b, row, k)
		it.remove = true
		e = s.entry(k, have, exists)
		e.doubt, e.maybeGone = e.doubt || doubt, e.maybeGone || doubt
		s.enqueue(e, it)
		return ""
	}
	full := m.encode(b, row)
	for i := range refs {
		full = full && refs[i].state != absent
	}
	hash := uint64(0)
	if full {
		hash = m.rowHash(refs)
	}
	if e == nil && !doubt && exists && hash != 0 && hash == have.Row && !have.Gone && s.cfg.Operation != delivery.Append &&
		(have.Outcome == delivery.Applied || have.Outcome == delivery.Unchanged) {
		count.Unchanged++
		if s.cfg.OnDelete != IgnoreDelete && op == record.OpRead && b.Pos[row].Epoch > have.Pos.Epoch {
			// The sweep at the end of the backfill must know that the row is there.
			s.seen(s.entry(k, have, exists), b, row)
		}
		return ""
	}
	if m.match >= 0 && m.buf[0] == absent && (b.After[m.match].State[row] == record.Null || !exists || have.ID == "") {
		return CodeNoMatch
	}
	it := m.item(b, row, k, refs)
	it.row, it.partial = hash, !full
	it.unasked = it.matchID != (state.Key{}) && (!exists || have.Gone || it.matchID != have.Match) && s.cfg.Operation != delivery.Append
	e = s.entry(k, have, exists)
	e.doubt = e.doubt || doubt
	s.enqueue(e, it)
	return ""
}

// inherits returns the highest offset of a partition that an earlier owner may
// have sent; what it sent was perhaps applied, and never stored. s.mu is held.
func (s *Sink) inherits(part int32) int64 {
	if sent, ok := s.inherited[part]; ok {
		return sent
	}
	return -1
}

// askOwners asks the state who has the match values of rows that were taken.
// Nothing is sent of these before.
func (s *Sink) askOwners(ctx context.Context, keys []state.Key) error {
	asked := map[state.Key][]*item{}
	s.mu.Lock()
	for _, k := range keys {
		e := s.keys[k]
		if e == nil {
			continue
		}
		for _, it := range e.pending {
			if it.unasked {
				asked[it.matchID] = append(asked[it.matchID], it)
			}
		}
	}
	s.mu.Unlock()
	if len(asked) == 0 {
		return nil
	}
	owners := map[state.Key]state.Entry{}
	if err := s.c.st.Owners(ctx, slices.Collect(maps.Keys(asked)), func(o state.Entry) { owners[o.Match] = o }); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for match, items := range asked {
		for _, it := range items {
			it.unasked = false
			if o, ok := owners[match]; ok && o.Key != it.key && !o.Gone {
				it.owner = &entry{known: o, exists: true}
			}
		}
	}
	return nil
}

// settledBefore reports whether a row is not newer than what is settled of its
// key, and counts it: it was read again after a crash, or it is the row of a
// backfill that the stream has overtaken. s.mu is held.
func (s *Sink) settledBefore(b *record.Batch, row int, have *state.Entry, count *tally) bool {
	part, offset := b.Partition.Partition, int64(0)
	if row < len(b.Offsets) {
		offset = b.Offsets[row]
	}
	c := 0
	if !b.Pos[row].IsZero() && !have.Pos.IsZero() {
		c = b.Pos[row].Compare(have.Pos)
	}
	if c == 0 {
		if part != have.Part {
			return false
		}
		c = cmp.Compare(offset, have.Offset)
	}
	switch {
	case c > 0:
		return false
	case c < 0 && s.cfg.Operation == delivery.Append:
		count.Duplicate++ // an event is never superseded: it was delivered
	case c < 0:
		count.Superseded++
	case have.Outcome == delivery.Applied || have.Outcome == delivery.Unchanged:
		count.Unchanged++
	case have.Outcome == delivery.Skipped:
		count.Skipped++
	case have.Outcome == delivery.Rejected && !s.waved:
		count.Rejected++
		count.async++
	default:
		return false
	}
	return true
}

// entry returns the entry of a key, made from what is known. s.mu is held.
func (s *Sink) entry(k state.Key, have state.Entry, exists bool) *entry {
	e := s.keys[k]
	if e == nil {
		if !exists {
			have = state.Entry{}
		}
		have.Key = k
		e = &entry{known: have, exists: exists, notBefore: have.Quarantine}
		if exists {
			match := have.Match
			e.match = &match
		}
		s.keys[k] = e
		if !have.Gone {
			s.claimFor(have.Match, k)
		}
	}
	return e
}

// skip settles a row that is not to be delivered. What waits of its key must
// not be sent any more where consent is gone. s.mu is held.
func (s *Sink) skip(e *entry, b *record.Batch, row int, k state.Key, code Code) {
	s.outcomes(b.Partition.Partition).Skipped++
	if e != nil && code == CodeNoConsent {
		for _, it := range e.pending {
			s.outcomes(it.part).Superseded++
			s.buffered -= it.bytes
		}
		if len(e.pending) > 0 {
			e.pending = nil
			s.quiet(e)
		}
	}
	if s.c.opts.Log != nil {
		it := &item{key: k, part: b.Partition.Partition, pos: b.Pos[row]}
		if row < len(b.Offsets) {
			it.offset = b.Offsets[row]
		}
		if e == nil {
			e = &entry{}
		}
		s.note(e, it, b.Ops[row].String(), delivery.Result{Outcome: delivery.Skipped}, code)
	}
}

// seen moves the position of a key whose record is unchanged. s.mu is held.
func (s *Sink) seen(e *entry, b *record.Batch, row int) {
	e.known.Pos, e.known.Part = b.Pos[row], b.Partition.Partition
	if row < len(b.Offsets) {
		e.known.Offset = b.Offsets[row]
	}
	s.soil(e)
}

// soil marks a key as to be stored. s.mu is held.
func (s *Sink) soil(e *entry) {
	if e.dirty {
		return
	}
	if len(s.dirty) == 0 {
		s.dirtyAt = s.now()
	}
	e.dirty = true
	s.dirty = append(s.dirty, e)
}

// enqueue has it delivered. A newer row takes the place of one that waits; an
// event of an Append waits behind the others of its key. s.mu is held.
func (s *Sink) enqueue(e *entry, it *item) {
	if e.idle() {
		s.busy++
	}
	s.buffered += it.bytes
	s.recall(it)
	if len(e.pending) > 0 && s.cfg.Operation != delivery.Append {
		old := e.pending[0]
		it.inherit(old)
		if !old.sweep {
			s.outcomes(old.part).Superseded++
		}
		s.buffered -= old.bytes
		e.pending[0] = it
	} else {
		e.pending = append(e.pending, it)
	}
	s.claimFor(it.matchID, it.key)
	if e.flight == nil {
		s.push(e)
	}
}

// claimFor notes that a key has or is about to have a match value, if no other
// key has noted it. s.mu is held.
func (s *Sink) claimFor(match, key state.Key) {
	if _, claimed := s.claims[match]; !claimed && match != (state.Key{}) {
		s.claims[match] = key
	}
}

// inherit takes over the cells that the source has left out of it from an
// older row that was not delivered.
func (it *item) inherit(old *item) {
	if it.remove || old.remove || !it.partial {
		return
	}
	for i := range it.cells {
		if it.cells[i].state == absent && i < len(old.cells) {
			it.cells[i] = old.cells[i]
		}
	}
	for i := range it.refs {
		if it.refs[i].state == absent && i < len(old.refs) {
			it.refs[i] = old.refs[i]
		}
	}
	if it.match == nil {
		it.match, it.matchID, it.unasked, it.owner = old.match, old.matchID, old.unasked, old.owner
	}
	if it.old == nil {
		it.old = old.old
	}
}

// push puts an entry with something pending into its queue. s.mu is held.
func (s *Sink) push(e *entry) {
	if e.notBefore.After(s.now()) {
		if !e.delayed {
			e.delayed = true
			s.delayed = append(s.delayed, e)
		}
		return
	}
	lane := delivery.Stream
	if len(e.pending) > 0 {
		lane = e.pending[0].lane
	}
	if !e.ready[lane] {
		e.ready[lane], e.since = true, s.now()
		s.ready[lane] = append(s.ready[lane], e)
	}
}

// quiet is called when an entry may have nothing to deliver any more. s.mu is held.
func (s *Sink) quiet(e *entry) {
	if !e.idle() {
		return
	}
	s.busy--
	e.attempts = 0
	if s.busy == 0 {
		s.settled.Broadcast()
	}
}
