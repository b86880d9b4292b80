package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// session is one Run: the connection for the catalog, which also holds the
// lock of the source, and what was found at the start.
type session struct {
	s   *Source
	out Output
	srv *server
	cp  *checkpoint

	catalog sync.Mutex // guards conn
	conn    *pgx.Conn

	active  map[record.StreamName]*table // streams that can be read
	pub     publication
	until   uint64 // log end at the start
	dropped bool   // the publication went away; guarded by catalog
}

func (s *Source) run(ctx context.Context, out Output) error {
	err := errAsked
	for errors.Is(err, errAsked) && ctx.Err() == nil {
		var ss *session
		if ss, err = s.open(ctx, out); err == nil {
			err = ss.read(ctx)
			ss.close()
		}
	}
	if err != nil && ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return nil
	}
	return err
}

func (ss *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	// The server frees locks some time after the connection; the next start may be sooner.
	_, _ = ss.conn.Exec(ctx, `SELECT pg_advisory_unlock_all()`)
	_ = ss.conn.Close(ctx)
}

// open connects, takes the lock of the source and decides what needs a backfill.
func (s *Source) open(ctx context.Context, out Output) (*session, error) {
	conn, err := s.control(ctx)
	if err != nil {
		return nil, err
	}
	ss := &session{s: s, out: out, conn: conn, active: map[record.StreamName]*table{}}
	if err := ss.prepare(ctx); err != nil {
		ss.close()
		return nil, err
	}
	return ss, nil
}

func (ss *session) prepare(ctx context.Context) error {
	s := ss.s
	// Two processes with this source must not run backfills against each other;
	// while streaming, the slot itself lets only one in.
	var locked bool
	if err := ss.conn.QueryRow(ctx, `SELECT pg_try_advisory_lock(hashtext('sluice'), hashtext($1))`, s.cfg.Slot).Scan(&locked); err != nil {
		return wrap("lock the source", err)
	}
	if !locked {
		return &Error{Do: "use replication slot " + s.cfg.Slot, Err: errors.New("another process reads this source"), Fix: "it is tried again"}
	}
	var err error
	if ss.srv, err = s.inspect(ctx, ss.conn); err != nil {
		return err
	}
	if err := fatalError(ss.srv.findings); err != nil {
		return err
	}
	if ss.cp, err = loadCheckpoint(ctx, ss.out); err != nil {
		return err
	}
	if err := ss.publish(ctx); err != nil {
		return err
	}
	if err := ss.takeSlot(ctx); err != nil {
		return err
	}
	saved := s.asks.enter(ss.cp)
	if _, err := ss.cp.save(ctx); err != nil {
		return err
	}
	saved()
	return nil
}

// publish finds the tables that can be read and makes sure that the publication has them.
func (ss *session) publish(ctx context.Context) error {
	s := ss.s
	tables, err := loadTables(ctx, ss.conn, s.tables)
	if err != nil {
		return err
	}
	if ss.pub, err = s.loadPublication(ctx, ss.conn, ss.srv.version, tables); err != nil {
		return err
	}
	ss.srv.want(s.tables, tables)
	var fatal []Finding
	var missing []*table
	for _, name := range s.tables {
		t := tables[name]
		findings := s.inspectTable(ctx, ss.conn, ss.srv, name, t, ss.pub)
		if len(findings) > 0 {
			fatal = append(fatal, findings...)
			ss.park(name, fmt.Errorf("%s; %s", findings[0].Problem, findings[0].Fix))
			continue
		}
		ss.active[name] = t
		if !t.published {
			missing = append(missing, t)
		}
	}
	if len(ss.active) == 0 {
		return fatalError(fatal)
	}
	for _, f := range s.inspectPublication(ss.pub) {
		s.log.Warn(f.Problem, "fix", f.Fix)
	}
	if len(missing) == 0 {
		return nil
	}
	sql := s.addSQL(missing)
	if ss.pub.oid == 0 {
		sql = s.createSQL(ss.srv, missing)
	}
	if _, err := ss.conn.Exec(ctx, sql); err != nil {
		return addFix(wrap("publish the tables", err), "as their owner: "+sql)
	}
	s.log.Info("tables published", "publication", s.cfg.Publication, "tables", len(missing))
	ss.pub, err = s.loadPublication(ctx, ss.conn, ss.srv.version, tables)
	return err
}

func addFix(err error, fix string) error {
	var ours *Error
	if errors.As(err, &ours) && ours.Fix == "" {
		ours.Fix = fix
	}
	return err
}

// How often and how fast a slot that is in use is looked at again.
const (
	slotTries = 10
	slotPause = 100 * time.Millisecond
)

