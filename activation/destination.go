package activation

import (
	"context"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/record"
)

// Destination is one account of a SaaS. Its methods may be called from several
// goroutines; it asks the account's delivery.Budget before each call, and ends
// what it does when ctx ends.
type Destination interface {
	// Send delivers a request and returns one result per change, in the order
	// of the changes. It does not try again by itself, but for credentials that
	// it could renew. It takes nothing over: req is the caller's.
	Send(ctx context.Context, req delivery.Request) []delivery.Result

	// Read returns the records of object whose match field has one of values,
	// with the given fields; what is not there is left out. The error is
	// ErrUnreadable where the destination cannot be read.
	Read(ctx context.Context, object, match string, values []string, fields []string) ([]delivery.Found, error)

	// Describe returns what the account has and allows of an object.
	Describe(ctx context.Context, object string) (delivery.Object, error)
}

// ErrUnreadable is the error of Read where a destination cannot be read.
var ErrUnreadable = delivery.ErrUnreadable

// States is the state of a connection; *state.Connection is one.
type States interface {
	Lease(owner string) *state.Lease
	Keys
}

// Keys is what can be asked of the keys of a connection's state.
type Keys interface {
	Secret() []byte
	Get(ctx context.Context, keys []state.Key, found func(state.Entry)) error
	Owners(ctx context.Context, matches []state.Key, found func(state.Entry)) error
	Known(ctx context.Context) (int64, error)
	Older(ctx context.Context, part int32, epoch uint64, after state.Key, limit int, found func(state.Entry)) error
}

// Event is the outcome of one record, for the activation log. It holds no value.
type Event struct {
	At         time.Time
	Connection string
	Object     string
	Operation  string
	Outcome    delivery.Outcome
	Code       Code
	Key        string // keyed hash of the record's key
	ID         string // the destination's id of the record, where known
	Part       int32
	Offset     int64
	Position   record.Position
	Attempt    int
	Status     int // HTTP
	VendorCode string
	Message    string // the vendor's words
	RequestID  string
}

// Letter is a record that a destination has refused for good.
type Letter struct {
	Stream    record.StreamName
	Partition int32
	Offset    int64
	Code      string // of the catalogue: A20
	Reason    string
}
