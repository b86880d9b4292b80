package topic

import (
	"context"

	"github.com/sluice-data/sluice/record"
)

// Sink receives the records of one topic and owns their offsets. One goroutine
// calls all methods, one at a time. Two processes may hold a Sink of the same
// topic with overlapping partitions for a while (a rolling deploy, a zombie):
// the Sink's own stored marks decide who wins, see record.ErrFenced.
type Sink interface {
	// Load returns the stored marks of parts and makes them current; a
	// partition without a mark is absent from the result and starts at its
	// first offset. It is called before the first Write and whenever
	// partitions are gained. What Write took since the last Flush for other
	// partitions stays as it is.
	Load(ctx context.Context, parts []int32) (map[int32]record.Mark, error)

	// Write takes b over and may hold it until Flush; it calls b.Release when
	// done. Rows it can never store are returned as rejects and count as
	// handled; each other row is Delivered or Superseded once, and a control op
	// counts as nothing (invariant 5). Any error is fatal for this Sink: it is
	// closed and opened anew.
	Write(ctx context.Context, b *record.Batch) ([]record.Reject, error)

	// Buffered returns the bytes that a Flush would make durable.
	Buffered() int

	// Flush makes everything written since the last Flush durable, together
	// with marks, in one atomic write. Each mark holds the totals of its
	// partition but for Delivered and Superseded since the last Flush: the
	// sink adds these, stores the marks and returns them. Any error is fatal
	// for this Sink (invariant 3). It returns an error that is record.ErrFenced when another
	// process has moved a mark.
	Flush(ctx context.Context, marks map[int32]record.Mark) (map[int32]record.Mark, error)

	// Close drops what was not flushed. Calling it twice is fine.
	Close() error
}

// Chain is the compiled rules of one schema.
type Chain interface {
	// Apply runs the rules over b, which it takes over, and returns the batch
	// to go on with (maybe b itself; nil when no row is left), the number of
	// rows filtered away and the rows that were refused. Rejects carry the
	// row numbers of the input batch.
	Apply(b *record.Batch) (out *record.Batch, filtered int, rejects []record.Reject, err error)
}
