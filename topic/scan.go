package topic

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/record"
)

// scanRows is how many rows a batch of Scan has at most.
const scanRows = 1024

// Scan passes all records that a stream's topic has now to each, as a sink
// gets them behind the rules of chain (nil = none): of one partition they come
// in order. It belongs to no group and commits nothing; what no decoder reads
// and what a rule refuses is left out. A batch is valid only during the call.
func (k *Kafka) Scan(ctx context.Context, stream record.StreamName, chain func(*record.Schema) (Chain, error), each func(*record.Batch) error) error {
	name, err := TopicName(k.cfg.Prefix, stream)
	if err != nil {
		return err
	}
	starts, ends, err := k.bounds(ctx, name)
	if err != nil {
		return fmt.Errorf("bounds of topic %s: %w", name, err)
	}
	s := &scan{k: k, stream: stream, topic: name, rules: chain, each: each, versions: map[string]*version{}, left: map[int32]int64{}, last: map[int32]record.Position{}}
	from := map[int32]kgo.Offset{}
	ends.Each(func(end kadm.ListedOffset) {
		if start, _ := starts.Lookup(name, end.Partition); start.Offset < end.Offset {
			from[end.Partition], s.left[end.Partition] = kgo.NewOffset().At(start.Offset), end.Offset
		}
	})
	if len(s.left) == 0 {
		return nil
	}
	cl, err := k.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: from}))
	if err != nil {
		return err
	}
	defer cl.Close()
	for len(s.left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("scan topic %s: %w", name, err)
		}
		var failed error
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			if failed == nil {
				failed = s.partition(ctx, f.Partition, f.Records)
			}
		})
		if failed != nil {
			return fmt.Errorf("scan topic %s: %w", name, failed)
		}
	}
	return nil
}

// scan is one Scan under way.
type scan struct {
	k        *Kafka
	stream   record.StreamName
	topic    string
	rules    func(*record.Schema) (Chain, error)
	each     func(*record.Batch) error
	versions map[string]*version
	left     map[int32]int64           // where each partition ends
	last     map[int32]record.Position // newest of each partition
}

// partition passes on what a poll has brought of one partition.
func (s *scan) partition(ctx context.Context, number int32, rs []*kgo.Record) error {
	var b *record.Batch
	var v *version
	hand := func() (err error) {
		if b != nil {
			err = s.hand(v, b)
			b = nil
		}
		return err
	}
	for _, r := range rs {
		end, open := s.left[number]
		if !open || r.Offset >= end {
			break
		}
		if r.Offset+1 >= end {
			delete(s.left, number)
		}
		head, err := record.ReadHead(r.Value)
		if _, old := stale(head, s.last[number]); err != nil || head.SchemaID == "" || old {
			continue
		}
		if head.Pos.Compare(s.last[number]) > 0 {
			s.last[number] = head.Pos
		}
		if v == nil || v.schema.ID != head.SchemaID || head.Op.Control() || b != nil && b.Len() >= scanRows {
			if err := hand(); err != nil {
				return err
			}
			if v, err = s.version(ctx, head.SchemaID); err != nil {
				return err
			}
		}
		if head.Op.Control() {
			b = record.NewControl(v.schema, head.Op, head.Pos, head.Time)
			b.Partition, b.Offsets = record.TopicPartition{Topic: s.topic, Partition: number}, []int64{r.Offset}
			if err := hand(); err != nil {
				return err
			}
			continue
		}
		if b == nil {
			b = record.NewBatch(v.schema, nil)
			b.Partition = record.TopicPartition{Topic: s.topic, Partition: number}
		}
		if v.decoder.Append(b, r.Key, r.Value, unsent(r)) == nil {
			b.Offsets = append(b.Offsets, r.Offset)
		}
	}
	return hand()
}

// hand passes a batch on, behind the rules.
func (s *scan) hand(v *version, b *record.Batch) error {
	if _, control := b.Control(); v.chain != nil && !control {
		out, _, _, err := v.chain.Apply(b)
		if err != nil || out == nil {
			return err
		}
		b = out
	}
	return s.each(b)
}

// version returns the decoder and the rules of a schema.
func (s *scan) version(ctx context.Context, id string) (*version, error) {
	if v := s.versions[id]; v != nil {
		return v, nil
	}
	schema, err := s.k.schemas.Get(ctx, s.stream, id)
	if err != nil {
		return nil, err
	}
	v := &version{schema: schema, decoder: record.NewDecoder(schema)}
	if s.rules != nil {
		if v.chain, err = s.rules(schema); err != nil {
			return nil, errors.Join(errors.New("its rules"), err)
		}
	}
	s.versions[id] = v
	return v, nil
}
