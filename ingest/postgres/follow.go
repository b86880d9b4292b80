package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

const (
	saveEvery   = time.Second            // how often the checkpoint moves
	statusEvery = time.Second            // far below any wal_sender_timeout
	pollEvery   = 200 * time.Millisecond // statusEvery when somebody waits for the end

	// breath is how long a follower that lags waits before it reads on: the
	// server then sends many rows at a time, which costs both sides half as much.
	breath = 2 * time.Millisecond
	lagged = time.Second

	// barrierBytes of log without a barrier force one even if rows never cease to come.
	barrierBytes = 16 << 20
)

var (
	errCaughtUp  = errors.New("caught up")
	errWantsText = errors.New("a column can be read in text format only")
)

// followed is one stream of a follower.
type followed struct {
	t        *table
	epoch    uint64
	from     uint64 // transactions whose commit record starts before are done
	parked   bool
	progress *progress.Stream
	newest   int64 // commit time of the newest published row
}

// relation is a table as the log describes it.
type relation struct {
	st       *followed // nil: not ours
	raw      string    // the message, to recognise its repetition
	identity byte
	w        *writer
	waiting  bool // listed in follower.waiting
}

// follower reads the slot. One goroutine runs loop and owns all fields but the
// atomics; a second one saves checkpoints, a third one sends status, so that
// neither back-pressure nor a slow checkpoint makes the server give up on us.
type follower struct {
	ss     *session
	hold   bool // do not give log free: a backfill needs it
	conn   *replication
	binary bool
	kinds  *types

	streams   map[record.StreamName]*followed
	relations map[uint32]*relation

	inside  bool // a transaction is open
	xid     uint32
	lsn     uint64
	micros  int64 // its commit time
	index   uint64
	row     rowMessage
	cut     truncateMessage
	waiting []*relation // with rows not yet published
	since   time.Time   // since when rows wait; zero = none do
	end     uint64      // everything before is read
	barrier uint64      // end as it was at the last Barrier
	broken  bool        // rows are missing: no Barrier any more
	lagging bool

	acked     atomic.Uint64 // everything before is on the brokers
	ackedTime atomic.Int64  // commit time of the newest row among it, 0 = none yet
	put       atomic.Uint64 // barrier, for others to read
	confirmed atomic.Uint64 // what the checkpoint holds and the server may know
	moved     chan struct{}
	asked     chan struct{}
}

// follow streams the changes of tables until ctx ends or it has caught up.
func (ss *session) follow(ctx context.Context, tables []*table, hold bool) error {
	f := &follower{ss: ss, hold: hold, binary: true, kinds: &types{check: ss.srv.check}}
	for _, t := range tables {
		if err := f.look(ctx, t); err != nil {
			return err
		}
	}
	for {
		err := f.run(ctx, tables)
		if !errors.Is(err, errWantsText) {
			return err
		}
		f.binary = false // from the last acknowledged transaction on; positions stay the same
	}
}

// look decides between the formats of the log.
func (f *follower) look(ctx context.Context, t *table) error {
	f.ss.catalog.Lock()
	defer f.ss.catalog.Unlock()
	cols := t.read(f.ss.pub.generated)
	if err := f.kinds.load(ctx, f.ss.conn, cols); err != nil {
		return err
	}
	for _, col := range cols {
		f.binary = f.binary && f.kinds.codec(col).binary()
	}
	return nil
}

func (f *follower) reset(tables []*table) (start uint64) {
	f.streams, f.relations = map[record.StreamName]*followed{}, map[uint32]*relation{}
	f.inside, f.waiting, f.since, f.broken = false, nil, time.Time{}, false
	f.moved, f.asked = make(chan struct{}, 1), make(chan struct{}, 1)
	start = ^uint64(0)
	for _, t := range tables {
		st := f.ss.cp.stream(t.name.Local())
		p := f.ss.s.progress(t.name)
		f.streams[t.name] = &followed{t: t, epoch: st.Epoch, from: uint64(st.From), parked: st.Phase != streaming, progress: p}
		if st.Phase == streaming {
			start = min(start, uint64(st.From))
			if old, note := p.State(); old != progress.Streaming && old != progress.Parked {
				if old == progress.Starting {
					note = ""
				}
				p.Set(progress.Streaming, note)
			}
		}
	}
	if start == ^uint64(0) {
		start = 0
	}
	start = max(start, f.ss.cp.lsn())
	f.end, f.barrier = start, start
	f.acked.Store(start)
	f.put.Store(start)
	f.ackedTime.Store(0)
	f.confirmed.Store(f.ss.cp.lsn())
	return start
}

