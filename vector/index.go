// Package vector turns streams of files and records into chunks with vectors in Postgres, where agents search
// them: incremental, deleted and permitted as the source says, exactly once.
package vector

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/vector/chunk"
	"github.com/sluice-data/sluice/vector/embed"
	"github.com/sluice-data/sluice/vector/parse"
	"github.com/sluice-data/sluice/vector/store"
)

// Config says where the documents of one sink go. Zero values are defaults.
type Config struct {
	Owner    string // pipeline and sink: whose marks they are
	Store    store.Config
	Embedder embed.Embedder // default: hash
	Chunk    chunk.Config
	Parse    parse.Limits
	CacheDir string // of the PDF reader

	Maintain time.Duration // between two rounds of maintenance; default 1 min
	Logger   *slog.Logger
}

// at calls the hook of crash tests.
func (c *Config) at(step string) error {
	if c.Store.Hook == nil {
		return nil
	}
	return c.Store.Hook(step)
}

// Bodies reads what is too big to travel with its record. A version that is gone is objects.ErrChanged or
// fs.ErrNotExist.
type Bodies interface {
	Open(ctx context.Context, claim, etag string) (io.ReadCloser, error)
}

// Index is one sink's documents: its connections, its model and its maintenance. Its Sinks share them.
type Index struct {
	cfg    Config
	log    *slog.Logger
	store  *store.Store
	client *embed.Client
	engine *parse.Engine
	cut    []byte // hash of how texts are cut

	examined time.Time // when the index was looked at; the maintenance's only
	filled   time.Time // when no text was without a vector; the maintenance's only

	wake chan struct{}
	stop context.CancelFunc
	done chan struct{}

	mu         sync.Mutex
	identities map[string]time.Duration // whose groups are being followed, and their greatest age
	written    time.Time                // when a document was written last
	dirtySince time.Time                // since when there are vectors without an index
	views      *store.Views             // nil = none
}

