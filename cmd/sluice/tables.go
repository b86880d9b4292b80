package main

import (
	"fmt"
	"os"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/record"
)

// tables are the files of lookup rules, as they are when a chain is compiled.
type tables struct{ f *config.File }

// Table reads the file of a lookup rule; nil if it cannot be read, which
// checkTables explains.
func (t tables) Table(file string) (*mappers.Table, bool) {
	table, err := readTable(t.f.Local(file))
	return table, err == nil
}

func readTable(path string) (*mappers.Table, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	table, err := mappers.ParseTable(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return table, nil
}

// checkTables reads the files that lookup rules name.
func checkTables(f *config.File, rules config.Rules) config.Problems {
	var problems config.Problems
	for _, r := range rules {
		if l, ok := r.Settings.(*mappers.Lookup); ok && l.File != "" {
			if _, err := readTable(f.Local(l.File)); err != nil {
				problems = append(problems, f.Problem(r.Path+".file", err.Error()))
			}
		}
	}
	return problems
}

// tags returns the tags that the file gives to the columns of a stream. They
// say what the source's columns are; behind protect the schema carries them.
func (c chains) tags(n record.StreamName, p mappers.Phase) func(field string) []string {
	if p != mappers.Protect {
		return nil
	}
	for _, s := range c.f.Sources {
		if columns := s.Tags[n.Local()]; s.Name == n.Source && columns != nil {
			return func(field string) []string { return columns[field] }
		}
	}
	return nil
}
