package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// policies let a reader see what the principals of the setting sluice.principals may see: documents, their chunks,
// and texts and vectors that such a chunk has. Whom the setting names is for the service to say that sets it.
const policies = `
create or replace function $S.reader() returns text[] language sql stable security definer set search_path = pg_catalog as $f$
  select $S.principals_of(string_to_array(nullif(current_setting('sluice.principals', true), ''), ','))
$f$;
create or replace function $S.reader_fresh() returns text[] language sql stable security definer set search_path = pg_catalog as $f$
  select $S.fresh_identities()
$f$;
alter table $S.doc enable row level security;
alter table $S.chunk enable row level security;
alter table $S.content enable row level security;
drop policy if exists sluice_reader on $S.doc;
drop policy if exists sluice_reader on $S.chunk;
drop policy if exists sluice_reader on $S.content;
create policy sluice_reader on $S.doc for select using (state = 'live' and allow && (select $S.reader()) and not deny && (select $S.reader())
  and deny_of <@ (select $S.reader_fresh()));
create policy sluice_reader on $S.chunk for select using (exists (select from $S.doc d where d.pk = doc_pk));
create policy sluice_reader on $S.content for select using (exists (select from $S.chunk c where c.hash = content.hash));`

// ProtectRows adds row-level security to the tables: roles other than their owner see what the principals of the
// setting sluice.principals may see, user:a,user:b; without it, what everybody may. The owner's own work goes on
// as before.
func (s *Store) ProtectRows(ctx context.Context) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1, hashtext($2))`, lockMigrate, s.cfg.Schema); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, s.sql(`select id from $S.spec where to_regclass(quote_ident($1) || '.emb_' || id) is not null order by id`), s.cfg.Schema)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			return err
		}
		sql := policies
		for _, id := range ids {
			sql += fmt.Sprintf(`
alter table $S.emb_%[1]d enable row level security;
drop policy if exists sluice_reader on $S.emb_%[1]d;
create policy sluice_reader on $S.emb_%[1]d for select using (exists (select from $S.chunk c where c.hash = emb_%[1]d.hash));`, id)
		}
		_, err = tx.Exec(ctx, s.sql(sql))
		return err
	})
	if err != nil {
		return fmt.Errorf("protect the rows of schema %s: %w", s.cfg.Schema, err)
	}
	return nil
}
