package topic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

func TestTopicName(t *testing.T) {
	for _, c := range []struct {
		name record.StreamName
		want string
	}{
		{record.StreamName{Source: "shop-db", Namespace: "public", Name: "order_items"}, "p.shop-db.public.order_items"},
		{record.StreamName{Source: "api", Name: "contacts"}, "p.api.contacts"},
		{record.StreamName{Source: "db", Namespace: "a.b", Name: "C"}, "p.db.a_x2Eb.C"},
		{record.StreamName{Source: "db", Namespace: "a", Name: "b.c"}, "p.db.a.b_x2Ec"},
		{record.StreamName{Source: "db", Namespace: "a", Name: "b_x2Ec"}, "p.db.a.b_x5Fx2Ec"},
		{record.StreamName{Source: "db", Namespace: "ä", Name: "x y%"}, "p.db._xC3_xA4.x_x20y_x25"},
		{record.StreamName{Source: "db", Namespace: "", Name: "_x"}, "p.db._x"},
		{record.StreamName{Source: "_dlq", Name: "x"}, ""},
		{record.StreamName{Source: "db"}, ""},
		{record.StreamName{Source: "db", Name: strings.Repeat("x", 250)}, ""},
	} {
		got, err := TopicName("p", c.name)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%v: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}

func FuzzTopicName(f *testing.F) {
	f.Add("db", "public", "t", "db", "publi", "c.t")
	f.Add("db", "a_x2E", "t", "db", "a.", "t")
	f.Fuzz(func(t *testing.T, s1, n1, t1, s2, n2, t2 string) {
		a, b := record.StreamName{Source: s1, Namespace: n1, Name: t1}, record.StreamName{Source: s2, Namespace: n2, Name: t2}
		x, err1 := TopicName("p", a)
		y, err2 := TopicName("p", b)
		if err1 == nil && err2 == nil && (x == y) != (a == b) {
			t.Fatalf("%#v and %#v: %s and %s", a, b, x, y)
		}
		for _, c := range x {
			if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", c) {
				t.Fatalf("%s holds %q", x, c)
			}
		}
	})
}

func TestTopicsAreAsDeclared(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		p := newPublisher(t, k)
		orders := testSchema("orders")
		publish(t, p, orders, inserts(1, 0, 1)...)
		keyless := testSchema("log")
		keyless.Fields[0].Key = 0
		keyless.Seal()
		publish(t, p, keyless, inserts(1, 0, 5)...)
		for table, want := range map[string]int{"orders": 3, "log": 1} {
			name, _ := TopicName(k.cfg.Prefix, record.StreamName{Source: "db", Namespace: "public", Name: table})
			if got, err := k.partitions(t.Context(), name); got != want || err != nil {
				t.Errorf("%s: %d partitions, %v; want %d", name, got, err, want)
			}
			configs, err := k.adm.DescribeTopicConfigs(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range configs[0].Configs {
				if c.Key == "max.message.bytes" && c.MaybeValue() != "16777216" || c.Key == "cleanup.policy" && c.MaybeValue() != "delete" {
					t.Errorf("%s: %s=%s", name, c.Key, c.MaybeValue())
				}
			}
		}
		other := connect(t, k.cfg.Brokers[0], func(c *Config) { c.Prefix, c.Partitions = k.cfg.Prefix, 5 })
		err := newPublisher(t, other).Publish(t.Context(), batch(orders, inserts(1, 1, 2)...))
		if err == nil || !strings.Contains(err.Error(), "has 3 partitions and the configuration wants 5: set topics.partitions to 3") {
			t.Errorf("another partition count: %v", err)
		}
		compacting := connect(t, k.cfg.Brokers[0], func(c *Config) { c.TopicConfigs = map[string]string{"cleanup.policy": "compact"} })
		if err := newPublisher(t, compacting).Publish(t.Context(), batch(orders, inserts(1, 1, 2)...)); err == nil {
			t.Error("a compacted data topic")
		}
	})
}

