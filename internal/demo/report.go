package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-data/sluice/internal/judge"
)

// Report is how the demo went; its JSON is the last line of output with --json.
type Report struct {
	OK        bool       `json:"ok"`
	Seconds   float64    `json:"seconds"`
	Tables    []Compare  `json:"tables"`
	Freshness Millis     `json:"freshness_ms"` // from commit in Postgres to visible in the catalog, all tables
	Snapshots int        `json:"snapshots"`
	Files     int        `json:"files"`
	Config    string     `json:"config"`
	Catalog   string     `json:"catalog_uri"`
	S3        string     `json:"s3_endpoint"`
	Kafka     string     `json:"kafka,omitempty"`
	CRM       *CRM       `json:"crm,omitempty"`
	Documents *Documents `json:"documents,omitempty"`
	Error     string     `json:"error,omitempty"`
	email     string     // how an e-mail address looks in the lake
}

// Compare is one table in Postgres and in the lake.
type Compare struct {
	Table       string `json:"table"`
	Mode        string `json:"mode"`
	SourceRows  int64  `json:"source_rows"`
	LakeRows    int64  `json:"lake_rows"`
	Equal       bool   `json:"equal"`
	Difference  string `json:"difference,omitempty"`
	Snapshots   int    `json:"snapshots"`
	Files       int    `json:"files"`
	DeleteFiles int    `json:"delete_files"`
	Freshness   Millis `json:"freshness_ms"`
}

// Millis are percentiles in milliseconds.
type Millis struct {
	P50 int64 `json:"p50"`
	P99 int64 `json:"p99"`
}

// compare fingerprints every table on both sides.
func (d *demo) compare(ctx context.Context, report *Report, fresh freshness) error {
	catalog, err := d.catalog()
	if err != nil {
		return err
	}
	report.OK = true
	var wanted []judge.Table
	var want []judge.Print
	for _, t := range d.tables {
		p, err := judge.Postgres(ctx, d.server.url, t.query)
		if err != nil {
			return fmt.Errorf("fingerprint %s in Postgres: %w", t.name, err)
		}
		want = append(want, p)
		wanted = append(wanted, judge.Table{Name: "shop." + t.name, Columns: p.Fields()})
	}
	got, err := judge.Tables(ctx, "duckdb", catalog, wanted...)
	if err != nil {
		return err
	}
	for i, t := range d.tables {
		state, err := d.sluice.table(ctx, t.name)
		if err != nil {
			return err
		}
		c := Compare{Table: "shop." + t.name, Mode: t.mode, SourceRows: want[i].Rows, LakeRows: got[i].Rows, Equal: true,
			Snapshots: state.snapshots, Files: state.files, DeleteFiles: state.deleteFiles, Freshness: fresh.millis(t.name)}
		err = judge.Equal(want[i], got[i])
		if err == nil && t.name == "customers" && slices.Contains(state.columns, "phone") {
			err = fmt.Errorf("the column phone is in the lake")
		}
		if err != nil {
			c.Equal, c.Difference, report.OK = false, strings.ReplaceAll(err.Error(), "\n", "; "), false
		}
		report.Tables = append(report.Tables, c)
		report.Snapshots += c.Snapshots
		report.Files += c.Files + c.DeleteFiles
	}
	report.Freshness = fresh.millis("")
	// What the fingerprints have shown to be in the lake.
	return d.conn.QueryRow(ctx, "SELECT "+hmacSQL(d.key, "email")+" FROM customers ORDER BY id LIMIT 1").Scan(&report.email)
}

// equal reports whether all tables are.
func (r *Report) equal() bool {
	return !slices.ContainsFunc(r.Tables, func(c Compare) bool { return !c.Equal })
}

func (f freshness) millis(table string) Millis {
	return Millis{P50: f.of(table, 0.50).Milliseconds(), P99: f.of(table, 0.99).Milliseconds()}
}

