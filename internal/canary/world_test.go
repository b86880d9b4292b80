package canary

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/activation/destinationtest"
	"github.com/sluice-data/sluice/internal/binary"
	"github.com/sluice-data/sluice/internal/pgserver"
	"github.com/sluice-data/sluice/vector/embedtest"
)

// patience is how long something may take that comes.
const patience = 90 * time.Second

// world is a database with planted values, the pipeline's folder, and what
// stands in for the services that the pipeline sends to.
type world struct {
	t      *testing.T
	plant  *planter
	dir    string // of the pipeline: everything below it is looked through
	keys   string // beside it
	sluice string
	source *pgx.Conn
	rag    *pgx.Conn
	env    []string
	vendor *recorder
	model  *recorder
	texts  *embedtest.Server
	sim    *url.URL
	spoken int // outputs of commands so far
}

// recorder passes requests on to a service and keeps every byte of them.
type recorder struct {
	mu   sync.Mutex
	seen bytes.Buffer
	url  string
}

func record(t *testing.T, to *url.URL) *recorder {
	r := &recorder{}
	proxy := httputil.NewSingleHostReverseProxy(to)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return // the client was killed
		}
		r.mu.Lock()
		header := q.Header.Clone()
		header.Del("Authorization") // the service's own key belongs there
		fmt.Fprintln(&r.seen, q.Method, q.URL, header)
		r.seen.Write(append(body, '\n'))
		r.mu.Unlock()
		q.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, q)
	}))
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *recorder) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.seen.Bytes())
}

func newWorld(t *testing.T) *world {
	t.Helper()
	bin := os.Getenv("SLUICE_PG_BIN")
	if bin == "" {
		t.Fatal("SLUICE_PG_BIN is not set; SLUICE_PG_BIN=$(deploy/dev/postgres.sh)")
	}
	home, err := os.MkdirTemp("", "sluice-canary-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	if err := os.Chmod(home, 0o755); err != nil { // the database runs as somebody else
		t.Fatal(err)
	}
	pg, err := pgserver.Start(t.Context(), bin, filepath.Join(home, "pg"), "fsync=off")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pg.Stop)
	w := &world{t: t, dir: filepath.Join(home, "pipeline"), keys: filepath.Join(home, "keys"), sluice: binary.Build(t),
		plant: &planter{random: mathrand.New(mathrand.NewPCG(uint64(time.Now().UnixNano()), 1)), scan: NewScanner()}}
	w.source = w.connect(pg.URL)
	w.sql("CREATE DATABASE rag")
	rag := strings.Replace(pg.URL, "/postgres?", "/rag?", 1)
	w.rag = w.connect(rag)
	w.texts = embedtest.Start(embedtest.Options{Dims: 64, KeepTexts: true})
	t.Cleanup(w.texts.Close)
	to, err := url.Parse(w.texts.URL)
	if err != nil {
		t.Fatal(err)
	}
	w.model = record(t, to)
	temp := filepath.Join(w.dir, "tmp") // what a killed process leaves there is looked through too
	for _, dir := range []string{w.keys, temp, filepath.Join(w.dir, "said")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.makeKeys()
	w.env = append(os.Environ(), "SHOP_DB_URL="+pg.URL, "RAG_DB_URL="+rag, "CRM_TOKEN="+destinationtest.Token, "TMPDIR="+temp,
		"MODEL_KEY="+w.plant.word("the key of the model"), "SHORT_KEY="+w.plant.word("a key that is too short"))
	w.simulate()
	return w
}

