package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// protector is the Output that a source sees: it protects, accounts for and
// parks streams, and hands the rest to the real Output.
type protector struct {
	cfg Config
	out Output

	mu      sync.Mutex
	streams map[record.StreamName]*protected
}

// protected is one stream in the protect phase.
type protected struct {
	p        *protector
	name     record.StreamName
	progress *progress.Stream

	mu       sync.Mutex
	err      error // the stream is parked, until a backfill begins
	known    map[string]bool
	identity *string             // the key that the records published so far have; nil = not loaded
	rekey    bool                // a backfill begins: its key is the new one
	versions map[string]*version // by the ID of the source's schema
	newest   *version            // the last one used
}

// version is one schema of a stream with what the protect phase does to it.
type version struct {
	id    string
	held  []string       // new columns that are left out
	keep  []int          // the fields that stay; nil = all
	in    *record.Schema // the schema the chain sees
	keys  []int          // key fields of in
	chain Chain          // nil = no rules
}

func newProtector(cfg Config) *protector {
	return &protector{cfg: cfg, out: cfg.Output, streams: map[record.StreamName]*protected{}}
}

func (p *protector) stream(name record.StreamName) *protected {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.streams[name]
	if s == nil {
		s = &protected{p: p, name: name, versions: map[string]*version{},
			progress: p.cfg.Board.Stream(progress.Source, p.cfg.Name, name.String())}
		p.streams[name] = s
	}
	return s
}

// parked returns the errors of the parked streams, nil if there is none: those
// parked here, and those that the source has parked itself.
func (p *protector) parked() error {
	var errs []error
	for _, row := range p.cfg.Board.Rows(time.Now()) {
		if row.Side != progress.Source || row.Owner != p.cfg.Name || row.State != progress.Parked {
			continue
		}
		name, err := record.ParseStreamName(row.Stream)
		if err != nil {
			return err
		}
		if err := p.stream(name).failure(); err != nil {
			errs = append(errs, err)
		} else {
			errs = append(errs, &ParkedError{Stream: name, Err: errors.New(row.Note)})
		}
	}
	return errors.Join(errs...)
}

// Barrier, Flush and the checkpoints are the real Output's; a source finds its
// checkpoints under its own name.
func (p *protector) Barrier(done func()) { p.out.Barrier(done) }

// Flush waits until the brokers hold everything published.
func (p *protector) Flush(ctx context.Context) error { return p.out.Flush(ctx) }

// LoadCheckpoint returns what this source saved under key.
func (p *protector) LoadCheckpoint(ctx context.Context, key string) ([]byte, error) {
	return p.out.LoadCheckpoint(ctx, p.cfg.Name+"/"+key)
}

// SaveCheckpoint stores data under key and the name of this source.
func (p *protector) SaveCheckpoint(ctx context.Context, key string, data []byte) error {
	return p.out.SaveCheckpoint(ctx, p.cfg.Name+"/"+key, data)
}

// Publish protects b and publishes what is left of it.
func (p *protector) Publish(ctx context.Context, b *record.Batch) error {
	s := p.stream(b.Schema.Stream)
	if op, _ := b.Control(); op == record.OpBackfillBegin {
		s.again()
	}
	if err := s.failure(); err != nil {
		b.Release()
		return err
	}
	err := s.publish(ctx, b)
	if err == nil || ctx.Err() != nil || lost(err) {
		return err
	}
	return s.park(err)
}

// lost reports whether the Output as a whole has failed.
func lost(err error) bool {
	var l interface{ Lost() bool }
	return errors.As(err, &l) && l.Lost()
}

// again gives a parked stream another chance: what it has missed is loaded anew.
func (s *protected) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.rekey = nil, true
}

func (s *protected) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// park stops the stream for good. Invariants 6 and 10: only this stream, with its reason.
func (s *protected) park(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = &ParkedError{Stream: s.name, Err: err}
		s.progress.Set(progress.Parked, err.Error()+"; once that is repaired, a restart loads the stream again, or at once: sluice resume "+s.name.String())
		s.p.cfg.Logger.Error("stream parked", "stream", s.name.String(), "error", err)
	}
	return s.err
}

