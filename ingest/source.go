// Package ingest runs sources: it reads an external system, applies the
// protect rules and hands the records to a publisher.
package ingest

import (
	"context"

	"github.com/sluice-data/sluice/record"
)

// Source reads one external system.
type Source interface {
	// Run reads from the saved checkpoint on and blocks until ctx ends or the
	// source fails for good. It leaves no goroutine behind.
	Run(ctx context.Context, out Output) error
}

// Output is what a source writes to. All methods but Barrier's callback run on
// the source's goroutines; Publish may be called by several at once.
type Output interface {
	// Publish takes b over and blocks while the buffers are full. Rows of one
	// key must be published by one goroutine at a time. b.Schema is sealed.
	// An error that is not of ctx parks the stream of b: the source must not
	// pass later rows of that stream, other streams go on. An error with a
	// method Lost() bool that returns true is of the Output as a whole: the
	// source returns it.
	Publish(ctx context.Context, b *record.Batch) error

	// Barrier calls done once the brokers hold every record published before
	// it (invariant 1), in order of the Barrier calls. done must not block.
	Barrier(done func())

	// Flush waits until the brokers hold every record published so far.
	Flush(ctx context.Context) error

	// LoadCheckpoint returns what SaveCheckpoint stored last under key, nil if nothing.
	LoadCheckpoint(ctx context.Context, key string) ([]byte, error)

	// SaveCheckpoint stores data durably beside the records before it returns.
	SaveCheckpoint(ctx context.Context, key string, data []byte) error
}
