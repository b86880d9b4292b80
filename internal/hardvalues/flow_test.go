package hardvalues

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/internal/binary"
	"github.com/sluice-data/sluice/internal/judge"
	"github.com/sluice-data/sluice/internal/pgserver"
)

// The three rows of a value.
const (
	byBackfill = iota // read by the backfill
	byInsert          // inserted while the log is followed
	byUpdate          // read by the backfill, then another column is updated
	rowsOf
)

// id is the key of a row of the i-th value.
func id(i, row int) int { return 10*(i+1) + row }

func (f *family) source() string {
	if f.table != "" {
		return f.table
	}
	return f.name
}

func (f *family) keyColumn() string {
	if f.key != "" {
		return f.key
	}
	return "id"
}

func (f *family) columnOf(i int) string {
	if c := f.values[i].column; c != "" {
		return c
	}
	return fmt.Sprintf("v%d", i+1)
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// create makes the table and the rows that the backfill reads.
func (f *family) create() []string {
	ddl := fmt.Sprintf("CREATE TABLE %s (%s int PRIMARY KEY, touched int NOT NULL DEFAULT 0", f.source(), f.keyColumn())
	for i := range f.values {
		ddl += fmt.Sprintf(", %s %s", quote(f.columnOf(i)), f.values[i].typ)
	}
	return append([]string{ddl + ")"}, append(f.insert(byBackfill), f.insert(byUpdate)...)...)
}

func (f *family) insert(row int) (statements []string) {
	for i, v := range f.values {
		if v.literal == "" {
			continue
		}
		statements = append(statements, fmt.Sprintf("INSERT INTO %s (%s, %s) VALUES (%d, (%s)::%s)",
			f.source(), f.keyColumn(), quote(f.columnOf(i)), id(i, row), v.literal, v.typ))
	}
	return statements
}

// change is what happens while the log is followed.
func (f *family) change() []string {
	return append(f.insert(byInsert),
		fmt.Sprintf("UPDATE %s SET touched = 1 WHERE %s %% 10 = %d", f.source(), f.keyColumn(), byUpdate))
}

// flow is a lake filled from a database, served to the engines until the test ends.
type flow struct {
	pg      string
	catalog judge.Catalog
	kafka   string
	refused map[string]map[int]string // dead letters by stream and key: code and reason
}

const pipelineText = `name: hard
dir: data
kafka: { embedded: true }
topics: { partitions: 2 }
sources:
  db:
    postgres:
      url: "${env:HARD_PG}"
      tables: [%s]
sinks:
  lake:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/hard
      s3: { embedded: true }
      commit: { every: 500ms }
    streams:
%s`

// startFlow takes every family through the built binary: a backfill, then changes.
func startFlow(ctx context.Context, t *testing.T) *flow {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice-hard-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // the server runs as another user
		t.Fatal(err)
	}
	bin := os.Getenv("SLUICE_PG_BIN")
	if bin == "" {
		t.Fatal("SLUICE_PG_BIN is not set: eval $(deploy/dev/up.sh)")
	}
	pg, err := pgserver.Start(ctx, bin, filepath.Join(dir, "pg"), "fsync=off")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pg.Stop)
	statements := []string{moreTypes}
	var tables, streams string
	for i := range families {
		f := &families[i]
		statements = append(statements, f.create()...)
		tables += yamlText("public."+f.source()) + ", "
		streams += fmt.Sprintf("      - { from: %s, table: hard.%s }\n", yamlText("db.public."+f.source()), f.name)
	}
	execute(ctx, t, pg.URL, statements)
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(pipelineText, strings.TrimSuffix(tables, ", "), streams)
	if err := os.WriteFile(filepath.Join(work, "sluice.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sluice := binary.Build(t)
	command := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, sluice, append(args, "-c", "sluice.yaml")...)
		cmd.Dir, cmd.Env = work, append(os.Environ(), "HARD_PG="+pg.URL)
		return cmd
	}
	catchUp := func() {
		t.Helper()
		if out, err := command("run", "--until-caught-up").CombinedOutput(); err != nil {
			t.Fatalf("run --until-caught-up: %v\n%s", err, out[max(0, len(out)-6000):])
		}
	}
	catchUp()
	var changes []string
	for i := range families {
		changes = append(changes, families[i].change()...)
	}
	execute(ctx, t, pg.URL, changes)
	catchUp()
	fl := &flow{pg: pg.URL}
	fl.serve(ctx, t, command)
	fl.readRefused(ctx, t)
	return fl
}

func yamlText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func execute(ctx context.Context, t *testing.T, url string, statements []string) {
	t.Helper()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			t.Fatalf("%.300s: %v", s, err)
		}
	}
}

