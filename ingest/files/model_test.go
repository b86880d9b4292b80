package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sluice-data/sluice/ingest/files/local"
	"github.com/sluice-data/sluice/record"
)

var errCrash = errors.New("crash")

// brokers is an Output and, behind it, a sink as strict as the real ones: it
// drops what is not newer and keeps every version it applied.
type brokers struct {
	t           testing.TB
	checkpoints map[string][]byte
	streams     map[string]*applied
	lost        bool // publishes reach nobody: the crash came before the network
}

type applied struct {
	last    record.Position
	epoch   uint64
	docs    map[string]doc
	history []string // "op path sha" of everything applied
	rejects []string // "path code"
	began   int
	ended   int
}

type doc struct {
	body, object, objectETag, sha, acl, metadata, mime string
	epoch                                              uint64
}

func newBrokers(t testing.TB) *brokers {
	return &brokers{t: t, checkpoints: map[string][]byte{}, streams: map[string]*applied{}}
}

func (b *brokers) Barrier(done func())         { done() }
func (b *brokers) Flush(context.Context) error { return nil }

func (b *brokers) LoadCheckpoint(_ context.Context, key string) ([]byte, error) {
	return b.checkpoints[key], nil
}

func (b *brokers) SaveCheckpoint(_ context.Context, key string, data []byte) error {
	b.checkpoints[key] = bytes.Clone(data)
	return nil
}

func (b *brokers) stream(name string) *applied {
	a := b.streams[name]
	if a == nil {
		a = &applied{docs: map[string]doc{}}
		b.streams[name] = a
	}
	return a
}

func (b *brokers) Publish(_ context.Context, batch *record.Batch) error {
	defer batch.Release()
	if b.lost {
		return nil
	}
	a := b.stream(batch.Schema.Stream.Name)
	refused := map[int]string{}
	for _, r := range batch.Rejects {
		refused[r.Row] = r.Code
	}
	for row := range batch.Ops {
		pos, op := batch.Pos[row], batch.Ops[row]
		if pos.Epoch < a.epoch {
			b.t.Errorf("epoch %d after %d", pos.Epoch, a.epoch)
			continue
		}
		if code, ok := refused[row]; ok {
			a.rejects = append(a.rejects, string(batch.After[0].Value(row))+" "+code)
			continue
		}
		switch {
		case op == record.OpBackfillBegin:
			a.epoch = pos.Epoch
			a.began++
			continue
		case op == record.OpBackfillEnd:
			maps.DeleteFunc(a.docs, func(_ string, d doc) bool { return d.epoch < pos.Epoch })
			a.ended++
			continue
		case pos.Seq == 0 && op != record.OpRead || pos.Seq != 0 && op == record.OpRead:
			b.t.Errorf("%s at %s", op, pos)
		case pos.Seq != 0 && pos.Compare(a.last) <= 0:
			continue // a duplicate
		}
		a.last = pos
		a.apply(b.t, batch, row)
	}
	return nil
}

func (a *applied) apply(t testing.TB, batch *record.Batch, row int) {
	key := string(batch.After[0].Value(row))
	if batch.Ops[row] == record.OpDelete {
		delete(a.docs, key)
		a.history = append(a.history, "delete "+key)
		return
	}
	d := doc{epoch: batch.Pos[row].Epoch}
	old, had := a.docs[key]
	cell := func(name string, before string) string {
		i := batch.Schema.Index(name)
		if i < 0 {
			return ""
		}
		switch batch.After[i].State[row] {
		case record.Present:
			return string(batch.After[i].Value(row))
		case record.Unsent:
			if !had {
				t.Errorf("%s of %s is unsent, and nothing is known of it", name, key)
			}
			return before
		}
		return ""
	}
	d.body, d.object, d.objectETag = cell("body", old.body), cell("object", old.object), cell("object_etag", old.objectETag)
	d.sha, d.acl, d.metadata, d.mime = cell("sha256", ""), cell("acl", ""), cell("metadata", ""), cell("mime", "")
	if m := cell("members", ""); m != "" {
		d.body = m
	}
	a.docs[key] = d
	unsent := ""
	if i := batch.Schema.Index("body"); i >= 0 && batch.After[i].State[row] == record.Unsent {
		unsent = " light"
	}
	a.history = append(a.history, fmt.Sprintf("%s %s%s", batch.Ops[row], key, unsent))
}

// world is a folder, a state and the brokers.
type world struct {
	t       testing.TB
	dir     string
	state   string
	brokers *brokers
	edit    func(*Config)
	fault   func(point string) error
}

func newWorld(t testing.TB, edit func(*Config)) *world {
	return &world{t: t, dir: t.TempDir(), state: t.TempDir(), brokers: newBrokers(t), edit: edit}
}

// run makes one pass.
func (w *world) run() error {
	w.t.Helper()
	cfg := Config{Name: "docs", Dir: w.state, UntilCaughtUp: true,
		Open: func(context.Context) (Root, error) { return local.Open(w.dir, true) }}
	if w.edit != nil {
		w.edit(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	s.fault = w.fault
	return s.Run(context.Background(), w.brokers)
}

func (w *world) must() {
	w.t.Helper()
	if err := w.run(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(name string) {
	w.t.Helper()
	if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) rename(from, to string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(w.dir, to)), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(w.dir, from), filepath.Join(w.dir, to)); err != nil {
		w.t.Fatal(err)
	}
}

// files returns what the sink has.
func (w *world) files() map[string]doc { return w.brokers.stream("files").docs }

// take returns what was applied since the last call.
func (w *world) take() []string {
	a := w.brokers.stream("files")
	h := a.history
	a.history = nil
	slices.Sort(h)
	return h
}

func (w *world) want(history ...string) {
	w.t.Helper()
	slices.Sort(history)
	if got := w.take(); !slices.Equal(got, history) {
		w.t.Fatalf("applied %q, want %q", got, history)
	}
}

// same compares the sink with the folder.
func (w *world) same() {
	w.t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(w.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == local.ACLFile {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(w.dir, path)
		found[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for name, text := range found {
		d, ok := w.files()[name]
		if !ok {
			w.t.Errorf("%s is missing", name)
		} else if d.object == "" && d.body != text {
			w.t.Errorf("%s has another body", name)
		}
	}
	for name := range w.files() {
		if _, ok := found[name]; !ok {
			w.t.Errorf("%s should be gone", name)
		}
	}
}

func mustGlob(t testing.TB, s string) Glob {
	t.Helper()
	g, err := ParseGlob(s)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

var _ Root = (*local.Folder)(nil)
