package vector

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/vector/store"
)

// Sink receives the records of one topic. Write stores each document at once, in a transaction of its own that
// its version fences; Flush moves the marks, in the transaction that closes the prefix (invariant 2). What a
// crash repeats changes nothing.
type Sink struct {
	x        *Index
	st       Stream
	stream   string
	fixedACL *store.ACL
	take     func(ctx context.Context, b *record.Batch) (taken, error)

	loaded   map[int32]record.Mark
	counts   map[int32]record.Counts // delivered and superseded since the last Flush
	mu       sync.Mutex              // guards spent: a window may be embedded again while the next one is
	spent    store.Spent
	followed string         // whose age counts: the identity of groups, the permissions of a stream; else empty
	filling  map[int32]bool // of what is followed: a backfill has begun and not ended
	buffered int            // what is written counts until Flush, so that marks do not fall far behind
}

// taken is what became of the rows of a batch.
type taken struct {
	rejects    []record.Reject
	superseded int
	bytes      int
}

// Load returns the stored marks of parts.
func (s *Sink) Load(ctx context.Context, parts []int32) (map[int32]record.Mark, error) {
	marks, err := s.x.store.Marks(ctx, s.x.cfg.Owner, s.st.Topic, parts)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		delete(s.loaded, p)
		delete(s.counts, p)
	}
	maps.Copy(s.loaded, marks)
	if s.followed != "" && len(marks) > 0 {
		s.follow()
	}
	return marks, nil
}

// Write stores the rows of b.
func (s *Sink) Write(ctx context.Context, b *record.Batch) ([]record.Reject, error) {
	defer b.Release()
	if op, ok := b.Control(); ok {
		return nil, s.control(ctx, op, b)
	}
	n, part := b.Len(), b.Partition.Partition
	t, err := s.take(ctx, b)
	if err != nil {
		return nil, err
	}
	// Invariant 5: each row is delivered, superseded or rejected.
	c := s.counts[part]
	c.Superseded += int64(t.superseded)
	c.Delivered += int64(n - t.superseded - len(t.rejects))
	s.counts[part] = c
	s.buffered += t.bytes
	s.x.mu.Lock()
	s.x.written = time.Now()
	s.x.mu.Unlock()
	return t.rejects, nil
}

// control applies a truncate, or the end of a backfill: what it did not bring again is gone.
func (s *Sink) control(ctx context.Context, op record.Op, b *record.Batch) error {
	part, version := b.Partition.Partition, store.VersionOf(b.Pos[0], b.Offsets[0])
	before := version
	switch op {
	case record.OpBackfillBegin:
		if s.followed != "" {
			if s.filling == nil {
				s.filling = map[int32]bool{}
			}
			s.filling[part] = true
		}
		return nil
	case record.OpBackfillEnd:
		delete(s.filling, part)
		before = store.VersionOf(record.Position{Epoch: b.Pos[0].Epoch}, 0)
	}
	switch s.st.Holds {
	case Permissions:
		return s.x.store.SweepPermissions(ctx, s.st.Tenant, s.st.Of, part, before, version)
	case Groups:
		return s.x.store.SweepGroups(ctx, s.st.Identity, part, before, version)
	}
	_, err := s.x.store.Sweep(ctx, s.st.Tenant, s.stream, part, before, version)
	return err
}

// Buffered returns the bytes of the rows since the last Flush: a crash has them read again.
func (s *Sink) Buffered() int { return s.buffered }

// Flush moves the marks.
func (s *Sink) Flush(ctx context.Context, marks map[int32]record.Mark) (map[int32]record.Mark, error) {
	stored := make(map[int32]record.Mark, len(marks))
	for p, m := range marks {
		m.Counts.Delivered += s.counts[p].Delivered
		m.Counts.Superseded += s.counts[p].Superseded
		stored[p] = m
	}
	if err := s.x.store.Advance(ctx, s.x.cfg.Owner, s.st.Topic, s.loaded, stored, s.spent); err != nil {
		return nil, fmt.Errorf("flush %s: %w", s.stream, err)
	}
	maps.Copy(s.loaded, stored)
	for p := range marks {
		delete(s.counts, p)
	}
	s.buffered, s.spent = 0, store.Spent{}
	if s.followed != "" && len(s.filling) == 0 && len(marks) > 0 {
		s.follow()
		if err := s.x.store.Synced(ctx, s.followed, s.st.MaxAge); err != nil {
			return nil, err
		}
	}
	s.x.wakeUp()
	return stored, nil
}

// follow has the maintenance say that the groups or permissions are known, as long as the sink is open.
func (s *Sink) follow() {
	s.x.mu.Lock()
	defer s.x.mu.Unlock()
	s.x.identities[s.followed] = s.st.MaxAge
}

// Close ends the sink; nothing is held that was not stored.
func (s *Sink) Close() error {
	if s.followed != "" {
		s.x.mu.Lock()
		delete(s.x.identities, s.followed)
		s.x.mu.Unlock()
	}
	return nil
}
