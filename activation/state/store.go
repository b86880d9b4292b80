package state

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"
	_ "modernc.org/sqlite"             // database/sql driver "sqlite"
)

// The tables. A key's row is found by the connection and the key's hash; the
// second index answers who owns a match value.
var tables = []string{
	`CREATE TABLE IF NOT EXISTS activation_connection (
		name TEXT PRIMARY KEY, id BIGINT NOT NULL UNIQUE, secret BLOB NOT NULL)`,
	`CREATE TABLE IF NOT EXISTS activation_part (
		conn BIGINT NOT NULL, part BIGINT NOT NULL, epoch BIGINT NOT NULL, owner TEXT NOT NULL,
		until BIGINT NOT NULL, mark TEXT NOT NULL, sent BIGINT NOT NULL, PRIMARY KEY (conn, part))`,
	`CREATE TABLE IF NOT EXISTS activation_key (
		conn BIGINT NOT NULL, key BLOB NOT NULL, match BLOB, id TEXT NOT NULL, flags BIGINT NOT NULL,
		row BIGINT NOT NULL, fields BLOB NOT NULL, part BIGINT NOT NULL, offs BIGINT NOT NULL,
		epoch BIGINT NOT NULL, lsn BIGINT NOT NULL, seq BIGINT NOT NULL, outcome BIGINT NOT NULL, code TEXT NOT NULL,
		attempts BIGINT NOT NULL, quarantine BIGINT NOT NULL, PRIMARY KEY (conn, key)) WITHOUT ROWID`,
	`CREATE INDEX IF NOT EXISTS activation_key_match ON activation_key (conn, match) WHERE match IS NOT NULL`,
	`CREATE TABLE IF NOT EXISTS activation_job (
		conn BIGINT NOT NULL, name TEXT NOT NULL, vendor TEXT NOT NULL, at BIGINT NOT NULL, manifest BLOB NOT NULL,
		PRIMARY KEY (conn, name))`,
	`CREATE TABLE IF NOT EXISTS activation_member (
		account TEXT NOT NULL, owner TEXT NOT NULL, until BIGINT NOT NULL, paused BIGINT NOT NULL,
		PRIMARY KEY (account, owner))`,
	`CREATE TABLE IF NOT EXISTS activation_secret (
		name TEXT PRIMARY KEY, version BIGINT NOT NULL, value BLOB NOT NULL)`,
}

// Store is a database of states: a file for one process, or a Postgres that
// several share. Its methods may be called from several goroutines.
type Store struct {
	db       *sql.DB
	writer   *sql.DB // for transactions; on SQLite one connection, which keeps its pages in memory
	postgres bool

	mu    sync.Mutex
	stmts map[string]*sql.Stmt
}

// Open opens the store at address, sqlite:PATH or postgres://…, and makes its
// tables. Errors do not name the address: it may hold a password.
func Open(ctx context.Context, address string) (*Store, error) {
	s := &Store{stmts: map[string]*sql.Stmt{}}
	driver, dsn := "pgx", address
	if path, ok := strings.CutPrefix(address, "sqlite:"); ok && path != "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("make the folder of the activation state: %w", err)
		}
		// FULL: what a destination has acknowledged must not be forgotten when
		// the power goes, an insert would be sent twice.
		u := url.URL{Scheme: "file", Path: path, RawQuery: "_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)" +
			"&_pragma=synchronous(FULL)&_pragma=cache_size(-16384)&_pragma=temp_store(MEMORY)" +
			// Keys are hashes, each is on a page of its own: a checkpoint of many
			// transactions writes a page once for all of them.
			"&_pragma=wal_autocheckpoint(8192)"}
		driver, dsn = "sqlite", u.String()
	} else if !strings.HasPrefix(address, "postgres://") && !strings.HasPrefix(address, "postgresql://") {
		return nil, errors.New("activation state: want sqlite:PATH or postgres://…")
	}
	s.postgres = driver == "pgx"
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, errors.New("activation state: the address cannot be read")
	}
	db.SetMaxOpenConns(8)
	s.db, s.writer = db, db
	if !s.postgres {
		if s.writer, err = sql.Open(driver, dsn); err != nil {
			return nil, errors.Join(errors.New("activation state: the address cannot be read"), db.Close())
		}
		s.writer.SetMaxOpenConns(1)
	}
	if err := s.create(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open the activation state: %w", err), s.Close())
	}
	return s, nil
}

// create makes the tables; two processes may do so at the same time.
func (s *Store) create(ctx context.Context) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		if err := s.alone(ctx, tx); err != nil {
			return err
		}
		for _, t := range tables {
			if s.postgres {
				t = strings.ReplaceAll(t, " WITHOUT ROWID", "")
			}
			if _, err := tx.ExecContext(ctx, s.query(t)); err != nil {
				return err
			}
		}
		return nil
	})
}

