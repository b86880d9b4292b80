package chunk_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sluice-data/sluice/vector/chunk"
	"github.com/sluice-data/sluice/vector/parse"
)

func parsed(t testing.TB, name, text string) *parse.Document {
	t.Helper()
	doc, err := parse.Parse(context.Background(), parse.Input{Name: name, Size: int64(len(text)), Body: strings.NewReader(text)}, parse.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func lorem(n int) string {
	return strings.TrimSpace(strings.Repeat("The offsets are kept with the data in one transaction. ", n))
}

func TestSectionsAreCutAtTheirHeadings(t *testing.T) {
	doc := parsed(t, "x.md", "# Guide\n\n"+lorem(2)+"\n\n## Install\n\n"+lorem(10)+"\n\n## Run\n\n"+lorem(10)+"\n\n### Flags\n\n"+lorem(10)+"\n")
	chunks := chunk.Split(doc, chunk.Config{MaxTokens: 128})
	var got []string
	for _, c := range chunks {
		got = append(got, strings.Join(c.Heading, "/"))
	}
	if want := []string{"Guide", "Guide/Install", "Guide/Run", "Guide/Run/Flags"}; !slices.Equal(got, want) {
		t.Errorf("headings %q, want %q", got, want)
	}
	if c := chunks[2]; !strings.HasPrefix(c.EmbedText, "Guide › Run\n\n## Run\n") || !strings.HasPrefix(c.Text, "## Run\n") {
		t.Errorf("embedded text %q", c.EmbedText)
	}
}

func TestAShortDocumentIsOneChunk(t *testing.T) {
	doc := parsed(t, "x.md", "# A\n\nOne.\n\n## B\n\nTwo.\n\n- x\n- y\n")
	chunks := chunk.Split(doc, chunk.Config{})
	if len(chunks) != 1 || chunks[0].Text != strings.TrimSpace(doc.Text) {
		t.Errorf("%+v", chunks)
	}
}

func TestALongTableRepeatsItsHeader(t *testing.T) {
	var b strings.Builder
	b.WriteString("name,amount\n")
	for i := range 300 {
		fmt.Fprintf(&b, "customer number %d,%d\n", i, i*7)
	}
	doc := parsed(t, "x.csv", b.String())
	chunks := chunk.Split(doc, chunk.Config{MaxTokens: 128})
	rows := 0
	for i, c := range chunks {
		if !strings.HasPrefix(c.Text, "| name | amount |\n| --- | --- |\n| customer") {
			t.Errorf("chunk %d begins with %.40q", i, c.Text)
		}
		rows += strings.Count(c.Text, "| customer")
		if c.Tokens > 128 {
			t.Errorf("chunk %d has %d tokens", i, c.Tokens)
		}
	}
	if rows != 300 || len(chunks) < 10 {
		t.Errorf("%d rows in %d chunks", rows, len(chunks))
	}
}

func TestCodeIsCutBetweenDeclarations(t *testing.T) {
	var b strings.Builder
	b.WriteString("package x\n")
	for i := range 60 {
		fmt.Fprintf(&b, "\n// f%d does it.\nfunc f%d() int {\n\tx := %d\n\n\treturn x\n}\n", i, i, i)
	}
	for i, c := range chunk.Split(parsed(t, "x.go", b.String()), chunk.Config{MaxTokens: 160}) {
		if i > 0 && !strings.HasPrefix(c.Text, "// f") {
			t.Errorf("chunk %d begins with %.40q", i, c.Text)
		}
	}
}

func TestOverlapRepeatsWholeSentencesOfTheSection(t *testing.T) {
	text := ""
	for i := range 80 {
		text += fmt.Sprintf("Sentence number %d says something of its own. ", i)
	}
	doc := parsed(t, "x.md", "# A\n\n"+text+"\n\n# B\n\n"+text)
	chunks := chunk.Split(doc, chunk.Config{MaxTokens: 128, OverlapTokens: 24})
	repeated := 0
	for i, c := range chunks[1:] {
		before := chunks[i]
		if c.Start < before.End {
			repeated++
			if !strings.HasPrefix(c.Text, "Sentence") || c.Heading[0] != before.Heading[0] {
				t.Errorf("overlap %.60q", c.Text)
			}
		}
		if c.Tokens > 128 {
			t.Errorf("%d tokens", c.Tokens)
		}
	}
	if repeated < len(chunks)/2 {
		t.Errorf("%d of %d chunks overlap", repeated, len(chunks))
	}
}

// Texts that no rule of structure fits still give chunks inside of the limit.
func TestOddTexts(t *testing.T) {
	for name, text := range map[string]string{
		"one word":           strings.Repeat("a", 30_000),
		"no spaces, CJK":     strings.Repeat("漢字かな交じり文", 1500),
		"emoji":              strings.Repeat("👩‍❤️‍💋‍👨🏴󠁧󠁢󠁥󠁮󠁧󠁿", 400),
		"same line":          strings.Repeat("the same line\n", 4_000),
		"same paragraph":     strings.Repeat("The same paragraph.\n\n", 3_000),
		"dots":               strings.Repeat(". ", 8_000),
		"combining":          "a" + strings.Repeat("\u0301", 10_000),
		"headings only":      strings.Repeat("# a\n", 5000),
		"long heading":       "# " + strings.Repeat("word ", 5000) + "\n\ntext",
		"one long list item": "- " + strings.Repeat("word ", 8_000),
		"special":            strings.Repeat("<|endoftext|> {text} {title} {path} ", 500),
		"rtl":                strings.Repeat("שלום עולם، مرحبا بالعالم. ", 2000),
		"deep headings":      "# a\n## b\n### c\n#### d\n##### e\n###### f\n" + lorem(300),
	} {
		t.Run(name, func(t *testing.T) {
			doc := parsed(t, "x.md", text)
			for _, cfg := range []chunk.Config{{MaxTokens: 64}, {MaxTokens: 512, OverlapTokens: 64}} {
				ids := map[string]bool{}
				chunks := chunk.Split(doc, cfg)
				for i, c := range chunks {
					if c.Tokens > cfg.MaxTokens || !utf8.ValidString(c.EmbedText) || c.Start >= c.End || c.End > len(doc.Text) || strings.TrimSpace(c.Text) == "" {
						t.Fatalf("chunk %d of %d: %d tokens, %d to %d", i, len(chunks), c.Tokens, c.Start, c.End)
					}
					if ids[c.ID] {
						t.Fatalf("chunk %d has the id of another one", i)
					}
					ids[c.ID] = true
				}
				if again := chunk.Split(doc, cfg); !slices.EqualFunc(chunks, again, func(a, b chunk.Chunk) bool { return a.ID == b.ID && a.Start == b.Start }) {
					t.Fatal("the second run differs")
				}
			}
		})
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, bad := range []chunk.Config{{MaxTokens: 31}, {MaxTokens: 9000}, {OverlapTokens: 300}, {Encoding: "x"}, {Splitter: "x"},
		{Splitter: chunk.Language, Language: "cobol"}, {Splitter: chunk.Markdown, SplitLevel: 7}, {Template: "{title}"}, {Template: "{text} {x}"}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	if err := (chunk.Config{}).Validate(); err != nil {
		t.Error(err)
	}
	if (chunk.Config{}).Fingerprint() != (chunk.Config{MaxTokens: 512}).Fingerprint() || (chunk.Config{}).Fingerprint() == (chunk.Config{MaxTokens: 511}).Fingerprint() {
		t.Error("fingerprints")
	}
}

func BenchmarkSplit(b *testing.B) {
	w := writing{seeded(7)}
	doc := document(w.document(2000, true))
	tokens := 0
	b.SetBytes(int64(len(doc.Text)))
	for b.Loop() {
		tokens = 0
		for _, c := range chunk.Split(doc, chunk.Config{}) {
			tokens += c.Tokens
		}
	}
	b.ReportMetric(float64(tokens)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}
