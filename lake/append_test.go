package lake

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/sluice-data/sluice/record"
)

func TestAppendKeepsEveryChange(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	s := testSchema()
	a := openWriter(t, l, TableConfig{Mode: Append})
	a.write(batchOf(t, s, 0, 0, row{record.OpRead, at(1, 10), []any{1, "a", 5}}, row{record.OpRead, at(1, 10), []any{2, nil, 6}}))
	a.write(batchOf(t, s, 0, 2, row{record.OpUpdate, at(1, 20), []any{1, "b", 5}}, row{record.OpDelete, at(1, 21), []any{2}}))
	a.mustFlush()
	want := []string{
		"id=1 name=a n=5 _op=read _offset=0", "id=2 name=(null) n=6 _op=read _offset=1",
		"id=1 name=b n=5 _op=update _offset=2", "id=2 name=(null) n=(null) _op=delete _offset=3",
	}
	columns := []string{"id", "name", "n", "_op", "_offset"}
	wantRows(t, rowsOf(t, l, "shop.orders", columns...), want...)
	if c := a.marks[0].Counts; c.Delivered != 4 || c.Read != 4 {
		t.Errorf("counts %+v", c)
	}

	// A second process goes on where the first stopped.
	b := openWriter(t, w.open(nil), TableConfig{Mode: Append})
	if b.marks[0] != a.marks[0] {
		t.Fatalf("loaded %+v, want %+v", b.marks[0], a.marks[0])
	}
	b.write(batchOf(t, s, 0, 4, row{record.OpInsert, at(1, 30), []any{3, "c", nil}}))
	b.mustFlush()
	wantRows(t, rowsOf(t, l, "shop.orders", columns...), append(want, "id=3 name=c n=(null) _op=insert _offset=4")...)
}

func TestAppendDirectAndRolling(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	s := testSchema()
	a := openWriter(t, l, TableConfig{Mode: Append, TargetFileBytes: 500_000})
	const batches, size = 6, 5000
	for k := range batches {
		rows := make([]row, size)
		for i := range rows {
			rows[i] = row{record.OpInsert, at(1, uint64(k*size+i)), []any{k*size + i, fmt.Sprintf("%x", sha256.Sum256([]byte{byte(k), byte(i), byte(i >> 8)})), i}}
		}
		a.write(batchOf(t, s, 0, int64(k*size), rows...))
		if a.tbl.Buffered() == 0 {
			t.Error("nothing is buffered")
		}
	}
	a.mustFlush()
	if got := rowsOf(t, l, "shop.orders", "id"); len(got) != batches*size || got[0] != "id=0" {
		t.Errorf("%d rows, first %v", len(got), got[:1])
	}
	set, err := a.tbl.fileSet(t.Context())
	if err != nil || len(set.data) < 2 {
		t.Errorf("%d files, want several: %v", len(set.data), err)
	}
	if a.tbl.Buffered() != 0 {
		t.Errorf("%d bytes buffered after the flush", a.tbl.Buffered())
	}
}

func TestOnlyOffsetsMove(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	a := openWriter(t, l, TableConfig{Mode: Append})
	a.write(batchOf(t, testSchema(), 0, 0, row{record.OpInsert, at(1, 1), []any{1, "a", 5}}))
	a.mustFlush()
	m := a.marks[0]
	m.Next, m.Counts.Read, m.Counts.Filtered = 7, m.Counts.Read+6, 6
	a.marks[0] = m
	a.mustFlush()
	b := openWriter(t, w.open(nil), TableConfig{Mode: Append})
	if b.marks[0] != m {
		t.Errorf("loaded %+v, want %+v", b.marks[0], m)
	}
	if n := len(b.tbl.tbl.Metadata().Snapshots()); n != 1 {
		t.Errorf("%d snapshots", n)
	}
}

func TestTruncateAndNewBackfillOfAppend(t *testing.T) {
	w := newWorld(t)
	l := w.open(nil)
	s := testSchema()
	a := openWriter(t, l, TableConfig{Mode: Append}, 0, 1)
	a.write(batchOf(t, s, 0, 0, row{record.OpRead, at(1, 1), []any{1, "a", 1}}))
	a.write(batchOf(t, s, 1, 0, row{record.OpRead, at(1, 1), []any{2, "a", 1}}))
	a.write(batchOf(t, s, 0, 1, row{record.OpInsert, at(1, 2), []any{3, "a", 1}}))
	a.mustFlush()
	a.write(batchOf(t, s, 0, 2, row{record.OpRead, at(1, 2), []any{4, "x", 1}}))
	a.write(controlOf(s, record.OpBackfillBegin, 0, 3, at(2, 3)))
	a.write(batchOf(t, s, 0, 4, row{record.OpRead, at(2, 3), []any{5, "b", 1}}))
	a.mustFlush()
	wantRows(t, rowsOf(t, l, "shop.orders", "id"), "id=2", "id=3", "id=5")
	if c := a.marks[0].Counts; c.Superseded != 1 || c.Delivered != 3 {
		t.Errorf("counts %+v", c)
	}

	// A truncate is a change like others: it is written down and takes nothing away.
	a.write(controlOf(s, record.OpTruncate, 0, 5, at(2, 9)))
	a.mustFlush()
	a.write(controlOf(s, record.OpTruncate, 1, 1, at(2, 9)))
	a.write(batchOf(t, s, 1, 2, row{record.OpInsert, at(2, 10), []any{6, "b", 1}}))
	a.mustFlush()
	wantRows(t, rowsOf(t, l, "shop.orders", "id", "_op", "_partition", "_lsn"), "id=2 _op=read _lsn=1 _partition=1", "id=3 _op=insert _lsn=2 _partition=0",
		"id=5 _op=read _lsn=3 _partition=0", "id=(null) _op=truncate _lsn=9 _partition=0", "id=(null) _op=truncate _lsn=9 _partition=1", "id=6 _op=insert _lsn=10 _partition=1")
	if c := a.marks[0].Counts; c.Delivered != 3 || c.Read != 4 {
		t.Errorf("counts of partition 0 %+v", c)
	}
	if c := a.marks[1].Counts; c.Delivered != 2 || c.Read != 2 {
		t.Errorf("counts of partition 1 %+v", c)
	}
	b := openWriter(t, w.open(nil), TableConfig{Mode: Append, PartitionBy: []string{"bucket(4, id)"}, SortBy: []string{"n"}, Table: "shop.sorted"})
	b.write(batchOf(t, s, 0, 0, row{record.OpInsert, at(2, 1), []any{6, "b", 1}}))
	b.write(controlOf(s, record.OpTruncate, 0, 1, at(2, 9)))
	b.mustFlush()
	wantRows(t, rowsOf(t, l, "shop.sorted", "id", "_op"), "id=6 _op=insert", "id=(null) _op=truncate")
}
