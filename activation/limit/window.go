package limit

import (
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

// slots is how finely a rolling window is counted: calls leave it together
// with their slot, at most a slot late.
const slots = 200

// window counts our calls in one rolling window of a quota.
type window struct {
	quota   delivery.Quota
	share   float64
	reserve float64
	stream  float64

	slot   time.Duration
	counts [slots + 1][2]int // calls per slot and lane; one more, so that a whole window is always covered
	head   int64             // number of the newest slot, since 1970
	total  [2]int

	next   time.Time // spreads calls evenly: none before
	factor float64   // of the rate: cut by refusals, recovers with time
	since  time.Time // factor is of then
	others float64   // calls of others in the window, by the headers
	told   bool      // headers have said what is left
	limit  float64   // of the quota, by the headers where they tell
}

func newWindow(q delivery.Quota, c Config) *window {
	return &window{quota: q, share: c.Share, reserve: c.Reserve, stream: c.Stream, slot: max(q.Window/slots, 1), factor: 1, limit: float64(q.Requests)}
}

// roll forgets calls that have left the window.
func (w *window) roll(now time.Time) {
	n := now.UnixNano() / int64(w.slot)
	if n-w.head > slots {
		w.counts, w.total, w.head = [slots + 1][2]int{}, [2]int{}, n
		return
	}
	for w.head < n {
		w.head++
		old := &w.counts[w.head%(slots+1)]
		w.total[0] -= old[0]
		w.total[1] -= old[1]
		*old = [2]int{}
	}
}

// used returns how many calls of ours the window holds.
func (w *window) used(now time.Time) int {
	w.roll(now)
	return w.total[0] + w.total[1]
}

// ours returns how many calls may be ours in a window: our share, or what
// others leave of the quota if that is less.
func (w *window) ours(now time.Time, members int) float64 {
	own := w.limit * w.share
	if w.told {
		free := w.limit*(1-w.reserve) - w.others
		own = min(own, max(free, w.limit*min(floorShare, w.share)))
	}
	f := min(1, w.factor+float64(now.Sub(w.since))/float64(recoverPer))
	return max(own*f/float64(members), 1)
}

// wait returns after which time a call may be made; 0 = now.
func (w *window) wait(now time.Time, lane delivery.Lane, cost, members int) time.Duration {
	used := w.used(now)
	ours := w.ours(now, members)
	if used == 0 {
		return max(w.next.Sub(now), 0) // a call that costs more than a window holds must be possible
	}
	full := float64(used+cost) > ours
	if lane == delivery.Backfill && w.quota.Window >= daily {
		// The day's last calls are for the stream. Shorter windows need no
		// reserve: the stream's calls go first, and wait for the next one only.
		full = full || float64(w.total[delivery.Backfill]+cost) > ours*(1-w.stream)
	}
	if full {
		return w.oldest(now)
	}
	return max(w.next.Sub(now), 0)
}

// oldest returns when the oldest slot that holds calls leaves the window.
func (w *window) oldest(now time.Time) time.Duration {
	for n := w.head - slots; n <= w.head; n++ {
		if c := w.counts[(n%(slots+1)+slots+1)%(slots+1)]; c[0]+c[1] > 0 {
			return max(time.Unix(0, (n+slots+1)*int64(w.slot)).Sub(now), time.Millisecond)
		}
	}
	return w.slot
}

// count adds a call. A window of less than an hour spreads its calls: vendors
// count in windows that begin when they please, and a burst at the end of one
// and the start of the next is refused.
func (w *window) count(now time.Time, lane delivery.Lane, cost, members int) {
	w.roll(now)
	w.counts[w.head%(slots+1)][lane] += cost
	w.total[lane] += cost
	if w.quota.Window >= daily {
		return
	}
	ours := w.ours(now, members)
	step := time.Duration(float64(w.quota.Window) * float64(cost) / ours)
	// A call that comes late does not make up for more than one step: the rate holds in every window.
	if late := now.Sub(w.next); late > 0 && late < step {
		w.next = w.next.Add(step)
	} else {
		w.next = now.Add(step)
	}
}

// left learns what the vendor says is left of the quota: what is gone and not
// ours was used by others.
func (w *window) left(now time.Time, remaining, limit int) {
	if limit > 0 {
		w.limit = float64(limit)
	}
	others := max(w.limit-float64(remaining)-float64(w.used(now)), 0)
	if !w.told || others > w.others {
		w.others = others // give way at once,
	} else {
		w.others += (others - w.others) / 16 // come back slowly
	}
	w.told = true
}

// cut lowers the rate after a refusal.
func (w *window) cut(now time.Time) {
	f := min(1, w.factor+float64(now.Sub(w.since))/float64(recoverPer))
	w.factor, w.since = max(f*cut, 0.1), now
}
