package record

// Reject is a record refused for good. Reason holds no row value (invariant 7).
type Reject struct {
	Row    int    // its row in the Batch
	Code   string // stable and short: value_out_of_range
	Reason string // for people: created_at: year 10000 does not fit timestamptz; names fields, never values
}
