package topic

import "sync"

// budget is the memory that all lanes of the process may hold together
// (invariant 9). Over it, the lane that holds most flushes first. Nobody waits
// for another one: a lane that holds more than its fair share flushes itself,
// so that the lanes hold limit + one batch each at most.
type budget struct {
	limit int64

	mu    sync.Mutex
	lanes map[*lane]struct{}
}

// use notes what l holds now.
func (b *budget) use(l *lane, bytes int) {
	l.used.Store(int64(bytes))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lanes == nil {
		b.lanes = map[*lane]struct{}{}
	}
	b.lanes[l] = struct{}{}
	total, holders := int64(0), int64(0)
	largest := l
	for o := range b.lanes {
		used := o.used.Load()
		if used == 0 {
			continue
		}
		total, holders = total+used, holders+1
		if used > largest.used.Load() {
			largest = o
		}
	}
	if total <= b.limit {
		return
	}
	if l.used.Load() > b.limit/holders {
		l.flushSoon.Store(true)
	}
	if largest != l && !largest.flushSoon.Swap(true) {
		largest.wake()
	}
}

func (b *budget) leave(l *lane) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.lanes, l)
}
