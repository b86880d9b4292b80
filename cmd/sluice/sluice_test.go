package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/sluice-data/sluice/progress"
)

// mainEnv makes the test binary be sluice: children are processes of the same binary.
const mainEnv = "SLUICE_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		main()
	}
	os.Exit(m.Run())
}

const example = `name: shop
kafka: { embedded: true }
sources:
  shop-db:
    postgres: { url: "${env:SLUICE_TEST_URL}", tables: [public.customers, public.orders] }
    new_columns: pass
    protect:
      public.customers:
        - hash: { field: email, method: hmac-sha256, key: "${file:keys/email}" }
        - drop: { fields: [phone] }
sinks:
  lake:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/shop
      s3: { embedded: true }
      commit: { every: 10s, bytes: 64MiB }
    streams:
      - { from: shop-db.public.orders, table: shop.orders, mode: upsert, partition_by: ["day(created_at)"], sort_by: [id] }
      - { from: shop-db.public.customers, table: shop.customers, shape: [ { drop: { fields: [notes] } } ] }
`

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func run(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = execute(args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	good := writeFile(t, filepath.Join(dir, "sluice.yaml"), example)
	bad := writeFile(t, filepath.Join(dir, "bad.yaml"), strings.Replace(example, "kafka:", "kakfa:", 1))
	where := writeFile(t, filepath.Join(dir, "where.yaml"), strings.Replace(example, "[ { drop: { fields: [notes] } } ]", "[ { filter: { where: \"a =\" } } ]", 1))
	table := writeFile(t, filepath.Join(dir, "table.yaml"), strings.Replace(example, "public.orders]", "orders]", 1))
	quotes := writeFile(t, filepath.Join(dir, "quotes.yaml"), strings.Replace(example, "table: shop.orders", `table: 'shop."or.ders"'`, 1))
	control := writeFile(t, filepath.Join(dir, "control.yaml"), strings.Replace(example, "table: shop.orders", `table: "shop.orders\n"`, 1))
	for _, c := range []struct {
		args string
		code int
		out  string
		err  string
	}{
		{"validate -c " + good, exitOK, "is valid: 1 source with 2 streams, 1 of them protected; 1 sink", ""},
		{"validate -c " + bad, exitInvalid, "", `did you mean "kafka"?`},
		{"validate -c " + where, exitInvalid, "", "sinks.lake.streams[1].shape[0].filter.where"},
		{"validate -c " + table, exitInvalid, "", `did you mean "public.orders"?`},
		{"validate -c " + dir + "/none.yaml", exitInvalid, "", "no configuration file"},
		{"validate --colour", exitInvalid, "", "sluice validate --help says more"},
		{"validate surplus", exitInvalid, "", "sluice validate --help"},
		{"frobnicate", exitInvalid, "", "unknown command"},
		{"run --only nobody -c " + good, exitInvalid, "", "there are shop-db, lake"},
		{"run -c " + good, exitEnvironment, "", "sources.shop-db.postgres.url: ${env:SLUICE_TEST_URL}: the environment variable is not set"},
		{"status -c " + good, exitOK, "shop is not running", ""},
		{"version", exitOK, "sluice ", ""},
		{"schema", exitOK, "draft/2020-12", ""},
		{"run --log-level loud -c " + good, exitInvalid, "", "--log-level"},
		{"inspect", exitInvalid, "", "accepts 1 arg"},
		{"dlq", exitInvalid, "", "there are drop, ls, retry, show"},
		{"dlq lst", exitInvalid, "", "unknown command"},
		{"keys rotat x", exitInvalid, "", "unknown command"},
		{"validate -c " + quotes, exitInvalid, "", `streams[0].table: want namespace.table`},
		{"validate -c " + control, exitInvalid, "", `streams[0].table: want namespace.table`},
	} {
		if strings.Contains(c.args, "loud") {
			t.Setenv("SLUICE_TEST_URL", "postgres://u:hunter2@127.0.0.1:1/x")
			writeFile(t, filepath.Join(dir, "keys", "email"), "0123456789abcdef")
		}
		code, out, errs := run(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.err) || strings.Contains(out+errs, "hunter2") {
			t.Errorf("sluice %s: exit %d, want %d\n%s%s", c.args, code, c.code, out, errs)
		}
		code, out, errs = run(append(strings.Fields(c.args), "--json")...)
		var e envelope
		if err := json.Unmarshal([]byte(out), &e); code != c.code || err != nil || e.OK != (c.code == exitOK) || (e.Error == nil) != e.OK {
			t.Errorf("sluice %s --json: exit %d, %v\n%s%s", c.args, code, err, out, errs)
		}
	}
}

var fence = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")

// TestExamples loads every whole configuration in the tree, and holds it
// against the JSON Schema.
func TestExamples(t *testing.T) {
	configs := map[string]string{"example": example}
	for _, pattern := range []string{"../../README.md", "../../docs/*.md", "../../examples/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for i, m := range fence.FindAllSubmatch(text, -1) {
				if strings.HasPrefix(string(m[1]), "name:") {
					configs[fmt.Sprintf("%s#%d", file, i)] = string(m[1])
				}
			}
		}
	}
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		configs[file] = string(text)
	}
	schema := compiledSchema(t)
	for name, text := range configs {
		f, err := registry().Parse(filepath.Base(name), []byte(text))
		if err == nil {
			err = checkAll(f)
		}
		if err != nil {
			t.Errorf("%s:\n%v", name, err)
			continue
		}
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s against the schema: %v", name, err)
		}
	}
}

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := registry().JSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("sluice.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("sluice.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRedaction(t *testing.T) {
	var out bytes.Buffer
	a := &app{logLevel: "debug", logFormat: "json"}
	log, err := a.logger(&out, []string{"postgres://u:hunter2@h/db", "hunter2", "x"})
	if err != nil {
		t.Fatal(err)
	}
	log.With("url", "postgres://u:hunter2@h/db").WithGroup("g").Info("login with hunter2",
		"error", fmt.Errorf("dial: %w", errors.New("hunter2 refused")), "group", slog.GroupValue(slog.String("p", "hunter2")), "n", 7)
	if s := out.String(); strings.Contains(s, "hunter2") || !strings.Contains(s, "[secret]") || !strings.Contains(s, `"n":7`) {
		t.Error(s)
	}
}

func testBoard() *progress.Board {
	b := &progress.Board{}
	s := b.Stream(progress.Source, "shop-db", "shop-db.public.orders")
	s.Set(progress.Backfilling, "")
	s.Read.Store(50_000)
	s.Total.Store(120_000)
	s.Delivered.Store(50_000)
	p := b.Stream(progress.Source, "shop-db", "shop-db.public.customers")
	p.Set(progress.Parked, "protect: key file keys/email unreadable (permission denied)")
	k := b.Stream(progress.Sink, "lake", "shop-db.public.orders")
	k.Set(progress.Streaming, "")
	k.Delivered.Store(81_204_090)
	k.BehindMicros.Store(4_000_000)
	k.Committed("7741234567890", time.Now().Add(-3*time.Second))
	return b
}

func TestStatusText(t *testing.T) {
	t.Setenv("LC_ALL", "C.UTF-8")
	now := time.Now()
	s := status{Name: "shop", Running: true, Streams: testBoard().Rows(now),
		Processes: []report{{State: "running", PID: 42, Since: now.Add(-76 * time.Hour), Endpoints: endpoints{Admin: "127.0.0.1:1"}}}}
	got := s.text(now)
	for _, want := range []string{"shop   running 3 d 4 h · 3 streams · 1 parked\n", "permission denied", "81,204,090", "snapshot 774123…, 3.0 s ago",
		"process 42: admin http://127.0.0.1:1"} {
		if !strings.Contains(got, want) {
			t.Errorf("misses %q:\n%s", want, got)
		}
	}
	t.Setenv("LC_ALL", "C")
	for _, r := range s.text(now) {
		if r > 127 {
			t.Fatalf("%q is not ASCII", r)
		}
	}
}

func TestScreen(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out, last: map[string]seen{}, live: true, plain: true}
	b := testBoard()
	s.draw(b.Rows(time.Now()), time.Now())
	if s.lines != 3 || !strings.Contains(out.String(), "41 %") {
		t.Errorf("%d lines:\n%s", s.lines, out.String())
	}
	if _, err := s.Write([]byte("a log line\n")); err != nil || s.lines != 0 {
		t.Errorf("the block stays under a log line: %v", err)
	}
	if !strings.Contains(out.String(), "\x1b[3A\x1b[Ja log line\n") {
		t.Errorf("%q", out.String())
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestAdmin(t *testing.T) {
	b := testBoard()
	orders := b.Stream(progress.Sink, "lake", "shop-db.public.orders")
	orders.Refused("missing_key", 3)
	orders.Freshness.Observe(2)
	orders.CommitTime.Observe(0.2)
	orders.Conflicts.Add(2)
	a, err := startAdmin("127.0.0.1:0", func() report { return report{Name: "shop", Streams: b.Rows(time.Now())} }, b)
	if err != nil {
		t.Fatal(err)
	}
	defer a.stop()
	base := "http://" + a.addr
	if code, _ := get(t, base+"/livez"); code != 200 {
		t.Error("livez", code)
	}
	if code, _ := get(t, base+"/readyz"); code != 503 {
		t.Error("readyz before ready", code)
	}
	a.ready.Store(true)
	if code, _ := get(t, base+"/readyz"); code != 200 {
		t.Error("readyz", code)
	}
	if _, body := get(t, base+"/status"); !strings.Contains(body, `"stream":"shop-db.public.orders"`) {
		t.Error(body)
	}
	_, body := get(t, base+"/metrics")
	for _, want := range []string{`sluice_records_read_total{stream="shop-db.public.orders"} 50000`, "sluice_protect_blocked_streams 1",
		`sluice_records_delivered_total{sink="lake",stream="shop-db.public.orders"} 8.120409e+07`,
		`sluice_sink_lag_seconds{sink="lake",stream="shop-db.public.orders"} 4`, "sluice_build_info{",
		`sluice_records_rejected_total{reason="missing_key",sink="lake",stream="shop-db.public.orders"} 3`,
		`sluice_e2e_freshness_seconds_bucket{sink="lake",stream="shop-db.public.orders",le="2.5"} 1`,
		`sluice_iceberg_commit_duration_seconds_count{sink="lake",stream="shop-db.public.orders"} 1`,
		`sluice_iceberg_commit_conflicts_total{sink="lake",stream="shop-db.public.orders"} 2`} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics miss %s:\n%s", want, body)
		}
	}
	// Who changes something must say so in a way that no web page can.
	for _, c := range []struct {
		control bool
		header  string
		code    int
	}{{false, "1", 503}, {true, "", 403}, {true, "1", 200}} {
		if c.control {
			a.control.Store(newControl(t.TempDir(), b, slog.New(slog.DiscardHandler)))
		}
		req, _ := http.NewRequest(http.MethodPost, base+"/control/pause?stream=shop-db.public.orders", nil)
		if c.header != "" {
			req.Header.Set(controlHeader, c.header)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.code {
			t.Errorf("%+v: %s", c, resp.Status)
		}
	}
	req, _ := http.NewRequest(http.MethodGet, base+"/status", nil)
	req.Host = "evil.example"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Error("a foreign host name is served")
	}
	if _, err := startAdmin("0.0.0.0:0", nil, b); exitCode(err) != exitEnvironment {
		t.Error("listens beyond the loopback", err)
	}
}

