package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// countSample is how many texts a count of words reads at most; above that it reads a sample.
const countSample = 50_000

// Maintainer does the work that no reader waits for. Of all processes one has it at a time.
type Maintainer struct {
	s    *Store
	conn *pgxpool.Conn
}

// Maintainer takes the maintenance of the schema, nil if another process has it. Release it.
func (s *Store) Maintainer(ctx context.Context) (*Maintainer, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("maintain schema %s: %w", s.cfg.Schema, err)
	}
	var ours bool
	if err := conn.QueryRow(ctx, `select pg_try_advisory_lock($1, hashtext($2))`, lockMaintain, s.cfg.Schema).Scan(&ours); err != nil || !ours {
		conn.Release()
		if err != nil {
			return nil, fmt.Errorf("maintain schema %s: %w", s.cfg.Schema, err)
		}
		return nil, nil
	}
	return &Maintainer{s, conn}, nil
}

// Release gives the maintenance back.
func (m *Maintainer) Release() {
	ctx := context.Background()
	if _, err := m.conn.Exec(ctx, `select pg_advisory_unlock($1, hashtext($2))`, lockMaintain, m.s.cfg.Schema); err != nil {
		_ = m.conn.Conn().Close(ctx) // the lock goes with its connection
	}
	m.conn.Release()
}

// CountWords counts in how many texts each word occurs, if a fifth of them is new since the last count. Of
// many texts it reads a sample: ranks need no exact numbers.
func (m *Maintainer) CountWords(ctx context.Context) error {
	var now, counted int64
	err := m.conn.QueryRow(ctx, m.s.sql(`select greatest(reltuples, 0)::bigint, (select coalesce(max(contents), 0) from $S.word_count) from pg_class where oid = $1::regclass`), m.s.q("content")).
		Scan(&now, &counted)
	if err == nil && now < countSample { // the planner's number is rough; a small table is quickly counted
		err = m.conn.QueryRow(ctx, m.s.sql(`select count(*) from $S.content`)).Scan(&now)
	}
	if err != nil {
		return fmt.Errorf("count the words of schema %s: %w", m.s.cfg.Schema, err)
	}
	if d := now - counted; d == 0 || 5*max(d, -d) < counted {
		return nil
	}
	sample, percent := "", 100.0
	if now > countSample {
		percent = 100 * countSample / float64(now)
		sample = fmt.Sprintf(" tablesample system (%f) repeatable (1)", percent)
	}
	err = pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue(m.s.sql(`delete from $S.word`))
		b.Queue(m.s.sql(`insert into $S.word select word, ceil(ndoc * 100 / $2::float8) from ts_stat($1)`), m.s.sql("select tsv from $S.content")+sample, percent)
		b.Queue(m.s.sql(`insert into $S.word_count (contents, mean_tokens) select $1, coalesce((select avg(tokens) from $S.content`+sample+`), 1)
			on conflict (one) do update set contents = excluded.contents, mean_tokens = excluded.mean_tokens, counted_at = now()`), now)
		return tx.SendBatch(ctx, &b).Close()
	})
	if err != nil {
		return fmt.Errorf("count the words of schema %s: %w", m.s.cfg.Schema, err)
	}
	return nil
}

