package chaos

import (
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/internal/binary"
	"github.com/sluice-data/sluice/internal/judge"
	"github.com/sluice-data/sluice/internal/pgserver"
)

// wishes is the stage of the test below.
type wishes struct {
	*testing.T
	ctx context.Context
	p   *pipeline
	pg  *pgserver.Server
}

// sluice runs a command and returns what it prints.
func (w *wishes) sluice(args ...string) string {
	w.Helper()
	cmd := exec.CommandContext(w.ctx, w.p.binary, append(args, "-c", w.p.config())...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("sluice %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (w *wishes) exec(sql ...string) {
	w.Helper()
	conn, err := pgx.Connect(w.ctx, w.pg.URL)
	if err != nil {
		w.Fatal(err)
	}
	defer conn.Close(w.ctx)
	for _, s := range sql {
		if _, err := conn.Exec(w.ctx, s); err != nil {
			w.Fatalf("%s: %v", s, err)
		}
	}
}

// ghosts deletes rows without sluice being told.
func (w *wishes) ghosts(from, to string) {
	w.Helper()
	w.exec("ALTER PUBLICATION sluice_db SET (publish = 'insert')",
		"DELETE FROM acct WHERE id BETWEEN "+from+" AND "+to,
		"ALTER PUBLICATION sluice_db SET (publish = 'insert, update, delete, truncate')")
}

// until polls the status of the running process.
func (w *wishes) until(what string, ok func(rows map[string]string) bool) {
	w.Helper()
	for end := time.Now().Add(time.Minute); ; {
		var s struct {
			Result struct {
				Streams []struct {
					Side, Name, Stream, State string
					Position                  string
				} `json:"streams"`
			} `json:"result"`
		}
		out, _ := exec.CommandContext(w.ctx, w.p.binary, "status", "--json", "-c", w.p.config()).Output()
		_ = json.Unmarshal(out, &s) // it may be starting
		rows := map[string]string{}
		for _, r := range s.Result.Streams {
			rows[r.Name+" "+r.Stream] = r.State
		}
		if ok(rows) {
			return
		}
		if time.Now().After(end) || !wait(w.ctx, 50) {
			w.Fatalf("not so after a while: %s: %v\n%s", what, rows, w.p.log.tail(4000))
		}
	}
}

// start runs sluice until it streams.
func (w *wishes) start() {
	w.Helper()
	if err := w.p.start(w.pg.URL, ""); err != nil {
		w.Fatal(err)
	}
	w.until("the stream runs", func(rows map[string]string) bool { return rows["db db.public.acct"] == "streaming" })
}

// equal reports for each table whether the lake has what the database has.
func (w *wishes) equal() map[string]bool {
	w.Helper()
	var cat judge.Catalog
	for {
		var err error
		if cat, err = w.p.catalog(w.ctx); err == nil {
			break
		}
		if !wait(w.ctx, 200) {
			w.Fatalf("no catalog: %v\n%s", err, w.p.log.tail(4000))
		}
	}
	out := map[string]bool{}
	for table, query := range tables {
		want, err := judge.Postgres(w.ctx, w.pg.URL, query)
		if err != nil {
			w.Fatal(err)
		}
		got, err := judge.Engine(w.ctx, "duckdb", cat, "chaos."+table, want.Fields()...)
		if err != nil {
			w.Fatal(err)
		}
		out[table] = judge.Equal(want, got) == nil
		if table == "cased" && !out[table] {
			w.Errorf("table %s: %v", table, judge.Equal(want, got))
		}
	}
	return out
}

// TestWishes: backfill, pause and resume, with a running sluice and without
// one. Rows that the source deleted without telling are ghosts in the lake
// until their stream is loaded anew.
func TestWishes(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	dir := workplace(t)
	w := &wishes{T: t, ctx: ctx, pg: startPostgres(ctx, t, dir)}
	if err := fill(ctx, w.pg.URL, 2000); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.p, err = newPipeline(binary.Build(t, "sluicetest"), dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.p.stopChildren)
	catchUp(t, w.p, w.pg)

	w.ghosts("1", "10")
	w.start()
	w.exec("UPDATE acct SET name = 'later' WHERE id = 11")
	w.p.kill()
	catchUp(t, w.p, w.pg)
	w.start()
	if eq := w.equal(); eq["acct"] || !eq["item"] {
		t.Fatalf("before the backfill: equal %v, want ghosts in acct", eq)
	}
	if out := w.sluice("backfill", "db.public.acct"); !strings.Contains(out, "db.public.acct is being loaded anew") {
		t.Errorf("sluice backfill: %s", out)
	}
	w.exec("UPDATE acct SET name = 'meanwhile' WHERE id BETWEEN 20 AND 40", "INSERT INTO item VALUES (9999, 'k1', 1)")
	w.p.kill() // wherever it is: the wish is in the checkpoint
	catchUp(t, w.p, w.pg)
	w.start()
	if eq := w.equal(); !eq["acct"] || !eq["item"] {
		t.Errorf("after the backfill: equal %v", eq)
	}
	w.p.kill()

	w.ghosts("100", "120")
	if out := w.sluice("backfill", "db.public.acct"); !strings.Contains(out, "by the next run") {
		t.Errorf("sluice backfill: %s", out)
	}
	catchUp(t, w.p, w.pg)
	w.start()
	if eq := w.equal(); !eq["acct"] || !eq["item"] {
		t.Errorf("after the recorded backfill: equal %v", eq)
	}

	if out := w.sluice("pause", "db.public.item", "--sink", "lake"); !strings.Contains(out, "db.public.item paused in lake") {
		t.Errorf("sluice pause: %s", out)
	}
	w.until("it is paused", func(rows map[string]string) bool { return rows["lake db.public.item"] == "paused" })
	w.exec("INSERT INTO item VALUES (9998, 'k1', 1)", "UPDATE acct SET name = 'on' WHERE id = 50",
		`UPDATE cased SET "Note" = 'changed' WHERE id < 10`)
	w.p.kill()
	w.start()
	w.until("it is still paused", func(rows map[string]string) bool { return rows["lake db.public.item"] == "paused" })
	if out := w.sluice("resume", "db.public.item"); !strings.Contains(out, "db.public.item resumed in lake") {
		t.Errorf("sluice resume: %s", out)
	}
	w.until("it goes on", func(rows map[string]string) bool { return rows["lake db.public.item"] == "streaming" })
	w.p.kill()
	catchUp(t, w.p, w.pg)
	w.start()
	if eq := w.equal(); !eq["acct"] || !eq["item"] {
		t.Errorf("at the end: equal %v", eq)
	}
	w.p.kill()
	for _, args := range [][]string{{"backfill", "db.public.nobody"}, {"pause", "db.public.item", "--sink", "log"}} {
		out, err := exec.Command(w.p.binary, append(args, "-c", w.p.config())...).CombinedOutput()
		if code := err.(*exec.ExitError).ExitCode(); code != 2 {
			t.Errorf("sluice %v: exit %d\n%s", args, code, out)
		}
	}
}
