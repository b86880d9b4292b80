package topic

import (
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// slowNews holds back the client's first promise that tells of a refused
// record, as a busy process may, and counts requests that were not written.
type slowNews struct {
	once      sync.Once
	told      chan struct{} // closed once a refusal is on its way to the Publisher
	release   chan struct{}
	unwritten atomic.Int64
}

func (n *slowNews) OnProduceRecordUnbuffered(_ *kgo.Record, err error) {
	if err != nil {
		n.once.Do(func() { close(n.told) })
		<-n.release
	}
}

func (n *slowNews) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key == int16(kmsg.Produce) && err != nil {
		n.unwritten.Add(1)
	}
}

// overtake has the brokers refuse a batch for good and offers a later one of
// the same partition before the Publisher has heard of it; then the source
// starts again. It reports how many rows are missing in the sink.
func overtake(t *testing.T, refusal *kerr.Error, gated bool) (missing int) {
	t.Helper()
	cluster := fake(t)
	k := connect(t, cluster.ListenAddrs()[0], func(c *Config) { c.Partitions = 1 })
	orders, st := testSchema("orders"), newStore()
	first, refused, later := inserts(1, 0, 10), inserts(1, 100, 110), inserts(1, 200, 210)
	news := &slowNews{told: make(chan struct{}), release: make(chan struct{})}
	k.producerOpts = []kgo.Opt{kgo.WithHooks(news)}
	if !gated {
		k.producerOpts = append(k.producerOpts, kgo.Dialer((&net.Dialer{}).DialContext))
	}
	p := newPublisher(t, k)
	publish(t, p, orders, first...)
	s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
	catchUp(t, s)

	name, _ := TopicName(k.cfg.Prefix, orders.Stream)
	fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: name, Err: refusal, Count: 1})
	if err := p.Publish(t.Context(), batch(orders, refused...)); err != nil {
		t.Fatal(err)
	}
	<-news.told
	fault.Remove()
	if err := p.Publish(t.Context(), batch(orders, later...)); err != nil {
		t.Fatalf("the Publisher knew already: %v", err)
	}
	if gated {
		until(t, "the client has tried", func() bool { return news.unwritten.Load() > 0 })
	} else {
		until(t, "the later rows are in the sink", func() bool { rows, _ := st.snapshot(); return len(rows) == len(first)+len(later) })
	}
	close(news.release)
	until(t, "the Publisher has heard of it", func() bool { return p.Err() != nil })
	if !strings.Contains(p.Err().Error(), refusal.Message) {
		t.Errorf("error %v", p.Err())
	}
	p.Close()

	k.producerOpts = nil
	publish(t, newPublisher(t, k), orders, append(append([]change{}, refused...), later...)...)
	catchUp(t, s)
	rows, _ := st.snapshot()
	if want := append(append(first, refused...), later...); gated {
		once(t, st, want)
	} else {
		missing = len(want) - len(rows)
	}
	return missing
}

// TestNothingOvertakesRefusedRecords: rows behind one that the brokers refused
// for good do not reach them before it does, for sinks would then take it for a
// duplicate. With the gate away the test sees rows go missing.
func TestNothingOvertakesRefusedRecords(t *testing.T) {
	for _, refusal := range []*kerr.Error{kerr.MessageTooLarge, kerr.TopicAuthorizationFailed, kerr.InvalidRecord, kerr.PolicyViolation} {
		t.Run(refusal.Message, func(t *testing.T) {
			t.Parallel()
			overtake(t, refusal, true)
		})
	}
	if overtake(t, kerr.MessageTooLarge, false) == 0 {
		t.Error("without the gate the test saw nothing")
	}
}
