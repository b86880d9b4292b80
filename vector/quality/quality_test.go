package quality_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

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

func measure(ix *index, questions []question, rank func(string) []int) result {
	var r result
	for _, q := range questions {
		passage := grams(q.passage)
		docAt, passAt := 0, 0
		pages := map[int]bool{}
		for i, e := range rank(q.text) {
			pages[ix.entries[e].page] = true
			if docAt == 0 && ix.entries[e].page == q.page {
				docAt = len(pages) // place among the pages
			}
			if passAt == 0 && i < 10 && ix.entries[e].page == q.page && holds(grams(ix.entries[e].text), passage) {
				passAt = i + 1
			}
		}
		add := func(at int, r5, r10, mrr *float64) {
			if at > 0 && at <= 5 {
				*r5++
			}
			if at > 0 && at <= 10 {
				*r10++
				*mrr += 1 / float64(at)
			}
		}
		add(docAt, &r.docR5, &r.docR10, &r.docMRR)
		add(passAt, &r.passR5, &r.passR10, &r.passMRR)
	}
	for _, v := range []*float64{&r.docR5, &r.docR10, &r.docMRR, &r.passR5, &r.passR10, &r.passMRR} {
		*v /= float64(len(questions))
	}
	return r
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

// TestChunksAreFoundBetterThanFixedWindows holds our default against fixed
// windows of the same size, in the same run. SLUICE_QUALITY=full asks all
// questions and prints a table of sizes and splitters.
func TestChunksAreFoundBetterThanFixedWindows(t *testing.T) {
	full := os.Getenv("SLUICE_QUALITY") == "full"
	step := 2
	if full {
		step = 1
	}
	pages, questions := material(t, packages, step)
	split := func(name string, cfg chunk.Config) way {
		return way{name, func(d *parse.Document) []chunk.Chunk { return chunk.Split(d, cfg) }}
	}
	window := func(size int) way {
		return way{fmt.Sprint("fixed ", size), func(d *parse.Document) []chunk.Chunk { return fixed(d, size) }}
	}
	ways := []way{window(512), split("structure 512", chunk.Config{})}
	if full {
		for _, size := range []int{256, 1024} {
			ways = append(ways, window(size), split(fmt.Sprint("structure ", size), chunk.Config{MaxTokens: size}))
		}
		ways = append(ways, split("structure 512, overlap 64", chunk.Config{OverlapTokens: 64}),
			split("structure 512, no path", chunk.Config{Template: "{text}"}),
			split("separator 512", chunk.Config{Splitter: chunk.Separator, Encoding: "cl100k_base"}),
			split("markdown 512", chunk.Config{Splitter: chunk.Markdown, SplitLevel: 3, Encoding: "cl100k_base"}))
	}
	t.Logf("%d pages, %d questions", len(pages), len(questions))
	hybrid := map[string]result{}
	for _, w := range ways {
		var entries []entry
		for i, p := range pages {
			for _, c := range w.cut(p) {
				entries = append(entries, entry{page: i, text: c.EmbedText})
			}
		}
		ix := newIndex(entries)
		for _, ranker := range []struct {
			name string
			rank func(string) []int
		}{{"bm25", ix.bm25}, {"hash", ix.hashed}, {"hybrid", ix.hybrid}} {
			r := measure(ix, questions, ranker.rank)
			t.Logf("| %s (%d chunks) | %s | %.3f | %.3f | %.3f | %.3f | %.3f | %.3f |", w.name, len(entries), ranker.name,
				r.docR5, r.docR10, r.docMRR, r.passR5, r.passR10, r.passMRR)
			if ranker.name == "hybrid" {
				hybrid[w.name] = r
			}
		}
	}
	base, ours := hybrid["fixed 512"], hybrid["structure 512"]
	// Nearly every page is found either way: there, one question in fifty is noise.
	if ours.docR5 < base.docR5-0.02 || ours.passR5 < base.passR5 {
		t.Errorf("structure: doc %.3f, passage %.3f; fixed windows: %.3f, %.3f", ours.docR5, ours.passR5, base.docR5, base.passR5)
	}
}
