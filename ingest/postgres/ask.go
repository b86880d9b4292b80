package postgres

import (
	"errors"
	"fmt"
	"sync"

	"github.com/sluice-data/sluice/record"
)

// errAsked ends a session so that the next one loads the streams that were asked for.
var errAsked = errors.New("a backfill was asked for")

// asks are the streams that somebody wants to be loaded anew.
type asks struct {
	mu     sync.Mutex
	wanted map[record.StreamName][]func()
	news   chan struct{}
}

func newAsks() *asks {
	return &asks{wanted: map[record.StreamName][]func(){}, news: make(chan struct{}, 1)}
}

// Backfill has one stream loaded anew, under a new epoch: sinks let go of what
// earlier backfills delivered, so that rows which are gone leave no ghosts. It
// may be called before and while the Source runs; a backfill that is under way
// is finished first. taken is called once the request is durable in the
// checkpoint. The other streams go on meanwhile.
func (s *Source) Backfill(name record.StreamName, taken func()) error {
	found := false
	for _, t := range s.tables {
		found = found || t == name
	}
	if !found {
		return fmt.Errorf("source %s does not read %s", s.cfg.Name, name.Local())
	}
	s.asks.mu.Lock()
	s.asks.wanted[name] = append(s.asks.wanted[name], taken)
	s.asks.mu.Unlock()
	select {
	case s.asks.news <- struct{}{}:
	default:
	}
	return nil
}

// enter marks the wanted streams in the checkpoint and returns what is to be
// called once that is saved.
func (a *asks) enter(cp *checkpoint) (saved func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.news:
	default:
	}
	entered := map[record.StreamName]int{}
	for name, taken := range a.wanted {
		cp.set(name.Local(), stopped, errAsked.Error())
		entered[name] = len(taken)
	}
	return func() {
		a.mu.Lock()
		var tell []func()
		for name, n := range entered {
			tell = append(tell, a.wanted[name][:n]...)
			if a.wanted[name] = a.wanted[name][n:]; len(a.wanted[name]) == 0 {
				delete(a.wanted, name)
			}
		}
		a.mu.Unlock()
		for _, f := range tell {
			f()
		}
	}
}
