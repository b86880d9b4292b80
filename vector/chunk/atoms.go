package chunk

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/zeebo/xxh3"

	"github.com/sluice-data/sluice/vector/parse"
)

// atom is a piece of text that is never cut: a sentence, a list item, a row, a
// line of code, a heading.
type atom struct {
	start, end int // in Document.Text
	tokens     int // with the white space before it
	block      int
	rank       rank   // of a cut before it
	key        uint64 // the lowest one of a range is where it is cut
	header     int    // of a table row: bytes of the header that a piece of the table repeats; 0 otherwise
}

// rank is how weak a place is for a cut; headings of level 1 to 6 are 1 to 6.
type rank uint8

const (
	rankBlock    rank = 8
	rankItem     rank = 9
	rankLine     rank = 10
	rankSentence rank = 11
	rankWord     rank = 12
	rankGlued    rank = 13 // after a heading, inside of a table's header
)

// keyBytes of an atom decide its key: an edit behind them moves no cut.
const keyBytes = 48

// makeAtoms takes the document apart.
func (s *splitter) makeAtoms(maxTokens int) {
	afterHeading := false
	for i, b := range s.doc.Blocks {
		first := len(s.atoms)
		text := s.doc.Body(b)
		switch b.Kind {
		case parse.Heading:
			s.addAtom(i, b.Start, b.End, rank(min(max(b.Level, 1), 6)), maxTokens)
		case parse.List:
			s.lines(i, b, maxTokens, itemRank)
		case parse.Table:
			s.rows(i, b, maxTokens)
		case parse.Listing:
			s.lines(i, b, maxTokens, codeRank)
		default:
			s.sentences(i, b.Start, text, maxTokens)
		}
		if first == len(s.atoms) {
			continue
		}
		head := &s.atoms[first]
		if b.Kind != parse.Heading {
			head.rank = rankBlock
			if afterHeading {
				head.rank = rankGlued
			}
		}
		afterHeading = b.Kind == parse.Heading
	}
	for i := range s.atoms {
		a := &s.atoms[i]
		text := strings.TrimSpace(s.doc.Text[a.start:a.end])
		a.key = xxh3.HashString(text[:min(len(text), keyBytes)])
	}
}

// addAtom adds text[start:end] as one atom, or as several where it is longer
// than a chunk may be.
func (s *splitter) addAtom(block, start, end int, r rank, maxTokens int) {
	n := s.count.of(s.doc.Text[start:end])
	for n > maxTokens {
		at := start + s.count.fits(s.doc.Text[start:end], maxTokens)
		s.atoms = append(s.atoms, atom{start: start, end: at, tokens: s.count.of(s.doc.Text[start:at]), block: block, rank: r})
		if at >= end {
			return
		}
		start, r = at, rankWord
		// Counting the rest again for every piece would be quadratic.
		if rest := end - start; rest > maxTokens*64 {
			n = maxTokens + 1
		} else {
			n = s.count.of(s.doc.Text[start:end])
		}
	}
	if start < end {
		// One more for the white space between this atom and the one before.
		s.atoms = append(s.atoms, atom{start: start, end: end, tokens: n + 1, block: block, rank: r})
	}
}

// lines makes an atom of every line; rankOf says how good a cut before it is.
func (s *splitter) lines(block int, b parse.Block, maxTokens int, rankOf func(line, before string) rank) {
	before := ""
	for at := b.Start; at < b.End; {
		end := b.End
		if i := strings.IndexByte(s.doc.Text[at:b.End], '\n'); i >= 0 {
			end = at + i + 1
		}
		line := s.doc.Text[at:end]
		if strings.TrimSpace(line) != "" {
			s.addAtom(block, at, end, rankOf(line, before), maxTokens)
		}
		before = line
		at = end
	}
}

