package postgres

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-data/sluice/record"
)

// epochs returns the epochs of a stream's events of one op.
func (r *recorder) epochs(stream string, op record.Op) []uint64 {
	var out []uint64
	for _, e := range r.all() {
		if e.stream == stream && e.op == op {
			out = append(out, e.pos.Epoch)
		}
	}
	return out
}

// TestBackfillOnRequest: a stream that is asked for is loaded anew under a
// higher epoch while everything is being changed, the other one goes on under
// its own, and what is recorded last is what the tables hold.
func TestBackfillOnRequest(t *testing.T) {
	url, conn := database(t)
	run(t, conn, itemsSQL)
	run(t, conn, `CREATE TABLE other (id int PRIMARY KEY)`)
	run(t, conn, `INSERT INTO items SELECT i, i % 7, repeat('x', 50) FROM generate_series(1, 5000) i`)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	c := dial(t, url)
	writers.Go(func() { writeItems(t, c, 7, stop) })
	out := newRecorder()
	s := source(t, url, nil, "public.items", "public.other")
	name := record.StreamName{Source: s.cfg.Name, Namespace: "public", Name: "items"}
	r := start(t, s, out)
	eventually(t, "the first backfill is over", func() bool { return len(out.epochs("public.items", record.OpBackfillEnd)) == 1 })

	var taken atomic.Int32
	for range 2 { // asked twice before the first is begun: one backfill
		if err := s.Backfill(name, func() { taken.Add(1) }); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the stream is loaded anew", func() bool {
		ends := out.epochs("public.items", record.OpBackfillEnd)
		return taken.Load() == 2 && len(ends) >= 2
	})
	run(t, conn, `INSERT INTO other SELECT generate_series(1, 10)`)
	eventually(t, "the other stream goes on", func() bool { return len(out.epochs("public.other", record.OpInsert)) == 10 })
	close(stop)
	writers.Wait()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	// Asked for before the start: the next run does it.
	again := source(t, url, func(c *Config) { c.UntilCaughtUp = true }, "public.items", "public.other")
	before := len(out.epochs("public.items", record.OpBackfillEnd))
	if err := again.Backfill(name, func() { taken.Add(1) }); err != nil {
		t.Fatal(err)
	}
	if err := again.Run(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	ends := out.epochs("public.items", record.OpBackfillEnd)
	if len(ends) != before+1 || taken.Load() != 3 {
		t.Errorf("backfills of epochs %v, %d requests taken", ends, taken.Load())
	}
	for i := 1; i < len(ends); i++ {
		if ends[i] <= ends[i-1] {
			t.Errorf("epochs %v do not rise", ends)
		}
	}
	if others := out.epochs("public.other", record.OpBackfillEnd); len(others) != 1 {
		t.Errorf("the other stream was loaded %d times", len(others))
	}
	sameItems(t, conn, out)
	if err := again.Backfill(record.StreamName{Source: s.cfg.Name, Namespace: "public", Name: "nobody"}, nil); err == nil {
		t.Error("a stream that nobody reads was accepted")
	}
}
