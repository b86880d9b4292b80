package mappers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/internal/pgserver"
)

// twins is one expression in CEL and in SQL.
type twins struct{ cel, sql string }

// drawTwins draws an expression of a type: b bool, i int, t text, d decimal.
func drawTwins(r *rand.Rand, kind byte, depth int) twins {
	pick := func(list ...twins) twins { return list[r.IntN(len(list))] }
	sub := func(k byte) twins { return drawTwins(r, k, depth-1) }
	two := func(k byte, cel, sql string) twins {
		x, y := sub(k), sub(k)
		return twins{"(" + x.cel + cel + y.cel + ")", "(" + x.sql + sql + y.sql + ")"}
	}
	if depth == 0 {
		switch kind {
		case 'b':
			return pick(twins{"f", "f"}, twins{"g", "g"}, twins{"true", "true"}, twins{"(i == null)", "(i IS NULL)"}, twins{"(t != null)", "(t IS NOT NULL)"})
		case 'i':
			return pick(twins{"i", "i"}, twins{"j", "j"}, twins{"3", "3"}, twins{"-7", "(-7)"})
		case 't':
			return pick(twins{"t", "t"}, twins{"u", "u"}, twins{"'ab'", "'ab'"}, twins{"''", "''"})
		}
		return pick(twins{"d", "d"}, twins{"d", "d"}, twins{"e", "e"})
	}
	if r.IntN(6) == 0 {
		c, x, y := sub('b'), sub(kind), sub(kind)
		if kind != 'd' {
			return pick(twins{"(" + c.cel + " ? " + x.cel + " : " + y.cel + ")", "CASE WHEN " + c.sql + " THEN " + x.sql + " ELSE " + y.sql + " END"},
				twins{"(" + c.cel + " ? " + x.cel + " : null)", "CASE WHEN " + c.sql + " THEN " + x.sql + " END"},
				twins{"coalesce(" + x.cel + ", " + y.cel + ")", "coalesce(" + x.sql + ", " + y.sql + ")"})
		}
	}
	switch kind {
	case 'b':
		op := []string{" == ", " != ", " < ", " <= ", " > ", " >= "}[r.IntN(6)]
		sql := map[string]string{" == ": " = ", " != ": " <> "}[op]
		if sql == "" {
			sql = op
		}
		x, y := sub('t'), sub('t')
		n, m := sub('i'), sub('d')
		return pick(two('b', " && ", " AND "), two('b', " || ", " OR "), two('i', op, sql), two('t', op, sql), two('d', op, sql),
			func() twins { c := sub('b'); return twins{"!" + c.cel, "(NOT " + c.sql + ")"} }(),
			twins{"(" + n.cel + op + m.cel + ")", "(" + n.sql + sql + m.sql + ")"}, twins{"(" + m.cel + op + "1.5)", "(" + m.sql + sql + "1.5)"},
			twins{"(" + n.cel + op + "x)", "(" + n.sql + "::float8" + sql + "x)"}, twins{"(ts" + op + "timestamp('2024-01-01T00:00:00Z'))", "(ts" + sql + "'2024-01-01T00:00:00Z')"},
			twins{"(day" + op + "date(ts))", "(day" + sql + "(ts AT TIME ZONE 'UTC')::date)"}, twins{n.cel + " in [1, 3, 5]", "(" + n.sql + " IN (1, 3, 5))"},
			twins{x.cel + ".contains(" + y.cel + ")", "(strpos(" + x.sql + ", " + y.sql + ") > 0)"}, twins{x.cel + ".startsWith(" + y.cel + ")", "starts_with(" + x.sql + ", " + y.sql + ")"},
			twins{x.cel + ".matches('^a')", "(" + x.sql + " ~ '^a')"})
	case 'i':
		x, t := sub('i'), sub('t')
		return pick(two('i', " + ", " + "), two('i', " - ", " - "), twins{"(" + x.cel + " * 5)", "(" + x.sql + " * 5)"}, twins{"(" + x.cel + " / 3)", "(" + x.sql + " / 3)"},
			twins{"(" + x.cel + " % 4)", "(" + x.sql + " % 4)"}, twins{"(-" + x.cel + ")", "(- " + x.sql + ")"}, twins{t.cel + ".size()", "char_length(" + t.sql + ")::bigint"},
			twins{"int(d)", "trunc(d)::bigint"}, twins{"ts.getFullYear()", "extract(year FROM ts AT TIME ZONE 'UTC')::bigint"},
			twins{"day.getDayOfWeek()", "extract(dow FROM day)::bigint"}, twins{"(ts.getMonth() + 1)", "extract(month FROM ts AT TIME ZONE 'UTC')::bigint"})
	case 't':
		x, n := sub('t'), sub('i')
		return pick(two('t', " + ", " || "), twins{x.cel + ".upperAscii()", "upper(" + x.sql + ")"}, twins{x.cel + ".replace('a', 'bc')", "replace(" + x.sql + ", 'a', 'bc')"},
			twins{"string(" + n.cel + ")", "(" + n.sql + ")::text"}, twins{"string(d)", "d::text"}, twins{"string(f)", "f::text"}, twins{"(" + x.cel + " + 'xyz').substring(1, 3)", "substr(" + x.sql + " || 'xyz', 2, 2)"})
	}
	n := drawTwins(r, 'i', 0)
	m := drawTwins(r, 'd', 0)
	return pick(two('d', " + ", " + "), two('d', " - ", " - "), twins{"(" + m.cel + " * " + n.cel + ")", "(" + m.sql + " * " + n.sql + ")"},
		twins{"(" + m.cel + " * 1.25)", "(" + m.sql + " * 1.25)"}, twins{"(-" + m.cel + ")", "(- " + m.sql + ")"})
}

