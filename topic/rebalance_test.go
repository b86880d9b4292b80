package topic

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/internal/kafkatest"
	"github.com/sluice-data/sluice/record"
)

// freezer is a network that stands still on demand, as for a stopped process.
type freezer struct {
	mu   sync.Mutex
	held chan struct{} // nil = it flows
	at   int           // how many have come to the hold
}

func (f *freezer) freeze() { f.mu.Lock(); f.held = make(chan struct{}); f.mu.Unlock() }
func (f *freezer) thaw()   { f.mu.Lock(); close(f.held); f.held = nil; f.mu.Unlock() }

func (f *freezer) pass() {
	f.mu.Lock()
	held := f.held
	if held != nil {
		f.at++
	}
	f.mu.Unlock()
	if held != nil {
		<-held
	}
}

func (f *freezer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	f.pass()
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	return &frozenConn{c, f}, err
}

type frozenConn struct {
	net.Conn
	f *freezer
}

func (c *frozenConn) Read(b []byte) (int, error)  { n, err := c.Conn.Read(b); c.f.pass(); return n, err }
func (c *frozenConn) Write(b []byte) (int, error) { c.f.pass(); return c.Conn.Write(b) }

// gated is a sink whose flushes stand still with the network.
type gated struct {
	Sink
	f *freezer
}

func (g gated) Flush(ctx context.Context, marks map[int32]record.Mark) (map[int32]record.Mark, error) {
	g.f.pass()
	return g.Sink.Flush(ctx, marks)
}

// TestZombie is invariant 11: a consumer stands still past its session while
// another one takes over; when it goes on, the sink's marks fence it.
func TestZombie(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		session := time.Second
		if os.Getenv("SLUICE_KAFKA") == k.cfg.Brokers[0] {
			session = 6 * time.Second // the least that Apache Kafka takes
		}
		orders, st := testSchema("orders"), newStore()
		f, flushes := new(freezer), new(freezer)
		zombie := connect(t, k.cfg.Brokers[0], func(c *Config) { c.Prefix = k.cfg.Prefix })
		zombie.groupOpts = []kgo.Opt{kgo.Dialer(f.dial)}
		zombie.laneOpts = []kgo.Opt{kgo.Dialer(f.dial)}
		p := newPublisher(t, k)
		want := inserts(1, 0, 300)
		publish(t, p, orders, want...)
		cfg := ConsumerConfig{Session: session}
		a := consume(t, zombie, cfg, Stream{Name: orders.Stream, Open: func(ctx context.Context) (Sink, error) {
			s, err := st.open(ctx)
			return gated{s, flushes}, err
		}})
		catchUp(t, a)
		add := func(from, to int64) {
			cs := inserts(1, from, to)
			want = append(want, cs...)
			publish(t, p, orders, cs...)
		}
		flushes.freeze()
		add(300, 600)
		until(t, "rows wait for their flush", func() bool { flushes.mu.Lock(); defer flushes.mu.Unlock(); return flushes.at > 0 })
		f.freeze()
		b := consume(t, k, cfg, Stream{Name: orders.Stream, Open: st.open})
		until(t, "the other one has taken over", func() bool { rows, _ := st.snapshot(); return len(rows) == len(want) })
		flushes.thaw()
		until(t, "the zombie's flush was fenced", func() bool { st.mu.Lock(); defer st.mu.Unlock(); return st.fenced > 0 })
		f.thaw()
		add(600, 900)
		until(t, "both go on", func() bool { rows, _ := st.snapshot(); return len(rows) >= len(want) })
		catchUp(t, b)
		once(t, st, want)
		for _, s := range []*sinkOf{a, b} {
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
		}
		once(t, st, want)
	})
}

// TestMembersComeAndGo shares the partitions of several streams among
// consumers that join and leave while records flow.
func TestMembersComeAndGo(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		var stores []*store
		var streams []Stream
		var schemas []*record.Schema
		for i := range 3 {
			st := newStore()
			stores, schemas = append(stores, st), append(schemas, testSchema(fmt.Sprint("t", i)))
			streams = append(streams, Stream{Name: schemas[i].Stream, Open: st.open})
		}
		p := newPublisher(t, k)
		var members []*sinkOf
		var want []change
		for round := range int64(5) {
			members = append(members, consume(t, k, ConsumerConfig{}, streams...))
			if len(members) > 2 {
				if err := members[0].stop(); err != nil {
					t.Fatal(err)
				}
				members = members[1:]
			}
			cs := inserts(1, round*200, round*200+200)
			want = append(want, cs...)
			for _, s := range schemas {
				publish(t, p, s, cs...)
			}
			until(t, "a part has arrived", func() bool { rows, _ := stores[round%3].snapshot(); return len(rows) > len(want)-100 })
		}
		catchUp(t, members[len(members)-1])
		for _, st := range stores {
			once(t, st, want)
		}
	})
}

// brokerThatRestarts is a broker whose process ends and comes back on its data.
type brokerThatRestarts struct {
	addr    string
	restart func()
}

func embeddedBroker(t *testing.T) *brokerThatRestarts {
	dir := t.TempDir()
	b := &brokerThatRestarts{}
	var stop func()
	start := func(port int) {
		ctx, cancel := context.WithCancel(context.Background())
		ready, ended := make(chan string, 1), make(chan error, 1)
		go func() {
			ended <- RunEmbedded(ctx, EmbeddedConfig{Dir: dir, Port: port, Ready: func(addr string) { ready <- addr }})
		}()
		stop = func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		select {
		case b.addr = <-ready:
		case err := <-ended:
			t.Fatal(err)
		}
	}
	start(0)
	t.Cleanup(func() { stop() })
	b.restart = func() {
		stop()
		addr, err := net.ResolveTCPAddr("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		start(addr.Port)
	}
	return b
}

// TestBrokerRestarts ends the broker several times while records are published
// and consumed.
func TestBrokerRestarts(t *testing.T) {
	t.Run("embedded", func(t *testing.T) { brokerRestarts(t, embeddedBroker(t)) })
	if os.Getenv("SLUICE_KAFKA_HOME") != "" {
		t.Run("kafka", func(t *testing.T) {
			b := kafkatest.Start(t)
			brokerRestarts(t, &brokerThatRestarts{b.Addr, func() { b.Kill(); b.Restart(t) }})
		})
	}
}

func brokerRestarts(t *testing.T, broker *brokerThatRestarts) {
	k := connect(t, broker.addr, nil)
	orders, st := testSchema("orders"), newStore()
	s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
	p := newPublisher(t, k)
	want := inserts(1, 0, 3000)
	published := make(chan error, 1)
	steps := make(chan struct{})
	go func() {
		for i := 0; i < len(want); i += 10 {
			if i%500 == 0 {
				steps <- struct{}{}
			}
			if err := p.Publish(t.Context(), batch(orders, want[i:i+10]...)); err != nil {
				published <- err
				return
			}
		}
		published <- p.Flush(t.Context())
	}()
	for i := range 6 {
		<-steps
		if i == 3 {
			broker.restart()
		}
	}
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	broker.restart()
	catchUp(t, s)
	once(t, st, want)
}
