package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/internal/binary"
	"github.com/sluice-data/sluice/internal/judge"
	"github.com/sluice-data/sluice/internal/pgserver"
)

// number reads an integer from the environment.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// points are the named places where the binary of these tests kills itself.
// Each is aimed at once before chance decides; the first of them lie in the
// backfill, which is over once it has been let through.
var points = []string{"ingest.backfill-begin", "ingest.backfill-end", "ingest.before-publish", "topic.before-write",
	"lake.before-data", "lake.after-data", "lake.after-commit", "lake.after-index", "ingest.before-checkpoint",
	"ingest.after-checkpoint", "ingest.before-ack", "topic.before-flush", "topic.after-flush"}

// inBackfill is how many of points only a backfill passes.
const inBackfill = 2

// workplace is a folder that a server running as another user can enter.
func workplace(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("kept for you to look at: %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func startPostgres(ctx context.Context, t *testing.T, dir string) *pgserver.Server {
	t.Helper()
	bin := os.Getenv("SLUICE_PG_BIN")
	if bin == "" {
		t.Fatal("SLUICE_PG_BIN is not set: eval $(deploy/dev/up.sh)")
	}
	pg, err := pgserver.Start(ctx, bin, filepath.Join(dir, "pg"), "wal_sender_timeout=3s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pg.Stop)
	return pg
}

// TestChaosLosesAndDoublesNothing kills sluice SLUICE_CHAOS_KILLS times (default 20),
// first at every named point and then at points and moments that chance picks, from the first second of the backfill
// on, and the broker and the database now and then; SLUICE_CHAOS_SEED reproduces.
func TestChaosLosesAndDoublesNothing(t *testing.T) {
	kills, seed := max(number(t, "SLUICE_CHAOS_KILLS", 20), len(points)), number(t, "SLUICE_CHAOS_SEED", int(time.Now().UnixNano()%1_000_000))
	t.Logf("SLUICE_CHAOS_SEED=%d SLUICE_CHAOS_KILLS=%d", seed, kills)
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(3+kills/4)*time.Minute)
	defer cancel()
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	dir := workplace(t)
	pg := startPostgres(ctx, t, dir)
	if err := fill(ctx, pg.URL, 20_000); err != nil {
		t.Fatal(err)
	}
	p, err := newPipeline(binary.Build(t, "sluicetest"), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stopChildren)

	var gate sync.RWMutex // held for writing while the load must be still
	l := &load{url: pg.URL, rng: rand.New(rand.NewPCG(uint64(seed), 2)),
		pause: func() { gate.RLock(); gate.RUnlock(); wait(ctx, 5) }} //nolint:staticcheck // waits for the gate to open
	loadCtx, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	loaded := make(chan error, 1)
	go func() { loaded <- l.run(loadCtx) }()

	// The first third of the kills may fall into the backfill. Then the load
	// rests until the stream has begun: every version after that must be in
	// the append table exactly once.
	k := &killer{p: p, pg: pg, rng: rng, counts: map[string]int{}, hit: map[string]int{}}
	for range kills / 3 {
		k.once(ctx, t)
	}
	gate.Lock()
	mark := settle(ctx, t, p, pg)
	gate.Unlock()
	k.settled = true
	for range kills - kills/3 {
		k.once(ctx, t)
	}
	stopLoad()
	if err := <-loaded; err != nil {
		t.Fatalf("load: %v", err)
	}
	t.Logf("%d transactions, kills: %v", l.txns, k.counts)
	for _, point := range points {
		if k.hit[point] == 0 {
			t.Errorf("nothing was killed at %s", point)
		}
	}
	compare(ctx, t, p, pg, mark)
}

// killer runs sluice for a while and ends it hard, again and again.
type killer struct {
	p       *pipeline
	pg      *pgserver.Server
	rng     *rand.Rand
	n       int            // runs so far
	settled bool           // the backfill is over
	counts  map[string]int // by what was killed
	hit     map[string]int // by point
}

// pick returns where the next run kills itself, "" if it is killed at a random
// moment, and how long it may take to come there.
func (k *killer) pick() (spec string, life time.Duration) {
	if k.n < len(points) {
		return points[k.n] + ":1", time.Minute
	}
	if k.rng.IntN(2) == 0 {
		return "", time.Duration(300+k.rng.IntN(3500)) * time.Millisecond
	}
	first := 0
	if k.settled {
		first = inBackfill
	}
	return points[first+k.rng.IntN(len(points)-first)] + ":" + strconv.Itoa(1+k.rng.IntN(3)), 8 * time.Second
}

// once is one run and its end.
func (k *killer) once(ctx context.Context, t *testing.T) {
	t.Helper()
	p, i := k.p, k.n
	spec, life := k.pick()
	k.n++
	if err := p.start(k.pg.URL, spec); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(life):
	case <-ctx.Done():
		t.Fatalf("out of time at kill %d\n%s", i, p.log.tail(4000))
	}
	what := "sluice at a random moment"
	switch {
	case i%7 == 5:
		what = "postgres"
		k.pg.Kill()
		if err := k.pg.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		wait(ctx, 500)
	case i%7 == 3:
		if pid := p.children()["kafka"]; pid > 0 {
			what = "broker"
			_ = syscall.Kill(pid, syscall.SIGKILL)
			wait(ctx, 500)
		}
	}
	select {
	case <-p.done:
		if state := p.cmd.ProcessState; !state.Success() && state.Sys().(syscall.WaitStatus).Signaled() {
			point, _, _ := strings.Cut(spec, ":")
			k.hit[point]++
			what = "at " + point
		} else if what == "sluice at a random moment" {
			t.Fatalf("sluice ended by itself: %s\n%s", state, p.log.tail(4000))
		}
	default:
		p.kill()
	}
	k.counts[what]++
}