func TestConnectSaysWhatIsWrong(t *testing.T) {
	_, err := Connect(t.Context(), Config{Brokers: []string{"127.0.0.1:1"}, Prefix: "p", ConnectTimeout: 300 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "are the addresses right") {
		t.Errorf("nobody listens: %v", err)
	}
	_, err = Connect(t.Context(), Config{Brokers: []string{"127.0.0.1:1"}, Prefix: "p", SASL: &SASL{Mechanism: "MAGIC"}})
	if err == nil || !strings.Contains(err.Error(), "SCRAM-SHA-512") {
		t.Errorf("unknown mechanism: %v", err)
	}
}

func TestSASL(t *testing.T) {
	addr := fake(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "sluice", "secret-1")).ListenAddrs()[0]
	connect(t, addr, func(c *Config) { c.SASL = &SASL{"SCRAM-SHA-256", "sluice", "secret-1"} })
	_, err := Connect(t.Context(), Config{Brokers: []string{addr}, Prefix: "p", SASL: &SASL{"SCRAM-SHA-256", "sluice", "secret-2"}, ConnectTimeout: time.Second})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("wrong password: %v", err)
	}
}

func TestCheckpoints(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		p := newPublisher(t, k)
		if got, err := p.LoadCheckpoint(t.Context(), "slot"); got != nil || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		for i := range 20 {
			for _, key := range []string{"slot", "other"} {
				if err := p.SaveCheckpoint(t.Context(), key, fmt.Appendf(nil, "%s %d", key, i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got, err := newPublisher(t, k).LoadCheckpoint(t.Context(), "slot"); string(got) != "slot 19" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	})
}

// TestBarriersFireInOrder publishes from several goroutines and checks, at
// each barrier, that the brokers hold what was published before it.
func TestBarriersFireInOrder(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		p := newPublisher(t, k)
		var mu sync.Mutex
		var fired []int
		var side sync.WaitGroup
		items := testSchema("items")
		for g := range 3 {
			side.Go(func() {
				for i := range 50 {
					c := change{record.OpRead, record.Position{Epoch: 1}, int64(1000*g + i), "x"}
					if err := p.Publish(t.Context(), batch(items, c)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		orders := testSchema("orders")
		for i := range 200 {
			if err := p.Publish(t.Context(), batch(orders, inserts(1, int64(i), int64(i+1))...)); err != nil {
				t.Fatal(err)
			}
			p.Barrier(func() { mu.Lock(); defer mu.Unlock(); fired = append(fired, i) })
		}
		side.Wait()
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for i := range 200 {
			if i >= len(fired) || fired[i] != i {
				t.Fatalf("barriers fired as %v", fired)
			}
		}
	})
}

// lostBehindAck publishes one row to each of two streams, of which the brokers
// refuse the first, and reports whether the barrier behind both fired.
func lostBehindAck(t *testing.T, gaps bool) bool {
	cluster := fake(t)
	k := connect(t, cluster.ListenAddrs()[0], nil)
	p := newPublisher(t, k)
	p.acks.gaps = gaps
	a, b := testSchema("a"), testSchema("b")
	topicA, _ := TopicName(k.cfg.Prefix, a.Stream)
	refused := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topicA, Err: kerr.TopicAuthorizationFailed, Count: -1})
	defer refused.Remove()
	fired := make(chan string, 2)
	if err := p.Publish(t.Context(), batch(a, inserts(1, 0, 1)...)); err != nil {
		t.Fatal(err)
	}
	p.Barrier(func() { fired <- "a" })
	err := p.Publish(t.Context(), batch(b, inserts(1, 0, 1)...))
	p.Barrier(func() { fired <- "b" })
	until(t, "the loss is known", func() bool { return p.Err() != nil })
	<-p.ended
	if lost := (*LostError)(nil); !errors.As(p.Err(), &lost) || lost.Topic != topicA {
		t.Errorf("error %v", p.Err())
	}
	if err != nil && !errors.Is(err, p.Err()) {
		t.Errorf("Publish after the loss: %v", err)
	}
	if err := p.Flush(t.Context()); !gaps && !errors.Is(err, p.Err()) {
		t.Errorf("Flush after the loss: %v", err)
	}
	if err := p.Publish(t.Context(), batch(b, inserts(1, 1, 2)...)); !errors.Is(err, p.Err()) {
		t.Errorf("Publish after the loss: %v", err)
	}
	return len(fired) > 0
}

// TestContiguousAcknowledgement is invariant 1, and that the test sees it when
// the line that keeps it is off.
func TestContiguousAcknowledgement(t *testing.T) {
	if lostBehindAck(t, false) {
		t.Error("a barrier fired behind a record that is not on the brokers")
	}
	if !lostBehindAck(t, true) {
		t.Error("with the safety line off the test saw nothing")
	}
}

// TestBarrierWaitsForSlowPartition: a record whose acknowledgement is late
// holds back the barriers behind it, though later records are there.
func TestBarrierWaitsForSlowPartition(t *testing.T) {
	cluster := fake(t)
	k := connect(t, cluster.ListenAddrs()[0], nil)
	p := newPublisher(t, k)
	a, b := testSchema("a"), testSchema("b")
	publish(t, p, a, inserts(1, 0, 1)...)
	publish(t, p, b, inserts(1, 0, 1)...)
	topicA, _ := TopicName(k.cfg.Prefix, a.Stream)
	slow := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topicA, Err: kerr.NotLeaderForPartition, Count: -1})
	var mu sync.Mutex
	var fired []string
	for _, s := range []*record.Schema{a, b} {
		if err := p.Publish(t.Context(), batch(s, inserts(1, 1, 2)...)); err != nil {
			t.Fatal(err)
		}
		p.Barrier(func() { mu.Lock(); defer mu.Unlock(); fired = append(fired, s.Stream.Name) })
	}
	topicB, _ := TopicName(k.cfg.Prefix, b.Stream)
	until(t, "the later record is there", func() bool { n, err := logLen(t.Context(), k, topicB); return err == nil && n == 2 })
	mu.Lock()
	if len(fired) > 0 {
		t.Errorf("%v fired before its time", fired)
	}
	mu.Unlock()
	slow.Remove()
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(fired) != "[a b]" {
		t.Errorf("fired %v", fired)
	}
}

func logLen(ctx context.Context, k *Kafka, topic string) (n int64, err error) {
	_, ends, err := k.bounds(ctx, topic)
	for _, o := range ends[topic] {
		n += o.Offset
	}
	return n, err
}

func TestAmbiguousAcknowledgements(t *testing.T) {
	cluster := fake(t)
	k := connect(t, cluster.ListenAddrs()[0], nil)
	p := newPublisher(t, k)
	orders, st := testSchema("orders"), newStore()
	var want []change
	for i, err := range []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotLeaderForPartition, kerr.RequestTimedOut} {
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: err, Count: i + 1})
		cs := inserts(1, int64(100*i), int64(100*i+100))
		publish(t, p, orders, cs...)
		want = append(want, cs...)
	}
	s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
	catchUp(t, s)
	once(t, st, want)
	topic, _ := TopicName(k.cfg.Prefix, orders.Stream)
	if n, err := logLen(t.Context(), k, topic); err != nil || n != int64(len(want)) {
		t.Errorf("%d records on the topic, %v; want %d", n, err, len(want))
	}
}