func (w *world) connect(address string) *pgx.Conn {
	w.t.Helper()
	c, err := pgx.Connect(w.t.Context(), address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func (w *world) sql(text string) {
	w.t.Helper()
	if _, err := w.source.Exec(w.t.Context(), text); err != nil {
		w.t.Fatal(err)
	}
}

// makeKeys writes keys beside the pipeline's folder; they are planted, too.
func (w *world) makeKeys() {
	w.t.Helper()
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(w.keys, name), b, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	for name, n := range map[string]int{"hmac": 32, "aes": 32, "siv": 64, "cbc": 16} {
		b := make([]byte, n)
		for i := range b {
			b[i] = letters[w.plant.random.IntN(len(letters))]
		}
		w.plant.scan.Plant("the key "+name, string(b[:14]))
		w.plant.scan.Plant("the key "+name, string(b[n-12:]))
		write(name, b)
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		w.t.Fatal(err)
	}
	write("public.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// simulate runs "sluice simulate hubspot" with faults.
func (w *world) simulate() {
	w.t.Helper()
	cmd := exec.Command(w.sluice, "simulate", "hubspot", "--json", "--faults", "broken=0.05,seed=7")
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var up struct{ Result struct{ URL string } }
	if err := json.NewDecoder(out).Decode(&up); err != nil {
		w.t.Fatal(err)
	}
	if w.sim, err = url.Parse(up.Result.URL); err != nil {
		w.t.Fatal(err)
	}
	w.vendor = record(w.t, w.sim)
}

// file returns the configuration; without names a rule that is left out.
func (w *world) file(without string) string {
	var protect, sink, docs, crm, tags strings.Builder
	var names []string
	for _, t := range tables {
		names = append(names, "public."+t.name)
		fmt.Fprintf(&tags, "      public.%s: { vat: [pii], passport: [pii] }\n", t.name)
		fmt.Fprintf(&protect, "      public.%s:\n", t.name)
		rules := append([]string{t.rule, `hash: { field: level, method: sha256 }`, `hash: { field: "*secret*", method: sha256 }`}, t.more...)
		for _, f := range fields {
			if f.name != without {
				rules = append(rules, f.rules...)
			}
		}
		for _, r := range rules {
			fmt.Fprintf(&protect, "        - %s\n", strings.ReplaceAll(r, "%K", w.keys))
		}
		mode := "upsert"
		if t.key == "" {
			mode = "append"
		}
		fmt.Fprintf(&sink, "      - { from: db.public.%[1]s, table: shop.%[1]s, mode: %[2]s }\n", t.name, mode)
		if t.key != "" {
			fmt.Fprintf(&docs, "      - { from: db.public.%s, document: { title: name, text: [email, note, mobile, iban, code, stage, nick, phones, profile, dossier], metadata: [stage, email, card, salary], acl: readers } }\n", t.name)
		}
	}
	fmt.Fprintf(&crm, "      - { from: db.public.people, object: contacts, match: crm_id, operation: mirror, fields: { crm_id: id, firstname: name, lastname: note, email_hash: email, phone: mobile, company: sealed, city: iban, country: nick, note: code, lifecyclestage: stage } }\n")
	return fmt.Sprintf(`name: shop
dir: data
kafka: { embedded: true }
topics: { partitions: 2 }
sources:
  db:
    postgres: { url: "${env:SHOP_DB_URL}", tables: [%s] }
    tags:
%s    protect:
%ssinks:
  lake:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/shop
      s3: { embedded: true }
      commit: { every: 300ms }
    streams:
%s  docs:
    pgvector: { url: "${env:RAG_DB_URL}", commit: { every: 300ms }, embed: { provider: openai, url: "%s/v1", key: "${env:MODEL_KEY}", model: m, dimensions: 64 } }
    streams:
%s  crm:
    hubspot: { url: "%s", allow_private: true, auth: { token: "${env:CRM_TOKEN}" }, commit: { every: 300ms } }
    streams:
%s`, strings.Join(names, ", "), tags.String(), protect.String(), sink.String(), w.model.url, docs.String(), w.vendor.url, crm.String())
}

func (w *world) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// said keeps what a command or the admin port has said below the folder.
func (w *world) said(what string, text []byte) {
	w.t.Helper()
	w.spoken++
	w.write(filepath.Join("said", fmt.Sprintf("%03d", w.spoken)), what+"\n"+string(text))
}

// run runs a command and keeps what it says; the exit code must be code, any if below 0.
func (w *world) run(code int, args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.sluice, args...)
	cmd.Dir, cmd.Env = w.dir, w.env
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("sluice %q: %v", args, err)
	}
	w.said(fmt.Sprint(args), out)
	if got := cmd.ProcessState.ExitCode(); code >= 0 && got != code {
		w.t.Fatalf("sluice %q ends with %d, want %d\n%s", args, got, code, out)
	}
	return string(out)
}

// start runs the pipeline in the background, with its log below the folder;
// end sends it a signal and waits.
func (w *world) start() (end func(syscall.Signal)) {
	w.t.Helper()
	w.spoken++
	log, err := os.Create(filepath.Join(w.dir, "said", fmt.Sprintf("%03d-log", w.spoken)))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(w.sluice, "run", "--log-level", "debug")
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = w.dir, w.env, log, log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := false
	end = func(s syscall.Signal) {
		if !ended {
			ended = true
			_ = cmd.Process.Signal(s)
			_ = cmd.Wait()
		}
	}
	w.t.Cleanup(func() { end(syscall.SIGKILL) })
	return end
}

// row is one stream in the answer of the admin port.
type row struct {
	Side, Name, Stream, State, Note string
	Read, Delivered, Rejected       int64
}

// until waits for a state of the running pipeline and keeps the admin port's answers.
func (w *world) until(what string, is func(rows []row) bool) {
	w.t.Helper()
	var rows []row
	for end := time.Now().Add(patience); ; {
		var admin string
		if admin, rows = w.status(); admin != "" && is(rows) {
			for _, path := range []string{"/status", "/metrics", "/readyz", "/livez", "/nothing"} {
				if text, err := get("http://" + admin + path); err == nil {
					w.said(path, text)
				}
			}
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%s does not come: %+v", what, rows)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// status asks the running process, which run.json names.
func (w *world) status() (admin string, rows []row) {
	var file struct{ Processes []struct{ Admin string } }
	text, err := os.ReadFile(filepath.Join(w.dir, "data", "run.json"))
	if err != nil || json.Unmarshal(text, &file) != nil || len(file.Processes) == 0 {
		return "", nil
	}
	admin = file.Processes[len(file.Processes)-1].Admin
	var answer struct{ Streams []row }
	if text, err = get("http://" + admin + "/status"); err != nil || json.Unmarshal(text, &answer) != nil {
		return "", nil
	}
	return admin, answer.Streams
}

func get(address string) ([]byte, error) {
	resp, err := http.Get(address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return io.ReadAll(resp.Body)
}

// delivered returns how many rows a sink has delivered.
func delivered(rows []row, sink string) (n int64) {
	for _, r := range rows {
		if r.Side == "sink" && r.Name == sink {
			n += r.Delivered
		}
	}
	return n
}

// vectors returns every row of the database of documents as text.
func (w *world) vectors() []byte {
	w.t.Helper()
	ctx := w.t.Context()
	query := func(text string) []string {
		rows, err := w.rag.Query(ctx, text)
		if err != nil {
			w.t.Fatal(err)
		}
		out, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			w.t.Fatalf("%s: %v", text, err)
		}
		return out
	}
	var out bytes.Buffer
	for _, name := range query(`SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'm') AND n.nspname <> 'information_schema'`) {
		fmt.Fprintln(&out, name)
		for _, r := range query("SELECT t::text FROM " + name + " t") {
			fmt.Fprintln(&out, r)
		}
	}
	return out.Bytes()
}

// simulator returns what the simulator holds and has seen.
func (w *world) simulator() []byte {
	w.t.Helper()
	var out []byte
	for _, path := range []string{"records/contacts", "journal", "calls"} {
		text, err := get(w.sim.String() + "/_simulator/" + path)
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, text...)
	}
	return out
}

// scan looks through everything that the pipeline has left and sent.
func (w *world) scan() []Hit {
	w.t.Helper()
	s := w.plant.scan
	if err := s.ScanFolder(w.dir); err != nil {
		w.t.Fatal(err)
	}
	s.Scan("pgvector", w.vectors())
	s.Scan("requests to the CRM", w.vendor.bytes())
	s.Scan("the CRM", w.simulator())
	s.Scan("requests to the model", w.model.bytes())
	s.Scan("texts of the model", []byte(strings.Join(w.texts.Texts(), "\n")))
	return s.Hits()
}
