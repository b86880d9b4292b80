package chunk

import "sort"

// cutTree finds where a range of atoms is cut: the place of the lowest rank and
// key that leaves enough on both sides. What is cut where depends on the atoms
// around only, so that cuts far from an edit stay.
type cutTree struct {
	sums []int    // sums[i]: tokens of the atoms before i
	best []uint64 // segment tree over rank and key
	n    int
}

func newCutTree(atoms []atom) cutTree {
	t := cutTree{n: len(atoms), sums: make([]int, len(atoms)+1), best: make([]uint64, 2*len(atoms))}
	for i, a := range atoms {
		t.sums[i+1] = t.sums[i] + a.tokens
		t.best[t.n+i] = uint64(a.rank)<<56 | a.key>>8
	}
	for i := t.n - 1; i > 0; i-- {
		t.best[i] = min(t.best[2*i], t.best[2*i+1])
	}
	return t
}

func (t *cutTree) tokens(from, to int) int { return t.sums[to] - t.sums[from] }

// lowest is the first place in [from, to) with the lowest value; from < to.
func (t *cutTree) lowest(from, to int) (place int, r rank) {
	low := ^uint64(0)
	for l, h := from+t.n, to+t.n; l < h; l, h = l/2, h/2 {
		if l&1 == 1 {
			low = min(low, t.best[l])
			l++
		}
		if h&1 == 1 {
			h--
			low = min(low, t.best[h])
		}
	}
	// Among equal ones the first: search for it by halves.
	return t.first(from, to, low), rank(low >> 56)
}

// first finds the first place in [from, to) that has the value, which is there.
func (t *cutTree) first(from, to int, value uint64) int {
	node := 0
	for l, h := from+t.n, to+t.n; l < h; l, h = l/2, h/2 {
		if l&1 == 1 {
			if t.best[l] == value {
				node = l // left of all that may still come
				break
			}
			l++
		}
		if h&1 == 1 {
			if h--; t.best[h] == value {
				node = h // left of the one found before
			}
		}
	}
	for node < t.n {
		if node *= 2; t.best[node] != value {
			node++
		}
	}
	return node - t.n
}

// zone is the range of places that leave at least least tokens on both sides.
func (t *cutTree) zone(from, to, least int) (lo, hi int) {
	lo = from + 1 + sort.Search(to-from-1, func(i int) bool { return t.sums[from+1+i]-t.sums[from] >= least })
	hi = from + 1 + sort.Search(to-from-1, func(i int) bool { return t.sums[to]-t.sums[from+1+i] < least })
	return lo, hi
}

// cut is the place where the atoms [from, to) are cut in two; there are two at
// least. maxTokens is the size of a chunk.
func (t *cutTree) cut(from, to, maxTokens int) int {
	for _, z := range []struct {
		least int
		up    rank
	}{
		{maxTokens * 3 / 8, 6}, // a short section may stand alone
		{maxTokens * 3 / 8, rankLine},
		{maxTokens / 2, rankWord},
		{maxTokens / 4, rankWord},
	} {
		if lo, hi := t.zone(from, to, z.least); lo < hi {
			if at, r := t.lowest(lo, hi); r <= z.up {
				return at
			}
		}
	}
	// No good place: the one nearest to the middle.
	half := (t.sums[from] + t.sums[to]) / 2
	at := from + 1 + sort.Search(to-from-2, func(i int) bool { return t.sums[from+1+i] >= half })
	return min(max(at, from+1), to-1)
}