// takeSlot makes or checks the replication slot and decides which streams have
// lost their place in the log.
func (ss *session) takeSlot(ctx context.Context) error {
	s := ss.s
	system, timeline, err := s.identify(ctx)
	if err != nil {
		return err
	}
	var end string
	if err := ss.conn.QueryRow(ctx, `SELECT pg_current_wal_lsn()::text`).Scan(&end); err != nil {
		return wrap("read the log end", err)
	}
	if ss.until, err = parseLSN(end); err != nil {
		return err
	}
	sl, err := s.loadSlot(ctx, ss.conn)
	for range slotTries { // the server may take a moment to see that our own last connection has ended
		if err != nil || !sl.active {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(slotPause):
		}
		sl, err = s.loadSlot(ctx, ss.conn)
	}
	if err != nil {
		return err
	}
	if sl.active {
		return &Error{Do: "use replication slot " + s.cfg.Slot, Err: errors.New("another connection reads it"), Fix: "it is tried again"}
	}
	lost := ""
	old := ss.cp.state
	switch {
	case old.Slot == "":
	case old.System != system:
		lost = "this is another database server than before"
	case old.Timeline != timeline:
		lost = "the server has another timeline than before: a standby was promoted or a backup restored"
	case old.Slot != s.cfg.Slot:
		lost = "the slot has another name than before"
	case !sl.exists:
		lost = "the replication slot is gone"
	case sl.lost:
		lost = "the server has thrown away log that the slot still needed (max_slot_wal_keep_size)"
	case old.Publication != ss.pub.oid:
		lost = "the publication was made anew"
	case uint64(old.LSN) > ss.until:
		lost = "the server's log ends before our checkpoint"
	case sl.confirmed > uint64(old.LSN):
		lost = "somebody else has moved the slot"
	}
	if sl.lost {
		if _, err := ss.conn.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, s.cfg.Slot); err != nil {
			return wrap("drop the lost slot "+s.cfg.Slot, err)
		}
	}
	if sl.lost || !sl.exists {
		if sl.confirmed, err = s.createSlot(ctx, ss.conn); err != nil {
			return err
		}
	}
	if lost != "" {
		s.log.Error("changes were missed: every table is loaded again", "reason", lost)
	}
	ss.place(system, timeline, sl.confirmed, lost)
	return nil
}

// place brings the checkpoint up to what was found.
func (ss *session) place(system string, timeline int, confirmed uint64, lost string) {
	s := ss.s
	ss.cp.change(func(st *state) {
		fresh := st.Slot == "" || lost != ""
		st.System, st.Timeline, st.Slot, st.Publication = system, timeline, s.cfg.Slot, ss.pub.oid
		if fresh {
			st.LSN = lsn(confirmed)
		}
		for name, stream := range st.Streams {
			if lost != "" && stream.Phase == streaming {
				stream.Phase, stream.Note = stopped, lost
			}
			if !ss.configured(name) {
				stream.Phase, stream.Note = removed, ""
			}
		}
		for name, t := range ss.active {
			stream := st.Streams[name.Local()]
			if stream != nil && stream.Phase == streaming && (stream.OID != t.oid || stream.Pub != t.pubRow) {
				stream.Phase, stream.Note = stopped, "the table, or its place in the publication, is another one than before"
				s.log.Error("changes were missed: the table is loaded again", "stream", name.String(), "reason", stream.Note)
			}
		}
	})
}

func (ss *session) configured(local string) bool {
	for _, n := range ss.s.tables {
		if n.Local() == local {
			return true
		}
	}
	return false
}

// park stops one stream for good: it gets a new backfill at the next start.
func (ss *session) park(name record.StreamName, err error) {
	ss.cp.set(name.Local(), stopped, err.Error())
	p := ss.s.progress(name)
	if state, _ := p.State(); state != progress.Parked {
		p.Set(progress.Parked, err.Error())
		ss.s.log.Error("stream parked", "stream", name.String(), "error", err)
	}
}

