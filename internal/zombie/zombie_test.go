package zombie

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sluice-data/sluice/internal/kafkatest"
)

// TestTwoProcessesShareTables has several processes of one consumer group write
// the same tables while the database is changed. One stands still past its
// session in the middle of a commit, another at any moment, and one is replaced
// as a rolling deploy does it. Invariant 11: the loser is fenced by the table,
// nothing is lost and nothing is there twice.
func TestTwoProcessesShareTables(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	w := Start(t)
	kafka := kafkatest.Start(t)
	p := Pipeline{Name: "shared", Kafka: kafka.Addr, Database: w.Database(t, "shared"), Tables: "public.acct, public.item", Sinks: []Sink{
		{Name: "lake", Mode: "upsert", Streams: map[string]string{"public.acct": "acct", "public.item": "item"}},
		{Name: "log", Mode: "append", Streams: map[string]string{"public.acct": "acct_log"}},
	}}
	Exec(t, p.Database, Schema)
	source := w.Prepare(t, p, "source")
	source.Run(t, nil, "--only", "db")
	source.Streaming(ctx, t)

	loadCtx, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	loaded := make(chan error, 1)
	go func() { loaded <- Load(loadCtx, p.Database, 7) }()

	marks := func() map[string]string {
		all := map[string]string{}
		for _, table := range []string{"acct", "item", "acct_log"} {
			for key, value := range w.Properties(ctx, p.Name, table) {
				if strings.HasPrefix(key, "sluice."+p.Name+".") {
					all[table+" "+key] = value
				}
			}
		}
		return all
	}
	const partitions = 3 * 4
	// moved waits until the marks of all partitions are others than before:
	// whoever stood still has lost its partitions, and their new owner has committed.
	moved := func(before map[string]string, logs ...*Process) {
		t.Helper()
		state := func() string {
			var b strings.Builder
			for _, r := range logs {
				b.WriteString(r.Name + ":\n" + r.Log())
			}
			return b.String()
		}
		Until(ctx, t, "all partitions are committed by somebody else", state, func() bool {
			now := marks()
			for key := range now {
				if now[key] == before[key] {
					return false
				}
			}
			return len(now) == partitions
		})
	}

	only := []string{"--only", "lake,log"}
	a, b, c := w.Prepare(t, p, "a"), w.Prepare(t, p, "b"), w.Prepare(t, p, "c")
	a.Run(t, []string{"SLUICE_STOP=lake.after-data:9"}, only...)
	a.Stopped(ctx, t)
	before := marks()
	b.Run(t, nil, only...)
	moved(before, a, b)
	a.Resume(t)
	a.Logged(ctx, t, "another writer has moved the offsets")
	t.Log("the zombie was fenced in the middle of its commit")

	moved(marks(), a, b)
	b.Pause(t)
	moved(marks(), a)
	b.Resume(t)
	moved(marks(), a, b)
	t.Log("the second zombie is back")

	c.Run(t, nil, only...)
	a.Stop(ctx, t)
	moved(marks(), b, c)
	b.Stop(ctx, t)
	moved(marks(), c)
	stopLoad()
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	c.Stop(ctx, t)
	source.Stop(ctx, t)

	last := w.Prepare(t, p, "last")
	last.Run(t, nil, "--until-caught-up")
	last.Succeeded(ctx, t)
	last.Run(t, nil, only...)
	found, err := Differences(ctx, last.Catalog(ctx, t), p.Name, p.Database, "acct", "item")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range found {
		t.Error(d)
	}
}
