package ingest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// keyed is a schema of a and b with the named key.
func keyed(kind record.Kind, key ...string) *record.Schema {
	s := &record.Schema{Stream: record.StreamName{Source: "db", Namespace: "public", Name: "t"}}
	for _, name := range []string{"a", "b"} {
		s.Fields = append(s.Fields, record.Field{Name: name, Kind: kind, Key: slices.Index(key, name) + 1})
	}
	return s.Seal()
}

// Sinks find rows by their key: rows under another one only follow a new load.
func TestAnotherKeyParksItsStreamUntilItIsLoadedAnew(t *testing.T) {
	for name, c := range map[string]struct {
		before, after *record.Schema
		parks         bool
	}{
		"other column":  {keyed(record.Int64, "a"), keyed(record.Int64, "b"), true},
		"one more":      {keyed(record.Int64, "a"), keyed(record.Int64, "a", "b"), true},
		"other order":   {keyed(record.Int64, "a", "b"), keyed(record.Int64, "b", "a"), true},
		"gone":          {keyed(record.Int64, "a"), keyed(record.Int64), true},
		"other type":    {keyed(record.UUID, "a"), keyed(record.Text, "a"), true},
		"wider":         {keyed(record.Int32, "a"), keyed(record.Int64, "a"), false},
		"none as ever":  {keyed(record.Int64), keyed(record.Text), false},
		"same as ever":  {keyed(record.Int64, "a"), keyed(record.Int64, "a"), false},
		"enum as words": {keyed(record.Enum, "a"), keyed(record.Text, "a"), false},
	} {
		for _, restart := range []bool{false, true} {
			board, out := &progress.Board{}, newSink()
			run := func(do ...func(Output) error) error {
				return Run(context.Background(), Config{Name: "db", Output: out, Board: board, Retry: Retry{Attempts: 1},
					Source: &steps{run: []func(context.Context, Output) error{func(_ context.Context, out Output) error {
						var errs []error
						for _, d := range do {
							errs = append(errs, d(out))
						}
						return errors.Join(errs...)
					}}}})
			}
			truncate := func(s *record.Schema) func(Output) error {
				return func(out Output) error {
					return out.Publish(context.Background(), record.NewControl(s, record.OpTruncate, record.Position{Epoch: 1}, 1))
				}
			}
			load := func(out Output) error {
				return out.Publish(context.Background(), record.NewControl(c.after, record.OpBackfillBegin, record.Position{Epoch: 2}, 1))
			}
			var err error
			if restart {
				if err = run(truncate(c.before)); err == nil {
					err = run(truncate(c.after))
				}
			} else {
				err = run(truncate(c.before), truncate(c.after))
			}
			var parked *ParkedError
			if errors.As(err, &parked) != c.parks || c.parks && !strings.Contains(err.Error(), "the key of public.t was (") {
				t.Errorf("%s, restart %v: %v", name, restart, err)
			}
			if want := 2 - map[bool]int{true: 1}[c.parks]; len(out.rows) != want {
				t.Errorf("%s, restart %v: %q", name, restart, out.rows)
			}
			board = &progress.Board{} // a source says on it that it loads
			if err := run(load, truncate(c.after)); err != nil {
				t.Errorf("%s, restart %v: after a load: %v", name, restart, err)
			}
		}
	}
}
