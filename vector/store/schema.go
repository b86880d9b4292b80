package store

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed schema.sql
var schemaSQL string

//go:embed functions.sql
var functionsSQL string

// schemaVersion counts the changes of schema.sql.
const schemaVersion = 1

// Locks that processes take in the database, beside the hash of the schema's name.
const (
	lockMigrate  = 1
	lockMaintain = 2
)

// migrate creates the extension, the tables and the functions, whatever of them is missing. Any number of
// processes may call it at once.
func (s *Store) migrate(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, s.connConfig.Copy())
	if err != nil {
		return fmt.Errorf("connect to the vector database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tx, err := conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("prepare schema %s: %w", s.cfg.Schema, err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1, hashtext($2))`, lockMigrate, s.cfg.Schema); err != nil {
		return fmt.Errorf("lock schema %s: %w", s.cfg.Schema, err)
	}
	if err := s.extension(ctx, tx); err != nil {
		return err
	}
	var version int
	if _, err := tx.Exec(ctx, s.sql(schemaSQL)); err != nil {
		return fmt.Errorf("create the tables of schema %s: %w", s.cfg.Schema, err)
	}
	if err := tx.QueryRow(ctx, s.sql(`select coalesce(max(value), '0')::int from $S.setting where name = 'version'`)).Scan(&version); err != nil {
		return fmt.Errorf("read the version of schema %s: %w", s.cfg.Schema, err)
	}
	if version > schemaVersion {
		return fmt.Errorf("schema %s is of a newer sluice (version %d, this one knows %d): update sluice", s.cfg.Schema, version, schemaVersion)
	}
	if _, err := tx.Exec(ctx, s.sql(functionsSQL)); err != nil {
		return fmt.Errorf("create the functions of schema %s: %w", s.cfg.Schema, err)
	}
	if err := s.settle(ctx, tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("prepare schema %s: %w", s.cfg.Schema, err)
	}
	return nil
}

// extension makes sure of pgvector and learns its version and place.
func (s *Store) extension(ctx context.Context, tx pgx.Tx) error {
	read := func() error {
		return tx.QueryRow(ctx, `select extversion, nspname from pg_extension e join pg_namespace n on n.oid = extnamespace where extname = 'vector'`).
			Scan(&s.extVersion, &s.extSchema)
	}
	err := read()
	if err == pgx.ErrNoRows {
		if _, err := tx.Exec(ctx, `create extension if not exists vector`); err != nil {
			return fmt.Errorf("create extension vector: %w; install pgvector, or have an administrator create the extension", err)
		}
		err = read()
	}
	if err != nil {
		return fmt.Errorf("look for extension vector: %w", err)
	}
	if s.olderThan(0, 8, 0) {
		return fmt.Errorf("pgvector %s is too old: without iterative scans a search among permitted documents misses some; update to 0.8.4 or newer", s.extVersion)
	}
	if _, err := tx.Exec(ctx, `select set_config('search_path', 'pg_catalog, ' || quote_ident($1), true)`, s.extSchema); err != nil {
		return fmt.Errorf("look for extension vector: %w", err)
	}
	return nil
}

// olderThan compares the version of pgvector.
func (s *Store) olderThan(version ...int) bool {
	var have [3]int
	_, _ = fmt.Sscanf(s.extVersion, "%d.%d.%d", &have[0], &have[1], &have[2])
	for i, v := range version {
		if have[i] != v {
			return have[i] < v
		}
	}
	return false
}

// settle stores what searches must know of how documents were written.
func (s *Store) settle(ctx context.Context, tx pgx.Tx) error {
	var language string
	err := tx.QueryRow(ctx, s.sql(`select value from $S.setting where name = 'language'`)).Scan(&language)
	switch {
	case err == pgx.ErrNoRows:
		_, err = tx.Exec(ctx, s.sql(`insert into $S.setting (name, value) values ('language', $1::regconfig::text), ('version', $2)`),
			s.cfg.Language, fmt.Sprint(schemaVersion))
		if err != nil {
			return fmt.Errorf("language %s of schema %s: %w", s.cfg.Language, s.cfg.Schema, err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("read the settings of schema %s: %w", s.cfg.Schema, err)
	case language != s.cfg.Language:
		return fmt.Errorf("schema %s was made for language %s, not %s: the words of its texts are stored so; name another schema", s.cfg.Schema, language, s.cfg.Language)
	}
	return nil
}

// q returns the quoted name of a table of the schema.
func (s *Store) q(table string) string { return pgx.Identifier{s.cfg.Schema, table}.Sanitize() }

// sql puts the schema, its name and the vector type's schema where a statement says $S, $N and $V.
func (s *Store) sql(text string) string {
	return strings.NewReplacer("$S", pgx.Identifier{s.cfg.Schema}.Sanitize(), "$N", "'"+strings.ReplaceAll(s.cfg.Schema, "'", "''")+"'",
		"$V", pgx.Identifier{s.extSchema}.Sanitize()).Replace(text)
}
