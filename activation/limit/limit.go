// Package limit keeps calls to a vendor inside the quota of an account.
//
// It starts from the declared quotas and a share of them, spreads calls evenly,
// counts them in rolling windows, and gives way to others that use the account:
// what the vendor's headers say is left tells how much these need.
package limit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

const (
	// DefaultShare of a quota is ours: the customer's other integrations need the rest.
	DefaultShare = 0.7
	// DefaultReserve of a quota is left alone as far as the vendor's headers tell.
	DefaultReserve = 0.1
	// DefaultStream of our share of a daily quota is kept for the stream lane.
	DefaultStream = 0.2

	// daily is from which window on calls are not spread evenly: a backlog may
	// use the day's calls at once, but for the reserve of the stream lane.
	daily = time.Hour

	// floorShare of a quota stays ours however much others use: who gives way
	// completely never finishes.
	floorShare = 0.1

	cut        = 0.7                    // factor of the rate after a refusal
	cutEvery   = time.Second            // refusals of calls that were under way together are one
	recoverPer = 20 * time.Second       // in which the rate recovers completely
	blindPause = 500 * time.Millisecond // after a refusal that names no time, at first
	maxPause   = 5 * time.Minute
)

// Config declares the quotas of an account. Zero values are defaults.
type Config struct {
	Account   string                      // for errors
	Quotas    []delivery.Quota            // of all calls of the account
	Endpoints map[string][]delivery.Quota // further ones, of the calls of one endpoint
	Share     float64                     // of each quota is ours; default 0.7
	Reserve   float64                     // of each quota is left for others where headers tell; default 0.1
	Stream    float64                     // of our share of a day is kept for the stream lane; default 0.2
}

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	var errs []error
	check := func(where string, qs []delivery.Quota) {
		for _, q := range qs {
			if q.Requests < 1 || q.Window <= 0 {
				errs = append(errs, fmt.Errorf("quota %s%s: want requests ≥ 1 and a window", where, q.Name))
			}
		}
	}
	check("", c.Quotas)
	for e, qs := range c.Endpoints {
		check(e+".", qs)
	}
	for name, v := range map[string]float64{"share": c.Share, "reserve": c.Reserve, "stream": c.Stream} {
		if v < 0 || v > 1 {
			errs = append(errs, fmt.Errorf("limit %s %v: want 0 to 1", name, v))
		}
	}
	return errors.Join(errs...)
}

// Account is the budget of one account of a vendor, for all connections of the
// process that use it. Its methods may be called from several goroutines.
type Account struct {
	cfg Config
	now func() time.Time

	mu        sync.Mutex
	windows   []*window            // of the account
	endpoints map[string][]*window // of the endpoints
	members   int                  // processes that share the account
	paused    time.Time            // no call before
	blind     int                  // refusals in a row that named no time
	waiting   int                  // calls of the stream lane that wait
	refused   time.Time            // last cut of the rate
	changed   chan struct{}        // closed when waiting calls should look again
	stats     Stats
}

// Stats counts what has happened to the calls of an account.
type Stats struct {
	Calls     int64
	Throttled int64
	Paused    time.Time // zero or past = not
}

// NewAccount returns the budget of an account.
func NewAccount(c Config) (*Account, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("account %s: %w", c.Account, err)
	}
	def := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.Share, DefaultShare)
	def(&c.Reserve, DefaultReserve)
	def(&c.Stream, DefaultStream)
	a := &Account{cfg: c, now: time.Now, members: 1, endpoints: map[string][]*window{}, changed: make(chan struct{})}
	for _, q := range c.Quotas {
		a.windows = append(a.windows, newWindow(q, c))
	}
	for e, qs := range c.Endpoints {
		for _, q := range qs {
			a.endpoints[e] = append(a.endpoints[e], newWindow(q, c))
		}
	}
	return a, nil
}

var _ delivery.Budget = (*Account)(nil)

