package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const filesConfig = `name: library
dir: data
kafka: { embedded: true }
sources:
  docs:
    files:
      path: papers
      exclude: ["*.tmp"]
      permissions: true
      groups: [ { name: "group:eng", members: ["user:anna"] } ]
  copies:
    files:
      path: papers
      mode: copy
      layout: hash
      store: { url: s3://copies/papers, embedded: true }
sinks:
  lake:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/library
      s3: { embedded: true }
      commit: { every: 200ms }
    streams:
      - { from: docs.files, table: library.files }
      - { from: docs.permissions, table: library.permissions }
      - { from: copies.files, table: library.copies }
  index:
    pgvector:
      url: "${env:SHOP_DB_URL}"
      commit: { every: 200ms }
    streams:
      - { from: docs.files }
      - { from: docs.groups, holds: groups }
`

// A folder becomes documents that may be searched: changes, renames, deletes
// and revoked permissions follow, and bodies above 1 MiB never pass Kafka.
func TestFolderIsSearched(t *testing.T) {
	w := newWorld(t, filesConfig, `SELECT 1`)
	w.write("papers/.sluice-acl.yaml", "allow: [public]\n")
	w.write("papers/pump.md", "# Pump\n\nThe pump of line three leaks oil near the seal.\n")
	w.write("papers/eng/.sluice-acl.yaml", "allow: ['group:eng']\n")
	w.write("papers/eng/secret.md", "# Turbine\n\nThe turbine blueprint is confidential.\n")
	w.write("papers/big.txt", "The zeppelin manual.\n"+strings.Repeat("Filler line about nothing at all.\n", 40_000))
	w.write("papers/note.tmp", "not read")
	if err := os.Symlink("/etc/passwd", filepath.Join(w.dir, "papers/link.txt")); err != nil {
		t.Fatal(err)
	}
	w.run(0, "validate")
	w.run(0, "run", "--until-caught-up")
	if out := w.run(0, "dlq", "ls"); !strings.Contains(out, "symlink_outside") || strings.Contains(out, "link.txt") {
		t.Errorf("the dead letters are\n%s", out)
	}

	if out := w.run(0, "search", "leaking", "pump"); !strings.Contains(out, "pump.md") {
		t.Errorf("everybody sees:\n%s", out)
	}
	if out := w.run(0, "search", "zeppelin", "manual"); !strings.Contains(out, "big.txt") {
		t.Errorf("the big file is not found:\n%s", out)
	}
	if out := w.run(0, "search", "turbine", "blueprint"); strings.Contains(out, "secret.md") {
		t.Errorf("everybody sees:\n%s", out)
	}
	if out := w.run(0, "search", "turbine", "blueprint", "--as", "anna"); !strings.Contains(out, "secret.md") {
		t.Errorf("anna sees:\n%s", out)
	}
	for _, table := range []string{"library.files", "library.permissions", "library.copies"} {
		want := "3 rows"
		if table == "library.copies" {
			want = "4 rows" // and note.tmp
		}
		if out := w.run(0, "inspect", table); !strings.Contains(out, want) {
			t.Errorf("%s is\n%s", table, out)
		}
	}
	objects, err := filepath.Glob(filepath.Join(w.dir, "data/s3/buckets/copies/papers/sha256/*/*"))
	if err != nil || len(objects) != 4 {
		t.Errorf("copies: %v, %v", objects, err)
	}

	w.write("papers/eng/.sluice-acl.yaml", "allow: ['user:bob']\n")
	if err := os.Rename(filepath.Join(w.dir, "papers/pump.md"), filepath.Join(w.dir, "papers/renamed.md")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(w.dir, "papers/big.txt")); err != nil {
		t.Fatal(err)
	}
	w.run(0, "run", "--until-caught-up")
	if out := w.run(0, "search", "turbine", "blueprint", "--as", "anna"); strings.Contains(out, "secret.md") {
		t.Errorf("after the permission was revoked anna sees:\n%s", out)
	}
	if out := w.run(0, "search", "leaking", "pump"); !strings.Contains(out, "renamed.md") || strings.Contains(out, "pump.md") {
		t.Errorf("after the rename:\n%s", out)
	}
	if out := w.run(0, "search", "zeppelin", "manual"); strings.Contains(out, "big.txt") {
		t.Errorf("after the delete:\n%s", out)
	}
	if out := w.run(0, "inspect", "library.files"); !strings.Contains(out, "2 rows") {
		t.Errorf("library.files is\n%s", out)
	}
	if objects, _ = filepath.Glob(filepath.Join(w.dir, "data/s3/buckets/copies/papers/sha256/*/*")); len(objects) != 3 {
		t.Errorf("copies after the delete: %v", objects)
	}
}

const killedConfig = `name: killed
dir: data
kafka: { embedded: true }
sources:
  docs: { files: { path: papers, every: 1s, max_gone: 1 } }
sinks:
  lake:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/killed
      s3: { embedded: true }
      commit: { every: 300ms }
    streams:
      - { from: docs.files, table: killed.log, mode: append }
  latest:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/killed
      s3: { embedded: true }
      commit: { every: 300ms }
    streams:
      - { from: docs.files, table: killed.files }
`

// Files arrive while sluice is killed at random: each is in the log exactly
// once, and what is deleted is gone.
func TestFilesAcrossKills(t *testing.T) {
	w := newWorld(t, killedConfig, `SELECT 1`)
	r, n := rand.New(rand.NewPCG(uint64(os.Getpid()), 1)), 0
	arrive := func() { // whole, as a file that is seen half written has two versions
		n++
		w.write("arriving", fmt.Sprint("paper ", n))
		to := filepath.Join(w.dir, fmt.Sprintf("papers/%d/%d.txt", n%3, n))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(w.dir, "arriving"), to); err != nil {
			t.Fatal(err)
		}
	}
	for range 6 {
		for range 25 {
			arrive()
		}
		cmd := exec.CommandContext(w.ctx, w.sluice, "run")
		cmd.Dir, cmd.Env = w.dir, w.env
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		for deadline := time.Now().Add(time.Duration(500+r.IntN(4000)) * time.Millisecond); time.Now().Before(deadline); {
			arrive()
			select {
			case <-ended:
				t.Fatal("sluice ended by itself")
			case <-time.After(100 * time.Millisecond):
			}
		}
		_ = cmd.Process.Kill()
		<-ended
	}
	w.run(0, "run", "--until-caught-up")
	for _, table := range []string{"killed.log", "killed.files"} {
		if out := w.run(0, "inspect", table); !strings.Contains(out, fmt.Sprintf(" %d rows", n)) {
			t.Errorf("want %d rows in %s:\n%s", n, table, out)
		}
	}
	for _, i := range []int{1, 2, 3} {
		if err := os.Remove(filepath.Join(w.dir, fmt.Sprintf("papers/%d/%d.txt", i%3, i))); err != nil {
			t.Fatal(err)
		}
	}
	w.run(0, "run", "--until-caught-up")
	if out := w.run(0, "inspect", "killed.files"); !strings.Contains(out, fmt.Sprintf(" %d rows", n-3)) {
		t.Errorf("want %d rows:\n%s", n-3, out)
	}
	t.Logf("%d files, 6 kills", n)
}