func TestBrokersGoneFor(t *testing.T) {
	cluster := fake(t)
	k := connect(t, cluster.ListenAddrs()[0], func(c *Config) { c.DeliveryTimeout = 300 * time.Millisecond })
	p := newPublisher(t, k)
	orders := testSchema("orders")
	publish(t, p, orders, inserts(1, 0, 1)...)
	cluster.Close()
	p.Barrier(func() {})
	if err := p.Publish(t.Context(), batch(orders, inserts(1, 1, 2)...)); err != nil {
		t.Fatal(err)
	}
	p.Barrier(func() { t.Error("a barrier fired without a broker") })
	select {
	case <-p.Failed():
	case <-time.After(30 * time.Second):
		t.Fatal("the publisher waits for ever")
	}
	if !errors.Is(p.Err(), errLate) {
		t.Errorf("error %v", p.Err())
	}
}

func TestBigRecords(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		p := newPublisher(t, k)
		orders, st := testSchema("orders"), newStore()
		sizes := []int{10, 100 << 10, 600 << 10, 10, 3 << 20, 20, 15 << 20, MaxRecordBytes + 1, 30}
		for range 10 { // the big one must not overtake the small one that still lingers
			sizes = append(sizes, 10, 1<<20)
		}
		var want []change
		for i, size := range sizes {
			c := change{record.OpUpdate, record.Position{Epoch: 1, LSN: uint64(i + 1)}, 7, strings.Repeat("0123456789abcdef", size/16)}
			if size <= MaxRecordBytes {
				want = append(want, c)
			}
			if err := p.Publish(t.Context(), batch(orders, c)); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
		catchUp(t, s)
		once(t, st, want)
		dead := readAll(t, k, k.cfg.Prefix+deadSuffix)
		if len(dead) != 1 || string(dead[0].Key) != `{"id":7}` || len(dead[0].Value) > 0 {
			t.Fatalf("%d dead letters", len(dead))
		}
		if h := headers(dead[0]); h[deadCode] != codeTooLarge || h[deadSource] != "db" || h[deadStream] != "db.public.orders" {
			t.Errorf("headers %v", h)
		}
	})
}

