package topic

import (
	"sync"
	"time"
)

// acks tracks which records the brokers hold, in the order of the barriers.
//
// Records belong to the generation that was open when their Publish began; a
// Barrier closes it. A generation is reached when every record of it and of
// all generations before it is held.
type acks struct {
	mu     sync.Mutex
	gens   []*generation // oldest first; the last one is open
	ready  []func()      // reached, to be called in order
	firing bool
	gaps   bool // the line that tests switch off: fire past records that are not held
}

type generation struct {
	waiting int
	since   time.Time // of the last record that began or ended, while some wait
	lost    bool      // a record of it is not on the brokers and never will be
	closed  bool
	done    []func()
}

func newAcks() *acks { return &acks{gens: []*generation{{}}} }

// begin enters n records into the open generation.
func (a *acks) begin(n int) *generation {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.gens[len(a.gens)-1]
	if g.waiting == 0 {
		g.since = time.Now()
	}
	g.waiting += n
	return g
}

// end takes n records of g as held, or as lost.
func (a *acks) end(g *generation, n int, lost bool) {
	a.mu.Lock()
	g.waiting -= n
	g.since = time.Now()
	g.lost = g.lost || lost
	a.advance()
	a.fire()
}

// oldest returns for how long the oldest generation has waited in vain.
func (a *acks) oldest() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, g := range a.gens {
		if g.waiting > 0 {
			return time.Since(g.since)
		}
	}
	return 0
}

// barrier closes the open generation; done is called once it is reached.
func (a *acks) barrier(done func()) {
	a.mu.Lock()
	g := a.gens[len(a.gens)-1]
	g.closed, g.done = true, append(g.done, done)
	a.gens = append(a.gens, &generation{})
	a.advance()
	a.fire()
}

// advance moves reached generations to ready.
func (a *acks) advance() {
	if a.gaps {
		for _, g := range a.gens {
			if g.closed && g.waiting == 0 {
				a.ready = append(a.ready, g.done...)
				g.done = nil
			}
		}
	}
	// Invariant 1: only a contiguous prefix counts. A generation that waits,
	// or that has lost a record, holds back all that come after it.
	for len(a.gens) > 1 {
		g := a.gens[0]
		if g.waiting > 0 || g.lost && !a.gaps {
			return
		}
		a.ready = append(a.ready, g.done...)
		a.gens = a.gens[1:]
	}
}

// fire calls what is ready, one at a time and without the lock, and unlocks.
func (a *acks) fire() {
	defer a.mu.Unlock()
	if a.firing {
		return // the goroutine that fires takes ours along: the order stays
	}
	a.firing = true
	for len(a.ready) > 0 {
		done := a.ready[0]
		a.ready = a.ready[1:]
		a.mu.Unlock()
		done()
		a.mu.Lock()
	}
	a.firing = false
}
