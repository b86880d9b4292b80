package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-data/sluice/progress"
)

// pollEvery is how often the catalog is asked for new snapshots; measured
// freshness is too long by up to this.
const pollEvery = 150 * time.Millisecond

// step is one transaction of live changes.
type step struct {
	before    uint64    // log address at which its commit began: what has reached it holds the step
	committed time.Time // when Postgres had answered the commit
}

// freshness holds per table the times from commit in Postgres to visible in
// the catalog: one sample for each step and table.
type freshness map[string][]time.Duration

// live changes the shop for a while, watches the lake follow and returns when
// it holds everything.
func (d *demo) live(ctx context.Context) (freshness, error) {
	var mu sync.Mutex // guards steps and over
	var steps []step
	over := false
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		began := time.Now()
		for n := int64(1); ; n++ {
			last := time.Since(began) >= d.Live
			orders, touched := stepOrders, stepTouched
			if last { // large enough to reach every partition of every topic: it marks the end
				orders, touched = 10*stepOrders, 10*stepTouched
			}
			s, err := d.step(ctx, n, orders, touched)
			if err != nil {
				return err
			}
			mu.Lock()
			steps, over = append(steps, s), last
			mu.Unlock()
			if last {
				return nil
			}
			if err := d.sluice.pause(ctx, time.Until(began.Add(time.Duration(n)*stepEvery))); err != nil {
				return err
			}
		}
	})
	fresh := freshness{}
	g.Go(func() error {
		w := watch{demo: d, fresh: fresh, seen: map[string]int{}, before: map[string]int64{}, shown: time.Now()}
		return w.run(ctx, func() ([]step, bool) {
			mu.Lock()
			defer mu.Unlock()
			return steps, over
		})
	})
	return fresh, g.Wait()
}

// watch looks at the catalog and notes when each step has become visible.
type watch struct {
	*demo
	fresh  freshness
	seen   map[string]int   // steps of a table that are visible
	before map[string]int64 // records of a table when they were shown last
	shown  time.Time
}

// run returns when every step is visible; made returns the steps and whether the last one is among them.
func (w *watch) run(ctx context.Context, made func() (steps []step, over bool)) error {
	var deadline time.Time
	for {
		if err := w.sluice.pause(ctx, pollEvery); err != nil {
			return err
		}
		missing := map[string]int{}
		for _, t := range w.tables {
			state, err := w.sluice.table(ctx, t.name)
			if err != nil {
				return err
			}
			at := time.Now()
			steps, _ := made()
			n := w.seen[t.name]
			for ; n < len(steps) && state.applied >= steps[n].before; n++ {
				w.fresh[t.name] = append(w.fresh[t.name], at.Sub(steps[n].committed))
			}
			w.seen[t.name], missing[t.name] = n, len(steps)-n
		}
		steps, over := made()
		switch {
		case over && w.allSeen(len(steps)):
			w.screen.line("live         %s in %s, all of them in the lake", count(len(steps), "transaction"), seconds(w.Live))
			return nil
		case over && deadline.IsZero():
			deadline = time.Now().Add(drainLimit)
		case over && time.Now().After(deadline):
			return errors.New("the lake does not catch up with the last changes")
		}
		if since := time.Since(w.shown); since > w.screen.pace() {
			w.shown = time.Now()
			if err := w.showLive(ctx, w.before, since, missing); err != nil {
				return err
			}
		}
	}
}

func (w *watch) allSeen(steps int) bool {
	for _, t := range w.tables {
		if w.seen[t.name] < steps {
			return false
		}
	}
	return true
}

// step makes one transaction of changes.
func (d *demo) step(ctx context.Context, n int64, orders, touched int) (step, error) {
	var s step
	var lsn string
	tx, err := d.conn.Begin(ctx)
	if err == nil {
		if _, err = tx.Exec(ctx, "CALL live($1, $2, $3)", n, orders, touched); err == nil {
			if err = tx.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&lsn); err == nil {
				err = tx.Commit(ctx)
			}
		}
	}
	if err != nil {
		return s, fmt.Errorf("live changes: %w", err)
	}
	s.committed = time.Now()
	s.before, err = parseLSN(lsn)
	return s, err
}

// showLive says for each table what has arrived, how fast, and how far the lake is behind.
func (d *demo) showLive(ctx context.Context, before map[string]int64, since time.Duration, missing map[string]int) error {
	s, err := d.sluice.status(ctx)
	if err != nil {
		return err
	}
	if s.trouble != "" {
		return errors.New(s.trouble)
	}
	var lines []string
	for _, t := range d.tables {
		r := s.row(progress.Sink, "lake", t.name)
		lines = append(lines, fmt.Sprintf("live         %-13s %9s records  %6s rows/s  behind %s  snapshot %d, %s ago", t.name, grouped(r.Delivered),
			grouped(int64(float64(r.Delivered-before[t.name])/since.Seconds())), seconds(time.Duration(missing[t.name])*stepEvery),
			r.Commits, seconds(time.Duration(r.CommitAge*float64(time.Second)))))
		before[t.name] = r.Delivered
	}
	d.screen.block(lines)
	return nil
}

// percentile of sorted samples, in the sense of "at most p of them are longer".
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

// of returns the percentiles of one table, or of all with "".
func (f freshness) of(table string, p float64) time.Duration {
	var all []time.Duration
	for name, samples := range f {
		if table == "" || table == name {
			all = append(all, samples...)
		}
	}
	slices.Sort(all)
	return percentile(all, p)
}

func parseLSN(s string) (uint64, error) {
	high, low, ok := strings.Cut(s, "/")
	h, err1 := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if err := errors.Join(err1, err2); !ok || err != nil {
		return 0, fmt.Errorf("log address %q: %w", s, err)
	}
	return h<<32 | l, nil
}
