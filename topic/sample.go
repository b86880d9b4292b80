package topic

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/record"
)

// maxSample bounds the rows of Sample.
const maxSample = 1000

// Sample returns up to n of the newest rows of a stream as its topic has them,
// each in a batch of its own, for people to look at. It belongs to no group
// and commits nothing. Records that are no rows, or that no decoder reads, are
// left out.
func (k *Kafka) Sample(ctx context.Context, stream record.StreamName, n int) ([]*record.Batch, error) {
	if n < 1 || n > maxSample {
		return nil, fmt.Errorf("sample %s: want 1 to %d rows", stream, maxSample)
	}
	name, err := TopicName(k.cfg.Prefix, stream)
	if err != nil {
		return nil, err
	}
	records, err := k.newest(ctx, name, n)
	if err != nil {
		return nil, fmt.Errorf("sample topic %s: %w", name, err)
	}
	decoders := map[string]*record.Decoder{}
	var rows []*record.Batch
	for _, r := range records {
		head, err := record.ReadHead(r.Value)
		if err != nil || head.Op.Control() || head.SchemaID == "" {
			continue
		}
		schema, err := k.schemas.Get(ctx, stream, head.SchemaID)
		if err != nil {
			return nil, err
		}
		d := decoders[head.SchemaID]
		if d == nil {
			d = record.NewDecoder(schema)
			decoders[head.SchemaID] = d
		}
		b := record.NewBatch(schema, nil)
		if d.Append(b, r.Key, r.Value, header(r, record.UnsentHeader)) == nil {
			rows = append(rows, b)
		}
	}
	return rows, nil
}

func header(r *kgo.Record, key string) []byte {
	for _, h := range r.Headers {
		if h.Key == key {
			return h.Value
		}
	}
	return nil
}

// newest returns the last n records of a topic, by their time.
func (k *Kafka) newest(ctx context.Context, name string, n int) ([]*kgo.Record, error) {
	starts, ends, err := k.bounds(ctx, name)
	if err != nil {
		return nil, err
	}
	from, left := map[int32]kgo.Offset{}, map[int32]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(name, end.Partition)
		if at := max(start.Offset, end.Offset-int64(n)); at < end.Offset {
			from[end.Partition], left[end.Partition] = kgo.NewOffset().At(at), end.Offset
		}
	})
	if len(left) == 0 {
		return nil, nil
	}
	cl, err := k.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: from}))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var records []*kgo.Record
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if end, ok := left[r.Partition]; ok {
				records = append(records, r)
				if r.Offset+1 >= end {
					delete(left, r.Partition)
				}
			}
		})
	}
	slices.SortStableFunc(records, func(a, b *kgo.Record) int { return a.Timestamp.Compare(b.Timestamp) })
	return records[max(0, len(records)-n):], nil
}
