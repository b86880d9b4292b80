package activation

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/record"
)

// Nulls says what a null of the source does to a field of the destination.
type Nulls uint8

// The policies for nulls.
const (
	OmitNull  Nulls = iota // the field stays as it is
	SendNull               // an explicit null
	ClearNull              // the field is emptied in the destination's way
)

// OnDelete says what the delete of a row does to its record.
type OnDelete uint8

// What a delete does. Only records that the connection created are touched.
const (
	IgnoreDelete OnDelete = iota
	DeleteRecord
	ArchiveRecord
)

// Conflict says what happens when two rows have the same match value.
type Conflict uint8

// The policies for conflicts.
const (
	RejectSecond Conflict = iota // the row that came first keeps the record
	LatestWins                   // the newest row takes the record over
)

// Missing says what happens while a record that is referred to is not there.
type Missing uint8

// The policies for missing references.
const (
	WaitForReference Missing = iota // up to Config.ReferenceWait, then reject
	OmitReference                   // deliver without it; the next change of the row tries again
)

// Field maps a field of the stream to one of the object.
type Field struct {
	Name     string          // of the object
	From     string          // of the stream; empty = Constant
	Constant json.RawMessage // a JSON value
	Nulls    Nulls
}

// Reference associates the record with the one of another row.
type Reference struct {
	Type    string // of the association, as the destination spells it
	Object  string // of the other record
	From    string // field of the stream: the other row's key
	To      Keys   // state of the connection that delivers the other row
	Missing Missing
}

// Consent lets only rows through whose field is true.
type Consent struct {
	Field  string // a bool of the stream; empty = all rows pass
	Delete bool   // of a row that has lost it: delete its record as a deleted row's
}

// Guards stop the connection before harm is done. Zero values are defaults,
// 1 switches a ratio off.
type Guards struct {
	DeleteRatio float64 // of the known records may be deleted in an hour; default 0.2
	DeleteRows  int     // deletes that never trip; default 100
	RejectRatio float64 // of the newest records may be rejected; default 0.5
	RejectRows  int     // records before the ratio counts; default 200
	ShrinkRatio float64 // of the known records may be missing from a backfill; default 0.5
}

// Config is one connection. Zero values are defaults.
type Config struct {
	Name      string // unique: sink and stream
	Stream    record.StreamName
	Object    string
	Operation delivery.Operation // Insert, Update, Upsert or Append
	OnDelete  OnDelete
	OwnMatch  bool  // values of Match are given out by this stream alone, as an external id is: a record that has one and appeared with a creation whose answer was lost is ours
	Match     Field // of Insert, Update and Upsert: field by which the destination finds a record; it is sent too
	Fields    []Field
	Whole     bool // send all fields, not only the changed ones

	References    []Reference
	ReferenceWait time.Duration // for a missing record; default 1 min
	Consent       Consent
	Conflict      Conflict
	Guards        Guards

	BatchItems  int           // default 100
	BatchBytes  int           // default 1 MiB
	Linger      time.Duration // how long a change waits for others; default 200 ms
	Concurrency int           // requests at a time; default 4

	// BulkAbove is how many changed rows of a backfill must wait at a time to be
	// handed to a job of the vendor, if it has such; 0 = never.
	BulkAbove int
	JobPoll   time.Duration // between two looks at a job; default 5 s
	JobBlind  time.Duration // how long a job of which the vendor gave no id may still be carried out; default 5 min

	Attempts   int           // of a record that ended in Retry; default 8
	RetryBase  time.Duration // default 500 ms, doubled by attempt, with full jitter
	RetryMax   time.Duration // default 1 min
	Ambiguous  time.Duration // how long a request may have effect after it was given up: nothing newer of its keys is sent before; default 10 s
	AtMostOnce bool          // an Insert or Append whose outcome stays unknown is rejected instead of sent again
	Patience   time.Duration // with a destination that does not answer at all; default 1 min, then the stream starts again from its marks
}

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if c.Name == "" || c.Object == "" {
		bad("connection: want a name and an object")
	}
	switch c.Operation {
	case delivery.Insert, delivery.Update, delivery.Upsert:
		if c.Match.Name == "" || c.Match.From == "" {
			bad("%s: want the field to match records by", c.Operation)
		}
	case delivery.Append:
		if c.OnDelete != IgnoreDelete || c.Consent.Delete {
			bad("append: events cannot be deleted")
		}
	default:
		bad("operation %s: want insert, update, upsert or append", c.Operation)
	}
	seen := map[string]bool{c.Match.Name: true}
	for _, f := range c.Fields {
		switch {
		case f.Name == "":
			bad("a field has no name")
		case seen[f.Name]:
			bad("field %s is there twice", f.Name)
		case f.From == "" && !json.Valid(f.Constant):
			bad("field %s: want a field of the stream or a JSON constant", f.Name)
		}
		seen[f.Name] = true
	}
	for _, r := range c.References {
		if r.Type == "" || r.From == "" || r.To == nil {
			bad("reference %s: want a type, a field of the stream and the stream that it names rows of", r.Type)
		}
	}
	for name, v := range map[string]float64{"delete_ratio": c.Guards.DeleteRatio, "reject_ratio": c.Guards.RejectRatio, "shrink_ratio": c.Guards.ShrinkRatio} {
		if v < 0 || v > 1 {
			bad("guard %s %v: want 0 to 1", name, v)
		}
	}
	return errors.Join(errs...)
}

// setDefaults fills what is zero.
func (c *Config) setDefaults() {
	positive := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	lasting := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	ratio := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	positive(&c.BatchItems, 100)
	positive(&c.BatchBytes, 1<<20)
	positive(&c.Concurrency, 4)
	positive(&c.Attempts, 8)
	positive(&c.Guards.DeleteRows, 100)
	positive(&c.Guards.RejectRows, 200)
	lasting(&c.Linger, 200*time.Millisecond)
	lasting(&c.RetryBase, 500*time.Millisecond)
	lasting(&c.RetryMax, time.Minute)
	lasting(&c.Ambiguous, 10*time.Second)
	lasting(&c.JobPoll, 5*time.Second)
	lasting(&c.JobBlind, 5*time.Minute)
	lasting(&c.Patience, time.Minute)
	lasting(&c.ReferenceWait, time.Minute)
	ratio(&c.Guards.DeleteRatio, 0.2)
	ratio(&c.Guards.RejectRatio, 0.5)
	ratio(&c.Guards.ShrinkRatio, 0.5)
}
