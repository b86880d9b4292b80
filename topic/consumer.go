package topic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// leaveTimeout bounds the last request of a consumer that stops.
const leaveTimeout = 5 * time.Second

// ConsumerConfig says what one sink consumes. Zero values are defaults.
type ConsumerConfig struct {
	Name    string // of the sink; the group is <prefix>.<name>
	Streams []Stream

	Every time.Duration // flush at this age of the first unflushed record; default 10 s
	Bytes int           // … or at this many buffered bytes; default 64 MiB
	Rows  int           // … or at this many rows; default no limit

	Drain   time.Duration // for the last flush, at the end or before partitions go; default 20 s
	Session time.Duration // after which a silent member loses its partitions; default 45 s

	// Instance names this member across restarts, so that a process that was
	// killed gets its partitions back at once instead of after Session. No two
	// processes may have the same one. Empty: a new member each time.
	Instance string

	Board  *progress.Board
	Logger *slog.Logger // default: that of Kafka
}

// Stream is one stream of a sink.
type Stream struct {
	Name  record.StreamName
	Open  func(ctx context.Context) (Sink, error) // called again after every failure
	Chain func(*record.Schema) (Chain, error)     // compiles the shape rules of one schema; nil = none
}

// Consumer feeds the streams of one sink: one lane a topic, each with its own
// client, pace and failures (invariant 10). The group only says which
// partitions are ours; where to go on is for the sink's marks to say.
type Consumer struct {
	k     *Kafka
	cfg   ConsumerConfig
	group string
	lanes map[string]*lane // by topic
	names []string         // of the topics, in the order of the configuration

	grp      *kgo.Client     // group membership only: it fetches nothing
	work     context.Context // of writes and flushes: outlives Run's by cfg.Drain
	commits  commits
	stopping chan struct{}

	retentionLook time.Duration

	mu       sync.Mutex
	assigned bool
}

// Consume prepares a Consumer; it starts with Run. A topic that does not exist
// yet is waited for.
func (k *Kafka) Consume(ctx context.Context, cfg ConsumerConfig) (*Consumer, error) {
	if cfg.Name == "" || len(cfg.Streams) == 0 {
		return nil, errors.New("consume: a sink needs a name and at least one stream")
	}
	def := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&cfg.Every, 10*time.Second)
	def(&cfg.Drain, 20*time.Second)
	def(&cfg.Session, 45*time.Second)
	if cfg.Bytes == 0 {
		cfg.Bytes = 64 << 20
	}
	if cfg.Board == nil {
		cfg.Board = new(progress.Board)
	}
	if cfg.Logger == nil {
		cfg.Logger = k.cfg.Logger
	}
	c := &Consumer{k: k, cfg: cfg, group: k.cfg.Prefix + "." + cfg.Name, lanes: map[string]*lane{}, stopping: make(chan struct{}), retentionLook: retentionLook}
	for _, s := range cfg.Streams {
		name, err := TopicName(k.cfg.Prefix, s.Name)
		if err != nil {
			return nil, fmt.Errorf("sink %s: %w", cfg.Name, err)
		}
		if c.lanes[name] != nil {
			return nil, fmt.Errorf("sink %s: stream %s is there twice", cfg.Name, s.Name)
		}
		c.lanes[name] = newLane(c, s, name)
		c.names = append(c.names, name)
	}
	return c, nil
}

// Run consumes until ctx ends, then flushes what the sinks have taken within
// cfg.Drain. The failure of a stream does not end it: see the board. It
// returns the errors of the last flushes. Call it once.
func (c *Consumer) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	c.work = work
	if err := c.join(); err != nil {
		return err
	}
	var lanes, rest sync.WaitGroup
	errs := make([]error, len(c.names))
	for i, name := range c.names {
		lanes.Go(func() { errs[i] = c.lanes[name].run(ctx) })
	}
	rest.Go(func() { c.watchTopics(ctx) })
	rest.Go(func() { c.commits.run(ctx, c) })
	rest.Go(func() { c.watchRetention(ctx) })
	<-ctx.Done()
	drain := time.AfterFunc(c.cfg.Drain, stop)
	defer drain.Stop()
	lanes.Wait()
	rest.Wait()
	close(c.stopping)
	c.commits.last(c)
	c.grp.Close() // leaves the group
	c.leaveInstance(context.WithoutCancel(ctx))
	return errors.Join(errs...)
}

