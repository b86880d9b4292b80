package keyindex

import "slices"

// Resolve finds the live row of each key: found[i] says whether keys[i] has
// one and out[i] where. All three have the same length. A key may come twice.
func (x *Index) Resolve(keys []Hash, out []Location, found []bool) {
	pending := slices.Grow(x.pending[:0], len(keys))
	for i, h := range keys {
		found[i] = false
		if h != (Hash{}) {
			pending = append(pending, newEntry(h, 0, uint32(i)))
		}
	}
	// In hash order the lookups walk through the runs from front to back.
	x.order.sort(pending)
	all := pending
	pending = x.settle(pending, nil, out, found)
	for i := len(x.runs) - 1; i >= 0 && len(pending) > 0; i-- {
		pending = x.settle(pending, x.runs[i], out, found)
	}
	x.keep(all)
}

// settle looks pending keys up in a run, or with nil in the memtable, and
// returns those it does not know. The first place that knows a key decides,
// dead or alive: places come newest first.
func (x *Index) settle(pending []entry, r *run, out []Location, found []bool) []entry {
	const ahead = 32
	rest := pending[:0]
	for i := range pending {
		k := &pending[i]
		var loc Location
		var ok bool
		if r == nil {
			loc, ok = x.mem.find(k)
		} else {
			if i%ahead == 0 {
				x.touched ^= r.touch(pending[i:min(i+ahead, len(pending))])
			}
			loc, ok = r.find(k)
		}
		if !ok {
			rest = append(rest, *k)
		} else if x.files.live(loc) {
			out[k.pos], found[k.pos] = loc, true
		}
	}
	return rest
}

// keep saves memory for the next call, up to 2 MB.
func (x *Index) keep(es []entry) {
	const most = 100_000
	if cap(es) <= most {
		x.pending = es[:0]
	} else {
		x.pending = nil
	}
	if cap(x.order.scratch) > most {
		x.order.scratch = nil
	}
}
