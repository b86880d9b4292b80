package activation

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

const (
	takeRows    = 1024                   // rows that are looked up in the state together
	storeKeys   = 4096                   // acknowledged keys that are stored together
	storeEvery  = 250 * time.Millisecond // … or at this age of the first
	closeBudget = 5 * time.Second        // for what Close still stores
)

// Options are what a Connection tells others. All may be left out.
type Options struct {
	// Bury writes letters where they are kept, and returns once they are. It is
	// called before the records count as rejected.
	Bury func(ctx context.Context, letters []Letter) error

	// Log writes the outcomes of records, and returns once they are kept. An
	// outcome may come twice after a crash.
	Log func(ctx context.Context, events []Event) error

	Stats  *progress.Stream
	Logger *slog.Logger
	Hook   func(point string) // called at the named points, for crash tests
}

// The points at which a crash test may stop the process.
const (
	BeforeSend  = "activation.before-send"
	AfterSend   = "activation.after-send"   // the destination has answered, nothing is stored
	AfterStore  = "activation.after-store"  // keys are stored, marks are not
	BeforeMarks = "activation.before-marks" // everything is settled
)

// Connection delivers one stream to one object of a destination.
type Connection struct {
	cfg  Config
	dest Destination
	st   States
	opts Options
	log  *slog.Logger
	now  func() time.Time

	mu       sync.Mutex
	stopped  *StopError // what the last sink stopped for: who opens it anew has seen that
	refused  ratio
	deletes  rolling
	readable bool
}

// New returns a connection. It connects to nothing.
func New(cfg Config, dest Destination, st States, opts Options) (*Connection, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	c := &Connection{cfg: cfg, dest: dest, st: st, opts: opts, log: opts.Logger, now: time.Now, readable: true}
	if c.log == nil {
		c.log = slog.Default()
	}
	return c, nil
}

// Sink receives the rows of the stream; see topic.Sink for the contract. One
// goroutine calls its methods. Requests are sent between the calls, too.
type Sink struct {
	c     *Connection
	cfg   *Config
	lease *state.Lease // every Sink has one of its own
	now   func() time.Time

	ctx    context.Context // of requests
	cancel context.CancelFunc
	done   sync.WaitGroup
	wake   chan struct{}
	store  sync.Mutex // held while keys are being stored
	maps   map[string]*mapping

	mu       sync.Mutex
	settled  sync.Cond // something was settled, or the sink failed
	h        *hasher
	keys     map[state.Key]*entry
	ready    [2][]*entry // by lane
	delayed  []*entry
	held     []*entry                // deletes, until a flush has asked the guard
	claims   map[state.Key]state.Key // match value → key that is about to have it
	busy     int                     // entries with something to deliver
	buffered int                     // bytes of items
	inflight int                     // requests
	dirty    []*entry                // keys that are to be stored
	dirtyAt  time.Time
	counts   map[int32]*tally
	stored   map[int32]state.Mark // marks as they are stored
	letters  []Letter
	events   []Event
	loading  map[int32]bool   // backfill begin and end, since the last flush
	sweeps   map[int32]uint64 // epoch of a backfill that has ended, since the last flush

	taken     map[int32]int64 // highest offset that Write took
	announced map[int32]int64 // highest offset of which something may have been sent
	inherited map[int32]int64 // the same as Load found it: what an earlier owner may have sent

	bulk    bulk
	jobs    []*openJob         // of earlier owners
	locked  map[state.Key]lock // keys of these
	working int                // jobs of inflight

	flushing bool
	removing bool      // deletes may go: the guard was asked
	waved    bool      // somebody has resumed the stream: guards are off until the next flush
	hold     time.Time // requests of an earlier owner may have effect until then
	paused   time.Time // the account is throttled
	renewed  time.Time
	outage   outage
	shown    bool // the board shows that we are throttled
	before   progress.State
	err      error
	closed   bool
}

// tally counts the outcomes of a partition since the last flush.
type tally struct {
	state.Outcomes
	async int64 // of Rejected, those that Write has not returned
}

// entry is a key that has something to deliver or to store.
type entry struct {
	known   state.Entry
	exists  bool       // the state has known
	match   *state.Key // the one that is stored, nil = not known
	dirty   bool
	pending []*item // one, or the events of an Append in order
	flight  *flight
	ready   [2]bool   // it is in the queue of the lane
	since   time.Time // then
	delayed bool      // it waits for notBefore

	attempts  int
	notBefore time.Time
	unsure    *flight   // sent, and nobody knows what became of it
	doubt     bool      // something of the key that was sent may have been applied unnoticed: known.Fields proves nothing
	maybeGone bool      // and the record may have been deleted so
	waits     time.Time // for a reference, since
}

