package chunk

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// tally counts the tokens of one document. Texts repeat their words: each is
// looked up in the vocabulary once, which makes counting several times faster.
// It knows how cl100k_base takes text apart; other encodings count directly.
type tally struct {
	counter
	words map[string]int
}

const (
	talliedWord  = 32     // bytes; longer words are rare
	talliedWords = 50_000 // about 4 MB
)

func newTally(c counter) *tally { return &tally{counter: c, words: map[string]int{}} }

func (t *tally) of(text string) int {
	if t.codec.GetName() != "cl100k_base" {
		return t.counter.of(text)
	}
	n := 0
	for len(text) > 0 {
		word := text[:wordEnd(text)]
		text = text[len(word):]
		if len(word) > talliedWord {
			n += t.counter.of(word)
			continue
		}
		k, known := t.words[word]
		if !known {
			k = t.counter.of(word)
			if len(t.words) < talliedWords {
				t.words[strings.Clone(word)] = k
			}
		}
		n += k
	}
	return n
}

// wordEnd is the end of the first piece that the encoding never joins with
// what follows: a word with the sign before it, up to three digits, signs with
// the line ends behind them, white space.
func wordEnd(s string) int {
	if n := suffixEnd(s); n > 0 {
		return n
	}
	first, size := utf8.DecodeRuneInString(s)
	switch {
	case unicode.IsLetter(first):
		return run(s, size, unicode.IsLetter)
	case unicode.IsNumber(first):
		end := size
		for range 2 {
			r, n := utf8.DecodeRuneInString(s[end:])
			if n == 0 || !unicode.IsNumber(r) {
				break
			}
			end += n
		}
		return end
	}
	if second, n := utf8.DecodeRuneInString(s[size:]); first != '\r' && first != '\n' && n > 0 && unicode.IsLetter(second) {
		return run(s, size+n, unicode.IsLetter)
	}
	from := 0
	if first == ' ' {
		from = 1
	}
	if end := run(s, from, isSign); end > from {
		for end < len(s) && (s[end] == '\r' || s[end] == '\n') {
			end++
		}
		return end
	}
	return spaceEnd(s)
}

// suffixEnd is the end of an English suffix as 's; 0: there is none.
func suffixEnd(s string) int {
	if s[0] != '\'' {
		return 0
	}
	for _, suffix := range []string{"s", "t", "re", "ve", "m", "ll", "d"} {
		if len(s) > len(suffix) && strings.EqualFold(s[1:1+len(suffix)], suffix) {
			return 1 + len(suffix)
		}
	}
	return 0
}

// spaceEnd: white space up to its last line end; without one, all but the last
// space, which belongs to the next word.
func spaceEnd(s string) int {
	end, lineEnd, last := 0, 0, 0
	for end < len(s) {
		r, n := utf8.DecodeRuneInString(s[end:])
		if !unicode.IsSpace(r) {
			break
		}
		last = end
		if end += n; r == '\r' || r == '\n' {
			lineEnd = end
		}
	}
	switch {
	case lineEnd > 0:
		return lineEnd
	case end == len(s) || last == 0:
		return max(end, 1)
	}
	return last
}

func isSign(r rune) bool { return !unicode.IsSpace(r) && !unicode.IsLetter(r) && !unicode.IsNumber(r) }

// run is the end of the characters of a kind from at.
func run(s string, at int, kind func(rune) bool) int {
	for at < len(s) {
		r, n := utf8.DecodeRuneInString(s[at:])
		if !kind(r) {
			break
		}
		at += n
	}
	return at
}
