package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// A transaction holds at most this many documents or chunks: one commit for each tiny document would cost more
// than the document.
const (
	groupDocuments = 50
	groupChunks    = 500
)

// Op says what happens to a document.
type Op uint8

// What may happen to a document.
const (
	Replace Op = 1 + iota // its content, with all its chunks
	Touch                 // its properties or permissions; its chunks stay
	Remove                // it is gone
)

// Document is one change of one document.
type Document struct {
	Op      Op
	Tenant  string
	Stream  string
	ID      string
	Part    int32
	Version Version

	// Nil keeps what is stored.
	Title, URI, Mime *string
	Meta             []byte // JSON object
	Fields           []byte // JSON object: the text fields of a record, for its next partial update
	ACL              *ACL   // ignored where a permissions stream has spoken

	ContentSHA []byte // of the content that the chunks come from
	Chunker    []byte // what made the chunks
	Chunks     []Chunk
	Problem    string // why a new content could not be read, the old chunks stay; Touch only
}

// Chunk is one piece of a document.
type Chunk struct {
	Hash              [32]byte
	Head, Body, Whole string // Whole is what is embedded if it is not Head + Body
	Tokens            int
	Page, Start, End  int
	Heading           []string
	Vector            []float32 // nil: it is stored already
}

// Outcome says what became of a document.
type Outcome uint8

// What may become of a document.
const (
	Written    Outcome = 1 + iota
	Stale              // a newer version is stored
	Unstorable         // Postgres can never take it
	NoVector           // a vector that was stored is gone: embed again
)

// Known is what the store knows of a document.
type Known struct {
	Version    Version
	Live       bool
	ContentSHA []byte
	Chunker    []byte
	Fields     []byte
	Problem    bool
}

// Lookup returns what is known of the documents with the given keys. fields asks for Known.Fields too.
func (s *Store) Lookup(ctx context.Context, keys [][]byte, fields bool) (map[[32]byte]Known, error) {
	rows, err := s.pool.Query(ctx, s.sql(`select key, version, state = 'live', content_sha, chunker, case when $2 then fields end, problem is not null
		from $S.doc where key = any($1)`), keys, fields)
	if err != nil {
		return nil, fmt.Errorf("look up %d documents: %w", len(keys), err)
	}
	known := make(map[[32]byte]Known, len(keys))
	for rows.Next() {
		var key, version []byte
		var k Known
		if err := rows.Scan(&key, &version, &k.Live, &k.ContentSHA, &k.Chunker, &k.Fields, &k.Problem); err != nil {
			rows.Close()
			return nil, fmt.Errorf("look up %d documents: %w", len(keys), err)
		}
		copy(k.Version[:], version)
		known[[32]byte(key)] = k
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look up %d documents: %w", len(keys), err)
	}
	return known, nil
}

// Write stores documents, each whole or not at all, and returns what became of them. No key may occur twice.
func (s *Store) Write(ctx context.Context, docs []*Document) ([]Outcome, error) {
	out := make([]Outcome, len(docs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, s.cfg.Connections-1))
	for from := 0; from < len(docs); {
		to, chunks := from, 0
		for to < len(docs) && to-from < groupDocuments && (to == from || chunks+len(docs[to].Chunks) <= groupChunks) {
			chunks += len(docs[to].Chunks)
			to++
		}
		group, result := docs[from:to], out[from:to]
		g.Go(func() error { return s.writeGroup(ctx, group, result) })
		from = to
	}
	return out, g.Wait()
}

