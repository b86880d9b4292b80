// Package search answers questions from the stored documents, with citations, and only from those that the
// caller may see.
package search

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgvector/pgvector-go"

	"github.com/sluice-data/sluice/vector/embed"
)

// Bounds of one question.
const (
	maxResults  = 100
	maxQuestion = 32 << 10
)

// Config says where the documents are. Zero values are defaults.
type Config struct {
	URL         string
	Schema      string         // default rag
	Embedder    embed.Embedder // of the questions: the one of the documents; nil: words only
	Connections int            // default 4
	Timeout     time.Duration  // of one question; default 30 s
}

// Searcher answers questions. It only reads.
type Searcher struct {
	cfg    Config
	schema string
	pool   *pgxpool.Pool
	client *embed.Client
}

// Open connects.
func Open(ctx context.Context, cfg Config) (*Searcher, error) {
	if cfg.Schema == "" {
		cfg.Schema = "rag"
	}
	if cfg.Connections <= 0 {
		cfg.Connections = 4
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, errors.New("the address of the vector database is not one: postgres://user:password@host:port/database")
	}
	pc.MaxConns = int32(cfg.Connections)
	pc.ConnConfig.RuntimeParams["application_name"] = "sluice search"
	pc.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("connect to the vector database: %w", err)
	}
	s := &Searcher{cfg: cfg, schema: pgx.Identifier{cfg.Schema}.Sanitize(), pool: pool}
	if cfg.Embedder != nil {
		s.client = embed.NewClient(cfg.Embedder)
	}
	var exists bool
	if err := pool.QueryRow(ctx, `select to_regclass($1) is not null`, pgx.Identifier{cfg.Schema, "doc"}.Sanitize()).Scan(&exists); err != nil {
		pool.Close()
		return nil, fmt.Errorf("connect to the vector database: %w", err)
	}
	if !exists {
		pool.Close()
		return nil, fmt.Errorf("schema %s holds no documents yet: run the sink first", cfg.Schema)
	}
	return s, nil
}

// Close ends the connections.
func (s *Searcher) Close() { s.pool.Close() }

// Question is what is asked, and by whom.
type Question struct {
	Text    string
	As      []string        // who asks: users; groups are looked up. Empty: only what is public
	Results int             // default 10, at most 100
	Filter  json.RawMessage // a JSON object that the metadata must contain
	Tenant  string
	Streams []string // empty = all
}

// Hit is one passage that answers, with where it stands.
type Hit struct {
	Stream     string          `json:"stream"`
	ID         string          `json:"id"` // of the document: its path or key
	Chunk      int             `json:"chunk"`
	Title      string          `json:"title,omitempty"`
	URI        string          `json:"uri,omitempty"`
	Page       int             `json:"page,omitempty"`
	Heading    []string        `json:"heading,omitempty"`
	Start      int             `json:"start"` // in the document's text, bytes
	End        int             `json:"end"`
	Text       string          `json:"text"`
	Score      float64         `json:"score"`
	Words      int             `json:"words_rank,omitempty"`  // place by words; 0 = not found so
	Vector     int             `json:"vector_rank,omitempty"` // place by vectors
	Similarity float64         `json:"similarity,omitempty"`
	Metadata   json.RawMessage `json:"metadata,omitempty"`
}

// Citation says where the passage stands.
func (h Hit) Citation() string {
	c := h.ID
	if h.Page > 0 {
		c += fmt.Sprintf(", page %d", h.Page)
	}
	if len(h.Heading) > 0 {
		c += ", " + strings.Join(h.Heading, " › ")
	}
	return fmt.Sprintf("%s, bytes %d–%d", c, h.Start, h.End)
}

// Answer is the passages, best first.
type Answer struct {
	Hits []Hit  `json:"hits"`
	Note string `json:"note,omitempty"` // why the answer may be worse than it could be
}

// Users returns the principals of names, which are user:NAME or NAME. A group is no caller: who is in it is for
// the groups to say.
func Users(names ...string) ([]string, error) {
	var as []string
	for _, n := range names {
		kind, name, found := strings.Cut(n, ":")
		if !found {
			kind, name = "user", n
		}
		if kind != "user" || name == "" {
			return nil, fmt.Errorf("%q is no user: want NAME or user:NAME", n)
		}
		as = append(as, "user:"+name)
	}
	return as, nil
}

