package demo

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/internal/binary"
)

// TestDemo runs the demo with short live changes, twice in the same folder:
// the second one must clear away what the first one kept running.
func TestDemo(t *testing.T) {
	bin := os.Getenv("SLUICE_PG_BIN")
	if bin == "" || os.Getenv("SLUICE_JUDGES_PYTHON") == "" {
		t.Fatal("SLUICE_PG_BIN or SLUICE_JUDGES_PYTHON is not set: run make test, or export the lines that deploy/dev/up.sh prints")
	}
	dir := t.TempDir()
	var out bytes.Buffer
	c := Config{Binary: binary.Build(t), Dir: dir + "/demo", PostgresBin: bin, Live: time.Second, Keep: true, Out: &out}
	t.Cleanup(func() {
		if err := Stop(c.Dir, &out); err != nil {
			t.Error(err)
		}
	})
	report, err := Run(t.Context(), c)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !report.OK || len(report.Tables) != 5 || report.Snapshots < 5 || report.Freshness.P50 <= 0 || report.Freshness.P99 < report.Freshness.P50 {
		t.Errorf("the report is %+v\n%s", report, out.String())
	}
	if d := report.Documents; d == nil || d.Skipped != "" || !d.ok() {
		t.Errorf("documents: %+v", d)
	}
	if report.CRM == nil || !report.CRM.ok() {
		t.Errorf("crm: %+v", report.CRM)
	}
	var rows int64
	for _, table := range report.Tables {
		rows += table.SourceRows
		if !table.Equal || table.SourceRows != table.LakeRows {
			t.Errorf("%s: %+v", table.Table, table)
		}
	}
	if rows < 200_000 {
		t.Errorf("only %d rows", rows)
	}
	for _, want := range []string{"source and lake are equal", "duckdb -c", "kcat -b", "demo --stop"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not hold %q:\n%s", want, out.String())
		}
	}
	differs(t, c, report)
}

// differs changes a row behind the lake's back, and expects the comparison to say so.
func differs(t *testing.T, c Config, report Report) {
	d := &demo{Config: c, key: []byte(demoKey), screen: &screen{out: c.Out}, sluice: &pipeline{endpoints: endpoints{Catalog: report.Catalog, S3: report.S3}}}
	d.server = &server{url: reportedURL(t, c.Out.(*bytes.Buffer).String())}
	d.tables = []table{{name: "products", query: "SELECT id, sku, title, price + (id = 7)::int * 0.01 AS price, attributes, updated_at FROM products"}}
	conn, err := pgx.Connect(t.Context(), d.server.url)
	if err != nil {
		t.Fatal(err)
	}
	d.conn = conn
	defer d.closeConn()
	var got Report
	if err := d.compare(t.Context(), &got, freshness{}); err != nil {
		t.Fatal(err)
	}
	if got.OK || got.Tables[0].Equal || !strings.Contains(got.Tables[0].Difference, "column price") {
		t.Errorf("one cent more in one row: %+v", got)
	}
	// The HMAC in SQL is the one of everybody else.
	var email, hashed string
	if err := conn.QueryRow(t.Context(), "SELECT email, "+hmacSQL(d.key, "email")+" FROM customers WHERE id = 5").Scan(&email, &hashed); err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, d.key)
	mac.Write([]byte(email))
	if want := hex.EncodeToString(mac.Sum(nil)); hashed != want {
		t.Errorf("HMAC of %s is %s, want %s", email, hashed, want)
	}
}

func reportedURL(t *testing.T, out string) string {
	t.Helper()
	_, rest, ok := strings.Cut(out, "psql '")
	if !ok {
		t.Fatalf("no address of Postgres in\n%s", out)
	}
	url, _, _ := strings.Cut(rest, "'")
	return url
}

func TestPercentilesAndNumbers(t *testing.T) {
	var samples []time.Duration
	for i := range 100 {
		samples = append(samples, time.Duration(i+1))
	}
	if got := percentile(samples, 0.5); got != 51 {
		t.Errorf("p50 of 1..100 is %d", got)
	}
	if got := percentile(samples, 0.99); got != 100 {
		t.Errorf("p99 of 1..100 is %d", got)
	}
	if got := percentile(nil, 0.99); got != 0 {
		t.Errorf("p99 of nothing is %d", got)
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 41300: "41,300", -1234567: "-1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) = %s", n, got)
		}
	}
	if lsn, err := parseLSN("16/B374D848"); err != nil || lsn != 0x16B374D848 {
		t.Errorf("LSN %x, %v", lsn, err)
	}
	if _, err := parseLSN("16B374D848"); err == nil {
		t.Error("an LSN without / is accepted")
	}
	if got := bar(5, 10); got != "█████─────" {
		t.Error(got)
	}
}