func headers(r *kgo.Record) map[string]string {
	m := map[string]string{}
	for _, h := range r.Headers {
		m[h.Key] = string(h.Value)
	}
	return m
}

// TestBackPressure: with the brokers silent, Publish stops at the byte limit.
func TestBackPressure(t *testing.T) {
	cluster := fake(t)
	k := connect(t, cluster.ListenAddrs()[0], func(c *Config) { c.BufferBytes = 2 << 20 })
	p := newPublisher(t, k)
	orders := testSchema("orders")
	publish(t, p, orders, inserts(1, 0, 1)...)
	topic, _ := TopicName(k.cfg.Prefix, orders.Stream)
	silent := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.NotLeaderForPartition, Count: -1})
	ctx, cancel := context.WithCancel(t.Context())
	published := make(chan int64)
	var want []change
	for i := range int64(100) {
		want = append(want, change{record.OpInsert, record.Position{Epoch: 1, LSN: uint64(i + 2)}, i, strings.Repeat("x", 100<<10)})
	}
	go func() {
		n := int64(0)
		for _, c := range want {
			if p.Publish(ctx, batch(orders, c)) != nil {
				break
			}
			n++
		}
		published <- n
	}()
	until(t, "the slabs are full", func() bool { return p.slabs.tryTakeNone() })
	if got := p.cl.BufferedProduceBytes(); got > 2<<20+4*(100<<10) {
		t.Errorf("%d bytes buffered, limit 2 MiB", got)
	}
	silent.Remove()
	if n := <-published; n != 100 {
		t.Errorf("%d rows published", n)
	}
	cancel()
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(p.slabs.free) + p.slabs.left; n != 4 {
		t.Errorf("%d of 4 slabs free at the end", n)
	}
}

func (s *slabs) tryTakeNone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.free) == 0 && len(s.open) == 0 && s.left == 0
}

func TestPublisherCounts(t *testing.T) {
	k := connect(t, fake(t).ListenAddrs()[0], nil)
	board := new(progress.Board)
	p, err := k.Publisher("db", record.Origin{}, board)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	orders := testSchema("orders")
	publish(t, p, orders, append(inserts(1, 0, 100), change{op: record.OpUpdate, pos: record.Position{Epoch: 1, LSN: 200}, note: strings.Repeat("x", MaxRecordBytes)})...)
	publish(t, p, orders, change{op: record.OpTruncate, pos: record.Position{Epoch: 1, LSN: 300}})
	if s := board.Stream(progress.Source, "db", "db.public.orders"); s.Delivered.Load() != 100 || s.Rejected.Load() != 1 {
		t.Errorf("delivered %d, rejected %d", s.Delivered.Load(), s.Rejected.Load())
	}
	if err := p.Reject(t.Context(), batch(orders, inserts(1, 0, 3)...), []record.Reject{{Row: 1, Code: "bad", Reason: "note: bad"}}); err != nil {
		t.Fatal(err)
	}
	dead := readAll(t, k, k.cfg.Prefix+deadSuffix)
	if r := dead[len(dead)-1]; !bytes.Equal(r.Key, []byte(`{"id":1}`)) || headers(r)[deadPosition] != "1/2/0" || headers(r)[deadCode] != "bad" {
		t.Errorf("dead letter %s %v", r.Key, headers(r))
	}
}
