package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// checkpointKey is where the brokers keep which state the stream comes from.
const checkpointKey = "files"

// checkpoint ties the local state to what is on the brokers: a state that is
// lost, older or another one means a new epoch, in which all is read again.
type checkpoint struct {
	State  string `json:"state"`
	Epoch  int64  `json:"epoch"`
	LSN    int64  `json:"lsn"`
	Loaded bool   `json:"loaded"` // the first pass of the epoch is complete, and no stream is parked
}

// session is one Run.
type session struct {
	s    *Source
	out  Output
	st   *state
	root Root

	cp      checkpoint
	lsn     int64 // of the last pass that had changes
	seq     int64
	noGone  bool  // nothing is missing in this listing: no file was renamed
	loading bool  // the first pass of an epoch
	began   int64 // start of the pass, µs since 1970

	unsettled int
	missed    int // files that changed while they were read: the next pass gets them
	skipped   map[string]int
	parked    [3]bool
}

// Run reads until ctx ends, or with UntilCaughtUp one full pass. It returns nil
// in both cases, once what was read is on the brokers.
func (s *Source) Run(ctx context.Context, out Output) error {
	err := s.run(ctx, out)
	if err != nil && ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return nil
	}
	return err
}

func (s *Source) run(ctx context.Context, out Output) error {
	st, err := openState(ctx, s.cfg.Dir)
	if err != nil {
		return err
	}
	defer st.close()
	place, err := s.cfg.Open(ctx)
	if err != nil {
		return err
	}
	if c, ok := place.(io.Closer); ok {
		defer func() { _ = c.Close() }()
	}
	ss := &session{s: s, out: out, st: st, root: place, began: s.now().UnixMicro()}
	if err := ss.open(ctx); err != nil {
		return err
	}
	for try := 1; ; try++ {
		if err := ss.pass(ctx); err != nil {
			return err
		}
		switch {
		case s.cfg.UntilCaughtUp && (ss.missed == 0 || try == 3):
			return nil
		case ss.allParked() && s.cfg.UntilCaughtUp:
			return nil
		case ss.allParked():
			<-ctx.Done()
			return ctx.Err()
		}
		wait := s.cfg.Every
		if ss.missed > 0 {
			wait = min(wait, time.Second)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (ss *session) allParked() bool {
	for i := range ss.s.streams() {
		if !ss.parked[i] {
			return false
		}
	}
	return true
}

// open finds out whether the state goes on where the brokers are.
func (ss *session) open(ctx context.Context) error {
	identity, err := ss.st.identity(ctx)
	if err != nil {
		return err
	}
	epoch, err := ss.st.number(ctx, "epoch")
	if err != nil {
		return err
	}
	if ss.lsn, err = ss.st.number(ctx, "lsn"); err != nil {
		return err
	}
	data, err := ss.out.LoadCheckpoint(ctx, checkpointKey)
	if err != nil {
		return err
	}
	if data != nil {
		if err := json.Unmarshal(data, &ss.cp); err != nil {
			return fmt.Errorf("read the checkpoint of source %s: %w", ss.s.cfg.Name, err)
		}
	}
	if ss.cp.State == identity && ss.cp.Epoch == epoch && ss.cp.Loaded && ss.cp.LSN <= ss.lsn {
		for i := range ss.s.streams() {
			ss.s.progress(i).Set(progress.Streaming, "")
		}
		return ss.recover(ctx)
	}
	if ss.cp.Loaded {
		ss.s.log.Warn("the local state of the files is another one than the brokers know: everything is read again")
	}
	return ss.newEpoch(ctx, identity, max(epoch, ss.cp.Epoch)+1)
}

// newEpoch begins to publish everything again. What is known of contents and
// copies stays: only what travels inline is read again.
func (ss *session) newEpoch(ctx context.Context, identity string, epoch int64) error {
	ss.lsn, ss.loading = 1, true
	if err := ss.st.tx(ctx, func(tx txn) error {
		for _, m := range []struct {
			name  string
			value any
		}{{"epoch", epoch}, {"lsn", ss.lsn}, {"token", ""}, {"groups", 0}} {
			if _, err := tx.ExecContext(ctx, putMeta, m.name, m.value); err != nil {
				return err
			}
		}
		for _, q := range []string{`UPDATE file SET pending = 0`, `DELETE FROM file WHERE live = 0`, `DELETE FROM member`} {
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	ss.cp = checkpoint{State: identity, Epoch: epoch}
	if err := ss.save(ctx); err != nil {
		return err
	}
	if err := ss.s.at("epoch"); err != nil {
		return err
	}
	ss.s.log.Info("all files are read", "epoch", epoch)
	for i := range ss.s.streams() {
		ss.s.progress(i).Set(progress.Backfilling, "")
	}
	return ss.control(ctx, record.OpBackfillBegin)
}

// control publishes one control op to every stream.
func (ss *session) control(ctx context.Context, op record.Op) error {
	for i := range ss.s.streams() {
		pos := record.Position{Epoch: uint64(ss.cp.Epoch), LSN: uint64(ss.lsn)}
		if err := ss.publish(ctx, i, record.NewControl(ss.s.schemas[i], op, pos, ss.began)); err != nil {
			return err
		}
	}
	return nil
}

func (ss *session) save(ctx context.Context) error {
	data, err := json.Marshal(ss.cp)
	if err != nil {
		return err
	}
	if err := ss.out.SaveCheckpoint(ctx, checkpointKey, data); err != nil {
		return err
	}
	return ss.s.at("checkpoint")
}

// publish sends a batch. A stream that the output refuses is parked: the
// checkpoint remembers that the next start has to read everything again.
func (ss *session) publish(ctx context.Context, stream int, b *record.Batch) error {
	if ss.parked[stream] || b.Len() == 0 {
		b.Release()
		return nil
	}
	err := ss.out.Publish(ctx, b)
	var lost interface{ Lost() bool }
	if err == nil || ctx.Err() != nil || errors.As(err, &lost) && lost.Lost() {
		return err
	}
	ss.parked[stream] = true
	p := ss.s.progress(stream)
	if state, _ := p.State(); state != progress.Parked {
		p.Set(progress.Parked, err.Error())
	}
	ss.s.log.Error("stream parked", "stream", ss.s.schemas[stream].Stream.String(), "error", err)
	ss.cp.Loaded = false
	return ss.save(ctx)
}

// settle waits until the brokers hold what was published and forgets that it
// could be missing there (invariant 1).
func (ss *session) settle(ctx context.Context) error {
	if err := ss.out.Flush(ctx); err != nil {
		return err
	}
	if err := ss.s.at("flushed"); err != nil {
		return err
	}
	if err := ss.st.tx(ctx, func(tx txn) error {
		for _, q := range []string{
			`DELETE FROM file WHERE pending AND live = 0 AND reason = ''`,
			`UPDATE file SET pending = 0, moved = '' WHERE pending`,
			`DELETE FROM member WHERE pending AND live = 0`,
			`UPDATE member SET pending = 0 WHERE pending`,
			`DELETE FROM trash WHERE object IN (SELECT object FROM file WHERE object <> '')`,
		} {
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	ss.unsettled = 0
	if err := ss.s.at("settled"); err != nil {
		return err
	}
	return ss.emptyTrash(ctx)
}

// complete ends a pass: the checkpoint learns how far the log has come.
func (ss *session) complete(ctx context.Context) error {
	if ss.unsettled > 0 {
		if err := ss.settle(ctx); err != nil {
			return err
		}
	} else if err := ss.emptyTrash(ctx); err != nil { // a crash after the last settle left it
		return err
	}
	if ss.loading {
		if err := ss.control(ctx, record.OpBackfillEnd); err != nil {
			return err
		}
		if err := ss.out.Flush(ctx); err != nil {
			return err
		}
	}
	parked := false
	for _, p := range ss.parked {
		parked = parked || p
	}
	if !parked && (ss.loading || ss.cp.LSN != ss.lsn) {
		ss.cp.Loaded, ss.cp.LSN = true, ss.lsn
		if err := ss.save(ctx); err != nil {
			return err
		}
	}
	ss.loading = false
	note := ss.note()
	for i := range ss.s.streams() {
		if ss.parked[i] {
			continue
		}
		p := ss.s.progress(i)
		p.Set(progress.Streaming, note)
		p.SetPosition(fmt.Sprintf("pass %d", ss.lsn))
		p.SourceMicros.Store(ss.began)
		p.BehindMicros.Store(0)
		note = ""
	}
	return nil
}
