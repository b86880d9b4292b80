package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/record"
)

// hard are values of every kind, with what the record holds of them. Where want
// is empty, the text that the server shows is wanted.
var hard = []struct {
	typ, literal string
	kind         record.Kind
	want         string
}{
	{"bool", "true", record.Bool, "01"},
	{"bool", "false", record.Bool, "00"},
	{"int2", "-32768", record.Int16, "-32768"},
	{"int4", "-2147483648", record.Int32, "-2147483648"},
	{"int8", "-9223372036854775808", record.Int64, "-9223372036854775808"},
	{"int8", "9223372036854775807", record.Int64, "9223372036854775807"},
	{"float4", "'NaN'", record.Float32, "NaN/7fc00000"},
	{"float4", "'1.1754944e-38'", record.Float32, "1.1754944e-38/00800000"},
	{"float8", "'-0.0'", record.Float64, "-0/8000000000000000"},
	{"float8", "'Infinity'", record.Float64, "+Inf/7ff0000000000000"},
	{"float8", "'-Infinity'", record.Float64, "-Inf/fff0000000000000"},
	{"float8", "'NaN'", record.Float64, "NaN/7ff8000000000001"},
	{"float8", "'5e-324'", record.Float64, "5e-324/0000000000000001"},
	{"float8", "0.1", record.Float64, "0.1/3fb999999999999a"},
	{"numeric(38,10)", "9999999999999999999999999999.9999999999", record.Decimal, "4b3b4ca85a86c47a:98a223fffffffff"},
	{"numeric(38,10)", "-9999999999999999999999999999.9999999999", record.Decimal, "b4c4b357a5793b85:f675ddc000000001"},
	{"numeric(38,0)", "99999999999999999999999999999999999999", record.Decimal, "4b3b4ca85a86c47a:98a223fffffffff"},
	{"numeric(38,38)", "0.00000000000000000000000000000000000001", record.Decimal, "0:1"},
	{"numeric(10,2)", "-0.01", record.Decimal, "ffffffffffffffff:ffffffffffffffff"},
	{"numeric(5,3)", "12.5", record.Decimal, "0:30d4"},
	{"numeric(10,2)", "0", record.Decimal, "0:0"},
	{"numeric(10,2)", "'NaN'", record.Decimal, "reject value_not_a_number"},
	{"numeric(50,20)", "12345678901234567890.5", record.DecimalText, "12345678901234567890.50000000000000000000"},
	{"numeric(4,-2)", "123456", record.DecimalText, "123500"},
	{"numeric", "1e-20", record.DecimalText, "0.00000000000000000001"},
	{"numeric", "'1' || repeat('0', 200) || '.000100'", record.DecimalText, "1" + strings.Repeat("0", 200) + ".000100"},
	{"numeric", "-10000.0001", record.DecimalText, "-10000.0001"},
	{"numeric", "0.00", record.DecimalText, "0.00"},
	{"numeric", "'NaN'", record.DecimalText, "NaN"},
	{"numeric", "'Infinity'", record.DecimalText, "Infinity"},
	{"numeric", "'-Infinity'", record.DecimalText, "-Infinity"},
	{"text", "''", record.Text, ""},
	{"text", "E'q\"\\\\ \\n\\t😀 NULL'", record.Text, "q\"\\ \n\t😀 NULL"},
	{"text", "repeat('m', 1048576)", record.Text, strings.Repeat("m", 1<<20)},
	{"varchar(5)", "'vc'", record.Text, "vc"},
	{"char(5)", "'ab'", record.Text, "ab   "},
	{"name", "'n'", record.Text, "n"},
	{`"char"`, "'c'", record.Text, "c"},
	{"bytea", `'\x00ff005c'`, record.Bytes, "0x00ff005c"},
	{"bytea", `''`, record.Bytes, "0x"},
	{"date", "'2024-02-29'", record.Date, "19782"},
	{"date", "'0044-03-15 BC'", record.Date, "-735160"},
	{"date", "'5874897-12-31'", record.Date, "2145042905"},
	{"date", "'infinity'", record.Date, "2147483647"},
	{"date", "'-infinity'", record.Date, "-2147483648"},
	{"time", "'24:00:00'", record.Time, "86400000000"},
	{"time", "'23:59:59.999999'", record.Time, "86399999999"},
	{"timestamp", "'1969-12-31 23:59:59.999999'", record.Timestamp, "-1"},
	{"timestamp", "'infinity'", record.Timestamp, "9223372036854775807"},
	{"timestamp", "'-infinity'", record.Timestamp, "-9223372036854775808"},
	{"timestamp", "'4713-11-24 00:00:00 BC'", record.Timestamp, "-210835180800000000"},
	{"timestamp", "'294276-12-31 23:59:59.999999'", record.Timestamp, "reject value_out_of_range"},
	{"timestamptz", "'10000-01-01 00:00:00+00'", record.TimestampTZ, "253402300800000000"},
	{"timestamptz", "'1883-11-18 12:03:58-07:52:58'", record.TimestampTZ, "-2717640184000000"},
	{"timestamptz", "'-infinity'", record.TimestampTZ, "-9223372036854775808"},
	{"uuid", "'00112233-4455-6677-8899-aabbccddeeff'", record.UUID, "00112233445566778899aabbccddeeff"},
	{"json", `'{ "b" :1, "a": [1, 2.50], "b":2 }'`, record.JSON, `{ "b" :1, "a": [1, 2.50], "b":2 }`},
	{"jsonb", `'{"ü": "\u00e9😀", "n": 1.10, "z": null}'`, record.JSON, `{"n": 1.10, "z": null, "ü": "é😀"}`},
	{"mood", "'so so'", record.Enum, "so so"},
	{"positive", "7", record.Int32, "7"},
	{"money_amount", "12.34", record.Decimal, "0:4d2"},
	{"int4[]", "'{1,NULL,-3}'", record.Array, "[1;<null>;-3]"},
	{"int4[]", "'{}'", record.Array, "[]"},
	{"text[]", `ARRAY['a', '', 'NULL', NULL, 'q"\,{}', ' x ']`, record.Array, `[a;;NULL;<null>;q"\,{}; x ]`},
	{"numeric(10,2)[]", "'{1.5,-2}'", record.Array, "[0:96;ffffffffffffffff:ffffffffffffff38]"},
	{"timestamptz[]", "'{2000-01-01 00:00:00+00,infinity}'", record.Array, "[946684800000000;9223372036854775807]"},
	{"jsonb[]", `ARRAY['{"a": "b"}'::jsonb]`, record.Array, `[{"a": "b"}]`},
	{"mood[]", "'{happy}'", record.Array, "[happy]"},
	{"bytea[]", `ARRAY['\x0022'::bytea]`, record.Array, "[0x0022]"},
	{"uuid[]", "'{00112233-4455-6677-8899-aabbccddeeff}'", record.Array, "[00112233445566778899aabbccddeeff]"},
	{"int4[]", "'{{1,2},{3,4}}'", record.Array, "reject array_dimensions"},
	{"int4[]", "'[0:1]={1,2}'", record.Array, "reject array_bounds"},
	{"interval", "'1 year -2 mons 3 days 04:05:06.789'", record.Text, "10 mons 3 days 04:05:06.789"},
	{"interval[]", "'{1 day,NULL}'", record.Array, "[1 day;<null>]"},
	{"inet", "'192.168.0.1'", record.Text, ""},
	{"cidr", "'10.0.0.0/8'", record.Text, ""},
	{"macaddr", "'08:00:2b:01:02:03'", record.Text, ""},
	{"timetz", "'04:05:06.789+02:30'", record.Text, ""},
	{"money", "'-1234.50'", record.Text, "-$1,234.50"},
	{"bit(5)", "B'10101'", record.Text, ""},
	{"varbit", "B'1'", record.Text, ""},
	{"int4range", "'[1,5)'", record.Text, ""},
	{"tstzrange", "'[2024-01-01 00:00:00+00,infinity)'", record.Text, `["2024-01-01 00:00:00+00",infinity)`},
	{"int4multirange", "'{[1,3),[5,8)}'", record.Text, ""},
	{"tsvector", "'a fat cat'", record.Text, ""},
	{"xml", "'<a>1</a>'", record.Text, ""},
	{"point", "'(1.5,-2)'", record.Text, ""},
	{"box[]", "'{(1,1),(0,0)}'", record.Text, ""},
	{"oid", "4294967295", record.Text, ""},
	{"pair", `ROW(1, 'a "b"')`, record.Text, `(1,"a ""b""")`},
	{"pg_lsn", "'16/B374D848'", record.Text, ""},
	{"regtype", "'int4'", record.Text, "integer"},
	{"int2vector", "'1 2'", record.Text, "1 2"},
}

