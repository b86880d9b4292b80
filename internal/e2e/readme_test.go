package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/internal/binary"
	"github.com/sluice-data/sluice/internal/pgserver"
)

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// blocks returns the fenced blocks of a document that are of the given language.
func blocks(t *testing.T, path, language string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
		if m[1] == language {
			found = append(found, m[2])
		}
	}
	return found
}

// documents are all Markdown files for users.
func documents(t *testing.T) []string {
	t.Helper()
	root := binary.Root(t)
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	return append(files, filepath.Join(root, "README.md"))
}

// TestEveryConfigurationInTheDocsIsValid loads each YAML block that is a whole configuration.
func TestEveryConfigurationInTheDocsIsValid(t *testing.T) {
	sluice, n := binary.Build(t), 0
	examples, err := filepath.Glob(filepath.Join(binary.Root(t), "examples", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	check := func(name, text string) {
		n++
		file := filepath.Join(t.TempDir(), "sluice.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(sluice, "validate", "-c", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	for _, doc := range documents(t) {
		for _, text := range blocks(t, doc, "yaml") {
			if strings.HasPrefix(text, "name:") {
				check(filepath.Base(doc), text)
			}
		}
	}
	for _, e := range examples {
		text, err := os.ReadFile(e)
		if err != nil {
			t.Fatal(err)
		}
		check(filepath.Base(e), string(text))
	}
	if n == 0 {
		t.Fatal("no configuration found")
	}
}

// TestTheReadmeRuns does what the README says, with its own configuration.
func TestTheReadmeRuns(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "sluice-readme-")
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
	conn, err := pgx.Connect(ctx, pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, `
CREATE TABLE customers (id bigint PRIMARY KEY, email text NOT NULL, phone text, country text);
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint, status text, total numeric(12,2), created_at timestamptz NOT NULL);
INSERT INTO customers SELECT i, 'canary' || i || '@example.com', '+49 1', 'DE' FROM generate_series(1, 500) i;
INSERT INTO orders SELECT i, 1 + i % 500, 'paid', i * 1.25, '2026-01-01'::timestamptz + i * interval '1 hour' FROM generate_series(1, 3000) i`); err != nil {
		t.Fatal(err)
	}

	root := binary.Root(t)
	work := filepath.Join(dir, "work")
	if err := os.MkdirAll(filepath.Join(work, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("sluice.yaml", blocks(t, filepath.Join(root, "README.md"), "yaml")[0])
	write("keys/email", "0123456789abcdef0123456789abcdef")
	sluice := binary.Build(t)
	command := func(line string) *exec.Cmd {
		line, _, _ = strings.Cut(line, "#")
		cmd := exec.CommandContext(ctx, sluice, strings.Fields(line)[1:]...)
		cmd.Dir, cmd.Env = work, append(os.Environ(), "SHOP_DB_URL="+pg.URL)
		return cmd
	}
	run := func(line string) string {
		t.Helper()
		out, err := command(line).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		return string(out)
	}

	var plain, whileRunning []string
	daemon := ""
	for _, text := range blocks(t, filepath.Join(root, "README.md"), "sh") {
		for line := range strings.Lines(text) {
			switch line = strings.TrimSpace(line); {
			case !strings.HasPrefix(line, "sluice "):
			case strings.Contains(line, "status") || strings.Contains(line, "inspect"):
				whileRunning = append(whileRunning, line)
			case strings.Contains(line, " run ") && !strings.Contains(line, "--until"):
				daemon = line
			default:
				plain = append(plain, line)
			}
		}
	}
	if daemon == "" || len(plain) < 2 || len(whileRunning) < 2 {
		t.Fatal("the README lacks commands")
	}
	for _, line := range plain {
		run(line)
	}
	var log bytes.Buffer
	d := command(daemon)
	d.Stdout, d.Stderr = &log, &log
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Wait() }()
	waitUntil(ctx, t, func() bool {
		out, err := command("sluice status -c sluice.yaml --json").Output()
		return err == nil && streaming(out)
	})
	for _, line := range whileRunning {
		t.Logf("%s\n%s", line, run(line))
	}
	_ = d.Process.Signal(syscall.SIGINT)
	select {
	case err := <-ended:
		if err != nil {
			t.Fatalf("after Ctrl-C: %v\n%s", err, log.String())
		}
	case <-ctx.Done():
		t.Fatalf("Ctrl-C does not end it\n%s", log.String())
	}
	noPlaintext(t, work, "@example.com", log.String())
}

// streaming reports whether every stream has finished its backfill.
func streaming(statusJSON []byte) bool {
	var s struct {
		Result struct {
			Streams []struct {
				State string `json:"state"`
			} `json:"streams"`
		} `json:"result"`
	}
	if json.Unmarshal(statusJSON, &s) != nil || len(s.Result.Streams) < 4 {
		return false
	}
	for _, st := range s.Result.Streams {
		if st.State != "streaming" {
			return false
		}
	}
	return true
}

func waitUntil(ctx context.Context, t *testing.T, ok func() bool) {
	t.Helper()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("out of time")
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// noPlaintext looks for a protected value in every file below dir and in the log.
func noPlaintext(t *testing.T, dir, canary, log string) {
	t.Helper()
	if strings.Contains(log, canary) {
		t.Errorf("the log holds a protected value")
	}
	files := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(canary)) {
			t.Errorf("%s holds a protected value", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 5 {
		t.Fatalf("only %d files below %s", files, dir)
	}
}