// catalog is where engines find the tables, with the keys that may only read.
func (d *demo) catalog() (judge.Catalog, error) {
	var keys struct {
		Access string `json:"reader_access"`
		Secret string `json:"reader_secret"`
	}
	text, err := os.ReadFile(filepath.Join(d.Dir, "data", "s3.keys.json"))
	if err == nil {
		err = json.Unmarshal(text, &keys)
	}
	if err != nil {
		return judge.Catalog{}, fmt.Errorf("keys of the embedded S3: %w", err)
	}
	e := d.sluice.endpoints
	return judge.Catalog{URI: e.Catalog, Endpoint: withScheme(e.S3), AccessKey: keys.Access, SecretKey: keys.Secret}, nil
}

// print writes the report for people.
func (d *demo) print(r *Report) {
	s := d.screen
	s.line("")
	verdict := "done in %s, source and lake are equal"
	switch {
	case !r.equal():
		verdict = "done in %s, SOURCE AND LAKE DIFFER"
	case !r.OK:
		verdict = "done in %s, source and lake are equal, BUT NOT ALL IS WELL"
	}
	s.line(verdict, seconds(time.Duration(r.Seconds*float64(time.Second))))
	s.line("  %-18s %12s %12s   %-6s %9s  %13s  %s", "table", "in postgres", "in the lake", "equal", "snapshots", "data + delete", "freshness p50 / p99")
	for _, c := range r.Tables {
		equal := "yes"
		if !c.Equal {
			equal = "NO"
		}
		s.line("  %-18s %12s %12s   %-6s %9d  %13s  %s / %s", c.Table, grouped(c.SourceRows), grouped(c.LakeRows), equal, c.Snapshots,
			fmt.Sprintf("%d + %d files", c.Files, c.DeleteFiles), seconds(time.Duration(c.Freshness.P50)*time.Millisecond), seconds(time.Duration(c.Freshness.P99)*time.Millisecond))
		if c.Difference != "" {
			s.line("  %-18s %s", "", c.Difference)
		}
	}
	s.line("  freshness: from the commit in Postgres until a reader of the catalog sees it; a snapshot every %s, looked for every %s", commitEvery, pollEvery)
	s.line("  protected: customers.email is an HMAC (%.4s…), customers.phone never left the database", r.email)
	s.line("")
	d.printCommands(r)
}

// printCommands shows how to look at the tables and topics by oneself.
func (d *demo) printCommands(r *Report) {
	s := d.screen
	if !d.Keep {
		s.line("look for yourself: make demo KEEP=1 leaves everything up and prints the commands for DuckDB, PyIceberg and kcat")
		s.line("next: docs/first-pipeline.md")
		return
	}
	python := os.Getenv("SLUICE_JUDGES_PYTHON")
	if python == "" {
		python = "python3"
	}
	s.line("look for yourself; everything stays up until: %s demo --stop --dir %s", d.Binary, d.Dir)
	s.line("DuckDB 1.5 (the catalog hands out keys that may only read)")
	s.line(`  duckdb -c "INSTALL iceberg; LOAD iceberg; ATTACH '' AS lake (TYPE iceberg, ENDPOINT '%s', AUTHORIZATION_TYPE 'none'); `+
		`SELECT status, count(*) FROM lake.shop.orders GROUP BY 1"`, r.Catalog)
	s.line("PyIceberg")
	s.line(`  %s -c "from pyiceberg.catalog import load_catalog; print(load_catalog('lake', type='rest', uri='%s')`+
		`.load_table('shop.customers').scan(limit=5).to_arrow())"`, python, r.Catalog)
	s.line("Kafka")
	s.line("  kcat -b %s -t shop.shop-db.public.orders -C -o -1 -c 1 | jq .", r.Kafka)
	if r.Documents.Skipped == "" {
		s.line("Documents")
		s.line("  SHOP_DB_URL='%s' HUBSPOT_TOKEN=%s %s search -c %s %q", d.server.url, d.simulator.token, d.Binary, d.configPath(), question)
	}
	s.line("CRM")
	s.line("  curl -s %s/_simulator/records/contacts | head -40", r.CRM.URL)
	s.line("  %s dlq ls -c %s", d.Binary, d.configPath())
	s.line("Postgres")
	s.line("  psql '%s'", d.server.url)
	s.line("status: %s status -c %s", d.Binary, d.configPath())
}