func TestRunFile(t *testing.T) {
	dir := t.TempDir()
	me := process{PID: os.Getpid(), Started: startTime(os.Getpid()), Roles: []string{"shop-db", "lake"}}
	if me.Started == "" || startTime(1<<30) != "" {
		t.Fatal("start times are not known here")
	}
	mark, err := enter(dir, me)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enter(dir, process{PID: 1, Roles: []string{"lake"}}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("lake runs already in process %d", os.Getpid())) {
		t.Errorf("a role runs twice: %v", err)
	}
	other, err := enter(dir, process{PID: os.Getpid(), Started: me.Started, Roles: []string{"crm"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := mark.update(func(_ *runFile, p *process) { p.Catalog = "http://x" }); err != nil {
		t.Fatal(err)
	}
	r, err := readRun(dir)
	if err != nil || len(r.Processes) != 2 || r.Processes[0].Catalog != "http://x" {
		t.Fatalf("%+v %v", r, err)
	}
	ended := 0
	for _, m := range []*presence{other, mark} {
		if err := m.leave(func(*runFile) { ended++ }); err != nil {
			t.Fatal(err)
		}
	}
	if ended != 1 {
		t.Errorf("the children were ended %d times", ended)
	}
	if again, err := enter(dir, me); err != nil {
		t.Error("the locks stay:", err)
	} else {
		again.release()
	}
	// Somebody who is dead does not run.
	err = editRun(dir, func(r *runFile) error {
		r.Processes = append(r.Processes, process{PID: os.Getpid(), Started: "1"}, process{PID: 1 << 30, Started: "1"})
		return nil
	})
	if r, err2 := readRun(dir); err != nil || err2 != nil || len(r.Processes) != 1 && me.Started != "" && hasDead(r) {
		t.Errorf("%+v %v %v", r, err, err2)
	}
	writeFile(t, filepath.Join(dir, "run.json"), "{")
	if _, err := readRun(dir); err == nil {
		t.Error("a broken run.json is taken")
	}
}

func hasDead(r *runFile) bool {
	for _, p := range r.Processes {
		if p.Started == "1" {
			return true
		}
	}
	return false
}

// TestChildren starts, adopts, loses and ends the embedded S3.
func TestChildren(t *testing.T) {
	t.Setenv(mainEnv, "1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := &children{dir: t.TempDir(), log: slog.New(slog.DiscardHandler)}
	t.Cleanup(func() {
		_ = editRun(c.dir, func(r *runFile) error { c.endAll(r); return nil })
	})
	now := func() *child {
		r, err := readRun(c.dir)
		if err != nil {
			t.Fatal(err)
		}
		return r.Children["s3"]
	}
	addr, err := c.ensure(ctx, s3Child)
	if err != nil {
		t.Fatal(err)
	}
	first := *now()
	if info, err := os.Stat(filepath.Join(c.dir, "s3.keys.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("keys: %v %v", info, err)
	}
	// The next sluice, with the first one killed or not, goes on with it.
	if again, err := c.ensure(ctx, s3Child); err != nil || again != addr || now().PID != first.PID {
		t.Fatalf("not adopted: %s %v", again, err)
	}
	// A child that died comes back on its port.
	watching, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- c.watch(watching, s3Child) }()
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for now().PID == first.PID {
		if ctx.Err() != nil {
			t.Fatal("the child does not come back")
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if second := now(); second.Port != first.Port || !alive(second.PID, second.Started) {
		t.Fatalf("%+v after %+v", second, first)
	}
	if err := editRun(c.dir, func(r *runFile) error { c.endAll(r); return nil }); err != nil {
		t.Fatal(err)
	}
	if ch := now(); ch.PID != 0 || ch.Port != first.Port || s3Answers(ctx, addr) == nil {
		t.Fatalf("after the end: %+v", ch)
	}
}

func TestText(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -81204113: "-81,204,113"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) = %s", n, got)
		}
	}
	for d, want := range map[time.Duration]string{400 * time.Millisecond: "0.4 s", 12 * time.Minute: "12 min", 76 * time.Hour: "3 d 4 h", -1: "0 s"} {
		if got := lasting(d); got != want {
			t.Errorf("lasting(%s) = %s", d, got)
		}
	}
	if got := databaseOf("postgres://u@h:1/shop?sslmode=disable"); got != "shop" {
		t.Error(got)
	}
	if got := databaseOf("host=h dbname=shop"); got != "shop" {
		t.Error(got)
	}
}