// writeGroup stores documents in one transaction, or in smaller ones if a value of one of them is refused.
func (s *Store) writeGroup(ctx context.Context, docs []*Document, out []Outcome) error {
	for attempt := 0; ; attempt++ {
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			return errors.Join(s.writeTx(ctx, tx, docs, out), s.at("documents before commit"))
		})
		if err == nil {
			err = s.at("documents after commit")
		}
		code := state(err)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errNoVector), code == "40P01", code == "40001", code == "23503":
			// A collection of unused texts, or another process, came between.
			if attempt < 5 && !errors.Is(err, errNoVector) {
				continue
			}
			if errors.Is(err, errNoVector) {
				for i := range out {
					out[i] = NoVector
				}
				return nil
			}
		case len(code) == 5 && (code[:2] == "22" || code[:2] == "54"):
			if len(docs) == 1 {
				out[0] = Unstorable
				return nil
			}
			half := len(docs) / 2
			if err := s.writeGroup(ctx, docs[:half], out[:half]); err != nil {
				return err
			}
			return s.writeGroup(ctx, docs[half:], out[half:])
		}
		return fmt.Errorf("store %d documents: %w", len(docs), plain(err))
	}
}

var errNoVector = errors.New("a vector is missing")

// row is a document on its way into its row.
type row struct {
	doc *Document
	key []byte
	pk  int64
	at  int // its place in the group
}

// writeTx is the transaction of one group.
func (s *Store) writeTx(ctx context.Context, tx pgx.Tx, docs []*Document, out []Outcome) error {
	rows, err := s.claim(ctx, tx, docs, out)
	if err != nil || len(rows) == 0 {
		return err
	}
	if err := errors.Join(s.putContents(ctx, tx, rows), s.at("texts written")); err != nil {
		return err
	}
	var b pgx.Batch
	s.queueChunks(&b, rows)
	s.queueDocs(&b, rows)
	return tx.SendBatch(ctx, &b).Close()
}

// claim locks the rows of the documents, makes those that are missing, and returns the documents whose version
// is not older than what is stored.
func (s *Store) claim(ctx context.Context, tx pgx.Tx, docs []*Document, out []Outcome) ([]row, error) {
	rows := make([]row, len(docs))
	for i, d := range docs {
		k := Key(d.Tenant, d.Stream, d.ID)
		rows[i] = row{doc: d, key: k[:], at: i}
	}
	// Rows are locked in one order everywhere: no two transactions wait for each other.
	slices.SortFunc(rows, func(a, b row) int { return bytes.Compare(a.key, b.key) })
	n := len(rows)
	keys, tenants, streams, ids, parts := make([][]byte, n), make([]string, n), make([]string, n), make([]string, n), make([]int32, n)
	for i, r := range rows {
		keys[i], tenants[i], streams[i], ids[i], parts[i] = r.key, clean(r.doc.Tenant), clean(r.doc.Stream), clean(r.doc.ID), r.doc.Part
	}
	var b pgx.Batch
	b.Queue(s.sql(`insert into $S.doc (key, tenant, stream, id, part, version, state)
		select k, t, s, i, p, '', 'stub' from unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::int[]) u (k, t, s, i, p) order by k
		on conflict (key) do nothing`), keys, tenants, streams, ids, parts)
	b.Queue(s.sql(`select key, pk, version from $S.doc where key = any($1) order by key for update`), keys)
	results := tx.SendBatch(ctx, &b)
	if _, err := results.Exec(); err != nil {
		_ = results.Close()
		return nil, err
	}
	found, err := results.Query()
	if err != nil {
		_ = results.Close()
		return nil, err
	}
	var fresh []row
	i := 0
	for ; found.Next(); i++ {
		var key, version []byte
		if err := found.Scan(&key, &rows[i].pk, &version); err != nil {
			_ = results.Close()
			return nil, err
		}
		// Invariant 11: whoever is late, here a zombie or a replay, changes nothing.
		if bytes.Compare(version, rows[i].doc.Version[:]) > 0 {
			out[rows[i].at] = Stale
			continue
		}
		out[rows[i].at] = Written
		fresh = append(fresh, rows[i])
	}
	if err := errors.Join(found.Err(), results.Close()); err != nil {
		return nil, err
	}
	if i != n {
		return nil, fmt.Errorf("%d of %d documents have rows", i, n)
	}
	return fresh, nil
}

