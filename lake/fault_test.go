package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
	"github.com/sluice-data/sluice/objects"
	"github.com/sluice-data/sluice/record"
)

// badCatalog fails or loses chosen commits.
type badCatalog struct {
	catalog.Catalog
	before, after func() error // nil = nothing
}

func (c *badCatalog) CommitTable(ctx context.Context, id table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	if c.before != nil {
		if err := c.before(); err != nil {
			return nil, "", err
		}
	}
	m, l, err := c.Catalog.CommitTable(ctx, id, reqs, updates)
	if err == nil && c.after != nil {
		if lost := c.after(); lost != nil {
			return nil, "", lost
		}
	}
	return m, l, err
}

func TestLostCommitReply(t *testing.T) {
	for _, mode := range []string{Append, Upsert} {
		w := newWorld(t)
		var lose atomic.Bool
		l := w.open(func(c *Config) {
			c.wrapCatalog = func(cat catalog.Catalog) catalog.Catalog {
				return &badCatalog{Catalog: cat, after: func() error {
					if lose.CompareAndSwap(true, false) {
						return errors.New("the reply is lost")
					}
					return nil
				}}
			}
		})
		u := openWriter(t, l, TableConfig{Mode: mode})
		s := testSchema()
		var want []string
		for i := range 4 {
			u.write(batchOf(t, s, 0, int64(i), row{record.OpInsert, at(1, uint64(i+1)), []any{i, "a", i}}))
			lose.Store(true)
			u.mustFlush()
			want = append(want, fmt.Sprintf("id=%d", i))
		}
		m := u.marks[0]
		m.Next++ // an offsets-only commit whose reply is lost
		u.marks[0] = m
		lose.Store(true)
		u.mustFlush()
		wantRows(t, rowsOf(t, l, "shop.orders", "id"), want...)
		if n := len(u.tbl.tbl.Metadata().Snapshots()); n != 4 {
			t.Errorf("%s: %d snapshots", mode, n)
		}
		u.write(batchOf(t, s, 0, 5, row{record.OpDelete, at(1, 9), []any{2}}))
		u.mustFlush()
		if mode == Upsert {
			wantRows(t, rowsOf(t, l, "shop.orders", "id"), slices.Delete(want, 2, 3)...)
		}
	}
}

func TestTwoWritersOfOnePartition(t *testing.T) {
	for _, mode := range []string{Append, Upsert} {
		w := newWorld(t)
		s := testSchema()
		first := openWriter(t, w.open(nil), TableConfig{Mode: mode})
		first.write(batchOf(t, s, 0, 0, row{record.OpInsert, at(1, 1), []any{1, "a", 1}}))
		first.mustFlush()
		zombie := openWriter(t, w.open(nil), TableConfig{Mode: mode})
		zombie.write(batchOf(t, s, 0, 1, row{record.OpInsert, at(1, 2), []any{2, "zombie", 1}}))
		first.write(batchOf(t, s, 0, 1, row{record.OpInsert, at(1, 2), []any{2, "first", 1}}))
		first.mustFlush()
		if err := zombie.flush(); !errors.Is(err, record.ErrFenced) {
			t.Fatalf("the loser got %v", err)
		}
		if err := zombie.flush(); err == nil {
			t.Error("a fenced writer commits again")
		}
		if _, err := zombie.tbl.Write(t.Context(), batchOf(t, s, 0, 2, row{record.OpInsert, at(1, 3), []any{3, "", 1}})); err == nil {
			t.Error("a fenced writer takes rows")
		}
		wantRows(t, rowsOf(t, first.tbl.lake, "shop.orders", "id", "name"), "id=1 name=a", "id=2 name=first")
	}
}

func TestTwoWritersOfTwoPartitions(t *testing.T) {
	for _, mode := range []string{Append, Upsert} {
		w := newWorld(t)
		s := testSchema()
		x := openWriter(t, w.open(nil), TableConfig{Mode: mode}, 0)
		y := openWriter(t, w.open(nil), TableConfig{Mode: mode}, 1)
		var want []string
		for i := range 5 {
			x.write(batchOf(t, s, 0, int64(2*i), row{record.OpInsert, at(1, uint64(2*i+1)), []any{2 * i, "x", i}}, row{record.OpUpdate, at(1, uint64(2*i+2)), []any{0, "xx", i}}))
			y.write(batchOf(t, s, 1, int64(2*i), row{record.OpInsert, at(1, uint64(2*i+1)), []any{2*i + 1, "y", i}}, row{record.OpUpdate, at(1, uint64(2*i+2)), []any{1, "yy", i}}))
			x.mustFlush()
			y.mustFlush()
			if mode == Append {
				want = append(want, "id=0", "id=1")
			}
			if mode == Append || i > 0 {
				want = append(want, fmt.Sprint("id=", 2*i), fmt.Sprint("id=", 2*i+1))
			}
		}
		if mode == Upsert {
			want = append(want, "id=0", "id=1")
		}
		wantRows(t, rowsOf(t, x.tbl.lake, "shop.orders", "id"), want...)
		if mode == Append {
			continue
		}
		// The partition of y moves to x.
		y.tbl.Close()
		marks, err := x.tbl.Load(t.Context(), []int32{1})
		if err != nil || marks[1] != y.marks[1] {
			t.Fatalf("loaded %+v: %v", marks, err)
		}
		x.marks[1] = marks[1]
		x.write(batchOf(t, s, 1, 10, row{record.OpDelete, at(1, 100), []any{3}}, row{record.OpUpdate, at(1, 101), []any{5, unsent, 50}}))
		x.mustFlush()
		got := rowsOf(t, x.tbl.lake, "shop.orders")
		if len(got) != 9 || !slices.Contains(got, "id=5 name=y n=50") {
			t.Errorf("rows %q", got)
		}
	}
}

