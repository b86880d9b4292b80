package main

import (
	"errors"
	"fmt"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/ingest"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/topic"
)

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
	problems = checkTables(f, rules)
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

// chains compiles the rules of streams; they share the keys.
type chains struct {
	f    *config.File
	keys func() *keys.Snapshot // the newest
	file *mappingFile          // where they write down what they do; nil = nowhere

	people *people // the keys of persons; nil makes some up, for a look at rules
}

// protect returns the compiler of the protect rules of s; nil without rules.
func (c chains) protect(s *config.Source) func(*record.Schema) (ingest.Chain, error) {
	byStream := map[string]config.Rules{}
	for _, p := range s.Protect {
		byStream[p.Stream] = p.Rules
	}
	return func(schema *record.Schema) (ingest.Chain, error) {
		chain, err := c.live(schema.Stream.String(), byStream[schema.Stream.Local()], schema, mappers.Protect)
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
			scope := mappers.Scope{Phase: mappers.Protect, Tags: c.tags(n, mappers.Protect)}
			nc.Named = func(field *record.Field) bool { return scope.Named(rules, field) }
		}
		return nc
	}
}

// shape returns the compiler of the shape rules of a stream of a sink.
func (c chains) shape(sink string, rules config.Rules) func(*record.Schema) (topic.Chain, error) {
	if len(rules) == 0 {
		return nil
	}
	return func(schema *record.Schema) (topic.Chain, error) {
		chain, err := c.live(sink+"/"+schema.Stream.String(), rules, schema, mappers.Shape)
		if chain == nil {
			return nil, err
		}
		return chain, nil
	}
}

// compile binds rules to a schema with the keys of ring; a mistake names its
// place in the file.
func (c chains) compile(rules config.Rules, schema *record.Schema, ring *keys.Snapshot, p mappers.Phase) (*mappers.Chain, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	list, problems := rulesOf(c.f, rules)
	if len(problems) > 0 {
		return nil, problems
	}
	scope := mappers.Scope{Phase: p, Keys: ring, Tables: tables{c.f}, Tags: c.tags(schema.Stream, p)}
	scope.People = madeUp{}
	if c.people != nil {
		scope.People = c.people
	}
	chain, err := scope.Compile(list, schema)
	var errs mappers.Errors
	if errors.As(err, &errs) {
		for _, e := range errs {
			if e.Code == mappers.CodeSecret {
				for _, ref := range keyRefs(rules[min(e.Rule, len(rules)-1)].Settings) {
					if missing := ring.Err(ref); missing != nil {
						e.Msg = missing.Error()
					}
				}
			}
			problems = append(problems, ruleProblem(c.f, rules, e))
		}
		return nil, problems
	}
	return chain, err
}
