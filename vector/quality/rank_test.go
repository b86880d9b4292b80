package quality_test

import (
	"cmp"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode"
)

// entry is one chunk of the index.
type entry struct {
	page  int
	text  string
	words int
}

// index ranks entries by BM25 and by the cosine of hashed, weighted words.
type index struct {
	entries  []entry
	postings map[string][]posting
	mean     float64
	vectors  [][]cell
	idf      map[string]float64
}

type posting struct {
	entry, count int
}

// cell is one dimension of a sparse vector.
type cell struct {
	at     uint32
	weight float64
}

func terms(text string) []string {
	words := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	for i, w := range words {
		for _, ending := range []string{"ing", "ies", "ed", "es", "s"} {
			if strings.HasSuffix(w, ending) && len(w) > len(ending)+3 {
				words[i] = w[:len(w)-len(ending)]
				break
			}
		}
	}
	return words
}

func newIndex(entries []entry) *index {
	ix := &index{entries: entries, postings: map[string][]posting{}, idf: map[string]float64{}}
	var counts []map[string]int
	total := 0
	for i := range entries {
		count := map[string]int{}
		for _, w := range terms(entries[i].text) {
			count[w]++
			ix.entries[i].words++
		}
		total += ix.entries[i].words
		for w, n := range count {
			ix.postings[w] = append(ix.postings[w], posting{i, n})
		}
		counts = append(counts, count)
	}
	ix.mean = float64(total) / float64(len(entries))
	for w, p := range ix.postings {
		ix.idf[w] = math.Log(1 + (float64(len(entries))-float64(len(p))+0.5)/(float64(len(p))+0.5))
	}
	for _, count := range counts {
		ix.vectors = append(ix.vectors, ix.vector(count))
	}
	return ix
}

const dimensions = 4096

func (ix *index) vector(count map[string]int) []cell {
	var cells []cell
	norm := 0.0
	for _, w := range slices.Sorted(maps.Keys(count)) { // sums of floats depend on their order
		h := fnv.New32a()
		_, _ = h.Write([]byte(w))
		v := (1 + math.Log(float64(count[w]))) * ix.idf[w]
		cells = append(cells, cell{h.Sum32() % dimensions, v})
		norm += v * v
	}
	for i := range cells {
		cells[i].weight /= math.Sqrt(norm)
	}
	return cells
}

func (ix *index) bm25(query string) []int {
	scores := make([]float64, len(ix.entries))
	for _, w := range terms(query) {
		for _, p := range ix.postings[w] {
			tf := float64(p.count)
			scores[p.entry] += ix.idf[w] * tf * 2.2 / (tf + 1.2*(0.25+0.75*float64(ix.entries[p.entry].words)/ix.mean))
		}
	}
	return best(scores)
}

func (ix *index) hashed(query string) []int {
	count := map[string]int{}
	for _, w := range terms(query) {
		count[w]++
	}
	dense := make([]float64, dimensions)
	for _, c := range ix.vector(count) {
		dense[c.at] += c.weight
	}
	scores := make([]float64, len(ix.entries))
	for i, v := range ix.vectors {
		for _, c := range v {
			scores[i] += dense[c.at] * c.weight
		}
	}
	return best(scores)
}

// hybrid fuses both by the reciprocals of their ranks.
func (ix *index) hybrid(query string) []int {
	scores := make([]float64, len(ix.entries))
	for _, ranked := range [][]int{ix.bm25(query), ix.hashed(query)} {
		for rank, e := range ranked {
			scores[e] += 1 / float64(60+rank)
		}
	}
	return best(scores)
}

// best gives the places of the 100 highest scores above 0.
func best(scores []float64) []int {
	var order []int
	for i, s := range scores {
		if s > 0 {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(scores[b], scores[a]), a-b) })
	return order[:min(len(order), 100)]
}
