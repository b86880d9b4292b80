package topic

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// cpu returns the CPU time of this process, broker included.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// nullSink counts rows and keeps marks in memory.
type nullSink struct {
	marks map[int32]record.Mark
	rows  map[int32]int64
	bytes int
}

func (n *nullSink) Load(context.Context, []int32) (map[int32]record.Mark, error) { return n.marks, nil }
func (n *nullSink) Buffered() int                                                { return n.bytes }
func (n *nullSink) Close() error                                                 { return nil }
func (n *nullSink) Write(_ context.Context, b *record.Batch) ([]record.Reject, error) {
	n.rows[b.Partition.Partition] += int64(b.Len())
	n.bytes += b.Bytes()
	b.Release()
	return nil, nil
}

func (n *nullSink) Flush(_ context.Context, marks map[int32]record.Mark) (map[int32]record.Mark, error) {
	for p, m := range marks {
		m.Counts.Delivered += n.rows[p]
		n.marks[p], n.rows[p] = m, 0
	}
	n.bytes = 0
	return n.marks, nil
}

// BenchmarkRow publishes and consumes b.N rows of about 300 bytes; the figures
// are CPU time per row, with the embedded kind of broker in the same process.
func BenchmarkRow(b *testing.B) {
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- RunEmbedded(ctx, EmbeddedConfig{Dir: b.TempDir(), Ready: func(addr string) { ready <- addr }})
	}()
	defer func() { cancel(); <-ended }()
	k, err := Connect(ctx, Config{Brokers: []string{<-ready}, Prefix: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	p, err := k.Publisher("db", record.Origin{Connector: "postgresql", Name: "bench", Database: "db"}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	s := testSchema("rows")
	for i := range 8 {
		s.Fields = append(s.Fields, record.Field{Name: fmt.Sprint("number_", i), Kind: record.Int64})
	}
	s.Seal()
	const size = 4096
	b.ResetTimer()
	start := cpu()
	for at := 0; at < b.N; at += size {
		rows := record.NewBatch(s, nil)
		for i := at; i < min(at+size, b.N); i++ {
			rows.Ops, rows.Pos, rows.Time = append(rows.Ops, record.OpRead), append(rows.Pos, record.Position{Epoch: 1, LSN: 1}), append(rows.Time, 1)
			rows.After[0].AppendInt64(int64(i))
			rows.After[1].AppendData([]byte("a text of some length"))
			for _, v := range rows.After[2:] {
				v.AppendInt64(int64(i) * 7919)
			}
		}
		if err := p.Publish(ctx, rows); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	published := cpu()
	sink := &nullSink{marks: map[int32]record.Mark{}, rows: map[int32]int64{}}
	c, err := k.Consume(ctx, ConsumerConfig{Name: "null", Board: new(progress.Board), Streams: []Stream{{Name: s.Stream,
		Open: func(context.Context) (Sink, error) { return sink, nil }}}})
	if err != nil {
		b.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- c.Run(run) }()
	if err := c.CatchUp(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(published-start)/float64(b.N), "publish-cpu-ns/row")
	b.ReportMetric(float64(cpu()-published)/float64(b.N), "consume-cpu-ns/row")
	stop()
	<-done
}
