package progress

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Bounds are the upper ends of the buckets of every Histogram, in seconds: from
// one local commit to a stream that is hours behind.
var Bounds = [...]float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}

// Histogram counts durations. The zero Histogram is ready; its methods may be
// called from several goroutines.
type Histogram struct {
	buckets [len(Bounds)]atomic.Int64
	count   atomic.Int64
	micros  atomic.Int64
}

// Observe adds one duration; a negative one, of clocks that disagree, counts as 0.
func (h *Histogram) Observe(seconds float64) {
	seconds = max(seconds, 0)
	for i, b := range Bounds {
		if seconds <= b {
			h.buckets[i].Add(1)
			break
		}
	}
	h.micros.Add(int64(seconds * 1e6))
	h.count.Add(1)
}

// Distribution is a Histogram at one moment.
type Distribution struct {
	Count   int64
	Sum     float64            // seconds
	Buckets [len(Bounds)]int64 // how many were at most as long as the bound
}

func (h *Histogram) distribution() Distribution {
	var d Distribution
	sum := int64(0)
	for i := range h.buckets {
		sum += h.buckets[i].Load()
		d.Buckets[i] = sum
	}
	d.Count, d.Sum = max(h.count.Load(), sum), float64(h.micros.Load())/1e6
	return d
}

// maxReasons bounds what a metric is split by.
const maxReasons = 32

// reasons counts rejects of this process by their code.
type reasons struct {
	mu     sync.Mutex
	counts map[string]int64
}

// Refused counts n records that became dead letters for the reason code.
func (s *Stream) Refused(code string, n int) {
	r := &s.reasons
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[string]int64{}
	}
	if _, known := r.counts[code]; !known && len(r.counts) >= maxReasons {
		code = "other"
	}
	r.counts[code] += int64(n)
}

func (r *reasons) snapshot() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.counts)
}
