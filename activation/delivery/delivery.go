// Package delivery is the contract between the activation engine and a
// destination: changes go out in requests, an outcome per change comes back.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Operation says what a destination is asked to do with a record.
type Operation uint8

// The operations. Insert refuses a record that exists, Update one that does
// not; Append adds an event that has no identity.
const (
	Insert Operation = 1 + iota
	Update
	Upsert
	Delete
	Archive
	Append
)

var operationNames = [...]string{Insert: "insert", Update: "update", Upsert: "upsert", Delete: "delete", Archive: "archive", Append: "append"}

// String returns the word for o, such as "upsert".
func (o Operation) String() string {
	if int(o) < len(operationNames) && o > 0 {
		return operationNames[o]
	}
	return fmt.Sprintf("operation(%d)", uint8(o))
}

// Outcome is what became of one change. What an answer does not name is
// Unknown, never Applied.
type Outcome uint8

// The outcomes.
const (
	Unknown   Outcome = iota // sent, but nobody can say what became of it: it is read back
	Applied                  // the destination has it
	Unchanged                // the destination had it already; nothing was written
	Retry                    // this record or the destination failed for now; counts as an attempt
	Throttled                // the account is over its quota; counts as no attempt
	Auth                     // the credentials are not accepted; pauses the connection
	Config                   // scope, object or property is wrong for all records; pauses the connection
	Rejected                 // refused for good, with a reason: a newer value of the key may heal it
	Skipped                  // the operation does not apply: update of a missing record, insert of an existing one
)

var outcomeNames = [...]string{"unknown", "applied", "unchanged", "retry", "throttled", "auth", "config", "rejected", "skipped"}

// String returns the word for o, such as "applied".
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// Lane separates what must be quick from what may wait: the stream's changes
// and the first load each have their share of the account's quota.
type Lane uint8

// The lanes.
const (
	Stream Lane = iota
	Backfill
)

// String returns "stream" or "backfill".
func (l Lane) String() string {
	if l == Backfill {
		return "backfill"
	}
	return "stream"
}

// Field is one value for a field of the destination's object.
type Field struct {
	Name  string
	Value []byte // JSON; "null" is an explicit null
	Clear bool   // empty the field in the way the destination spells that; Value is nil
}

// Reference associates the record with another one.
type Reference struct {
	Type   string // of the association, as the destination spells it
	Object string // of the other record
	ID     string // the destination's id of the other record
	Remove bool   // dissociate
}

// Change is one record of a request.
type Change struct {
	Key        string // the engine's identity of the record, once in a request; drivers may use it to correlate, never send it
	Match      Field  // the field by which the destination finds the record; no Name: only ID counts
	ID         string // the destination's id of the record, empty while unknown
	Fields     []Field
	References []Reference

	// Idempotency is the same for every attempt to deliver this change and
	// different for every other change.
	Idempotency string
}

// Request is a batch of changes of one object and one operation.
type Request struct {
	Object    string
	Operation Operation
	Lane      Lane
	Changes   []Change
}

// Result is the outcome of one change.
type Result struct {
	Outcome    Outcome
	ID         string        // the destination's id of the record, where the answer names it
	Created    bool          // the answer says that the record is new
	Status     int           // HTTP status; 0 = no answer
	VendorCode string        // such as INVALID_EMAIL
	Message    string        // the vendor's words, shortened and without values
	RequestID  string        // the vendor's id of the request
	RetryAfter time.Duration // with Throttled: pause of the whole account; with Retry: of this record
	WholeBatch bool          // the answer condemns the batch without naming a record: split it to find the culprit
}

// Found is a record as the destination has it.
type Found struct {
	Match  string // value of the match field
	ID     string
	Fields []Field
}

// ErrUnreadable is the error of a read where a destination has no way to find
// records by that field.
var ErrUnreadable = errors.New("the destination cannot be read")

// ErrJobGone says that the vendor no longer knows a job, or that it was never
// started: nothing of it counts, its changes are to be sent again.
var ErrJobGone = errors.New("the job was never started or is gone")

// Object is a kind of record of a destination: contacts, companies.
type Object struct {
	Name       string
	Label      string
	Match      []string // fields that identify a record
	Operations []Operation
	Properties []Property
	BatchItems int // most changes of a request
	BatchBytes int // most bytes of a request's body; 0 = no limit known
	Readable   bool
}

// Property is a field of an Object.
type Property struct {
	Name     string
	Type     string // text, number, bool, date, datetime, enum, json
	Required bool
	ReadOnly bool
	Values   []string // of an enum
	MaxBytes int      // 0 = no limit known
}

// Quota is a limit that the vendor declares for an account.
type Quota struct {
	Name     string // of the bucket: account, daily, search
	Requests int
	Window   time.Duration
}

// Budget is what a destination asks before each call to the vendor and tells
// about each answer. Several destinations of one account share one.
type Budget interface {
	// Wait blocks until a call of the lane to endpoint may be made, or ctx ends.
	Wait(ctx context.Context, lane Lane, endpoint string, cost int) error
	// Observe reports an answer: throttled calls and what is left of a quota.
	Observe(a Answer)
}

// Answer is what a Budget learns from a call.
type Answer struct {
	Endpoint   string
	Status     int
	Throttled  bool
	RetryAfter time.Duration // 0 = not said
	Quota      string        // of Quota.Name that Remaining speaks of; empty = none said
	Remaining  int
	Limit      int // 0 = not said
	Reset      time.Duration
}