// Search answers q.
func (s *Searcher) Search(ctx context.Context, q Question) (*Answer, error) {
	if strings.TrimSpace(q.Text) == "" {
		return nil, errors.New("the question is empty")
	}
	if len(q.Text) > maxQuestion {
		return nil, fmt.Errorf("the question is longer than %d bytes", maxQuestion)
	}
	if q.Results <= 0 {
		q.Results = 10
	}
	q.Results = min(q.Results, maxResults)
	var filter *string
	if len(q.Filter) > 0 {
		var object map[string]any
		if err := json.Unmarshal(q.Filter, &object); err != nil || object == nil {
			return nil, errors.New("the filter is no JSON object")
		}
		f := string(q.Filter)
		filter = &f
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	vector, note, err := s.vector(ctx, q.Text)
	if err != nil {
		return nil, err
	}
	if q.As == nil {
		q.As = []string{}
	}
	text := strings.ReplaceAll(strings.ToValidUTF8(q.Text, " "), "\x00", " ")
	rows, err := s.pool.Query(ctx, `select stream, id, ord, coalesce(title, ''), coalesce(uri, ''), page, heading, start_at, end_at, body, score,
		coalesce(lexical_rank, 0), coalesce(vector_rank, 0), coalesce(similarity, 0), metadata
		from `+s.schema+`.search($1, $2, $3, $4, $5::jsonb, $6, $7)`, text, vector, q.As, q.Results, filter, q.Tenant, q.Streams)
	if err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	a := &Answer{Hits: []Hit{}, Note: note}
	for rows.Next() {
		var h Hit
		if err := rows.Scan(&h.Stream, &h.ID, &h.Chunk, &h.Title, &h.URI, &h.Page, &h.Heading, &h.Start, &h.End, &h.Text, &h.Score,
			&h.Words, &h.Vector, &h.Similarity, &h.Metadata); err != nil {
			rows.Close()
			return nil, fmt.Errorf("search: %w", err)
		}
		a.Hits = append(a.Hits, h)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	return a, nil
}

// vector embeds the question in the space of the stored vectors, if that can be done. An embedding service that
// is away leaves the words to search by.
func (s *Searcher) vector(ctx context.Context, text string) (vector *string, note string, err error) {
	var provider, model string
	var dims int
	var fingerprint []byte
	err = s.pool.QueryRow(ctx, `select provider, model, dims, fingerprint from `+s.schema+`.spec where state = 'active'`).Scan(&provider, &model, &dims, &fingerprint)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, "no vectors are stored yet: found by words only", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the model of schema %s: %w", s.cfg.Schema, err)
	}
	client := s.client
	if provider == "hash" { // it needs no service
		client = embed.NewClient(embed.NewHash(dims))
	}
	if client == nil {
		return nil, "no embedding service is configured: found by words only", nil
	}
	if fp := client.Spec().Fingerprint(); string(fp[:]) != string(fingerprint) {
		return nil, fmt.Sprintf("the stored vectors are of %s %s, the configured ones are not built yet: found by words only", provider, model), nil
	}
	v, err := client.Query(ctx, text)
	if err != nil {
		if ctx.Err() != nil {
			return nil, "", fmt.Errorf("search: %w", ctx.Err())
		}
		return nil, "the embedding service does not answer: found by words only", nil
	}
	out := pgvector.NewVector(v).String()
	return &out, "", nil
}

// Document is the text of a document, chunk by chunk.
type Document struct {
	Stream   string          `json:"stream"`
	ID       string          `json:"id"`
	Title    string          `json:"title,omitempty"`
	URI      string          `json:"uri,omitempty"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
	Passages []Passage       `json:"passages"`
}

// Passage is one chunk of a document.
type Passage struct {
	Chunk   int      `json:"chunk"`
	Page    int      `json:"page,omitempty"`
	Heading []string `json:"heading,omitempty"`
	Start   int      `json:"start"`
	End     int      `json:"end"`
	Text    string   `json:"text"`
}

// ErrNotFound says that there is no such document, or none for the caller: the two look the same.
var ErrNotFound = errors.New("no such document")

// Fetch returns a document that the caller may see.
func (s *Searcher) Fetch(ctx context.Context, stream, id, tenant string, as []string) (*Document, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if as == nil {
		as = []string{}
	}
	clean := func(s string) string { return strings.ReplaceAll(strings.ToValidUTF8(s, " "), "\x00", " ") }
	rows, err := s.pool.Query(ctx, `select ord, coalesce(title, ''), coalesce(uri, ''), page, heading, start_at, end_at, body, metadata
		from `+s.schema+`.document($1, $2, $3, $4)`, clean(stream), clean(id), as, clean(tenant))
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	d := &Document{Stream: stream, ID: id}
	for rows.Next() {
		var p Passage
		if err := rows.Scan(&p.Chunk, &d.Title, &d.URI, &p.Page, &p.Heading, &p.Start, &p.End, &p.Text, &d.Metadata); err != nil {
			rows.Close()
			return nil, fmt.Errorf("fetch: %w", err)
		}
		d.Passages = append(d.Passages, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	if len(d.Passages) == 0 {
		return nil, ErrNotFound
	}
	return d, nil
}
