package badinput

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/internal/binary"
	"github.com/sluice-data/sluice/internal/pgserver"
	"github.com/sluice-data/sluice/objects"
)

// What no output may ever hold.
const (
	dsnPassword = "dsn/canary+3f9c" // with signs that an address must escape
	wrongSecret = "s3canary7d21e0wrong"
	hmacKey     = "hmaccanary0123456789abcdef4b77"
	plaintext   = "plaincanary" // begins the protected values
)

// patience is how long a test waits for what must come.
const patience = 90 * time.Second

// world is what all cases share: two database servers, a broker, an object store.
type world struct {
	sluice   string
	pg       *pgserver.Server // of nearly all cases
	fragile  *pgserver.Server // is stopped, and begins with wal_level=replica
	broker   string
	s3       string
	s3Access string
	s3Secret string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "sluice-badinput-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // the servers may run as nobody
		t.Fatal(err)
	}
	bin := os.Getenv("SLUICE_PG_BIN")
	if bin == "" {
		t.Fatal("SLUICE_PG_BIN is not set: eval $(deploy/dev/up.sh)")
	}
	w := &world{sluice: binary.Build(t)}
	w.pg = startPostgres(ctx, t, bin, filepath.Join(dir, "pg"), "max_replication_slots=60", "max_wal_senders=60", "max_connections=200")
	w.fragile = startPostgres(ctx, t, bin, filepath.Join(dir, "fragile"), "wal_level=replica", "max_wal_size=64MB", "min_wal_size=32MB")

	w.broker = w.server(t, "embedded-broker", filepath.Join(dir, "kafka"))
	w.s3 = w.server(t, "embedded-s3", filepath.Join(dir, "s3"))
	text, err := os.ReadFile(filepath.Join(dir, "s3.keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	var keys struct{ Access, Secret string }
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	w.s3Access, w.s3Secret = keys.Access, keys.Secret
	store, err := objects.New(ctx, objects.Config{Endpoint: "http://" + w.s3, Region: "us-east-1", AccessKey: w.s3Access, SecretKey: w.s3Secret, PathStyle: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.EnsureBucket(ctx, "lake"); err != nil {
		t.Fatal(err)
	}
	return w
}

// startPostgres starts a server that wants passwords of everybody but its superuser.
func startPostgres(ctx context.Context, t *testing.T, bin, dir string, settings ...string) *pgserver.Server {
	t.Helper()
	pg, err := pgserver.Start(ctx, bin, dir, settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pg.Stop)
	hba := "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(dir, "data", "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, pg.URL)
	exec1(t, conn, `SELECT pg_reload_conf()`)
	exec1(t, conn, `CREATE ROLE shop LOGIN REPLICATION PASSWORD '`+dsnPassword+`'`)
	exec1(t, conn, `CREATE ROLE reader LOGIN REPLICATION PASSWORD '`+dsnPassword+`'`)
	exec1(t, conn, `CREATE ROLE plain LOGIN PASSWORD '`+dsnPassword+`'`)
	return pg
}

// server starts a hidden embedded server of the binary and returns its address.
func (w *world) server(t *testing.T, command, dir string) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(addr)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(w.sluice, command, "--dir", dir, "--port", port)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	until(t, command+" answers", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return addr
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec1(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(context.Background(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// until polls ok.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("out of time: %s", what)
		}
	}
}

// pipe is one pipeline in a folder of its own, with a database of its own.
type pipe struct {
	t    *testing.T
	w    *world
	name string
	dir  string
	text string            // the configuration
	env  map[string]string // of its processes
	db   *pgx.Conn         // as superuser
	url  string            // of db, as superuser

	cmd     *exec.Cmd
	done    chan struct{} // closed when cmd has ended
	out     *buffer       // what all processes of the pipeline have printed
	log     int           // where the output of the last process begins
	secrets []string
}

const base = `name: NAME
dir: data
kafka: { brokers: ["BROKER"] }
topics: { partitions: 1 }
sources:
  db:
    postgres: { url: "${env:BAD_PG}", slot: bad_NAME, tables: [public.customers, public.orders] }
    protect:
      public.customers:
        - hash: { field: email, method: hmac-sha256, key: "${file:keys/email}" }
sinks:
  lake:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/NAME
      s3: { endpoint: "http://S3", region: us-east-1, path_style: true, access_key: "${env:S3_ACCESS}", secret_key: "${env:S3_SECRET}" }
      commit: { every: 200ms }
    streams:
      - { from: db.public.customers, table: NAME.customers }
      - { from: db.public.orders, table: NAME.orders, mode: append }
`

// rows of each table at the start.
const rows = 50

// pipe makes the folder and the database of the case t, whose name is that of the pipeline.
func (w *world) pipe(t *testing.T, pg *pgserver.Server) *pipe {
	t.Helper()
	return w.pipeNamed(t, pg, t.Name()[strings.LastIndex(t.Name(), "/")+1:])
}

func (w *world) pipeNamed(t *testing.T, pg *pgserver.Server, name string) *pipe {
	t.Helper()
	p := &pipe{t: t, w: w, name: name, dir: t.TempDir()}
	p.text = strings.NewReplacer("NAME", name, "BROKER", w.broker, "http://S3", "http://"+w.s3).Replace(base)
	admin := connect(t, pg.URL)
	exec1(t, admin, `CREATE DATABASE `+name+` OWNER shop`)
	p.url = strings.Replace(pg.URL, "/postgres?", "/"+name+"?", 1)
	p.db = connect(t, p.url)
	exec1(t, p.db, `ALTER SCHEMA public OWNER TO shop; SET ROLE shop;
CREATE TABLE customers (id int PRIMARY KEY, email text NOT NULL, country text);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int, total numeric(12,2));
RESET ROLE`)
	p.insert(1, rows)
	p.env = map[string]string{"BAD_PG": p.as("shop", dsnPassword), "S3_ACCESS": w.s3Access, "S3_SECRET": w.s3Secret}
	p.secrets = []string{dsnPassword, "canary%2B3f9c", "canary+3f9c", wrongSecret, hmacKey, w.s3Secret, plaintext}
	p.write("keys/email", hmacKey)
	p.out = &buffer{}
	t.Cleanup(func() {
		p.kill()
		p.checkSecrets("the output", p.out.text())
		p.checkSecrets("run.json", p.read("data/run.json"))
		if t.Failed() {
			t.Logf("output:\n%s", p.out.text())
		}
	})
	return p
}

// insert adds rows first to last to both tables.
func (p *pipe) insert(first, last int) {
	p.t.Helper()
	exec1(p.t, p.db, fmt.Sprintf(`INSERT INTO customers SELECT i, '%s' || i || '@example.com', 'DE' FROM generate_series(%d, %d) i;
INSERT INTO orders SELECT i, i, i * 1.25 FROM generate_series(%[2]d, %[3]d) i`, plaintext, first, last))
}

// as returns the address of the case's database for a role with a password.
func (p *pipe) as(role, password string) string {
	escaped := strings.NewReplacer("/", "%2F", "+", "%2B").Replace(password)
	return strings.Replace(p.url, "postgres@", role+":"+escaped+"@", 1)
}

// change replaces old, which must be there, in the configuration.
func (p *pipe) change(pairs ...string) {
	p.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(p.text, pairs[i]) {
			p.t.Fatalf("the configuration has no %q", pairs[i])
		}
		p.text = strings.Replace(p.text, pairs[i], pairs[i+1], 1)
	}
}

func (p *pipe) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pipe) read(name string) string {
	text, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		return ""
	}
	return string(text)
}