// serve runs sluice on until the test ends: it serves the catalog and the files.
func (fl *flow) serve(ctx context.Context, t *testing.T, command func(...string) *exec.Cmd) {
	t.Helper()
	var log bytes.Buffer
	cmd := command("run")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		<-ended
		stopChildren(filepath.Join(cmd.Dir, "data", "run.json"))
		if t.Failed() {
			t.Logf("%s", log.Bytes()[max(0, log.Len()-4000):])
		}
	})
	var s struct {
		Result struct {
			Processes []struct {
				Endpoints struct{ Kafka, S3, Catalog string }
			}
		}
	}
	for {
		out, err := command("status", "--json").Output()
		if err == nil && json.Unmarshal(out, &s) == nil && len(s.Result.Processes) > 0 && s.Result.Processes[0].Endpoints.Catalog != "" {
			break
		}
		select {
		case <-ended:
			t.Fatal("sluice has ended")
		case <-ctx.Done():
			t.Fatal("sluice does not serve the catalog")
		case <-time.After(200 * time.Millisecond):
		}
	}
	e := s.Result.Processes[0].Endpoints
	var keys struct {
		Access string `json:"reader_access"`
		Secret string `json:"reader_secret"`
	}
	text, err := os.ReadFile(filepath.Join(cmd.Dir, "data", "s3.keys.json"))
	if err == nil {
		err = json.Unmarshal(text, &keys)
	}
	if err != nil {
		t.Fatal(err)
	}
	fl.kafka = e.Kafka
	fl.catalog = judge.Catalog{URI: e.Catalog, Endpoint: "http://" + strings.TrimPrefix(e.S3, "http://"), AccessKey: keys.Access, SecretKey: keys.Secret}
}

// stopChildren ends embedded servers that a killed sluice leaves behind.
func stopChildren(runFile string) {
	var run struct{ Children map[string]struct{ PID int } }
	text, err := os.ReadFile(runFile)
	if err != nil || json.Unmarshal(text, &run) != nil {
		return
	}
	for _, c := range run.Children {
		if c.PID > 0 {
			_ = syscall.Kill(c.PID, syscall.SIGTERM)
		}
	}
}

func get(ctx context.Context, t *testing.T, url string, answer any) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
}

// columnTypes returns the Iceberg types of a table's columns.
func (fl *flow) columnTypes(ctx context.Context, t *testing.T, table string) map[string]string {
	t.Helper()
	var answer struct {
		Metadata struct {
			Current int `json:"current-schema-id"`
			Schemas []struct {
				ID     int `json:"schema-id"`
				Fields []struct {
					Name string
					Type any
				}
			}
		}
	}
	get(ctx, t, fl.catalog.URI+"/v1/namespaces/hard/tables/"+table, &answer)
	found := map[string]string{}
	for _, s := range answer.Metadata.Schemas {
		if s.ID != answer.Metadata.Current {
			continue
		}
		for _, f := range s.Fields {
			if list, ok := f.Type.(map[string]any); ok {
				found[f.Name] = fmt.Sprintf("list<%s>", list["element"])
			} else {
				found[f.Name] = fmt.Sprint(f.Type)
			}
		}
	}
	return found
}

// readRefused reads all dead letters.
func (fl *flow) readRefused(ctx context.Context, t *testing.T) {
	t.Helper()
	const topic = "hard._dlq"
	client, err := kgo.NewClient(kgo.SeedBrokers(fl.kafka), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	fl.refused = map[string]map[int]string{}
	for quiet := 0; quiet < 3; { // none in three fetches on end: that was all
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		fetches := client.PollFetches(short)
		cancel()
		if fetches.NumRecords() == 0 {
			quiet++
		}
		fetches.EachRecord(func(r *kgo.Record) {
			quiet = 0
			h := map[string]string{}
			for _, header := range r.Headers {
				h[header.Key] = string(header.Value)
			}
			var key map[string]int
			if err := json.Unmarshal(r.Key, &key); err != nil || len(key) != 1 {
				t.Errorf("dead letter of %s with a key that is not ours: %v", h["sluice.dlq.stream"], err)
				return
			}
			stream := h["sluice.dlq.stream"]
			if fl.refused[stream] == nil {
				fl.refused[stream] = map[int]string{}
			}
			for _, k := range key {
				if fl.refused[stream][k] == "" { // the first one says what is wrong with the value
					fl.refused[stream][k] = h["sluice.dlq.code"] + ": " + h["sluice.dlq.reason"]
				}
			}
		})
	}
}

// prints returns the fingerprints of every family as Postgres holds it,
// without the rows that are dead letters, and as the engines read it.
func (fl *flow) prints(ctx context.Context, t *testing.T, engines ...string) (want []judge.Print, got map[string][]judge.Print) {
	t.Helper()
	var tables []judge.Table
	for i := range families {
		f := &families[i]
		columns := []string{f.keyColumn(), "touched"}
		for v := range f.values {
			column := quote(f.columnOf(v))
			switch val := &f.values[v]; {
			case val.absent:
			case val.cast != "":
				columns = append(columns, column+"::"+val.cast+" AS "+column)
			default:
				columns = append(columns, column)
			}
		}
		dead := []string{"0"}
		for k := range fl.refused[f.stream()] {
			dead = append(dead, fmt.Sprint(k))
		}
		slices.Sort(dead)
		p, err := judge.Postgres(ctx, fl.pg, fmt.Sprintf("SELECT %s FROM %s WHERE %s NOT IN (%s)",
			strings.Join(columns, ", "), f.source(), f.keyColumn(), strings.Join(dead, ", ")))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, p)
		tables = append(tables, judge.Table{Name: "hard." + f.name, Columns: p.Fields()})
	}
	got = map[string][]judge.Print{}
	for _, engine := range engines {
		prints, err := judge.Tables(ctx, engine, fl.catalog, tables...)
		if err != nil {
			t.Error(err)
		}
		if prints == nil {
			t.FailNow()
		}
		got[engine] = prints
	}
	return want, got
}

// stream is the name of the family's stream as dead letters spell it.
func (f *family) stream() string { return "db.public." + f.source() }
