// Package demo shows the whole flow on one machine in a minute: a small shop
// in a private Postgres, its first load, live changes, and the proof that the
// lake holds the same rows, as another engine reads them.
package demo

import (
	"context"
	_ "embed" // the shop
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/progress"
)

//go:embed shop.sql
var shopSQL string

// Config says how to run the demo.
type Config struct {
	Binary      string // the sluice that runs the pipeline
	Dir         string // holds everything the demo makes; emptied at the start
	PostgresURL string // a server to use instead of a private one; the demo makes a database there
	PostgresBin string // programs of a private server
	Live        time.Duration
	Keep        bool      // leave everything up
	Out         io.Writer // progress and report
	Lively      bool      // Out is a terminal: lines may be overwritten
}

// step and size of the live changes: about 330 changes in each tenth of a second.
const (
	stepEvery   = 100 * time.Millisecond
	stepOrders  = 25
	stepTouched = 40
	commitEvery = 2 * time.Second
	loadLimit   = 3 * time.Minute // for the first load on a slow machine
	drainLimit  = time.Minute
)

// demoKey is fixed, so that two runs make the same lake. A real key is random.
const demoKey = "the demo's key, known to everyone"

// table is one table of the shop and where it goes.
type table struct {
	name  string // in Postgres's schema public, and in the lake's namespace shop
	mode  string
	query string // the rows that the lake must hold
	rows  int64  // rows before the live changes
}

// demo is one run.
type demo struct {
	Config
	started   time.Time
	server    *server
	simulator *simulator
	sluice    *pipeline
	key       []byte // of the HMAC of e-mail addresses
	tables    []table
	pages     int    // documents
	noVectors string // why there can be no index of documents, "" if there can
	conn      *pgx.Conn
	screen    *screen
}

// Run runs the demo and returns its report. The report's OK is false when
// anything differs; an error means that the demo could not be run to its end.
func Run(ctx context.Context, c Config) (Report, error) {
	d := &demo{Config: c, started: time.Now(), screen: &screen{out: c.Out, lively: c.Lively, last: time.Now()}}
	report, err := d.run(ctx)
	report.Seconds = time.Since(d.started).Round(100 * time.Millisecond).Seconds()
	if err != nil {
		report.OK, report.Error = false, err.Error()
	}
	if c.Keep && err == nil {
		if err = d.keep(); err != nil {
			d.stop()
		}
	} else {
		d.stop()
	}
	return report, err
}

func (d *demo) run(ctx context.Context) (Report, error) {
	report := Report{Config: d.configPath()}
	if err := d.prepare(ctx); err != nil {
		return report, err
	}
	if err := d.fill(ctx); err != nil {
		return report, err
	}
	if err := d.startSluice(ctx); err != nil {
		return report, err
	}
	e := d.sluice.endpoints
	report.Catalog, report.S3, report.Kafka = e.Catalog, withScheme(e.S3), e.Kafka
	d.screen.line("%s · kafka (embedded) %s · s3 (embedded) %s · catalog %s", d.server.what, e.Kafka, e.S3, e.Catalog)
	d.screen.line("")
	if err := d.firstLoad(ctx); err != nil {
		return report, err
	}
	fresh, err := d.live(ctx)
	if err != nil {
		return report, err
	}
	if err := d.crm(ctx, &report); err != nil {
		return report, err
	}
	if err := d.documents(ctx, &report); err != nil {
		return report, err
	}
	d.screen.line("comparing every row with DuckDB …")
	if err := d.compare(ctx, &report, fresh); err != nil {
		return report, err
	}
	report.OK = report.OK && report.Documents.ok() && report.CRM.ok()
	report.Seconds = time.Since(d.started).Seconds()
	d.print(&report)
	return report, nil
}

func (d *demo) configPath() string { return filepath.Join(d.Dir, "sluice.yaml") }

// prepare empties the folder and starts Postgres.
func (d *demo) prepare(ctx context.Context) error {
	if err := Stop(d.Dir, io.Discard); err != nil { // what a demo before this one left up
		return err
	}
	if err := os.RemoveAll(d.Dir); err != nil {
		return fmt.Errorf("empty the folder of the demo: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(d.Dir, "keys"), 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(d.Dir, "data"), 0o700); err != nil {
		return err
	}
	if err := d.writeDocuments(); err != nil {
		return fmt.Errorf("write the documents: %w", err)
	}
	d.key = []byte(demoKey)
	if err := os.WriteFile(filepath.Join(d.Dir, "keys", "email"), d.key, 0o600); err != nil {
		return err
	}
	var err error
	d.server, err = startServer(ctx, d.PostgresURL, d.PostgresBin, d.Dir)
	return err
}

// fill makes the shop and counts its rows.
func (d *demo) fill(ctx context.Context) error {
	began := time.Now()
	conn, err := pgx.Connect(ctx, d.server.url)
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	d.conn = conn
	if _, err := conn.Exec(ctx, "SET synchronous_commit = off; SET max_parallel_workers_per_gather = 0;"+shopSQL); err != nil {
		return fmt.Errorf("make the shop: %w", err)
	}
	d.tables = []table{
		{name: "customers", mode: "upsert", query: "SELECT id, name, " + hmacSQL(d.key, "email") +
			" AS email, country, segment, newsletter, created_at, updated_at FROM customers"},
		{name: "products", mode: "upsert"},
		{name: "orders", mode: "upsert"},
		{name: "order_items", mode: "upsert"},
		{name: "order_events", mode: "append"},
	}
	var vectors bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')").Scan(&vectors); err != nil {
		return fmt.Errorf("look for pgvector: %w", err)
	}
	if !vectors {
		d.noVectors = "this Postgres has no pgvector"
	}
	var all int64
	for i := range d.tables {
		t := &d.tables[i]
		if t.query == "" {
			t.query = "SELECT * FROM " + t.name
		}
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM "+t.name).Scan(&t.rows); err != nil {
			return fmt.Errorf("count %s: %w", t.name, err)
		}
		all += t.rows
	}
	d.screen.line("made a shop of %s rows in %s", grouped(all), seconds(time.Since(began)))
	return nil
}

