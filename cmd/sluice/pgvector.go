package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/topic"
	"github.com/sluice-data/sluice/vector"
	"github.com/sluice-data/sluice/vector/chunk"
	"github.com/sluice-data/sluice/vector/embed"
	"github.com/sluice-data/sluice/vector/search"
	"github.com/sluice-data/sluice/vector/store"
)

func pgvectorKind() sinkKind {
	return sinkKind{
		Kind: config.Kind{
			Name: "pgvector", Doc: "indexes files and records as chunks with vectors in Postgres, where sluice search and agents find them",
			New:       func() any { return &pgvectorSettings{} },
			NewStream: func() any { return &pgvectorStream{} },
			Target:    func(any) string { return "" },
		},
		open:    openPgvector,
		check:   checkPgvector,
		needsS3: func(s any) bool { p := s.(*pgvectorSettings); return p.S3 != nil && p.S3.Embedded },
	}
}

// pgvectorSettings are the settings of an index of documents.
type pgvectorSettings struct {
	URL       config.Secret    `yaml:"url" required:"true" secret:"url" doc:"address of a Postgres with pgvector: postgres://user@host:port/database, its password as a reference"`
	Schema    string           `yaml:"schema" default:"rag" doc:"schema of the tables; created if missing"`
	Language  string           `yaml:"language" default:"english" doc:"text search configuration of the words: english, german, simple, …"`
	Embed     embedSettings    `yaml:"embed" doc:"which model makes the vectors"`
	Chunk     chunkSettings    `yaml:"chunk" doc:"how documents are cut"`
	IndexFrom int              `yaml:"index_from" default:"20000" doc:"vectors from which on an HNSW index is built; below 0: never"`
	S3        *s3Settings      `yaml:"s3" doc:"the store of bodies that do not travel with their records; the one that the source names if empty"`
	Commit    commitSettings   `yaml:"commit" doc:"when the offsets are stored; documents are stored at once"`
	Layout    string           `yaml:"layout" default:"documents" enum:"documents,airbyte" doc:"airbyte: also a view a stream with the five columns of Airbyte's destination, in schema airbyte"`
	Rows      bool             `yaml:"row_security" doc:"also protect the tables by row-level security, for roles that read them themselves"`
	Callers   []callerSettings `yaml:"callers" doc:"who may ask through sluice mcp with a token"`
}

type embedSettings struct {
	Provider       string        `yaml:"provider" default:"hash" enum:"hash,openai,azure,cohere,ollama" doc:"hash needs no service and finds words, not meaning; openai is any server with its API"`
	URL            string        `yaml:"url" doc:"address of the service; the provider's own if empty"`
	Key            config.Secret `yaml:"key" doc:"key of the service"`
	Model          string        `yaml:"model" doc:"name of the model, of azure: of the deployment"`
	Dimensions     int           `yaml:"dimensions" min:"0" max:"4000" doc:"width of the vectors; what the model is known to give if 0"`
	Revision       string        `yaml:"revision" doc:"tells two versions of a model apart"`
	Weak           bool          `yaml:"weak" doc:"a small model: words count more than its vectors"`
	DocumentPrefix string        `yaml:"document_prefix" doc:"put before each text"`
	QueryPrefix    string        `yaml:"query_prefix" doc:"put before each question"`
	Inputs         int           `yaml:"inputs" min:"0" doc:"most texts of a request; the provider's limit if 0"`
	Tokens         int           `yaml:"tokens" min:"0" doc:"most tokens of a request; the provider's limit if 0"`
	Parallel       int           `yaml:"parallel" min:"0" max:"64" doc:"requests at once; 4 if 0"`
	PerMinute      int           `yaml:"requests_per_minute" min:"0" doc:"quota of the account; 0 = none"`
	TokensPM       int           `yaml:"tokens_per_minute" min:"0" doc:"quota of the account; 0 = none"`
	Share          int           `yaml:"share" default:"100" min:"1" max:"100" doc:"percent of the quota that is ours"`
}