// Sink opens the sink of the connection. It is called again after every
// failure, and after somebody has resumed a stopped stream.
func (c *Connection) Sink(ctx context.Context) (*Sink, error) {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	s := &Sink{c: c, cfg: &c.cfg, lease: c.st.Lease(hex.EncodeToString(id[:])), now: c.now, wake: make(chan struct{}, 1), maps: map[string]*mapping{},
		h: newHasher(c.st.Secret()), keys: map[state.Key]*entry{}, claims: map[state.Key]state.Key{}, counts: map[int32]*tally{},
		stored: map[int32]state.Mark{}, loading: map[int32]bool{}, sweeps: map[int32]uint64{},
		taken: map[int32]int64{}, announced: map[int32]int64{}, inherited: map[int32]int64{}, locked: map[state.Key]lock{}, bulk: c.bulk()}
	s.settled.L = &s.mu
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.mu.Lock()
	s.waved = c.stopped != nil
	c.stopped = nil
	c.mu.Unlock()
	if s.waved {
		c.refused.clear()
	}
	s.done.Go(s.run)
	s.done.Go(s.keepLease)
	return s, nil
}

// ttl of the lease: a request may start while the lease was renewed less than
// Ambiguous ago, and have effect for as long again.
func (s *Sink) ttl() time.Duration { return 2 * s.cfg.Ambiguous }

// Load makes parts ours and returns their marks.
func (s *Sink) Load(ctx context.Context, parts []int32) (map[int32]record.Mark, error) {
	taken, err := s.lease.Acquire(ctx, parts, s.ttl())
	if err != nil {
		return nil, err
	}
	jobs, err := s.lease.Jobs(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loadJobs(jobs, parts, taken.Marks)
	now := s.now()
	s.renewed = now
	if hold := now.Add(taken.Wait); hold.After(s.hold) {
		s.hold = hold
	}
	out := make(map[int32]record.Mark, len(taken.Marks))
	for p, m := range taken.Marks {
		out[p] = m.Mark
		s.stored[p] = m
	}
	for p, sent := range taken.Sent {
		s.announced[p], s.inherited[p], s.taken[p] = sent, sent, out[p].Next-1
	}
	return out, nil
}

// keepLease renews the lease. When it cannot, requests end before another
// process may send (invariant 11).
func (s *Sink) keepLease() {
	tick := time.NewTicker(max(s.cfg.Ambiguous/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		start := s.now()
		ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Ambiguous)
		err := s.lease.Renew(ctx, s.ttl())
		cancel()
		s.mu.Lock()
		switch {
		case err == nil:
			s.renewed = start
		case errors.Is(err, record.ErrFenced):
			s.fail(err)
		case !s.renewed.IsZero() && s.now().Sub(s.renewed) >= s.cfg.Ambiguous && s.ctx.Err() == nil:
			s.fail(fmt.Errorf("renew the lease of %s: %w", s.cfg.Name, err))
		}
		s.mu.Unlock()
	}
}

// fail ends the sink: nothing is sent or stored any more. s.mu is held.
func (s *Sink) fail(err error) {
	if s.err != nil {
		return
	}
	s.err = err
	if stop := (*StopError)(nil); errors.As(err, &stop) {
		s.c.mu.Lock()
		s.c.stopped = stop
		s.c.mu.Unlock()
	}
	s.cancel()
	s.settled.Broadcast()
}

// Buffered returns the bytes of the rows that wait for their delivery, and a
// little for each key.
func (s *Sink) Buffered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buffered + 300*len(s.keys)
}

// Flush delivers everything that was written, and stores the keys and marks in
// one transaction. It blocks as long as the destination makes it wait.
func (s *Sink) Flush(ctx context.Context, marks map[int32]record.Mark) (map[int32]record.Mark, error) {
	err := s.settle(ctx)
	if err == nil {
		err = s.sweep(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.keep())
	}
	s.point(BeforeMarks)
	if err := s.save(ctx, marks); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fail(err) // Invariant 3: nothing more is sent or stored.
		return nil, err
	}
	out := make(map[int32]record.Mark, len(marks))
	for p, m := range marks {
		out[p] = s.counted(p, m).Mark
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.counts)
	clear(s.loading)
	clear(s.sweeps)
	s.waved, s.removing = false, false
	s.forget()
	return out, nil
}

// settle waits until nothing is left to deliver.
func (s *Sink) settle(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.settled.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.releaseDeletes(ctx); err != nil {
		s.fail(err)
	}
	s.flushing = true
	defer func() { s.flushing = false }()
	s.poke()
	for s.busy > 0 && s.err == nil && ctx.Err() == nil {
		s.settled.Wait()
	}
	if s.err != nil {
		return s.err
	}
	if s.busy > 0 {
		return fmt.Errorf("deliver %d records of %s: %w", s.busy, s.cfg.Name, ctx.Err())
	}
	return nil
}

// keep stores what was acknowledged when a flush could not be ended: it need
// not be sent again.
func (s *Sink) keep() error {
	if s.Fenced() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), closeBudget)
	defer cancel()
	return s.save(ctx, nil)
}

// Fenced reports whether another process has taken over.
func (s *Sink) Fenced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Is(s.err, record.ErrFenced)
}