// alone keeps other processes out of what must not happen twice at a time; on
// SQLite every transaction is alone.
func (s *Store) alone(ctx context.Context, tx *sql.Tx) error {
	if !s.postgres {
		return nil
	}
	_, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock(7305804401)")
	return err
}

// Close closes the database. Closing twice is fine.
func (s *Store) Close() error {
	if s.writer == s.db {
		return s.db.Close()
	}
	return errors.Join(s.db.Close(), s.writer.Close())
}

// tx runs f in a transaction.
func (s *Store) tx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	return tx.Commit()
}

// ignoreDone drops the error of a rollback that the ended context has made already.
func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// query spells q, whose parameters are question marks, for the database. now()
// is its clock, in µs: processes on several machines agree on it.
func (s *Store) query(q string) string {
	if !s.postgres {
		return strings.ReplaceAll(q, "now()", "CAST(unixepoch('subsec')*1000000 AS BIGINT)")
	}
	q = strings.ReplaceAll(q, " BLOB", " BYTEA")
	q = strings.ReplaceAll(q, "now()", "CAST(extract(epoch FROM clock_timestamp())*1000000 AS BIGINT)")
	var b strings.Builder
	n := 0
	for _, r := range q {
		if r == '?' {
			n++
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// prepared returns the prepared statement of q, of which there are few.
func (s *Store) prepared(ctx context.Context, db *sql.DB, q string) (*sql.Stmt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.stmts[q]; st != nil {
		return st, nil
	}
	st, err := db.PrepareContext(ctx, s.query(q))
	if err != nil {
		return nil, err
	}
	s.stmts[q] = st
	return st, nil
}

// Connection returns the connection of the given name, made on first use. Its
// secret keys the hashes; it is made once and stays.
func (s *Store) Connection(ctx context.Context, name string) (*Connection, error) {
	c := &Connection{s: s, name: name}
	err := s.tx(ctx, func(tx *sql.Tx) error {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails
		if err := s.alone(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, s.query(`INSERT INTO activation_connection (name, id, secret)
			SELECT CAST(? AS TEXT), COALESCE(MAX(id), 0) + 1, CAST(? AS BLOB) FROM activation_connection WHERE true ON CONFLICT (name) DO NOTHING`), name, secret); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, s.query(`SELECT id, secret FROM activation_connection WHERE name = ?`), name).Scan(&c.id, &c.secret)
	})
	if err != nil {
		return nil, fmt.Errorf("activation state of %s: %w", name, err)
	}
	return c, nil
}

// Meet makes known for ttl that owner uses an account, and until when it sees
// the account paused (zero = not). It returns how many use it now, owner
// included, and until when it is paused by what any of them has seen.
func (s *Store) Meet(ctx context.Context, account, owner string, ttl time.Duration, paused time.Time) (members int, until time.Time, err error) {
	var micros int64
	err = s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, s.query(`DELETE FROM activation_member WHERE account = ? AND until < now()`), account); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, s.query(`INSERT INTO activation_member (account, owner, until, paused) VALUES (?, ?, now() + ?, ?)
			ON CONFLICT (account, owner) DO UPDATE SET until = excluded.until, paused = excluded.paused`),
			account, owner, ttl.Microseconds(), unixMicro(paused)); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, s.query(`SELECT count(*), max(paused) FROM activation_member WHERE account = ?`), account).Scan(&members, &micros)
	})
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("share the account %s: %w", account, err)
	}
	return members, fromMicro(micros), nil
}

// Part makes known that owner does not use an account any more.
func (s *Store) Part(ctx context.Context, account, owner string) error {
	if _, err := s.writer.ExecContext(ctx, s.query(`DELETE FROM activation_member WHERE account = ? AND owner = ?`), account, owner); err != nil {
		return fmt.Errorf("leave the account %s: %w", account, err)
	}
	return nil
}

// Secret returns a stored secret, such as a refresh token that the vendor has
// rotated, and its version; version 0 is none. The value is what was saved: the
// caller encrypts it.
func (s *Store) Secret(ctx context.Context, name string) (value []byte, version int64, err error) {
	err = s.db.QueryRowContext(ctx, s.query(`SELECT value, version FROM activation_secret WHERE name = ?`), name).Scan(&value, &version)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read the secret %s: %w", name, err)
	}
	return value, version, nil
}

// SaveSecret stores value as the version after the given one. It reports false
// when another process was quicker: read it again.
func (s *Store) SaveSecret(ctx context.Context, name string, value []byte, version int64) (bool, error) {
	q, args := `UPDATE activation_secret SET value = ?, version = version + 1 WHERE name = ? AND version = ?`, []any{value, name, version}
	if version == 0 {
		q, args = `INSERT INTO activation_secret (name, version, value) VALUES (?, 1, ?) ON CONFLICT (name) DO NOTHING`, []any{name, value}
	}
	res, err := s.writer.ExecContext(ctx, s.query(q), args...)
	if err != nil {
		return false, fmt.Errorf("save the secret %s: %w", name, err)
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

func unixMicro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicro(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros)
}
