package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/config"
)

// validation is the result of validate.
type validation struct {
	File    string `json:"file"`
	Name    string `json:"name"`
	Sources int    `json:"sources"`
	Streams int    `json:"streams"`
	Guarded int    `json:"protected_streams"`
	Sinks   int    `json:"sinks"`
}

func (a *app) validateCommand() *cobra.Command {
	online := false
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check the configuration file, offline and without its secrets",
		Long: "validate finds what is wrong with the file alone. With --online it asks the destinations of activation for their\n" +
			"objects and fields, and the sources for their columns, and compares the mappings with both; it sends no record.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := a.load()
			if err != nil {
				return err
			}
			if err := checkAll(f); err != nil {
				return err
			}
			if online {
				if _, err := resolve(f); err != nil {
					return environment(err)
				}
				if err := checkOnline(cmd.Context(), f); err != nil {
					return err
				}
			}
			v := validation{File: a.configPath, Name: f.Name, Sources: len(f.Sources), Sinks: len(f.Sinks)}
			for _, s := range f.Sources {
				v.Streams += len(s.Streams)
				v.Guarded += len(s.Protect)
			}
			a.result = v
			if !a.json {
				fmt.Fprintf(a.stdout, "%s is valid: %s with %s, %d of them protected; %s\n", v.File,
					count(v.Sources, "source"), count(v.Streams, "stream"), v.Guarded, count(v.Sinks, "sink"))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&online, "online", false, "ask destinations and sources, too")
	return cmd
}

// checkAll checks what only the rooms know: rules, partitions, sort orders.
func checkAll(f *config.File) error {
	var problems config.Problems
	for _, s := range f.Sources {
		for _, p := range s.Protect {
			problems = append(problems, checkRules(f, p.Rules, true)...)
		}
	}
	for _, s := range f.Sinks {
		for i, stream := range s.Streams {
			problems = append(problems, checkRules(f, stream.Shape, false)...)
			kind, err := sinkKindOf(s)
			if err == nil && kind.check != nil {
				err = kind.check(f, stream)
			}
			if err != nil {
				problems = append(problems, f.Problem(fmt.Sprintf("sinks.%s.streams[%d].from", s.Name, i), err.Error()))
			}
		}
	}
	if len(problems) > 0 {
		return invalid(problems)
	}
	return nil
}

// selected returns which sources and sinks --only names; all without it.
func selected(f *config.File, only string) (map[string]bool, error) {
	all, known := map[string]bool{}, []string{}
	for _, s := range f.Sources {
		all[s.Name] = true
		known = append(known, s.Name)
	}
	for _, s := range f.Sinks {
		all[s.Name] = true
		known = append(known, s.Name)
	}
	if only == "" {
		return all, nil
	}
	chosen := map[string]bool{}
	for _, name := range strings.Split(only, ",") {
		if name = strings.TrimSpace(name); !all[name] {
			return nil, invalid(fmt.Errorf("--only %s: no source or sink has this name; there are %s", name, strings.Join(known, ", ")))
		}
		chosen[name] = true
	}
	return chosen, nil
}
