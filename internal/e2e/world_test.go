package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/internal/binary"
	"github.com/sluice-data/sluice/internal/pgserver"
)

// world is a Postgres of its own, a folder and the built binary.
type world struct {
	t      *testing.T
	ctx    context.Context
	dir    string // where commands run
	url    string
	sluice string
	env    []string
}

// newWorld starts a Postgres, runs sql in it and writes the configuration.
func newWorld(t *testing.T, configuration, sql string) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	dir, err := os.MkdirTemp("", "sluice-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	bin := os.Getenv("SLUICE_PG_BIN")
	if bin == "" {
		t.Fatal("SLUICE_PG_BIN is not set: eval $(deploy/dev/up.sh)")
	}
	pg, err := pgserver.Start(ctx, bin, filepath.Join(dir, "pg"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pg.Stop)
	w := &world{t: t, ctx: ctx, dir: filepath.Join(dir, "work"), url: pg.URL, sluice: binary.Build(t), env: append(os.Environ(), "SHOP_DB_URL="+pg.URL)}
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w.write("sluice.yaml", configuration)
	w.exec(sql)
	return w
}

func (w *world) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) exec(sql string) {
	w.t.Helper()
	conn, err := pgx.Connect(w.ctx, w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close(w.ctx)
	if _, err := conn.Exec(w.ctx, sql); err != nil {
		w.t.Fatal(err)
	}
}

// run runs one command; its exit code must be the wanted one. It returns what
// the command has printed.
func (w *world) run(want int, args ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.ctx, w.sluice, args...)
	cmd.Dir, cmd.Env = w.dir, w.env
	out, err := cmd.CombinedOutput()
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		w.t.Fatal(err)
	}
	if code != want {
		w.t.Fatalf("sluice %v ends with %d, want %d\n%s", args, code, want, out)
	}
	return string(out)
}
