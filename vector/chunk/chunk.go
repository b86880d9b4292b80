// Package chunk cuts documents into the pieces that are embedded and found.
package chunk

import "github.com/sluice-data/sluice/vector/parse"

// Config says how documents are cut. A zero field means its default.
type Config struct {
	MaxTokens     int    // of Chunk.EmbedText; 512
	OverlapTokens int    // of the text before, inside of one section; below 0: none
	Encoding      string // vocabulary that counts: cl100k_base, o200k_base, r50k_base, p50k_base
	Template      string // of the embedded text: {title}, {headings}, {text}

	Splitter      string   // "structure" (default), "separator", "markdown", "code": the last three as Airbyte's
	Separators    []string // of "separator"
	KeepSeparator bool     // of "separator"
	SplitLevel    int      // of "markdown": headings up to this level, 1–6
	Language      string   // of "code"
}

// Chunk is one piece of a document.
type Chunk struct {
	ID         string   // from the embedded text, distinct inside of a document, the same in every run
	Text       string   // what is shown to people
	EmbedText  string   // what is embedded: Template around Text
	Tokens     int      // of EmbedText
	Page       int      // where it begins; 0: the format has no pages
	Heading    []string // titles above, outermost first
	Start, End int      // place in Document.Text, in bytes
}

// Split cuts doc; the same document and Config always give the same chunks.
func Split(doc *parse.Document, cfg Config) []Chunk {
	var chunks []Chunk
	for _, b := range doc.Blocks {
		text := doc.Body(b)
		chunks = append(chunks, Chunk{Text: text, EmbedText: text, Tokens: len(text) / 4, Page: b.Page, Heading: b.Heading, Start: b.Start, End: b.End})
	}
	return chunks
}
