package judge

import (
	"bytes"
	"context"
	_ "embed" // the script of the engines
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

//go:embed judge.py
var script string

// Engines are the names that Engine knows. "sql" is DuckDB without a catalog:
// the table is a query then, for tests of the fingerprint itself.
var Engines = []string{"duckdb", "pyiceberg", "spark", "sql"}

// Catalog says where an engine finds tables: an Iceberg REST catalog and its object store.
type Catalog struct {
	URI       string `json:"uri"`       // http://127.0.0.1:port
	Warehouse string `json:"warehouse"` // may be empty
	Endpoint  string `json:"endpoint"`  // http://127.0.0.1:port of S3
	AccessKey string `json:"access_key"`
	SecretKey string `json:"secret_key"`
	Region    string `json:"region"` // us-east-1 when empty
}

// Table names a table and the columns to read.
type Table struct {
	Name    string   `json:"table"`   // namespace.table
	Columns []string `json:"columns"` // "name" or "name:kind"; none = all. A kind makes text comparable: numeric, json, …
}

// Engine returns the fingerprint of a table as an engine reads it; see Table for the columns.
func Engine(ctx context.Context, engine string, c Catalog, table string, columns ...string) (Print, error) {
	prints, err := Tables(ctx, engine, c, Table{Name: table, Columns: columns})
	if err != nil {
		return Print{}, err
	}
	return prints[0], nil
}

// Tables returns the fingerprints of several tables from one start of an
// engine. Where the engine refuses a table, its Print is empty and the error
// says why; the others are there. The engine runs in the Python of SLUICE_JUDGES_PYTHON, or for Spark
// of SLUICE_SPARK_PYTHON; deploy/dev gets them.
func Tables(ctx context.Context, engine string, c Catalog, tables ...Table) ([]Print, error) {
	var answers []struct {
		Print
		Error string `json:"error"`
	}
	if err := ask(ctx, engine, c, tables, &answers); err != nil {
		return nil, err
	}
	if len(answers) != len(tables) {
		return nil, errors.New("answer of " + engine + ": a table is missing")
	}
	prints := make([]Print, len(tables))
	var refused []error
	for i, a := range answers {
		prints[i] = a.Print
		if a.Error != "" {
			refused = append(refused, fmt.Errorf("%s reads %s: %s", engine, tables[i].Name, a.Error))
		}
	}
	return prints, errors.Join(refused...)
}

// Query returns the rows of a DuckDB query over the catalog, which is attached
// as lake; every value is its text, or nil.
func Query(ctx context.Context, c Catalog, sql string) ([][]*string, error) {
	var answers []json.RawMessage
	if err := ask(ctx, "query", c, []Table{{Name: sql}}, &answers); err != nil {
		return nil, err
	}
	if len(answers) != 1 {
		return nil, errors.New("a query has one answer")
	}
	var rows [][]*string
	if json.Unmarshal(answers[0], &rows) == nil {
		return rows, nil
	}
	var refusal struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(answers[0], &refusal); err != nil {
		return nil, fmt.Errorf("answer of duckdb: %w", err)
	}
	return nil, fmt.Errorf("duckdb answers a query: %s", refusal.Error)
}

func ask(ctx context.Context, engine string, c Catalog, tables []Table, answer any) error {
	python, fix := os.Getenv("SLUICE_JUDGES_PYTHON"), "deploy/dev/judges.sh"
	if engine == "spark" {
		python, fix = os.Getenv("SLUICE_SPARK_PYTHON"), "deploy/dev/spark.sh"
	}
	if python == "" {
		return fmt.Errorf("no Python for %s: run %s", engine, fix)
	}
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	request, err := json.Marshal(struct {
		Engine  string  `json:"engine"`
		Catalog Catalog `json:"catalog"`
		Tables  []Table `json:"tables"`
		Jars    string  `json:"jars"`
	}{engine, c, tables, os.Getenv("SLUICE_SPARK_JARS")})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, python, "-I", "-c", script)
	cmd.Stdin = bytes.NewReader(request)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s reads %s: %w: %s", engine, names(tables), err, last(complaint.String()))
	}
	if err := json.Unmarshal(out.Bytes(), answer); err != nil {
		return fmt.Errorf("answer of %s: %w", engine, err)
	}
	return nil
}

func names(tables []Table) string {
	var all []string
	for _, t := range tables {
		all = append(all, t.Name)
	}
	return strings.Join(all, ", ")
}

// last returns the end of a program's complaint: there is the reason.
func last(s string) string {
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-1500):]
}
