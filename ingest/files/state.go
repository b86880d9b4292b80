package files

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // database/sql driver "sqlite"

	"github.com/sluice-data/sluice/record"
)

// state is what a source knows of its files: one row per file as it was
// published last. It lies in a SQLite file, so that a million files cost no
// memory. A row is written, as pending, before its record is published, and
// settled once the brokers hold it: after a crash the same record gets the
// same position again, and every sink drops it as a duplicate.
// txn is one transaction.
type txn = *sql.Tx

type state struct {
	db   *sql.DB
	lock *os.File
}

const tables = `
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS file (
	path TEXT PRIMARY KEY, id TEXT NOT NULL, etag TEXT NOT NULL, size INTEGER NOT NULL, modified INTEGER NOT NULL,
	mime TEXT NOT NULL, title TEXT NOT NULL, uri TEXT NOT NULL, metadata TEXT NOT NULL, acl TEXT NOT NULL, ref TEXT NOT NULL,
	origin TEXT NOT NULL, sha BLOB, inline INTEGER NOT NULL, object TEXT NOT NULL, object_etag TEXT NOT NULL,
	racy INTEGER NOT NULL, reason TEXT NOT NULL, live INTEGER NOT NULL, moved TEXT NOT NULL,
	epoch INTEGER NOT NULL, lsn INTEGER NOT NULL, seq INTEGER NOT NULL, op INTEGER NOT NULL, what INTEGER NOT NULL,
	pending INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS file_pending ON file (lsn, seq) WHERE pending;
CREATE INDEX IF NOT EXISTS file_sha ON file (sha) WHERE sha IS NOT NULL;
CREATE INDEX IF NOT EXISTS file_id ON file (id) WHERE id <> '';
CREATE INDEX IF NOT EXISTS file_object ON file (object) WHERE object <> '';
CREATE TABLE IF NOT EXISTS member (
	name TEXT PRIMARY KEY, members TEXT NOT NULL, live INTEGER NOT NULL, epoch INTEGER NOT NULL,
	lsn INTEGER NOT NULL, seq INTEGER NOT NULL, op INTEGER NOT NULL, pending INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS upload (path TEXT PRIMARY KEY, etag TEXT NOT NULL, key TEXT NOT NULL, parts TEXT NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trash (object TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE listed (
	path TEXT PRIMARY KEY, id TEXT NOT NULL, etag TEXT NOT NULL, size INTEGER NOT NULL, modified INTEGER NOT NULL,
	mime TEXT NOT NULL, title TEXT NOT NULL, uri TEXT NOT NULL, metadata TEXT NOT NULL, acl TEXT NOT NULL, ref TEXT NOT NULL,
	origin TEXT NOT NULL, sha BLOB, weak INTEGER NOT NULL, reason TEXT NOT NULL, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TEMP TABLE removed (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE gone (path TEXT PRIMARY KEY) WITHOUT ROWID;
`

// openState opens the state below dir; only one process at a time may.
func openState(ctx context.Context, dir string) (*state, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state of the files: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state of the files: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, errors.New("state of the files: another process reads this source; it is tried again")
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "state.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=temp_store(FILE)&_pragma=busy_timeout(5000)")
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("state of the files: %w", err)
	}
	db.SetMaxOpenConns(1) // the temporary tables are of one connection
	s := &state{db: db, lock: lock}
	if _, err := db.ExecContext(ctx, tables); err != nil {
		s.close()
		return nil, fmt.Errorf("state of the files: %w; remove its folder %s to list everything again", err, dir)
	}
	return s, nil
}

func (s *state) close() {
	_ = s.db.Close()
	_ = s.lock.Close() // gives the lock back
}

// known is one file as it was published last, and how.
type known struct {
	path, id, etag string
	size, modified int64 // bytes; µs since 1970, 0 = unknown
	mime, title    string
	uri, metadata  string
	acl, ref       string // acl: JSON, empty = unknown
	origin         string // the claim that the listing gave
	sha            []byte
	inline         bool // the body is in the record
	object         string
	objectETag     string
	racy           bool   // written to so shortly before it was read that the same version may have another content
	reason         string // why it is not read
	live           bool   // the stream has a record of it
	moved          string // the path it had before

	epoch, lsn, seq int64
	op              record.Op
	what            what
	pending         bool
}

// what says which records a change consists of.
type what uint8

const (
	whatFile       what = 1 << iota // a record of files
	whatPermission                  // a record of permissions
	whatLight                       // the record of files leaves the body out: it is what it was
	whatReject                      // a dead letter
)

func (k *known) position() record.Position {
	return record.Position{Epoch: uint64(k.epoch), LSN: uint64(k.lsn), Seq: uint64(k.seq)}
}

const knownColumns = `path, id, etag, size, modified, mime, title, uri, metadata, acl, ref, origin, sha, inline, object, object_etag,
	racy, reason, live, moved, epoch, lsn, seq, op, what, pending`

func (k *known) fields() []any {
	return []any{&k.path, &k.id, &k.etag, &k.size, &k.modified, &k.mime, &k.title, &k.uri, &k.metadata, &k.acl, &k.ref, &k.origin, &k.sha,
		&k.inline, &k.object, &k.objectETag, &k.racy, &k.reason, &k.live, &k.moved, &k.epoch, &k.lsn, &k.seq, &k.op, &k.what, &k.pending}
}

func (k *known) values() []any {
	return []any{k.path, k.id, k.etag, k.size, k.modified, k.mime, k.title, k.uri, k.metadata, k.acl, k.ref, k.origin, k.sha,
		k.inline, k.object, k.objectETag, k.racy, k.reason, k.live, k.moved, k.epoch, k.lsn, k.seq, k.op, k.what, k.pending}
}

const putKnown = `INSERT OR REPLACE INTO file (` + knownColumns + `) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`

// queryKnown returns the rows of a query of knownColumns; it must be bounded.
func (s *state) queryKnown(ctx context.Context, query string, args ...any) ([]known, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT "+knownColumns+" FROM file "+query, args...)
	if err != nil {
		return nil, stateError(err)
	}
	defer func() { _ = rows.Close() }()
	var list []known
	for rows.Next() {
		var k known
		if err := rows.Scan(k.fields()...); err != nil {
			return nil, stateError(err)
		}
		list = append(list, k)
	}
	return list, stateError(rows.Err())
}

// tx runs f in one durable transaction.
func (s *state) tx(ctx context.Context, f func(txn) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return stateError(err)
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback()
		return stateError(err)
	}
	return stateError(tx.Commit())
}

func (s *state) exec(ctx context.Context, query string, args ...any) error {
	_, err := s.db.ExecContext(ctx, query, args...)
	return stateError(err)
}

func (s *state) count(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = s.db.QueryRowContext(ctx, query, args...).Scan(&n)
	return n, stateError(err)
}

// number and text return a remembered value, zero if there is none.
func (s *state) number(ctx context.Context, name string) (n int64, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", name).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return n, stateError(err)
}

func (s *state) text(ctx context.Context, name string) (v string, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", name).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return v, stateError(err)
}

const putMeta = `INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)`

func (s *state) remember(ctx context.Context, name string, value any) error {
	return s.exec(ctx, putMeta, name, value)
}

// identity returns the random name of this state, made on first use: the
// checkpoint on the brokers says which state it belongs to.
func (s *state) identity(ctx context.Context) (string, error) {
	id, err := s.text(ctx, "identity")
	if err != nil || id != "" {
		return id, err
	}
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	id = hex.EncodeToString(b)
	return id, s.remember(ctx, "identity", id)
}

func stateError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("state of the files: %w", err)
}
