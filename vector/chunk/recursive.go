package chunk

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sluice-data/sluice/vector/parse"
)

// The three splitters of Airbyte's vector destinations: text is parted by the
// first separator that occurs in it, what is still too long by the next one,
// and neighbours are put together again up to the chunk size. They know
// neither blocks nor pages; offsets, pages and headings are found afterwards.

// headingSeparators part Markdown at headings.
var headingSeparators = []string{`(?:^|\n)# `, `(?:^|\n)## `, `(?:^|\n)### `, `(?:^|\n)#### `, `(?:^|\n)##### `, `(?:^|\n)###### `}

// piece is text[start:start+len(text)] of the document.
type piece struct {
	text   string
	start  int
	tokens int
}

type recursion struct {
	count       *tally
	max         int
	overlap     int
	keep        bool // separators stay, at the beginning of what follows
	expressions bool // separators are regular expressions
	emit        func(text string, start, end int)
}

// recursive cuts with one of Airbyte's splitters.
func (s *splitter) recursive() {
	r := recursion{count: s.count, max: s.cfg.MaxTokens, overlap: s.cfg.OverlapTokens, emit: s.found}
	var separators []string
	switch s.cfg.Splitter {
	case Markdown:
		separators, r.keep, r.expressions = headingSeparators[:min(max(s.cfg.SplitLevel, 1), 6)], true, true
	case Language:
		separators, r.keep = separatorsOf[s.cfg.Language], true
	default:
		separators, r.keep = s.cfg.Separators, s.cfg.KeepSeparator
	}
	r.split(s.doc.Text, 0, separators)
}

// found adds a chunk, and looks up where it lies.
func (s *splitter) found(text string, start, end int) {
	c := Chunk{Text: text, Start: start, End: end}
	i, _ := slices.BinarySearchFunc(s.doc.Blocks, start, func(b parse.Block, at int) int {
		if b.End <= at {
			return -1
		}
		return 1
	})
	if i < len(s.doc.Blocks) {
		c.Page, c.Heading = s.doc.Blocks[i].Page, slices.Clone(s.doc.Blocks[i].Heading)
	}
	s.embed(&c)
	s.out = append(s.out, c)
}

func (r *recursion) split(text string, start int, separators []string) {
	if len(separators) == 0 {
		r.emitTrimmed(text, start, start+len(text))
		return
	}
	separator, rest := separators[len(separators)-1], []string(nil)
	for i, candidate := range separators {
		if candidate == "" || r.find(candidate, text) != nil {
			separator, rest = candidate, separators[i+1:]
			break
		}
	}
	joint := separator
	if r.keep || r.expressions {
		joint = ""
	}
	var small []piece
	for _, p := range r.part(text, start, separator) {
		if p.tokens = r.count.of(p.text); p.tokens < r.max {
			small = append(small, p)
			continue
		}
		r.merge(small, joint)
		small = small[:0]
		if len(rest) == 0 {
			r.emitTrimmed(p.text, p.start, p.start+len(p.text))
		} else {
			r.split(p.text, p.start, rest)
		}
	}
	r.merge(small, joint)
}

// find gives the first occurrence of the separator, nil for none.
func (r *recursion) find(separator, text string) []int {
	if r.expressions {
		return regexp.MustCompile(separator).FindStringIndex(text)
	}
	if i := strings.Index(text, separator); i >= 0 {
		return []int{i, i + len(separator)}
	}
	return nil
}

// part cuts text at every separator; "" cuts between all characters.
func (r *recursion) part(text string, start int, separator string) []piece {
	var out []piece
	add := func(from, to int) {
		if from < to {
			out = append(out, piece{text: text[from:to], start: start + from})
		}
	}
	if separator == "" {
		for i := 0; i < len(text); {
			_, size := utf8.DecodeRuneInString(text[i:])
			add(i, i+size)
			i += size
		}
		return out
	}
	var places [][]int
	if r.expressions {
		places = regexp.MustCompile(separator).FindAllStringIndex(text, -1)
	} else {
		for at := 0; ; {
			i := strings.Index(text[at:], separator)
			if i < 0 {
				break
			}
			places = append(places, []int{at + i, at + i + len(separator)})
			at += i + len(separator)
		}
	}
	from := 0
	for _, p := range places {
		add(from, p[0])
		if from = p[1]; r.keep {
			from = p[0]
		}
	}
	add(from, len(text))
	return out
}

