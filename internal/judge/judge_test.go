package judge

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/internal/pgserver"
)

// start runs a Postgres for one test and returns its address.
func start(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("SLUICE_PG_BIN")
	if bin == "" {
		t.Fatal("SLUICE_PG_BIN is not set: run make test, or export the lines that deploy/dev/up.sh prints")
	}
	// Under root the server runs as nobody, whom a folder of t.TempDir would keep out.
	dir, err := os.MkdirTemp("", "judge")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := pgserver.Start(t.Context(), bin, dir+"/postgres")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s.URL
}

// values are columns with hard values, written so that Postgres and DuckDB
// read the same SQL; the kind is what the Postgres side finds out.
var values = []struct{ name, pgType, duckType, values, kind string }{
	{"b", "bool", "BOOLEAN", "true, false, NULL", "bool"},
	{"i2", "int2", "SMALLINT", "-32768, 32767, NULL", "int"},
	{"i4", "int4", "INTEGER", "-2147483648, 0, NULL", "int"},
	{"i8", "int8", "BIGINT", "'-9223372036854775808', 9223372036854775807, NULL", "int"},
	{"f4", "float4", "FLOAT", "0.1, '-0', 'nan'", "float"},
	{"f8", "float8", "DOUBLE", "1e-9, '-infinity', 1.7976931348623157e308", "float"},
	{"d2", "numeric(12,2)", "DECIMAL(12,2)", "1.50, -0.05, 1000000000", "numeric"},
	{"d38", "numeric(38,10)", "DECIMAL(38,10)", "'9999999999999999999999999999.9999999999', '0.0000000001', '-1234567.0001'", "numeric"},
	{"d0", "numeric(38,0)", "DECIMAL(38,0)", "'12300000000000000000000', 0, NULL", "numeric"},
	{"d3", "numeric(3,3)", "DECIMAL(3,3)", "0.5, -0.125, 0", "numeric"},
	{"n", "numeric", "VARCHAR", "'1.50', '-0.000000000000000000000000000000000000000012300', '123456789012345678901234567890123456789012345678900'", "numeric"},
	{"nan", "numeric", "VARCHAR", "'NaN', 'Infinity', '-Infinity'", "numeric"},
	{"t", "text", "VARCHAR", "'', NULL, 'Grüße, 世界 😀'", "text"},
	{"bin", "bytea", "BLOB", "'\\x0001FF', '\\x', NULL", "bytes"},
	{"day", "date", "DATE", "'1969-12-31', '0044-03-15 (BC)', '9999-12-31'", "date"},
	{"dayinf", "date", "DATE", "'infinity', '-infinity', '1970-01-01'", "date"},
	{"tod", "time", "TIME", "'00:00', '23:59:59.999999', NULL", "time"},
	{"ts", "timestamp", "TIMESTAMP", "'1969-12-31 23:59:59.999999', 'infinity', '2024-02-29 12:00:00'", "timestamp"},
	{"tsz", "timestamptz", "TIMESTAMPTZ", "'1969-12-31 23:59:59.999999+00', '-infinity', '2024-02-29 12:00:00+00'", "timestamp"},
	{"u", "uuid", "UUID", "'123E4567-e89b-12d3-a456-426614174000', NULL, '00000000-0000-0000-0000-000000000000'", "uuid"},
	{"j", "jsonb", "VARCHAR", `'{"b": [1.50, null, true], "aé": {"x": 1e3}}', '"\u00e9\"\\"', '-0.0'`, "json"},
	{"ai", "int4[]", "INTEGER[]", "ARRAY[1,NULL,-3]::INTEGER[], ARRAY[]::INTEGER[], NULL", "int[]"},
	{"words", "text[]", "VARCHAR[]", "ARRAY['', NULL, 'ü'], ARRAY['a,b'], NULL", "text[]"},
	{"an", "numeric[]", "VARCHAR[]", "ARRAY['1.50','2']::numeric[], ARRAY[]::numeric[], NULL", "numeric[]"},
	{"aj", "jsonb[]", "VARCHAR[]", `ARRAY['{"a": [1]}'::VARCHAR]::jsonb[], ARRAY[]::jsonb[], NULL`, "json[]"},
	{"af", "float8[]", "DOUBLE[]", "ARRAY[1.5, NULL]::float8[], ARRAY[]::float8[], NULL", "float[]"},
}

// query builds SELECT … FROM (VALUES …) with three rows for one side.
func query(duck bool) string {
	var columns []string
	rows := make([][]string, 3)
	for _, v := range values {
		columns = append(columns, v.name)
		for i, value := range splitValues(v.values) {
			kind := v.pgType
			if duck {
				kind = v.duckType
				value = strings.ReplaceAll(value, "::numeric[]", "::VARCHAR[]")
				value = strings.ReplaceAll(value, "::jsonb[]", "::VARCHAR[]")
				if v.duckType == "BLOB" && value != "NULL" {
					value = fmt.Sprintf("unhex('%s')", strings.TrimPrefix(strings.Trim(value, "'"), `\x`))
				}
			} else {
				value = strings.ReplaceAll(value, " (BC)", " BC")
			}
			rows[i] = append(rows[i], fmt.Sprintf("CAST(%s AS %s)", value, kind))
		}
	}
	var tuples []string
	for _, r := range rows {
		tuples = append(tuples, "("+strings.Join(r, ", ")+")")
	}
	return fmt.Sprintf("SELECT * FROM (VALUES %s) AS v(%s)", strings.Join(tuples, ", "), strings.Join(columns, ", "))
}

