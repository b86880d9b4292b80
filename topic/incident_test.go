package topic

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

func isParked(t *testing.T, s *sinkOf, table, note string) {
	t.Helper()
	until(t, "the stream is parked", func() bool { state, _ := stateOf(s, table); return state == progress.Parked })
	if _, got := stateOf(s, table); !strings.Contains(got, note) {
		t.Errorf("note %q, want %q in it", got, note)
	}
	if err := s.c.CatchUp(t.Context()); err == nil || !strings.Contains(err.Error(), note) {
		t.Errorf("catch up: %v", err)
	}
}

func TestDeadLetters(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		orders, st := testSchema("orders"), newStore()
		p := newPublisher(t, k)
		want := inserts(1, 0, 40)
		publish(t, p, orders, want...)
		topic, _ := TopicName(k.cfg.Prefix, orders.Stream)
		junk := []*kgo.Record{
			{Topic: topic, Key: []byte(`{"id":1}`), Value: []byte(`{"before":null,"after":{"id":`), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}},
			{Topic: topic, Key: []byte(`{"id":2}`), Value: []byte("no envelope at all")},
			{Topic: topic, Key: []byte(`{"id":3}`), Value: nil},
		}
		if err := k.produce(t.Context(), junk...); err != nil {
			t.Fatal(err)
		}
		bad := change{record.OpInsert, record.Position{Epoch: 1, LSN: 500}, 3, "reject me"}
		more := inserts(1, 600, 640)
		publish(t, p, orders, append([]change{bad}, more...)...)
		s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
		catchUp(t, s)
		once(t, st, append(want, more...))
		_, marks := st.snapshot()
		var c record.Counts
		for _, m := range marks {
			c.Add(m.Counts)
		}
		if c.Rejected != 3 || c.Filtered != 1 || c.Read != 84 {
			t.Errorf("counts %+v", c)
		}
		letters := map[string]*kgo.Record{}
		for _, r := range readAll(t, k, k.cfg.Prefix+deadSuffix) {
			letters[string(r.Key)] = r
		}
		for i, r := range junk[:2] {
			got := letters[string(r.Key)]
			if got == nil {
				t.Fatalf("no dead letter for record %d", i)
			}
			h := headers(got)
			if string(got.Value) != string(r.Value) || h[deadSink] != "lake" || h[deadTopic] != topic || h[deadStream] != "db.public.orders" ||
				h[deadPartition] != fmt.Sprint(r.Partition) || h[deadOffset] != fmt.Sprint(r.Offset) || h[deadCode] != codeUndecodable || h[deadReason] == "" || h[deadAt] == "" {
				t.Errorf("dead letter %q %v", got.Value, h)
			}
		}
		if h := headers(letters[`{"id":1}`]); h["h"] != "v" {
			t.Errorf("the record's own header is gone: %v", h)
		}
		if h := headers(letters[`{"id":3}`]); h[deadCode] != "unwanted" || h[deadReason] != "note: unwanted" {
			t.Errorf("the sink's reject: %v", h)
		}
	})
}

func TestTopicCreatedAnew(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		orders, items := testSchema("orders"), testSchema("items")
		a, b := newStore(), newStore()
		p := newPublisher(t, k)
		publish(t, p, orders, inserts(1, 0, 40)...)
		publish(t, p, items, inserts(1, 0, 40)...)
		s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: a.open}, Stream{Name: items.Stream, Open: b.open})
		catchUp(t, s)
		topic, _ := TopicName(k.cfg.Prefix, orders.Stream)
		if _, err := k.adm.DeleteTopics(t.Context(), topic); err != nil {
			t.Fatal(err)
		}
		until(t, "the topic is gone", func() bool { n, err := k.partitions(t.Context(), topic); return err == nil && n == 0 })
		if _, err := k.adm.CreateTopic(t.Context(), 3, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
		isParked(t, s, "orders", "created anew")
		// The other stream goes on, and a new consumer parks it too.
		publish(t, p, items, inserts(1, 40, 80)...)
		until(t, "the other stream goes on", func() bool { rows, _ := b.snapshot(); return len(rows) == 80 })
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		s = consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: a.open})
		isParked(t, s, "orders", "created anew")
	})
}