// identify asks which server and which history of it this is.
func (s *Source) identify(ctx context.Context) (system string, timeline int, err error) {
	conn, err := s.connectReplication(ctx)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	results, err := conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		return "", 0, wrap("identify the server", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 2 {
		return "", 0, errors.New("identify the server: unexpected answer")
	}
	row := results[0].Rows[0]
	if _, err := fmt.Sscan(string(row[1]), &timeline); err != nil {
		return "", 0, fmt.Errorf("identify the server: timeline: %w", err)
	}
	return string(row[0]), timeline, nil
}

func (s *Source) createSlot(ctx context.Context, conn *pgx.Conn) (uint64, error) {
	var at string
	err := conn.QueryRow(ctx, `SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')`, s.cfg.Slot).Scan(&at)
	if err != nil {
		return 0, wrap("create replication slot "+s.cfg.Slot, err)
	}
	s.log.Info("replication slot created", "slot", s.cfg.Slot)
	return parseLSN(at)
}

// read loads what needs a backfill, while the other streams go on, and then follows all.
func (ss *session) read(ctx context.Context) error {
	var load, follow []*table
	for _, name := range ss.s.tables {
		t := ss.active[name]
		switch {
		case t == nil:
		case ss.cp.stream(name.Local()).Phase == streaming:
			follow = append(follow, t)
		default:
			load = append(load, t)
		}
	}
	if len(load) > 0 {
		if err := ss.loadBeside(ctx, load, follow); err != nil {
			return err
		}
	}
	var all []*table
	for _, name := range ss.s.tables {
		if t := ss.active[name]; t != nil && ss.cp.stream(name.Local()).Phase == streaming {
			all = append(all, t)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	done, stop := context.WithCancel(gctx)
	defer stop()
	g.Go(func() error {
		defer stop()
		return ss.follow(gctx, all, false)
	})
	g.Go(func() error { return ss.watch(done, gctx) })
	g.Go(func() error {
		select {
		case <-ss.s.asks.news:
			return errAsked
		case <-done.Done():
			return nil
		}
	})
	if err := g.Wait(); err != nil || ctx.Err() != nil || !ss.s.cfg.UntilCaughtUp {
		return err
	}
	for _, t := range all {
		p := ss.s.progress(t.name)
		if state, note := p.State(); state != progress.Parked {
			p.Set(progress.Done, note)
		}
	}
	return nil
}

// loadBeside runs the backfill of some tables and meanwhile follows the others,
// without giving log free: the new streams need it from their snapshot on.
func (ss *session) loadBeside(ctx context.Context, load, others []*table) error {
	beside, stop := context.WithCancel(ctx)
	defer stop()
	followed := make(chan error, 1)
	if len(others) > 0 {
		go func() { followed <- ss.follow(beside, others, true) }()
	} else {
		followed <- nil
	}
	err := ss.backfill(ctx, load)
	stop()
	// A failure of the others is no reason to lose the backfill: they start again below.
	if ferr := <-followed; ferr != nil && err == nil && !errors.Is(ferr, context.Canceled) {
		ss.s.log.Warn("streaming stopped during the backfill", "error", ferr)
	}
	return err
}

// watch parks streams whose table has left the publication, as their changes no longer come.
func (ss *session) watch(done, ctx context.Context) error {
	tick := time.NewTicker(ss.s.watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-done.Done():
			return nil
		case <-tick.C:
		}
		if err := ss.checkPublication(ctx); err != nil && done.Err() == nil {
			return err
		}
	}
}

// checkPublication compares the publication with what it was at the start.
func (ss *session) checkPublication(ctx context.Context) error {
	ss.catalog.Lock()
	defer ss.catalog.Unlock()
	found := map[record.StreamName]*table{}
	for name := range ss.active {
		found[name] = &table{name: name}
	}
	pub, err := ss.s.loadPublication(ctx, ss.conn, ss.srv.version, found)
	if err != nil {
		return err
	}
	if pub.oid != ss.pub.oid {
		ss.dropped = true
		return ss.lostPublication()
	}
	for name, t := range ss.active {
		if now := found[name]; (!now.published || now.pubRow != t.pubRow) && ss.cp.stream(name.Local()).Phase == streaming {
			ss.park(name, fmt.Errorf("the table was taken out of publication %s; a restart adds and loads it again", ss.s.cfg.Publication))
		}
	}
	return nil
}

// lostPublication marks all streams for a new backfill and says how to go on.
func (ss *session) lostPublication() error {
	var tables []*table
	for _, name := range ss.s.tables {
		if t := ss.active[name]; t != nil {
			tables = append(tables, t)
			ss.cp.set(name.Local(), stopped, "the publication was dropped")
		}
	}
	return &Error{Do: "read publication " + ss.s.cfg.Publication, Err: errors.New("it was dropped, changes since are lost"), Bad: true,
		Fix: fmt.Sprintf("a restart makes it again if role %s may, and loads the tables again; otherwise first, as their owner: %s",
			ss.srv.user, ss.s.createSQL(ss.srv, tables))}
}

// isLostPublication recognises the answer of servers that stop by themselves.
func isLostPublication(err error) bool {
	return sqlState(err) == "42704" && strings.Contains(err.Error(), "publication")
}