// Open connects, prepares the schema and starts its maintenance.
func Open(ctx context.Context, cfg Config) (*Index, error) {
	if cfg.Embedder == nil {
		cfg.Embedder = embed.NewHash(0)
	}
	if cfg.Maintain <= 0 {
		cfg.Maintain = time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Store.Spec = cfg.Embedder.Spec()
	s, err := store.Open(ctx, cfg.Store)
	if err != nil {
		return nil, err
	}
	cut, err := json.Marshal(cfg.Chunk)
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("settings of chunks: %w", err)
	}
	sum := sha256.Sum256(append([]byte("2 "), cut...)) // the number grows when parsing or cutting changes
	x := &Index{cfg: cfg, log: cfg.Logger, store: s, client: embed.NewClient(cfg.Embedder), cut: sum[:],
		engine: parse.New(parse.Config{CacheDir: cfg.CacheDir, Limits: cfg.Parse}),
		wake:   make(chan struct{}, 1), done: make(chan struct{}), identities: map[string]time.Duration{}}
	if !s.IsActive() {
		x.log.Info("vectors of the new model are built beside the old ones", "model", cfg.Store.Spec.Model)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	x.stop = stop
	go func() {
		defer close(x.done)
		x.maintain(background)
	}()
	return x, nil
}

// Store returns where the documents are.
func (x *Index) Store() *store.Store { return x.store }

// Views makes the views of other programs; after a change of the model they are made anew.
func (x *Index) Views(ctx context.Context, v store.Views) error {
	x.mu.Lock()
	x.views = &v
	x.mu.Unlock()
	return x.store.CreateViews(ctx, v)
}

// Close ends the maintenance, after a last count of words, and the connections. Calling it twice is fine.
func (x *Index) Close() error {
	x.stop()
	<-x.done
	x.store.Close()
	return x.engine.Close()
}

// wakeUp asks for a round of maintenance.
func (x *Index) wakeUp() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Fields says which fields of a record make a document.
type Fields struct {
	Title    string   // may be empty
	Text     []string // in this order
	Metadata []string
	ACL      string // field that holds an ACL or a list of principals; may be empty
}

// What a stream holds.
const (
	Files       = "files"       // documents, as sources of files publish them
	Records     = "records"     // rows whose text fields are documents
	Permissions = "permissions" // who may see a document
	Groups      = "groups"      // who is in a group
)

// Stream says how one stream becomes documents.
type Stream struct {
	Name   record.StreamName
	Topic  string
	Holds  string // default Files
	Fields Fields // of Records

	Tenant   string        // documents of two tenants share nothing
	Of       string        // of Permissions: the stream of the documents
	Identity string        // whose groups the permissions name; default: the source
	ACL      []string      // everybody who may see all of the stream's documents, in place of what its records say
	MaxAge   time.Duration // of Permissions and Groups: not heard of for longer, they permit nothing; 0 = never
	Bodies   Bodies        // nil: records that only refer to their body are rejected
}

// Sink returns the sink of one stream.
func (x *Index) Sink(st Stream) (*Sink, error) {
	if st.Holds == "" {
		st.Holds = Files
	}
	if st.Identity == "" {
		st.Identity = st.Name.Source
	}
	s := &Sink{x: x, st: st, stream: st.Name.String(), loaded: map[int32]record.Mark{}, counts: map[int32]record.Counts{}}
	switch st.Holds {
	case Files:
		s.take = s.takeFiles
	case Records:
		if len(st.Fields.Text) == 0 {
			return nil, fmt.Errorf("stream %s: name the text fields of its documents", s.stream)
		}
		s.take = s.takeRecords
	case Permissions:
		if st.Of == "" {
			return nil, fmt.Errorf("stream %s: name the stream whose permissions it holds", s.stream)
		}
		s.take, s.followed = s.takePermissions, store.PermissionsOf(st.Tenant, st.Of)
	case Groups:
		s.take, s.followed = s.takeGroups, st.Identity
	default:
		return nil, fmt.Errorf("stream %s: holds %s; there are files, records, permissions, groups", s.stream, st.Holds)
	}
	if st.ACL != nil {
		raw, err := json.Marshal(map[string][]string{"allow": st.ACL})
		if err != nil {
			return nil, fmt.Errorf("stream %s: acl: %w", s.stream, err)
		}
		acl := store.ParseACL(raw, st.Identity)
		if len(acl.Allow) != len(st.ACL) {
			return nil, fmt.Errorf("stream %s: acl: want user:NAME, group:NAME or public", s.stream)
		}
		s.fixedACL = &acl
	}
	return s, nil
}

// maintain works until ctx ends.
func (x *Index) maintain(ctx context.Context) {
	t := time.NewTicker(x.cfg.Maintain)
	defer t.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-t.C:
			x.round(ctx, true)
		case <-x.wake:
			x.round(ctx, false)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	x.round(last, false)
}

// round is one round of maintenance; slow adds what need not be done after each flush.
func (x *Index) round(ctx context.Context, slow bool) {
	err := x.syncIdentities(ctx)
	m, lockErr := x.store.Maintainer(ctx)
	err = errors.Join(err, lockErr)
	if m != nil {
		defer m.Release()
		err = errors.Join(err, m.CountWords(ctx))
		// Once active too: a process that still wrote for the model of before may have left texts without a vector.
		if !x.store.IsActive() || slow && time.Since(x.filled) > fillEvery {
			fillErr := x.reembed(ctx)
			if fillErr == nil {
				x.filled = time.Now()
			}
			err = errors.Join(err, fillErr)
		}
		if x.quiet() {
			built, indexErr := m.Index(ctx)
			if built {
				x.log.Info("the index of vectors is built")
			}
			err = errors.Join(err, indexErr)
		}
		if slow && time.Since(x.examined) > examineEvery {
			err = errors.Join(err, x.examine(ctx, m))
			x.examined = time.Now()
		}
		if slow {
			_, collectErr := m.Collect(ctx)
			err = errors.Join(err, collectErr, x.store.RetireOld(ctx))
		}
	}
	if err != nil && ctx.Err() == nil {
		x.log.Warn("maintenance of the documents goes on later", "error", err)
	}
}

// examineEvery is how often the index is looked at, and leastRecall what it must find of the nearest vectors.
const (
	examineEvery = time.Hour
	leastRecall  = 0.9
)

// examine builds the index anew if much of it is gone, and measures what it finds.
func (x *Index) examine(ctx context.Context, m *store.Maintainer) error {
	rebuilt, err := m.Rebuild(ctx)
	if err != nil {
		return err
	}
	if rebuilt {
		x.log.Info("the index of vectors is built anew: many of its vectors were gone")
	}
	share, err := m.Recall(ctx)
	if err == nil && share < leastRecall {
		x.log.Warn("the index of vectors misses near ones", "found", share)
	}
	return err
}

// fillEvery is how often texts without a vector are looked for.
const fillEvery = 15 * time.Minute

// indexPatience is how long an index waits for a pause of the load.
const indexPatience = 10 * time.Minute

// quiet reports whether the load has paused, or gone on for so long that the index is built beside it: under
// constant change it would never be.
func (x *Index) quiet() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	if x.dirtySince.IsZero() {
		x.dirtySince = now
	}
	return now.Sub(x.written) > 2*time.Second || now.Sub(x.dirtySince) > indexPatience
}

// reembed gives the texts of before a change of the model their new vectors, then switches to them.
func (x *Index) reembed(ctx context.Context) error {
	for ctx.Err() == nil {
		hashes, texts, err := x.store.Missing(ctx, 1000)
		if err != nil {
			return err
		}
		if len(hashes) == 0 && x.store.IsActive() {
			return nil
		}
		if len(hashes) == 0 {
			done, err := x.store.Activate(ctx)
			if !done || err != nil {
				return err
			}
			x.log.Info("searches use the vectors of the new model")
			x.mu.Lock()
			views := x.views
			x.mu.Unlock()
			if views != nil {
				err = x.store.CreateViews(ctx, *views)
			}
			return err
		}
		vs, err := x.client.Documents(ctx, texts)
		if err != nil {
			return err
		}
		var have [][]byte
		var of [][]float32
		for i, v := range vs.Of {
			if v != nil {
				have, of = append(have, hashes[i]), append(of, v)
			}
		}
		if len(have) == 0 {
			return errors.New("the new model refuses the rest of the texts: the old one stays active")
		}
		if err := x.store.AddVectors(ctx, have, of); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// syncIdentities says that the groups which are being followed are known up to now.
func (x *Index) syncIdentities(ctx context.Context) error {
	x.mu.Lock()
	ids := make(map[string]time.Duration, len(x.identities))
	for id, age := range x.identities {
		ids[id] = age
	}
	x.mu.Unlock()
	var errs []error
	for id, age := range ids {
		errs = append(errs, x.store.Synced(ctx, id, age))
	}
	return errors.Join(errs...)
}
