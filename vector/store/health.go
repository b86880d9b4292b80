package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// rebuildRatio is how many vectors are deleted for one that is left when an index is built anew: its graph leads
// over what is gone, and finds less the more of that there is.
const rebuildRatio = 0.2

// Recall is measured with this many stored vectors, of each of which recallNeighbours are looked for.
const (
	recallSamples    = 10
	recallNeighbours = 10
)

// hnsw returns the name of the index of our vectors.
func (s *Store) hnsw() string { return fmt.Sprintf("emb_%d_hnsw", s.spec) }

// deleted returns how many vectors were deleted, as the server counts, and how many there are.
func (m *Maintainer) deleted(ctx context.Context) (deleted, live int64, err error) {
	err = m.conn.QueryRow(ctx, `select coalesce(pg_stat_get_tuples_deleted(c.oid), 0), greatest(reltuples, pg_stat_get_live_tuples(c.oid), 0)::bigint from pg_class c where oid = $1::regclass`, m.s.emb()).
		Scan(&deleted, &live)
	return deleted, live, err
}

// noteBuilt remembers what was deleted before the index was built.
func (m *Maintainer) noteBuilt(ctx context.Context) error {
	deleted, _, err := m.deleted(ctx)
	if err == nil {
		_, err = m.conn.Exec(ctx, m.s.sql(`insert into $S.setting (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value`),
			m.s.hnsw(), fmt.Sprint(deleted))
	}
	if err != nil {
		return fmt.Errorf("note that the index of vectors is built: %w", err)
	}
	return nil
}

// Rebuild builds the index of our vectors anew if many of what it was built from are gone. Readers and writers go
// on meanwhile.
func (m *Maintainer) Rebuild(ctx context.Context) (rebuilt bool, err error) {
	s := m.s
	var before string
	err = m.conn.QueryRow(ctx, s.sql(`select value from $S.setting where name = $1 and to_regclass($2) is not null`), s.hnsw(), s.q(s.hnsw())).Scan(&before)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the index of vectors: %w", err)
	}
	deleted, live, err := m.deleted(ctx)
	if err != nil {
		return false, fmt.Errorf("count deleted vectors: %w", err)
	}
	was, err := strconv.ParseInt(before, 10, 64)
	if err != nil || was > deleted {
		return false, m.noteBuilt(ctx) // the server began to count anew
	}
	if float64(deleted-was) <= rebuildRatio*float64(max(live, 1)) {
		return false, nil
	}
	// One that was killed leaves what it had begun.
	if _, err := m.conn.Exec(ctx, `drop index concurrently if exists `+s.q(s.hnsw()+"_ccnew")); err != nil {
		return false, fmt.Errorf("drop an unfinished index: %w", err)
	}
	if err := m.building(ctx, `reindex index concurrently `+s.q(s.hnsw())); err != nil {
		return false, fmt.Errorf("build the index of vectors anew: %w", err)
	}
	return true, m.noteBuilt(ctx)
}

// building runs a statement that builds an index, with the memory that its graph takes.
func (m *Maintainer) building(ctx context.Context, sql string) (err error) {
	workers := 2
	if m.s.olderThan(0, 8, 2) {
		workers = 0 // CVE-2026-3172: a parallel build may write past its buffer
	}
	defer func() {
		_, resetErr := m.conn.Exec(context.WithoutCancel(ctx), `reset maintenance_work_mem; reset max_parallel_maintenance_workers`)
		err = errors.Join(err, resetErr)
	}()
	if _, err := m.conn.Exec(ctx, fmt.Sprintf(`set maintenance_work_mem = '%dMB'; set max_parallel_maintenance_workers = %d`, m.graphMegabytes(ctx), workers)); err != nil {
		return err
	}
	_, err = m.conn.Exec(ctx, sql)
	return err
}

// Recall measures on a sample which share of the nearest vectors the index finds; 1 where there is none.
func (m *Maintainer) Recall(ctx context.Context) (share float64, err error) {
	s := m.s
	share = 1
	err = pgx.BeginTxFunc(ctx, m.conn, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		var exists bool
		if err := tx.QueryRow(ctx, `select coalesce((select indisvalid from pg_index where indexrelid = to_regclass($1)), false)`, s.q(s.hnsw())).Scan(&exists); err != nil || !exists {
			return err
		}
		near := s.sql(fmt.Sprintf(`select array(select n.hash from (select hash, e from %[1]s order by hash limit %[2]d) q,
			lateral (select hash from %[1]s x order by x.e operator($V.<=>) q.e limit %[3]d) n)`, s.emb(), recallSamples, recallNeighbours))
		var exact, found [][]byte
		if _, err := tx.Exec(ctx, `set local enable_seqscan = on; set local enable_indexscan = off; set local statement_timeout = '60s'`); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, near).Scan(&exact); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `set local enable_seqscan = off; set local enable_indexscan = on; set local hnsw.ef_search = 100`); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, near).Scan(&found); err != nil {
			return err
		}
		hits, count := 0, map[string]int{}
		for _, h := range found {
			count[string(h)]++
		}
		for _, h := range exact {
			if count[string(h)] > 0 {
				count[string(h)]--
				hits++
			}
		}
		if len(exact) > 0 {
			share = float64(hits) / float64(len(exact))
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure what the index of vectors finds: %w", err)
	}
	return share, nil
}