// splitValues cuts at commas outside quotes and brackets.
func splitValues(s string) []string {
	var out []string
	depth, quoted, from := 0, false, 0
	for i, c := range s {
		switch {
		case c == '\'':
			quoted = !quoted
		case quoted:
		case c == '[':
			depth++
		case c == ']':
			depth--
		case c == ',' && depth == 0:
			out = append(out, strings.TrimSpace(s[from:i]))
			from = i + 1
		}
	}
	return append(out, strings.TrimSpace(s[from:]))
}

func TestPostgresAndDuckDBAgreeOnEveryType(t *testing.T) {
	url := start(t)
	want, err := Postgres(t.Context(), url, query(false))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		if got := want.Columns[v.name].Kind; got != v.kind {
			t.Errorf("column %s is of kind %s, want %s", v.name, got, v.kind)
		}
	}
	got, err := Engine(t.Context(), "sql", Catalog{}, query(true), want.Fields()...)
	if err != nil {
		t.Fatal(err)
	}
	if err := Equal(want, got); err != nil {
		t.Error(err)
	}
}

func TestEveryMutationIsSeen(t *testing.T) {
	url := start(t)
	const all = `SELECT i, i::float8 / 7 AS f, i::numeric / 8 AS d, timestamptz '2024-01-01 00:00+00' + i * interval '1 s' AS ts,
		CASE WHEN i % 10 = 0 THEN NULL WHEN i % 10 = 1 THEN '' ELSE 'v' || i % 50 END AS t FROM generate_series(1, 500) i`
	base, err := Postgres(t.Context(), url, all+" ORDER BY random()")
	if err != nil {
		t.Fatal(err)
	}
	again, err := Postgres(t.Context(), url, all+" ORDER BY i DESC")
	if err != nil {
		t.Fatal(err)
	}
	if err := Equal(base, again); err != nil {
		t.Fatalf("another order of the rows: %v", err)
	}
	mutations := []struct{ name, query, seen string }{
		{"1e-9 in a double", `SELECT i, CASE i WHEN 7 THEN f + 1e-9 ELSE f END AS f, d, ts, t FROM base`, "column f"},
		{"one ulp", `SELECT i, CASE i WHEN 7 THEN 1.0000000000000002 ELSE f END AS f, d, ts, t FROM base`, "column f"},
		{"1e-9 in a numeric", `SELECT i, f, CASE i WHEN 7 THEN d + 0.000000001 ELSE d END AS d, ts, t FROM base`, "column d"},
		{"1 µs", `SELECT i, f, d, CASE i WHEN 7 THEN ts + interval '1 microsecond' ELSE ts END AS ts, t FROM base`, "column ts"},
		{"NULL instead of ''", `SELECT i, f, d, ts, nullif(t, '') AS t FROM base`, "column t (text): 50 NULLs against 100"},
		{"'' instead of NULL", `SELECT i, f, d, ts, coalesce(t, '') AS t FROM base`, "column t"},
		{"NULL and '' swapped", `SELECT i, f, d, ts, CASE WHEN t IS NULL THEN '' WHEN t = '' THEN NULL ELSE t END AS t FROM base`, "other rows"},
		{"values swapped between two rows", `SELECT i, f, d, ts, CASE i WHEN 2 THEN 'v3' WHEN 3 THEN 'v2' ELSE t END AS t FROM base`, "other rows"},
		{"a lost row", `SELECT * FROM base WHERE i <> 7`, "500 rows against 499"},
		{"a doubled row", `SELECT * FROM base UNION ALL SELECT * FROM base WHERE i = 7`, "500 rows against 501"},
		{"one lost, one doubled", `SELECT * FROM base WHERE i <> 7 UNION ALL SELECT * FROM base WHERE i = 8`, "column i"},
		{"a missing column", `SELECT i, f, d, ts FROM base`, "column t is missing"},
	}
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			got, err := Postgres(t.Context(), url, "WITH base AS ("+all+") "+m.query)
			if err != nil {
				t.Fatal(err)
			}
			if err := Equal(base, got); err == nil || !strings.Contains(err.Error(), m.seen) {
				t.Errorf("the answer is %v, want %q", err, m.seen)
			}
		})
	}
}

func TestEnginesSayWhatIsWrong(t *testing.T) {
	if _, err := Engine(t.Context(), "sql", Catalog{}, "SELECT 1 AS a", "b"); err == nil || !strings.Contains(err.Error(), "no column b") {
		t.Errorf("a missing column: %v", err)
	}
	if _, err := Engine(t.Context(), "duckdb", Catalog{URI: "http://127.0.0.1:1", Endpoint: "http://127.0.0.1:1"}, "a.b"); err == nil {
		t.Error("a catalog that is not there is not noticed")
	}
}