// run reads over one connection.
func (f *follower) run(ctx context.Context, tables []*table) error {
	start := f.reset(tables)
	conn, err := f.ss.s.startReplication(ctx, start, f.binary)
	if err != nil {
		return f.explain(err)
	}
	f.conn = conn
	defer conn.close()
	inner, cancel := context.WithCancelCause(ctx)
	defer context.AfterFunc(inner, conn.interrupt)()
	var helpers sync.WaitGroup
	helpers.Go(func() { cancel(f.saveLoop(inner)) })
	helpers.Go(func() { cancel(f.statusLoop(inner)) })
	err = f.loop(inner)
	cancel(err)
	helpers.Wait()
	if cause := context.Cause(inner); ctx.Err() == nil && !errors.Is(cause, errCaughtUp) {
		return f.explain(cause)
	}
	if err := f.drain(ctx); err != nil {
		return err
	}
	return ctx.Err()
}

// drain brings what was read to the brokers and into the checkpoint, within the deadline of a stop.
func (f *follower) drain(ctx context.Context) error {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.ss.s.cfg.DrainTimeout)
	defer cancel()
	if err := f.flush(last); err != nil {
		return fmt.Errorf("publish the last changes: %w", err)
	}
	if err := f.ss.out.Flush(last); err != nil {
		return fmt.Errorf("wait for the brokers: %w", err)
	}
	if err := f.save(last); err != nil {
		return err
	}
	_ = f.conn.status(f.confirmed.Load(), false, time.Now()) // the next start tells it again
	return nil
}

// explain adds to an error what the follower knows about it.
func (f *follower) explain(err error) error {
	switch {
	case err == nil || errors.Is(err, errWantsText) || errors.Is(err, context.Canceled):
		return err
	case isLostPublication(err):
		err := f.ss.lostPublication()
		// Should this save fail: the checkpoint holds the old publication, and the next start sees another one.
		ctx, cancel := context.WithTimeout(context.Background(), f.ss.s.cfg.DrainTimeout)
		defer cancel()
		_, _ = f.ss.cp.save(ctx)
		return err
	}
	return wrap("read the log through slot "+f.ss.s.cfg.Slot, err)
}

// loop reads messages until ctx ends.
func (f *follower) loop(ctx context.Context) error {
	for {
		var deadline time.Time
		if !f.conn.buffered() {
			if !f.since.IsZero() {
				deadline = f.since.Add(f.ss.s.cfg.Linger)
				if !time.Now().Before(deadline) {
					if err := f.flush(ctx); err != nil {
						return err
					}
					deadline = time.Time{}
				}
			} else if f.end > f.barrier {
				f.putBarrier()
			}
			if f.lagging {
				time.Sleep(breath)
			}
		}
		typ, payload, err := f.conn.next(deadline)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errQuiet):
			if err := f.flush(ctx); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		switch typ {
		case 'd':
			err = f.data(ctx, payload)
		case 'N', 'S':
		default:
			err = errors.New("the server ended the replication")
		}
		if err != nil {
			return err
		}
	}
}

// data handles what the walsender sends: log or a sign of life.
func (f *follower) data(ctx context.Context, b []byte) error {
	switch {
	case len(b) > 25 && b[0] == 'w':
		sent := int64(binary.BigEndian.Uint64(b[17:]))
		return f.message(ctx, b[25:], sent)
	case len(b) == 18 && b[0] == 'k':
		if b[17] != 0 {
			signal(f.asked)
		}
		// Between transactions everything before the server's position has been
		// sent: acknowledging it lets an idle database recycle its log.
		if end := binary.BigEndian.Uint64(b[1:]); !f.inside && end > f.end {
			f.end, f.lagging = end, false
		}
		return nil
	}
	return fmt.Errorf("read a message of %d bytes from the server: unknown kind", len(b))
}

// message handles one message of pgoutput; sent is the server's clock.
func (f *follower) message(ctx context.Context, b []byte, sent int64) error {
	switch b[0] {
	case 'I', 'U', 'D':
		return f.change(ctx, b)
	case 'B':
		m, err := parseBegin(b[1:])
		f.inside, f.xid, f.lsn, f.micros, f.index = true, m.xid, m.lsn, m.micros+epochMicros, 1
		return err
	case 'C':
		m, err := parseCommit(b[1:])
		if err != nil {
			return err
		}
		f.inside, f.end = false, m.end
		f.lagging = sent-m.micros > lagged.Microseconds()
		if f.end-f.barrier > barrierBytes || !f.since.IsZero() && time.Since(f.since) > 10*f.ss.s.cfg.Linger {
			return f.flush(ctx)
		}
	case 'R':
		m, err := parseRelation(b[1:])
		if err != nil {
			return err
		}
		return f.describe(ctx, m, b)
	case 'T':
		return f.truncate(ctx, b[1:])
	case 'Y', 'O', 'M': // types are looked up; origins and logical messages are not for us
	default:
		return fmt.Errorf("read a message of pgoutput: unknown type %q", b[0])
	}
	return nil
}