// itemRank: items of the outer list first, lines inside of an item last.
func itemRank(line, _ string) rank {
	text := strings.TrimLeft(line, " \t")
	item := strings.HasPrefix(text, "- ") || strings.HasPrefix(text, "* ") || strings.HasPrefix(text, "+ ")
	if digits := strings.TrimLeft(text, "0123456789"); !item && len(digits) < len(text) {
		item = strings.HasPrefix(digits, ". ") || strings.HasPrefix(digits, ") ")
	}
	switch {
	case item && len(text) == len(line):
		return rankItem
	case item:
		return rankLine
	}
	return rankSentence
}

// codeRank: declarations begin in the first column after an empty line.
func codeRank(line, before string) rank {
	outer := !unicode.IsSpace(rune(line[0])) && !strings.HasPrefix(line, "}") && !strings.HasPrefix(line, ")")
	empty := strings.TrimSpace(before) == ""
	switch {
	case outer && empty:
		return rankItem
	case outer || empty:
		return rankLine
	}
	return rankSentence
}

// rows makes an atom of every row; the header is repeated before a later piece
// unless it would fill a quarter of it.
func (s *splitter) rows(block int, b parse.Block, maxTokens int) {
	text := s.doc.Body(b)
	header := 0
	if first := strings.IndexByte(text, '\n'); first >= 0 {
		header = len(text)
		if second := strings.IndexByte(text[first+1:], '\n'); second >= 0 {
			header = first + 1 + second
		}
	}
	from := len(s.atoms)
	s.lines(block, b, maxTokens/2, func(string, string) rank { return rankLine })
	repeated := header
	if header > 0 && s.count.of(text[:header]) > maxTokens/4 {
		repeated = 0
	}
	for i := from; i < len(s.atoms); i++ {
		if s.atoms[i].start < b.Start+header {
			if i > from {
				s.atoms[i].rank = rankGlued
			}
			continue
		}
		s.atoms[i].header = repeated
		if i > from && s.atoms[i-1].start < b.Start+header {
			s.atoms[i].rank = rankGlued // the header alone says nothing
		}
	}
}

// sentences makes an atom of every sentence.
func (s *splitter) sentences(block, start int, text string, maxTokens int) {
	for at := 0; at < len(text); {
		end := at + sentenceEnd(text[at:])
		s.addAtom(block, start+at, start+end, rankSentence, maxTokens)
		at = end
	}
}

// notEnds are words whose dot ends no sentence.
var notEnds = map[string]bool{"e.g": true, "i.e": true, "dr": true, "mr": true, "mrs": true, "ms": true, "vs": true,
	"fig": true, "no": true, "st": true, "prof": true, "cf": true, "z.b": true, "bzw": true, "ca": true, "nr": true, "etc": true, "al": true}

// sentenceEnd is the end of the first sentence of text, with the white space
// behind it.
func sentenceEnd(text string) int {
	for i, r := range text {
		size := utf8.RuneLen(r)
		if size < 0 {
			size = 1
		}
		next := i + size
		switch r {
		case '。', '！', '？':
			return closing(text, next)
		case '.', '!', '?', '…', '؟', '।':
			end := closing(text, next)
			if end == next && next < len(text) && !unicode.IsSpace(rune(text[next])) {
				continue // inside of a word or a number
			}
			if r == '.' && notEnds[lastWord(text[:i])] {
				continue
			}
			if after, _ := utf8.DecodeRuneInString(text[end:]); end < len(text) && unicode.IsLower(after) {
				continue
			}
			return end
		}
	}
	return len(text)
}

// closing skips quotes, brackets and white space behind the end of a sentence.
func closing(text string, at int) int {
	for i, r := range text[at:] {
		if !unicode.IsSpace(r) && !strings.ContainsRune("\"')]}»”’」』）", r) {
			return at + i
		}
	}
	return len(text)
}

func lastWord(text string) string {
	text = text[max(0, len(text)-12):]
	if i := strings.LastIndexAny(text, " \n\t(["); i >= 0 {
		text = text[i+1:]
	}
	text = strings.ToLower(text)
	if len(text) == 1 && text[0] >= 'a' && text[0] <= 'z' {
		return "dr" // an initial
	}
	return text
}
