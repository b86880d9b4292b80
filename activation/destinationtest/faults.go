package destinationtest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Faults are the shares of calls, 0 to 1, that go wrong.
type Faults struct {
	Seed         uint64
	Lost         float64       // carried out, but the connection ends before the answer
	Delayed      float64       // the connection ends at once, the call is carried out Delay later
	Reset        float64       // the connection ends, nothing is carried out
	Broken       float64       // 503, nothing is carried out
	BrokenAfter  float64       // carried out, then 500
	Throttle     float64       // 429
	Unauthorized float64       // 401, and tokens from the login are forgotten
	Truncated    float64       // carried out, half the answer
	Slow         float64       // the answer comes Delay later
	Shuffled     float64       // rows in another order where the vendor promises none
	Lock         float64       // of rows: the record is locked (Salesforce)
	JobFails     float64       // of jobs: they end half way (Salesforce)
	Delay        time.Duration // 50 ms unless said
	NoRetryAfter bool          // 429 without saying when to come back
}

// AllFaults is a plan in which everything happens.
func AllFaults(seed uint64) Faults {
	return Faults{Seed: seed, Lost: 0.02, Delayed: 0.01, Reset: 0.02, Broken: 0.02, BrokenAfter: 0.01, Throttle: 0.01, Truncated: 0.02,
		Shuffled: 0.3, Lock: 0.01, JobFails: 0.3, Unauthorized: 0.005}
}

// ParseFaults reads lost=0.05,delayed=0.01,seed=7,delay=1s; "all" is AllFaults.
func ParseFaults(text string) (Faults, error) {
	var f Faults
	shares := map[string]*float64{"lost": &f.Lost, "delayed": &f.Delayed, "reset": &f.Reset, "broken": &f.Broken, "broken_after": &f.BrokenAfter,
		"throttle": &f.Throttle, "unauthorized": &f.Unauthorized, "truncated": &f.Truncated, "slow": &f.Slow, "shuffled": &f.Shuffled,
		"lock": &f.Lock, "job_fails": &f.JobFails}
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		name, value, _ := strings.Cut(part, "=")
		var err error
		switch {
		case name == "all":
			seed := f.Seed
			f = AllFaults(1)
			if seed != 0 {
				f.Seed = seed
			}
		case name == "seed":
			f.Seed, err = strconv.ParseUint(value, 10, 64)
		case name == "delay":
			f.Delay, err = time.ParseDuration(value)
		case name == "no_retry_after":
			f.NoRetryAfter = true
		case shares[name] == nil:
			return f, fmt.Errorf("unknown fault %q, known are all, seed, delay, no_retry_after, %s", name, strings.Join(sortedKeys(shares), ", "))
		default:
			*shares[name], err = strconv.ParseFloat(value, 64)
			if err == nil && (*shares[name] < 0 || *shares[name] > 1) {
				err = fmt.Errorf("is not between 0 and 1")
			}
		}
		if err != nil {
			return f, fmt.Errorf("fault %s: %q: %w", name, value, err)
		}
	}
	return f, nil
}

// faultPlan draws what goes wrong, the same for the same seed and calls.
type faultPlan struct {
	f      Faults
	random *rand.Rand
	queue  []string
}

func newFaultPlan(f Faults) *faultPlan {
	if f.Delay == 0 {
		f.Delay = 50 * time.Millisecond
	}
	return &faultPlan{f: f, random: rand.New(rand.NewPCG(f.Seed, 0x5eed))}
}

// next returns the fault of a call, empty for none.
func (p *faultPlan) next(r *http.Request) string {
	if r.Method != http.MethodGet && len(p.queue) > 0 {
		f := p.queue[0]
		p.queue = p.queue[1:]
		if f == "none" {
			return ""
		}
		return f
	}
	x := p.random.Float64()
	for _, c := range []struct {
		share float64
		name  string
	}{{p.f.Lost, "lost"}, {p.f.Delayed, "delayed"}, {p.f.Reset, "reset"}, {p.f.Broken, "broken"}, {p.f.BrokenAfter, "broken_after"}, {p.f.Throttle, "throttle"},
		{p.f.Unauthorized, "unauthorized"}, {p.f.Truncated, "truncated"}, {p.f.Slow, "slow"}, {p.f.Shuffled, "shuffled"}} {
		if x < c.share {
			if c.name == "delayed" && r.Method == http.MethodGet {
				return "reset"
			}
			return c.name
		}
		x -= c.share
	}
	return ""
}

// hits draws for one row or job.
func (p *faultPlan) hits(share float64) bool { return share > 0 && p.random.Float64() < share }

// quota is a rolling window and a day.
type quota struct {
	max   int
	per   time.Duration
	today int
	calls []time.Time
	spent int
	day   time.Time
}

func (q *quota) take(now time.Time) (left int, ok bool, wait time.Duration, daily bool) {
	if d := now.UTC().Truncate(24 * time.Hour); d != q.day {
		q.day, q.spent = d, 0
	}
	old := 0
	for old < len(q.calls) && now.Sub(q.calls[old]) >= q.per {
		old++
	}
	q.calls = q.calls[old:]
	switch {
	case q.spent >= q.today:
		return q.max - len(q.calls), false, q.day.Add(24 * time.Hour).Sub(now), true
	case len(q.calls) >= q.max:
		return 0, false, q.per - now.Sub(q.calls[0]), false
	}
	q.spent++
	if q.max < 1<<30 {
		q.calls = append(q.calls, now)
	}
	return q.max - len(q.calls), true, 0, false
}

func (q *quota) reset(now time.Time) time.Duration {
	if len(q.calls) == 0 {
		return q.per
	}
	return q.per - now.Sub(q.calls[0])
}

func (q *quota) leftToday() int { return q.today - q.spent }