// buffer keeps what processes print. They write to a pipe: a limit on the
// size of files does not concern it.
type buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (p *pipe) command(args ...string) *exec.Cmd {
	p.t.Helper()
	p.write("sluice.yaml", p.text)
	cmd := exec.Command(p.w.sluice, append(args, "-c", filepath.Join(p.dir, "sluice.yaml"))...)
	cmd.Env = os.Environ()
	for k, v := range p.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

// start runs sluice in the background.
func (p *pipe) start(args ...string) {
	p.t.Helper()
	p.log = len(p.out.text())
	cmd := p.command(append([]string{"run", "--drain", "10s"}, args...)...)
	cmd.Stdout, cmd.Stderr = p.out, p.out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
}

// exit waits for the end of sluice and returns its exit code and what it has printed.
func (p *pipe) exit() (int, string) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatal("sluice does not end")
	}
	code := p.cmd.ProcessState.ExitCode()
	p.cmd = nil
	return code, p.out.text()[p.log:]
}

// run runs sluice until it ends.
func (p *pipe) run(args ...string) (int, string) {
	p.t.Helper()
	p.start(args...)
	return p.exit()
}

// stop ends sluice with SIGTERM.
func (p *pipe) stop() (int, string) {
	p.t.Helper()
	p.checkAnswers()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	return p.exit()
}

func (p *pipe) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(20 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
		p.cmd = nil
	}
}

// fails runs sluice until it ends and wants an exit code and texts.
func (p *pipe) fails(code int, wants ...string) string {
	p.t.Helper()
	got, out := p.run("--until-caught-up")
	if got != code {
		p.t.Errorf("exit code %d, want %d", got, code)
	}
	says(p.t, out, wants...)
	return out
}

// says wants texts in an output, in this order.
func says(t *testing.T, out string, wants ...string) {
	t.Helper()
	plain := strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(out) // of log lines
	for _, want := range wants {
		if !strings.Contains(plain, want) {
			t.Errorf("the output does not say %q", want)
		}
	}
}

// stream is a row of the status.
type stream struct {
	Side, Name, Stream, State, Note      string
	Read, Delivered, Rejected, Duplicate int64
}

// admin and catalog are where the running sluice answers; empty before it does.
func (p *pipe) endpoints() (admin, catalog string) {
	var r struct {
		Processes []struct {
			PID     int    `json:"pid"`
			Admin   string `json:"admin"`
			Catalog string `json:"catalog_uri"`
		} `json:"processes"`
	}
	if json.Unmarshal([]byte(p.read("data/run.json")), &r) != nil || p.cmd == nil {
		return "", ""
	}
	for _, proc := range r.Processes {
		if proc.PID == p.cmd.Process.Pid {
			return "http://" + proc.Admin, proc.Catalog
		}
	}
	return "", ""
}

