package embed

import (
	"context"
	"math"
	"unicode"
	"unicode/utf8"

	"github.com/zeebo/xxh3"
)

// hashDims is wide enough that the features of a page rarely meet.
const hashDims = 1024

// Weights of the features of a word: itself, and its runs of three letters, which find other forms of it.
const (
	wordWeight    = 1.0
	trigramWeight = 0.35
)

// Hash embeds by feature hashing: words and their trigrams, signed, with the logarithm of their counts. It
// needs no weights and no network, and finds words, not meaning.
type Hash struct{ dims int }

// NewHash returns a Hash of the given width; 0 = 1024.
func NewHash(dims int) *Hash {
	if dims <= 0 {
		dims = hashDims
	}
	return &Hash{dims}
}

// Spec returns the space of the vectors.
func (h *Hash) Spec() Spec {
	return Spec{Provider: "hash", Model: "words-trigrams", Revision: "1", Dims: h.dims, Kind: Lexical}
}

// Limits returns no limit but that of one window at a time per core.
func (h *Hash) Limits() Limits { return Limits{Inputs: 256, Parallel: 2} }

// Embed returns a vector for each text.
func (h *Hash) Embed(ctx context.Context, texts []string, _ Use) ([][]float32, Usage, error) {
	vs := make([][]float32, len(texts))
	var u Usage
	for i, t := range texts {
		if err := ctx.Err(); err != nil {
			return nil, u, err
		}
		vs[i] = h.vector(t)
		u.Inputs++
		u.Tokens += int64(estimate(t))
	}
	u.Calls = 1
	return vs, u, nil
}

// feature is one place of a vector that a text touches.
type feature struct {
	place int
	sign  float32
	base  float32
}

func (h *Hash) vector(text string) []float32 {
	counts := map[feature]int{}
	Words(text, func(word string) {
		counts[h.feature(word, wordWeight)]++
		padded := "^" + word + "$"
		starts := make([]int, 0, len(padded)+1)
		for i := range padded {
			starts = append(starts, i)
		}
		starts = append(starts, len(padded))
		for i := 0; i+3 < len(starts) && len(starts) > 5; i++ {
			counts[h.feature("3"+padded[starts[i]:starts[i+3]], trigramWeight)]++
		}
	})
	// Summed with room to spare: in whatever order, the same text has the same vector.
	sums := make([]float64, h.dims)
	for f, n := range counts {
		sums[f.place] += float64(f.sign*f.base) * (1 + math.Log(float64(n)))
	}
	v := make([]float32, h.dims)
	for i, sum := range sums {
		v[i] = float32(sum)
	}
	for _, x := range v {
		if x != 0 {
			return v
		}
	}
	v[0] = 1 // a text without words has a place too: a zero vector has no direction
	return v
}

func (h *Hash) feature(s string, weight float32) feature {
	x := xxh3.HashString(s)
	sign := float32(1)
	if x>>63 == 1 {
		sign = -1
	}
	return feature{place: int(x % uint64(h.dims)), sign: sign, base: weight}
}

// Words calls f with each word of text, in lower case. A letter of a script that is written without spaces
// is a word, and so is each pair of them.
func Words(text string, f func(string)) {
	word := make([]byte, 0, 32)
	var before rune
	flush := func() {
		if len(word) > 0 {
			f(string(word))
			word = word[:0]
		}
	}
	for _, r := range text {
		switch {
		case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai):
			flush()
			f(string(r))
			if before != 0 {
				f(string([]rune{before, r}))
			}
			before = r
			continue
		case unicode.IsLetter(r), unicode.IsDigit(r), unicode.IsMark(r):
			if len(word) < 64 {
				word = utf8.AppendRune(word, unicode.ToLower(r))
			}
		default:
			flush()
		}
		before = 0
	}
	flush()
}
