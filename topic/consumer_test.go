package topic

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

func TestExactlyOnce(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		orders, items := testSchema("orders"), testSchema("items")
		a, b := newStore(), newStore()
		// The consumer is there before its topics.
		s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: a.open}, Stream{Name: items.Stream, Open: b.open})
		p := newPublisher(t, k)
		wantA, wantB := inserts(1, 0, 2000), inserts(1, 0, 300)
		publish(t, p, orders, wantA...)
		publish(t, p, items, wantB...)
		catchUp(t, s)
		once(t, a, wantA)
		once(t, b, wantB)

		// A source that starts again repeats positions.
		p2 := newPublisher(t, k)
		publish(t, p2, orders, wantA[1500:]...)
		more := inserts(1, 2000, 2500)
		publish(t, p2, orders, more...)
		catchUp(t, s)
		once(t, a, append(wantA, more...))
		_, marks := a.snapshot()
		var c record.Counts
		for _, m := range marks {
			c.Add(m.Counts)
		}
		if c.Duplicate != 500 {
			t.Errorf("%d duplicates, want 500", c.Duplicate)
		}
		if state, note := stateOf(s, "orders"); state != progress.Streaming || note != "" {
			t.Errorf("state %s %q", state, note)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		topic, _ := TopicName(k.cfg.Prefix, orders.Stream)
		commits, err := k.adm.FetchOffsets(t.Context(), k.cfg.Prefix+".lake")
		if err != nil {
			t.Fatal(err)
		}
		if left := s.c.commits.want[topic]; len(left) > 0 {
			t.Errorf("commits left: %v", left)
		}
		for n, m := range marks {
			if o, _ := commits.Lookup(topic, n); o.At != m.Next {
				t.Errorf("partition %d: committed %d, mark %d", n, o.At, m.Next)
			}
		}
	})
}

func TestRestartsGoOnFromTheMarks(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		orders, st := testSchema("orders"), newStore()
		p := newPublisher(t, k)
		var want []change
		for i := range int64(5) {
			cs := inserts(1, i*400, i*400+400)
			want = append(want, cs...)
			publish(t, p, orders, cs...)
			// Every's default is long: what is there at the end is the last flush's.
			s := consume(t, k, ConsumerConfig{Every: time.Hour, Rows: 150}, Stream{Name: orders.Stream, Open: st.open})
			until(t, "something is stored", func() bool { rows, _ := st.snapshot(); return len(rows) > len(want)-400 })
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
		}
		s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
		catchUp(t, s)
		once(t, st, want)
	})
}

func TestFaultsByPosition(t *testing.T) {
	addr := fake(t).ListenAddrs()[0]
	for _, call := range []string{"load", "write", "flush", "flushed"} {
		for n := 1; n <= 4; n++ {
			t.Run(fmt.Sprint(call, n), func(t *testing.T) {
				t.Parallel()
				k := connect(t, addr, nil)
				orders, st := testSchema("orders"), newStore()
				st.faults = func(name string, i int) error {
					if name == call && i == n {
						return errors.New("injected")
					}
					return nil
				}
				s := consume(t, k, ConsumerConfig{Rows: 100}, Stream{Name: orders.Stream, Open: st.open})
				p := newPublisher(t, k)
				want := inserts(1, 0, 900)
				publish(t, p, orders, want...)
				catchUp(t, s)
				once(t, st, want)
			})
		}
	}
}

// TestLastFlushAfterFailure is invariant 3: what came before a failed Write is
// never flushed, not even by the end of the consumer, and not if the Write
// fails while the consumer is already ending.
func TestLastFlushAfterFailure(t *testing.T) {
	k := connect(t, fake(t).ListenAddrs()[0], nil)
	orders := testSchema("orders")
	publish(t, newPublisher(t, k), orders, inserts(1, 0, 500)...)
	for _, ending := range []bool{false, true} {
		st := newStore()
		writing, proceed := make(chan struct{}), make(chan struct{})
		st.faults = func(name string, i int) error {
			if name != "write" || i < 2 {
				return nil
			}
			if i == 2 {
				close(writing)
				<-proceed
			}
			return errors.New("injected")
		}
		s := consume(t, k, ConsumerConfig{Name: fmt.Sprint("ending-", ending), Every: time.Hour}, Stream{Name: orders.Stream, Open: st.open})
		<-writing
		if ending {
			s.cancel()
		}
		close(proceed)
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		if rows, marks := st.snapshot(); len(rows) > 0 || len(marks) > 0 {
			t.Fatalf("ending %v: %d rows and %d marks stored after a failed write", ending, len(rows), len(marks))
		}
	}
}