func TestAnotherCluster(t *testing.T) {
	k := connect(t, fake(t).ListenAddrs()[0], nil)
	orders, st := testSchema("orders"), newStore()
	publish(t, newPublisher(t, k), orders, inserts(1, 0, 40)...)
	st.marks[0] = record.Mark{Next: 1, Cluster: "another", TopicID: "another"}
	s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
	isParked(t, s, "orders", "from Kafka cluster another")
}

func TestOffsetsOutOfRange(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		orders, st := testSchema("orders"), newStore()
		p := newPublisher(t, k)
		publish(t, p, orders, inserts(1, 0, 100)...)
		s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
		catchUp(t, s)
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		publish(t, p, orders, inserts(1, 100, 200)...)
		topic, _ := TopicName(k.cfg.Prefix, orders.Stream)
		_, marks := st.snapshot()
		var cut kadm.Offsets = map[string]map[int32]kadm.Offset{}
		for n, m := range marks {
			cut.Add(kadm.Offset{Topic: topic, Partition: n, At: m.Next + 1, LeaderEpoch: -1})
		}
		if _, err := k.adm.DeleteRecords(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
		s = consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
		isParked(t, s, "orders", "the records between are gone")
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		for n, m := range marks {
			m.Next = 1 << 40
			st.marks[n] = m
		}
		s = consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
		isParked(t, s, "orders", "the log has lost records")
	})
}

// TestRecordsGoWhileRunning: what is removed under a running consumer parks
// its stream; it is never skipped.
func TestRecordsGoWhileRunning(t *testing.T) {
	k := connect(t, fake(t).ListenAddrs()[0], nil)
	orders, st := testSchema("orders"), newStore()
	p := newPublisher(t, k)
	publish(t, p, orders, inserts(1, 0, 30)...)
	s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
	catchUp(t, s)
	hold := make(chan struct{})
	var open sync.Once
	st.mu.Lock()
	st.gate = func() { <-hold }
	st.mu.Unlock()
	t.Cleanup(func() { open.Do(func() { close(hold) }) })
	publish(t, p, orders, inserts(1, 30, 31)...) // the lane is in this flush while the log is cut
	topic, _ := TopicName(k.cfg.Prefix, orders.Stream)
	publish(t, p, orders, inserts(1, 31, 3000)...)
	for range 20 { // more than the client has fetched ahead
		publish(t, p, orders, change{record.OpUpdate, record.Position{Epoch: 2, LSN: 1}, 1, strings.Repeat("x", 1<<20)},
			change{record.OpUpdate, record.Position{Epoch: 2, LSN: 2}, 1, strings.Repeat("y", 14<<20)})
	}
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
	open.Do(func() { close(hold) })
	isParked(t, s, "orders", "gone")
}

func TestUnknownSchemaParks(t *testing.T) {
	k := connect(t, fake(t).ListenAddrs()[0], nil)
	k.schemaWait = 100 * time.Millisecond
	orders, st := testSchema("orders"), newStore()
	p := newPublisher(t, k)
	publish(t, p, orders, inserts(1, 0, 10)...)
	other := *orders
	other.ID = "feedfeedfeedfeed"
	p.outlets[other.ID] = &outlet{ready: true, schema: &other, topic: p.outlets[orders.ID].topic, partitions: 3}
	publish(t, p, &other, inserts(1, 10, 20)...)
	s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
	isParked(t, s, "orders", "schema feedfeedfeedfeed of stream db.public.orders is not on the schemas topic")
	if err := k.schemas.publish(t.Context(), &other); err != nil {
		t.Fatal(err)
	}
	if err := s.c.Resume(orders.Stream); err != nil {
		t.Fatal(err)
	}
	until(t, "the stream goes on", func() bool { rows, _ := st.snapshot(); return len(rows) == 20 })
}

// chain is a rule of the tests: it filters, rejects or fails by the note.
type chain struct{}

