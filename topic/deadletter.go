package topic

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/record"
)

// Headers of a dead letter. Topic, partition and offset tell where the record
// was: a reader that sees the same sink and place twice has a duplicate.
const (
	deadSink      = "sluice.dlq.sink"
	deadSource    = "sluice.dlq.source"
	deadStream    = "sluice.dlq.stream"
	deadTopic     = "sluice.dlq.topic"
	deadPartition = "sluice.dlq.partition"
	deadOffset    = "sluice.dlq.offset"
	deadCode      = "sluice.dlq.code"
	deadReason    = "sluice.dlq.reason"
	deadAt        = "sluice.dlq.at"
	deadPosition  = "sluice.dlq.position" // of a record that never reached its topic
)

// Codes of the rejects that topics themselves make.
const (
	codeUndecodable = "undecodable"
	codeTooLarge    = "record_too_large"
)

// deadLetter returns the dead letter for record r, whose key, value and
// headers stay as they are. who is deadSink or deadSource. The result aliases r.
func (k *Kafka) deadLetter(who, name string, stream record.StreamName, r *kgo.Record, code, reason string) *kgo.Record {
	h := append([]kgo.RecordHeader(nil), r.Headers...)
	add := func(key, value string) { h = append(h, kgo.RecordHeader{Key: key, Value: []byte(value)}) }
	add(who, name)
	add(deadStream, stream.String())
	add(deadTopic, r.Topic)
	if who == deadSink { // a source's record has no place yet
		add(deadPartition, strconv.Itoa(int(r.Partition)))
		add(deadOffset, strconv.FormatInt(r.Offset, 10))
	}
	add(deadCode, code)
	add(deadReason, reason)
	add(deadAt, time.Now().UTC().Format(time.RFC3339Nano))
	return &kgo.Record{Topic: k.cfg.Prefix + deadSuffix, Key: r.Key, Value: r.Value, Headers: h}
}

// codeOf returns why a record became a dead letter.
func codeOf(letter *kgo.Record) string {
	for i := range letter.Headers {
		if letter.Headers[i].Key == deadCode {
			return string(letter.Headers[i].Value)
		}
	}
	return ""
}

// bury writes dead letters and waits until the brokers hold them: only then
// may the offsets of their records be done (invariant 5).
func (k *Kafka) bury(ctx context.Context, letters []*kgo.Record) error {
	if len(letters) == 0 {
		return nil
	}
	if err := k.produce(ctx, letters...); err != nil {
		return fmt.Errorf("write %d dead letters to %s: %w", len(letters), letters[0].Topic, err)
	}
	return nil
}
