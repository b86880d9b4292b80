package main

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-data/sluice/activation"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/topic"
)

// outcomesName is the local name of the stream of a sink's outcomes.
const outcomesName = "outcomes"

// outcomeLog writes the outcomes of a sink's records to a topic of their own,
// <pipeline>.<sink>.outcomes, as a stream that any sink can read.
type outcomeLog struct {
	kafka          *topic.Kafka
	sink, pipeline string

	mu    sync.Mutex
	out   *topic.Publisher
	epoch uint64
	next  uint64
}

var outcomeFields = []record.Field{
	{Name: "at", Kind: record.TimestampTZ},
	{Name: "connection", Kind: record.Text}, {Name: "object", Kind: record.Text}, {Name: "operation", Kind: record.Text},
	{Name: "outcome", Kind: record.Text}, {Name: "code", Kind: record.Text}, {Name: "key", Kind: record.Text}, {Name: "id", Kind: record.Text},
	{Name: "vendor_code", Kind: record.Text}, {Name: "message", Kind: record.Text}, {Name: "request_id", Kind: record.Text},
	{Name: "position", Kind: record.Text},
	{Name: "partition", Kind: record.Int32}, {Name: "status", Kind: record.Int32}, {Name: "attempt", Kind: record.Int32},
	{Name: "record_offset", Kind: record.Int64},
}

// write returns once the brokers hold the events.
func (l *outcomeLog) write(ctx context.Context, events []activation.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out != nil && l.out.Err() != nil {
		l.out.Close()
		l.out = nil
	}
	if l.out == nil {
		out, err := l.kafka.Publisher(l.sink, record.Origin{Connector: "sluice", Name: l.pipeline + "." + l.sink}, nil)
		if err != nil {
			return err
		}
		l.out, l.epoch, l.next = out, uint64(time.Now().UnixMicro()), 0
	}
	schema := (&record.Schema{Stream: record.StreamName{Source: l.sink, Name: outcomesName}, Fields: outcomeFields}).Seal()
	b := record.NewBatch(schema, nil)
	for _, e := range events {
		l.next++
		b.Ops, b.Time = append(b.Ops, record.OpInsert), append(b.Time, e.At.UnixMicro())
		b.Pos = append(b.Pos, record.Position{Epoch: l.epoch, LSN: l.next, Seq: 2})
		b.After[0].AppendInt64(e.At.UnixMicro())
		for i, text := range []string{e.Connection, e.Object, e.Operation, e.Outcome.String(), string(e.Code), e.Key, e.ID, e.VendorCode, e.Message, e.RequestID, e.Position.String()} {
			b.After[1+i].AppendData([]byte(text))
		}
		for i, n := range []int{int(e.Part), e.Status, e.Attempt} {
			b.After[12+i].AppendInt32(int32(n))
		}
		b.After[15].AppendInt64(e.Offset)
	}
	if err := l.out.Publish(ctx, b); err != nil {
		return err
	}
	return l.out.Flush(ctx)
}

func (l *outcomeLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out != nil {
		l.out.Close()
		l.out = nil
	}
}
