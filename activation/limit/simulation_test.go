package limit

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

// vendor answers calls in virtual time: a rolling window that all callers share.
type vendor struct {
	limit  int
	window time.Duration
	taken  []time.Time // of accepted calls
	header bool        // tells what is left
	after  bool        // tells when to come back
}

func (v *vendor) call(now time.Time) delivery.Answer {
	for len(v.taken) > 0 && now.Sub(v.taken[0]) >= v.window {
		v.taken = v.taken[1:]
	}
	a := delivery.Answer{Status: 200}
	if len(v.taken) >= v.limit {
		a.Status, a.Throttled = 429, true
		if v.after {
			a.RetryAfter = time.Second
		}
	} else {
		v.taken = append(v.taken, now)
	}
	if v.header {
		a.Quota, a.Limit, a.Remaining = "burst", v.limit, v.limit-len(v.taken)
	}
	return a
}

type event struct {
	at time.Time
	do func()
}

type timeline []event

func (t timeline) Len() int           { return len(t) }
func (t timeline) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timeline) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *timeline) Push(x any)        { *t = append(*t, x.(event)) }
func (t *timeline) Pop() any {
	old := *t
	e := old[len(old)-1]
	*t = old[:len(old)-1]
	return e
}

type tally struct{ ok, refused int }

// simulate runs 300 s with 20 workers that always have work, beside another
// integration that sends 10 calls/s from 100 s to 200 s.
func simulate(t *testing.T, seed uint64, v *vendor, cotenant bool) (ours, during, other tally) {
	t.Helper()
	a, err := NewAccount(Config{Quotas: []delivery.Quota{{Name: "burst", Requests: 190, Window: 10 * time.Second}}})
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	start := time.Unix(1_700_000_000, 0)
	now := start
	var line timeline
	at := func(d time.Duration, f func()) { heap.Push(&line, event{now.Add(d), f}) }
	var worker func()
	worker = func() {
		if d := a.take(now, delivery.Stream, "", 1); d > 0 {
			at(d, worker)
			return
		}
		there := time.Duration(20+rnd.IntN(60)) * time.Millisecond
		at(there, func() {
			ans := v.call(now)
			if since := now.Sub(start); since >= 100*time.Second && since < 200*time.Second {
				count(&during, ans)
			}
			count(&ours, ans)
			at(there, func() {
				a.observe(now, ans)
				worker()
			})
		})
	}
	for range 20 {
		at(0, worker)
	}
	if cotenant {
		var other10 func()
		other10 = func() {
			if now.Sub(start) < 200*time.Second {
				count(&other, v.call(now))
				at(time.Duration(rnd.ExpFloat64()*float64(time.Second)/10), other10)
			}
		}
		at(100*time.Second, other10)
	}
	for len(line) > 0 && line[0].at.Sub(start) < 300*time.Second {
		e := heap.Pop(&line).(event)
		now = e.at
		e.do()
	}
	return ours, during, other
}

func count(n *tally, a delivery.Answer) {
	if a.Throttled {
		n.refused++
	} else {
		n.ok++
	}
}

// TestShareIsUsedAndOthersAreServed is property P8.
func TestShareIsUsedAndOthersAreServed(t *testing.T) {
	const seeds = 8
	share := math.Floor(190*DefaultShare) / 10 * 300 // calls that are ours in 300 s
	for _, c := range []struct {
		name          string
		header, after bool
		cotenant      bool
	}{
		{"alone, with headers", true, true, false},
		{"alone, without any header", false, false, false},
		{"beside 10 calls/s, with headers", true, true, true},
		{"beside 10 calls/s, Retry-After only", false, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var ours, during, other tally
			for seed := range uint64(seeds) {
				o, d, x := simulate(t, seed, &vendor{limit: 190, window: 10 * time.Second, header: c.header, after: c.after}, c.cotenant)
				ours.ok, ours.refused = ours.ok+o.ok, ours.refused+o.refused
				during.ok, during.refused = during.ok+d.ok, during.refused+d.refused
				other.ok, other.refused = other.ok+x.ok, other.refused+x.refused
			}
			used := float64(ours.ok) / seeds / share
			refused := float64(ours.refused) / float64(ours.ok+ours.refused)
			served := float64(other.ok) / float64(max(other.ok+other.refused, 1))
			t.Logf("used %.1f %% of our share, %.2f %% of our calls refused (%d of %d beside the other), the other served %.1f %%",
				100*used, 100*refused, during.refused, during.ok+during.refused, 100*served)
			if !c.cotenant && (used < 0.95 || ours.refused > 0) {
				t.Errorf("want ≥ 95 %% used and nothing refused")
			}
			if refused > 0.01 {
				t.Errorf("%.2f %% of our calls were refused, want ≤ 1 %%", 100*refused)
			}
			if c.cotenant && served < 0.8 {
				t.Errorf("the other was served %.1f %%, want ≥ 80 %%", 100*served)
			}
		})
	}
}