func (s *protected) publish(ctx context.Context, b *record.Batch) error {
	v, err := s.version(ctx, b.Schema)
	if err != nil {
		b.Release()
		return err
	}
	_, control := b.Control()
	rows := int64(b.Len())
	if control {
		rows = 0
	}
	b = v.narrow(b)
	filtered, rejected := 0, 0
	if len(b.Rejects) > 0 {
		if err := s.reject(ctx, v, pick(b, b.Rejects), b.Rejects); err != nil {
			b.Release()
			return err
		}
		rejected = len(b.Rejects)
		b = without(b, b.Rejects)
	}
	if v.chain != nil {
		var rejects []record.Reject
		keys := v.copyKeys(b, control)
		b, filtered, rejects, err = v.chain.Apply(b)
		if err != nil {
			return err // the chain has b, and a batch it failed on is not reused
		}
		if len(rejects) > 0 {
			if err := s.reject(ctx, v, pick(keys, rejects), rejects); err != nil {
				return err
			}
			rejected += len(rejects)
		}
	}
	delivered := 0 // counted on the Board by the Output: the brokers must hold it
	if b != nil && b.Len() > 0 {
		if !control {
			delivered = b.Len()
		}
		if err := s.p.out.Publish(ctx, b); err != nil {
			return err
		}
	} else if b != nil {
		b.Release()
	}
	if int64(delivered+filtered+rejected) != rows { // invariant 5
		return fmt.Errorf("%d records of %d are unaccounted for after the protect rules", rows-int64(delivered+filtered+rejected), rows)
	}
	s.showHeld(v.held)
	s.progress.Read.Add(rows)
	s.progress.Filtered.Add(int64(filtered))
	s.progress.Rejected.Add(int64(rejected))
	return nil
}

// reject hands refused records over; picked holds their key cells as deletes.
func (s *protected) reject(ctx context.Context, v *version, picked *record.Batch, rejects []record.Reject) error {
	if s.p.cfg.Reject == nil {
		return fmt.Errorf("a record was refused (%s: %s) and there is no dead-letter topic", rejects[0].Code, rejects[0].Reason)
	}
	rejects = slices.Clone(rejects)
	for i := range rejects {
		rejects[i].Row = i
	}
	bare := &record.Batch{Schema: (&record.Schema{Stream: s.name}).Seal(), Ops: slices.Clone(picked.Ops),
		Pos: slices.Clone(picked.Pos), Time: slices.Clone(picked.Time)}
	if v.chain != nil {
		// Invariant 6: keys reach a dead letter only through the rules.
		protected, _, refused, err := v.chain.Apply(picked)
		if err != nil || len(refused) > 0 || protected == nil || protected.Len() != len(rejects) {
			protected = bare
		}
		picked = protected
	}
	if err := s.p.cfg.Reject(ctx, picked, rejects); err != nil {
		return err
	}
	for i := range rejects {
		s.progress.Refused(rejects[i].Code, 1)
	}
	return nil
}

// version returns what to do with batches of schema in.
func (s *protected) version(ctx context.Context, in *record.Schema) (*version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest != nil && s.newest.id == in.ID && !s.rekey {
		return s.newest, nil
	}
	if err := s.sameKey(ctx, in); err != nil {
		return nil, err
	}
	v := s.versions[in.ID]
	if v == nil {
		var err error
		if v, err = s.newVersion(ctx, in); err != nil {
			return nil, err
		}
		s.versions[in.ID] = v
	}
	again := s.newest == v
	s.newest = v
	if len(v.held) > 0 && !again {
		s.p.cfg.Logger.Warn("new columns are held back", "stream", s.name.String(), "columns", v.held)
	}
	return v, nil
}

