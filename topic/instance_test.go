package topic

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestInstance restarts a named member that never said goodbye: it gets its
// partitions back at once, and gives them to others when it stops.
func TestInstance(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		orders, st := testSchema("orders"), newStore()
		f := new(freezer)
		killed := connect(t, k.cfg.Brokers[0], func(c *Config) { c.Prefix = k.cfg.Prefix })
		killed.groupOpts = []kgo.Opt{kgo.Dialer(f.dial)}
		killed.laneOpts = []kgo.Opt{kgo.Dialer(f.dial)}
		p := newPublisher(t, k)
		want := inserts(1, 0, 100)
		publish(t, p, orders, want...)
		stream := Stream{Name: orders.Stream, Open: st.open}
		// The test ends before the session of the killed member does: without the name, the next one waits in vain.
		cfg := ConsumerConfig{Session: 5 * time.Minute, Instance: "shop-1.lake"}
		a := consume(t, killed, cfg, stream)
		catchUp(t, a)
		f.freeze()
		add := func(from, to int64) {
			cs := inserts(1, from, to)
			want = append(want, cs...)
			publish(t, p, orders, cs...)
		}
		add(100, 200)
		b := consume(t, k, cfg, stream)
		catchUp(t, b)
		if err := b.stop(); err != nil {
			t.Fatal(err)
		}
		add(200, 300)
		c := consume(t, k, ConsumerConfig{Session: cfg.Session}, stream)
		catchUp(t, c)
		once(t, st, want)
		if err := c.stop(); err != nil {
			t.Fatal(err)
		}
		f.thaw()
	})
}
