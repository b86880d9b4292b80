package config

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Kind is one kind of source, sink or rule that a file may name.
type Kind struct {
	Name string // the key in the file: postgres, iceberg, hash
	Doc  string // one sentence for people

	// New returns a pointer to the settings of this kind, to be filled from
	// the file: a struct with the tags of fieldTag, or a map.
	New func() any

	// NewStream, of sinks, returns a pointer to the struct of the settings
	// that an entry of streams has beside from and shape.
	NewStream func() any

	// Streams, of sources, returns the local names (schema.table) of the
	// streams that the settings list; nil when only the source knows them.
	Streams func(settings any) []string

	// StreamsField, of sources, is the setting that Streams comes from: tables.
	StreamsField string

	// Target, of sinks, returns what an entry of streams is written to, as
	// two entries must not have the same one; "" when it cannot clash.
	Target func(stream any) string

	// Outlets, of sinks, returns the local names of the streams that a sink
	// itself publishes, such as outcomes; other sinks may read them.
	Outlets func(settings any) []string
}

// Registry holds the kinds that files may name.
type Registry struct {
	Sources, Sinks, Rules []Kind

	// SplitStream splits a stream reference into the name of its source and
	// its local name in canonical spelling.
	SplitStream func(ref string) (source, local string, err error)
}

func names(kinds []Kind) []string {
	list := make([]string, len(kinds))
	for i := range kinds {
		list[i] = kinds[i].Name
	}
	return list
}

func find(kinds []Kind, name string) *Kind {
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return nil
	}
	return &kinds[i]
}

// Source is one entry of sources.
type Source struct {
	Name     string
	Kind     string
	Settings any // what Kind.New returned, filled
	Streams  []string
	Protect  []Protect
	Columns  NewColumns
	Tags     Tags

	known bool // Streams is the whole list
}

// Protect are the rules that run on one stream before anything reaches Kafka.
type Protect struct {
	Stream string // local name in canonical spelling
	Rules  Rules
}

// NewColumns says what happens to a column that appears later in a stream
// with protect rules.
type NewColumns string

// The choices of new_columns.
const (
	Hold NewColumns = "hold" // left out until a rule or allow names it
	Pass NewColumns = "pass"
)

// sourceRest are the settings of a source beside its kind and protect.
type sourceRest struct {
	NewColumns NewColumns `yaml:"new_columns" default:"hold" enum:"hold,pass" doc:"what happens to columns that appear later in a stream with protect rules"`
	Tags       Tags       `yaml:"tags" doc:"tags of columns by table, which rules select fields by: {public.customers: {email: [pii]}}"`
}

// Tags are the tags of columns, by the local name of a stream and by column.
type Tags map[string]map[string][]string

// Sources are the sources of a file in its order.
type Sources []*Source

// Sink is one entry of sinks.
type Sink struct {
	Name     string
	Kind     string
	Settings any // what Kind.New returned, filled
	Streams  []*Stream
}

// Sinks are the sinks of a file in its order.
type Sinks []*Sink

// Stream is one entry of streams of a sink.
type Stream struct {
	From  string `yaml:"from" required:"true" doc:"the stream to read: source.schema.table"`
	Shape Rules  `yaml:"shape" doc:"rules that run in this sink only, in this order"`

	Source   string `yaml:"-"` // the source of From
	Local    string `yaml:"-"` // the local name of From in canonical spelling
	Settings any    `yaml:"-"` // what Kind.NewStream returned, filled
}

// Rule is one rule of a chain.
type Rule struct {
	Kind     string
	Settings any    // what Kind.New returned, filled
	Path     string // where it is in the file, for errors: sinks.lake.streams[0].shape[1]
	Pos      Pos
}

// Rules is an ordered list of rules: a list of mappings with one key each.
type Rules []Rule

// one decodes the single entry of pairs that names a kind. others are keys
// that stand beside it.
func (d *decoder) one(n *yaml.Node, path, what string, pairs []pair, kinds []Kind, others ...string) (*Kind, any) {
	var kind *Kind
	var settings any
	misspelt := false
	for _, p := range pairs {
		if contains(others, p.key) {
			continue
		}
		k := find(kinds, p.key)
		switch {
		case k == nil:
			d.report(p.at, join(path, p.key), "unknown kind of %s%s", what, suggest(p.key, append(names(kinds), others...)))
			misspelt = true
		case kind != nil:
			d.report(p.at, join(path, p.key), "a %s has one kind; this one is %s already", what, kind.Name)
		default:
			kind, settings = k, k.New()
			d.value(p.value, join(path, p.key), reflect.ValueOf(settings).Elem(), fieldTag{name: k.Name})
		}
	}
	if kind == nil && !misspelt {
		d.report(n, path, "needs its kind, one of: %s", strings.Join(names(kinds), ", "))
	}
	return kind, settings
}