// showHeld keeps the note of a stream true to the columns that are held back
// now; other notes stay, and the source's own states come without one.
func (s *protected) showHeld(held []string) {
	want := ""
	if len(held) > 0 {
		want = heldNote(held)
	}
	state, note := s.progress.State()
	if note != want && (note == "" || strings.HasPrefix(note, heldPrefix)) {
		s.progress.Set(state, want)
	}
}

const heldPrefix = "new columns held back until a protect rule or allow: names them: "

func heldNote(held []string) string {
	return heldPrefix + strings.Join(held, ", ")
}

// newVersion compiles the rules for in, without the columns that are held back
// if the stream has rules: a column nobody has thought of may hold anything.
func (s *protected) newVersion(ctx context.Context, in *record.Schema) (*version, error) {
	v := &version{id: in.ID, in: in}
	compile := func(in *record.Schema) (Chain, error) {
		if s.p.cfg.Protect == nil {
			return nil, nil
		}
		chain, err := s.p.cfg.Protect(in)
		if err != nil {
			return nil, fmt.Errorf("compile the protect rules: %w", err)
		}
		return chain, nil
	}
	if err := s.hold(ctx, v, in); err != nil {
		return nil, err
	}
	chain, err := compile(v.in)
	if err != nil {
		return nil, err
	}
	if chain == nil && v.keep != nil { // no rules, nothing to hold back
		for _, name := range v.held {
			s.known[name] = true
		}
		v.held, v.keep, v.in = nil, nil, in
		if err := s.saveKnown(ctx); err != nil {
			return nil, err
		}
	}
	v.chain, v.keys = chain, v.in.Keys()
	return v, nil
}

// hold narrows v to the columns that are known or named, and remembers them
// beside the checkpoint: a column stays new across restarts.
func (s *protected) hold(ctx context.Context, v *version, in *record.Schema) error {
	if s.p.cfg.Protect == nil {
		return nil
	}
	if s.known == nil {
		if err := s.loadKnown(ctx); err != nil {
			return err
		}
	}
	var policy NewColumns
	if s.p.cfg.NewColumns != nil {
		policy = s.p.cfg.NewColumns(s.name)
	}
	first, grown := len(s.known) == 0, false
	var keep []int
	for i := range in.Fields {
		f := &in.Fields[i]
		switch {
		case s.known[f.Name]:
		case first || policy.Pass || policy.Named != nil && policy.Named(f):
			s.known[f.Name], grown = true, true
		case f.Key > 0:
			return fmt.Errorf("column %s has joined the key and no protect rule or allow: names it", f.Name)
		default:
			v.held = append(v.held, f.Name)
			continue
		}
		keep = append(keep, i)
	}
	if len(v.held) > 0 {
		v.keep = keep
		v.in = &record.Schema{Stream: in.Stream, Fields: make([]record.Field, len(keep))}
		for j, i := range keep {
			v.in.Fields[j] = in.Fields[i]
		}
		v.in.Seal()
	}
	if grown {
		return s.saveKnown(ctx)
	}
	return nil
}

func (s *protected) loadKnown(ctx context.Context) error {
	data, err := s.p.LoadCheckpoint(ctx, "columns/"+s.name.Local())
	if err != nil {
		return fmt.Errorf("load the known columns: %w", err)
	}
	var names []string
	if data != nil {
		if err := json.Unmarshal(data, &names); err != nil {
			return fmt.Errorf("read the known columns: %w", err)
		}
	}
	s.known = make(map[string]bool, len(names))
	for _, n := range names {
		s.known[n] = true
	}
	return nil
}

func (s *protected) saveKnown(ctx context.Context) error {
	names := make([]string, 0, len(s.known))
	for n := range s.known {
		names = append(names, n)
	}
	slices.Sort(names)
	data, err := json.Marshal(names)
	if err != nil {
		return fmt.Errorf("write the known columns: %w", err)
	}
	if err := s.p.SaveCheckpoint(ctx, "columns/"+s.name.Local(), data); err != nil {
		return fmt.Errorf("save the known columns: %w", err)
	}
	return nil
}
