package topic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// MaxRecordBytes is the largest record, key and value together, that a topic
// of ours takes; a bigger one becomes a dead letter.
const MaxRecordBytes = maxMessageBytes - 4096

// maxMessageBytes is max.message.bytes of our topics: one batch with its framing.
const maxMessageBytes = 16 << 20

// batchBytes is the size of a produced batch: an fsync per batch decides the
// cost of a row, and more than 1 MB gains nothing.
const batchBytes = 1 << 20

// Config says where Kafka is and how our topics look. Zero values are defaults.
type Config struct {
	Brokers []string    // host:port
	TLS     *tls.Config // nil = plain text
	SASL    *SASL       // nil = none
	Prefix  string      // name of the pipeline: prefix of topics and groups

	Partitions   int               // of a topic with keys; default 4
	Replication  int               // default: the brokers' own
	TopicConfigs map[string]string // for data topics, over our defaults

	BufferBytes     int           // unacknowledged bytes of one Publisher; default 16 MiB
	MemoryBytes     int           // what all consumers of the process may hold together; default 128 MiB
	DeliveryTimeout time.Duration // after which a record that the brokers did not take fails; default 2 min
	ConnectTimeout  time.Duration // default 30 s

	Logger *slog.Logger
	Unsafe Unsafe // for crash tests
}

// SASL names a user. Mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
type SASL struct{ Mechanism, User, Password string }

func (c Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.Partitions, 4)
	def(&c.Replication, -1)
	def(&c.BufferBytes, 16<<20)
	def(&c.MemoryBytes, 128<<20)
	if c.DeliveryTimeout == 0 {
		c.DeliveryTimeout = 2 * time.Minute
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Kafka is the connection of one pipeline to its brokers.
type Kafka struct {
	cfg     Config
	cluster string      // Kafka's cluster id
	cl      *kgo.Client // admin requests and the rare records: schemas, checkpoints, dead letters, big rows
	adm     *kadm.Client
	schemas *Schemas
	budget  budget
	topics  ensured

	closing sync.Once

	pools      *pools
	clientLog  clientLog // shared: every lane has a client
	schemaWait time.Duration

	// What tests add to the clients.
	producerOpts, groupOpts, laneOpts []kgo.Opt
}

// Connect reaches the brokers and makes sure of the pipeline's own topics. It
// waits cfg.ConnectTimeout at most.
func Connect(ctx context.Context, cfg Config) (*Kafka, error) {
	cfg = cfg.withDefaults()
	if cfg.Prefix == "" || len(cfg.Brokers) == 0 {
		return nil, errors.New("connect to Kafka: brokers and the pipeline's name are needed")
	}
	if err := cfg.Unsafe.check(); err != nil {
		return nil, err
	}
	k := &Kafka{cfg: cfg, pools: new(pools), schemaWait: schemaWait, clientLog: newClientLog(cfg.Logger)}
	k.budget.limit = int64(cfg.MemoryBytes)
	cl, err := k.client(
		kgo.ProducerBatchMaxBytes(maxMessageBytes),
		kgo.ProducerBatchCompression(kgo.SnappyCompression()),
		kgo.ProducerLinger(0),
		kgo.RecordPartitioner(partitioner{}),
		kgo.RecordDeliveryTimeout(max(cfg.DeliveryTimeout, time.Second)), // the client's minimum
	)
	if err != nil {
		return nil, err
	}
	k.cl, k.adm = cl, kadm.NewClient(cl)
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	if err := k.open(ctx); err != nil {
		k.cl.Close()
		return nil, err
	}
	return k, nil
}

func (k *Kafka) open(ctx context.Context) error {
	cluster, err := k.reach(ctx)
	if err != nil {
		return fmt.Errorf("connect to Kafka at %v: %w: are the addresses right and the brokers up?", k.cfg.Brokers, err)
	}
	k.cluster = cluster
	if err := k.ensureOwn(ctx); err != nil {
		return err
	}
	k.schemas = newSchemas(k)
	return nil
}

// reach returns the cluster id once a broker answers.
func (k *Kafka) reach(ctx context.Context) (string, error) {
	for last := error(nil); ; {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		m, err := k.adm.BrokerMetadata(try)
		cancel()
		if err == nil && len(m.Brokers) > 0 {
			return m.Cluster, nil
		}
		if err == nil {
			err = errors.New("no broker has registered")
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return "", last
		}
	}
}

// client returns a client for the brokers with opts on top.
func (k *Kafka) client(opts ...kgo.Opt) (*kgo.Client, error) { return k.clientBehind(nil, opts...) }

// clientBehind returns a client that writes through a gate; nil = none.
func (k *Kafka) clientBehind(g *gate, opts ...kgo.Opt) (*kgo.Client, error) {
	base := []kgo.Opt{
		kgo.SeedBrokers(k.cfg.Brokers...),
		kgo.ClientID("sluice-" + k.cfg.Prefix),
		kgo.WithLogger(k.clientLog),
		kgo.DisableClientMetrics(),
		kgo.MetadataMinAge(250 * time.Millisecond), // a new topic is seen at once
	}
	switch {
	case g != nil:
		base = append(base, kgo.Dialer(g.dialer(k.cfg.TLS)), kgo.WithLogger(gateLog{k.clientLog, g}))
	case k.cfg.TLS != nil:
		base = append(base, kgo.DialTLSConfig(k.cfg.TLS))
	}
	if s := k.cfg.SASL; s != nil {
		m, err := s.mechanism()
		if err != nil {
			return nil, err
		}
		base = append(base, kgo.SASL(m))
	}
	cl, err := kgo.NewClient(append(base, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("Kafka client: %w", err)
	}
	return cl, nil
}

func (s *SASL) mechanism() (sasl.Mechanism, error) {
	switch s.Mechanism {
	case "PLAIN":
		return plain.Auth{User: s.User, Pass: s.Password}.AsMechanism(), nil
	case "SCRAM-SHA-256":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha256Mechanism(), nil
	case "SCRAM-SHA-512":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("sasl mechanism %q: use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", s.Mechanism)
}

// Schemas returns the schemas that the pipeline's sources have published.
func (k *Kafka) Schemas() *Schemas { return k.schemas }

// Cluster returns Kafka's cluster id.
func (k *Kafka) Cluster() string { return k.cluster }

// Close ends the connection. Publishers and consumers must have ended before.
func (k *Kafka) Close() {
	k.closing.Do(func() {
		k.schemas.close()
		k.cl.Close()
	})
}

// sleep waits d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// logPause is how long the client is silent about what it has just said: a
// broker that is down would fill the log.
const logPause = 30 * time.Second

// clientLog passes the client's warnings on, each now and then only; its lower
// levels speak of every request.
type clientLog struct {
	to   *slog.Logger
	mu   *sync.Mutex
	said map[string]time.Time // by message
}

func newClientLog(to *slog.Logger) clientLog {
	return clientLog{to: to, mu: new(sync.Mutex), said: map[string]time.Time{}}
}

// Level returns the least level that is looked at.
func (clientLog) Level() kgo.LogLevel { return kgo.LogLevelWarn }

// Log passes msg on unless it was said a moment ago.
func (l clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	l.mu.Lock()
	again := time.Since(l.said[msg]) < logPause
	if !again {
		l.said[msg] = time.Now()
	}
	l.mu.Unlock()
	switch {
	case again:
		l.to.Debug("kafka: "+msg, keyvals...)
	case level == kgo.LogLevelError:
		l.to.Error("kafka: "+msg, keyvals...)
	default:
		l.to.Warn("kafka: "+msg, keyvals...)
	}
}
