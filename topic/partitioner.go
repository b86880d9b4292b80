package topic

import "github.com/twmb/franz-go/pkg/kgo"

// partitioner places a record by its key, and one without a key where its
// Partition field says: control records go to every partition.
type partitioner struct{}

// hasher is murmur2 as every other Kafka client has it: other producers of
// the same keys agree on the partition.
var hasher = kgo.StickyKeyPartitioner(nil)

// ForTopic returns the partitioner of one topic.
func (partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	return &topicPartitioner{hasher.ForTopic(topic)}
}

type topicPartitioner struct{ byKey kgo.TopicPartitioner }

// RequiresConsistency always holds: a key never moves, whatever broker is down.
func (*topicPartitioner) RequiresConsistency(*kgo.Record) bool { return true }

// Partition honours the record's own partition where it has no key.
func (p *topicPartitioner) Partition(r *kgo.Record, n int) int {
	if r.Key == nil {
		return int(r.Partition)
	}
	return p.byKey.Partition(r, n)
}
