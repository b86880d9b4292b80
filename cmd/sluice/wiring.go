package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/ingest"
	"github.com/sluice-data/sluice/ingest/postgres"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/lake"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/objects"
	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/topic"
)

// registry is the only list of connectors and rules.
func registry() *config.Registry {
	r := &config.Registry{
		Sources: []config.Kind{{
			Name: "postgres", Doc: "reads tables of a Postgres database by logical replication",
			New:          func() any { return &postgresSettings{} },
			Streams:      func(s any) []string { return s.(*postgresSettings).Tables },
			StreamsField: "tables",
		}},
		Sinks: []config.Kind{{
			Name: "iceberg", Doc: "writes Iceberg tables to S3",
			New:       func() any { return &icebergSettings{} },
			NewStream: func() any { return &icebergStream{} },
			Target:    func(s any) string { return s.(*icebergStream).Table },
		}},
		SplitStream: func(ref string) (source, local string, err error) {
			n, err := record.ParseStreamName(ref)
			return n.Source, n.Local(), err
		},
	}
	for _, k := range mappers.Kinds() {
		r.Rules = append(r.Rules, config.Kind{Name: k.Name, Doc: k.Doc, New: k.New})
	}
	return r
}

// postgresSettings are the settings of a Postgres source.
type postgresSettings struct {
	URL         config.Secret `yaml:"url" required:"true" secret:"url" doc:"address of the database: postgres://user@host:port/database, its password as a reference"`
	Tables      []string      `yaml:"tables" required:"true" doc:"tables to read, each as schema.table"`
	Slot        string        `yaml:"slot" doc:"replication slot; sluice_<source> if empty; created if missing"`
	Publication string        `yaml:"publication" doc:"publication; the slot's name if empty; created if missing"`
	Readers     int           `yaml:"readers" default:"2" min:"1" max:"64" doc:"connections that read a backfill"`
}

