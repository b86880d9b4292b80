package record

// Batch is a run of changes of one stream and one schema, in source order,
// column by column. A control op (truncate, backfill begin and end) is alone
// in its batch and has no columns.
//
// Between a source and Kafka the Kafka fields are empty; a consumer sets them,
// and all rows then come from one topic-partition in offset order.
type Batch struct {
	Schema *Schema
	Ops    []Op
	Pos    []Position
	Time   []int64 // source commit times, µs since 1970-01-01 UTC

	After  []*Vector // one per schema field: the new row; of a delete the key cells, the rest Unsent
	Before []*Vector // the old row where the source gives it, nil otherwise; rows without one are all Unsent

	// Rejects are the rows of b with a value that the lattice cannot hold; such a
	// cell is Unsent. Only a source sets them, and the protect phase takes the
	// rows out before anything reaches Kafka.
	Rejects []Reject

	Partition TopicPartition
	Offsets   []int64 // the Kafka offset of each row

	free func(*Batch)
}

// NewBatch returns an empty batch of schema s with its After vectors made.
// free, if not nil, gets the batch back on Release.
func NewBatch(s *Schema, free func(*Batch)) *Batch {
	b := &Batch{Schema: s, After: make([]*Vector, len(s.Fields)), free: free}
	for i := range s.Fields {
		b.After[i] = NewVector(&s.Fields[i])
	}
	return b
}

// NewControl returns a batch with one control op.
func NewControl(s *Schema, op Op, pos Position, timeMicros int64) *Batch {
	return &Batch{Schema: s, Ops: []Op{op}, Pos: []Position{pos}, Time: []int64{timeMicros}}
}

// Len returns the number of rows.
func (b *Batch) Len() int { return len(b.Ops) }

// Control returns the control op of b and whether it is one.
func (b *Batch) Control() (Op, bool) {
	if len(b.Ops) == 1 && b.Ops[0].Control() {
		return b.Ops[0], true
	}
	return 0, false
}

// Bytes returns the memory the rows of b take.
func (b *Batch) Bytes() int {
	n := len(b.Ops) * (1 + 24 + 8)
	for _, v := range b.After {
		n += v.Bytes()
	}
	for _, v := range b.Before {
		n += v.Bytes()
	}
	return n + 8*len(b.Offsets)
}

// Reset empties b and keeps its memory.
func (b *Batch) Reset() {
	b.Ops, b.Pos, b.Time, b.Offsets = b.Ops[:0], b.Pos[:0], b.Time[:0], b.Offsets[:0]
	b.Rejects = b.Rejects[:0]
	for _, v := range b.After {
		v.Reset()
	}
	for _, v := range b.Before {
		v.Reset()
	}
}

// Release gives b back to where it came from. Nobody may use it afterwards.
func (b *Batch) Release() {
	if b.free != nil {
		b.free(b)
	}
}
