package chunk_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-data/sluice/vector/chunk"
	"github.com/sluice-data/sluice/vector/parse"
)

func seeded(n uint64) *rand.Rand { return rand.New(rand.NewPCG(n, n)) }

func plain(text string) *parse.Document {
	return &parse.Document{Text: text, Blocks: []parse.Block{{End: len(text)}}}
}

func texts(chunks []chunk.Chunk) []string {
	var out []string
	for _, c := range chunks {
		out = append(out, c.Text)
	}
	return out
}

// Sizes of 32 tokens: one letter and one space are a token each in a text of
// single letters, so that the borders can be counted by hand.
func TestSeparatorPartsAndMerges(t *testing.T) {
	letters := func(n int) string { return strings.TrimSuffix(strings.Repeat("a ", n), " ") }
	paragraph := letters(20)
	got := texts(chunk.Split(plain(paragraph+"\n\n"+paragraph+"\n\n"+letters(5)), chunk.Config{Splitter: chunk.Separator, MaxTokens: 32}))
	if want := []string{paragraph, paragraph + "\n\n" + letters(5)}; !slices.Equal(got, want) {
		t.Errorf("paragraphs: %q", got)
	}
	// A paragraph above the size is parted by the next separator.
	for _, c := range chunk.Split(plain(letters(100)), chunk.Config{Splitter: chunk.Separator, MaxTokens: 32}) {
		if c.Tokens > 32 || c.Tokens < 4 {
			t.Errorf("%d tokens: %q", c.Tokens, c.Text)
		}
	}
	// The overlap repeats whole parts.
	over := chunk.Split(plain(letters(100)), chunk.Config{Splitter: chunk.Separator, MaxTokens: 32, OverlapTokens: 8})
	for i, c := range over[1:] {
		if c.Start >= over[i].End {
			t.Errorf("chunk %d begins at %d, behind the end %d of the one before", i+1, c.Start, over[i].End)
		}
	}
}

func TestSeparatorsAreKeptWhereWanted(t *testing.T) {
	text := "one" + strings.Repeat(" x", 30) + "##two" + strings.Repeat(" x", 30)
	cfg := chunk.Config{Splitter: chunk.Separator, Separators: []string{"##"}, MaxTokens: 40}
	if got := texts(chunk.Split(plain(text), cfg)); len(got) != 2 || !strings.HasPrefix(got[1], "two") {
		t.Errorf("dropped: %q", got)
	}
	cfg.KeepSeparator = true
	if got := texts(chunk.Split(plain(text), cfg)); len(got) != 2 || !strings.HasPrefix(got[1], "##two") {
		t.Errorf("kept: %q", got)
	}
}

func TestMarkdownSplitsAtTheLevel(t *testing.T) {
	body := strings.TrimSpace(strings.Repeat("word and word. ", 8))
	text := "# A\n" + body + "\n## B\n" + body + "\n# C\n" + body
	for level, want := range map[int]int{1: 2, 2: 3} {
		got := texts(chunk.Split(plain(text), chunk.Config{Splitter: chunk.Markdown, SplitLevel: level, MaxTokens: 45}))
		if len(got) != want {
			t.Errorf("level %d: %q", level, got)
		}
		for _, g := range got {
			if !strings.HasPrefix(g, "#") {
				t.Errorf("level %d: %q", level, g)
			}
		}
	}
}

func TestCodeSplitsAtDeclarations(t *testing.T) {
	text := "package x\n" + strings.Repeat("\nfunc f() int {\n\treturn 1\n}\n", 20)
	for i, g := range texts(chunk.Split(plain(text), chunk.Config{Splitter: chunk.Language, Language: "go", MaxTokens: 64})) {
		if i > 0 && !strings.HasPrefix(g, "func f") {
			t.Errorf("%q", g)
		}
	}
}

// Nothing but white space and separators is lost, whatever the text.
func TestSplittersLoseNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"word", " ", "\n", "\n\n", "# ", "## ", "ü", "漢字", "func ", "<p", "."}), 1, 200).Draw(t, "text"), "")
		cfg := chunk.Config{MaxTokens: rapid.IntRange(32, 80).Draw(t, "max"),
			Splitter: rapid.SampledFrom([]string{chunk.Separator, chunk.Markdown, chunk.Language}).Draw(t, "splitter"),
			Language: rapid.SampledFrom([]string{"go", "html", "markdown", "python"}).Draw(t, "language")}
		bare := func(s string) string { return strings.Join(strings.Fields(s), "") }
		if got := bare(strings.Join(texts(chunk.Split(plain(text), cfg)), "")); got != bare(text) {
			t.Fatalf("got %q of %q", got, bare(text))
		}
	})
}
