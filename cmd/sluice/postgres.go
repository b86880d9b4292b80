package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/ingest"
	"github.com/sluice-data/sluice/ingest/postgres"
	"github.com/sluice-data/sluice/record"
)

func postgresKind() sourceKind {
	return sourceKind{
		Kind: config.Kind{
			Name: "postgres", Doc: "reads tables of a Postgres database by logical replication",
			New:          func() any { return &postgresSettings{} },
			Streams:      func(s any) []string { return s.(*postgresSettings).Tables },
			StreamsField: "tables",
		},
		open:      openPostgres,
		backfills: true,
	}
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

func openPostgres(p *pipeline, s *config.Source) (ingest.Source, record.Origin, error) {
	settings := s.Settings.(*postgresSettings)
	source, err := postgres.New(postgres.Config{Name: s.Name, URL: settings.URL.Value(), Tables: settings.Tables, Slot: settings.Slot,
		Publication: settings.Publication, Readers: settings.Readers, UntilCaughtUp: p.untilCaughtUp, Board: p.board, Logger: p.log})
	if err != nil {
		return nil, record.Origin{}, err
	}
	origin := record.Origin{Connector: "postgresql", Name: p.file.Name + "." + s.Name, Database: databaseOf(settings.URL.Value())}
	return postgresSource{source}, origin, nil
}

// postgresSource gives the Postgres room's Source the ingest room's type of output.
type postgresSource struct{ *postgres.Source }

// Run reads until ctx ends.
func (s postgresSource) Run(ctx context.Context, out ingest.Output) error {
	return s.Source.Run(ctx, out)
}

// databaseOf returns the database that an address names, "" if it names none.
func databaseOf(address string) string {
	if strings.Contains(address, "://") {
		u, err := url.Parse(address)
		if err != nil {
			return ""
		}
		return strings.TrimPrefix(u.Path, "/")
	}
	for _, word := range strings.Fields(address) {
		if name, ok := strings.CutPrefix(word, "dbname="); ok {
			return strings.Trim(name, "'")
		}
	}
	return ""
}