// settle runs sluice until it has caught up with a still database and returns
// the last entry of the audit log.
func settle(ctx context.Context, t *testing.T, p *pipeline, pg *pgserver.Server) int64 {
	t.Helper()
	catchUp(t, p, pg)
	conn, err := pgx.Connect(ctx, pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var n int64
	if err := conn.QueryRow(ctx, "SELECT coalesce(max(n), 0) FROM audit").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func catchUp(t *testing.T, p *pipeline, pg *pgserver.Server) {
	t.Helper()
	if err := p.start(pg.URL, "", "--until-caught-up"); err != nil {
		t.Fatal(err)
	}
	code, err := p.exited(2 * time.Minute)
	if err != nil || code != 0 {
		p.kill()
		t.Fatalf("run --until-caught-up: exit %d, %v\n%s", code, err, p.log.tail(6000))
	}
}

// compare checks the tables as DuckDB reads them against the database.
func compare(ctx context.Context, t *testing.T, p *pipeline, pg *pgserver.Server, mark int64) {
	t.Helper()
	catchUp(t, p, pg)
	if err := p.start(pg.URL, ""); err != nil { // serves the catalog
		t.Fatal(err)
	}
	defer p.kill()
	var cat judge.Catalog
	for {
		var err error
		if cat, err = p.catalog(ctx); err == nil {
			break
		}
		if !wait(ctx, 200) {
			t.Fatalf("no catalog: %v\n%s", err, p.log.tail(4000))
		}
	}
	for table, query := range tables {
		want, err := judge.Postgres(ctx, pg.URL, query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := judge.Engine(ctx, "duckdb", cat, "chaos."+table, want.Fields()...)
		if err != nil {
			t.Fatal(err)
		}
		if err := judge.Equal(want, got); err != nil {
			t.Errorf("table %s: %v", table, err)
		}
		t.Logf("table %s: %d rows", table, want.Rows)
	}
	checkLog(ctx, t, cat, pg, mark)
}

// checkLog holds the append table against the audit log.
func checkLog(ctx context.Context, t *testing.T, cat judge.Catalog, pg *pgserver.Server, mark int64) {
	t.Helper()
	rows, err := judge.Query(ctx, cat, `SELECT "_op", id, v, "_epoch", "_lsn", "_seq" FROM lake.chaos.acct_log`)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{} // key + version → times written
	deletes := map[string]int{}
	positions := map[string]int{}
	for _, r := range rows {
		op := *r[0]
		if op != "r" && op != "read" {
			positions[*r[3]+"/"+*r[4]+"/"+*r[5]]++
		}
		if op == "d" || op == "delete" {
			deletes[*r[1]]++
			continue
		}
		seen[*r[1]+"@"+*r[2]]++
	}
	report := limited{t: t}
	for pos, n := range positions {
		if n > 1 {
			report.errorf("position %s is there %d times", pos, n)
		}
	}
	for key, n := range seen {
		if n > 1 {
			report.errorf("row %s is there %d times", key, n)
		}
	}
	conn, err := pgx.Connect(ctx, pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	audit, err := conn.Query(ctx, "SELECT op, key, coalesce(v, 0) FROM audit WHERE tbl = 'acct' AND n > $1", mark)
	if err != nil {
		t.Fatal(err)
	}
	defer audit.Close()
	wantDeletes, changes := map[string]int{}, 0
	for audit.Next() {
		var op, key string
		var v int64
		if err := audit.Scan(&op, &key, &v); err != nil {
			t.Fatal(err)
		}
		changes++
		if op == "d" {
			wantDeletes[key]++
		} else if seen[fmt.Sprintf("%s@%d", key, v)] != 1 {
			report.errorf("change %s@%d is there %d times", key, v, seen[fmt.Sprintf("%s@%d", key, v)])
		}
	}
	if err := audit.Err(); err != nil {
		t.Fatal(err)
	}
	for key, n := range wantDeletes {
		if deletes[key] < n {
			report.errorf("%d of %d deletes of %s are there", deletes[key], n, key)
		}
	}
	t.Logf("append table: %d rows, %d changes checked", len(rows), changes)
	if changes == 0 {
		t.Error("the load made no changes after the stream began")
	}
}

// limited reports the first errors of many.
type limited struct {
	t *testing.T
	n int
}

func (l *limited) errorf(format string, args ...any) {
	l.t.Helper()
	if l.n++; l.n <= 10 {
		l.t.Errorf(format, args...)
	} else {
		l.t.Fail()
	}
}
