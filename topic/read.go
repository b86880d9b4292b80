package topic

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// read passes every record of a topic of one partition to each, from its start
// to the offset end; with a negative end it follows the topic until ctx ends.
func (k *Kafka) read(ctx context.Context, topic string, end int64, each func(*kgo.Record)) error {
	if end == 0 {
		return nil
	}
	cl, err := k.client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return fmt.Errorf("read topic %s: %w", topic, err)
		}
		next := int64(0)
		var failed error
		fetches.EachError(func(_ string, _ int32, err error) { failed = err })
		if failed != nil {
			return fmt.Errorf("read topic %s: %w", topic, failed)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			each(r)
			next = r.Offset + 1
		})
		if end >= 0 && next >= end {
			return nil
		}
	}
}

// end returns the offset after the last record of a topic of one partition.
func (k *Kafka) end(ctx context.Context, topic string) (int64, error) {
	_, ends, err := k.bounds(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("end of topic %s: %w", topic, err)
	}
	o, _ := ends.Lookup(topic, 0)
	return o.Offset, nil
}

// produce writes one of the rare records and waits until the brokers hold it.
func (k *Kafka) produce(ctx context.Context, rs ...*kgo.Record) error {
	return k.cl.ProduceSync(ctx, rs...).FirstErr()
}
