package keyindex

import (
	"errors"
	"slices"
	"sync/atomic"
)

// merge makes one run of several, beside the work of the index: runs do not
// change, so only the result has to be taken over, between two calls.
type merge struct {
	inputs []*run
	stop   atomic.Bool
	done   chan struct{}
	out    *run // set when done; nil if nothing is left
	err    error
}

var errStopped = errors.New("merge stopped")

// A merge reads its inputs through this much memory.
const mergeBytes = 4 << 20

// maxRuns bounds the runs that a lookup visits while a merge is slower than
// the changes.
const maxRuns = 12

// chooseMerge returns the oldest run to merge with all newer ones, or -1.
// Newer runs go into the base when they are a sixth of it; before that they
// merge among themselves like the digits of a binary counter. So an entry is
// copied about log2(runs) times and then, on average, six base entries with it.
func chooseMerge(entries []int64) int {
	if len(entries) < 2 {
		return -1
	}
	var newer int64
	for _, n := range entries[1:] {
		newer += n
	}
	if newer > entries[0]/6 {
		return 0
	}
	from := len(entries) - 1
	sum := entries[from]
	for from > 1 && sum*4 >= entries[from-1]*3 {
		from--
		sum += entries[from]
	}
	if from == len(entries)-1 {
		return -1
	}
	return from
}

// startMerge begins a merge if one is due and none is under way.
func (x *Index) startMerge() {
	if x.merge != nil {
		return
	}
	sizes := make([]int64, len(x.runs))
	for i, r := range x.runs {
		sizes[i] = r.Entries
	}
	from := chooseMerge(sizes)
	if from < 0 {
		return
	}
	m := &merge{inputs: slices.Clone(x.runs[from:]), done: make(chan struct{})}
	var live func(Location) bool
	if from == 0 && x.worthSifting() {
		// Dead entries are dropped where nothing older can show up again. What
		// is dead stays dead, but only if the log that says so is durable.
		if err := x.wal.sync(); err != nil {
			x.log.Warn("key index: merge put off", "dir", x.disk.dir, "error", err)
			return
		}
		live = x.files.clone().live
	}
	slot := int64(runSlotEntries)
	if from == 0 {
		slot = baseSlotEntries
	}
	x.merge = m
	name := x.name("run")
	go func() {
		defer close(m.done)
		m.out, _, m.err = mergeRuns(x.disk, name, m.inputs, slot, live, &m.stop)
	}()
}

// worthSifting says whether so many entries are dead that a merge should look
// at each one: that costs as much as the merge itself.
func (x *Index) worthSifting() bool {
	var entries, rows int64
	for _, r := range x.runs {
		entries += r.Entries
	}
	for _, f := range x.files.byID {
		rows += f.Rows - int64(f.Deleted.GetCardinality())
	}
	return entries > rows+rows/4
}

// finishMerge takes over the result of a merge: one that is done, or with
// wait the one under way.
func (x *Index) finishMerge(wait bool) {
	m := x.merge
	if m == nil {
		return
	}
	if !wait {
		select {
		case <-m.done:
		default:
			return
		}
	}
	<-m.done
	x.merge = nil
	err := m.err
	if err == nil {
		at := slices.Index(x.runs, m.inputs[0])
		var out []*run
		if m.out != nil {
			out = []*run{m.out}
		}
		runs := slices.Concat(x.runs[:at], out, x.runs[at+len(m.inputs):])
		next := x.manifest
		next.Runs = infos(runs)
		if err = x.publish(next); err == nil {
			x.adopt(runs)
			return
		}
		if m.out != nil {
			m.out.close()
			if x.broken == nil {
				x.disk.remove(m.out.Name)
			}
		}
	}
	// The unmerged runs go on serving; the next flush tries again.
	if !errors.Is(err, errStopped) {
		x.log.Warn("key index: merge failed, will be tried again", "dir", x.disk.dir, "error", err)
	}
}

// cancelMerge ends the merge under way without its result.
func (x *Index) cancelMerge() {
	if m := x.merge; m != nil {
		m.stop.Store(true)
		<-m.done
		if m.out != nil {
			m.out.close()
			x.disk.remove(m.out.Name)
		}
		x.merge = nil
	}
}

// head is the next entry of an input of a merge.
type head struct {
	entry
	input int // newer inputs have higher numbers
}

// first orders heads by hash, the newest entry of a hash first.
func (h *head) first(o *head) bool {
	if h.sameKey(&o.entry) {
		return h.input > o.input
	}
	return h.before(&o.entry)
}

// mergeRuns writes the newest entry of each hash of inputs (oldest first) as
// one run with slot entries per directory slot; hashes whose newest entry is
// not live are left out, if live is given. It returns how many entries had a
// newer one. No entries, no run.
func mergeRuns(d *disk, name string, inputs []*run, slot int64, live func(Location) bool, stop *atomic.Bool) (*run, int64, error) {
	var total int64
	cursors := make([]*cursor, len(inputs))
	for i, r := range inputs {
		total += r.Entries
		cursors[i] = newCursor(r, mergeBytes/len(inputs))
	}
	w, err := newRunWriter(d, name, total, slot)
	if err != nil {
		return nil, 0, err
	}
	superseded, err := mergeInto(w, cursors, live, stop)
	if err != nil || w.n == 0 {
		w.f.discard()
		return nil, superseded, err
	}
	info, err := w.finish()
	if err != nil {
		w.f.discard()
		return nil, 0, err
	}
	r, err := openRun(d, info, false)
	if err != nil {
		d.remove(name)
	}
	return r, superseded, err
}

func mergeInto(w *runWriter, cursors []*cursor, live func(Location) bool, stop *atomic.Bool) (superseded int64, err error) {
	heap := make([]head, 0, len(cursors))
	for i, c := range cursors {
		e, ok, err := c.read()
		if err != nil {
			return 0, err
		}
		if ok {
			heap = append(heap, head{e, i})
		}
	}
	for i := len(heap)/2 - 1; i >= 0; i-- {
		siftDown(heap, i)
	}
	var last entry
	for n := 0; len(heap) > 0; n++ {
		if n&0xfff == 0 && stop.Load() {
			return 0, errStopped
		}
		top := &heap[0]
		if top.sameKey(&last) {
			superseded++
		} else {
			last = top.entry
			if live == nil || live(Location{last.file, last.pos}) {
				if err := w.add(&last); err != nil {
					return 0, err
				}
			}
		}
		e, ok, err := cursors[top.input].read()
		if err != nil {
			return 0, err
		}
		if ok {
			top.entry = e
		} else {
			heap[0] = heap[len(heap)-1]
			heap = heap[:len(heap)-1]
		}
		siftDown(heap, 0)
	}
	return superseded, nil
}

func siftDown(heap []head, i int) {
	for {
		c := 2*i + 1
		if c >= len(heap) {
			return
		}
		if c+1 < len(heap) && heap[c+1].first(&heap[c]) {
			c++
		}
		if !heap[c].first(&heap[i]) {
			return
		}
		heap[i], heap[c] = heap[c], heap[i]
		i = c
	}
}
