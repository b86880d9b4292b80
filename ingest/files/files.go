// Package files reads the files of a folder, a bucket, a server or a drive as
// a stream of documents: what was created, changed, renamed and deleted, who
// may see it, and where its body is.
package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/sluice-data/sluice/ingest/files/root"
	"github.com/sluice-data/sluice/objects"
	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// MaxInline is the most bytes of a body that travels in its record.
const MaxInline = 1 << 20

// Root is a place that files are read from.
type Root interface {
	// List yields every file. An error ends the listing, which then counts for
	// nothing: a part of a place is never taken for the whole.
	List(ctx context.Context) iter.Seq2[root.Entry, error]

	// Open reads the listed version of a file from offset on. Another version
	// is root.ErrChanged, at once or at the end of the body; a *root.Reason is
	// of this file alone, any other error of the place as a whole.
	Open(ctx context.Context, e root.Entry, offset int64) (io.ReadCloser, error)
}

// Follower is a Root that tells what has changed since a token.
type Follower interface {
	// Token returns the place in the log of changes before a full listing begins.
	Token(ctx context.Context) (string, error)

	// Changes returns the files that changed since token, the IDs of those
	// that are gone, and the next token. relist says that the changes cannot
	// be told file by file, as when a folder was renamed; a token that is too
	// old is root.ErrExpired.
	Changes(ctx context.Context, token string) (changed []root.Entry, gone []string, next string, relist bool, err error)
}

// Grouper is a Root that knows the groups of its access lists.
type Grouper interface {
	Groups(ctx context.Context) ([]root.Group, error)
}

// Store is where bodies are copied to.
type Store struct {
	Client *objects.Client
	Bucket string
	Prefix string // empty, or with a slash at its end
	ByHash bool   // keys are content hashes instead of the paths of the files
}

// Rule gives the files that fit a pattern an access list where the place has none.
type Rule struct {
	Glob Glob
	ACL  root.ACL
}

// Config of a Source. Zero values are defaults.
type Config struct {
	Name string                                  // of the source in the configuration: docs
	Dir  string                                  // the folder of its state
	Open func(ctx context.Context) (Root, error) // called at each start; a Root with Close is closed

	Include []Glob // empty = all
	Exclude []Glob

	// CopyAll copies every body to Store; otherwise only those that are too big
	// to be inline and that nobody could read at their place.
	CopyAll bool
	Store   *Store

	Inline int           // most bytes of a body in its record; default and most: MaxInline
	Every  time.Duration // between two listings; default 1 min
	Sweep  time.Duration // between two full listings of a place that tells its changes; default 24 h

	// MaxGone is the share of the known files that a listing may lack; one
	// that lacks more is refused. 0 = one half, 1 = any. Fewer than 10 missing
	// files are always fine unless the listing is empty.
	MaxGone float64

	Permissions bool   // publish the streams permissions and groups too
	Rules       []Rule // the first that fits counts
	Groups      []root.Group
	Workers     int // files read at once; default 4

	UntilCaughtUp bool // end after one full pass

	Board  *progress.Board
	Logger *slog.Logger
}

// Output is what a Source writes to; it is the ingest room's Output.
type Output interface {
	// Publish takes b over and blocks while the buffers are full. An error that
	// is not of ctx parks the stream of b, unless its Lost() bool returns true.
	Publish(ctx context.Context, b *record.Batch) error
	// Barrier calls done, in order, once the brokers hold all published before it.
	Barrier(done func())
	// Flush waits until the brokers hold everything published so far.
	Flush(ctx context.Context) error
	// LoadCheckpoint returns what SaveCheckpoint stored last under key, nil if nothing.
	LoadCheckpoint(ctx context.Context, key string) ([]byte, error)
	// SaveCheckpoint stores data durably before it returns.
	SaveCheckpoint(ctx context.Context, key string, data []byte) error
}

// Source reads the files of one place.
type Source struct {
	cfg     Config
	log     *slog.Logger
	schemas [3]*record.Schema // files, permissions, groups

	now   func() time.Time
	fault func(point string) error // for tests: an error is a crash at that point; nil = none
}

// The streams of a source, in the order of Source.schemas.
const (
	filesStream = iota
	permissionsStream
	groupsStream
)

// Streams returns the names of the streams of a source.
func Streams(permissions bool) []string {
	if permissions {
		return []string{"files", "permissions", "groups"}
	}
	return []string{"files"}
}

// New checks cfg and returns a Source; it connects to nothing.
func New(cfg Config) (*Source, error) {
	switch {
	case cfg.Name == "" || cfg.Dir == "" || cfg.Open == nil:
		return nil, errors.New("source of files: name, folder of the state or place is missing")
	case cfg.CopyAll && cfg.Store == nil:
		return nil, fmt.Errorf("source %s: mode copy needs a store", cfg.Name)
	case cfg.Inline > MaxInline:
		return nil, fmt.Errorf("source %s: inline: 1 MiB at most", cfg.Name)
	}
	if cfg.Inline <= 0 {
		cfg.Inline = MaxInline
	}
	if cfg.Every <= 0 {
		cfg.Every = time.Minute
	}
	if cfg.Sweep <= 0 {
		cfg.Sweep = 24 * time.Hour
	}
	if cfg.MaxGone <= 0 {
		cfg.MaxGone = 0.5
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 4
	}
	if cfg.Board == nil {
		cfg.Board = &progress.Board{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{cfg: cfg, log: cfg.Logger.With("source", cfg.Name), now: time.Now}
	s.schemas = schemas(cfg.Name)
	for i := range s.streams() {
		s.progress(i)
	}
	return s, nil
}

func (s *Source) streams() int { return len(Streams(s.cfg.Permissions)) }

func (s *Source) progress(stream int) *progress.Stream {
	return s.cfg.Board.Stream(progress.Source, s.cfg.Name, s.schemas[stream].Stream.String())
}

func (s *Source) at(point string) error {
	if s.fault == nil {
		return nil
	}
	return s.fault(point)
}

// schemas returns the schemas of the streams of the source called name.
func schemas(name string) [3]*record.Schema {
	text := func(name string) record.Field { return record.Field{Name: name, Kind: record.Text, Nullable: true} }
	stream := func(local string, fields ...record.Field) *record.Schema {
		fields[0].Nullable, fields[0].Key = false, 1
		return (&record.Schema{Stream: record.StreamName{Source: name, Name: local}, Fields: fields}).Seal()
	}
	json := func(name string) record.Field { return record.Field{Name: name, Kind: record.JSON, Nullable: true} }
	return [3]*record.Schema{
		stream("files", text("path"), text("etag"), record.Field{Name: "size", Kind: record.Int64, Nullable: true},
			record.Field{Name: "modified", Kind: record.TimestampTZ, Nullable: true}, text("mime"),
			record.Field{Name: "sha256", Kind: record.Bytes, Nullable: true}, text("title"), text("uri"),
			record.Field{Name: "body", Kind: record.Bytes, Nullable: true}, text("object"), text("object_etag"), json("metadata"), json("acl")),
		stream("permissions", text("path"), json("acl")),
		stream("groups", text("group"), json("members")),
	}
}
