package chunk

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-data/sluice/vector/parse"
)

// structure cuts along the blocks of the document.
func (s *splitter) structure() {
	body := s.cfg.MaxTokens - s.reserve() - 4
	s.makeAtoms(body)
	if len(s.atoms) == 0 {
		return
	}
	s.tree = newCutTree(s.atoms)
	for _, sp := range s.spans(body) {
		s.add(sp, body)
	}
}

// span is the atoms [from, to).
type span struct{ from, to int }

// spans cuts until every piece fits, then joins neighbours that fit together:
// cousins in the tree of cuts often do. A run of such neighbours is short, so
// that a join far from an edit stays as well.
func (s *splitter) spans(body int) []span {
	var out []span
	for todo := []span{{0, len(s.atoms)}}; len(todo) > 0; {
		last := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if last.to-last.from > 1 && !s.fits(last, body) {
			at := s.tree.cut(last.from, last.to, body)
			todo = append(todo, span{at, last.to}, span{last.from, at})
			continue
		}
		if n := len(out); n > 0 && s.fits(span{out[n-1].from, last.to}, body) {
			out[n-1].to = last.to
			continue
		}
		out = append(out, last)
	}
	return out
}

// fits reports whether a span is one chunk. The sum of its atoms is more than
// what they count together, and the titles of most chunks are shorter than the
// longest ones: where the sum does not say no at once, the chunk is counted.
func (s *splitter) fits(sp span, body int) bool {
	sum := s.tree.tokens(sp.from, sp.to)
	if sum <= body || sum > body*3/2 {
		return sum <= body
	}
	_, fits := s.assemble(sp.from, sp.to)
	return fits
}

// add makes the chunk of a span, or chunks of its parts where what is repeated
// makes it too long.
func (s *splitter) add(sp span, body int) {
	c, fits := s.assemble(sp.from, sp.to)
	if fits || sp.to-sp.from == 1 {
		if c.Text != "" {
			s.out = append(s.out, c)
		}
		return
	}
	at := s.tree.cut(sp.from, sp.to, body)
	s.add(span{sp.from, at}, body)
	s.add(span{at, sp.to}, body)
}

// reserve is the room for the titles before the text: that of the longest ones
// of the document, rounded up, so that a changed heading seldom moves a cut.
func (s *splitter) reserve() int {
	limit := s.prefixTokens()
	if limit == 0 {
		return 0
	}
	longest := 0
	var last []string
	for _, b := range s.doc.Blocks {
		if len(b.Heading) > 0 && (len(last) != len(b.Heading) || &last[0] != &b.Heading[0]) {
			last = b.Heading
			longest = max(longest, s.count.of(s.shorten(b.Heading, limit)))
		}
	}
	title := s.count.of(s.shorten([]string{s.doc.Title}, limit))
	const step = 16
	return min((longest+title+4+step-1)/step*step, limit)
}

// prefixTokens is the most that titles may take.
func (s *splitter) prefixTokens() int {
	if strings.Trim(strings.ReplaceAll(s.cfg.Template, "{text}", ""), " \n") == "" {
		return 0
	}
	return s.cfg.MaxTokens / 8
}

// assemble makes a chunk of the atoms [from, to); false: it has too many tokens.
func (s *splitter) assemble(from, to int) (Chunk, bool) {
	first, last := s.atoms[from], s.atoms[to-1]
	block := s.doc.Blocks[first.block]
	c := Chunk{Page: block.Page, Heading: s.commonPath(first.block, last.block), Start: s.overlap(from), End: last.end}
	c.End = c.Start + len(strings.TrimRight(s.doc.Text[c.Start:c.End], " \t\n"))
	c.Text = s.doc.Text[c.Start:c.End]
	if strings.TrimSpace(c.Text) == "" {
		c.Text = ""
		return c, true
	}
	if first.header > 0 {
		c.Text = s.doc.Text[block.Start:block.Start+first.header] + "\n" + c.Text
	}
	s.embed(&c)
	if c.Tokens <= s.cfg.MaxTokens {
		return c, true
	}
	// What is repeated gives way first.
	if c.Start < first.start {
		c.Start = first.start
		c.Text = s.doc.Text[c.Start:c.End]
		s.embed(&c)
	}
	if c.Tokens > s.cfg.MaxTokens && to-from == 1 {
		c.EmbedText = c.EmbedText[:s.count.fits(c.EmbedText, s.cfg.MaxTokens)]
		c.Tokens = s.count.of(c.EmbedText)
	}
	return c, c.Tokens <= s.cfg.MaxTokens
}

