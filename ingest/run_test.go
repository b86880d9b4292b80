package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink is an Output that keeps rows as text.
type sink struct {
	mu    sync.Mutex
	rows  []string
	saved map[string][]byte
	fail  error
}

func newSink() *sink { return &sink{saved: map[string][]byte{}} }

func (s *sink) Publish(_ context.Context, b *record.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	if op, ok := b.Control(); ok {
		s.rows = append(s.rows, fmt.Sprint(b.Schema.Stream.Name, " ", op, " ", names(b.Schema)))
	} else {
		for i := range b.Ops {
			row := fmt.Sprint(b.Schema.Stream.Name, " ", b.Ops[i])
			for j, f := range b.Schema.Fields {
				if b.After[j].State[i] == record.Present {
					row += fmt.Sprintf(" %s=%d", f.Name, b.After[j].Int64At(i))
				}
			}
			s.rows = append(s.rows, row)
		}
	}
	b.Release()
	return nil
}

func names(s *record.Schema) []string {
	var out []string
	for _, f := range s.Fields {
		out = append(out, f.Name)
	}
	return out
}

func (s *sink) Barrier(done func())         { done() }
func (s *sink) Flush(context.Context) error { return nil }
func (s *sink) LoadCheckpoint(_ context.Context, key string) ([]byte, error) {
	return s.saved[key], nil
}
func (s *sink) SaveCheckpoint(_ context.Context, key string, data []byte) error {
	s.saved[key] = data
	return nil
}

// steps is a Source that runs functions, one per start.
type steps struct {
	run   []func(ctx context.Context, out Output) error
	calls int
}

func (s *steps) Run(ctx context.Context, out Output) error {
	s.calls++
	return s.run[min(s.calls, len(s.run))-1](ctx, out)
}

func schemaOf(table string, fields ...string) *record.Schema {
	s := &record.Schema{Stream: record.StreamName{Source: "db", Namespace: "public", Name: table}}
	for i, f := range fields {
		s.Fields = append(s.Fields, record.Field{Name: f, Kind: record.Int64, Nullable: i > 0, Key: map[bool]int{true: 1}[i == 0]})
	}
	return s.Seal()
}

// batch makes rows whose cells are 10·row + column.
func batch(s *record.Schema, rows int) *record.Batch {
	b := record.NewBatch(s, nil)
	for i := range rows {
		b.Ops = append(b.Ops, record.OpInsert)
		b.Pos = append(b.Pos, record.Position{Epoch: 1, LSN: 1, Seq: uint64(2 * i)})
		b.Time = append(b.Time, 1)
		for j := range s.Fields {
			b.After[j].AppendInt64(int64(10*i + j))
		}
	}
	return b
}

// chain is a stand-in for rules: it refuses the rows it is told to.
type chain struct {
	in     *record.Schema
	refuse []int
	err    error
}

func (c chain) Apply(b *record.Batch) (*record.Batch, int, []record.Reject, error) {
	if c.err != nil {
		return nil, 0, nil, c.err
	}
	if _, ok := b.Control(); ok || b.Ops[0] == record.OpDelete {
		return b, 0, nil, nil
	}
	var rejects []record.Reject
	for _, r := range c.refuse {
		rejects = append(rejects, record.Reject{Row: r, Code: "no", Reason: "not this one"})
	}
	return without(b, rejects), 0, rejects, nil
}

func TestRunStartsFailingSourcesAgain(t *testing.T) {
	board := &progress.Board{}
	board.Stream(progress.Source, "db", "db.public.t")
	s := &steps{run: []func(context.Context, Output) error{
		func(context.Context, Output) error { return errors.New("connection reset") },
		func(context.Context, Output) error { return errors.New("connection reset") },
		func(context.Context, Output) error { return nil },
	}}
	err := Run(context.Background(), Config{Name: "db", Source: s, Output: newSink(), Board: board, Retry: Retry{First: time.Millisecond}})
	if err != nil || s.calls != 3 {
		t.Error(err, s.calls)
	}
}

type fatal struct{}

func (fatal) Error() string   { return "set wal_level=logical" }
func (fatal) Permanent() bool { return true }

