// Package store keeps documents, their chunks and vectors in Postgres with pgvector: a document's chunks change
// in one transaction with its version, and equal texts share one vector.
package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	vectors "github.com/pgvector/pgvector-go/pgx"

	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/vector/embed"
)

// Config says where documents are kept. Zero values are defaults.
type Config struct {
	URL         string
	Schema      string // default rag
	Language    string // text search configuration of the words; default english
	Connections int    // default 4
	Spec        embed.Spec

	IndexFrom int           // vectors from which on an HNSW index pays; default 20,000, below 0: never
	Grace     time.Duration // how long a text that no document has is kept, for a rename; default 1 h
	Keep      time.Duration // how long the version of a deleted document is kept; default 30 days

	// Hook is called at the named steps of a write; an error stops there. For crash tests; nil = none.
	Hook func(step string) error
}

// Store is the connection to the documents of one schema.
type Store struct {
	cfg        Config
	connConfig *pgx.ConnConfig
	pool       *pgxpool.Pool
	extVersion string
	extSchema  string
	spec       int         // id of the space that we write
	active     atomic.Bool // it is the one that searches use
	lexicon    lexicon
}

// Open connects, makes what is missing of the schema, and chooses the space of cfg.Spec: another one than the
// active one is built beside it. A zero Spec takes the active one as it is, if there is one.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Schema == "" {
		cfg.Schema = "rag"
	}
	if cfg.Language == "" {
		cfg.Language = "english"
	}
	if cfg.Connections <= 0 {
		cfg.Connections = 4
	}
	if cfg.IndexFrom == 0 {
		cfg.IndexFrom = 20_000
	}
	if cfg.Grace == 0 {
		cfg.Grace = time.Hour
	}
	if cfg.Keep == 0 {
		cfg.Keep = 30 * 24 * time.Hour
	}
	s := &Store{cfg: cfg}
	var err error
	if s.connConfig, err = pgx.ParseConfig(cfg.URL); err != nil {
		return nil, errors.New("the address of the vector database is not one: postgres://user:password@host:port/database")
	}
	s.connConfig.RuntimeParams["application_name"] = "sluice"
	if err := s.migrate(ctx); err != nil {
		return nil, err
	}
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, errors.New("the address of the vector database is not one: postgres://user:password@host:port/database")
	}
	pc.MaxConns = int32(cfg.Connections)
	pc.ConnConfig.RuntimeParams["application_name"] = "sluice"
	// The types are registered by name, wherever the extension is.
	pc.ConnConfig.RuntimeParams["search_path"] = "pg_catalog, " + pgx.Identifier{s.extSchema}.Sanitize()
	// All that we ask for is found by keys. Tables that grow from nothing have no statistics yet, and the planner
	// would read them from end to end for each document.
	for _, plan := range []string{"enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"} {
		pc.ConnConfig.RuntimeParams[plan] = "off"
	}
	pc.AfterConnect = vectors.RegisterTypes
	if s.pool, err = pgxpool.NewWithConfig(ctx, pc); err != nil {
		return nil, fmt.Errorf("connect to the vector database: %w", err)
	}
	if err := s.chooseSpec(ctx); err != nil {
		s.pool.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the connections.
func (s *Store) Close() { s.pool.Close() }

// Pool returns the connections, for searches.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Schema returns the quoted name of the schema.
func (s *Store) Schema() string { return pgx.Identifier{s.cfg.Schema}.Sanitize() }

// at calls the hook.
func (s *Store) at(step string) error {
	if s.cfg.Hook == nil {
		return nil
	}
	return s.cfg.Hook(step)
}

// Version orders the versions of a document: the place in the source's log, then on the topic.
type Version [32]byte

// VersionOf returns the version of a record.
func VersionOf(p record.Position, offset int64) (v Version) {
	binary.BigEndian.PutUint64(v[:], p.Epoch)
	binary.BigEndian.PutUint64(v[8:], p.LSN)
	binary.BigEndian.PutUint64(v[16:], p.Seq)
	binary.BigEndian.PutUint64(v[24:], uint64(offset))
	return v
}

// Key identifies a document everywhere.
func Key(tenant, stream, id string) [32]byte { return hash(tenant, stream, id) }

// ContentHash identifies a text that is embedded. Tenants share none.
func ContentHash(tenant, head, body, whole string) [32]byte { return hash(tenant, head, body, whole) }

// hash tells parts apart by their lengths, never by a separator that they may hold.
func hash(parts ...string) [32]byte {
	h := sha256.New()
	var n [8]byte
	for _, part := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	return [32]byte(h.Sum(nil))
}

// state returns the SQLSTATE of err, empty if it has none.
func state(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// plain drops the words of Postgres that may repeat a value (invariant 7): of a data error only its code stays.
func plain(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code[:2] {
		case "22", "23", "54":
			return fmt.Errorf("postgres refuses a value (SQLSTATE %s)", pg.Code)
		}
	}
	return err
}