// counted returns the mark of a partition with what was counted since the last
// flush. Invariant 5: every record that Write took has one outcome.
func (s *Sink) counted(p int32, m record.Mark) state.Mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := state.Mark{Mark: m}
	if t := s.counts[p]; t != nil {
		out.Outcomes = t.Outcomes
		out.Counts.Delivered += t.Applied + t.Unchanged
		out.Counts.Superseded += t.Superseded
		out.Counts.Filtered += t.Skipped
		out.Counts.Duplicate += t.Duplicate
		out.Counts.Rejected += t.async
	}
	return out
}

// save stores the keys that were settled, after their letters and events are
// kept, and marks. Nothing else saves at the same time.
func (s *Sink) save(ctx context.Context, marks map[int32]record.Mark) error {
	s.store.Lock()
	defer s.store.Unlock()
	s.mu.Lock()
	dirty, letters, events := s.dirty, s.letters, s.events
	s.dirty, s.letters, s.events = nil, nil, nil
	entries := make([]state.Entry, len(dirty))
	for i, e := range dirty {
		entries[i], e.dirty = e.known, false
		entries[i].Fields = slices.Clone(e.known.Fields)
		entries[i].SameMatch = e.match != nil && *e.match == e.known.Match
	}
	s.mu.Unlock()
	if len(letters) > 0 && s.c.opts.Bury != nil {
		// Invariant 5: a letter is kept before its record counts as rejected.
		if err := s.c.opts.Bury(ctx, letters); err != nil {
			return fmt.Errorf("write %d dead letters of %s: %w", len(letters), s.cfg.Name, err)
		}
	}
	if len(events) > 0 && s.c.opts.Log != nil {
		if err := s.c.opts.Log(ctx, events); err != nil {
			return fmt.Errorf("write %d outcomes of %s: %w", len(events), s.cfg.Name, err)
		}
	}
	if len(entries) == 0 && len(marks) == 0 {
		return nil
	}
	matches := make([]state.Key, len(entries))
	for i := range entries {
		matches[i] = entries[i].Match
	}
	full := s.fullMarks(marks)
	if err := s.lease.Write(ctx, entries, full); err != nil {
		return err
	}
	s.point(AfterStore)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range dirty {
		e.exists, e.match = true, &matches[i]
	}
	maps.Copy(s.stored, full)
	return nil
}

// fullMarks adds up the outcomes of marks with those that are stored.
func (s *Sink) fullMarks(marks map[int32]record.Mark) map[int32]state.Mark {
	full := make(map[int32]state.Mark, len(marks))
	for p, m := range marks {
		f := s.counted(p, m)
		s.mu.Lock()
		f.Outcomes.Add(s.stored[p].Outcomes)
		f.Loading = s.stored[p].Loading
		if loading, said := s.loading[p]; said {
			f.Loading = loading
		}
		s.mu.Unlock()
		full[p] = f
	}
	return full
}

// forget drops the keys that have nothing to deliver or to store. s.mu is held.
func (s *Sink) forget() {
	maps.DeleteFunc(s.keys, func(_ state.Key, e *entry) bool {
		return !e.dirty && e.idle()
	})
	if len(s.keys) == 0 {
		clear(s.claims)
		s.ready, s.delayed, s.held = [2][]*entry{}, nil, nil
	}
}

// idle reports whether there is nothing to deliver.
func (e *entry) idle() bool { return len(e.pending) == 0 && e.flight == nil && e.unsure == nil }

// Close drops what was not flushed. Calling it twice is fine.
func (s *Sink) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	clean := s.inflight == 0
	for _, e := range s.keys {
		clean = clean && e.unsure == nil
	}
	s.cancel()
	s.mu.Unlock()
	s.done.Wait()
	if err := s.keep(); err != nil && !errors.Is(err, record.ErrFenced) {
		s.c.log.Debug("store what was acknowledged", "connection", s.cfg.Name, "error", err) // it is sent again
	}
	if !clean {
		return nil // what was sent may still have effect: the next owner waits
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), closeBudget)
	defer cancel()
	return s.lease.Release(ctx)
}

// poke makes the dispatcher look again.
func (s *Sink) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Sink) point(name string) {
	if s.c.opts.Hook != nil {
		s.c.opts.Hook(name)
	}
}

// outcomes returns the counters of a partition. s.mu is held.
func (s *Sink) outcomes(part int32) *tally {
	t := s.counts[part]
	if t == nil {
		t = &tally{}
		s.counts[part] = t
	}
	return t
}

// note keeps the outcome of an item for the activation log. s.mu is held.
func (s *Sink) note(e *entry, it *item, op string, r delivery.Result, code Code) {
	if s.c.opts.Log == nil {
		return
	}
	s.events = append(s.events, Event{At: s.now(), Connection: s.cfg.Name, Object: s.cfg.Object, Operation: op, Outcome: r.Outcome, Code: code,
		Key: it.key.String(), ID: e.known.ID, Part: it.part, Offset: it.offset, Position: it.pos, Attempt: e.attempts, Status: r.Status,
		VendorCode: r.VendorCode, Message: r.Message, RequestID: r.RequestID})
}