// Check reports tables without a schema.
func (p *postgresSettings) Check(report func(field, problem string)) {
	if len(p.Tables) == 0 {
		report("tables", "name at least one table as schema.table")
	}
	for i, t := range p.Tables {
		if strings.Contains(t, "${") {
			continue
		}
		if n, err := record.ParseStreamName("x." + t); err != nil || n.Namespace == "" {
			report("tables["+strconv.Itoa(i)+"]", fmt.Sprintf("want schema.table, got %q; did you mean \"public.%s\"?", t, t))
		}
	}
	if len(p.Slot) > 63 || strings.Trim(p.Slot, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" && !strings.Contains(p.Slot, "${") {
		report("slot", "want at most 63 of a-z, 0-9 and _")
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
	if len(parts) < 2 || slices.Contains(parts, "") {
		report("table", fmt.Sprintf("want namespace.table, got %q", s.Table))
	}
	if err := lake.ValidatePartitionBy(s.PartitionBy); err != nil {
		report("partition_by", err.Error())
	}
}

// rulesOf turns rules of a file into those of the mappers.
func rulesOf(f *config.File, rules config.Rules) ([]mappers.Rule, config.Problems) {
	var out []mappers.Rule
	var problems config.Problems
	for _, r := range rules {
		m, ok := mappers.RuleOf(r.Settings)
		if !ok {
			problems = append(problems, f.Problem(r.Path, "names nothing"))
			continue
		}
		out = append(out, m)
	}
	return out, problems
}

// checkRules finds the mistakes that show without a schema and without keys.
func checkRules(f *config.File, rules config.Rules, protect bool) config.Problems {
	out, problems := rulesOf(f, rules)
	if len(problems) > 0 || len(out) == 0 {
		return problems
	}
	var errs mappers.Errors
	if err := mappers.Check(out, phase(protect), nil); errors.As(err, &errs) {
		for _, e := range errs {
			problems = append(problems, ruleProblem(f, rules, e))
		}
	}
	return problems
}

func phase(protect bool) mappers.Phase {
	if protect {
		return mappers.Protect
	}
	return mappers.Shape
}

// ruleProblem gives a mistake of a rule its place in the file.
func ruleProblem(f *config.File, rules config.Rules, e *mappers.Error) config.Problem {
	path := rules[min(e.Rule, len(rules)-1)].Path
	if e.Path != "" {
		path += "." + e.Path
	}
	message := e.Msg
	if e.Offset > 0 {
		message += fmt.Sprintf(" (at character %d)", e.Offset+1)
	}
	return f.Problem(path, message)
}

// loadKeys reads the keys that the rules of f name.
func loadKeys(ctx context.Context, f *config.File) (*keys.Snapshot, error) {
	var refs []keys.Ref
	var problems config.Problems
	for _, rules := range allRules(f) {
		for _, r := range rules {
			var ref keys.Ref
			switch s := r.Settings.(type) {
			case *mappers.Hash:
				ref = s.Key
			case *mappers.Encrypt:
				ref = s.Key
			}
			if ref.IsZero() {
				continue
			}
			if _, _, err := keys.Read(ref, f.Base()); err != nil {
				problems = append(problems, f.Problem(r.Path+".key", err.Error()))
				continue
			}
			refs = append(refs, ref)
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return keys.Load(ctx, refs, f.Base())
}

func allRules(f *config.File) []config.Rules {
	var all []config.Rules
	for _, s := range f.Sources {
		for _, p := range s.Protect {
			all = append(all, p.Rules)
		}
	}
	for _, s := range f.Sinks {
		for _, stream := range s.Streams {
			all = append(all, stream.Shape)
		}
	}
	return all
}

// resolve puts the values of the references of f in their places.
func resolve(f *config.File) (warnings []string, err error) {
	err = f.Resolve(func(target string) (string, error) {
		ref, err := keys.ParseRef(target)
		if err != nil {
			return "", err
		}
		value, w, err := keys.Read(ref, f.Base())
		for _, line := range w {
			if !slices.Contains(warnings, line) {
				warnings = append(warnings, line)
			}
		}
		return string(value), err
	})
	return warnings, err
}

// kafkaConfig returns where the brokers are; embedded is the address of ours.
func kafkaConfig(f *config.File, embedded string, log *slog.Logger) (topic.Config, error) {
	c := topic.Config{Brokers: f.Kafka.Brokers, Prefix: f.Name, Partitions: f.Topics.Partitions, Replication: f.Topics.Replication,
		TopicConfigs: map[string]string{"retention.ms": strconv.FormatInt(f.Topics.Retention.Milliseconds(), 10)}, Logger: log}
	_, c.Unsafe = unsafeLines()
	if f.Kafka.Embedded {
		c.Brokers = []string{embedded}
	}
	if s := f.Kafka.SASL; s != nil {
		c.SASL = &topic.SASL{Mechanism: s.Mechanism, User: s.User, Password: s.Password.Value()}
	}
	if t := f.Kafka.TLS; t != nil {
		var err error
		if c.TLS, err = tlsConfig(f, t); err != nil {
			return c, err
		}
	}
	return c, nil
}

func tlsConfig(f *config.File, t *config.TLS) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		pem, err := os.ReadFile(f.Local(t.CA))
		if err != nil {
			return nil, fmt.Errorf("kafka.tls.ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("kafka.tls.ca: %s holds no PEM certificate", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Local(t.Cert), f.Local(t.Key))
		if err != nil {
			return nil, fmt.Errorf("kafka.tls.cert: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// newSource makes a source of the file; the origin goes into its records.
func newSource(f *config.File, s *config.Source, untilCaughtUp bool, board *progress.Board, log *slog.Logger) (ingest.Source, record.Origin, error) {
	p, ok := s.Settings.(*postgresSettings)
	if !ok {
		return nil, record.Origin{}, fmt.Errorf("source %s: no kind %s", s.Name, s.Kind)
	}
	source, err := postgres.New(postgres.Config{Name: s.Name, URL: p.URL.Value(), Tables: p.Tables, Slot: p.Slot,
		Publication: p.Publication, Readers: p.Readers, UntilCaughtUp: untilCaughtUp, Board: board, Logger: log})
	if err != nil {
		return nil, record.Origin{}, err
	}
	origin := record.Origin{Connector: "postgresql", Name: f.Name + "." + s.Name, Database: databaseOf(p.URL.Value())}
	return postgresSource{source}, origin, nil
}

// postgresSource gives the Postgres room's Source the ingest room's type of output.
type postgresSource struct{ *postgres.Source }

// Run reads until ctx ends.
func (s postgresSource) Run(ctx context.Context, out ingest.Output) error {
	return s.Source.Run(ctx, out)
}

// chains compiles the rules of streams; they share one snapshot of keys.
type chains struct {
	f    *config.File
	ring *keys.Snapshot
}

// protect returns the compiler of the protect rules of s; nil without rules.
func (c chains) protect(s *config.Source) func(*record.Schema) (ingest.Chain, error) {
	byStream := map[string]config.Rules{}
	for _, p := range s.Protect {
		byStream[p.Stream] = p.Rules
	}
	return func(schema *record.Schema) (ingest.Chain, error) {
		chain, err := c.compile(byStream[schema.Stream.Local()], schema, mappers.Protect)
		if chain == nil {
			return nil, err // no typed nil: it would look like a chain
		}
		return chain, nil
	}
}

// newColumns says for each stream of s what its rules name.
func (c chains) newColumns(s *config.Source) func(record.StreamName) ingest.NewColumns {
	return func(n record.StreamName) ingest.NewColumns {
		nc := ingest.NewColumns{Pass: s.Columns == config.Pass}
		for _, p := range s.Protect {
			if p.Stream != n.Local() {
				continue
			}
			var rules []mappers.Rule
			for _, r := range p.Rules {
				if m, ok := mappers.RuleOf(r.Settings); ok {
					rules = append(rules, m)
					nc.Pass = nc.Pass || m.Keep != nil // what keep does not name does not pass anyway
				}
			}
			nc.Named = func(field string) bool { return mappers.Named(rules, field) }
		}
		return nc
	}
}

// shape returns the compiler of the shape rules of a stream of a sink.
func (c chains) shape(rules config.Rules) func(*record.Schema) (topic.Chain, error) {
	if len(rules) == 0 {
		return nil
	}
	return func(schema *record.Schema) (topic.Chain, error) {
		chain, err := c.compile(rules, schema, mappers.Shape)
		if chain == nil {
			return nil, err
		}
		return chain, nil
	}
}

// compile binds rules to a schema; a mistake names its place in the file.
func (c chains) compile(rules config.Rules, schema *record.Schema, p mappers.Phase) (*mappers.Chain, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	list, problems := rulesOf(c.f, rules)
	if len(problems) > 0 {
		return nil, problems
	}
	chain, err := mappers.Compile(list, schema, c.ring, p)
	var errs mappers.Errors
	if errors.As(err, &errs) {
		for _, e := range errs {
			problems = append(problems, ruleProblem(c.f, rules, e))
		}
		return nil, problems
	}
	return chain, err
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
	c.S3 = objects.Config{Endpoint: p.S3.Endpoint, Region: p.S3.Region, AccessKey: p.S3.AccessKey.Value(),
		SecretKey: p.S3.SecretKey.Value(), PathStyle: p.S3.PathStyle, Overwrite: p.S3.Overwrite}
	if p.S3.Embedded {
		k, err := embeddedKeys(f.Local(f.Dir))
		if err != nil {
			return c, err
		}
		c.S3 = objects.Config{Endpoint: "http://" + s3, Region: "us-east-1", AccessKey: k.Access, SecretKey: k.Secret, PathStyle: true}
	}
	return c, nil
}
