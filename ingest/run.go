package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// Chain is the compiled rules of one schema. Several goroutines may call Apply at once.
type Chain interface {
	// Apply runs the rules over b, which it takes over, and returns the batch
	// to go on with (maybe b itself; nil when no row is left), the number of
	// rows filtered away and the rows that were refused. Rejects carry the
	// row numbers of the input batch. A control op comes back with the schema
	// of the rows that follow it.
	Apply(b *record.Batch) (out *record.Batch, filtered int, rejects []record.Reject, err error)
}

// NewColumns says what happens to a column that appears in a stream after its
// first schema. It matters only where the stream has protect rules.
type NewColumns struct {
	Pass  bool                           // publish new columns at once; the default holds them back
	Named func(field *record.Field) bool // reports whether a rule or allow: speaks of a field, which is then never held back; nil = none does
}

// Config of Run.
type Config struct {
	Name   string // of the source in the configuration: shop-db
	Source Source
	Output Output // where protected records go

	// Protect compiles the rules of a stream for a schema; nil, or a nil Chain,
	// means there are none. An error parks the stream (invariant 6).
	Protect func(*record.Schema) (Chain, error)

	// NewColumns is asked for streams with a Chain; nil holds all new columns back.
	NewColumns func(record.StreamName) NewColumns

	// Reject puts refused records on the dead-letter topic. Row i of b is the
	// record of rejects[i], whose Row is i: it has a position, a time and, where
	// the rules could run over them, the protected key cells; never more. b may
	// have a schema without fields. Without Reject a refused record parks its stream.
	Reject func(ctx context.Context, b *record.Batch, rejects []record.Reject) error

	Board  *progress.Board
	Logger *slog.Logger
	Retry  Retry
}

// Retry says how a source that failed is started again.
type Retry struct {
	First    time.Duration // pause after the first failure, doubled each time; default 1 s
	Max      time.Duration // longest pause; default 1 min
	Attempts int           // failures in a row after which Run gives up; 0 = never
}

// ParkedError is the error of a stream that was stopped by its own failure.
type ParkedError struct {
	Stream record.StreamName
	Err    error
}

// Error names the stream and the reason.
func (e *ParkedError) Error() string { return e.Stream.String() + " is parked: " + e.Err.Error() }

// Unwrap returns the reason.
func (e *ParkedError) Unwrap() error { return e.Err }

// steady is how long a source must have run for its failures to be counted anew.
const steady = time.Minute

// Run runs a source until ctx ends, the source is done, or it fails for good.
//
// It wraps the Output with the protect phase. A stream whose rules do not
// compile or fail is parked: the Board says so with the reason, Publish returns
// a *ParkedError, and none of its records goes on (invariant 6). The other
// streams and the log position of the source go on, so that a parked stream
// never makes the database keep its log: what it misses is made good by a
// backfill with a new epoch when the source starts next, as the checkpoint of
// the source remembers the stream as parked.
//
// A source that fails is started again after a pause, except when its error
// has a method Permanent() bool that returns true: then its streams are Failed,
// with the error, which names the fix, as their note.
//
// Run returns nil when ctx ended, and when the source is done and no stream is parked.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Source == nil || cfg.Output == nil {
		return fmt.Errorf("run source %s: no source or no output", cfg.Name)
	}
	if cfg.Board == nil {
		cfg.Board = &progress.Board{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Logger = cfg.Logger.With("source", cfg.Name)
	p := newProtector(cfg)
	pause, failures := cfg.Retry.first(), 0
	for {
		started := time.Now()
		err := cfg.Source.Run(ctx, p)
		if err == nil {
			return p.parked()
		}
		if ctx.Err() != nil {
			if errors.Is(err, ctx.Err()) {
				return nil
			}
			return fmt.Errorf("stop source %s: %w", cfg.Name, err)
		}
		if time.Since(started) > steady {
			pause, failures = cfg.Retry.first(), 0
		}
		failures++
		if Permanent(err) || cfg.Retry.Attempts > 0 && failures >= cfg.Retry.Attempts {
			setAll(cfg, progress.Failed, err.Error())
			return fmt.Errorf("source %s: %w", cfg.Name, err)
		}
		cfg.Logger.Warn("source stopped, starting it again", "error", err, "pause", pause)
		setAll(cfg, progress.Starting, fmt.Sprintf("starts again after: %v", err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, cfg.Retry.max())
	}
}

func (r Retry) first() time.Duration {
	if r.First > 0 {
		return r.First
	}
	return time.Second
}

func (r Retry) max() time.Duration {
	if r.Max > 0 {
		return r.Max
	}
	return time.Minute
}

// Permanent reports whether starting the source again cannot help before
// somebody has repaired what err names.
func Permanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// setAll gives all streams of the source a state; a parked one keeps its own.
func setAll(cfg Config, state progress.State, note string) {
	for _, row := range cfg.Board.Rows(time.Now()) {
		if row.Side == progress.Source && row.Owner == cfg.Name && row.State != progress.Parked {
			cfg.Board.Stream(progress.Source, cfg.Name, row.Stream).Set(state, note)
		}
	}
}
