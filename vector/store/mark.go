package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/vector/embed"
)

// Marks returns the marks of the partitions of a topic.
func (s *Store) Marks(ctx context.Context, owner, topic string, parts []int32) (map[int32]record.Mark, error) {
	rows, err := s.pool.Query(ctx, s.sql(`select part, mark from $S.mark where owner = $1 and topic = $2 and part = any($3)`), owner, topic, parts)
	if err != nil {
		return nil, fmt.Errorf("read the marks of %s: %w", topic, err)
	}
	marks := map[int32]record.Mark{}
	var part int32
	var raw []byte
	if _, err := pgx.ForEachRow(rows, []any{&part, &raw}, func() error {
		var m record.Mark
		if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		marks[part] = m
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the marks of %s: %w", topic, err)
	}
	return marks, nil
}

// Spent is what the vectors since the last mark have cost.
type Spent struct {
	embed.Usage
	Reused int64 // vectors that were there already
}

// Advance moves marks in one transaction. from is what each must be before; a partition that is missing there
// must have none. If one is not, another process has moved it: record.ErrFenced, and nothing is changed.
func (s *Store) Advance(ctx context.Context, owner, topic string, from, to map[int32]record.Mark, spent Spent) error {
	parts := make([]int32, 0, len(to))
	for p := range to {
		parts = append(parts, p)
	}
	slices.Sort(parts)
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		for _, p := range parts {
			raw, err := json.Marshal(to[p])
			if err != nil {
				return err
			}
			query, args := s.sql(`insert into $S.mark (owner, topic, part, next, mark) values ($1, $2, $3, $4, $5) on conflict do nothing`),
				[]any{owner, topic, p, to[p].Next, string(raw)}
			if was, ok := from[p]; ok {
				query = s.sql(`update $S.mark set next = $4, mark = $5, changed_at = now() where owner = $1 and topic = $2 and part = $3 and next = $6 and mark->>'topic_id' = $7`)
				args = append(args, was.Next, was.TopicID)
			}
			tag, err := tx.Exec(ctx, query, args...)
			if err != nil {
				return err
			}
			if tag.RowsAffected() != 1 {
				return fmt.Errorf("partition %d: %w", p, record.ErrFenced) // Invariant 11
			}
		}
		if err := s.at("marks before commit"); err != nil || spent == (Spent{}) {
			return err
		}
		_, err := tx.Exec(ctx, s.sql(`insert into $S.usage as u values (current_date, $1, $2, $3, $4, $5) on conflict (day, spec) do update
			set calls = u.calls + excluded.calls, inputs = u.inputs + excluded.inputs, tokens = u.tokens + excluded.tokens, reused = u.reused + excluded.reused`),
			s.spec, spent.Calls, spent.Inputs, spent.Tokens, spent.Reused)
		return err
	})
	if err == nil {
		err = s.at("marks after commit")
	}
	if err != nil {
		return fmt.Errorf("move the marks of %s: %w", topic, err)
	}
	return nil
}

// Sweep removes the documents of a stream's partition that are older than the given version: those that a
// truncate ends, or that a new backfill did not bring again.
func (s *Store) Sweep(ctx context.Context, tenant, stream string, part int32, before, version Version) (int64, error) {
	var total int64
	for {
		var n int64
		err := s.again(ctx, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, s.sql(`with old as (select pk from $S.doc where stream = $1 and part = $2 and tenant = $3 and version < $4 and version <> '' and state <> 'deleted' order by key limit 1000 for update),
				gone as (delete from $S.chunk where doc_pk in (select pk from old))
				update $S.doc set state = 'deleted', version = $5, content_sha = null, chunker = null, title = null, uri = null, mime = null, meta = null, fields = null,
					problem = null, allow = case when acl_own then allow end, changed_at = now() where pk in (select pk from old)`),
				clean(stream), part, clean(tenant), before[:], version[:])
			n = tag.RowsAffected()
			return err
		})
		if err != nil {
			return total, fmt.Errorf("remove the old documents of %s: %w", stream, err)
		}
		if total += n; n == 0 {
			return total, nil
		}
	}
}
