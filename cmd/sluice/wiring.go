package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/ingest"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/topic"
)

// sourceKind is a kind of source: its settings and how it is opened.
type sourceKind struct {
	config.Kind

	// open makes the source that s describes; the origin goes into its
	// records. It is called again after every loss of the brokers and does not
	// connect.
	open func(p *pipeline, s *config.Source) (ingest.Source, record.Origin, error)

	backfills bool // its sources can load one stream anew: they are backfillers

	// needsS3 reports whether the settings ask for the embedded store; nil = never.
	needsS3 func(settings any) bool
}

// sinkKind is a kind of sink: its settings and how it is opened.
type sinkKind struct {
	config.Kind

	// open prepares the sink that s describes: what is wrong with it shows
	// before anything runs.
	open func(ctx context.Context, p *pipeline, s *config.Sink) (openSink, error)

	// check finds, offline, what is wrong with one stream of a sink; nil = nothing.
	check func(f *config.File, stream *config.Stream) error

	// needsS3 reports whether the settings ask for the embedded store; nil = never.
	needsS3 func(settings any) bool
}

// openSink is a sink that is ready to consume.
type openSink struct {
	every       time.Duration                               // flush at this age; 0 = the consumer's default
	bytes, rows int                                         // flush at this size; 0 = the consumer's default
	streams     []func(context.Context) (topic.Sink, error) // how to open each stream of the sink, in their order
	catalog     *catalogServer                              // of a lake with a SQL catalog; close closes it
	close       func() error
}

// sourceKinds is the list of sources.
func sourceKinds() []sourceKind {
	return []sourceKind{postgresKind(), filesKind()}
}

// sinkKinds is the list of sinks.
func sinkKinds() []sinkKind {
	return append([]sinkKind{icebergKind(), pgvectorKind()}, saasKinds()...)
}

// registry is what a file may name; with sourceKinds and sinkKinds it is the
// only list of connectors and rules.
func registry() *config.Registry {
	r := &config.Registry{SplitStream: func(ref string) (source, local string, err error) {
		n, err := record.ParseStreamName(ref)
		return n.Source, n.Local(), err
	}}
	for _, k := range sourceKinds() {
		r.Sources = append(r.Sources, k.Kind)
	}
	for _, k := range sinkKinds() {
		r.Sinks = append(r.Sinks, k.Kind)
	}
	for _, k := range mappers.Kinds() {
		r.Rules = append(r.Rules, config.Kind{Name: k.Name, Doc: k.Doc, New: k.New})
	}
	return r
}

func sourceKindOf(s *config.Source) (sourceKind, error) {
	for _, k := range sourceKinds() {
		if k.Name == s.Kind {
			return k, nil
		}
	}
	return sourceKind{}, fmt.Errorf("source %s: no kind %s", s.Name, s.Kind)
}

func sinkKindOf(s *config.Sink) (sinkKind, error) {
	for _, k := range sinkKinds() {
		if k.Name == s.Kind {
			return k, nil
		}
	}
	return sinkKind{}, fmt.Errorf("sink %s: no kind %s", s.Name, s.Kind)
}

// needsS3 reports whether a chosen source or sink asks for the embedded store.
func (p *pipeline) needsS3() bool {
	for _, s := range p.file.Sources {
		if k, err := sourceKindOf(s); err == nil && p.only[s.Name] && k.needsS3 != nil && k.needsS3(s.Settings) {
			return true
		}
	}
	for _, s := range p.file.Sinks {
		if k, err := sinkKindOf(s); err == nil && p.only[s.Name] && k.needsS3 != nil && k.needsS3(s.Settings) {
			return true
		}
	}
	return false
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
		c.TopicConfigs["retention.ms"] = "-1" // see pipeline.retain
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
