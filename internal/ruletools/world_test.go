package ruletools

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/internal/binary"
	"github.com/sluice-data/sluice/internal/pgserver"
)

// patience is how long something may take that comes.
const patience = 90 * time.Second

// world is a database, a folder and the binary.
type world struct {
	t      *testing.T
	dir    string
	binary string
	db     *pgx.Conn
	env    []string
}

func newWorld(t *testing.T, file string) *world {
	t.Helper()
	bin := os.Getenv("SLUICE_PG_BIN")
	if bin == "" {
		t.Fatal("SLUICE_PG_BIN is not set; SLUICE_PG_BIN=$(deploy/dev/postgres.sh)")
	}
	home, err := os.MkdirTemp("", "sluice-ruletools-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	if err := os.Chmod(home, 0o755); err != nil {
		t.Fatal(err)
	}
	pg, err := pgserver.Start(t.Context(), bin, filepath.Join(home, "pg"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pg.Stop)
	db, err := pgx.Connect(t.Context(), pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	w := &world{t: t, dir: filepath.Join(home, "pipeline"), binary: binary.Build(t), db: db,
		env: append(os.Environ(), "SHOP_DB_URL="+pg.URL, "LC_ALL=C.UTF-8")}
	w.write(file)
	return w
}

func (w *world) write(file string) {
	w.t.Helper()
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "sluice.yaml"), []byte(file), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) sql(text string) {
	w.t.Helper()
	if _, err := w.db.Exec(w.t.Context(), text); err != nil {
		w.t.Fatal(err)
	}
}

// sluice runs a command to its end.
func (w *world) sluice(stdin string, args ...string) (code int, stdout, stderr string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.binary, args...)
	cmd.Dir, cmd.Env, cmd.Stdin = w.dir, w.env, strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("sluice %q: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// must runs a command that ends with code and says all of wants.
func (w *world) must(code int, args []string, wants ...string) string {
	w.t.Helper()
	got, out, errs := w.sluice("", args...)
	if got != code {
		w.t.Fatalf("sluice %q: exit code %d, want %d\n%s%s", args, got, code, out, errs)
	}
	for _, want := range wants {
		if !strings.Contains(out+errs, want) {
			w.t.Errorf("sluice %q does not say %q:\n%s%s", args, want, out, errs)
		}
	}
	return out
}

// result runs a command with --json and reads its result.
func (w *world) result(into any, args ...string) {
	w.t.Helper()
	_, out, errs := w.sluice("", append(args, "--json")...)
	e := struct{ Result any }{into}
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		w.t.Fatalf("sluice %q --json: %v\n%s%s", args, err, out, errs)
	}
}

// start runs the pipeline in the background; stop ends it and returns its log.
func (w *world) start() (stop func() string) {
	w.t.Helper()
	cmd := exec.Command(w.binary, "run")
	cmd.Dir, cmd.Env = w.dir, w.env
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := false
	stop = func() string {
		if !ended {
			ended = true
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		}
		return log.String()
	}
	w.t.Cleanup(func() { stop() })
	return stop
}

type row struct {
	Side, Stream, State, Note string
	Read, Delivered           int64
}

type state struct {
	Processes []struct {
		Endpoints struct{ Admin, Kafka string }
	}
	Streams []row
}

// until waits for a state of the running pipeline.
func (w *world) until(what string, is func(s state) bool) state {
	w.t.Helper()
	var s state
	for end := time.Now().Add(patience); ; {
		s = state{}
		if _, out, _ := w.sluice("", "status", "--json"); out != "" {
			_ = json.Unmarshal([]byte(out), &struct{ Result *state }{&s}) // not yet there
		}
		if is(s) {
			return s
		}
		if time.Now().After(end) {
			w.t.Fatalf("%s does not come: %+v", what, s)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s state) find(side, stream string) row {
	for _, r := range s.Streams {
		if r.Side == side && r.Stream == stream {
			return r
		}
	}
	return row{}
}

// topic returns n values of a topic, or what there is of it in a while for n = 0.
func (w *world) topic(kafka, name string, n int) []string {
	w.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(kafka), kgo.ConsumeTopics(name), kgo.DisableClientMetrics())
	if err != nil {
		w.t.Fatal(err)
	}
	defer cl.Close()
	wait := patience
	if n == 0 {
		wait = 2 * time.Second
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), wait)
	defer cancel()
	var values []string
	for len(values) < n || n == 0 {
		fetches := cl.PollFetches(ctx)
		fetches.EachRecord(func(r *kgo.Record) {
			if strings.Contains(string(r.Value), `"after":{`) {
				values = append(values, string(r.Value))
			}
		})
		if ctx.Err() != nil {
			break
		}
	}
	if len(values) < n {
		w.t.Fatalf("topic %s has %d rows, want %d", name, len(values), n)
	}
	return values
}

// vault is a transit engine with one key that can be away.
type vault struct {
	away atomic.Bool
}

func startVault(t *testing.T) (*vault, string) {
	v := &vault{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var ask map[string]any
		switch {
		case v.away.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"errors":["Vault is sealed"]}`))
		case r.Header.Get("X-Vault-Token") != "token" || json.NewDecoder(r.Body).Decode(&ask) != nil:
			w.WriteHeader(http.StatusForbidden)
		case strings.HasSuffix(r.URL.Path, "/transit/datakey/plaintext/k"):
			key := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
			_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"plaintext": key, "ciphertext": "vault:v1:wrapped"}})
		case strings.HasSuffix(r.URL.Path, "/transit/decrypt/k") && ask["ciphertext"] == "vault:v1:wrapped":
			key := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
			_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"plaintext": key}})
		default:
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(server.Close)
	return v, server.URL
}
