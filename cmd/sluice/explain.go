package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/topic"
)

// explanation is the result of explain.
type explanation struct {
	Stream  string       `json:"stream"`
	Known   string       `json:"known_from"` // source, or last run
	Topic   string       `json:"topic"`
	Read    []fieldText  `json:"read"`
	Held    []string     `json:"held_back"` // columns of the source that reach nothing
	Protect explained    `json:"protect"`
	Sinks   []explained  `json:"sinks"`
	Note    string       `json:"note,omitempty"`
	Running *runningText `json:"last_run,omitempty"`
}

// runningText says what the last run did with the stream.
type runningText struct {
	Version string `json:"version"`
	Same    bool   `json:"same"`
}

// explained is one phase.
type explained struct {
	Phase   string        `json:"phase"` // protect or the name of a sink
	Kind    string        `json:"kind,omitempty"`
	Target  string        `json:"target,omitempty"`
	Version string        `json:"version,omitempty"`
	Rules   []explainRule `json:"rules"`
	Out     []fieldText   `json:"out"`
}

// explainRule is what one rule does.
type explainRule struct {
	Rule  string   `json:"rule"`
	Place string   `json:"place"` // file:line
	Key   string   `json:"key,omitempty"`
	Does  []string `json:"does"`
}

type fieldText struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Key  bool   `json:"key,omitempty"`
}