func TestRunGivesUpOnPermanentErrors(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		retry Retry
		calls int
	}{
		"permanent": {fmt.Errorf("open: %w", fatal{}), Retry{}, 1},
		"attempts":  {errors.New("refused"), Retry{First: time.Millisecond, Attempts: 3}, 3},
	} {
		board := &progress.Board{}
		stream := board.Stream(progress.Source, "db", "db.public.t")
		s := &steps{run: []func(context.Context, Output) error{func(context.Context, Output) error { return c.err }}}
		err := Run(context.Background(), Config{Name: "db", Source: s, Output: newSink(), Board: board, Retry: c.retry})
		state, note := stream.State()
		if err == nil || !errors.Is(err, c.err) || s.calls != c.calls || state != progress.Failed || note != c.err.Error() {
			t.Error(name, err, s.calls, state, note)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &steps{run: []func(context.Context, Output) error{func(ctx context.Context, _ Output) error {
		cancel()
		<-ctx.Done()
		return fmt.Errorf("read: %w", ctx.Err())
	}}}
	if err := Run(ctx, Config{Name: "db", Source: s, Output: newSink()}); err != nil {
		t.Error(err)
	}
	broken := errors.New("the brokers do not answer")
	s = &steps{run: []func(context.Context, Output) error{func(context.Context, Output) error { return broken }}}
	if err := Run(ctx, Config{Name: "db", Source: s, Output: newSink()}); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestRulesThatCannotRunParkTheirStreamOnly(t *testing.T) {
	for name, protect := range map[string]func(*record.Schema) (Chain, error){
		"compile": func(s *record.Schema) (Chain, error) {
			if s.Stream.Name == "bad" {
				return nil, errors.New("rule 1: hash: no such field")
			}
			return nil, nil
		},
		"run": func(s *record.Schema) (Chain, error) {
			if s.Stream.Name == "bad" {
				return chain{err: errors.New("rule 1: hash: the key is gone")}, nil
			}
			return chain{}, nil
		},
	} {
		board, out := &progress.Board{}, newSink()
		s := &steps{run: []func(context.Context, Output) error{func(ctx context.Context, out Output) error {
			var parked *ParkedError
			for range 2 { // once parked it stays parked
				if err := out.Publish(ctx, batch(schemaOf("bad", "id"), 1)); !errors.As(err, &parked) {
					t.Error(name, err)
				}
			}
			return out.Publish(ctx, batch(schemaOf("good", "id"), 2))
		}}}
		err := Run(context.Background(), Config{Name: "db", Source: s, Output: out, Protect: protect, Board: board})
		if err == nil || !strings.Contains(err.Error(), "db.public.bad is parked: ") || !strings.Contains(err.Error(), "rule 1: hash") {
			t.Error(name, err)
		}
		if !slices.Equal(out.rows, []string{"good insert id=0", "good insert id=10"}) {
			t.Error(name, out.rows)
		}
		if state, note := board.Stream(progress.Source, "db", "db.public.bad").State(); state != progress.Parked || !strings.Contains(note, "a restart loads the stream again") {
			t.Error(name, state, note)
		}
	}
}

type gone struct{}

func (gone) Error() string { return "the brokers took no record in time" }
func (gone) Lost() bool    { return true }

func TestALostOutputParksNothing(t *testing.T) {
	board, out := &progress.Board{}, newSink()
	out.fail = gone{}
	s := &steps{run: []func(context.Context, Output) error{func(ctx context.Context, out Output) error {
		return out.Publish(ctx, batch(schemaOf("t", "id"), 1))
	}}}
	err := Run(context.Background(), Config{Name: "db", Source: s, Output: out, Board: board, Retry: Retry{Attempts: 1}})
	if !errors.Is(err, gone{}) {
		t.Error(err)
	}
	if state, _ := board.Stream(progress.Source, "db", "db.public.t").State(); state == progress.Parked {
		t.Error(state)
	}
}

func TestNewColumnsAreHeldBackWhereThereAreRules(t *testing.T) {
	for name, c := range map[string]struct {
		rules  bool
		policy NewColumns
		want   string
	}{
		"rules":    {true, NewColumns{}, "t insert id=0 a=1"},
		"named":    {true, NewColumns{Named: func(field *record.Field) bool { return field.Name == "b" }}, "t insert id=0 a=1 b=2"},
		"pass":     {true, NewColumns{Pass: true}, "t insert id=0 a=1 b=2 c=3"},
		"no rules": {false, NewColumns{}, "t insert id=0 a=1 b=2 c=3"},
	} {
		board, out := &progress.Board{}, newSink()
		cfg := Config{Name: "db", Output: out, Board: board, NewColumns: func(record.StreamName) NewColumns { return c.policy },
			Protect: func(s *record.Schema) (Chain, error) {
				if !c.rules {
					return nil, nil
				}
				return chain{in: s}, nil
			}}
		publish := func(fields ...string) {
			cfg.Source = &steps{run: []func(context.Context, Output) error{func(ctx context.Context, out Output) error {
				s := schemaOf("t", fields...)
				if err := out.Publish(ctx, record.NewControl(s, record.OpTruncate, record.Position{Epoch: 1}, 1)); err != nil {
					return err
				}
				return out.Publish(ctx, batch(s, 1))
			}}}
			if err := Run(context.Background(), cfg); err != nil {
				t.Error(name, err)
			}
		}
		publish("id", "a")
		for range 2 { // the second time from another process
			publish("id", "a", "b", "c")
			if got := out.rows[len(out.rows)-1]; got != c.want {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
		}
		_, note := board.Stream(progress.Source, "db", "db.public.t").State()
		if held := strings.Contains(c.want, "c=3"); held == strings.Contains(note, "held back") {
			t.Errorf("%s: note %q", name, note)
		}
	}
}

func TestTheNoteNamesTheColumnsThatAreHeldBackNow(t *testing.T) {
	board := &progress.Board{}
	var notes []string
	cfg := Config{Name: "db", Output: newSink(), Board: board,
		Protect: func(s *record.Schema) (Chain, error) { return chain{in: s}, nil },
		Source: &steps{run: []func(context.Context, Output) error{func(ctx context.Context, out Output) error {
			for _, fields := range [][]string{{"id", "a"}, {"id", "a", "b"}, {"id", "a", "c"}, {"id", "a"}} {
				if err := out.Publish(ctx, batch(schemaOf("t", fields...), 1)); err != nil {
					return err
				}
				_, note := board.Stream(progress.Source, "db", "db.public.t").State()
				notes = append(notes, strings.TrimPrefix(note, heldPrefix))
			}
			return nil
		}}}}
	if err := Run(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	if want := []string{"", "b", "c", ""}; !slices.Equal(notes, want) {
		t.Errorf("%q, want %q", notes, want)
	}
}

func TestRefusedRecordsGoToTheDeadLetters(t *testing.T) {
	board, out := &progress.Board{}, newSink()
	var letters []string
	cfg := Config{Name: "db", Output: out, Board: board,
		Protect: func(s *record.Schema) (Chain, error) { return chain{in: s, refuse: []int{1}}, nil },
		Reject: func(_ context.Context, b *record.Batch, rejects []record.Reject) error {
			for i, r := range rejects {
				cells := map[string]string{}
				for j, f := range b.Schema.Fields {
					if b.After[j].State[r.Row] == record.Present {
						cells[f.Name] = fmt.Sprint(b.After[j].Int64At(r.Row))
					}
				}
				letters = append(letters, fmt.Sprint(i == r.Row, " ", r.Code, " ", b.Pos[r.Row], " ", slices.Collect(maps.Keys(cells)), cells["id"]))
			}
			return nil
		},
		Source: &steps{run: []func(context.Context, Output) error{func(ctx context.Context, out Output) error {
			b := batch(schemaOf("t", "id", "a"), 4)
			b.Rejects = []record.Reject{{Row: 2, Code: "range", Reason: "a is out of range"}}
			return out.Publish(ctx, b)
		}}}}
	if err := Run(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	if want := []string{"true range 1/1/4 [id]20", "true no 1/1/2 [id]10"}; !slices.Equal(letters, want) {
		t.Errorf("%q", letters)
	}
	if want := []string{"t insert id=0 a=1", "t insert id=30 a=31"}; !slices.Equal(out.rows, want) {
		t.Errorf("%q", out.rows)
	}
	p := board.Stream(progress.Source, "db", "db.public.t")
	if p.Read.Load() != 4 || p.Rejected.Load() != 2 || p.Filtered.Load() != 0 {
		t.Error(p.Read.Load(), p.Rejected.Load(), p.Filtered.Load())
	}

	cfg.Reject, cfg.Board, cfg.Retry.Attempts = nil, &progress.Board{}, 1
	if err := Run(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "there is no dead-letter topic") {
		t.Error(err)
	}
}
