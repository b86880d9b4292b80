// Package binary builds the sluice binary for tests that run it as a process.
package binary

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

var (
	mu    sync.Mutex
	built = map[string]string{}
)

// Folder is the environment variable of a folder with binaries that were just
// built from this tree, as deploy/dev/gotest.sh does: linking one takes longer
// than most tests. Each lies in a folder named after its tags.
const Folder = "SLUICE_BINARIES"

// Build returns the path of a binary built from this tree with the given
// build tags, once per process and tags. It fails t if the build does.
func Build(t testing.TB, tags ...string) string {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	key := strings.Join(tags, ",")
	if path, ok := built[key]; ok {
		return path
	}
	if folder := os.Getenv(Folder); folder != "" {
		path := filepath.Join(folder, "tags-"+key, "sluice")
		if _, err := os.Stat(path); err == nil {
			built[key] = path
			return path
		}
	}
	dir, err := os.MkdirTemp("", "sluice-binary-")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "sluice")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-tags", key, "-o", path, "./cmd/sluice")
	cmd.Dir = Root(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build sluice: %v\n%s", err, out)
	}
	built[key] = path
	return path
}

// Root returns the folder of the module.
func Root(t testing.TB) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("the place of the source is not known")
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}
