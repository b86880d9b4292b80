package quality_test

import (
	"strings"
	"unicode"
)

// terms are the words of a text, without their endings.
func terms(text string) []string {
	words := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	for i, w := range words {
		for _, ending := range []string{"ing", "ies", "ed", "es", "s"} {
			if strings.HasSuffix(w, ending) && len(w) > len(ending)+3 {
				words[i] = w[:len(w)-len(ending)]
				break
			}
		}
	}
	return words
}