const hardTypes = `CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
	CREATE DOMAIN money_amount AS numeric(12,2); CREATE TYPE pair AS (a int, b text)`

// hardTables puts column i, of the type of hard[i], into one of two tables: the
// second holds only types with a binary form, so that its log is read in binary.
func hardTables(t *testing.T, conn *pgx.Conn) (of []string) {
	t.Helper()
	run(t, conn, hardTypes)
	all, some := "CREATE TABLE hard_text (id int PRIMARY KEY", "CREATE TABLE hard_binary (id int PRIMARY KEY"
	kinds := &types{}
	for i, h := range hard {
		col := fmt.Sprintf(", c%d %s", i, h.typ)
		all += col
		oid := query[uint32](t, conn, fmt.Sprintf("SELECT '%s'::regtype::oid", strings.ReplaceAll(h.typ, "'", "''")))
		c := column{name: fmt.Sprint("c", i), typ: oid, typmod: -1}
		if err := kinds.load(context.Background(), conn, []column{c}); err != nil {
			t.Fatal(err)
		}
		if kinds.codec(c).binary() {
			some += col
			of = append(of, "hard_binary")
		} else {
			of = append(of, "hard_text")
		}
	}
	run(t, conn, all+"); "+some+")")
	return of
}

func TestHardValuesAreEqualFromBackfillAndStream(t *testing.T) {
	url, conn := database(t)
	of := hardTables(t, conn)
	for _, table := range []string{"hard_text", "hard_binary"} {
		t.Run(table, func(t *testing.T) {
			absent := map[int]bool{}
			insert := func(base int) {
				for i, h := range hard {
					if table == "hard_text" || of[i] == table {
						_, err := conn.Exec(context.Background(), fmt.Sprintf("INSERT INTO %s (id, c%d) VALUES (%d, (%s)::%s)", table, i, base+i, h.literal, h.typ))
						if sqlState(err) == "0A000" { // servers may be built without xml
							absent[i] = true
						} else if err != nil {
							t.Fatal(h.typ, err)
						}
					}
				}
			}
			insert(0)
			out := newRecorder()
			s := source(t, url, func(c *Config) { c.Slot = "hard_" + table }, "public."+table)
			r := start(t, s, out)
			streams(t, s)
			insert(1000)
			run(t, conn, fmt.Sprintf("INSERT INTO %s (id) VALUES (5000)", table))
			eventually(t, "all values arrive", func() bool { return out.folded(t, "public."+table)["5000|"] != nil })
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			byID := map[string]event{}
			for _, e := range out.rows("public." + table) {
				byID[e.cells[0]] = e
			}
			for i, h := range hard {
				if !absent[i] && (table == "hard_text" || of[i] == table) {
					checkHard(t, conn, i, h.want, h.kind, byID[fmt.Sprint(i)], byID[fmt.Sprint(1000+i)])
				}
			}
		})
	}
}

