package topic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// failuresShown is from how many failures in a row on a stream shows as failed.
const failuresShown = 5

// parkError stops a lane until somebody acts: trying again cannot help.
type parkError struct{ note string }

func (e *parkError) Error() string { return e.note }

// errStopping ends a step because the Consumer ends. What the sink has taken is
// whole, and the last flush makes it durable.
var errStopping = errors.New("the consumer ends")

// lane is the flow of one topic into its sink. One goroutine owns it.
type lane struct {
	c      *Consumer
	stream Stream
	topic  string
	stats  *progress.Stream
	ended  chan struct{}

	used      atomic.Int64 // bytes that a flush would free
	flushSoon atomic.Bool  // the budget asks for a flush

	mu       sync.Mutex // guards what follows
	inbox    []func(context.Context)
	woken    chan struct{}
	polling  context.CancelFunc
	durable  map[int32]int64 // next offset by the sink's marks
	ours     map[int32]bool
	target   map[int32]int64 // CatchUp wants a flush as soon as it is reached
	trouble  error           // parked, paused or failing for a while
	topicNow string          // id of the topic as last seen, empty = there is none

	// The lane's goroutine only.
	sink     Sink
	cl       *kgo.Client
	parts    map[int32]*part
	versions map[string]*version
	topicID  string // that the parts were opened with
	halted   bool   // parked or paused
	failures int    // in a row
	retryAt  time.Time
	dirty    bool      // marks have moved since the last flush
	since    time.Time // since when
	rows     int       // written since the last flush
	idle     bool      // the last poll brought nothing
	state    progress.State
	lost     lostParts
	shown    progress.State // on the board, with note
	note     string
	warning  string // of what the brokers are about to remove
}

// part is one partition that is ours.
type part struct {
	mark    record.Mark // as the sink has it; Next is the log's start if it has none
	next    int64       // first offset that the sink has not taken
	last    record.Position
	pending record.Counts // since mark, without what the sink counts
	newest  int64         // source time of the newest record taken, µs
	high    int64         // end of the log as last seen
	heads   record.HeadReader
}

func newLane(c *Consumer, s Stream, topic string) *lane {
	l := &lane{c: c, stream: s, topic: topic, stats: c.cfg.Board.Stream(progress.Sink, c.cfg.Name, s.Name.String()),
		ended: make(chan struct{}), woken: make(chan struct{}, 1), durable: map[int32]int64{}, ours: map[int32]bool{},
		parts: map[int32]*part{}, state: progress.Streaming}
	l.show(progress.Starting, "waiting for topic "+topic)
	return l
}

// post has f called by the lane's goroutine.
func (l *lane) post(f func(context.Context)) {
	l.mu.Lock()
	l.inbox = append(l.inbox, f)
	l.mu.Unlock()
	l.wake()
}

// wake ends the lane's wait, if it waits.
func (l *lane) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.polling != nil {
		l.polling()
	}
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

func (l *lane) takeInbox() []func(context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := l.inbox
	l.inbox = nil
	return in
}

// run is the lane's life. It returns the error of the last flush.
func (l *lane) run(ctx context.Context) error {
	defer close(l.ended)
	defer l.c.k.budget.leave(l)
	for ctx.Err() == nil {
		for _, f := range l.takeInbox() {
			f(ctx)
		}
		switch {
		case l.halted || len(l.parts) == 0:
			l.wait(ctx, time.Hour)
		case l.sink == nil && time.Now().Before(l.retryAt):
			l.wait(ctx, time.Until(l.retryAt))
		default:
			// Invariant 3: whatever else fails, at the end too, is dropped.
			if err := l.step(ctx); err != nil && !errors.Is(err, errStopping) {
				l.fail(err)
			}
		}
	}
	var err error
	if l.sink != nil && l.dirty {
		if err = l.flush(); err != nil {
			err = fmt.Errorf("last flush of %s: %w", l.stream.Name, err)
		}
	}
	l.drop()
	return err
}

// wait sleeps until d has passed or somebody wakes the lane.
func (l *lane) wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-l.woken:
	}
}

// step opens the sink if it is not, polls once and flushes if it is time.
func (l *lane) step(ctx context.Context) error {
	if l.sink == nil {
		return l.open(ctx)
	}
	fetches := l.poll(ctx)
	l.idle = fetches.NumRecords() == 0
	if err := l.take(ctx, fetches); err != nil {
		return err
	}
	if l.due() {
		return l.flush()
	}
	return nil
}

// poll waits for records until the next flush is due or somebody wakes the lane.
func (l *lane) poll(ctx context.Context) kgo.Fetches {
	wait := time.Hour
	if l.dirty {
		// Not less: a poll whose time is over brings nothing, even if there is something.
		wait = max(time.Until(l.since.Add(l.c.cfg.Every)), 20*time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	l.mu.Lock()
	if len(l.inbox) > 0 || l.flushSoon.Load() {
		l.mu.Unlock()
		return nil
	}
	l.polling = cancel
	l.mu.Unlock()
	fetches := l.cl.PollRecords(ctx, 0)
	l.mu.Lock()
	l.polling = nil
	l.mu.Unlock()
	return fetches
}

// fail drops what is not flushed and has the lane begin anew from the sink's
// marks. Invariant 3: nothing of what failed is ever committed.
func (l *lane) fail(err error) {
	l.drop()
	if errors.Is(err, errStopping) {
		return
	}
	if park := parked(err); park != nil {
		l.park(park.note)
		return
	}
	l.failures++
	delay := min(200*time.Millisecond<<min(l.failures-1, 10), 30*time.Second)
	if errors.Is(err, record.ErrFenced) && l.failures == 1 {
		delay = 0 // the marks tell at once where the other writer is
	}
	l.retryAt = time.Now().Add(delay)
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) {
			err = fmt.Errorf("%w; free disk space there: the stream goes on by itself", err)
		}
	}
	l.c.cfg.Logger.Warn("stream starts again from the sink's marks", "sink", l.c.cfg.Name, "stream", l.stream.Name.String(),
		"failures", l.failures, "error", err)
	note := fmt.Sprintf("attempt %d failed: %v", l.failures, err)
	if l.failures < failuresShown {
		l.show(l.state, note)
		return
	}
	l.show(progress.Failed, note)
	l.setTrouble(fmt.Errorf("stream %s: %w", l.stream.Name, err))
}

