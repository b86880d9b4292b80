package activation

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/record"
)

// swift applies everything at once.
type swift struct{}

func (swift) Send(_ context.Context, req delivery.Request) []delivery.Result {
	out := make([]delivery.Result, len(req.Changes))
	for i := range out {
		out[i] = delivery.Result{Outcome: delivery.Applied, Status: 200, ID: "1234567890", Created: true}
	}
	return out
}

func (swift) Read(context.Context, string, string, []string, []string) ([]delivery.Found, error) {
	return nil, ErrUnreadable
}

func (swift) Describe(context.Context, string) (delivery.Object, error) {
	return delivery.Object{}, nil
}

var wide = func() *record.Schema {
	s := &record.Schema{Stream: customers.Stream, Fields: []record.Field{{Name: "id", Kind: record.Int64, Key: 1}, {Name: "email", Kind: record.Text}}}
	for i := range 8 {
		s.Fields = append(s.Fields, record.Field{Name: fmt.Sprint("f", i), Kind: record.Text})
	}
	return s.Seal()
}()

func wideBatch(from, n int, version int) *record.Batch {
	b := record.NewBatch(wide, nil)
	for i := from; i < from+n; i++ {
		b.Ops, b.Time, b.Offsets = append(b.Ops, record.OpUpdate), append(b.Time, 1), append(b.Offsets, int64(version*100_000_000+i))
		b.Pos = append(b.Pos, record.Position{Epoch: 1, LSN: uint64(version*100_000_000 + i + 1), Seq: 2})
		b.After[0].AppendInt64(int64(i))
		b.After[1].AppendData(strconv.AppendInt([]byte("customer"), int64(i), 10))
		for f := range 8 {
			b.After[2+f].AppendData([]byte("some text of a field " + strconv.Itoa(i+f*version)))
		}
	}
	return b
}

// cpu returns the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkEngine sends keys of ten fields to a destination that answers at
// once, and then reads the same rows again, unchanged. SLUICE_ACTIVATION_KEYS
// says how many keys the state has (default 100,000).
func BenchmarkEngine(b *testing.B) {
	keys := number("SLUICE_ACTIVATION_KEYS", 100_000)
	path := filepath.Join(b.TempDir(), "state.db")
	st, err := state.Open(b.Context(), "sqlite:"+path)
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	conn, err := st.Connection(b.Context(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	cfg := Config{Name: "bench", Stream: wide.Stream, Object: "contacts", Operation: delivery.Upsert, Match: Field{Name: "email", From: "email"}}
	for f := range 8 {
		cfg.Fields = append(cfg.Fields, Field{Name: fmt.Sprint("f", f), From: fmt.Sprint("f", f)})
	}
	c, err := New(cfg, swift{}, conn, Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		b.Fatal(err)
	}
	s, err := c.Sink(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Load(b.Context(), []int32{0}); err != nil {
		b.Fatal(err)
	}
	const rows = 10_000
	pass := func(b *testing.B, version int) {
		var used time.Duration
		n := 0
		for b.Loop() {
			for from := 0; from < keys; from += rows {
				batch := wideBatch(from, min(rows, keys-from), version)
				start := cpu()
				if _, err := s.Write(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
				if _, err := s.Flush(b.Context(), map[int32]record.Mark{0: {Next: int64(from)}}); err != nil {
					b.Fatal(err)
				}
				used += cpu() - start
			}
			n += keys
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(n)/used.Seconds(), "keys/cpu-s")
		b.ReportMetric(float64(m.HeapInuse)/1e6, "heap-MB")
		if info, err := os.Stat(path); err == nil {
			b.ReportMetric(float64(info.Size())/float64(keys), "state-B/key")
		}
	}
	b.Run("create", func(b *testing.B) { pass(b, 1) })
	b.Run("unchanged", func(b *testing.B) { pass(b, 1) })
	version := 1
	b.Run("update", func(b *testing.B) {
		version++
		pass(b, version)
	})
}
