package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/lake"
	"github.com/sluice-data/sluice/objects"
	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/topic"
)

func icebergKind() sinkKind {
	return sinkKind{
		Kind: config.Kind{
			Name: "iceberg", Doc: "writes Iceberg tables to S3",
			New:       func() any { return &icebergSettings{} },
			NewStream: func() any { return &icebergStream{} },
			Target:    func(s any) string { return s.(*icebergStream).Table },
		},
		open: openLake,
		check: func(f *config.File, stream *config.Stream) error {
			_, err := tableConfig(f, stream)
			return err
		},
		needsS3: func(s any) bool { return s.(*icebergSettings).S3.Embedded },
	}
}

// icebergSettings are the settings of a lake.
type icebergSettings struct {
	Catalog   catalogSettings `yaml:"catalog" required:"true" doc:"where the tables are listed: {sql: sqlite:path}, {sql: postgres://…} or {rest: {uri: …}}"`
	Warehouse string          `yaml:"warehouse" required:"true" doc:"where the files of the tables lie, such as s3://lake/shop"`
	S3        s3Settings      `yaml:"s3" required:"true" doc:"the object store: {embedded: true} or {endpoint: …, region: …}"`
	Commit    commitSettings  `yaml:"commit" doc:"when a snapshot is appended"`
}

type catalogSettings struct {
	SQL  config.Secret `yaml:"sql" oneof:"catalog" secret:"url" doc:"sqlite:path relative to this file, or postgres://…"`
	REST *restSettings `yaml:"rest" oneof:"catalog" doc:"an Iceberg REST catalog"`
	// Listen is for engines: the SQL catalog is served to them read-only over REST.
	Listen string `yaml:"listen" default:"127.0.0.1:0" doc:"loopback address where engines find a SQL catalog as a read-only REST catalog"`
}

type restSettings struct {
	URI        string        `yaml:"uri" required:"true" doc:"address of the catalog"`
	Warehouse  string        `yaml:"warehouse" doc:"the warehouse as the catalog calls it"`
	Prefix     string        `yaml:"prefix" doc:"prefix of the paths"`
	Credential config.Secret `yaml:"credential" doc:"OAuth2 client credentials, id:secret"`
	AuthURI    string        `yaml:"auth_uri" doc:"token endpoint if it is not the catalog's own"`
	Scope      string        `yaml:"scope" doc:"OAuth2 scope"`
	Token      config.Secret `yaml:"token" doc:"a bearer token instead of credentials"`
}

type s3Settings struct {
	Embedded  bool          `yaml:"embedded" oneof:"store,optional" doc:"serve S3 from a folder below dir"`
	Endpoint  string        `yaml:"endpoint" oneof:"store,optional" doc:"address of an S3-compatible store; AWS if empty"`
	Region    string        `yaml:"region" doc:"region of AWS, or what another store wants in signatures"`
	AccessKey config.Secret `yaml:"access_key" doc:"access key; both keys empty: the usual AWS chain"`
	SecretKey config.Secret `yaml:"secret_key" doc:"secret key"`
	PathStyle bool          `yaml:"path_style" doc:"bucket in the path instead of the host name"`
	Overwrite bool          `yaml:"overwrite" doc:"for stores that refuse If-None-Match"`
}

// Check reports half a pair of keys, and keys of the embedded store.
func (s *s3Settings) Check(report func(field, problem string)) {
	if s.AccessKey.IsZero() != s.SecretKey.IsZero() {
		report("", "access_key and secret_key belong together")
	}
	if s.Embedded && !s.AccessKey.IsZero() {
		report("access_key", "the embedded store makes its own keys; remove it")
	}
}

type commitSettings struct {
	Every time.Duration `yaml:"every" default:"10s" min:"100ms" max:"24h" doc:"longest time until a change is in a snapshot"`
	Bytes config.Bytes  `yaml:"bytes" default:"64MiB" min:"64KiB" max:"4GiB" doc:"most bytes until a snapshot is appended"`
}

// icebergStream are the settings of one stream of a lake.
type icebergStream struct {
	Table       string   `yaml:"table" required:"true" doc:"the table to write: namespace.table"`
	Mode        string   `yaml:"mode" default:"upsert" enum:"append,upsert" doc:"upsert: the table equals the source; append: every change is a row"`
	PartitionBy []string `yaml:"partition_by" doc:"columns or transforms such as day(created_at), for new tables"`
	SortBy      []string `yaml:"sort_by" doc:"columns that the rows of a file are sorted by, for new tables"`

	FileBytes config.Bytes `yaml:"file_bytes" default:"256MiB" min:"1MiB" max:"8GiB" doc:"a data file ends at this size"`
	ZstdLevel int          `yaml:"zstd_level" default:"1" min:"1" max:"22" doc:"compression of the data files"`
}