// faultyStore fails the n-th write to the store, in the chosen way.
type faultyStore struct {
	left   atomic.Int64 // writes until the fault; it stays from then on unless once
	status int
	once   bool
}

func (f *faultyStore) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut || r.Method == http.MethodPost {
		if n := f.left.Add(-1); n == 0 || n < 0 && !f.once && f.status != 0 {
			body := "<Error><Code>Fault</Code><Message>made up</Message></Error>"
			return &http.Response{StatusCode: f.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)),
				ContentLength: int64(len(body)), Request: r}, nil
		}
	}
	return http.DefaultTransport.RoundTrip(r)
}

// TestFlushFailsAtEveryStep fails each write to the store in turn, then goes
// on as a consumer does: from the stored marks.
func TestFlushFailsAtEveryStep(t *testing.T) {
	for _, mode := range []string{Append, Upsert} {
		w := newWorld(t)
		s := testSchema()
		cfg := TableConfig{Mode: mode}
		base := openWriter(t, w.open(nil), cfg)
		base.write(batchOf(t, s, 0, 0, row{record.OpInsert, at(1, 1), []any{0, "a", 0}}))
		base.mustFlush()
		base.tbl.Close()
		want := []string{"id=0"}
		for n := int64(1); ; n++ {
			fault := &faultyStore{status: http.StatusForbidden, once: true}
			l := w.open(func(c *Config) { c.S3.Transport = fault })
			u := openWriter(t, l, cfg)
			deliver := func(u *writer) error {
				next := u.marks[0].Next
				rows := []row{{record.OpInsert, at(1, uint64(next+1)), []any{int(n), "b", 1}}, {record.OpUpdate, at(1, uint64(next+2)), []any{0, "b", int(n)}}}
				u.write(batchOf(t, s, 0, next, rows...))
				return u.flush()
			}
			before := u.marks[0]
			fault.left.Store(n)
			err := deliver(u)
			hit := fault.left.Load() <= 0
			u.tbl.Close()
			if err != nil {
				fault.left.Store(1 << 40)
				again := openWriter(t, l, cfg)
				if again.marks[0] == before {
					if err := deliver(again); err != nil {
						t.Fatalf("%s, write %d: the second try: %v", mode, n, err)
					}
				}
				again.tbl.Close()
			}
			want = append(want, fmt.Sprint("id=", n))
			if mode == Append {
				want = append(want, "id=0")
			}
			wantRows(t, rowsOf(t, w.open(nil), "shop.orders", "id"), want...)
			if !hit {
				return
			}
			if n > 40 {
				t.Fatal("a flush makes more than 40 writes")
			}
		}
	}
}

func TestStoreErrorsSayWhatAndWhere(t *testing.T) {
	w := newWorld(t)
	s := testSchema()
	fault := &faultyStore{status: http.StatusForbidden}
	l := w.open(func(c *Config) { c.S3.Transport = fault })
	u := openWriter(t, l, TableConfig{Mode: Append})
	fault.left.Store(3)
	_, err := u.tbl.Write(t.Context(), batchOf(t, s, 0, 0, row{record.OpInsert, at(1, 1), []any{1, "a", 1}}))
	if err == nil {
		err = u.flush()
	}
	if !errors.Is(err, objects.ErrForbidden) || !strings.Contains(err.Error(), "s3://"+w.bucket) || !strings.Contains(err.Error(), "grant") {
		t.Errorf("got %v", err)
	}
	missing := w.open(func(c *Config) { c.Warehouse = "s3://no-such-bucket/wh" })
	v := openWriter(t, missing, TableConfig{Mode: Append, Table: "shop.other"})
	ctx, cancel := context.WithCancel(t.Context())
	missing.cfg.Hook = nil
	v.tbl.log = u.tbl.log
	_, err = v.tbl.Write(ctx, batchOf(t, s, 0, 0, row{record.OpInsert, at(1, 1), []any{1, "a", 1}}))
	cancel()
	if !errors.Is(err, objects.ErrNotFound) || !strings.Contains(err.Error(), "create the bucket") {
		t.Errorf("got %v", err)
	}
}
