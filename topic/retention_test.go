package topic

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// TestRetentionWaitsForEverySink: old records go once all configured sinks have
// them, one that has not begun included, and young ones stay.
func TestRetentionWaitsForEverySink(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		orders, a, b := testSchema("orders"), newStore(), newStore()
		p := newPublisher(t, k)
		publish(t, p, orders, inserts(1, 0, 90)...)
		topic, _ := TopicName(k.cfg.Prefix, orders.Stream)
		left := func() (n int64) {
			t.Helper()
			starts, ends, err := k.bounds(t.Context(), topic)
			if err != nil {
				t.Fatal(err)
			}
			for p, end := range ends[topic] {
				n += end.Offset - starts[topic][p].Offset
			}
			return n
		}
		r := Retention{Age: time.Hour, Sinks: map[string][]record.StreamName{"a": {orders.Stream}, "b": {orders.Stream}}}
		pass := func(later time.Duration) {
			t.Helper()
			if err := k.retain(t.Context(), r, time.Now().Add(later)); err != nil {
				t.Fatal(err)
			}
		}
		sa := consume(t, k, ConsumerConfig{Name: "a"}, Stream{Name: orders.Stream, Open: a.open})
		catchUp(t, sa)
		if err := sa.stop(); err != nil { // commits to the group
			t.Fatal(err)
		}
		pass(2 * time.Hour)
		if n := left(); n != 90 {
			t.Errorf("%d of 90 records left while a sink has not begun", n)
		}
		sb := consume(t, k, ConsumerConfig{Name: "b"}, Stream{Name: orders.Stream, Open: b.open})
		catchUp(t, sb)
		if err := sb.stop(); err != nil {
			t.Fatal(err)
		}
		publish(t, p, orders, inserts(1, 90, 100)...)
		pass(0)
		if n := left(); n != 100 {
			t.Errorf("%d of 100 records left though all are young", n)
		}
		pass(2 * time.Hour)
		if n := left(); n != 10 {
			t.Errorf("%d records left, want the 10 that no sink has", n)
		}
		if keeps, err := k.keeps(t.Context(), topic); err != nil || keeps != 0 {
			t.Errorf("the brokers' own retention is %v, %v", keeps, err)
		}
	})
}

// TestRecordsInDanger: a stream says that records will go, or have gone, before
// its sink has them, also while it is paused; and it stops saying so.
func TestRecordsInDanger(t *testing.T) {
	k := connect(t, fake(t).ListenAddrs()[0], func(c *Config) { c.TopicConfigs = map[string]string{"retention.ms": "3600000"} })
	orders, st := testSchema("orders"), newStore()
	p := newPublisher(t, k)
	publish(t, p, orders, inserts(1, 0, 30)...)
	s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
	catchUp(t, s)
	if err := s.c.Pause(orders.Stream); err != nil {
		t.Fatal(err)
	}
	until(t, "it is paused", func() bool { state, _ := stateOf(s, "orders"); return state == progress.Paused })
	publish(t, p, orders, inserts(1, 30, 60)...)
	look := func(later time.Duration, want string) {
		t.Helper()
		if err := s.c.lookAtRetention(t.Context(), time.Now().Add(later)); err != nil {
			t.Fatal(err)
		}
		until(t, "the note is "+want, func() bool {
			state, note := stateOf(s, "orders")
			return state == progress.Paused && (want != "" && strings.Contains(note, want) || want == "" && !strings.Contains(note, ";"))
		})
	}
	look(10*time.Minute, "")
	look(50*time.Minute, "are removed within 12m0s; raise topics.retention")
	look(10*time.Minute, "")
	topic, _ := TopicName(k.cfg.Prefix, orders.Stream)
	_, ends, err := k.bounds(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	cut := kadm.Offsets{}
	ends.Each(func(o kadm.ListedOffset) {
		cut.Add(kadm.Offset{Topic: topic, Partition: o.Partition, At: o.Offset, LeaderEpoch: -1})
	})
	if _, err := k.adm.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	look(0, "are gone, the sink has come to")
	look(0, "sluice backfill db.public.orders")
}

// TestCatchUpSaysWhatItWaitsFor names stream, partition and offsets.
func TestCatchUpSaysWhatItWaitsFor(t *testing.T) {
	k := connect(t, fake(t).ListenAddrs()[0], func(c *Config) { c.Partitions = 1 })
	orders, st := testSchema("orders"), newStore()
	publish(t, newPublisher(t, k), orders, inserts(1, 0, 30)...)
	s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
	catchUp(t, s)
	targets, err := s.c.targets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.c.waitsFor(targets, nil); got != "" {
		t.Errorf("caught up, and waits for %s", got)
	}
	for _, parts := range targets {
		parts[0] += 5
	}
	if got, want := s.c.waitsFor(targets, nil), "db.public.orders partition 0 at offset 30 of 35"; got != want {
		t.Errorf("waits for %q, want %q", got, want)
	}
}
