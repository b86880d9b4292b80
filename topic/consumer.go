package topic

import (
	"context"
	"log/slog"
	"time"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// ConsumerConfig says what one sink consumes. Zero values are defaults.
type ConsumerConfig struct {
	Name    string // of the sink; the group is <prefix>.<name>
	Streams []Stream

	Every time.Duration // flush at this age of the first unflushed record; default 10 s
	Bytes int           // … or at this many buffered bytes; default 64 MiB
	Rows  int           // … or at this many rows; default no limit

	Drain   time.Duration // for the last flush at the end; default 20 s
	Session time.Duration // after which a silent member loses its partitions; default 45 s

	Board  *progress.Board
	Logger *slog.Logger
}

// Stream is one stream of a sink.
type Stream struct {
	Name  record.StreamName
	Open  func(ctx context.Context) (Sink, error)
	Chain func(*record.Schema) (Chain, error) // compiles the shape rules; nil = none
}

// Consumer feeds the streams of one sink.
type Consumer struct{}

// Consume prepares a Consumer; it starts with Run.
func (k *Kafka) Consume(ctx context.Context, cfg ConsumerConfig) (*Consumer, error) {
	return &Consumer{}, nil
}

// Run consumes until ctx ends, then flushes within cfg.Drain.
func (c *Consumer) Run(ctx context.Context) error { return nil }

// CatchUp returns once everything that is on the topics now is in the sink.
// A parked or failed stream is an error. Run must be running.
func (c *Consumer) CatchUp(ctx context.Context) error { return nil }

// Pause stops a stream after a flush; Resume goes on, also after it has parked.
func (c *Consumer) Pause(n record.StreamName) error { return nil }

// Resume starts a paused or parked stream again.
func (c *Consumer) Resume(n record.StreamName) error { return nil }