func (chain) Apply(b *record.Batch) (*record.Batch, int, []record.Reject, error) {
	if _, control := b.Control(); control {
		return b, 0, nil, nil
	}
	var keep []int32
	var rejects []record.Reject
	filtered := 0
	for i := range b.Ops {
		switch note := string(b.After[1].Value(i)); {
		case strings.HasPrefix(note, "filter"):
			filtered++
		case strings.HasPrefix(note, "refuse"):
			rejects = append(rejects, record.Reject{Row: i, Code: "refused", Reason: "note"})
		case strings.HasPrefix(note, "break"):
			return nil, 0, nil, fmt.Errorf("rule hash: no key")
		default:
			keep = append(keep, int32(i))
		}
	}
	b.Keep(keep)
	return b, filtered, rejects, nil
}

func TestRules(t *testing.T) {
	k := connect(t, fake(t).ListenAddrs()[0], nil)
	orders, st := testSchema("orders"), newStore()
	p := newPublisher(t, k)
	var cs, want []change
	for i, note := range strings.Fields(strings.Repeat("a filter b refuse reject filter c ", 30)) {
		c := change{record.OpInsert, record.Position{Epoch: 1, LSN: uint64(i + 1)}, int64(i % 10), note}
		cs = append(cs, c)
		if len(note) == 1 {
			want = append(want, c)
		}
	}
	publish(t, p, orders, cs...)
	s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open,
		Chain: func(*record.Schema) (Chain, error) { return chain{}, nil }})
	catchUp(t, s)
	once(t, st, want)
	if dead := readAll(t, k, k.cfg.Prefix+deadSuffix); len(dead) != 60 {
		t.Errorf("%d dead letters, want 60", len(dead))
	}
	// A tail that is filtered away moves the marks all the same.
	publish(t, p, orders, change{record.OpInsert, record.Position{Epoch: 2}, 1, "filter"})
	catchUp(t, s)
	once(t, st, want)
	publish(t, p, orders, change{record.OpInsert, record.Position{Epoch: 3}, 1, "break"})
	isParked(t, s, "orders", "rule hash: no key")
}

func TestPauseAndResume(t *testing.T) {
	k := connect(t, fake(t).ListenAddrs()[0], nil)
	orders, st := testSchema("orders"), newStore()
	p := newPublisher(t, k)
	s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
	want := inserts(1, 0, 50)
	publish(t, p, orders, want...)
	catchUp(t, s)
	if err := s.c.Pause(orders.Stream); err != nil {
		t.Fatal(err)
	}
	until(t, "it is paused", func() bool { state, _ := stateOf(s, "orders"); return state == progress.Paused })
	more := inserts(1, 50, 100)
	publish(t, p, orders, more...)
	if err := s.c.CatchUp(t.Context()); err == nil {
		t.Error("caught up while paused")
	}
	if err := s.c.Resume(orders.Stream); err != nil {
		t.Fatal(err)
	}
	until(t, "it goes on", func() bool { rows, _ := st.snapshot(); return len(rows) == 100 })
	once(t, st, append(want, more...))
	if err := s.c.Pause(record.StreamName{Source: "db", Name: "nobody"}); err == nil {
		t.Error("paused a stream that does not exist")
	}
}

// TestMemoryBudget is invariant 9: two lanes that flush only for memory hold no
// more than the budget and a batch each.
func TestMemoryBudget(t *testing.T) {
	k := connect(t, fake(t).ListenAddrs()[0], func(c *Config) { c.MemoryBytes = 1 << 20 })
	a, b := newStore(), newStore()
	x, y := testSchema("x"), testSchema("y")
	p := newPublisher(t, k)
	var cs []change
	for i := range 400 {
		cs = append(cs, change{record.OpInsert, record.Position{Epoch: 1, LSN: uint64(i + 1)}, int64(i), strings.Repeat("z", 20<<10)})
	}
	publish(t, p, x, cs...)
	publish(t, p, y, cs...)
	s := consume(t, k, ConsumerConfig{Every: time.Hour}, Stream{Name: x.Stream, Open: a.open}, Stream{Name: y.Stream, Open: b.open})
	catchUp(t, s)
	once(t, a, cs)
	once(t, b, cs)
	if most := 1<<20 + batchDataBytes + 64<<10; a.peak > most || b.peak > most {
		t.Errorf("peaks of %d and %d bytes, at most %d allowed", a.peak, b.peak, most)
	}
	if a.calls["flush"] < 2 || b.calls["flush"] < 2 {
		t.Errorf("%d and %d flushes", a.calls["flush"], b.calls["flush"])
	}
}
