package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// Config of a Source. Zero values are defaults.
type Config struct {
	Name   string   // of the source in the configuration: shop-db
	URL    string   // postgres://user:password@host:port/database
	Tables []string // schema.table; parts with dots or capitals are quoted as in SQL

	Slot        string // replication slot; default sluice_<name>
	Publication string // default: the slot's name; created if it is missing and the user may

	Readers       int  // connections that read a backfill; default 2
	BatchRows     int  // most rows of a batch; default 1024
	BatchBytes    int  // bytes after which a batch is full; default 1 MiB
	UntilCaughtUp bool // end when everything up to the log end of the start is on the brokers

	Linger       time.Duration // how long a change may wait for others of its batch; default 5 ms
	DrainTimeout time.Duration // how long a stop may wait for the brokers; default 10 s

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

// Source reads the tables of one database.
type Source struct {
	cfg    Config
	conn   *pgx.ConnConfig
	tables []record.StreamName
	log    *slog.Logger
	asks   *asks

	// watchEvery is how often the publication is looked at: PostgreSQL 18 goes on
	// without a word when it is dropped, older servers stop at the next change.
	watchEvery time.Duration
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// New checks cfg and returns a Source; it does not connect. Errors hold no password.
func New(cfg Config) (*Source, error) {
	s := &Source{cfg: cfg, asks: newAsks(), watchEvery: 10 * time.Second}
	conn, err := parseURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", cfg.Name, err)
	}
	s.conn = conn
	if cfg.Name == "" {
		return nil, fmt.Errorf("source: a name is missing")
	}
	if len(cfg.Tables) == 0 {
		return nil, fmt.Errorf("source %s: tables is empty; name at least one as schema.table", cfg.Name)
	}
	for _, t := range cfg.Tables {
		name, err := record.ParseStreamName("x." + t)
		if err != nil || name.Namespace == "" {
			return nil, fmt.Errorf("source %s: table %q: want schema.table", cfg.Name, t)
		}
		name.Source = cfg.Name
		if slices.Contains(s.tables, name) {
			return nil, fmt.Errorf("source %s: table %s is listed twice", cfg.Name, t)
		}
		s.tables = append(s.tables, name)
	}
	s.defaults()
	if !slotName.MatchString(s.cfg.Slot) {
		return nil, fmt.Errorf("source %s: slot %q: want at most 63 of a-z, 0-9 and _", cfg.Name, s.cfg.Slot)
	}
	if len(s.cfg.Publication) > 63 || strings.ContainsRune(s.cfg.Publication, 0) {
		return nil, fmt.Errorf("source %s: publication %q: want at most 63 bytes", cfg.Name, s.cfg.Publication)
	}
	s.log = s.cfg.Logger.With("source", cfg.Name)
	return s, nil
}

func (s *Source) defaults() {
	c := &s.cfg
	if c.Slot == "" {
		c.Slot = DefaultSlot(c.Name)
	}
	if c.Publication == "" {
		c.Publication = c.Slot
	}
	setInt(&c.Readers, 2)
	setInt(&c.BatchRows, 1024)
	setInt(&c.BatchBytes, 1<<20)
	if c.Linger == 0 {
		c.Linger = 5 * time.Millisecond
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 10 * time.Second
	}
	if c.Board == nil {
		c.Board = &progress.Board{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	for _, t := range s.tables {
		s.progress(t)
	}
}

func setInt(v *int, def int) {
	if *v <= 0 {
		*v = def
	}
}

func (s *Source) progress(t record.StreamName) *progress.Stream {
	return s.cfg.Board.Stream(progress.Source, s.cfg.Name, t.String())
}

// DefaultSlot returns the slot name of the source called name: two sources of
// one server with names that differ only in signs must set slot themselves.
func DefaultSlot(name string) string {
	slot := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '_'
	}, "sluice_"+name)
	return slot[:min(len(slot), 63)]
}

// Finding is what Check has to say about one thing.
type Finding struct {
	Table   string // schema.table; empty if it concerns the server
	Problem string
	Fix     string // the SQL or setting that repairs it
	Fatal   bool   // the table, or without one the source, cannot be read
}

// Check looks at the server and the tables and changes nothing. An error means
// that the server could not be asked.
func (s *Source) Check(ctx context.Context) ([]Finding, error) {
	return s.check(ctx)
}

// Run reads until ctx ends, or with UntilCaughtUp until everything up to the
// log end of its start is on the brokers and checkpointed. It returns nil in
// both cases, once what was read is on the brokers.
func (s *Source) Run(ctx context.Context, out Output) error {
	return s.run(ctx, out)
}
