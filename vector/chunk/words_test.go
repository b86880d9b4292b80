package chunk

import (
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"
)

// The tally must count as the encoding itself does.
func TestTallyCountsAsTheEncoding(t *testing.T) {
	pieces := []string{"word", " ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "'", "it's", "123", "12345", "½", "(", ")", "...", "漢字", "é", "e\u0301", "🎉", "\u00a0",
		"Hello", "<|endoftext|>", "#", "_x", "-", "http://x.test/y?z=1", "שלום", "|", "\u2003", "ﬁ", "Ⅷ", "x1y", "\u3000"}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 60).Draw(t, "text"), "")
		c := counterOf("cl100k_base")
		if got, want := newTally(c).of(text), c.of(text); got != want {
			t.Fatalf("%q: %d tokens, want %d", text, got, want)
		}
	})
}

func FuzzTally(f *testing.F) {
	f.Add("It's a text\r\n  with 1234 numbers (and signs)...\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.Map(func(r rune) rune {
			// Documents have no control characters; ſ folds to s in an expression only.
			if unicode.IsControl(r) && !unicode.IsSpace(r) || r == 'ſ' {
				return -1
			}
			return r
		}, strings.ToValidUTF8(text, ""))
		if len(text) > longWord {
			return
		}
		c := counterOf("cl100k_base")
		if got, want := newTally(c).of(text), c.of(text); got != want {
			t.Fatalf("%q: %d tokens, want %d", text, got, want)
		}
	})
}
