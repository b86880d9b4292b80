package topic

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/record"
)

// parker is the error of a sink that must not be tried again before somebody
// has acted; Park says why.
type parker interface{ Park() string }

// parked returns why err parks a lane, nil if it does not.
func parked(err error) *parkError {
	if own := (*parkError)(nil); errors.As(err, &own) {
		return own
	}
	if p := parker(nil); errors.As(err, &p) {
		return &parkError{p.Park()}
	}
	return nil
}

// Refused is a record that a sink has refused for good after it had taken it.
type Refused struct {
	Partition    int32
	Offset       int64
	Code, Reason string // without values
}

// Refuse writes records that sink has refused for good to the dead letters, and
// returns once the brokers hold them: only then may they count as rejected
// (invariant 5). The letters say where the records are; their values stay there.
func (k *Kafka) Refuse(ctx context.Context, sink string, stream record.StreamName, refused []Refused) error {
	name, err := TopicName(k.cfg.Prefix, stream)
	if err != nil {
		return err
	}
	letters := make([]*kgo.Record, len(refused))
	for i, r := range refused {
		at := &kgo.Record{Topic: name, Partition: r.Partition, Offset: r.Offset}
		letters[i] = k.deadLetter(deadSink, sink, stream, at, r.Code, r.Reason)
	}
	return k.bury(ctx, letters)
}
