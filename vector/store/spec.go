package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/pgvector/pgvector-go"

	"github.com/sluice-data/sluice/vector/embed"
)

// MaxDims is the widest vector that can be indexed as halfvec.
const MaxDims = 4000

// chooseSpec finds or makes the space of the configured model.
func (s *Store) chooseSpec(ctx context.Context) error {
	spec := s.cfg.Spec
	if spec.Provider == "" {
		return nil
	}
	if spec.Dims < 1 || spec.Dims > MaxDims {
		return fmt.Errorf("vectors of width %d: 1 to %d can be indexed; set dimensions", spec.Dims, MaxDims)
	}
	fp := spec.Fingerprint()
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1, hashtext($2))`, lockMigrate, s.cfg.Schema); err != nil {
			return err
		}
		var state string
		err := tx.QueryRow(ctx, s.sql(`select id, state from $S.spec where fingerprint = $1`), fp[:]).Scan(&s.spec, &state)
		if errors.Is(err, pgx.ErrNoRows) {
			err = tx.QueryRow(ctx, s.sql(`insert into $S.spec (fingerprint, provider, model, revision, dims, document_prefix, query_prefix, weight, state)
				values ($1, $2, $3, $4, $5, $6, $7, $8, case when exists (select from $S.spec where state = 'active') then 'building' else 'active' end)
				returning id, state`), fp[:], spec.Provider, spec.Model, spec.Revision, spec.Dims, spec.DocumentPrefix, spec.QueryPrefix, spec.Kind.Weight()).
				Scan(&s.spec, &state)
		}
		if err != nil {
			return err
		}
		if state == "retired" { // somebody went back to it
			if _, err := tx.Exec(ctx, s.sql(`update $S.spec set state = 'building', changed_at = now() where id = $1`), s.spec); err != nil {
				return err
			}
		}
		s.active.Store(state == "active")
		_, err = tx.Exec(ctx, s.sql(fmt.Sprintf(`create table if not exists %s (
			hash bytea primary key, e $V.halfvec(%d) not null) with (toast_tuple_target = 8160);
			alter table %s alter column e set storage external`, s.emb(), spec.Dims, s.emb())))
		return err
	})
	if err != nil {
		return fmt.Errorf("choose the vectors of model %s in schema %s: %w", spec.Model, s.cfg.Schema, err)
	}
	return nil
}

// emb returns the table of our vectors.
func (s *Store) emb() string { return s.q(fmt.Sprintf("emb_%d", s.spec)) }

// Active returns the space that searches use; its Provider is empty if there is none yet.
func (s *Store) Active(ctx context.Context) (spec embed.Spec, err error) {
	err = s.pool.QueryRow(ctx, s.sql(`select provider, model, revision, dims, document_prefix, query_prefix from $S.spec where state = 'active'`)).
		Scan(&spec.Provider, &spec.Model, &spec.Revision, &spec.Dims, &spec.DocumentPrefix, &spec.QueryPrefix)
	if errors.Is(err, pgx.ErrNoRows) {
		return spec, nil
	}
	if err != nil {
		return spec, fmt.Errorf("read the active model of schema %s: %w", s.cfg.Schema, err)
	}
	return spec, nil
}

// Embedded returns which of the hashes have a vector in our space.
func (s *Store) Embedded(ctx context.Context, hashes [][]byte) (map[[32]byte]bool, error) {
	rows, err := s.pool.Query(ctx, s.sql(fmt.Sprintf(`select hash from %s join $S.content using (hash) where hash = any($1)`, s.emb())), hashes)
	if err != nil {
		return nil, fmt.Errorf("look for vectors: %w", err)
	}
	found := make(map[[32]byte]bool, len(hashes))
	var h []byte
	if _, err := pgx.ForEachRow(rows, []any{&h}, func() error {
		found[[32]byte(h)] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look for vectors: %w", err)
	}
	return found, nil
}

// Missing returns texts that documents have and that have no vector in our space: those of before a change of
// the model.
func (s *Store) Missing(ctx context.Context, limit int) (hashes [][]byte, texts []string, err error) {
	rows, err := s.pool.Query(ctx, s.sql(fmt.Sprintf(`select hash, coalesce(whole, head || body) from $S.content x
		where exists (select from $S.chunk c where c.hash = x.hash) and not exists (select from %s e where e.hash = x.hash) limit $1`, s.emb())), limit)
	if err != nil {
		return nil, nil, fmt.Errorf("look for texts without vectors: %w", err)
	}
	var h []byte
	var text string
	_, err = pgx.ForEachRow(rows, []any{&h, &text}, func() error {
		hashes, texts = append(hashes, append([]byte(nil), h...)), append(texts, text)
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("look for texts without vectors: %w", err)
	}
	return hashes, texts, nil
}

// AddVectors stores vectors of texts that are there already.
func (s *Store) AddVectors(ctx context.Context, hashes [][]byte, vs [][]float32) error {
	half := make([]pgvector.HalfVector, len(vs))
	for i, v := range vs {
		half[i] = pgvector.NewHalfVector(v)
	}
	_, err := s.pool.Exec(ctx, s.sql(fmt.Sprintf(`insert into %s (hash, e) select h, v from unnest($1::bytea[], $2::$V.halfvec[]) u (h, v)
		where exists (select from $S.content c where c.hash = h for key share) order by h on conflict do nothing`, s.emb())), hashes, half)
	if err != nil {
		return fmt.Errorf("store %d vectors: %w", len(vs), plain(err))
	}
	return nil
}

// Activate makes our space the one that searches use, if every text has its vector.
func (s *Store) Activate(ctx context.Context) (bool, error) {
	done := false
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// Documents that are written meanwhile bring their vectors along.
		if _, err := tx.Exec(ctx, s.sql(`lock table $S.spec in exclusive mode`)); err != nil {
			return err
		}
		var missing bool
		if err := tx.QueryRow(ctx, s.sql(fmt.Sprintf(`select exists (select from $S.chunk c where not exists (select from %s e where e.hash = c.hash))`, s.emb()))).Scan(&missing); err != nil || missing {
			return err
		}
		if _, err := tx.Exec(ctx, s.sql(`update $S.spec set state = 'retired', changed_at = now() where state = 'active' and id <> $1`), s.spec); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, s.sql(`update $S.spec set state = 'active', changed_at = now() where id = $1`), s.spec); err != nil {
			return err
		}
		done = true
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("switch to the new model: %w", err)
	}
	if done {
		s.active.Store(true)
	}
	return done, nil
}

// IsActive reports whether searches use our space.
func (s *Store) IsActive() bool { return s.active.Load() }

// RetireOld drops the vectors of models that were replaced some time ago.
func (s *Store) RetireOld(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, s.sql(`select id from $S.spec where state = 'retired' and changed_at < now() - $1::interval and id <> $2`), s.cfg.Grace, s.spec)
	if err != nil {
		return fmt.Errorf("look for replaced models: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return fmt.Errorf("look for replaced models: %w", err)
	}
	for _, id := range ids {
		_, err := s.pool.Exec(ctx, s.sql(fmt.Sprintf(`drop table if exists $S.emb_%d; delete from $S.spec where id = %d and state = 'retired'`, id, id)))
		if err != nil {
			return fmt.Errorf("drop the vectors of a replaced model: %w", err)
		}
	}
	return nil
}
