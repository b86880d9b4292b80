package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Checker is implemented by settings whose fields depend on each other. Check
// is called once the settings are decoded; field names a setting below, as in
// rest.uri, or is empty for the settings as a whole.
type Checker interface {
	Check(report func(field, problem string))
}

// nodeValue is implemented by settings that decode themselves.
type nodeValue interface {
	decodeNode(d *decoder, n *yaml.Node, path string)
}

// maxNodes bounds what aliases can blow up a small file to.
const maxNodes = 200_000

type decoder struct {
	reg      *Registry
	file     *File
	problems Problems
	reported map[Problem]bool // what is in problems
	nodes    int
	open     map[*yaml.Node]bool // aliases being followed
}

func (d *decoder) report(n *yaml.Node, path, format string, args ...any) {
	p := Problem{File: d.file.path, Pos: Pos{max(n.Line, 1), max(n.Column, 1)}, Path: path, Message: fmt.Sprintf(format, args...)}
	if d.reported[p] { // an alias reports the mistake of its anchor again
		return
	}
	if d.reported == nil {
		d.reported = map[Problem]bool{}
	}
	d.reported[p] = true
	d.problems = append(d.problems, p)
}

// reportAt reports a mistake found after decoding, at the nearest place known.
func (d *decoder) reportAt(path, format string, args ...any) {
	for near := path; ; {
		if pos, ok := d.file.places[near]; ok {
			d.report(&yaml.Node{Line: pos.Line, Column: pos.Column}, path, format, args...)
			return
		}
		i := strings.LastIndexAny(near, ".[")
		if i < 0 {
			d.report(&yaml.Node{}, path, format, args...)
			return
		}
		near = near[:i]
	}
}

// enter follows aliases and notes the place of path; leave must be called
// after n was decoded. It returns nil for what must not be decoded.
func (d *decoder) enter(n *yaml.Node, path string) (target *yaml.Node, leave func()) {
	if d.nodes++; d.nodes > maxNodes {
		if d.nodes == maxNodes+1 {
			d.report(n, path, "the file has more than %d values once its aliases are replaced", maxNodes)
		}
		return nil, func() {}
	}
	d.file.places[path] = Pos{n.Line, n.Column}
	if n.Kind != yaml.AliasNode {
		return n, func() {}
	}
	t := n.Alias
	if t == nil || d.open[t] {
		d.report(n, path, "alias *%s holds itself", n.Value)
		return nil, func() {}
	}
	d.open[t] = true
	return t, func() { delete(d.open, t) }
}

type pair struct {
	key   string
	at    *yaml.Node // the key
	value *yaml.Node
}

// mapping returns the entries of n in their order, with merges (<<) filled in.
func (d *decoder) mapping(n *yaml.Node, path, want string) (pairs []pair, ok bool) {
	if isNull(n) {
		return nil, true
	}
	if n.Kind != yaml.MappingNode {
		d.report(n, path, "want %s, got %s", want, describe(n))
		return nil, false
	}
	first := map[string]*yaml.Node{}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Tag == "!!merge":
			merges = append(merges, v)
		case k.Kind != yaml.ScalarNode:
			d.report(k, path, "want a name here, got %s", describe(k))
		case first[k.Value] != nil:
			d.report(k, join(path, k.Value), "is there twice; the first one is in line %d", first[k.Value].Line)
		default:
			first[k.Value] = k
			pairs = append(pairs, pair{k.Value, k, v})
		}
	}
	for _, m := range merges {
		pairs = d.merge(pairs, first, m, path)
	}
	return pairs, true
}

func (d *decoder) merge(pairs []pair, have map[string]*yaml.Node, m *yaml.Node, path string) []pair {
	target, leave := d.enter(m, path+".<<")
	defer leave()
	if target == nil {
		return pairs
	}
	if target.Kind == yaml.SequenceNode {
		for _, e := range target.Content {
			pairs = d.merge(pairs, have, e, path)
		}
		return pairs
	}
	more, ok := d.mapping(target, path+".<<", "a mapping to merge")
	if !ok {
		return pairs
	}
	for _, p := range more {
		if have[p.key] == nil {
			have[p.key] = p.at
			pairs = append(pairs, p)
		}
	}
	return pairs
}

