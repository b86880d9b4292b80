// Package progress counts what a running sluice does, stream by stream. Every
// screen, the status command, the metrics and the demo read the same Board.
package progress

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// State is what a stream is doing.
type State string

// The states of a stream.
const (
	Starting    State = "starting"
	Backfilling State = "backfilling"
	Streaming   State = "streaming"
	Throttled   State = "throttled"
	Paused      State = "paused"
	Parked      State = "parked" // stopped by its own failure; the others go on; see Note
	Failed      State = "failed"
	Done        State = "done"
)

// Side tells the two halves of the flow apart.
type Side string

// The sides of a flow.
const (
	Source Side = "source"
	Sink   Side = "sink"
)

// Stream is one stream of one source or sink. All methods may be called from
// several goroutines.
type Stream struct {
	side         Side
	owner, name  string
	Read         atomic.Int64 // records read: rows of a source, or Kafka records of a sink
	Total        atomic.Int64 // expected rows of a backfill, 0 = unknown
	Delivered    atomic.Int64 // published by a source, or written by a sink
	Filtered     atomic.Int64
	Superseded   atomic.Int64
	Duplicate    atomic.Int64
	Rejected     atomic.Int64
	SourceMicros atomic.Int64 // source commit time of the newest record done, µs since 1970
	BehindMicros atomic.Int64 // lag: now − source commit time when last measured, 0 = caught up
	Commits      atomic.Int64 // snapshots appended by a sink
	CommitMicros atomic.Int64 // wall clock of the last commit, µs since 1970
	Files        atomic.Int64 // data files written
	Conflicts    atomic.Int64 // commits that another writer was faster than
	Unknown      atomic.Int64 // commits that had landed though an error said otherwise

	CommitTime Histogram // of a sink: from the first try of a commit until it is known to have landed
	Freshness  Histogram // of a sink, at each commit: from the commit in the source of the oldest row in it until it is visible

	reasons reasons

	mu       sync.Mutex
	state    State
	note     string
	position string
	commit   string
}

// Set changes the state; note says why and how to fix it, and holds no row value.
func (s *Stream) Set(state State, note string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.note = state, note
}

// State returns the state and its note.
func (s *Stream) State() (State, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.note
}

// SetPosition records the newest position: of a source, in its own spelling.
func (s *Stream) SetPosition(p string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position = p
}

// Committed records a commit of a sink, named id.
func (s *Stream) Committed(id string, at time.Time) {
	s.Commits.Add(1)
	s.CommitMicros.Store(at.UnixMicro())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commit = id
}

// Row is the state of one stream at one moment, as status --json prints it.
type Row struct {
	Side       Side    `json:"side"`
	Owner      string  `json:"name"`
	Stream     string  `json:"stream"`
	State      State   `json:"state"`
	Note       string  `json:"note,omitempty"`
	Read       int64   `json:"read"`
	Total      int64   `json:"total,omitempty"`
	Delivered  int64   `json:"delivered"`
	Filtered   int64   `json:"filtered"`
	Superseded int64   `json:"superseded"`
	Duplicate  int64   `json:"duplicate"`
	Rejected   int64   `json:"rejected"`
	Position   string  `json:"position,omitempty"`
	Behind     float64 `json:"behind_seconds"`
	Commits    int64   `json:"commits,omitempty"`
	Files      int64   `json:"files,omitempty"`
	LastCommit string  `json:"last_commit,omitempty"`
	CommitAge  float64 `json:"last_commit_age_seconds,omitempty"`

	Reasons   map[string]int64 `json:"rejected_by_reason,omitempty"` // of this process
	Conflicts int64            `json:"commit_conflicts,omitempty"`
	Unknown   int64            `json:"commits_unknown,omitempty"`

	CommitTime, Freshness Distribution `json:"-"`
}

// Board holds all streams of a process.
type Board struct {
	mu      sync.Mutex
	streams []*Stream
}

// Stream returns the stream of the given name, made on first use.
func (b *Board) Stream(side Side, owner, name string) *Stream {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.streams {
		if s.side == side && s.owner == owner && s.name == name {
			return s
		}
	}
	s := &Stream{side: side, owner: owner, name: name, state: Starting}
	b.streams = append(b.streams, s)
	return s
}

// Rows returns every stream as it is at now, sources first, then by name.
func (b *Board) Rows(now time.Time) []Row {
	b.mu.Lock()
	streams := slices.Clone(b.streams)
	b.mu.Unlock()
	rows := make([]Row, 0, len(streams))
	for _, s := range streams {
		rows = append(rows, s.row(now))
	}
	slices.SortFunc(rows, func(x, y Row) int {
		if x.Side != y.Side {
			return -strings.Compare(string(x.Side), string(y.Side)) // "source" before "sink"
		}
		if c := strings.Compare(x.Owner, y.Owner); c != 0 {
			return c
		}
		return strings.Compare(x.Stream, y.Stream)
	})
	return rows
}

func (s *Stream) row(now time.Time) Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := Row{Side: s.side, Owner: s.owner, Stream: s.name, State: s.state, Note: s.note,
		Read: s.Read.Load(), Total: s.Total.Load(), Delivered: s.Delivered.Load(), Filtered: s.Filtered.Load(),
		Superseded: s.Superseded.Load(), Duplicate: s.Duplicate.Load(), Rejected: s.Rejected.Load(),
		Position: s.position, Behind: float64(s.BehindMicros.Load()) / 1e6,
		Commits: s.Commits.Load(), Files: s.Files.Load(), LastCommit: s.commit,
		Reasons: s.reasons.snapshot(), Conflicts: s.Conflicts.Load(), Unknown: s.Unknown.Load(),
		CommitTime: s.CommitTime.distribution(), Freshness: s.Freshness.distribution()}
	if at := s.CommitMicros.Load(); at > 0 {
		r.CommitAge = float64(now.UnixMicro()-at) / 1e6
	}
	return r
}