// Check reports a table without a namespace.
func (s *icebergStream) Check(report func(field, problem string)) {
	parts := strings.Split(s.Table, ".")
	if len(parts) < 2 || slices.Contains(parts, "") || strings.ContainsFunc(s.Table, notInTableName) {
		report("table", fmt.Sprintf("want namespace.table without quotes, slashes and control characters, got %q", s.Table))
	}
	if err := lake.ValidatePartitionBy(s.PartitionBy); err != nil {
		report("partition_by", err.Error())
	}
}

// notInTableName tells characters that engines cannot have in a name, or read
// as something else: there is no quoting here, unlike in from:.
func notInTableName(r rune) bool { return unicode.IsControl(r) || strings.ContainsRune("\"'`/\\", r) }

// openLake prepares the tables of a lake.
func openLake(ctx context.Context, p *pipeline, s *config.Sink) (openSink, error) {
	settings := s.Settings.(*icebergSettings)
	opened := openSink{every: settings.Commit.Every, bytes: int(settings.Commit.Bytes)}
	c, err := lakeConfig(p.file, s, p.s3, p.board, p.log, p.hook)
	if err != nil {
		return opened, err
	}
	l, err := lake.Open(ctx, c)
	if err != nil {
		return opened, err
	}
	opened.close = l.Close
	if settings.S3.Embedded {
		if err := l.EnsureBucket(ctx); err != nil {
			return opened, err
		}
	}
	if c.Catalog.SQL != "" {
		served, err := serveCatalog(ctx, p.file, settings, c, p.ports[s.Name])
		if err != nil {
			return opened, err
		}
		opened.catalog = served
		opened.close = func() error { return errors.Join(served.close(), l.Close()) }
	}
	for _, stream := range s.Streams {
		t, err := tableConfig(p.file, stream)
		if err != nil {
			return opened, err
		}
		opened.streams = append(opened.streams, func(context.Context) (topic.Sink, error) {
			table, err := l.Table(t)
			if err != nil {
				return nil, err // no typed nil: it would look like a sink
			}
			return table, nil
		})
	}
	return opened, nil
}

// tableConfig returns how a stream of a sink goes into its table.
func tableConfig(f *config.File, s *config.Stream) (lake.TableConfig, error) {
	settings, ok := s.Settings.(*icebergStream)
	if !ok {
		return lake.TableConfig{}, fmt.Errorf("stream %s is of no lake", s.From)
	}
	name, err := record.ParseStreamName(s.From)
	if err != nil {
		return lake.TableConfig{}, err
	}
	topicName, err := topic.TopicName(f.Name, name)
	if err != nil {
		return lake.TableConfig{}, err
	}
	return lake.TableConfig{Stream: name, Topic: topicName, Table: settings.Table, Mode: settings.Mode, PartitionBy: settings.PartitionBy,
		SortBy: settings.SortBy, TargetFileBytes: int64(settings.FileBytes), ZstdLevel: settings.ZstdLevel}, nil
}

// lakeConfig returns the settings of a lake; s3 is the address of the embedded store.
func lakeConfig(f *config.File, s *config.Sink, s3 string, board *progress.Board, log *slog.Logger, hook func(string)) (lake.Config, error) {
	p, ok := s.Settings.(*icebergSettings)
	if !ok {
		return lake.Config{}, fmt.Errorf("sink %s: no kind %s", s.Name, s.Kind)
	}
	c := lake.Config{Pipeline: f.Name, Owner: s.Name, Warehouse: p.Warehouse, Dir: filepath.Join(f.Local(f.Dir), "lake", s.Name),
		Board: board, Logger: log, Hook: hook}
	c.Unsafe, _ = unsafeLines()
	c.Catalog.SQL = p.Catalog.SQL.Value()
	if path, ok := strings.CutPrefix(c.Catalog.SQL, "sqlite:"); ok {
		c.Catalog.SQL = "sqlite:" + f.Local(path)
	}
	if r := p.Catalog.REST; r != nil {
		c.Catalog.REST = lake.REST{URI: r.URI, Warehouse: r.Warehouse, Prefix: r.Prefix, Credential: r.Credential.Value(),
			AuthURI: r.AuthURI, Scope: r.Scope, Token: r.Token.Value()}
	}
	var err error
	c.S3, err = p.S3.config(f, s3)
	return c, err
}

// config returns how the store is reached; embedded is the address of ours.
func (s *s3Settings) config(f *config.File, embedded string) (objects.Config, error) {
	if s.Embedded {
		k, err := embeddedKeys(f.Local(f.Dir))
		if err != nil {
			return objects.Config{}, err
		}
		return objects.Config{Endpoint: "http://" + embedded, Region: "us-east-1", AccessKey: k.Access, SecretKey: k.Secret, PathStyle: true}, nil
	}
	return objects.Config{Endpoint: s.Endpoint, Region: s.Region, AccessKey: s.AccessKey.Value(),
		SecretKey: s.SecretKey.Value(), PathStyle: s.PathStyle, Overwrite: s.Overwrite}, nil
}
