package chunk_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/sluice-data/sluice/vector/chunk"
	"github.com/sluice-data/sluice/vector/parse"
)

// writing makes documents of words; all randomness is in its source.
type writing struct{ rnd *rand.Rand }

var words = strings.Fields(`table stream offset commit snapshot partition record batch schema writer reader index vector
chunk document paragraph heading sentence token budget memory limit queue order source sink topic broker replica leader
fence lease clock state change update delete insert merge compact vacuum page block column value row key hash sort scan
filter join group window event time late early exact loss retry timeout deadline cancel signal error reason report`)

func (w writing) sentence() string {
	n := 5 + w.rnd.IntN(20)
	out := make([]string, n)
	for i := range out {
		out[i] = words[w.rnd.IntN(len(words))]
	}
	out[0] = strings.ToUpper(out[0][:1]) + out[0][1:]
	return strings.Join(out, " ") + "."
}

func (w writing) paragraph() string {
	var out []string
	for range 1 + w.rnd.IntN(6) {
		out = append(out, w.sentence())
	}
	return strings.Join(out, " ")
}

// block is a paragraph, or a heading where level is not 0.
type block struct {
	level int
	text  string
}

func (w writing) document(paragraphs int, headings bool) []block {
	var out []block
	for range paragraphs {
		if headings && w.rnd.IntN(6) == 0 {
			out = append(out, block{level: 1 + w.rnd.IntN(3), text: w.sentence()})
		}
		out = append(out, block{text: w.paragraph()})
	}
	return out
}

func document(blocks []block) *parse.Document {
	doc := &parse.Document{Title: "A title"}
	var path []string
	var text strings.Builder
	for _, b := range blocks {
		if text.Len() > 0 {
			text.WriteString("\n\n")
		}
		start := text.Len()
		kind, above := parse.Paragraph, path
		if b.level > 0 {
			kind, above = parse.Heading, path[:min(len(path), b.level-1)]
			path = append(slices.Clone(above), b.text)
			text.WriteString(strings.Repeat("#", b.level) + " ")
		}
		text.WriteString(b.text)
		doc.Blocks = append(doc.Blocks, parse.Block{Kind: kind, Level: b.level, Heading: above, Start: start, End: text.Len()})
	}
	doc.Text = text.String()
	return doc
}

// changed counts chunks of after that before does not have: each one costs an
// embedding.
func changed(before, after []chunk.Chunk) int {
	have := map[string]bool{}
	for _, c := range before {
		have[c.EmbedText] = true
	}
	n := 0
	for _, c := range after {
		if !have[c.EmbedText] {
			n++
		}
	}
	return n
}

// edit changes one paragraph: a few words inside of it, a sentence more, all
// of it, one paragraph more, one less.
func (w writing) edit(blocks []block) []block {
	out := slices.Clone(blocks)
	i := w.rnd.IntN(len(out))
	for out[i].level > 0 {
		i = w.rnd.IntN(len(out))
	}
	switch w.rnd.IntN(5) {
	case 0:
		text := strings.Fields(out[i].text)
		for range 3 {
			text[w.rnd.IntN(len(text))] = words[w.rnd.IntN(len(words))]
		}
		out[i].text = strings.Join(text, " ")
	case 1:
		out[i].text += " " + w.sentence()
	case 2:
		out[i].text = w.paragraph()
	case 3:
		out = slices.Insert(out, i, block{text: w.paragraph()})
	case 4:
		if len(out) > 1 {
			out = slices.Delete(out, i, i+1)
		}
	}
	return out
}

// One paragraph changes, is added or taken away: three chunks are new at most,
// but for one edit in fifty, which hits a cut that many others lean on.
func TestAnEditChangesFewChunks(t *testing.T) {
	for _, headings := range []bool{true, false} {
		w := writing{rand.New(rand.NewPCG(1, 2))}
		cfg := chunk.Config{MaxTokens: 256}
		edits, more := 0, 0
		for range 10 {
			blocks := w.document(120, headings)
			before := chunk.Split(document(blocks), cfg)
			for range 10 {
				n := changed(before, chunk.Split(document(w.edit(blocks)), cfg))
				if n > 6 {
					t.Fatalf("headings %v: %d of %d chunks changed", headings, n, len(before))
				}
				if edits++; n > 3 {
					more++
				}
			}
		}
		t.Logf("headings %v: %d of %d edits changed more than 3 chunks", headings, more, edits)
		if more*50 > edits {
			t.Errorf("headings %v: %d of %d edits changed more than 3 chunks", headings, more, edits)
		}
	}
}

func TestChunksCoverTheDocument(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := writing{rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))}
		doc := document(w.document(rapid.IntRange(1, 60).Draw(t, "paragraphs"), rapid.Bool().Draw(t, "headings")))
		cfg := chunk.Config{MaxTokens: rapid.IntRange(32, 600).Draw(t, "max")}
		at := 0
		for i, c := range chunk.Split(doc, cfg) {
			if strings.TrimSpace(doc.Text[at:c.Start]) != "" {
				t.Fatalf("chunk %d: text before it is in no chunk", i)
			}
			if c.Tokens > cfg.MaxTokens || c.Tokens != chunk.Tokens("cl100k_base", c.EmbedText) {
				t.Fatalf("chunk %d: %d tokens, %d allowed", i, c.Tokens, cfg.MaxTokens)
			}
			if c.Text != doc.Text[c.Start:c.End] || !utf8.ValidString(c.EmbedText) {
				t.Fatalf("chunk %d: not the text of its place", i)
			}
			at = c.End
		}
		if strings.TrimSpace(doc.Text[at:]) != "" {
			t.Fatal("text behind the last chunk")
		}
	})
}