func checkHard(t *testing.T, conn *pgx.Conn, i int, want string, kind record.Kind, read, streamed event) {
	h := hard[i]
	if want == "" && kind == record.Text && h.typ != "text" {
		want = query[string](t, conn, fmt.Sprintf("SELECT c%d::text FROM hard_text WHERE id = %d", i, i))
		if h.typ == "inet" { // its cast shows a mask, its output does not
			want = strings.TrimSuffix(want, "/32")
		}
	}
	for how, e := range map[string]event{"backfill": read, "stream": streamed} {
		if e.schema == nil {
			t.Errorf("%s %.60s: nothing from %s", h.typ, h.literal, how)
			continue
		}
		at := e.schema.Index(fmt.Sprint("c", i))
		if got := e.schema.Fields[at].Kind; got != kind {
			t.Errorf("%s: kind %s, want %s", h.typ, got, kind)
		}
		got := e.cells[at]
		if code, ok := strings.CutPrefix(want, "reject "); ok {
			if got != unsent || !strings.HasPrefix(e.reject, code+":") {
				t.Errorf("%s %.60s from %s: %.80s, reject %q, want %s", h.typ, h.literal, how, got, e.reject, want)
			}
		} else if got != want || e.reject != "" {
			t.Errorf("%s %.60s from %s: %.80q %s, want %.80q", h.typ, h.literal, how, got, e.reject, want)
		}
	}
	if read.schema != nil && streamed.schema != nil && read.schema.ID != streamed.schema.ID {
		t.Errorf("%s: backfill and stream have different schemas", h.typ)
	}
}

func TestNullsAndKeysOfSeveralColumns(t *testing.T) {
	url, conn := database(t)
	run(t, conn, `CREATE TABLE k (b text, x int, a int, PRIMARY KEY (a, b)); INSERT INTO k VALUES ('one', NULL, 1)`)
	out := newRecorder()
	catchUp(t, url, out, "public.k")
	run(t, conn, `INSERT INTO k VALUES ('two', NULL, 2); DELETE FROM k WHERE a = 1`)
	catchUp(t, url, out, "public.k")
	rows := out.rows("public.k")
	if len(rows) != 3 {
		t.Fatal(rows)
	}
	for i, want := range []string{"[one <null> 1]", "[two <null> 2]", "[one <unsent> 1]"} {
		if got := fmt.Sprint(rows[i].cells); got != want {
			t.Errorf("row %d: %s, want %s", i, got, want)
		}
		if keys := rows[i].schema.Keys(); !slices.Equal(keys, []int{2, 0}) {
			t.Errorf("row %d: keys %v", i, keys)
		}
	}
}
