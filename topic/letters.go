package topic

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/record"
)

// deadGone is the only header of a record that takes letters off the list: it
// is a JSON array of their offsets.
const deadGone = "sluice.dlq.gone"

// goneAtOnce bounds one such record.
const goneAtOnce = 10_000

// Letter is a dead letter: a record refused for good, and why.
type Letter struct {
	ID     int64             // its offset on the dead-letter topic
	At     time.Time         // when it was refused
	Sink   string            // who refused it: a sink …
	Source string            // … or a source, before the record reached its topic
	Stream record.StreamName // of the record
	Code   string            // stable and short
	Reason string            // for people, without values

	Topic     string // where the record is, or was to go
	Partition int32  // of Topic; -1 when the record never reached it
	Offset    int64
	Position  string // in the source's log, when the record never reached its topic

	Key, Value []byte // of the record; Value is empty when it never reached its topic
}

// letterPlace tells letters of one record and sink apart from others: a sink that
// was killed may write a letter twice.
type letterPlace struct {
	owner, topic, position string
	partition              int32
	offset                 int64
	key                    string // of a record that never reached its topic: rows of one backfill share their position
}

// Letters passes the dead letters that are on the list to each, oldest first
// and each refused record once. A letter is valid only during the call.
func (k *Kafka) Letters(ctx context.Context, each func(Letter) error) error {
	topic := k.cfg.Prefix + deadSuffix
	starts, ends, err := k.bounds(ctx, topic)
	if err != nil {
		return fmt.Errorf("bounds of topic %s: %w", topic, err)
	}
	first, _ := starts.Lookup(topic, 0)
	last, _ := ends.Lookup(topic, 0)
	end := last.Offset
	if first.Offset >= end {
		return nil
	}
	gone := map[int64]bool{}
	if err := k.read(ctx, topic, end, func(r *kgo.Record) {
		for _, id := range goneOf(r) {
			gone[id] = true
		}
	}); err != nil {
		return err
	}
	var failed error
	seen := map[letterPlace]bool{}
	err = k.read(ctx, topic, end, func(r *kgo.Record) {
		if failed != nil || r.Offset >= end || goneOf(r) != nil {
			return
		}
		l := letterOf(r)
		at := letterPlace{l.Sink + "/" + l.Source, l.Topic, l.Position, l.Partition, l.Offset, ""}
		if l.Partition < 0 {
			at.key = string(l.Key)
		}
		again := seen[at] && (l.Partition >= 0 || len(l.Key) > 0) // rows without a key cannot be told apart
		seen[at] = true
		if gone[r.Offset] || again {
			return
		}
		failed = each(l)
	})
	if failed != nil {
		return failed
	}
	return err
}

// DropLetters takes letters off the list for good. The records themselves stay
// on the topic until its retention ends.
func (k *Kafka) DropLetters(ctx context.Context, ids []int64) error {
	for some := range slices.Chunk(ids, goneAtOnce) {
		text, err := json.Marshal(some)
		if err != nil {
			return err
		}
		r := &kgo.Record{Topic: k.cfg.Prefix + deadSuffix, Headers: []kgo.RecordHeader{{Key: deadGone, Value: text}}}
		if err := k.produce(ctx, r); err != nil {
			return fmt.Errorf("take %d dead letters off the list: %w", len(some), err)
		}
	}
	return nil
}

// Reread decodes the record of a letter and runs rules over it (nil = none), as
// the sink got it; nil if they leave nothing.
func (k *Kafka) Reread(ctx context.Context, l *Letter, chain func(*record.Schema) (Chain, error)) (*record.Batch, error) {
	key, value, omitted := l.Key, l.Value, []byte(nil)
	if len(value) == 0 { // a sink that had taken it leaves the values where they are
		r, err := k.at(ctx, l.Topic, l.Partition, l.Offset)
		if err != nil {
			return nil, fmt.Errorf("read dead letter %d: %w", l.ID, err)
		}
		key, value, omitted = r.Key, r.Value, unsent(r)
	}
	head, err := record.ReadHead(value)
	if err != nil {
		return nil, fmt.Errorf("read dead letter %d: %w", l.ID, err)
	}
	schema, err := k.schemas.Get(ctx, l.Stream, head.SchemaID)
	if err != nil {
		return nil, err
	}
	b := record.NewBatch(schema, nil)
	b.Partition, b.Offsets = record.TopicPartition{Topic: l.Topic, Partition: l.Partition}, []int64{l.Offset}
	if err := record.NewDecoder(schema).Append(b, key, value, omitted); err != nil {
		return nil, fmt.Errorf("read dead letter %d: %w", l.ID, err)
	}
	if chain == nil {
		return b, nil
	}
	rules, err := chain(schema)
	if err != nil || rules == nil {
		return b, err
	}
	b, _, _, err = rules.Apply(b)
	return b, err
}

// rereadTime bounds the read of one record, which retention may have deleted.
const rereadTime = 5 * time.Second

// at returns the record at a place.
func (k *Kafka) at(ctx context.Context, topic string, partition int32, offset int64) (*kgo.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, rereadTime)
	defer cancel()
	cl, err := k.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(offset)}}))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	fetches := cl.PollRecords(ctx, 1)
	if err := fetches.Err(); err != nil {
		return nil, fmt.Errorf("read topic %s partition %d at %d: %w", topic, partition, offset, err)
	}
	for _, r := range fetches.Records() {
		if r.Offset == offset {
			return r, nil
		}
	}
	return nil, fmt.Errorf("topic %s partition %d has no record at %d", topic, partition, offset)
}

// goneOf returns the letters that r takes off the list, nil if r is a letter.
func goneOf(r *kgo.Record) []int64 {
	if len(r.Headers) != 1 || r.Headers[0].Key != deadGone {
		return nil
	}
	ids := []int64{}
	_ = json.Unmarshal(r.Headers[0].Value, &ids) // a foreign record takes nothing off
	return ids
}

func letterOf(r *kgo.Record) Letter {
	l := Letter{ID: r.Offset, At: r.Timestamp.UTC(), Partition: -1, Offset: -1, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		text := string(h.Value)
		switch h.Key {
		case deadSink:
			l.Sink = text
		case deadSource:
			l.Source = text
		case deadStream:
			l.Stream, _ = record.ParseStreamName(text) // a foreign record has none
		case deadTopic:
			l.Topic = text
		case deadPartition:
			if n, err := strconv.ParseInt(text, 10, 32); err == nil {
				l.Partition = int32(n)
			}
		case deadOffset:
			if n, err := strconv.ParseInt(text, 10, 64); err == nil {
				l.Offset = n
			}
		case deadCode:
			l.Code = text
		case deadReason:
			l.Reason = text
		case deadAt:
			if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
				l.At = at
			}
		case deadPosition:
			l.Position = text
		}
	}
	return l
}
