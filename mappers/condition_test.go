package mappers

import (
	"errors"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/record"
)

// truths evaluates a condition over rows of s, one letter a row: T, F, N (unknown), U (unsent).
func truths(t *testing.T, s *record.Schema, where string, rows ...string) string {
	t.Helper()
	c, syntax := parseCondition(where)
	if syntax != nil {
		t.Fatalf("%s: %v", where, syntax)
	}
	bind := &binder{read: map[int]bool{}, names: func() []string { return nil }}
	for i := range s.Fields {
		bind.cols = append(bind.cols, column{field: s.Fields[i], slot: i})
	}
	n, err := bind.bind(c)
	if err != nil {
		t.Fatalf("%s: %s", where, err.msg)
	}
	b := batchOf(t, s, rows...)
	e := &evaluation{n: b.Len(), first: b.After, second: b.Before}
	out := make([]byte, b.Len())
	n.eval(e, out)
	if e.used != 0 {
		t.Fatalf("%s: memory was not put back", where)
	}
	var text strings.Builder
	for _, o := range out {
		text.WriteByte("FTNU"[o])
	}
	return text.String()
}

func TestConditions(t *testing.T) {
	s := schemaOf("i int16, n int64, d decimal(10,2), x decimaltext, f float64, t text, b bool, day date, z timestamptz, u uuid, e enum, j json, m int64, raw bytes")
	rows := []string{
		"insert | 1, 10, 10.50, 10.5, 1.5, paid, true, 2024-02-29, 2024-02-29T12:00:00Z, 00000000-0000-0000-0000-000000000001, new, {}, 10, ab",
		"insert | -5, -1, -0.01, NaN, NaN, open, false, infinity, -infinity, 00000000-0000-0000-0000-0000000000ff, old, [], 5, zz",
		"insert | NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
		"insert | 7, 9223372036854775807, 99999999.99, -123456789012345678901234567890.5, -Infinity, a_b%c, true, -0043-03-15, 2024-03-01T00:00:00Z, 00000000-0000-0000-0000-000000000002, new, 1, -, ",
	}
	for _, c := range []struct{ where, want string }{
		{"i = 1", "TFNF"}, {"i <> 1", "FTNT"}, {"1 = i", "TFNF"}, {"2 > i", "TTNF"}, {"i >= 0.5", "TFNT"}, {"i < 0.5", "FTNF"}, {"i = 0.5", "FFNF"},
		{"i > 99999999999999999999", "FFNF"}, {"i > -99999999999999999999", "TTNT"}, {"i <> 1e30", "TTNT"},
		{"n >= 9223372036854775807", "FFNT"}, {"n > 9223372036854775806.5", "FFNT"}, {"n between 0 and 10", "TFNF"}, {"n not between 0 and 10", "FTNT"},
		{"d = 10.5", "TFNF"}, {"d > 10.499", "TFNT"}, {"d < 10.501", "TTNF"}, {"d >= -0.01", "TTNT"}, {"d > -0.011", "TTNT"}, {"d < -0.001", "FTNF"}, {"d <= 99999999.99", "TTNT"},
		{"d < 1e60", "TTNT"}, {"x = 10.50", "TFNF"}, {"x > 10.4", "TTNF"}, {"x < -1e29", "FFNT"}, {"x >= 10.5", "TTNF"},
		{"f = 1.5", "TFNF"}, {"f > 1e300", "FTNF"}, {"f < 0", "FFNT"}, {"f <> 1.5", "FTNT"},
		{"t = 'paid'", "TFNF"}, {"t <> 'paid'", "FTNT"}, {"t < 'p'", "FTNT"}, {"t in ('paid', 'x')", "TFNF"}, {"t not in ('paid')", "FTNT"},
		{"t like 'p%'", "TFNF"}, {"t like '%n'", "FTNF"}, {"t like '%a%'", "TFNT"}, {"t like 'paid'", "TFNF"}, {"t like '_a_d'", "TFNF"}, {"t like '____'", "TTNF"},
		{`t like 'a\_b\%%'`, "FFNT"}, {"t like '%'", "TTNT"}, {"t ilike 'P%D'", "TFNF"}, {"t like ''", "FFNF"}, {"t not like '%a%'", "FTNF"}, {"t like 'p%i%d'", "TFNF"},
		{"b", "TFNT"}, {"not b", "FTNF"}, {"b = false", "FTNF"}, {"b is null", "FFTF"}, {"b is not null", "TTFT"},
		{"day = '2024-02-29'", "TFNF"}, {"day > '2024-01-01'", "TTNF"}, {"day < '0000-01-01'", "FFNT"}, {"day = 'infinity'", "FTNF"},
		{"z < '2024-02-29T14:00:00+01:00'", "TTNF"}, {"z >= '2024-03-01'", "FFNT"}, {"z = '-infinity'", "FTNF"},
		{"u = '00000000-0000-0000-0000-000000000001'", "TFNF"}, {"u > '00000000000000000000000000000001'", "FTNT"},
		{"e = 'new'", "TFNT"}, {"e in ('old', 'x')", "FTNF"}, {"j is null", "FFTF"}, {`raw = '\x6162'`, "TFNF"}, {`raw = '\x'`, "FFNT"},
		{"n = m", "TFNU"}, {"n < m", "FTNU"}, {"i < n", "TTNT"}, {"m = 10", "TFNU"}, {"m is null", "FFTU"},
		{"i = 1 and m = 10", "TFNF"}, {"i = 7 or m = 10", "TFNT"}, {"i = 7 and m = 10", "FFNU"}, {"not (i = 7 and m = 10)", "TTNU"}, {"b is null or t = 'open'", "FTTF"},
		{"true", "TTTT"}, {"false or not true", "FFFF"}, {"i = 1 or n = -1 and b", "TFNF"}, {"(i = 1 or n = -1) and b", "TFNF"}, {"NOT i = 1 AND not b is NULL", "FTFT"},
	} {
		if got := truths(t, s, c.where, rows...); got != c.want {
			t.Errorf("%s: got %s, want %s", c.where, got, c.want)
		}
	}
	// Unsent cells are taken from the old row.
	kv := schemaOf("id int64 key, v int64, w int64")
	old := []string{"update | 1, -, 1 | 1, 5, 7", "update | 1, -, 1", "update | 1, 4, - | 1, 5, 4", "update | 1, NULL, 1 | 1, 5, 1"}
	for where, want := range map[string]string{"v = 5": "TUFN", "v = w": "FUTN", "v is null": "FUFT", "w = 1": "TTFT"} {
		if got := truths(t, kv, where, old...); got != want {
			t.Errorf("%s with old rows: got %s, want %s", where, got, want)
		}
	}
}