// value decodes n into v, which is settable.
func (d *decoder) value(n *yaml.Node, path string, v reflect.Value, tag fieldTag) {
	n, leave := d.enter(n, path)
	defer leave()
	if n == nil {
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch target := v.Addr().Interface().(type) {
	case nodeValue:
		target.decodeNode(d, n, path)
		return
	case *Secret:
		d.secret(n, path, target, tag)
		return
	case *yaml.Node: // a template: whoever reads it knows what it may hold
		*target = *n
		return
	case encoding.TextUnmarshaler:
		if text, ok := d.text(n, path, "a text"); ok {
			if err := target.UnmarshalText([]byte(text)); err != nil {
				d.report(n, path, "%v", err)
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structs(n, path, []reflect.Value{v})
	case reflect.Slice:
		d.slice(n, path, v, tag)
	case reflect.Map:
		d.goMap(n, path, v, tag)
	case reflect.String:
		d.string(n, path, v, tag)
	default:
		if n.Kind != yaml.ScalarNode || isNull(n) {
			d.report(n, path, "want %s, got %s", wanted(v.Type()), describe(n))
			return
		}
		if err := setScalar(v, n.Value, tag); err != nil {
			d.report(n, path, "%v", err)
		}
	}
}

func (d *decoder) slice(n *yaml.Node, path string, v reflect.Value, tag fieldTag) {
	if isNull(n) {
		return
	}
	if n.Kind == yaml.MappingNode && len(tag.or) > 0 {
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		d.instead(n, path, v.Index(0), tag)
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.report(n, path, "want a list, got %s%s", describe(n), listFix(n))
		return
	}
	// All elements are made at once: pending references point into them.
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, e := range n.Content {
		d.value(e, path+"["+strconv.Itoa(i)+"]", v.Index(i), tag)
	}
}

func listFix(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && !strings.Contains(n.Value, "${") {
		return fmt.Sprintf("; write [%s]", n.Value)
	}
	return ""
}

func (d *decoder) goMap(n *yaml.Node, path string, v reflect.Value, tag fieldTag) {
	pairs, ok := d.mapping(n, path, "a mapping")
	if !ok {
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(pairs)))
	for _, p := range pairs {
		e := reflect.New(v.Type().Elem()).Elem()
		key, before := reflect.ValueOf(p.key).Convert(v.Type().Key()), len(d.file.pending)
		d.value(p.value, join(path, p.key), e, tag)
		v.SetMapIndex(key, e)
		for i := before; i < len(d.file.pending); i++ { // a map holds copies
			set := d.file.pending[i].set
			d.file.pending[i].set = func(value string) error {
				err := set(value)
				v.SetMapIndex(key, e)
				return err
			}
		}
	}
}

// text returns the text of a scalar.
func (d *decoder) text(n *yaml.Node, path, want string) (string, bool) {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		d.report(n, path, "want %s, got %s", want, describe(n))
		return "", false
	}
	return n.Value, true
}

// instead decodes a mapping with one of the keys of tag.or into a text: {type: json} is type:json.
func (d *decoder) instead(n *yaml.Node, path string, v reflect.Value, tag fieldTag) {
	pairs, ok := d.mapping(n, path, "a mapping")
	if !ok {
		return
	}
	if len(pairs) != 1 || !contains(tag.or, pairs[0].key) {
		d.report(n, path, "want a text or a mapping with one of %s", strings.Join(tag.or, ", "))
		return
	}
	if text, ok := d.text(pairs[0].value, join(path, pairs[0].key), "a text"); ok {
		v.SetString(pairs[0].key + ":" + text)
	}
}

func (d *decoder) string(n *yaml.Node, path string, v reflect.Value, tag fieldTag) {
	if n.Kind == yaml.MappingNode && len(tag.or) > 0 {
		d.instead(n, path, v, tag)
		return
	}
	text, ok := d.text(n, path, "a text")
	if !ok {
		return
	}
	if n.Tag != "!!str" {
		// 0123 and no are not the texts they look like to everybody.
		d.report(n, path, "want a text, got %s; write it in quotes: \"%s\"", describe(n), text)
		return
	}
	refs, err := references(text)
	if err != nil {
		d.report(n, path, "%v", err)
		return
	}
	if len(refs) == 0 {
		if err := setScalar(v, unescape(text), tag); err != nil {
			d.report(n, path, "%v", err)
		}
		return
	}
	v.SetString(text)
	d.file.pending = append(d.file.pending, pending{path: path, pos: Pos{n.Line, n.Column}, text: text, refs: refs,
		set: func(value string) error { return setScalar(v, value, tag) }})
}

func (d *decoder) secret(n *yaml.Node, path string, s *Secret, tag fieldTag) {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		d.report(n, path, "want ${env:NAME} or ${file:path}, got %s", describe(n))
		return
	}
	if err := checkSecret(n.Value, tag.address); err != nil {
		d.report(n, path, "%v", err)
		return
	}
	refs, _ := references(n.Value)
	s.text = n.Value
	if len(refs) == 0 {
		s.value = unescape(n.Value)
		return
	}
	d.file.pending = append(d.file.pending, pending{path: path, pos: Pos{n.Line, n.Column}, text: n.Value, refs: refs, secret: true,
		set: func(value string) error { s.value = value; return nil }})
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		if len(n.Content) == 0 {
			return "an empty list"
		}
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "true or false"
	case "!!int", "!!float":
		return "a number"
	case "!!timestamp":
		return "a date"
	}
	return "a text"
}

func wanted(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration such as 10s"
	case t == bytesType:
		return "a size such as 64MiB"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
