package lake

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/record"
)

func TestSchemaChanges(t *testing.T) {
	id := record.Field{Name: "id", Kind: record.Int32, Key: 1}
	field := func(name string, k record.Kind) record.Field {
		return record.Field{Name: name, Kind: k, Nullable: true}
	}
	decimal := func(name string, p, s int) record.Field {
		return record.Field{Name: name, Kind: record.Decimal, Precision: p, Scale: s, Nullable: true}
	}
	for _, mode := range []string{Append, Upsert} {
		w := newWorld(t)
		l := w.open(nil)
		u := openWriter(t, l, TableConfig{Mode: mode}, 0, 1)
		v1 := testSchema(id, field("a", record.Int32), field("b", record.Float32), decimal("c", 5, 2), field("d", record.Int32), field("gone", record.Text))
		u.write(batchOf(t, v1, 0, 0, row{record.OpInsert, at(1, 1), []any{1, 1, 1.5, 150, 4, "x"}}))
		u.mustFlush()
		// Wider columns, a new one, one that is gone, one of another type; no flush in between.
		u.write(batchOf(t, v1, 0, 1, row{record.OpInsert, at(1, 2), []any{2, 2, 2.5, 250, 5, "y"}}))
		wide := record.Field{Name: "id", Kind: record.Int64, Key: 1}
		v2 := testSchema(wide, field("a", record.Int64), field("b", record.Float64), decimal("c", 12, 2), field("d", record.Text), field("e", record.Bool))
		u.write(batchOf(t, v2, 0, 2, row{record.OpInsert, at(1, 3), []any{3, 1 << 40, 3.25, 99999999, "four", true}}))
		// The other partition still sends the old schema.
		u.write(batchOf(t, v1, 1, 0, row{record.OpInsert, at(1, 1), []any{4, 4, 4.5, 450, 6, "z"}}))
		u.mustFlush()
		if mode == Upsert { // an update of a row in an old file, with cells from there
			u.write(batchOf(t, v2, 0, 3, row{record.OpUpdate, at(1, 4), []any{1, unsent, unsent, unsent, "one", unsent}}, row{record.OpDelete, at(1, 5), []any{2}}))
			u.mustFlush()
		}
		got := rowsOf(t, l, "shop.orders", "id", "a", "b", "c", "d__1", "gone", "d", "e")
		want := []string{
			"id=3 a=1099511627776 b=3.25 c=999999.99 d__1=(null) gone=(null) d=four e=true",
			"id=4 a=4 b=4.5 c=4.5 d__1=6 gone=z d=(null) e=(null)",
		}
		if mode == Upsert {
			want = append(want, "id=1 a=1 b=1.5 c=1.5 d__1=(null) gone=(null) d=one e=(null)")
		} else {
			want = append(want, "id=1 a=1 b=1.5 c=1.5 d__1=4 gone=x d=(null) e=(null)", "id=2 a=2 b=2.5 c=2.5 d__1=5 gone=y d=(null) e=(null)")
		}
		wantRows(t, got, want...)
	}
}