// hmacSQL is HMAC-SHA-256 in hexadecimal digits, written with what every Postgres has.
func hmacSQL(key []byte, column string) string {
	inner, outer := make([]byte, 64), make([]byte, 64)
	copy(inner, key)
	copy(outer, key)
	for i := range inner {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	return fmt.Sprintf(`encode(sha256('\x%s'::bytea || sha256('\x%s'::bytea || convert_to(%s, 'UTF8'))), 'hex')`,
		hex.EncodeToString(outer), hex.EncodeToString(inner), column)
}

// configText is the file that a person would write.
func (d *demo) configText() string {
	var tables, streams []string
	for _, t := range d.tables {
		tables = append(tables, "public."+t.name)
		extra := ""
		if t.name == "orders" {
			extra = ", sort_by: [id]"
		}
		streams = append(streams, fmt.Sprintf("      - { from: shop-db.public.%s, table: shop.%s, mode: %s%s }", t.name, t.name, t.mode, extra))
	}
	documentsSource, documentsSink := documentsSource, documentsSink
	if d.noVectors != "" {
		documentsSource, documentsSink = "", ""
	}
	return fmt.Sprintf(`name: shop
dir: data
kafka: { embedded: true }
topics: { partitions: 2 }
sources:
  shop-db:
    postgres: { url: "${env:SHOP_DB_URL}", tables: [%s] }
    protect:                                # before anything reaches Kafka
      public.customers:
        - hash: { field: email, method: hmac-sha256, key: "${file:keys/email}" }
        - drop: { fields: [phone] }
%ssinks:
  lake:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/shop
      s3: { embedded: true }
      commit: { every: %s, bytes: 64MiB }
    streams:
%s
%s`, strings.Join(tables, ", "), documentsSource, commitEvery, strings.Join(streams, "\n"), fmt.Sprintf(crmConfig, d.simulator.url)+documentsSink)
}

func (d *demo) startSluice(ctx context.Context) error {
	var err error
	if d.simulator, err = startSimulator(ctx, d.Binary, d.Dir); err != nil {
		return err
	}
	if err := os.WriteFile(d.configPath(), []byte(d.configText()), 0o644); err != nil {
		return err
	}
	d.sluice, err = startPipeline(ctx, d.Binary, d.Dir, d.server.url, d.simulator.token)
	return err
}

// keep writes down what runs, so that Stop can end it.
func (d *demo) keep() error {
	d.closeConn()
	return writeRunning(d.Dir, running{Sluice: d.sluice.pid(), Simulator: d.simulator.pid(), Postgres: d.server.pid(), Folder: d.server.folder, Database: d.server.database, URL: d.PostgresURL})
}

func (d *demo) stop() {
	d.closeConn()
	if d.sluice != nil {
		d.sluice.stop()
	}
	if d.simulator != nil {
		d.simulator.stop()
	}
	if d.server != nil {
		d.server.stop()
	}
}

func (d *demo) closeConn() {
	if d.conn != nil {
		_ = d.conn.Close(context.Background()) // the server goes away anyway
		d.conn = nil
	}
}

// firstLoad waits until the lake holds every row that was there at the start.
func (d *demo) firstLoad(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, loadLimit, errors.New("the first load takes too long"))
	defer cancel()
	began := time.Now()
	loaded := map[string]time.Duration{}
	for {
		if err := d.sluice.pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		status, err := d.sluice.status(ctx)
		if err != nil {
			return err
		}
		if status.trouble != "" {
			return errors.New(status.trouble)
		}
		lines := make([]string, len(d.tables))
		for i, t := range d.tables {
			done := min(status.row(progress.Sink, "lake", t.name).Delivered, t.rows)
			took, ready := loaded[t.name]
			if !ready && done == t.rows {
				state, err := d.sluice.table(ctx, t.name)
				if err != nil {
					return err
				}
				// Delivered is counted; loaded is what a reader of the catalog finds.
				if state.records >= t.rows {
					took, ready = time.Since(began), true
					loaded[t.name] = took
				}
			}
			if !ready {
				took = time.Since(began)
			}
			lines[i] = fmt.Sprintf("first load   %-13s %9s %s %3d %%  %7s  %9s rows/s", t.name, grouped(t.rows), bar(done, t.rows),
				100*done/t.rows, seconds(took), grouped(int64(float64(done)/took.Seconds())))
		}
		if len(loaded) == len(d.tables) {
			for _, l := range lines {
				d.screen.line("%s", l)
			}
			return nil
		}
		d.screen.block(lines)
	}
}
