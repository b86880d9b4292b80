// Command freshness follows W3 at a fixed rate with a running sluice and
// measures, for each transaction, the time from its commit in Postgres until a
// reader of the catalog sees a snapshot that holds it. The workload notes each
// transaction's log address and commit time in w3_commits; the watcher notes
// when the table's marks have passed which address.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/record"
)

const (
	pollEvery  = 100 * time.Millisecond // measured times are too long by up to this
	startLimit = 90 * time.Second
	drainLimit = 90 * time.Second
	runID      = "live"
)

func main() {
	var f follow
	flag.StringVar(&f.binary, "sluice", "bin/sluice", "the program")
	flag.StringVar(&f.config, "c", "sluice.yaml", "its file, with dir: data")
	flag.StringVar(&f.load, "load", "bench/load.sh", "makes the changes")
	flag.StringVar(&f.url, "url", os.Getenv("SHOP_DB_URL"), "the database")
	flag.IntVar(&f.rate, "rate", 5000, "changes a second")
	flag.IntVar(&f.seconds, "seconds", 30, "of load")
	out := flag.String("out", "", "where the result goes")
	flag.Parse()
	result, err := f.run(context.Background())
	if err == nil {
		var text []byte
		if text, err = json.Marshal(result); err == nil {
			fmt.Println(string(text))
			err = os.WriteFile(*out, text, 0o644)
		}
	}
	if err != nil {
		log.Fatalln("freshness:", err)
	}
}

// follow is one run.
type follow struct {
	binary, config, load, url string
	rate, seconds             int

	sluice  *exec.Cmd
	ended   chan struct{}
	catalog string
	seen    []sight
}

// sight is a moment from which on the table holds everything up to a log address.
type sight struct {
	lsn uint64
	at  time.Time
}

// result goes into the table of figures. Times are milliseconds.
type result struct {
	Transactions int     `json:"transactions"`
	Changes      int64   `json:"changes"`
	Rate         float64 `json:"rate"` // changes a second that were really made
	P50          float64 `json:"p50_ms"`
	P90          float64 `json:"p90_ms"`
	P99          float64 `json:"p99_ms"`
	Max          float64 `json:"max_ms"`
	Snapshots    int     `json:"snapshots"` // seen while following
	LongestGap   float64 `json:"gap_ms"`    // between two commits: a load that stood still and then caught up is no even load
}

func (f *follow) run(ctx context.Context) (*result, error) {
	conn, err := pgx.Connect(ctx, f.url)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	f.sluice = exec.Command(f.binary, "run", "-c", f.config)
	f.sluice.Stdout, f.sluice.Stderr = os.Stderr, os.Stderr
	if err := f.sluice.Start(); err != nil {
		return nil, fmt.Errorf("start sluice: %w", err)
	}
	f.ended = make(chan struct{})
	go func() {
		_ = f.sluice.Wait()
		close(f.ended)
	}()
	defer f.stop()
	if err := f.wait(ctx, startLimit, "sluice answers", func() bool { return f.find() }); err != nil {
		return nil, err
	}
	if err := f.reach(ctx, conn, startLimit); err != nil {
		return nil, err
	}
	f.seen = nil
	load := exec.Command(f.load, f.url, "mix", strconv.Itoa(f.rate*f.seconds), "2", strconv.Itoa(f.rate), "1", runID)
	load.Stdout, load.Stderr = os.Stderr, os.Stderr
	if err := load.Start(); err != nil {
		return nil, fmt.Errorf("start the load: %w", err)
	}
	loaded := make(chan error, 1)
	go func() { loaded <- load.Wait() }()
	limit := time.Duration(3*f.seconds)*time.Second + startLimit
	var loadErr error
	if err := f.wait(ctx, limit, "the load ends", func() bool {
		select {
		case loadErr = <-loaded:
			return true
		default:
			return false
		}
	}); err != nil {
		return nil, errors.Join(err, load.Process.Signal(syscall.SIGTERM))
	}
	if loadErr != nil {
		return nil, fmt.Errorf("the load: %w", loadErr)
	}
	if err := f.reach(ctx, conn, drainLimit); err != nil {
		return nil, err
	}
	return f.measure(ctx, conn)
}

// reach makes a transaction that is large enough for every partition, and
// waits until the table has passed it.
func (f *follow) reach(ctx context.Context, conn *pgx.Conn, limit time.Duration) error {
	var at string
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&at); err != nil {
		return fmt.Errorf("log address: %w", err)
	}
	if _, err := conn.Exec(ctx, "UPDATE orders_wide SET updated_at = clock_timestamp() WHERE id IN (SELECT id FROM orders_wide LIMIT 500)"); err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	lsn, err := parseLSN(at)
	if err != nil {
		return err
	}
	return f.wait(ctx, limit, "the table holds what Postgres has", func() bool {
		return len(f.seen) > 0 && f.seen[len(f.seen)-1].lsn >= lsn
	})
}