type chunkSettings struct {
	Tokens        int      `yaml:"tokens" default:"512" min:"32" max:"8191" doc:"most tokens of a chunk"`
	Overlap       int      `yaml:"overlap" default:"0" min:"0" max:"4096" doc:"tokens that a chunk repeats of the one before"`
	Encoding      string   `yaml:"encoding" default:"cl100k_base" enum:"cl100k_base,o200k_base,r50k_base,p50k_base" doc:"vocabulary that counts tokens"`
	Template      string   `yaml:"template" doc:"what is embedded, of {title}, {headings} and {text}"`
	Splitter      string   `yaml:"splitter" default:"structure" enum:"structure,separator,markdown,code" doc:"how documents are cut"`
	Separators    []string `yaml:"separators" doc:"of separator: where to cut, in this order"`
	KeepSeparator bool     `yaml:"keep_separator" doc:"of separator: the separators stay in the text"`
	SplitLevel    int      `yaml:"split_level" default:"1" min:"1" max:"6" doc:"of markdown: headings up to this level"`
	Language      string   `yaml:"language" doc:"of code: the language"`
}

type callerSettings struct {
	User  string        `yaml:"user" required:"true" doc:"name of the user, as permissions spell it"`
	Token config.Secret `yaml:"token" required:"true" doc:"what the user's agent shows"`
}

// pgvectorStream are the settings of one stream of documents.
type pgvectorStream struct {
	Holds    string            `yaml:"holds" enum:"files,records,permissions,groups" doc:"what the stream holds; records if document is set, else files"`
	Document *documentSettings `yaml:"document" doc:"which fields of a record make a document"`
	ACL      []string          `yaml:"acl" doc:"who may see all of the stream's documents: user:NAME, group:NAME, public"`
	Tenant   string            `yaml:"tenant" doc:"documents of two tenants share nothing"`
	Of       string            `yaml:"of" doc:"of permissions: the stream of the documents"`
	Identity string            `yaml:"identity" doc:"whose groups the permissions name; the source if empty"`
	MaxAge   time.Duration     `yaml:"max_age" default:"24h" doc:"of permissions and groups: not heard of for longer, they permit nothing; 0 = never"`
}

type documentSettings struct {
	Title    string   `yaml:"title" doc:"field of the title"`
	Text     []string `yaml:"text" required:"true" doc:"fields of the text, in this order"`
	Metadata []string `yaml:"metadata" doc:"fields that searches can filter by"`
	ACL      string   `yaml:"acl" doc:"field that says who may see it: {\"allow\": […], \"deny\": […]} or a list"`
}

// Check reports settings that do not go together.
func (s *pgvectorStream) Check(report func(field, problem string)) {
	if s.Document != nil && s.Holds != "" && s.Holds != vector.Records {
		report("document", "is for records; remove holds: "+s.Holds)
	}
	if s.Holds == vector.Records && s.Document == nil {
		report("document", "name the fields that make a document")
	}
	if (s.Holds == vector.Permissions) != (s.Of != "") {
		report("of", "belongs to holds: permissions: the stream of the documents")
	}
	if s.Document != nil && s.Document.ACL != "" && len(s.ACL) > 0 {
		report("acl", "either a list or document.acl")
	}
}

// bodyKeeper is the settings of a source whose records refer to bodies below a folder.
type bodyKeeper interface {
	bodyFolder(f *config.File) string
}

// embedder returns the model of the settings.
func (s *embedSettings) embedder() (embed.Embedder, error) {
	c := embed.Config{Provider: s.Provider, URL: s.URL, Key: s.Key.Value(), Model: s.Model, Dims: s.Dimensions, Revision: s.Revision,
		DocumentPrefix: s.DocumentPrefix, QueryPrefix: s.QueryPrefix, Limits: embed.Limits{Inputs: s.Inputs, Tokens: s.Tokens, Parallel: s.Parallel,
			PerMinute: float64(s.PerMinute), TokensPM: float64(s.TokensPM), Share: float64(s.Share) / 100}}
	if s.Weak {
		c.Kind = embed.Weak
	}
	return embed.Open(c)
}