func (a *app) explainCommand() *cobra.Command {
	var offline bool
	cmd := &cobra.Command{
		Use:   "explain STREAM",
		Short: "Say what each rule does to the fields of a stream, step by step",
		Long: "explain shows the columns of a stream, what each protect and shape rule does to them, what Kafka and each sink get,\n" +
			"and which columns are held back. It reads the columns from the source, or with --offline from what the last run\n" +
			"wrote down. It reads no rows and needs no keys.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := a.load()
			if err != nil {
				return err
			}
			if err := checkAll(f); err != nil {
				return err
			}
			e, err := explain(f, args[0], offline)
			if err != nil {
				return err
			}
			a.result = e
			if !a.json {
				fmt.Fprint(a.stdout, plainText(e.text()))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "use the columns that the last run has seen")
	return cmd
}

func explain(f *config.File, ref string, offline bool) (*explanation, error) {
	s, name, err := streamOf(f, ref)
	if err != nil {
		return nil, err
	}
	last, err := readMappings(f.Local(f.Dir))
	if err != nil {
		return nil, environment(err)
	}
	var seen *mapping
	if last != nil {
		seen = last.Protect[name.String()]
	}
	e := &explanation{Stream: name.String(), Known: "source", Held: []string{}, Sinks: []explained{}}
	var in *record.Schema
	if offline {
		if seen == nil || seen.In == nil {
			return nil, environment(fmt.Errorf("no run has written down the columns of %s; without --offline they are read from the source", name))
		}
		e.Known, in = "last run", seen.In
	} else if in, err = sourceSchema(f, s, name); err != nil {
		return nil, err
	}
	e.Read = fieldTexts(in)
	protect, sinks := phasesOf(f, s, name)
	if len(protect) > 0 && s.Columns == config.Hold && seen != nil && seen.In != nil {
		in = e.hold(in, seen.In, protect, f)
	}
	if e.Topic, err = topic.TopicName(f.Name, name); err != nil {
		return nil, invalid(err)
	}
	ctx, stop := untilTerminated()
	defer stop()
	x := explainer{c: chains{f: f, keys: func() *keys.Snapshot { return testKeys(f) }}}
	var refs []keys.Ref
	for _, u := range keyUses(f) {
		refs = append(refs, u.ref)
	}
	x.ring = keys.Open(ctx, refs, f.Base(), keys.Services{}) // what a service has wrapped is not asked for
	var out *record.Schema
	if e.Protect, out, err = x.phase("protect", protect, in, mappers.Protect); err != nil {
		return nil, err
	}
	if seen != nil {
		e.Running = &runningText{Version: seen.Version, Same: seen.Version == e.Protect.Version}
	}
	for _, t := range sinks {
		one, _, err := x.phase(t.sink.Name, t.stream.Shape, out, mappers.Shape)
		if err != nil {
			return nil, err
		}
		one.Kind, one.Target = t.sink.Kind, t.target()
		e.Sinks = append(e.Sinks, one)
	}
	return e, nil
}

func sourceSchema(f *config.File, s *config.Source, name record.StreamName) (*record.Schema, error) {
	if _, err := resolve(f); err != nil {
		return nil, environment(err)
	}
	ctx, stop := untilTerminated()
	defer stop()
	b, err := sample(ctx, f, s, name, 0)
	if err != nil {
		return nil, environment(fmt.Errorf("%s; --offline uses the columns that the last run has seen", redactor(f.SecretValues()).Replace(err.Error())))
	}
	return b.Schema, nil
}

// hold takes out the columns that are held back.
func (e *explanation) hold(in, seen *record.Schema, rules config.Rules, f *config.File) *record.Schema {
	e.Held = append(e.Held, heldBack(in, seen, rules, f)...)
	return without(in, e.Held)
}

// heldBack names the columns that came after the rules, of which seen are the
// columns, and that no rule names.
func heldBack(in, seen *record.Schema, rules config.Rules, f *config.File) (held []string) {
	list, _ := rulesOf(f, rules)
	if slices.ContainsFunc(list, func(r mappers.Rule) bool { return r.Keep != nil }) {
		return nil
	}
	for i := range in.Fields {
		if name := in.Fields[i].Name; seen.Index(name) < 0 && !mappers.Named(list, name) {
			held = append(held, name)
		}
	}
	return held
}

// without returns in without some fields.
func without(in *record.Schema, names []string) *record.Schema {
	if len(names) == 0 {
		return in
	}
	left := &record.Schema{Stream: in.Stream}
	for _, field := range in.Fields {
		if !slices.Contains(names, field.Name) {
			left.Fields = append(left.Fields, field)
		}
	}
	return left.Seal()
}

// explainer describes phases. The rules are bound with made-up keys; ring has
// the real ids as far as they are to be had.
type explainer struct {
	c    chains
	ring *keys.Snapshot
}

func (x explainer) phase(name string, rules config.Rules, in *record.Schema, p mappers.Phase) (explained, *record.Schema, error) {
	e := explained{Phase: name, Rules: []explainRule{}, Version: mappingOf(rules, x.ring, p).Version}
	steps, err := x.c.steps(rules, in, p)
	if err != nil {
		return e, nil, invalid(err)
	}
	before := in
	for i, r := range rules {
		one := explainRule{Rule: ruleTextOf(r, x.ring).Text, Place: fmt.Sprintf("%s:%d", x.c.f.Path(), r.Pos.Line)}
		for _, ref := range keyRefs(r.Settings) {
			one.Key = ref.String()
			if ring, ok := x.ring.Ring(ref); ok {
				one.Key += " " + ring.Primary().ID
			} else {
				e.Version = "" // it depends on a key that is not here
			}
		}
		one.Does = changes(before, steps[i].Out(), r)
		e.Rules = append(e.Rules, one)
		before = steps[i].Out()
	}
	e.Out = fieldTexts(before)
	return e, before, nil
}

// changes says how out differs from in.
func changes(in, out *record.Schema, r config.Rule) []string {
	var did []string
	m, _ := mappers.RuleOf(r.Settings)
	for i := range in.Fields {
		f := &in.Fields[i]
		at := out.Index(f.Name)
		switch {
		case at < 0:
			did = append(did, f.Name+" is gone")
		case typeText(f) != typeText(&out.Fields[at]):
			did = append(did, fmt.Sprintf("%s: %s → %s", f.Name, typeText(f), typeText(&out.Fields[at])))
		case r.Kind != "keep" && r.Kind != "allow" && r.Kind != "filter" && mappers.Named([]mappers.Rule{m}, f.Name):
			did = append(did, f.Name+": its values")
		}
	}
	for i := range out.Fields {
		if in.Index(out.Fields[i].Name) < 0 {
			did = append(did, fmt.Sprintf("+ %s %s", out.Fields[i].Name, typeText(&out.Fields[i])))
		}
	}
	if r.Kind == "filter" {
		did = append(did, "rows that match stay; one that stops matching is deleted at the sink")
	}
	if len(did) == 0 {
		did = []string{"nothing here"}
	}
	return did
}

func typeText(f *record.Field) string {
	switch {
	case f.Kind == record.Decimal:
		return fmt.Sprintf("decimal(%d,%d)", f.Precision, f.Scale)
	case f.Kind == record.Array && f.Elem != nil:
		return typeText(f.Elem) + "[]"
	}
	return f.Kind.String()
}

func fieldTexts(s *record.Schema) []fieldText {
	list := []fieldText{}
	for i := range s.Fields {
		f := &s.Fields[i]
		list = append(list, fieldText{f.Name, typeText(f), f.Key > 0})
	}
	return list
}

func fieldLine(fields []fieldText) string {
	var parts []string
	for _, f := range fields {
		p := f.Name + " " + f.Type
		if f.Key {
			p += " key"
		}
		parts = append(parts, p)
	}
	return strings.Join(parts, ", ")
}

func (e *explanation) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s   %s, columns from the %s\n", e.Stream, count(len(e.Read), "column"), e.Known)
	fmt.Fprintf(&b, "  read       %s\n", fieldLine(e.Read))
	if len(e.Held) > 0 {
		fmt.Fprintf(&b, "  held back  %s   until a protect rule or allow: names them\n", strings.Join(e.Held, ", "))
	}
	e.Protect.write(&b, "before Kafka")
	if e.Running != nil && !e.Running.Same && e.Protect.Version != "" {
		was := e.Running.Version
		if was == "" {
			was = "no rules"
		}
		fmt.Fprintf(&b, "             the last run had %s; sluice plan says what the change means\n", was)
	}
	fmt.Fprintf(&b, "  topic      %s   %s\n", e.Topic, fieldLine(e.Protect.Out))
	for _, s := range e.Sinks {
		s.write(&b, s.Kind)
		fmt.Fprintf(&b, "             → %s   %s\n", s.Target, fieldLine(s.Out))
	}
	if len(e.Sinks) == 0 {
		b.WriteString("  no sink reads it\n")
	}
	return b.String()
}

func (p explained) write(b *strings.Builder, where string) {
	version := p.Version
	switch {
	case len(p.Rules) == 0:
		version = "no rules"
	case version == "":
		version = "version unknown without the keys"
	}
	fmt.Fprintf(b, "  %-10s %s, %s\n", p.Phase, where, version)
	rows := [][]string{}
	for i, r := range p.Rules {
		key := ""
		if r.Key != "" {
			key = "key " + r.Key
		}
		rows = append(rows, []string{fmt.Sprintf("    %d  %s", i+1, r.Rule), strings.Join(r.Does, "; "), key, r.Place})
	}
	b.WriteString(aligned(rows))
}
