package topic

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/record"
)

func TestEmbeddedKeepsItsIdentity(t *testing.T) {
	b := embeddedBroker(t)
	host, _, err := net.SplitHostPort(b.addr)
	if err != nil || host != "127.0.0.1" {
		t.Fatalf("address %s", b.addr)
	}
	k := connect(t, b.addr, nil)
	publish(t, newPublisher(t, k), testSchema("orders"), inserts(1, 0, 10)...)
	topic, _ := TopicName(k.cfg.Prefix, testSchema("orders").Stream)
	before, err := k.describe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	b.restart()
	again := connect(t, b.addr, func(c *Config) { c.Prefix = k.cfg.Prefix })
	after, err := again.describe(t.Context(), topic)
	if err != nil || after[topic] != before[topic] || again.cluster != k.cluster || !strings.HasPrefix(k.cluster, "sluice-") {
		t.Errorf("before %v in %s, after %v in %s, %v", before, k.cluster, after, again.cluster, err)
	}
	other := connect(t, embeddedBroker(t).addr, nil)
	if other.cluster == k.cluster {
		t.Error("two brokers have the same cluster id")
	}
}

func TestEmbeddedRefusesBadPlaces(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]EmbeddedConfig{
		"port in use":   {Dir: t.TempDir(), Port: l.Addr().(*net.TCPAddr).Port},
		"dir is a file": {Dir: file},
	} {
		if err := RunEmbedded(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "embedded broker") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEmbeddedCap: above its cap the oldest half of the data goes, and what
// the pipeline itself needs stays.
func TestEmbeddedCap(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	cfg := EmbeddedConfig{Dir: t.TempDir(), MaxBytes: 1 << 20, Ready: func(addr string) { ready <- addr }, Logger: testLog(t)}
	go func() { ended <- RunEmbedded(ctx, cfg) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	addr := <-ready
	k := connect(t, addr, nil)
	p := newPublisher(t, k)
	orders := testSchema("orders")
	var cs []change
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 300 {
		note := make([]byte, 8<<10) // does not compress much
		for j := range note {
			note[j] = byte('0' + rng.IntN(64))
		}
		cs = append(cs, change{record.OpInsert, record.Position{Epoch: 1, LSN: uint64(i + 1)}, int64(i), string(note)})
	}
	publish(t, p, orders, cs...)
	data := filepath.Join(cfg.Dir, "log")
	if n, err := dirSize(data); err != nil || n < cfg.MaxBytes {
		t.Fatalf("%d bytes, %v: not above the cap", n, err)
	}
	topic, _ := TopicName(k.cfg.Prefix, orders.Stream)
	schemas := k.cfg.Prefix + schemasSuffix
	// First what all sinks have read goes, …
	st := newStore()
	sink := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
	catchUp(t, sink)
	if err := sink.stop(); err != nil {
		t.Fatal(err)
	}
	if err := capSize(ctx, cfg, data, addr); err != nil {
		t.Fatal(err)
	}
	cleared, ends, err := k.bounds(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	for n, end := range ends[topic] {
		if start := cleared[topic][n].Offset; start != end.Offset {
			t.Errorf("partition %d holds %d to %d that all sinks have", n, start, end.Offset)
		}
	}
	// … then the oldest half of the rest.
	for i := range cs {
		cs[i].pos.Epoch = 2
	}
	publish(t, p, orders, cs...)
	if err := capSize(ctx, cfg, data, addr); err != nil {
		t.Fatal(err)
	}
	starts, ends, err := k.bounds(ctx, topic, schemas)
	if err != nil {
		t.Fatal(err)
	}
	for n, end := range ends[topic] {
		if first, start := cleared[topic][n].Offset, starts[topic][n].Offset; start != first+(end.Offset-first+1)/2 {
			t.Errorf("partition %d holds %d to %d", n, start, end.Offset)
		}
	}
	if starts[schemas][0].Offset != 0 {
		t.Error("schemas are gone")
	}
}
