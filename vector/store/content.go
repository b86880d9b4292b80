package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/pgvector/pgvector-go"
)

// putContents stores the texts and vectors that are new, in the order of their hashes: transactions that share
// texts do not wait for each other in a circle.
func (s *Store) putContents(ctx context.Context, tx pgx.Tx, rows []row) error {
	byHash := map[[32]byte]*Chunk{}
	for _, r := range rows {
		for i := range r.doc.Chunks {
			c := &r.doc.Chunks[i]
			if old := byHash[c.Hash]; old == nil || old.Vector == nil {
				byHash[c.Hash] = c
			}
		}
	}
	if len(byHash) == 0 {
		return nil
	}
	chunks := make([]*Chunk, 0, len(byHash))
	for _, c := range byHash {
		chunks = append(chunks, c)
	}
	slices.SortFunc(chunks, func(a, b *Chunk) int { return bytes.Compare(a.Hash[:], b.Hash[:]) })
	var hashes, oldHashes [][]byte
	var heads, bodies, texts []string
	var wholes []*string
	var tokens []int32
	var vectors []pgvector.HalfVector
	for _, c := range chunks {
		if c.Vector == nil {
			oldHashes = append(oldHashes, c.Hash[:])
			continue
		}
		head, body := clean(c.Head), clean(c.Body)
		hashes, heads, bodies, tokens = append(hashes, c.Hash[:]), append(heads, head), append(bodies, body), append(tokens, int32(c.Tokens))
		vectors = append(vectors, pgvector.NewHalfVector(c.Vector))
		if c.Whole == "" {
			wholes, texts = append(wholes, nil), append(texts, head+body)
		} else {
			w := clean(c.Whole)
			wholes, texts = append(wholes, &w), append(texts, w)
		}
	}
	var b pgx.Batch
	if len(hashes) > 0 {
		tsvs, err := s.tsvectors(ctx, tx, texts)
		if err != nil {
			return err
		}
		b.Queue(s.sql(`insert into $S.content (hash, head, body, whole, tokens, tsv)
			select h, a, b, w, n, v::tsvector from unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::int[], $6::text[]) u (h, a, b, w, n, v)
			where not exists (select from $S.content c where c.hash = h) order by h on conflict do nothing`), hashes, heads, bodies, wholes, tokens, tsvs)
		b.Queue(s.sql(fmt.Sprintf(`insert into %s (hash, e) select h, v from unnest($1::bytea[], $2::$V.halfvec[]) u (h, v) order by h on conflict do nothing`, s.emb())),
			hashes, vectors)
	}
	missing := false
	if len(oldHashes) > 0 {
		// Locked, a text cannot be collected before its chunk is there; then its vector is there too, or never was.
		b.Queue(s.sql(`select from $S.content where hash = any($1) order by hash for key share`), oldHashes)
		b.Queue(s.sql(fmt.Sprintf(`select exists (select from unnest($1::bytea[]) h where not exists (select from %s e where e.hash = h) or not exists (select from $S.content x where x.hash = h))`, s.emb())), oldHashes).
			QueryRow(func(row pgx.Row) error { return row.Scan(&missing) })
	}
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return err
	}
	if missing {
		return errNoVector
	}
	return nil
}

// clean makes text that Postgres takes: UTF-8 without NUL.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

func cleanPtr(s *string) *string {
	if s == nil {
		return nil
	}
	c := clean(*s)
	return &c
}

func nilIfEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// cleanJSON makes JSON that jsonb takes: no lone surrogates, no NUL. What is no JSON at all is left out.
func cleanJSON(raw []byte) *string {
	if len(raw) == 0 {
		return nil
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return nil
	}
	out, err := json.Marshal(cleanValue(v))
	if err != nil {
		return nil
	}
	s := string(out)
	return &s
}

// cleanValue cleans the texts of a decoded JSON value.
func cleanValue(v any) any {
	switch x := v.(type) {
	case string:
		return clean(x)
	case []any:
		for i := range x {
			x[i] = cleanValue(x[i])
		}
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, e := range x {
			out[clean(k)] = cleanValue(e)
		}
		return out
	}
	return v
}

// jsonStrings returns a JSON array of ss.
func jsonStrings(ss []string) string {
	if len(ss) == 0 {
		return "[]"
	}
	c := make([]string, len(ss))
	for i, s := range ss {
		c[i] = clean(s)
	}
	b, err := json.Marshal(c)
	if err != nil {
		return "[]"
	}
	return string(b)
}
