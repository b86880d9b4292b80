package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-data/sluice/activation/spec"
	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/record"
)

const (
	catalogueAge  = 24 * time.Hour   // an account's fields change rarely, and asking costs calls
	catalogueTime = 10 * time.Second // at the start of a run: a vendor that is away must not hold up other sinks
)

// checkMappings compares the mappings of a sink with what its account has,
// before anything is sent. A vendor that cannot be asked stops nothing: what
// is wrong shows in its answers, then.
func (a *account) checkMappings(ctx context.Context, p *pipeline, s *config.Sink) error {
	ctx, cancel := context.WithTimeout(ctx, catalogueTime)
	defer cancel()
	types := func(stream *config.Stream) map[string]string { return seenTypes(p.file, s, stream) }
	problems, err := a.mappingProblems(ctx, p.file, s, types)
	if len(problems) > 0 {
		return invalid(problems)
	}
	if err != nil {
		p.log.Warn("the mappings could not be checked", "sink", s.Name, "error", err)
	}
	return nil
}

// mappingProblems returns what is wrong with the mappings of a sink, each at
// its place. types returns the types of a stream's fields, nil if unknown.
func (a *account) mappingProblems(ctx context.Context, f *config.File, s *config.Sink, types func(*config.Stream) map[string]string) (config.Problems, error) {
	dir := activationDir(f)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the catalogue: %w", err)
	}
	path := filepath.Join(dir, url.PathEscape(s.Name)+".catalogue.json")
	var problems config.Problems
	for _, age := range []time.Duration{catalogueAge, 0} { // what an older catalogue lacks may have been added since
		c, err := a.dest.Catalogue(ctx, path, age)
		if c == nil {
			return nil, err
		}
		problems = nil
		for i, stream := range s.Streams {
			settings := stream.Settings.(*saasStream)
			for _, flaw := range c.Check(settings.wanted(stream, types)) {
				problems = append(problems, f.Problem(fmt.Sprintf("sinks.%s.streams[%d].%s", s.Name, i, settings.place(flaw)), flaw.Says))
			}
		}
		if len(problems) == 0 || err != nil {
			return problems, err
		}
	}
	return problems, nil
}

// wanted returns what a stream wants of its object.
func (s *saasStream) wanted(stream *config.Stream, types func(*config.Stream) map[string]string) spec.Mapping {
	c, err := s.config("sink", stream.From)
	if err != nil {
		return spec.Mapping{} // reported by checkSaas
	}
	m := spec.Mapping{Object: s.Object, Operation: c.Operation, Match: s.Match}
	known := types(stream)
	for _, field := range c.Fields {
		m.Fields = append(m.Fields, spec.Want{Name: field.Name, Type: known[field.From], Text: s.Constants[field.Name]})
	}
	return m
}

// place returns the setting that a flaw is in.
func (s *saasStream) place(f spec.Flaw) string {
	if f.Part != "field" {
		return f.Part
	}
	if _, constant := s.Constants[f.Field]; constant {
		return "constants." + f.Field
	}
	return "fields." + f.Field
}

// checkOnline checks the mappings of every sink whose vendor can be asked, and
// the columns that they read from.
func checkOnline(ctx context.Context, f *config.File) error {
	var problems config.Problems
	var errs []error
	p := &pipeline{file: f, log: slog.New(slog.DiscardHandler)}
	for _, s := range f.Sinks {
		if !isActivation(s) {
			continue
		}
		a := &account{}
		settings, own := accountOf(s)
		err := a.reach(p, s, settings, own)
		if err == nil {
			var found config.Problems
			reported := map[*config.Stream]bool{} // a stream may be looked at twice
			found, err = a.mappingProblems(ctx, f, s, func(stream *config.Stream) map[string]string {
				known, unread := sourceTypes(ctx, f, s, stream)
				errs = append(errs, unread)
				if !reported[stream] {
					problems = append(problems, absentFields(f, s, stream, known)...)
				}
				reported[stream] = true
				return known
			})
			problems = append(problems, found...)
			err = errors.Join(err, a.close())
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sink %s: %w", s.Name, err))
		}
	}
	if len(problems) > 0 {
		slices.SortStableFunc(problems, func(a, b config.Problem) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		return invalid(problems)
	}
	if err := errors.Join(errs...); err != nil {
		return environment(errors.New(redactor(f.SecretValues()).Replace(err.Error())))
	}
	return nil
}

// absentFields returns the fields of a mapping that its stream does not have.
func absentFields(f *config.File, s *config.Sink, stream *config.Stream, known map[string]string) (problems config.Problems) {
	if known == nil {
		return nil
	}
	settings := stream.Settings.(*saasStream)
	for _, name := range sortedNames(settings.Fields, nil) {
		if _, ok := known[settings.Fields[name]]; !ok {
			problems = append(problems, f.Problem(fmt.Sprintf("sinks.%s.streams[%d].fields.%s", s.Name, slices.Index(s.Streams, stream), name),
				fmt.Sprintf("%s has no field %q behind its rules; it has %s", stream.From, settings.Fields[name], strings.Join(sortedNames(known, nil), ", "))))
		}
	}
	return problems
}

// sourceTypes asks the source for the types of a stream's fields, as the sink
// gets them.
func sourceTypes(ctx context.Context, f *config.File, s *config.Sink, stream *config.Stream) (map[string]string, error) {
	source, name, err := streamOf(f, stream.From)
	if err != nil {
		return nil, err
	}
	b, err := sample(ctx, f, source, name, 0)
	if err != nil {
		return nil, fmt.Errorf("columns of %s: %w", name, err)
	}
	return shapedTypes(f, source, stream, b.Schema), nil
}

// seenTypes returns the types of a stream's fields as the last run saw them.
func seenTypes(f *config.File, s *config.Sink, stream *config.Stream) map[string]string {
	source, name, err := streamOf(f, stream.From)
	if err != nil {
		return nil
	}
	last, err := readMappings(f.Local(f.Dir))
	if err != nil || last == nil || last.Protect[name.String()] == nil || last.Protect[name.String()].In == nil {
		return nil
	}
	return shapedTypes(f, source, stream, last.Protect[name.String()].In)
}

// shapedTypes returns the types of the fields of a schema behind all rules, in
// the words of destinations; nil if a rule does not fit it, which the run says.
func shapedTypes(f *config.File, source *config.Source, stream *config.Stream, schema *record.Schema) map[string]string {
	c := chains{f: f, keys: func() *keys.Snapshot { return testKeys(f) }}
	for _, phase := range []struct {
		rules config.Rules
		phase mappers.Phase
	}{{protectRules(source, stream.Local), mappers.Protect}, {stream.Shape, mappers.Shape}} {
		steps, err := c.steps(phase.rules, schema, phase.phase)
		if err != nil {
			return nil
		}
		if len(steps) > 0 {
			schema = steps[len(steps)-1].Out()
		}
	}
	types := map[string]string{}
	for i := range schema.Fields {
		types[schema.Fields[i].Name] = wordOf(schema.Fields[i].Kind)
	}
	return types
}

// wordOf is the word of destinations for a kind; empty for JSON, whose values
// can be anything.
func wordOf(k record.Kind) string {
	switch k {
	case record.Bool:
		return "bool"
	case record.Int16, record.Int32, record.Int64, record.Float32, record.Float64, record.Decimal, record.DecimalText:
		return "number"
	case record.Date:
		return "date"
	case record.Timestamp, record.TimestampTZ:
		return "datetime"
	case record.Array:
		return "json"
	case record.JSON:
		return ""
	}
	return "text"
}
