package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// checkpointKey is where a source keeps its checkpoint.
const checkpointKey = "postgres"

// phase is how far a stream has come.
type phase string

const (
	backfilling phase = "backfilling" // begun and not finished: it begins anew
	streaming   phase = "streaming"
	stopped     phase = "parked"   // missed changes since: it needs a new backfill
	removed     phase = "left out" // no longer in the configuration
)

// streamState is what a checkpoint holds of one stream.
type streamState struct {
	Epoch uint64 `json:"epoch"`
	Phase phase  `json:"state"`
	From  lsn    `json:"from"` // transactions whose commit record starts before are done
	OID   uint32 `json:"oid"`  // of the table: another one is another table
	Pub   uint32 `json:"publication_row"`
	Note  string `json:"note,omitempty"`
}

// state is the checkpoint as it is saved.
type state struct {
	System      string                  `json:"system"` // the server's identity; another one has another log
	Timeline    int                     `json:"timeline"`
	Slot        string                  `json:"slot"`
	Publication uint32                  `json:"publication"` // its oid
	LSN         lsn                     `json:"lsn"`         // end of the last transaction that all streams are done with
	Streams     map[string]*streamState `json:"streams"`     // by schema.table
}

// checkpoint guards a state that several goroutines change.
type checkpoint struct {
	out Output
	now func() time.Time

	mu    sync.Mutex
	state state
	dirty bool

	saving sync.Mutex // saves happen one after the other
}

func loadCheckpoint(ctx context.Context, out Output) (*checkpoint, error) {
	c := &checkpoint{out: out, now: time.Now}
	data, err := out.LoadCheckpoint(ctx, checkpointKey)
	if err != nil {
		return nil, fmt.Errorf("load the checkpoint: %w", err)
	}
	if data != nil {
		if err := json.Unmarshal(data, &c.state); err != nil {
			return nil, &Error{Do: "read the checkpoint", Err: err, Bad: true}
		}
	}
	if c.state.Streams == nil {
		c.state.Streams = map[string]*streamState{}
	}
	return c, nil
}

// change runs f on the state; the next save stores it.
func (c *checkpoint) change(f func(*state)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.state)
	c.dirty = true
}

// stream returns a copy of the state of one stream.
func (c *checkpoint) stream(name string) streamState {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.state.Streams[name]; s != nil {
		return *s
	}
	return streamState{}
}

func (c *checkpoint) lsn() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uint64(c.state.LSN)
}

// save stores the state if it has changed and returns its LSN, which the
// server may forget from then on.
func (c *checkpoint) save(ctx context.Context) (uint64, error) {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.mu.Lock()
	at, dirty := uint64(c.state.LSN), c.dirty
	data, err := json.Marshal(&c.state)
	c.dirty = false
	c.mu.Unlock()
	if err != nil || !dirty {
		return at, err
	}
	if err := c.out.SaveCheckpoint(ctx, checkpointKey, data); err != nil {
		c.mu.Lock()
		c.dirty = true
		c.mu.Unlock()
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, fmt.Errorf("save the checkpoint: %w", err)
	}
	return at, nil
}

// begin opens a new epoch of a stream. Epochs follow the clock where they can:
// a source that has lost its checkpoint must not use one that sinks know.
func (c *checkpoint) begin(name string, t *table, from uint64) uint64 {
	var epoch uint64
	c.change(func(s *state) {
		old := s.Streams[name]
		if old == nil {
			old = &streamState{}
		}
		epoch = max(old.Epoch+1, uint64(max(c.now().Unix(), 0)))
		s.Streams[name] = &streamState{Epoch: epoch, Phase: backfilling, From: lsn(from), OID: t.oid, Pub: t.pubRow}
	})
	return epoch
}

// set moves a stream to another phase.
func (c *checkpoint) set(name string, p phase, note string) {
	c.change(func(s *state) {
		st := s.Streams[name]
		if st == nil {
			st = &streamState{}
			s.Streams[name] = st
		}
		st.Phase, st.Note = p, note
	})
}
