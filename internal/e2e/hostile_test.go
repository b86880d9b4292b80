package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const hostileConfig = `
name: help
dir: data
kafka: { embedded: true }
sources:
  docs:
    files: { path: papers }
sinks:
  index:
    pgvector: { url: "${env:SHOP_DB_URL}", commit: { every: 200ms } }
    streams:
      - { from: docs.files, acl: [public] }
`

// A sample of files that cannot be read: each is a dead letter with its reason, and the good one beside them is found.
func TestHostileFilesAreDeadLettersWithTheirReason(t *testing.T) {
	w := newWorld(t, hostileConfig, "select 1")
	bad := map[string]string{
		"mark.pdf":  "%PDF-1.7\n",
		"noise.pdf": "%PDF-1.4\n" + strings.Repeat("\x00\xff\x01obj<<>>stream", 5000),
		"empty.txt": "",
		"cut.docx":  "PK\x03\x04\x14\x00\x00\x00\x08\x00 that ends here",
		"noise.bin": strings.Repeat("\x00\x01\x02\xfe\xff", 500),
	}
	papers := filepath.Join(w.dir, "papers")
	if err := os.MkdirAll(papers, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range bad {
		if err := os.WriteFile(filepath.Join(papers, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(papers, "good.md"), []byte("# Pumps\n\nThe pump of line three leaks oil.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.run(0, "run", "--until-caught-up")
	letters := w.run(0, "dlq", "ls", "--json")
	for _, want := range []string{`"total":5,"codes":{"broken":3,"empty":1,"unsupported":1}`, `"reason":"not a readable PDF"`, `"reason":"not a readable zip file"`, `"reason":"no content"`} {
		if !strings.Contains(letters, want) {
			t.Errorf("no %s in\n%s", want, letters)
		}
	}
	if out := w.run(0, "search", "leaking", "pump"); !strings.Contains(out, "good.md") {
		t.Errorf("the good file is not found:\n%s", out)
	}
}