// queueChunks replaces the chunks of the documents; rows that stay the same are not touched.
func (s *Store) queueChunks(b *pgx.Batch, rows []row) {
	var pks []int64
	var counts []int32
	var owner []int64
	var ord, page, start, end []int32
	var hash [][]byte
	var heading []string // JSON: Postgres has no arrays of unequal arrays
	for _, r := range rows {
		if r.doc.Op == Touch {
			continue
		}
		pks, counts = append(pks, r.pk), append(counts, int32(len(r.doc.Chunks)))
		for i := range r.doc.Chunks {
			c := &r.doc.Chunks[i]
			owner, ord = append(owner, r.pk), append(ord, int32(i))
			page, start, end = append(page, int32(c.Page)), append(start, int32(c.Start)), append(end, int32(c.End))
			hash, heading = append(hash, c.Hash[:]), append(heading, jsonStrings(c.Heading))
		}
	}
	if len(pks) > 0 {
		b.Queue(s.sql(`delete from $S.chunk c using unnest($1::bigint[], $2::int[]) u (pk, n) where c.doc_pk = u.pk and c.ord >= u.n`), pks, counts)
	}
	if len(owner) > 0 {
		b.Queue(s.sql(`insert into $S.chunk as c (doc_pk, ord, hash, page, start_at, end_at, heading)
			select pk, o, h, p, s, e, array(select jsonb_array_elements_text(g::jsonb))
			from unnest($1::bigint[], $2::int[], $3::bytea[], $4::int[], $5::int[], $6::int[], $7::text[]) u (pk, o, h, p, s, e, g)
			on conflict (doc_pk, ord) do update set hash = excluded.hash, page = excluded.page, start_at = excluded.start_at,
				end_at = excluded.end_at, heading = excluded.heading
			where (c.hash, c.page, c.start_at, c.end_at, c.heading) is distinct from
				(excluded.hash, excluded.page, excluded.start_at, excluded.end_at, excluded.heading)`),
			owner, ord, hash, page, start, end, heading)
	}
}

// queueDocs brings the rows of the documents up to date.
func (s *Store) queueDocs(b *pgx.Batch, rows []row) {
	for _, r := range rows {
		d := r.doc
		if d.Op == Remove {
			b.Queue(s.sql(`update $S.doc set version = $2, part = $3, state = 'deleted', content_sha = null, chunker = null, title = null, uri = null,
				mime = null, meta = null, fields = null, problem = null, changed_at = now(),
				allow = case when acl_own then allow end, deny = case when acl_own then deny else '{}'::text[] end, deny_of = case when acl_own then deny_of else '{}'::text[] end
				where pk = $1`), r.pk, d.Version[:], d.Part)
			continue
		}
		var allow, deny, denyOf []string
		if d.ACL != nil {
			allow, deny, denyOf = d.ACL.columns()
		}
		b.Queue(s.sql(`update $S.doc set version = $2, part = $3, state = case when $4::boolean then 'live' else state end,
			title = coalesce($5, title), uri = coalesce($6, uri), mime = coalesce($7, mime), meta = coalesce($8::jsonb, meta), fields = coalesce($9::jsonb, fields),
			content_sha = case when $4 then $10::bytea else content_sha end, chunker = case when $4 then $11::bytea else chunker end,
			problem = case when $4 then null else coalesce($12::text, problem) end, changed_at = now(),
			allow = case when $13::boolean and not acl_own then $14::text[] else allow end, deny = case when $13::boolean and not acl_own then coalesce($15::text[], '{}') else deny end,
			deny_of = case when $13::boolean and not acl_own then coalesce($16::text[], '{}') else deny_of end
			where pk = $1`), r.pk, d.Version[:], d.Part, d.Op == Replace, cleanPtr(d.Title), cleanPtr(d.URI), cleanPtr(d.Mime),
			cleanJSON(d.Meta), cleanJSON(d.Fields), d.ContentSHA, d.Chunker, nilIfEmpty(d.Problem), d.ACL != nil, allow, deny, denyOf)
	}
}
