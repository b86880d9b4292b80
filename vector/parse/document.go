package parse

import "slices"

// Kind says what a Block is.
type Kind uint8

// The kinds of a block.
const (
	Paragraph Kind = iota
	Heading        // Level 1–6
	List           // "- item" lines, nested ones indented by two spaces a level
	Table          // a Markdown table: header line, delimiter line, rows
	Listing        // source text, verbatim; Lang names its language where known
)

var kindNames = [...]string{"paragraph", "heading", "list", "table", "code"}

// String is the name of the kind in lower case.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Document is what a parser understood of one file: its text as Markdown, and
// the blocks that the text consists of.
type Document struct {
	Format   string // "pdf", "docx", … the names of Format
	Title    string // from the file's own metadata or its first top heading; "" where it has none
	Language string // ISO 639-1 code of the text's main language; "" where it cannot be told
	Text     string // valid UTF-8 without NUL; every offset counts bytes of it
	Blocks   []Block
	Pages    int // pages, slides or sheets; 0 where the format has none
	NeedsOCR int // pages that hold pictures and no text; all of them: the file is rejected with CodeNeedsOCR
	Warnings []Warning
}

// Block is one piece of structure. Blocks are in reading order and never
// overlap; the text between two blocks is white space.
type Block struct {
	Kind       Kind
	Level      int      // of a heading, 1–6; otherwise 0
	Page       int      // from 1; 0 where the format has no pages
	Lang       string   // of code, in lower case
	Heading    []string // titles of the headings above this block, outermost first; shared between blocks: read only
	Start, End int      // Document.Text[Start:End] is the block
}

// Body is the text of b.
func (d *Document) Body(b Block) string { return d.Text[b.Start:b.End] }

// Warning says that a part of a file was left out, without any of its content.
type Warning struct {
	Code  Code
	Count int // how many times
}

// headingPath keeps the titles above the current block.
type headingPath struct {
	titles []string
	levels []int
	above  []string // the current path; replaced, never changed in place
}

func (h *headingPath) enter(level int, title string) {
	for len(h.levels) > 0 && h.levels[len(h.levels)-1] >= level {
		h.levels = h.levels[:len(h.levels)-1]
		h.titles = h.titles[:len(h.titles)-1]
	}
	h.levels = append(h.levels, level)
	h.titles = append(h.titles, title)
	h.above = slices.Clone(h.titles)
}

// over is the path above a heading of this level, not including it.
func (h *headingPath) over(level int) []string {
	n := len(h.levels)
	for n > 0 && h.levels[n-1] >= level {
		n--
	}
	return h.above[:n:n]
}