// overlap is where the chunk that begins with atom from begins with the text
// before it: whole atoms of the same section, no pieces of tables and code.
func (s *splitter) overlap(from int) int {
	start := s.atoms[from].start
	if s.cfg.OverlapTokens == 0 || s.atoms[from].rank < rankBlock || !s.flows(from) {
		return start
	}
	left := s.cfg.OverlapTokens
	for i := from - 1; i >= 0; i-- {
		a := s.atoms[i]
		if a.tokens > left || a.rank < rankBlock || !s.flows(i) {
			break
		}
		left -= a.tokens
		start = a.start
	}
	return start
}

func (s *splitter) flows(i int) bool {
	kind := s.doc.Blocks[s.atoms[i].block].Kind
	return kind == parse.Paragraph || kind == parse.List
}

// commonPath is the heading path that all text of the blocks shares.
func (s *splitter) commonPath(first, last int) []string {
	var path []string
	found := false
	for _, b := range s.doc.Blocks[first : last+1] {
		if b.Kind == parse.Heading && first != last {
			continue // the text below says more
		}
		if !found {
			path, found = b.Heading, true
			continue
		}
		n := 0
		for n < len(path) && n < len(b.Heading) && path[n] == b.Heading[n] {
			n++
		}
		path = path[:n]
	}
	return slices.Clone(path)
}

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

func validTemplate(template string) error {
	for _, p := range placeholder.FindAllString(template, -1) {
		if !slices.Contains([]string{"{title}", "{headings}", "{path}", "{text}"}, p) {
			return fmt.Errorf("template has %s: {title}, {headings}, {path} and {text} are known", p)
		}
	}
	if !strings.Contains(template, "{text}") {
		return fmt.Errorf("template without {text}")
	}
	return nil
}

const arrow = " › "

// embed fills the template. Titles are data and may hold braces: all places
// are filled at once.
func (s *splitter) embed(c *Chunk) {
	title, headings := s.doc.Title, c.Heading
	path := headings
	if title != "" && (len(headings) == 0 || headings[0] != title) {
		path = append([]string{title}, headings...)
	}
	limit := s.prefixTokens()
	text := strings.NewReplacer("{title}", s.shorten([]string{title}, limit), "{headings}", s.shorten(headings, limit),
		"{path}", s.shorten(path, limit), "{text}", c.Text).Replace(s.cfg.Template)
	c.EmbedText = strings.Trim(text, "\n")
	c.Tokens = s.count.of(c.EmbedText)
}

// shorten joins titles; what is too long loses its outermost ones. Neighbours
// mostly have the same.
func (s *splitter) shorten(titles []string, limit int) string {
	key := strings.Join(titles, "\x00")
	if s.short == nil || len(s.short) > 1000 {
		s.short = map[string]string{}
	}
	short, known := s.short[key]
	if !known {
		short = s.fitTitles(titles, limit)
		s.short[key] = short
	}
	return short
}

func (s *splitter) fitTitles(titles []string, limit int) string {
	for len(titles) > 0 {
		joined := strings.Join(titles, arrow)
		if s.count.of(joined) <= limit {
			return joined
		}
		if len(titles) == 1 {
			return strings.TrimSpace(joined[:s.count.fits(joined, limit)])
		}
		titles = titles[1:]
	}
	return ""
}