// TestExpressionsAgreeWithPostgres: drawn expressions have the values that
// PostgreSQL has for them, null for null. It runs where SLUICE_PG_BIN names a server.
func TestExpressionsAgreeWithPostgres(t *testing.T) {
	bin := os.Getenv("SLUICE_PG_BIN")
	if bin == "" {
		t.Log("not run: SLUICE_PG_BIN=$(deploy/dev/postgres.sh) go test ./mappers")
		return
	}
	dir, err := os.MkdirTemp("", "sluice-mappers-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	srv, err := pgserver.Start(ctx, bin, dir, "fsync=off")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Stop)
	conn, err := pgx.Connect(ctx, srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	s := schemaOf("id int64 key, i int64, j int64, x float64, t text, u text, f bool, g bool, d decimal(10,2), e decimal(6,3), ts timestamptz, day date")
	r := rand.New(rand.NewPCG(7, 31))
	cell := func(values ...string) string { return values[r.IntN(len(values))] }
	var rows, inserts []string
	for id := range 40 {
		cells := []string{fmt.Sprint(id), cell("0", "1", "3", "-4", null), cell("5", "-2", "100", null), cell("1.5", "3", "-4.25", "NaN", null), cell("ab", "a", "zab", "ää", null),
			cell("b", "ab", "", null), cell("true", "false", null), cell("true", "false", null), cell("1.50", "-3.25", "0.00", "99.99", null), cell("1.500", "0.001", "-3.250", null),
			cell("2024-02-29T23:59:59.5Z", "1999-12-31T00:00:00Z", "2024-01-01T00:00:00Z", null), cell("2024-02-29", "1999-12-31", null)}
		rows = append(rows, "insert | "+strings.Join(cells, " ; "))
		for k, c := range cells {
			if c != null {
				cells[k] = "'" + c + "'"
			}
		}
		inserts = append(inserts, "("+strings.Join(cells, ", ")+")")
	}
	if _, err := conn.Exec(ctx, "SET timezone = 'UTC'; CREATE TABLE r (id int8, i int8, j int8, x float8, t text, u text, f bool, g bool, d numeric(10,2), e numeric(6,3), ts timestamptz, day date)"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, "INSERT INTO r VALUES "+strings.Join(inserts, ", ")); err != nil {
		t.Fatal(err)
	}
	checked := 0
	for range 600 {
		kind := "bitd"[r.IntN(4)]
		e := drawTwins(r, kind, 1+r.IntN(3))
		c, err := Compile([]Rule{{Derive: &Derive{Field: "value", CEL: e.cel}}}, s, nil, Shape)
		if err != nil {
			t.Fatalf("%s: %v", e.cel, err)
		}
		sql := "(" + e.sql + ")::text"
		if kind == 'd' {
			sql = "trim_scale(" + e.sql + ")::text"
		}
		res, err := conn.Query(ctx, "SELECT "+sql+" FROM r ORDER BY id")
		if err != nil {
			t.Fatal(err)
		}
		want, err := pgx.CollectRows(res, pgx.RowTo[*string])
		if err != nil {
			t.Fatalf("%s: %v", e.sql, err)
		}
		out, _, rejects := mustApply(t, c, batchOf(t, s, rows...))
		if len(rejects) > 0 {
			t.Fatalf("%s: %v", e.cel, rejects)
		}
		k := len(out.Schema.Fields) - 1
		for i, w := range want {
			got, exp := cellText(&out.Schema.Fields[k], out.After[k], i), null
			if w != nil {
				exp = *w
			}
			if got != exp {
				t.Fatalf("%s\n%s\nrow %s: %s, PostgreSQL has %s", e.cel, e.sql, rows[i], got, exp)
			}
			checked++
		}
	}
	t.Logf("%d values agree", checked)
}