// park stops the lane for good: until Resume or a restart.
func (l *lane) park(note string) {
	l.halted = true
	l.c.cfg.Logger.Error("stream parked", "sink", l.c.cfg.Name, "stream", l.stream.Name.String(), "reason", note)
	l.show(progress.Parked, note)
	l.setTrouble(fmt.Errorf("stream %s is parked: %s", l.stream.Name, note))
}

func (l *lane) pause() {
	if l.halted {
		return
	}
	if l.sink != nil && l.dirty {
		if err := l.flush(); err != nil {
			l.fail(err)
		}
	}
	l.drop()
	l.halted = true
	l.show(progress.Paused, "until: sluice resume "+l.stream.Name.String())
	l.setTrouble(fmt.Errorf("stream %s is paused", l.stream.Name))
}

func (l *lane) resume() {
	if !l.halted {
		return
	}
	l.halted, l.failures, l.retryAt = false, 0, time.Time{}
	clear(l.lost.epochs)
	l.setTrouble(nil)
	l.show(progress.Starting, "")
}

// show says what the stream does, with the warning that stands, if any.
func (l *lane) show(s progress.State, note string) {
	l.shown, l.note = s, note
	switch {
	case l.warning == "":
	case note == "":
		note = l.warning
	default:
		note += "; " + l.warning
	}
	l.stats.Set(s, note)
}

func (l *lane) setTrouble(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble = err
}

// troubled reports whether the lane is parked, paused or failing for a while.
func (l *lane) troubled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trouble != nil
}

// drop closes the client and the sink; what was not flushed is forgotten.
func (l *lane) drop() {
	if l.cl != nil {
		l.cl.Close()
		l.cl = nil
	}
	if l.sink != nil {
		if err := l.sink.Close(); err != nil {
			l.c.cfg.Logger.Debug("close sink", "stream", l.stream.Name.String(), "error", err)
		}
		l.sink = nil
	}
	l.dirty, l.rows = false, 0
	l.flushSoon.Store(false)
	l.used.Store(0)
	for n := range l.parts {
		l.parts[n] = nil // to be loaded anew
	}
}

// gain adds partitions.
func (l *lane) gain(ctx context.Context, ps []int32) {
	var fresh []int32
	l.mu.Lock()
	for _, p := range ps {
		if !l.ours[p] {
			l.ours[p] = true
			fresh = append(fresh, p)
		}
	}
	l.mu.Unlock()
	for _, p := range fresh {
		l.parts[p] = nil
	}
	if l.sink == nil || len(fresh) == 0 {
		return
	}
	if err := l.load(ctx, fresh); err != nil {
		l.fail(err)
	}
}

// revoke flushes what is held of ps, unless the deadline has passed, and forgets them.
func (l *lane) revoke(ps []int32, deadline time.Time) {
	if l.sink != nil && l.dirty {
		if time.Now().After(deadline) {
			l.drop()
		} else if err := l.flush(); err != nil {
			l.fail(err)
		}
	}
	l.forget(ps)
	if l.sink == nil {
		return
	}
	if len(l.parts) == 0 {
		l.drop()
	} else if err := l.connect(); err != nil {
		l.fail(err)
	}
}

// lose forgets partitions that another member may have already. What the sink
// holds of them cannot be told apart, so all of it goes.
func (l *lane) lose(ps []int32) {
	l.drop()
	l.forget(ps)
}

func (l *lane) forget(ps []int32) {
	l.mu.Lock()
	for _, p := range ps {
		delete(l.ours, p)
	}
	l.mu.Unlock()
	for _, p := range ps {
		delete(l.parts, p)
		delete(l.lost.epochs, p)
	}
	if len(l.parts) == 0 && !l.halted {
		l.show(progress.Streaming, "its partitions are with another process")
	}
}

// sawTopic is told the topic's id now and then; empty = it does not exist.
func (l *lane) sawTopic(id string) {
	l.mu.Lock()
	same := l.topicNow == id
	l.topicNow = id
	l.mu.Unlock()
	if same {
		return
	}
	l.post(func(context.Context) {
		if l.sink != nil && l.topicID != id {
			l.fail(fmt.Errorf("topic %s is not the one it was", l.topic)) // open looks into it
		}
	})
}

// partNumbers returns the partitions that are ours, in order.
func (l *lane) partNumbers() []int32 {
	ps := make([]int32, 0, len(l.parts))
	for p := range l.parts {
		ps = append(ps, p)
	}
	slices.Sort(ps)
	return ps
}
