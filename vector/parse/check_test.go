package parse_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sluice-data/sluice/vector/parse"
)

// checkDocument holds what is true of every document.
func checkDocument(t testing.TB, d *parse.Document) {
	t.Helper()
	if !utf8.ValidString(d.Text) || strings.ContainsRune(d.Text, 0) {
		t.Fatal("text is no clean UTF-8")
	}
	if len(d.Blocks) == 0 {
		t.Fatal("a document without blocks is a reject")
	}
	at := 0
	for i, b := range d.Blocks {
		if b.Start < at || b.End < b.Start || b.End > len(d.Text) {
			t.Fatalf("block %d lies at %d to %d, the one before ends at %d", i, b.Start, b.End, at)
		}
		if b.Kind == parse.Heading && (b.Level < 1 || b.Level > 6) || b.Kind != parse.Heading && b.Level != 0 {
			t.Fatalf("block %d: %v of level %d", i, b.Kind, b.Level)
		}
		if !utf8.ValidString(d.Body(b)) {
			t.Fatalf("block %d cuts a character", i)
		}
		at = b.End
	}
}