func TestFitIsStable(t *testing.T) {
	s := testSchema()
	sc, err := newSchema(s, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, changes, err := fit(sc, s, true); err != nil || len(changes) != 0 {
		t.Errorf("a new table needs %v: %v", describe(changes), err)
	}
	clash := testSchema(record.Field{Name: "_op", Kind: record.Int32})
	if columns, changes, err := fit(sc, clash, true); err != nil || columns[0] != "_op__source" || len(changes) != 1 {
		t.Errorf("columns %v, changes %s: %v", columns, describe(changes), err)
	}
}

// TestEveryKind writes each kind with hard values and reads it back.
func TestEveryKind(t *testing.T) {
	uuid := []byte("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff")
	elem := &record.Field{Name: "element", Kind: record.Int32, Nullable: true}
	kinds := []struct {
		f      record.Field
		values []any
		want   []string
	}{
		{record.Field{Kind: record.Bool}, []any{true, false, nil}, []string{"true", "false", "(null)"}},
		{record.Field{Kind: record.Int16}, []any{math.MinInt16, math.MaxInt16, 0}, []string{"-32768", "32767", "0"}},
		{record.Field{Kind: record.Int32}, []any{math.MinInt32, math.MaxInt32, nil}, []string{"-2147483648", "2147483647", "(null)"}},
		{record.Field{Kind: record.Int64}, []any{math.MinInt64, math.MaxInt64, nil}, []string{"-9223372036854775808", "9223372036854775807", "(null)"}},
		{record.Field{Kind: record.Float32}, []any{1.5, math.Inf(1), nil}, []string{"1.5", "+Inf", "(null)"}},
		{record.Field{Kind: record.Float64}, []any{math.NaN(), math.Copysign(0, -1), math.Inf(-1)}, []string{"NaN", "-0", "-Inf"}},
		{record.Field{Kind: record.Decimal, Precision: 9, Scale: 2}, []any{-12345, 999999999, nil}, []string{"-123.45", "9999999.99", "(null)"}},
		{record.Field{Kind: record.Decimal, Precision: 18, Scale: 0}, []any{-1, 999999999999999999, nil}, []string{"-1", "999999999999999999", "(null)"}},
		{record.Field{Kind: record.Decimal, Precision: 38, Scale: 10}, []any{-1, 10000000000, nil}, []string{"-1e-10", "1", "(null)"}},
		{record.Field{Kind: record.DecimalText}, []any{"NaN", "1" + strings.Repeat("0", 50), nil}, []string{"NaN", "1" + strings.Repeat("0", 50), "(null)"}},
		{record.Field{Kind: record.Text}, []any{"", "naïve ☃", nil}, []string{"", "naïve ☃", "(null)"}},
		{record.Field{Kind: record.Bytes}, []any{[]byte{0, 1, 255}, []byte{}, nil}, []string{"AAH/", "", "(null)"}},
		{record.Field{Kind: record.Date}, []any{-719162, 2932896, nil}, []string{"0001-01-01", "9999-12-31", "(null)"}},
		{record.Field{Kind: record.Time}, []any{0, 86_400_000_000, 3_723_000_450}, []string{"00:00:00", "24:00:00", "01:02:03.00045"}},
		{record.Field{Kind: record.Timestamp}, []any{-1, 0, nil}, []string{"1969-12-31T23:59:59.999999", "1970-01-01T00:00:00", "(null)"}},
		{record.Field{Kind: record.TimestampTZ}, []any{-1, 1_700_000_000_000_001, nil}, []string{"1969-12-31T23:59:59.999999Z", "2023-11-14T22:13:20.000001Z", "(null)"}},
		{record.Field{Kind: record.UUID}, []any{uuid, nil, uuid}, []string{"00112233-4455-6677-8899-aabbccddeeff", "(null)", "00112233-4455-6677-8899-aabbccddeeff"}},
		{record.Field{Kind: record.JSON}, []any{`{"a":1}`, "null", nil}, []string{`{"a":1}`, "null", "(null)"}},
		{record.Field{Kind: record.Enum}, []any{"x", "y", nil}, []string{"x", "y", "(null)"}},
		{record.Field{Kind: record.Array, Elem: elem}, []any{[]any{1, nil, 3}, []any{}, nil}, []string{"[1,null,3]", "[]", "(null)"}},
	}
	fields := []record.Field{{Name: "id", Kind: record.Int32, Key: 1}}
	rows := make([]row, 3)
	want := make([]string, 3)
	for i := range rows {
		rows[i] = row{record.OpInsert, at(1, uint64(i+1)), []any{i}}
		want[i] = fmt.Sprintf("id=%d", i)
	}
	for k, c := range kinds {
		c.f.Name, c.f.Nullable = fmt.Sprintf("c%02d", k), true
		fields = append(fields, c.f)
		for i := range rows {
			rows[i].values = append(rows[i].values, c.values[i])
			want[i] += fmt.Sprintf(" %s=%s", c.f.Name, c.want[i])
		}
	}
	w := newWorld(t)
	l := w.open(nil)
	s := testSchema(fields...)
	u := openWriter(t, l, TableConfig{Mode: Upsert})
	u.write(batchOf(t, s, 0, 0, rows...))
	u.mustFlush()
	wantRows(t, rowsOf(t, l, "shop.orders"), want...)

	// The same values survive the way through the reader of old rows.
	for i := range rows {
		values := []any{i}
		for range kinds {
			values = append(values, unsent)
		}
		rows[i] = row{record.OpUpdate, at(1, uint64(i+10)), values}
	}
	u.write(batchOf(t, s, 0, 3, rows...))
	u.mustFlush()
	wantRows(t, rowsOf(t, l, "shop.orders"), want...)
}

func TestInfinityIsRejected(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	s := testSchema(record.Field{Name: "id", Kind: record.Int32, Key: 1}, record.Field{Name: "d", Kind: record.Date}, record.Field{Name: "ts", Kind: record.TimestampTZ})
	for _, mode := range []string{Append, Upsert} {
		u := openWriter(t, l, TableConfig{Mode: mode, Table: "shop." + mode})
		rejects := u.write(batchOf(t, s, 0, 0, row{record.OpInsert, at(1, 1), []any{1, 1, 1}}, row{record.OpInsert, at(1, 2), []any{2, math.MaxInt32, 1}},
			row{record.OpInsert, at(1, 3), []any{3, 1, math.MinInt64}}))
		u.mustFlush()
		if len(rejects) != 2 || rejects[0].Row != 1 || rejects[1].Row != 2 || rejects[1].Code != "value_out_of_range" || !strings.HasPrefix(rejects[1].Reason, "ts: ") {
			t.Errorf("rejects %+v", rejects)
		}
		wantRows(t, rowsOf(t, l, u.tbl.cfg.Table, "id"), "id=1")
	}
}

func TestKeysOfSeveralKinds(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	s := testSchema(record.Field{Name: "u", Kind: record.UUID, Key: 2}, record.Field{Name: "h", Kind: record.Time, Key: 1},
		record.Field{Name: "d", Kind: record.Decimal, Precision: 10, Scale: 2, Key: 3}, record.Field{Name: "v", Kind: record.Int32, Nullable: true})
	uuid := make([]byte, 16)
	for round := range 2 {
		u := openWriter(t, w.open(nil), TableConfig{Mode: Upsert})
		u.write(batchOf(t, s, 0, int64(2*round), row{record.OpInsert, at(1, uint64(2*round+1)), []any{uuid, 3600_000_000, 150, round}},
			row{record.OpInsert, at(1, uint64(2*round+2)), []any{uuid, 3600_000_001, 150, round}}))
		u.mustFlush()
		if got := rowsOf(t, l, "shop.orders", "v"); !slices.Equal(got, []string{fmt.Sprint("v=", round), fmt.Sprint("v=", round)}) {
			t.Errorf("round %d: %q", round, got)
		}
		u.tbl.Close()
	}
}

func TestPartitionByIsParsed(t *testing.T) {
	sc, err := newSchema(testSchema(record.Field{Name: "id", Kind: record.Int32, Key: 1}, record.Field{Name: "created_at", Kind: record.TimestampTZ}, record.Field{Name: "tags", Kind: record.Array, Elem: &record.Field{Kind: record.Text}}), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ text, want string }{
		{"day(created_at)", "created_at_day day"}, {"hours(created_at)", "created_at_hour hour"}, {"bucket(16, id)", "id_bucket bucket[16]"},
		{"bucket( id , 4 )", "id_bucket bucket[4]"}, {"truncate(10,id)", "id_trunc truncate[10]"}, {"id", "id identity"},
		{"day(id)", ""}, {"bucket(id)", ""}, {"week(created_at)", ""}, {"day(nothing)", ""}, {"tags", ""}, {"", ""},
	} {
		spec, err := parsePartitionBy([]string{tc.text}, sc)
		got := ""
		if err == nil {
			f := spec.Field(0)
			got = f.Name + " " + f.Transform.String()
		}
		if got != tc.want {
			t.Errorf("%q: %q, %v", tc.text, got, err)
		}
	}
}

func TestInspect(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	s := testSchema()
	u := openWriter(t, l, TableConfig{Mode: Upsert, PartitionBy: []string{"bucket(2, id)"}})
	u.write(batchOf(t, s, 0, 0, row{record.OpInsert, at(1, 1), []any{1, "a", 1}}, row{record.OpInsert, at(1, 2), []any{2, "a", 1}}))
	u.mustFlush()
	u.write(batchOf(t, s, 0, 2, row{record.OpUpdate, at(1, 3), []any{1, "b", 1}}))
	u.mustFlush()
	i, err := l.Inspect(t.Context(), "shop.orders")
	if err != nil {
		t.Fatal(err)
	}
	m := i.Marks["sluice.shop."+testTopic+".0"]
	if i.Rows != 2 || i.DeleteFiles != 1 || len(i.Snapshots) != 2 || m.Next != 3 || len(i.Columns) != 3 || !i.Columns[0].Key ||
		i.Snapshots[1].Summary[summarySourceMS] == "" || i.Partition[0] != "bucket[2](id)" {
		t.Errorf("%+v", i)
	}
}
