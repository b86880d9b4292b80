package keyindex

// sorter sorts entries by hash and keeps its scratch memory.
type sorter struct{ scratch []entry }

const digitBits = 11 // 2048 counters fit the first-level cache

// sort sorts es by hash; entries of one hash keep their order.
func (s *sorter) sort(es []entry) {
	// Hashes are uniform: few entries agree in the bits sorted here, and the
	// insertion sort that follows puts those right.
	switch n := len(es); {
	case n <= 64:
	case n <= 1<<16:
		s.pass(es, 32-2*digitBits)
		s.pass(es, 32-digitBits)
	default:
		s.pass(es, 0)
		s.pass(es, digitBits)
		s.pass(es, 2*digitBits) // the 10 bits left
	}
	insertionSort(es)
}

// pass sorts es by one digit of the first word, stably.
func (s *sorter) pass(es []entry, shift uint) {
	if cap(s.scratch) < len(es) {
		s.scratch = make([]entry, len(es))
	}
	out := s.scratch[:len(es)]
	const mask = 1<<digitBits - 1
	var next [1 << digitBits]uint32
	for i := range es {
		next[es[i].h0>>shift&mask]++
	}
	sum := uint32(0)
	for d, n := range next {
		next[d] = sum
		sum += n
	}
	for i := range es {
		d := es[i].h0 >> shift & mask
		out[next[d]] = es[i]
		next[d]++
	}
	copy(es, out)
}

// insertionSort is linear for entries that are almost in order.
func insertionSort(es []entry) {
	for i := 1; i < len(es); i++ {
		if !es[i].before(&es[i-1]) {
			continue
		}
		e, j := es[i], i
		for ; j > 0 && e.before(&es[j-1]); j-- {
			es[j] = es[j-1]
		}
		es[j] = e
	}
}

// newestOfEach drops all but the last entry of each hash from sorted entries
// and returns how many it dropped.
func newestOfEach(es []entry) ([]entry, int64) {
	if len(es) == 0 {
		return es, 0
	}
	out := es[:1]
	for i := 1; i < len(es); i++ {
		if es[i].sameKey(&out[len(out)-1]) {
			out[len(out)-1] = es[i]
		} else {
			out = append(out, es[i])
		}
	}
	return out, int64(len(es) - len(out))
}
