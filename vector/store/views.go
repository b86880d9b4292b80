package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/record"
)

// Views are the documents in the shapes of other programs. They show what the principals of the setting
// sluice.principals may see, user:a,user:b; without it, what everybody may.
type Views struct {
	Airbyte string              // schema of the five columns of Airbyte's destination, a view a stream; empty = none
	Streams []record.StreamName // of documents
}

// seen joins a chunk with all that a view needs, for those who may see it.
const seen = `from $S.doc d join $S.chunk c on c.doc_pk = d.pk join $S.content x on x.hash = c.hash join %s e on e.hash = c.hash
	cross join lateral (select $S.principals_of(string_to_array(nullif(current_setting('sluice.principals', true), ''), ',')) as are) p
	where d.state = 'live' and d.allow && p.are and not d.deny && p.are and d.deny_of <@ $S.fresh_identities()`

// CreateViews makes the views that LangChain's PGVector and LlamaIndex's PGVectorStore read beside the tables, and
// those of v, on the active vectors.
func (s *Store) CreateViews(ctx context.Context, v Views) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1, hashtext($2))`, lockMigrate, s.cfg.Schema); err != nil {
			return err
		}
		var id, dims int
		if err := tx.QueryRow(ctx, s.sql(`select id, dims from $S.spec where state = 'active'`)).Scan(&id, &dims); err != nil {
			return err
		}
		from := fmt.Sprintf(seen, s.q(fmt.Sprintf("emb_%d", id)))
		columns := fmt.Sprintf("e.e::$V.vector(%d)", dims)
		statements := []string{
			`drop view if exists $S.langchain_pg_collection, $S.langchain_pg_embedding, $S.data_documents`,
			`create view $S.langchain_pg_collection as select md5(stream)::uuid as uuid, stream as name, '{}'::json as cmetadata from (select distinct stream from $S.doc where state = 'live') s`,
			`create view $S.langchain_pg_embedding as select d.pk || ':' || c.ord as id, md5(d.stream)::uuid as collection_id, ` + columns + ` as embedding, x.body as document,
				coalesce(d.meta, '{}') || jsonb_build_object('source', d.id, 'title', d.title, 'page', c.page, 'heading', c.heading) as cmetadata ` + from,
			`create view $S.data_documents as select (d.pk << 20) + c.ord as id, x.body as text,
				(coalesce(d.meta, '{}') || jsonb_build_object('source', d.id, 'title', d.title, 'page', c.page, 'heading', c.heading, 'ref_doc_id', d.stream || '/' || d.id))::json as metadata_,
				d.pk || ':' || c.ord as node_id, ` + columns + ` as embedding ` + from,
		}
		if v.Airbyte != "" {
			statements = append(statements, `create schema if not exists `+pgx.Identifier{v.Airbyte}.Sanitize())
			for _, n := range v.Streams {
				name := pgx.Identifier{v.Airbyte, strings.ToLower(n.Name)}.Sanitize()
				stream := "'" + strings.ReplaceAll(n.String(), "'", "''") + "'"
				local := "'" + strings.ReplaceAll(n.Name, "'", "''") + "'"
				statements = append(statements, `drop view if exists `+name,
					`create view `+name+` as select 'Stream_' || `+local+` || '_Key_' || d.id as document_id, c.ord::text as chunk_id,
					(coalesce(d.meta, '{}') || jsonb_build_object('_ab_stream', `+local+`, '_ab_record_id', 'Stream_' || `+local+` || '_Key_' || d.id))::json as metadata,
					x.body as document_content, `+columns+` as embedding `+from+` and d.stream = `+stream)
			}
		}
		for _, sql := range statements {
			if _, err := tx.Exec(ctx, s.sql(sql)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("create the views of schema %s: %w", s.cfg.Schema, err)
	}
	return nil
}