// TestStreamsFailAlone is invariant 10: a stream whose sink fails for good or
// hangs in a flush does not hold up another one.
func TestStreamsFailAlone(t *testing.T) {
	k := connect(t, fake(t).ListenAddrs()[0], nil)
	good, bad, slow := testSchema("good"), testSchema("bad"), testSchema("slow")
	a, b, c := newStore(), newStore(), newStore()
	b.faults = func(string, int) error { return errors.New("injected") }
	release := make(chan struct{})
	c.gate = func() { <-release }
	s := consume(t, k, ConsumerConfig{Drain: time.Minute}, Stream{Name: good.Stream, Open: a.open},
		Stream{Name: bad.Stream, Open: b.open}, Stream{Name: slow.Stream, Open: c.open})
	p := newPublisher(t, k)
	want := inserts(1, 0, 300)
	for _, schema := range []*record.Schema{bad, slow, good} {
		publish(t, p, schema, want...)
	}
	until(t, "the good stream is there", func() bool { rows, _ := a.snapshot(); return len(rows) == len(want) })
	close(release)
	until(t, "the slow stream is there", func() bool { rows, _ := c.snapshot(); return len(rows) == len(want) })
	until(t, "the bad stream shows it", func() bool { state, _ := stateOf(s, "bad"); return state == progress.Failed })
	if err := s.c.CatchUp(t.Context()); err == nil {
		t.Fatal("caught up with a failed stream")
	}
	once(t, a, want)
}

func TestEpochsAndControls(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		orders, st := testSchema("orders"), newStore()
		s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
		p := newPublisher(t, k)
		at := func(epoch, lsn, seq uint64) record.Position { return record.Position{Epoch: epoch, LSN: lsn, Seq: seq} }
		read := func(epoch uint64, id int64) change { return change{record.OpRead, at(epoch, 10, 0), id, "r"} }
		publish(t, p, orders, change{op: record.OpBackfillBegin, pos: at(1, 10, 0)})
		publish(t, p, orders, read(1, 1), read(1, 2))
		publish(t, p, orders, change{op: record.OpBackfillBegin, pos: at(2, 10, 0)}) // the backfill starts over
		publish(t, p, orders, read(2, 1), read(2, 2), read(2, 3))
		publish(t, p, orders, read(1, 3)) // a zombie of the first one
		publish(t, p, orders, change{op: record.OpBackfillEnd, pos: at(2, 10, 0)})
		publish(t, p, orders, change{record.OpDelete, at(2, 11, 0), 1, ""}, change{record.OpUpdate, at(2, 11, 2), 2, "u"})
		publish(t, p, orders, change{record.OpUpdate, at(2, 11, 2), 2, "u"}) // repeated
		publish(t, p, orders, change{op: record.OpTruncate, pos: at(2, 12, 0)})
		publish(t, p, orders, change{op: record.OpTruncate, pos: at(2, 12, 0)}) // repeated
		catchUp(t, s)
		rows, marks := st.snapshot()
		var c record.Counts
		for _, m := range marks {
			c.Add(m.Counts)
		}
		n := map[record.Op]int{}
		for _, r := range rows {
			n[r.op]++
		}
		want := map[record.Op]int{record.OpBackfillBegin: 6, record.OpBackfillEnd: 3, record.OpRead: 5, record.OpDelete: 1, record.OpUpdate: 1, record.OpTruncate: 3}
		if fmt.Sprint(n) != fmt.Sprint(want) {
			t.Errorf("ops %v, want %v", n, want)
		}
		if c.Superseded != 1 || c.Duplicate != 1 || !c.Balanced() {
			t.Errorf("counts %+v", c)
		}
		if st.broken != nil {
			t.Error(st.broken)
		}
	})
}

// TestCommitsAreAskedAgain: the group hears of the marks though the flush that
// moved them was the last one, and though another process has made it.
func TestCommitsAreAskedAgain(t *testing.T) {
	cluster := fake(t)
	k := connect(t, cluster.ListenAddrs()[0], nil)
	orders, st := testSchema("orders"), newStore()
	publish(t, newPublisher(t, k), orders, inserts(1, 0, 60)...)
	topic, _ := TopicName(k.cfg.Prefix, orders.Stream)
	committed := func(group string) func() bool {
		_, marks := st.snapshot()
		return func() bool {
			os, err := k.adm.FetchOffsets(t.Context(), k.cfg.Prefix+"."+group)
			for n, m := range marks {
				if o, _ := os.Lookup(topic, n); err != nil || o.At != m.Next {
					return false
				}
			}
			return true
		}
	}
	faults := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.RebalanceInProgress, Count: 2})
	s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
	catchUp(t, s)
	until(t, "the group has the marks", committed("lake"))
	if faults.Hits() == 0 {
		t.Error("no commit has failed")
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = consume(t, k, ConsumerConfig{Name: "another"}, Stream{Name: orders.Stream, Open: st.open})
	until(t, "the other group has them too", committed("another"))
}
