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
		seen := map[string]int{} // steps of a table that are visible
		shown, began := time.Now(), time.Now()
		var deadline time.Time
		for {
			if err := d.sluice.pause(ctx, pollEvery); err != nil {
				return err
			}
			missing := 0
			for _, t := range d.tables {
				state, err := d.sluice.table(ctx, t.name)
				if err != nil {
					return err
				}
				at := time.Now()
				mu.Lock()
				for seen[t.name] < len(steps) && state.applied >= steps[seen[t.name]].before {
					fresh[t.name] = append(fresh[t.name], at.Sub(steps[seen[t.name]].committed))
					seen[t.name]++
				}
				missing = max(missing, len(steps)-seen[t.name])
				mu.Unlock()
			}
			mu.Lock()
			all, ended := len(steps), over
			mu.Unlock()
			if ended && missing == 0 {
				d.screen.line("live         %s for %s, all of it in the lake", count(all, "transaction"), seconds(d.Live))
				return nil
			}
			if ended && deadline.IsZero() {
				deadline = time.Now().Add(drainLimit)
			}
			if ended && time.Now().After(deadline) {
				return errors.New("the lake does not catch up with the last changes")
			}
			if every := d.screen.every(); time.Since(shown) > every {
				shown = time.Now()
				if err := d.showLive(ctx, time.Since(began), missing); err != nil {
					return err
				}
			}
		}
	})
	return fresh, g.Wait()
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

// showLive says how fast changes come and how far the lake is behind.
func (d *demo) showLive(ctx context.Context, since time.Duration, missing int) error {
	s, err := d.sluice.status(ctx)
	if err != nil {
		return err
	}
	if s.trouble != "" {
		return errors.New(s.trouble)
	}
	var delivered int64
	newest := time.Duration(0)
	for _, t := range d.tables {
		r := s.row("sink", t.name)
		delivered += r.Delivered
		age := time.Duration(r.CommitAge * float64(time.Second))
		if newest == 0 || age < newest {
			newest = age
		}
	}
	d.screen.status("live         %4.0f s · %s records delivered · %s behind · last snapshot %s ago",
		since.Seconds(), grouped(delivered), seconds(time.Duration(missing)*stepEvery), seconds(newest))
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
