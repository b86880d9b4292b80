package main

import (
	"context"

	"github.com/sluice-data/sluice/ingest"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/topic"
)

// The points at which a test binary can kill itself, beside those of the lake.
const (
	beforePublish      = "ingest.before-publish"
	atBackfillBegin    = "ingest.backfill-begin"
	atBackfillEnd      = "ingest.backfill-end" // the hand-over to the log
	beforeCheckpoint   = "ingest.before-checkpoint"
	afterCheckpoint    = "ingest.after-checkpoint"
	beforeAcknowledged = "ingest.before-ack" // the brokers hold it, the source does not know
	beforeWrite        = "topic.before-write"
	beforeFlush        = "topic.before-flush"
	afterFlush         = "topic.after-flush" // the sink is durable, the group does not know
)

// hookedOutput calls hook at the points of a source; without a hook it is out.
func hookedOutput(out ingest.Output, hook func(string)) ingest.Output {
	if hook == nil {
		return out
	}
	return &outputPoints{out, hook}
}

type outputPoints struct {
	ingest.Output
	hook func(string)
}

// Publish passes a point before it publishes.
func (o *outputPoints) Publish(ctx context.Context, b *record.Batch) error {
	switch op, _ := b.Control(); op {
	case record.OpBackfillBegin:
		o.hook(atBackfillBegin)
	case record.OpBackfillEnd:
		o.hook(atBackfillEnd)
	default:
		o.hook(beforePublish)
	}
	return o.Output.Publish(ctx, b)
}

// Barrier passes a point when the brokers hold everything before it.
func (o *outputPoints) Barrier(done func()) {
	o.Output.Barrier(func() {
		o.hook(beforeAcknowledged)
		done()
	})
}

// SaveCheckpoint passes a point before and after it.
func (o *outputPoints) SaveCheckpoint(ctx context.Context, key string, data []byte) error {
	o.hook(beforeCheckpoint)
	err := o.Output.SaveCheckpoint(ctx, key, data)
	o.hook(afterCheckpoint)
	return err
}

// hookedSink calls hook at the points of a consumer; without a hook it is s.
func hookedSink(s topic.Sink, hook func(string)) topic.Sink {
	if hook == nil {
		return s
	}
	return &sinkPoints{s, hook}
}

type sinkPoints struct {
	topic.Sink
	hook func(string)
}

// Write passes a point before it writes.
func (s *sinkPoints) Write(ctx context.Context, b *record.Batch) ([]record.Reject, error) {
	s.hook(beforeWrite)
	return s.Sink.Write(ctx, b)
}

// Flush passes a point before and after it.
func (s *sinkPoints) Flush(ctx context.Context, marks map[int32]record.Mark) (map[int32]record.Mark, error) {
	s.hook(beforeFlush)
	done, err := s.Sink.Flush(ctx, marks)
	s.hook(afterFlush)
	return done, err
}
