package topic

import (
	"fmt"
	"time"

	"github.com/sluice-data/sluice/record"
)

// full reports whether the sink should be flushed before it takes more.
func (l *lane) full() bool {
	cfg := &l.c.cfg
	return l.dirty && (l.sink.Buffered() >= cfg.Bytes || cfg.Rows > 0 && l.rows >= cfg.Rows || l.flushSoon.Load() && l.rows > 0)
}

// due reports whether it is time for a flush.
func (l *lane) due() bool {
	if l.rows == 0 {
		l.flushSoon.Store(false) // it would free nothing
	}
	if !l.dirty {
		return false
	}
	age, every := time.Now().Sub(l.since), l.c.cfg.Every
	switch {
	case l.full(), l.atTarget():
		return true
	case l.rows > 0:
		return age >= every
	default:
		// Nothing but marks: a commit of its own is for a quiet moment.
		return age >= every && l.idle || age >= 10*every
	}
}

// atTarget reports whether CatchUp waits for a flush of what the sink has taken.
func (l *lane) atTarget() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.target == nil {
		return false
	}
	for n, p := range l.parts {
		if p == nil || p.next < l.target[n] {
			return false
		}
	}
	return true
}

func (l *lane) setTarget(t map[int32]int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = t
}

// flush makes what the sink has taken durable, together with the marks.
func (l *lane) flush() error {
	marks := make(map[int32]record.Mark, len(l.parts))
	for n, p := range l.parts {
		if p.next == p.mark.Next {
			continue
		}
		m := record.Mark{Next: p.next, Last: p.last, TopicID: l.topicID, Cluster: l.c.k.cluster, Counts: p.mark.Counts}
		m.Counts.Add(p.pending)
		marks[n] = m
	}
	// Invariant 2: the marks are durable with the data or not at all.
	stored, err := l.sink.Flush(l.c.work, marks)
	if err != nil {
		return fmt.Errorf("flush %d rows of %s: %w", l.rows, l.stream.Name, err) // Invariant 3: nothing is committed from here on
	}
	for n, want := range marks {
		got, ok := stored[n]
		if !ok || got.Next != want.Next {
			return fmt.Errorf("flush %s: the sink has not stored the mark of partition %d", l.stream.Name, n)
		}
		if !got.Counts.Balanced() { // Invariant 5
			l.c.cfg.Logger.Error("records are unaccounted for", "sink", l.c.cfg.Name, "stream", l.stream.Name.String(),
				"partition", n, "counts", fmt.Sprintf("%+v", got.Counts))
		}
		p := l.parts[n]
		p.mark, p.pending = got, record.Counts{}
		l.setDurable(n, got.Next)
		l.c.commits.note(l.topic, n, got.Next)
	}
	if l.atTarget() {
		l.setTarget(nil)
	}
	l.dirty, l.rows = false, 0
	l.flushSoon.Store(false)
	l.c.k.budget.use(l, l.sink.Buffered())
	if l.failures > 0 {
		l.failures = 0
		l.setTrouble(nil)
		l.show(l.state, "")
	}
	l.count()
	return nil
}

// count shows the marks' totals on the board.
func (l *lane) count() {
	var c record.Counts
	var newest int64
	var last record.Position
	for _, p := range l.parts {
		if p == nil {
			continue
		}
		c.Add(p.mark.Counts)
		newest = max(newest, p.newest)
		if p.mark.Last.Compare(last) > 0 {
			last = p.mark.Last
		}
	}
	s := l.stats
	s.Read.Store(c.Read)
	s.Delivered.Store(c.Delivered)
	s.Filtered.Store(c.Filtered)
	s.Superseded.Store(c.Superseded)
	s.Duplicate.Store(c.Duplicate)
	s.Rejected.Store(c.Rejected)
	s.SetPosition(last.String())
	if newest > 0 {
		s.SourceMicros.Store(newest)
	}
	if behind := time.Now().UnixMicro() - newest; !l.caughtUp() && newest > 0 {
		s.BehindMicros.Store(max(behind, 0))
	} else {
		s.BehindMicros.Store(0)
	}
}

// caughtUp reports whether the sink has taken everything up to the ends of the
// log as last seen.
func (l *lane) caughtUp() bool {
	for _, p := range l.parts {
		if p != nil && p.next < p.high {
			return false
		}
	}
	return true
}
