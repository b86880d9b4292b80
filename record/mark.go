package record

// TopicPartition names one partition of one Kafka topic.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Counts account for every record read. Invariant 5:
// Read = Delivered + Filtered + Superseded + Duplicate + Rejected.
type Counts struct {
	Read       int64 `json:"read"`
	Delivered  int64 `json:"delivered"`  // written by the sink
	Filtered   int64 `json:"filtered"`   // taken out by a row filter
	Superseded int64 `json:"superseded"` // a newer record of the same key, a truncate or an epoch made it moot
	Duplicate  int64 `json:"duplicate"`  // position not newer than the last applied one
	Rejected   int64 `json:"rejected"`   // on the dead-letter topic with its reason
}

// Add adds d to c.
func (c *Counts) Add(d Counts) {
	c.Read += d.Read
	c.Delivered += d.Delivered
	c.Filtered += d.Filtered
	c.Superseded += d.Superseded
	c.Duplicate += d.Duplicate
	c.Rejected += d.Rejected
}

// Balanced reports whether every record read is accounted for.
func (c Counts) Balanced() bool {
	return c.Read == c.Delivered+c.Filtered+c.Superseded+c.Duplicate+c.Rejected
}

// Mark is how far a sink has come in one topic-partition. A sink stores it in
// the same atomic write as the data it speaks of (invariants 2 and 5).
type Mark struct {
	Next    int64    `json:"next"`     // first Kafka offset that is not done
	Last    Position `json:"last"`     // newest position applied
	TopicID string   `json:"topic_id"` // Kafka's id of the topic: a re-created topic is another topic
	Cluster string   `json:"cluster"`  // Kafka's cluster id
	Counts  Counts   `json:"counts"`   // totals since the first record
}