// leaveInstance gives the partitions of a named member to the others: closing
// its client would let them wait for its session to end.
func (c *Consumer) leaveInstance(ctx context.Context) {
	if c.cfg.Instance == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	_, err := c.k.adm.LeaveGroup(ctx, kadm.LeaveGroup(c.group).InstanceIDs(c.cfg.Instance).Reason("stopped"))
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // it may never have joined
		c.cfg.Logger.Warn("leave the group: others wait for the session to end", "group", c.group, "error", err)
	}
}

// join enters the group.
func (c *Consumer) join() error {
	opts := []kgo.Opt{
		kgo.ConsumerGroup(c.group),
		kgo.ConsumeTopics(c.names...),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(c.cfg.Session),
		kgo.HeartbeatInterval(min(3*time.Second, c.cfg.Session/4)),
		// A member that was killed while the group changes is waited for so long:
		// no longer than a living one may take for its last flush.
		kgo.RebalanceTimeout(c.cfg.Drain + c.cfg.Session),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { c.gained(parts) }),
		kgo.OnPartitionsRevoked(func(ctx context.Context, _ *kgo.Client, parts map[string][]int32) { c.revoked(ctx, parts) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, parts map[string][]int32) { c.lost(parts) }),
	}
	if c.cfg.Instance != "" {
		opts = append(opts, kgo.InstanceID(c.cfg.Instance))
	}
	grp, err := c.k.client(append(opts, c.k.groupOpts...)...)
	if err != nil {
		return fmt.Errorf("group %s: %w", c.group, err)
	}
	grp.PauseFetchTopics(c.names...)
	c.grp = grp
	return nil
}

func (c *Consumer) gained(parts map[string][]int32) {
	c.mu.Lock()
	c.assigned = true
	c.mu.Unlock()
	for topic, ps := range parts {
		if l := c.lanes[topic]; l != nil {
			l.post(func(ctx context.Context) { l.gain(ctx, ps) })
		}
	}
}

// revoked waits until the lanes have flushed what they hold of parts, so that
// the next owner does not read it again. What takes longer is left to the
// marks: the loser of the two is fenced (invariant 11).
func (c *Consumer) revoked(ctx context.Context, parts map[string][]int32) {
	select {
	case <-c.stopping:
		return // the lanes have ended
	default:
	}
	deadline := time.Now().Add(c.cfg.Drain)
	var wait sync.WaitGroup
	for topic, ps := range parts {
		l := c.lanes[topic]
		if l == nil || len(ps) == 0 {
			continue
		}
		done := make(chan struct{})
		l.post(func(ctx context.Context) {
			defer close(done)
			l.revoke(ps, deadline)
		})
		wait.Go(func() {
			select {
			case <-done:
			case <-l.ended:
			case <-time.After(time.Until(deadline)):
			}
		})
	}
	wait.Wait()
	c.commits.forget(parts)
}

func (c *Consumer) lost(parts map[string][]int32) {
	c.commits.forget(parts)
	for topic, ps := range parts {
		if l := c.lanes[topic]; l != nil && len(ps) > 0 {
			l.post(func(context.Context) { l.lose(ps) })
		}
	}
}

// watchTopics tells the lanes when their topic appears, goes or is another one.
func (c *Consumer) watchTopics(ctx context.Context) {
	for missing := true; ; {
		all, err := c.k.describe(ctx, c.names...)
		if err == nil {
			was := missing
			missing = false
			for name, l := range c.lanes {
				t, there := all[name]
				missing = missing || !there
				l.sawTopic(t.id)
				if l.troubled() {
					l.post(l.tryRepair)
				}
			}
			if was {
				c.grp.ForceMetadataRefresh() // the group learns of new topics at once
			}
		}
		every := 3 * time.Second
		if missing {
			every = 500 * time.Millisecond
		}
		if !sleep(ctx, every) {
			return
		}
	}
}

// lane returns the lane of a stream.
func (c *Consumer) lane(n record.StreamName) (*lane, error) {
	for _, l := range c.lanes {
		if l.stream.Name == n {
			return l, nil
		}
	}
	return nil, fmt.Errorf("sink %s has no stream %s", c.cfg.Name, n)
}

// Pause stops a stream after a flush, until Resume.
func (c *Consumer) Pause(n record.StreamName) error {
	l, err := c.lane(n)
	if err == nil {
		l.post(func(context.Context) { l.pause() })
	}
	return err
}

// Resume starts a paused or parked stream again, from the sink's marks.
func (c *Consumer) Resume(n record.StreamName) error {
	l, err := c.lane(n)
	if err == nil {
		l.post(func(context.Context) { l.resume() })
	}
	return err
}