func (s *Sources) decodeNode(d *decoder, n *yaml.Node, path string) {
	pairs, ok := d.mapping(n, path, "a mapping of names to sources")
	if !ok {
		return
	}
	for _, p := range pairs {
		at := join(path, p.key)
		d.checkName(p.at, at, p.key)
		v, leave := d.enter(p.value, at)
		if v == nil {
			leave()
			continue
		}
		entry, ok := d.mapping(v, at, "a mapping with the kind of the source")
		if ok {
			source := &Source{Name: p.key}
			kind, settings := d.one(p.at, at, "source", entry, d.reg.Sources, "protect", "new_columns", "tags")
			if kind != nil {
				source.Kind, source.Settings = kind.Name, settings
			}
			d.protect(entry, at, source)
			rest := sourceRest{NewColumns: Hold}
			for k, f := range fieldsOf(reflect.TypeFor[sourceRest]()) {
				if i := slices.IndexFunc(entry, func(p pair) bool { return p.key == f.tag.name }); i >= 0 {
					d.value(entry[i].value, join(at, f.tag.name), reflect.ValueOf(&rest).Elem().Field(k), f.tag)
				}
			}
			source.Columns, source.Tags = rest.NewColumns, rest.Tags
			*s = append(*s, source)
		}
		leave()
	}
}

func (d *decoder) protect(entry []pair, path string, s *Source) {
	i := slices.IndexFunc(entry, func(p pair) bool { return p.key == "protect" })
	if i < 0 {
		return
	}
	path = join(path, "protect")
	n, leave := d.enter(entry[i].value, path)
	defer leave()
	if n == nil {
		return
	}
	pairs, ok := d.mapping(n, path, "a mapping of tables to rules")
	if !ok {
		return
	}
	s.Protect = make([]Protect, len(pairs)) // at once: pending references point into it
	for i, p := range pairs {
		s.Protect[i].Stream = p.key
		at := join(path, p.key)
		d.value(p.value, at, reflect.ValueOf(&s.Protect[i].Rules).Elem(), fieldTag{})
		d.file.places[at] = Pos{p.at.Line, p.at.Column}
	}
}

func (s *Sinks) decodeNode(d *decoder, n *yaml.Node, path string) {
	pairs, ok := d.mapping(n, path, "a mapping of names to sinks")
	if !ok {
		return
	}
	for _, p := range pairs {
		at := join(path, p.key)
		d.checkName(p.at, at, p.key)
		v, leave := d.enter(p.value, at)
		if v == nil {
			leave()
			continue
		}
		entry, ok := d.mapping(v, at, "a mapping with the kind of the sink and its streams")
		if ok {
			sink := &Sink{Name: p.key}
			kind, settings := d.one(p.at, at, "sink", entry, d.reg.Sinks, "streams")
			if kind != nil {
				sink.Kind, sink.Settings = kind.Name, settings
				d.streams(p.at, entry, at, sink, kind)
			}
			*s = append(*s, sink)
		}
		leave()
	}
}

func (d *decoder) streams(name *yaml.Node, entry []pair, path string, s *Sink, kind *Kind) {
	path = join(path, "streams")
	i := slices.IndexFunc(entry, func(p pair) bool { return p.key == "streams" })
	if i < 0 {
		d.report(name, path, "is missing: the streams that this sink reads")
		return
	}
	n, leave := d.enter(entry[i].value, path)
	defer leave()
	if n == nil {
		return
	}
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		d.report(n, path, "want a list of streams, each as {from: source.schema.table, …}, got %s", describe(n))
		return
	}
	for i, e := range n.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		e, leave := d.enter(e, at)
		if e != nil {
			stream := &Stream{}
			into := []reflect.Value{reflect.ValueOf(stream).Elem()}
			if kind.NewStream != nil {
				stream.Settings = kind.NewStream()
				into = append(into, reflect.ValueOf(stream.Settings).Elem())
			}
			d.structs(e, at, into)
			s.Streams = append(s.Streams, stream)
		}
		leave()
	}
}

func (r *Rules) decodeNode(d *decoder, n *yaml.Node, path string) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.report(n, path, "want a list of rules, each as \"- rule: {…}\", got %s", describe(n))
		return
	}
	for i, e := range n.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		e, leave := d.enter(e, at)
		if e == nil {
			leave()
			continue
		}
		if pairs, ok := d.mapping(e, at, "a rule as one key with its settings"); ok {
			kind, settings := d.one(e, at, "rule", pairs, d.reg.Rules)
			if kind != nil {
				*r = append(*r, Rule{Kind: kind.Name, Settings: settings, Path: at + "." + kind.Name, Pos: Pos{e.Line, e.Column}})
			}
		}
		leave()
	}
}