// publish sends the waiting rows of one relation and parks its stream if that fails for good.
func (f *follower) publish(ctx context.Context, rel *relation) error {
	if rel.w == nil || rel.w.batch == nil || rel.w.batch.Len() == 0 {
		return nil
	}
	b := rel.w.take()
	if rel.st.parked {
		b.Release()
		return nil
	}
	newest := b.Time[b.Len()-1]
	return f.sent(ctx, rel.st, newest, f.ss.out.Publish(ctx, b))
}

// sent judges the result of a Publish.
func (f *follower) sent(ctx context.Context, st *followed, newest int64, err error) error {
	if err == nil {
		st.newest = newest
		return nil
	}
	if ctx.Err() != nil || lost(err) {
		f.broken = true // Invariant 1: rows are missing, so nothing behind them is acknowledged
		return err
	}
	f.park(st, err)
	return nil
}

func (f *follower) park(st *followed, err error) {
	if !st.parked {
		st.parked = true
		f.ss.park(st.t.name, err)
	}
}

// flush publishes all waiting rows.
func (f *follower) flush(ctx context.Context) error {
	for _, rel := range f.waiting {
		rel.waiting = false
		if err := f.publish(ctx, rel); err != nil {
			return err
		}
	}
	f.waiting, f.since = f.waiting[:0], time.Time{}
	if f.end > f.barrier {
		f.putBarrier()
	}
	return nil
}

// putBarrier asks to be told when everything up to end is on the brokers.
// Invariant 1: this is the only way to acked, and so to the server.
func (f *follower) putBarrier() {
	if f.broken {
		return
	}
	end := f.end
	type done struct {
		p  *progress.Stream
		at int64
	}
	var dones []done
	var newest int64
	for _, st := range f.streams {
		if st.newest > 0 {
			dones = append(dones, done{st.progress, st.newest})
			newest = max(newest, st.newest)
			st.newest = 0
		}
	}
	f.barrier = end
	f.put.Store(end)
	f.ss.out.Barrier(func() {
		for _, d := range dones {
			d.p.SourceMicros.Store(d.at)
		}
		if newest > 0 {
			f.ackedTime.Store(newest)
		}
		f.acked.Store(end)
		signal(f.moved)
	})
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// saveLoop moves the checkpoint behind the brokers.
func (f *follower) saveLoop(ctx context.Context) error {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		caughtUp := f.ss.s.cfg.UntilCaughtUp && !f.hold && f.acked.Load() >= f.ss.until
		if caughtUp {
			if err := f.save(ctx); err != nil {
				return err
			}
			return errCaughtUp
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.moved:
			continue // only to see whether it has caught up
		case <-tick.C:
		}
		if err := f.save(ctx); err != nil {
			return err
		}
		signal(f.asked)
	}
}

// save stores how far the brokers are; only then may the server forget.
func (f *follower) save(ctx context.Context) error {
	acked := f.acked.Load()
	moves := f.moves(acked)
	var behind int64
	if at := f.ackedTime.Load(); at > 0 && (moves || f.put.Load() > acked) { // otherwise nothing has come since
		behind = max(time.Now().UnixMicro()-at, 0)
	}
	if moves {
		f.ss.cp.change(func(s *state) {
			if !f.hold {
				s.LSN = lsn(acked)
				return
			}
			for name := range f.streams {
				s.Streams[name.Local()].From = max(s.Streams[name.Local()].From, lsn(acked))
			}
		})
	}
	at, err := f.ss.cp.save(ctx)
	if err != nil {
		return err
	}
	f.confirmed.Store(at)
	for _, st := range f.streams {
		st.progress.SetPosition(formatLSN(acked))
		st.progress.BehindMicros.Store(behind)
	}
	return nil
}

// moves reports whether acked is news to the checkpoint.
func (f *follower) moves(acked uint64) bool {
	if !f.hold {
		return acked > f.ss.cp.lsn()
	}
	for name := range f.streams {
		if st := f.ss.cp.stream(name.Local()); uint64(st.From) < acked {
			return true
		}
	}
	return false
}

// statusLoop tells the server where we are, also while loop waits for the brokers.
func (f *follower) statusLoop(ctx context.Context) error {
	every := statusEvery
	if f.ss.s.cfg.UntilCaughtUp {
		every = pollEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := f.conn.status(f.confirmed.Load(), f.ss.s.cfg.UntilCaughtUp, time.Now()); err != nil && ctx.Err() == nil {
			return wrap("send the position to the server", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-f.asked:
		}
	}
}
