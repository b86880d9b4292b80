package quality_test

import (
	"fmt"
	"strings"

	"github.com/sluice-data/sluice/vector/chunk"
	"github.com/sluice-data/sluice/vector/parse"
)

// result is what is measured of one way of cutting and ranking.
type result struct{ docR5, docR10, docMRR, passR5, passR10, passMRR float64 }

func grams(text string) map[string]bool {
	words := terms(text)
	out := map[string]bool{}
	for i := 0; i+4 <= len(words); i++ {
		out[strings.Join(words[i:i+4], " ")] = true
	}
	return out
}

// holds: at least half of the passage's four-word sequences are in the chunk,
// which is fair to any size of chunk.
func holds(chunk, passage map[string]bool) bool {
	n := 0
	for g := range passage {
		if chunk[g] {
			n++
		}
	}
	return n*2 >= len(passage)
}

func (r result) String() string {
	return fmt.Sprintf("%.3f | %.3f | %.3f | %.3f | %.3f | %.3f", r.docR5, r.docR10, r.docMRR, r.passR5, r.passR10, r.passMRR)
}

// add counts what was found for a question whose answer is on page.
func (r *result) add(page string, found []hit) {
	docAt, passAt := 0, 0
	pages := map[string]bool{}
	for i, h := range found {
		pages[h.page] = true
		if docAt == 0 && h.page == page {
			docAt = len(pages) // place among the pages
		}
		if passAt == 0 && h.holds {
			passAt = i + 1
		}
	}
	count := func(at int, r5, r10, mrr *float64) {
		if at > 0 && at <= 5 {
			*r5++
		}
		if at > 0 && at <= 10 {
			*r10++
			*mrr += 1 / float64(at)
		}
	}
	count(docAt, &r.docR5, &r.docR10, &r.docMRR)
	count(passAt, &r.passR5, &r.passR10, &r.passMRR)
}

// divide makes means of sums.
func (r *result) divide(questions int) {
	for _, v := range []*float64{&r.docR5, &r.docR10, &r.docMRR, &r.passR5, &r.passR10, &r.passMRR} {
		*v /= float64(questions)
	}
}

// fixed cuts every size tokens, as the simplest pipelines do.
func fixed(doc *parse.Document, size int) []chunk.Chunk {
	return chunk.Split(&parse.Document{Text: doc.Text, Blocks: []parse.Block{{End: len(doc.Text)}}},
		chunk.Config{Splitter: chunk.Separator, Separators: []string{" "}, MaxTokens: size, Encoding: "cl100k_base"})
}

// way is one way of cutting.
type way struct {
	name string
	cut  func(*parse.Document) []chunk.Chunk
}

func split(name string, cfg chunk.Config) way {
	return way{name, func(d *parse.Document) []chunk.Chunk { return chunk.Split(d, cfg) }}
}

func window(size int) way {
	return way{fmt.Sprint("fixed ", size), func(d *parse.Document) []chunk.Chunk { return fixed(d, size) }}
}