// status asks the running sluice, by stream and side.
func (p *pipe) status() map[string]stream {
	p.t.Helper()
	admin, _ := p.endpoints()
	text := get(admin + "/status")
	p.checkSecrets("/status", text)
	var s struct {
		Streams []stream `json:"streams"`
	}
	if json.Unmarshal([]byte(text), &s) != nil {
		return nil
	}
	all := map[string]stream{}
	for _, r := range s.Streams {
		all[r.Side+" "+r.Stream] = r
	}
	return all
}

// checkAnswers looks for secrets in everything that a running sluice answers.
func (p *pipe) checkAnswers() {
	p.t.Helper()
	admin, catalog := p.endpoints()
	for _, url := range []string{admin + "/status", admin + "/metrics", admin + "/livez", admin + "/readyz",
		catalog + "/v1/config", catalog + "/v1/namespaces", catalog + "/v1/namespaces/" + p.name + "/tables", catalog + "/v1/namespaces/" + p.name + "/tables/orders"} {
		p.checkSecrets(url, get(url))
	}
	p.checkSecrets("run.json", p.read("data/run.json"))
	if out, err := p.command("status").CombinedOutput(); err != nil || !strings.Contains(string(out), "db.public.orders") {
		p.t.Errorf("status: %v", err)
	} else {
		p.checkSecrets("status", string(out))
	}
}

func get(url string) string {
	resp, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var b strings.Builder
	for r := bufio.NewScanner(resp.Body); r.Scan(); {
		b.WriteString(r.Text() + "\n")
	}
	return b.String()
}

// waitFor polls the status of one stream, as "source db.public.orders".
func (p *pipe) waitFor(name, what string, ok func(s stream) bool) {
	p.t.Helper()
	until(p.t, name+": "+what, func() bool {
		select {
		case <-p.done:
			p.t.Fatalf("sluice ended with %d before %s: %s", p.cmd.ProcessState.ExitCode(), name, what)
		default:
		}
		s, there := p.status()[name]
		return there && ok(s)
	})
}

// noted waits until the note of a stream holds texts.
func (p *pipe) noted(name string, wants ...string) {
	p.t.Helper()
	p.waitFor(name, fmt.Sprintf("a note with %q", wants), func(s stream) bool {
		for _, want := range wants {
			if !strings.Contains(s.Note, want) {
				return false
			}
		}
		return true
	})
}

// delivered waits until both tables have n rows.
func (p *pipe) delivered(n int64) {
	p.t.Helper()
	for _, table := range []string{"customers", "orders"} {
		p.holds(table, n)
	}
}

// holds waits until a table of the lake has n rows, and fails at once above.
func (p *pipe) holds(table string, n int64) {
	p.t.Helper()
	until(p.t, fmt.Sprintf("%d rows in %s", n, table), func() bool {
		got := p.rows(table)
		if got > n {
			p.t.Fatalf("table %s has %d rows, want %d", table, got, n)
		}
		return got == n
	})
}

// rows counts the rows of a table of the lake; -1 if there is none. The
// running sluice tells it as a catalog, else the command inspect.
func (p *pipe) rows(table string) int64 {
	p.t.Helper()
	if _, catalog := p.endpoints(); catalog != "" {
		return rowsOf(get(catalog + "/v1/namespaces/" + p.name + "/tables/" + table))
	}
	out, err := p.command("inspect", p.name+"."+table, "--json").CombinedOutput()
	p.checkSecrets("inspect", string(out))
	var in struct {
		Result struct {
			Rows int64 `json:"rows"`
		} `json:"result"`
	}
	if err != nil || json.Unmarshal(out, &in) != nil {
		return -1
	}
	return in.Result.Rows
}

// rowsOf counts the live rows of a table by the summary of its snapshot.
func rowsOf(loaded string) int64 {
	var l struct {
		Metadata struct {
			Current   int64 `json:"current-snapshot-id"`
			Snapshots []struct {
				ID      int64             `json:"snapshot-id"`
				Summary map[string]string `json:"summary"`
			} `json:"snapshots"`
		} `json:"metadata"`
	}
	if json.Unmarshal([]byte(loaded), &l) != nil {
		return -1
	}
	for _, s := range l.Metadata.Snapshots {
		if s.ID == l.Metadata.Current {
			all, _ := strconv.ParseInt(s.Summary["total-records"], 10, 64)
			gone, _ := strconv.ParseInt(s.Summary["total-position-deletes"], 10, 64)
			return all - gone
		}
	}
	return -1
}

// checkSecrets looks for what no output may hold. Invariant 7.
func (p *pipe) checkSecrets(where, text string) {
	p.t.Helper()
	for i, s := range p.secrets {
		if strings.Contains(text, s) {
			p.t.Errorf("%s holds secret %d", where, i)
		}
	}
}
