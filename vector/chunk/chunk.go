// Package chunk cuts documents into the pieces that are embedded and found.
//
// The default splitter cuts where the structure is strongest: at headings
// before paragraphs, at paragraphs before sentences. Among places of equal
// strength the text itself decides, by a hash, so that an edit moves the cuts
// near to it and no others: what is unchanged keeps its chunks, and embedding
// them again costs nothing.
package chunk

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/sluice-data/sluice/vector/parse"
)

// The splitters.
const (
	Structure = "structure" // the default
	Separator = "separator" // this and the next two cut as Airbyte's of the same name
	Markdown  = "markdown"
	Language  = "code"
)

// Config says how documents are cut. A zero field means its default.
type Config struct {
	MaxTokens     int    // of Chunk.EmbedText; 512, at least 32
	OverlapTokens int    // of the text before that are repeated, inside of one section; default 0
	Encoding      string // vocabulary that counts: cl100k_base (default), o200k_base, p50k_base, r50k_base (default of Airbyte's splitters)

	// Template of the embedded text: {title}, {headings}, {path} (both, each
	// title once), {text}. Default "{path}\n\n{text}"; "{text}" for Airbyte's splitters.
	Template string

	Splitter      string
	Separators    []string // of "separator"; "\n\n", "\n", " ", ""
	KeepSeparator bool     // of "separator"
	SplitLevel    int      // of "markdown": headings up to this level, 1 (default) to 6
	Language      string   // of "code"
}

// version changes with every change of the result of Split.
const version = 2

// Chunk is one piece of a document.
type Chunk struct {
	ID         string   // from EmbedText: the same in every run, distinct inside of a document
	Text       string   // what is shown to people: Document.Text[Start:End], a piece of a table with its header before it
	EmbedText  string   // what is embedded: Template around Text
	Tokens     int      // of EmbedText
	Page       int      // where it begins; 0: the format has no pages
	Heading    []string // titles above all of it, outermost first
	Start, End int      // place in Document.Text, in bytes
}

// WithDefaults fills the zero fields.
func (c Config) WithDefaults() Config {
	if c.Splitter == "" {
		c.Splitter = Structure
	}
	airbyte := c.Splitter != Structure
	set(&c.MaxTokens, 512)
	set(&c.SplitLevel, 1)
	c.OverlapTokens = max(c.OverlapTokens, 0)
	if c.Encoding == "" {
		c.Encoding = "cl100k_base"
		if airbyte {
			c.Encoding = "r50k_base"
		}
	}
	if c.Template == "" {
		c.Template = "{path}\n\n{text}"
		if airbyte {
			c.Template = "{text}"
		}
	}
	if c.Splitter == Separator && len(c.Separators) == 0 {
		c.Separators = []string{"\n\n", "\n", " ", ""}
	}
	return c
}

func set(v *int, def int) {
	if *v == 0 {
		*v = def
	}
}

// Validate names the first setting that cannot be.
func (c Config) Validate() error {
	c = c.WithDefaults()
	switch {
	case c.MaxTokens < 32 || c.MaxTokens > 8191:
		return fmt.Errorf("chunk size of %d tokens: 32 to 8191 are possible", c.MaxTokens)
	case c.OverlapTokens*2 > c.MaxTokens:
		return fmt.Errorf("overlap of %d tokens: at most half of the chunk size of %d", c.OverlapTokens, c.MaxTokens)
	case !slices.Contains(encodings, c.Encoding):
		return fmt.Errorf("encoding %q: one of %v", c.Encoding, encodings)
	case !slices.Contains([]string{Structure, Separator, Markdown, Language}, c.Splitter):
		return fmt.Errorf("splitter %q: structure, separator, markdown or code", c.Splitter)
	case c.SplitLevel < 1 || c.SplitLevel > 6:
		return fmt.Errorf("split level %d: 1 to 6", c.SplitLevel)
	case c.Splitter == Language && separatorsOf[c.Language] == nil:
		return fmt.Errorf("language %q of the code splitter: one of %v", c.Language, languages())
	}
	return validTemplate(c.Template)
}

// Fingerprint names everything that decides what Split gives: equal
// fingerprints, equal chunks.
func (c Config) Fingerprint() [32]byte {
	text, err := json.Marshal(c.WithDefaults())
	if err != nil {
		panic(err) // strings and numbers only
	}
	return sha256.Sum256(fmt.Appendf(nil, "chunk/%d %s", version, text))
}

// Split cuts doc: the same document and Config always give the same chunks, in
// the order of the text. The Config must be valid.
func Split(doc *parse.Document, cfg Config) []Chunk {
	cfg = cfg.WithDefaults()
	s := splitter{doc: doc, cfg: cfg, count: newTally(counterOf(cfg.Encoding))}
	if cfg.Splitter == Structure {
		s.structure()
	} else {
		s.recursive()
	}
	name(s.out)
	return s.out
}

type splitter struct {
	doc   *parse.Document
	cfg   Config
	count *tally
	atoms []atom
	tree  cutTree
	short map[string]string // joined titles, inside of their limit
	out   []Chunk
}

// name gives every chunk its ID; equal texts of one document are numbered.
func name(chunks []Chunk) {
	seen := map[string]int{}
	for i := range chunks {
		sum := sha256.Sum256([]byte(chunks[i].EmbedText))
		id := hex.EncodeToString(sum[:16])
		seen[id]++
		if n := seen[id]; n > 1 {
			id += "-" + strconv.Itoa(n)
		}
		chunks[i].ID = id
	}
}