// merge puts neighbours together up to the chunk size; the last ones of a
// chunk, up to the overlap, begin the next one.
func (r *recursion) merge(pieces []piece, joint string) {
	jointTokens := r.count.of(joint)
	var current []piece
	total := 0
	between := func(more bool) int {
		if more {
			return jointTokens
		}
		return 0
	}
	for _, p := range pieces {
		if total+p.tokens+between(len(current) > 0) > r.max && len(current) > 0 {
			r.emitPieces(current, joint)
			for total > r.overlap || total+p.tokens+between(len(current) > 0) > r.max && total > 0 {
				total -= current[0].tokens + between(len(current) > 1)
				current = current[1:]
			}
		}
		current = append(current, p)
		total += p.tokens + between(len(current) > 1)
	}
	if len(current) > 0 {
		r.emitPieces(current, joint)
	}
}

func (r *recursion) emitPieces(pieces []piece, joint string) {
	texts := make([]string, len(pieces))
	for i, p := range pieces {
		texts[i] = p.text
	}
	last := pieces[len(pieces)-1]
	r.emitTrimmed(strings.Join(texts, joint), pieces[0].start, last.start+len(last.text))
}

func (r *recursion) emitTrimmed(text string, start, end int) {
	left := strings.TrimSpace(text)
	if left == "" {
		return
	}
	start += strings.Index(text, left)
	end -= len(text) - len(strings.TrimRight(text, " \t\r\n"))
	r.emit(left, start, max(start, end))
}

// separatorsOf lists where each language is parted, best first.
var separatorsOf = map[string][]string{
	"cpp":      concat(lines("class ", "void ", "int ", "float ", "double "), lines("if ", "for ", "while ", "switch ", "case ")),
	"go":       concat(lines("func ", "var ", "const ", "type "), lines("if ", "for ", "switch ", "case ")),
	"java":     concat(lines("class ", "public ", "protected ", "private ", "static "), lines("if ", "for ", "while ", "switch ", "case ")),
	"js":       concat(lines("function ", "const ", "let ", "var ", "class "), lines("if ", "for ", "while ", "switch ", "case ", "default ")),
	"php":      concat(lines("function ", "class "), lines("if ", "foreach ", "while ", "do ", "switch ", "case ")),
	"proto":    lines("message ", "service ", "enum ", "option ", "import ", "syntax "),
	"python":   {"\nclass ", "\ndef ", "\n\tdef ", "\n\n", "\n", " ", ""},
	"rst":      {"\n=+\n", "\n-+\n", "\n\\*+\n", "\n\n.. *\n\n", "\n\n", "\n", " ", ""},
	"ruby":     concat(lines("def ", "class "), lines("if ", "unless ", "while ", "for ", "do ", "begin ", "rescue ")),
	"rust":     concat(lines("fn ", "const ", "let "), lines("if ", "while ", "for ", "loop ", "match ", "const ")),
	"scala":    concat(lines("class ", "object ", "def ", "val ", "var "), lines("if ", "for ", "while ", "match ", "case ")),
	"swift":    concat(lines("func ", "class ", "struct ", "enum "), lines("if ", "for ", "while ", "do ", "switch ", "case ")),
	"markdown": {"\n#{1,6} ", "```\n", "\n\\*\\*\\*+\n", "\n---+\n", "\n___+\n", "\n\n", "\n", " ", ""},
	"latex": {"\n\\\\chapter{", "\n\\\\section{", "\n\\\\subsection{", "\n\\\\subsubsection{", "\n\\\\begin{enumerate}", "\n\\\\begin{itemize}",
		"\n\\\\begin{description}", "\n\\\\begin{list}", "\n\\\\begin{quote}", "\n\\\\begin{quotation}", "\n\\\\begin{verse}",
		"\n\\\\begin{verbatim}", "\n\\\\begin{align}", "$$", "$", " ", ""},
	"html": {"<body", "<div", "<p", "<br", "<li", "<h1", "<h2", "<h3", "<h4", "<h5", "<h6", "<span", "<table", "<tr", "<td", "<th",
		"<ul", "<ol", "<header", "<footer", "<nav", "<head", "<style", "<script", "<meta", "<title", ""},
	"sol": concat(lines("pragma ", "using ", "contract ", "interface ", "library ", "constructor ", "type ", "function ", "event ",
		"modifier ", "error ", "struct ", "enum "), lines("if ", "for ", "while ", "do while ", "assembly ")),
}

// lines are words at the beginning of a line, then the common separators.
func lines(words ...string) []string {
	var out []string
	for _, w := range words {
		out = append(out, "\n"+w)
	}
	return append(out, "\n\n", "\n", " ", "")
}

// concat joins two lists of lines; the common separators stay at the end.
func concat(a, b []string) []string { return append(slices.Clone(a[:len(a)-4]), b...) }

func languages() []string {
	var names []string
	for name := range separatorsOf {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