func TestConditionErrors(t *testing.T) {
	s := schemaOf("id int64 key, status text, day date, tags text[], e enum, doc json")
	for _, c := range []struct {
		where, want string
		offset      int
	}{
		{"status = 'a", "a quote is not closed", 9},
		{"status == 'a'", "unexpected ==; equality is =", 7},
		{"status = ", "want a field or a value, got the end", 9},
		{"status = null", "nothing is equal to null; write is null or is not null", 9},
		{"stauts = 'a'", "there is no field stauts here; did you mean status?", 0},
		{`id = 1 and "Id" = 2`, "there is no field Id here; did you mean id?", 11},
		{"id = 'a'", "id is int64 and is compared with a text; want a number", 5},
		{"status = 1", "status is text and is compared with a number; want a text in quotes", 9},
		{"day = '2023-02-29'", "day is date and is compared with a text; want a date as '2024-02-29'", 6},
		{"id like 'a'", "want a text field before like", 0},
		{"status like status", "want a pattern in quotes after like", 12},
		{`status like 'a\'`, `the pattern ends with its escape character \`, 12},
		{"id in (1, 'x')", "id is int64 and is compared with a text; want a number", 10},
		{"id in (1 2)", "want ), got a number", 9},
		{"id in (id)", "want a value, not a field, in the list", 7},
		{"status", "status is text, not a condition; compare it with something", 0},
		{"'x'", "a value is no condition", 0},
		{"1 = 1", "two values are compared; one side must be a field", 2},
		{"lower(status) = 'a'", "there is no function lower", 0},
		{"id = 1 id = 2", "unexpected id", 7},
		{"id = status", "id (int64) and status (text) cannot be compared; cast one of them", 3},
		{"e > 'a'", "e is enum and has no order; use =, <> or in", 2},
		{"tags = 'a'", "tags is array; only is null works on it", 7},
		{"id is 1", "want null, got a number", 6},
		{"id not 1", "want in, between or like after not, got a number", 7},
		{"id ? 1", `unexpected character '?'`, 3},
		{strings.Repeat("(", 300), "the condition is nested too deeply", 200},
		{strings.Repeat("not ", 300) + "true", "the condition is nested too deeply", 796},
		{"id = 1.2.3", "id is int64 and is compared with a number; want a number such as 12.5", 5},
	} {
		_, err := Compile([]Rule{{Filter: &Filter{Where: c.where}}}, s, nil, Shape)
		var list Errors
		if !errors.As(err, &list) || len(list) != 1 {
			t.Errorf("%.40s: got %v", c.where, err)
			continue
		}
		if list[0].Msg != c.want || list[0].Offset != c.offset || list[0].Path != "where" {
			t.Errorf("%.40s: got %d %q, want %d %q", c.where, list[0].Offset, list[0].Msg, c.offset, c.want)
		}
	}
}
