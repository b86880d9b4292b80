package chunk

import (
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/tiktoken-go/tokenizer"
)

var encodings = []string{"cl100k_base", "o200k_base", "p50k_base", "r50k_base"}

// counter counts the tokens of texts; many goroutines may use it.
type counter struct{ codec tokenizer.Codec }

var (
	codecsMu sync.Mutex
	codecs   = map[string]tokenizer.Codec{}
)

// counterOf loads a vocabulary once; an unknown name counts as cl100k_base.
func counterOf(encoding string) counter {
	codecsMu.Lock()
	defer codecsMu.Unlock()
	if c, ok := codecs[encoding]; ok {
		return counter{c}
	}
	c, err := tokenizer.Get(tokenizer.Encoding(encoding))
	if err != nil {
		c, _ = tokenizer.Get(tokenizer.Cl100kBase) // compiled in
	}
	codecs[encoding] = c
	return counter{c}
}

// Tokens counts the tokens of text in an encoding.
func Tokens(encoding, text string) int { return counterOf(encoding).of(text) }

// longWord bounds what the vocabulary sees without a space: the cost of one
// word grows faster than its length.
const longWord = 1 << 10

func (c counter) of(text string) int {
	if text == "" {
		return 0
	}
	n := 0
	for len(text) > 0 {
		piece := text[:wordsEnd(text)]
		text = text[len(piece):]
		k, err := c.codec.Count(piece)
		if err != nil {
			k = len(piece) // one token a byte at most
		}
		n += k
	}
	return n
}

// wordsEnd is the end of the first part of text that has no word longer than
// longWord, at most 64 KiB.
func wordsEnd(text string) int {
	const part = 64 << 10
	if len(text) <= longWord {
		return len(text)
	}
	word := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == ' ' || c == '\n' || c == '\t':
			if i >= part {
				return i
			}
			word = 0
		default:
			if word++; word >= longWord && utf8.RuneStart(c) {
				return i
			}
		}
	}
	return len(text)
}

// fits is the longest start of text, at the end of a character and if possible
// of a word, that has at most max tokens.
func (c counter) fits(text string, max int) int {
	if len(text) <= max {
		return len(text) // no token is shorter than a byte
	}
	part := text[:runeStart(text, min(len(text), max*5))]
	part = part[:wordsEnd(part)]
	_, tokens, err := c.codec.Encode(part)
	end := 0
	for _, t := range tokens[:min(len(tokens), max)] {
		end += len(t)
	}
	if end = runeStart(text, min(end, len(part))); end == 0 || err != nil {
		_, end = utf8.DecodeRuneInString(text)
	}
	if end < len(text) {
		if space := strings.LastIndexAny(text[:end], " \n\t"); space > end/2 {
			return space + 1
		}
	}
	return end
}

func runeStart(text string, at int) int {
	for at > 0 && at < len(text) && !utf8.RuneStart(text[at]) {
		at--
	}
	return at
}