// Wait blocks until a call of the lane to endpoint may be made, and counts it.
// A call of the backfill lane waits while one of the stream lane does.
func (a *Account) Wait(ctx context.Context, lane delivery.Lane, endpoint string, cost int) error {
	waits := false
	defer func() {
		if waits {
			a.mu.Lock()
			a.waiting--
			a.wake()
			a.mu.Unlock()
		}
	}()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		a.mu.Lock()
		d := a.take(a.now(), lane, endpoint, max(cost, 1))
		changed := a.changed
		if d > 0 && lane == delivery.Stream && !waits {
			waits = true
			a.waiting++
		}
		a.mu.Unlock()
		if d <= 0 {
			return nil
		}
		t := time.NewTimer(d)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-changed:
		}
		t.Stop()
	}
}

// take counts a call if it may be made now, else it returns after which time
// to ask again.
func (a *Account) take(now time.Time, lane delivery.Lane, endpoint string, cost int) time.Duration {
	if d := a.paused.Sub(now); d > 0 {
		return d
	}
	if lane == delivery.Backfill && a.waiting > 0 {
		return 100 * time.Millisecond // until the stream's calls are made; they wake us
	}
	var d time.Duration
	windows := [2][]*window{a.windows, a.endpoints[endpoint]}
	for _, ws := range windows {
		for _, w := range ws {
			d = max(d, w.wait(now, lane, cost, a.members))
		}
	}
	if d > 0 {
		return d
	}
	for _, ws := range windows {
		for _, w := range ws {
			w.count(now, lane, cost, a.members)
		}
	}
	a.stats.Calls++
	return 0
}

func (a *Account) wake() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// Observe learns from an answer: what is left of a quota, and refusals. A
// refusal pauses the whole account.
func (a *Account) Observe(ans delivery.Answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.observe(a.now(), ans)
}

func (a *Account) observe(now time.Time, ans delivery.Answer) {
	for _, ws := range [2][]*window{a.windows, a.endpoints[ans.Endpoint]} {
		for _, w := range ws {
			if ans.Quota != "" && ans.Quota == w.quota.Name {
				w.left(now, ans.Remaining, ans.Limit)
			}
		}
	}
	if !ans.Throttled {
		a.blind = 0
		return
	}
	a.stats.Throttled++
	pause := ans.RetryAfter
	if pause <= 0 {
		pause = ans.Reset
	}
	if pause <= 0 {
		full := blindPause << min(a.blind, 10)
		pause = full/2 + rand.N(full/2)
		a.blind++
	}
	if until := now.Add(min(pause, 24*time.Hour)); until.After(a.paused) {
		a.paused = until
	}
	if now.Sub(a.refused) < cutEvery {
		return
	}
	a.refused = now
	for _, ws := range [2][]*window{a.windows, a.endpoints[ans.Endpoint]} {
		for _, w := range ws {
			if ans.Quota == "" && w.quota.Window < daily || ans.Quota == w.quota.Name {
				w.cut(now)
			}
		}
	}
}

// Share tells how many processes use the account, this one included, and until
// when another one has seen it paused (zero = not).
func (a *Account) Share(members int, paused time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.members = max(members, 1)
	if paused.After(a.paused) {
		a.paused = paused
	}
	a.wake()
}

// Paused returns until when the account is paused; the zero time and the past
// are: not at all.
func (a *Account) Paused() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.paused
}

// Stats returns what has happened to the calls so far.
func (a *Account) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.stats
	s.Paused = a.paused
	return s
}

// Today returns how many calls the longest declared quota has left for us in
// its window, and how many are ours in all; 0, 0 where none is declared.
func (a *Account) Today() (left, ours int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var longest *window
	for _, w := range a.windows {
		if longest == nil || w.quota.Window > longest.quota.Window {
			longest = w
		}
	}
	if longest == nil {
		return 0, 0
	}
	now := a.now()
	ours = int(longest.ours(now, a.members))
	return max(ours-longest.used(now), 0), ours
}