// streamConfig returns how a stream becomes documents; its bodies are not open yet.
func (s *pgvectorStream) config(f *config.File, from string) (vector.Stream, error) {
	name, err := record.ParseStreamName(from)
	if err != nil {
		return vector.Stream{}, err
	}
	topicName, err := topic.TopicName(f.Name, name)
	if err != nil {
		return vector.Stream{}, err
	}
	st := vector.Stream{Name: name, Topic: topicName, Holds: s.Holds, Tenant: s.Tenant, Identity: s.Identity, ACL: s.ACL, MaxAge: s.MaxAge}
	if s.Of != "" {
		of, err := record.ParseStreamName(s.Of)
		if err != nil {
			return st, fmt.Errorf("of: %w", err)
		}
		st.Of = of.String()
	}
	if d := s.Document; d != nil {
		st.Holds, st.Fields = vector.Records, vector.Fields{Title: d.Title, Text: d.Text, Metadata: d.Metadata, ACL: d.ACL}
	}
	return st, nil
}

// checkPgvector finds, offline, what is wrong with one stream.
func checkPgvector(f *config.File, stream *config.Stream) error {
	settings, ok := stream.Settings.(*pgvectorStream)
	if !ok {
		return fmt.Errorf("stream %s is of no index of documents", stream.From)
	}
	_, err := settings.config(f, stream.From)
	return err
}

// openPgvector prepares an index of documents.
func openPgvector(ctx context.Context, p *pipeline, s *config.Sink) (openSink, error) {
	settings := s.Settings.(*pgvectorSettings)
	opened := openSink{every: settings.Commit.Every, bytes: int(settings.Commit.Bytes)}
	embedder, err := settings.Embed.embedder()
	if err != nil {
		return opened, err
	}
	c := settings.Chunk
	overlap := c.Overlap
	if overlap == 0 {
		overlap = -1
	}
	x, err := vector.Open(ctx, vector.Config{Owner: p.file.Name + "." + s.Name, Embedder: embedder, Logger: p.log,
		CacheDir: filepath.Join(p.file.Local(p.file.Dir), "vector"),
		Store:    store.Config{URL: settings.URL.Value(), Schema: settings.Schema, Language: settings.Language, IndexFrom: settings.IndexFrom},
		Chunk: chunk.Config{MaxTokens: c.Tokens, OverlapTokens: overlap, Encoding: c.Encoding, Template: c.Template, Splitter: c.Splitter,
			Separators: c.Separators, KeepSeparator: c.KeepSeparator, SplitLevel: c.SplitLevel, Language: c.Language}})
	if err != nil {
		return opened, err
	}
	if settings.Rows {
		if err := x.Store().ProtectRows(ctx); err != nil {
			return opened, errors.Join(err, x.Close())
		}
	}
	bodies := &bodyRoots{}
	opened.close = func() error { return errors.Join(x.Close(), bodies.close()) }
	var views store.Views
	if settings.Layout == "airbyte" {
		views.Airbyte = "airbyte"
	}
	for _, stream := range s.Streams {
		st, err := stream.Settings.(*pgvectorStream).config(p.file, stream.From)
		if err != nil {
			return opened, err
		}
		b, err := bodies.of(ctx, p.file, st.Name.Source, settings.S3, p.s3)
		if err != nil {
			return opened, err
		}
		st.Bodies = b
		if st.Holds == "" || st.Holds == vector.Files || st.Holds == vector.Records {
			views.Streams = append(views.Streams, st.Name)
		}
		opened.streams = append(opened.streams, func(context.Context) (topic.Sink, error) {
			sink, err := x.Sink(st)
			if err != nil {
				return nil, err // no typed nil: it would look like a sink
			}
			return sink, nil
		})
	}
	return opened, x.Views(ctx, views)
}

// caller returns who shows the token; every token is compared, and in constant time.
func (s *pgvectorSettings) caller(token string) (string, error) {
	user, found := "", false
	for _, c := range s.Callers {
		if subtle.ConstantTimeCompare([]byte(c.Token.Value()), []byte(token)) == 1 {
			user, found = c.User, true
		}
	}
	if !found || token == "" {
		return "", errors.New("the token is nobody's: see callers of the sink")
	}
	return user, nil
}

// openSearch connects to the documents of a sink.
func openSearch(ctx context.Context, s *pgvectorSettings) (*search.Searcher, error) {
	embedder, err := s.Embed.embedder()
	if err != nil {
		return nil, err
	}
	return search.Open(ctx, search.Config{URL: s.URL.Value(), Schema: s.Schema, Embedder: embedder})
}