// wait looks at the table again and again until done.
func (f *follow) wait(ctx context.Context, limit time.Duration, what string, done func() bool) error {
	deadline := time.Now().Add(limit)
	for !done() {
		select {
		case <-f.ended:
			return fmt.Errorf("sluice ended before %s", what)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("in vain waited %s until %s", limit, what)
		}
		if f.catalog == "" {
			continue
		}
		if err := f.look(ctx); err != nil {
			return err
		}
	}
	return nil
}

// find learns the address of the catalog from run.json.
func (f *follow) find() bool {
	var run struct {
		Processes []struct {
			PID     int    `json:"pid"`
			Catalog string `json:"catalog_uri"`
		} `json:"processes"`
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(f.config), "data", "run.json"))
	if err != nil || json.Unmarshal(text, &run) != nil {
		return false
	}
	for _, p := range run.Processes {
		if p.PID == f.sluice.Process.Pid && p.Catalog != "" {
			f.catalog = p.Catalog
		}
	}
	return f.catalog != ""
}

// look loads the table as an engine does. Everything up to the oldest of its
// partitions' marks is in it.
func (f *follow) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.catalog+"/v1/namespaces/bench/tables/orders_wide", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("load the table: %w", err)
	}
	defer resp.Body.Close()
	var answer struct {
		Metadata struct {
			Properties map[string]string `json:"properties"`
		} `json:"metadata"`
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("load the table: %s", resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("load the table: %w", err)
	}
	at, oldest, found := time.Now(), uint64(0), false
	for key, text := range answer.Metadata.Properties {
		var m record.Mark
		if strings.HasPrefix(key, "sluice.") && json.Unmarshal([]byte(text), &m) == nil && m.TopicID != "" {
			if !found || m.Last.LSN < oldest {
				oldest = m.Last.LSN
			}
			found = true
		}
	}
	if found && (len(f.seen) == 0 || f.seen[len(f.seen)-1].lsn != oldest) {
		f.seen = append(f.seen, sight{oldest, at})
	}
	return nil
}

// measure joins transactions and sights.
func (f *follow) measure(ctx context.Context, conn *pgx.Conn) (*result, error) {
	r := &result{Snapshots: len(f.seen)}
	if err := conn.QueryRow(ctx, `SELECT sum(ins + upd + del + reins), sum(ins + upd + del + reins) / extract(epoch FROM max(finished) - min(started))::float8
		FROM w3_progress WHERE run_id = $1`, runID).Scan(&r.Changes, &r.Rate); err != nil {
		return nil, fmt.Errorf("what was made: %w", err)
	}
	rows, err := conn.Query(ctx, "SELECT c.lsn::text, c.at FROM w3_commits c WHERE c.run_id = $1 ORDER BY c.lsn", runID)
	if err != nil {
		return nil, fmt.Errorf("transactions: %w", err)
	}
	defer rows.Close()
	var took []time.Duration
	var last time.Time
	for k := 0; rows.Next(); {
		var text string
		var at time.Time
		if err := rows.Scan(&text, &at); err != nil {
			return nil, fmt.Errorf("transactions: %w", err)
		}
		lsn, err := parseLSN(text)
		if err != nil {
			return nil, err
		}
		for k < len(f.seen) && f.seen[k].lsn < lsn {
			k++
		}
		if k == len(f.seen) {
			return nil, fmt.Errorf("the table never held the transaction at %s", text)
		}
		took = append(took, f.seen[k].at.Sub(at))
		if !last.IsZero() {
			r.LongestGap = max(r.LongestGap, float64(at.Sub(last).Milliseconds()))
		}
		last = at
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("transactions: %w", err)
	}
	if len(took) == 0 {
		return nil, errors.New("no transactions were made")
	}
	slices.Sort(took)
	of := func(p float64) float64 {
		return float64(took[min(len(took)-1, int(p*float64(len(took))))].Milliseconds())
	}
	r.Transactions, r.P50, r.P90, r.P99, r.Max = len(took), of(0.5), of(0.9), of(0.99), of(1)
	return r, nil
}

func (f *follow) stop() {
	_ = f.sluice.Process.Signal(syscall.SIGTERM)
	select {
	case <-f.ended:
	case <-time.After(40 * time.Second):
		_ = f.sluice.Process.Kill()
		<-f.ended
	}
}

func parseLSN(s string) (uint64, error) {
	high, low, ok := strings.Cut(s, "/")
	h, err1 := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if err := errors.Join(err1, err2); !ok || err != nil {
		return 0, fmt.Errorf("log address %q", s)
	}
	return h<<32 | l, nil
}
