package activation

import (
	"flag"
	"os"
	"testing"
)

var rewrite = flag.Bool("update", false, "write docs/outcomes.md anew")

func TestTheCatalogueIsThePageOfTheDocs(t *testing.T) {
	const page = "../docs/outcomes.md"
	want := CatalogueMarkdown()
	if *rewrite {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/outcomes.md is not what the catalogue says: go test ./activation -run Catalogue -update")
	}
	seen := map[Code]bool{}
	for _, c := range Catalogue() {
		if seen[c.Code] || c.Cause == "" || c.Remedy == "" {
			t.Errorf("code %s is there twice or says nothing", c.Code)
		}
		seen[c.Code] = true
	}
}