// Collect deletes texts that no document has any more, with their vectors, and the versions of documents that
// were deleted long ago. It returns the number of texts.
func (m *Maintainer) Collect(ctx context.Context) (int64, error) {
	var total int64
	rows, err := m.conn.Query(ctx, m.s.sql(`select id from $S.spec where to_regclass(quote_ident($1) || '.emb_' || id) is not null order by id`), m.s.cfg.Schema)
	if err != nil {
		return 0, fmt.Errorf("look for models: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return 0, fmt.Errorf("look for models: %w", err)
	}
	vectors := ""
	for _, id := range ids {
		vectors += m.s.sql(fmt.Sprintf(`, v%[1]d as (delete from $S.emb_%[1]d where hash in (select hash from gone))`, id))
	}
	for {
		// A text that a document takes up at this moment is held by its foreign key: the statement fails, and the next round does it.
		tag, err := m.conn.Exec(ctx, m.s.sql(`with gone as (delete from $S.content where hash in (select hash from $S.content x
			where created_at < now() - $1::interval and not exists (select from $S.chunk c where c.hash = x.hash) order by hash limit 2000 for update skip locked) returning hash)`+
			vectors+` select from gone`), m.s.cfg.Grace)
		if code := state(err); code == "23503" || code == "40P01" {
			return total, nil
		}
		if err != nil {
			return total, fmt.Errorf("collect unused texts: %w", err)
		}
		if total += tag.RowsAffected(); tag.RowsAffected() < 2000 {
			break
		}
	}
	_, err = m.conn.Exec(ctx, m.s.sql(`delete from $S.doc where state = 'deleted' and not acl_own and changed_at < now() - $1::interval`), m.s.cfg.Keep)
	if err != nil {
		return total, fmt.Errorf("forget deleted documents: %w", err)
	}
	return total, nil
}

// Index builds the HNSW index of our vectors if there are enough of them: inserting into an index costs six
// times what building it afterwards does. Writers and readers go on meanwhile.
func (m *Maintainer) Index(ctx context.Context) (built bool, err error) {
	s := m.s
	if s.cfg.IndexFrom < 0 || s.spec == 0 {
		return false, nil
	}
	name := s.hnsw()
	var exists, valid bool
	err = m.conn.QueryRow(ctx, `select true, indisvalid from pg_index where indexrelid = to_regclass($1)`, s.q(name)).Scan(&exists, &valid)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return false, fmt.Errorf("look for the index of vectors: %w", err)
	}
	if valid {
		return false, nil
	}
	var n int64
	if err := m.conn.QueryRow(ctx, fmt.Sprintf(`select count(*) from (select from %s limit %d) x`, s.emb(), s.cfg.IndexFrom)).Scan(&n); err != nil {
		return false, fmt.Errorf("count vectors: %w", err)
	}
	if n < int64(s.cfg.IndexFrom) {
		return false, nil
	}
	if exists { // a build that was killed left it; nobody builds it now, for the maintenance is ours
		if _, err := m.conn.Exec(ctx, `drop index concurrently if exists `+s.q(name)); err != nil {
			return false, fmt.Errorf("drop an unfinished index: %w", err)
		}
	}
	if err := m.building(ctx, s.sql(fmt.Sprintf(`create index concurrently %s on %s using hnsw (e $V.halfvec_cosine_ops)`, pgx.Identifier{name}.Sanitize(), s.emb()))); err != nil {
		return false, fmt.Errorf("build the index of vectors: %w", err)
	}
	return true, m.noteBuilt(ctx)
}

// graphMegabytes estimates what the graph takes in memory: a build that does not fit is four times slower.
func (m *Maintainer) graphMegabytes(ctx context.Context) int64 {
	var bytes int64
	err := m.conn.QueryRow(ctx, fmt.Sprintf(`select count(*) * (%d * 2 + 250) from %s`, m.s.cfg.Spec.Dims, m.s.emb())).Scan(&bytes)
	if err != nil {
		return 256 // the build says what is wrong
	}
	return min(max(64, bytes>>20*5/4+16), 2047)
}

// Counts says what the schema holds.
type Counts struct {
	Documents, Chunks, Texts, Vectors int64
	Orphans                           int64 // chunks without a vector in our space
}

// Count counts everything. It is for tests and people.
func (s *Store) Count(ctx context.Context) (c Counts, err error) {
	err = s.pool.QueryRow(ctx, s.sql(fmt.Sprintf(`select (select count(*) from $S.doc where state = 'live'), (select count(*) from $S.chunk),
		(select count(*) from $S.content), (select count(*) from %[1]s), (select count(*) from $S.chunk c where not exists (select from %[1]s e where e.hash = c.hash))`, s.emb()))).
		Scan(&c.Documents, &c.Chunks, &c.Texts, &c.Vectors, &c.Orphans)
	if err != nil {
		return c, fmt.Errorf("count the documents of schema %s: %w", s.cfg.Schema, err)
	}
	return c, nil
}
