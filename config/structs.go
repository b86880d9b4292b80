package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// fieldTag is what the tags of a struct field say:
//
//	yaml      its name in the file; `yaml:",inline"` for an embedded struct
//	doc       one sentence for people and for the JSON Schema
//	default   its value when the file has none, as it would be written there
//	required  "true": the file must have it
//	enum      the texts allowed, with commas between them
//	min, max  limits of a number, a duration or a size
//	oneof     exactly one of the fields of the same group must be there;
//	          "group,optional" allows none
//	or        of a text or a list of texts: keys of a mapping that may stand in
//	          the place of one; {type: json} is then the text type:json
//	secret    "url": a Secret that is an address, in plain if it has no password
type fieldTag struct {
	name, doc, def, min, max string
	oneof                    string
	optional                 bool // of oneof
	required, address        bool
	enum                     []string
	or                       []string
}

type field struct {
	tag   fieldTag
	index []int
	typ   reflect.Type
}

// fieldsOf returns the settings of a struct type, those of inlined ones included.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if option == "inline" {
			for _, g := range fieldsOf(f.Type) {
				g.index = append([]int{i}, g.index...)
				fields = append(fields, g)
			}
			continue
		}
		if name == "" || name == "-" || !f.IsExported() {
			continue
		}
		tag := fieldTag{name: name, doc: f.Tag.Get("doc"), def: f.Tag.Get("default"), min: f.Tag.Get("min"), max: f.Tag.Get("max"),
			required: f.Tag.Get("required") == "true", address: f.Tag.Get("secret") == "url"}
		group, option, _ := strings.Cut(f.Tag.Get("oneof"), ",")
		tag.oneof, tag.optional = group, option == "optional"
		if e := f.Tag.Get("enum"); e != "" {
			tag.enum = strings.Split(e, ",")
		}
		if or := f.Tag.Get("or"); or != "" {
			tag.or = strings.Split(or, ",")
		}
		fields = append(fields, field{tag, []int{i}, f.Type})
	}
	return fields
}

// structs decodes one mapping into several structs, which share its keys.
func (d *decoder) structs(n *yaml.Node, path string, into []reflect.Value) {
	pairs, ok := d.mapping(n, path, "a mapping")
	if !ok {
		return
	}
	byName := map[string]reflect.Value{}
	tags := map[string]fieldTag{}
	var names []string
	var all []field
	for _, v := range into {
		for _, f := range fieldsOf(v.Type()) {
			byName[f.tag.name], tags[f.tag.name] = v.FieldByIndex(f.index), f.tag
			names = append(names, f.tag.name)
			all = append(all, f)
		}
	}
	given := map[string]bool{}
	for _, p := range pairs {
		v, ok := byName[p.key]
		if !ok {
			d.report(p.at, join(path, p.key), "unknown key%s", suggest(p.key, names))
			d.guess(given, tags, p.key)
			continue
		}
		given[p.key] = !isFalse(p.value)
		d.value(p.value, join(path, p.key), v, tags[p.key])
	}
	d.absent(n, path, all, byName, given)
	before := len(d.problems)
	for _, v := range into {
		if c, ok := v.Addr().Interface().(Checker); ok && before == len(d.problems) {
			c.Check(func(field, problem string) { d.reportAt(join2(path, field), "%s", problem) })
		}
	}
}

// guess marks the key that a misspelt one stands for as given: one mistake,
// one message.
func (d *decoder) guess(given map[string]bool, tags map[string]fieldTag, key string) {
	var names []string
	for name := range tags {
		names = append(names, name)
	}
	slices.Sort(names)
	if near := nearest(key, names); near != "" {
		given[near] = true
	}
}

func join2(path, field string) string {
	if field == "" {
		return path
	}
	return join(path, field)
}

// isFalse says that a switch is written down but off, which is as good as absent.
func isFalse(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!bool" && n.Value == "false"
}

// absent fills in defaults and reports what must be there and is not.
func (d *decoder) absent(n *yaml.Node, path string, fields []field, byName map[string]reflect.Value, given map[string]bool) {
	type group struct {
		names, have []string
		optional    bool
	}
	groups := map[string]*group{}
	var order []string
	for _, f := range fields {
		name := f.tag.name
		if f.tag.oneof != "" {
			g := groups[f.tag.oneof]
			if g == nil {
				g = &group{}
				groups[f.tag.oneof] = g
				order = append(order, f.tag.oneof)
			}
			g.names, g.optional = append(g.names, name), g.optional || f.tag.optional
			if given[name] {
				g.have = append(g.have, name)
			}
		}
		if given[name] {
			continue
		}
		if f.tag.required {
			d.report(n, join(path, name), "is missing%s", because(f.tag.doc))
		}
		d.defaults(byName[name], f.tag)
	}
	for _, o := range order {
		switch g := groups[o]; {
		case len(g.have) > 1:
			d.report(n, path, "has %s; only one of them can be", strings.Join(g.have, " and "))
		case len(g.have) == 0 && !g.optional:
			d.report(n, path, "needs one of %s", strings.Join(g.names, ", "))
		}
	}
}

func because(doc string) string {
	if doc == "" {
		return ""
	}
	return ": " + doc
}

// defaults sets v, which the file does not have, to its default.
func (d *decoder) defaults(v reflect.Value, tag fieldTag) {
	switch {
	case tag.def != "" && v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String:
		v.Set(reflect.ValueOf(strings.Split(tag.def, ",")).Convert(v.Type()))
	case tag.def != "":
		if err := setScalar(v, tag.def, tag); err != nil {
			panic(fmt.Sprintf("default of setting %s: %v", tag.name, err)) // a mistake in our own tags, found by any test
		}
	case v.Kind() == reflect.Struct && v.Type() != secretType:
		for _, f := range fieldsOf(v.Type()) {
			d.defaults(v.FieldByIndex(f.index), f.tag)
		}
	}
}
