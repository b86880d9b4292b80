package config

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	referencePattern = `\$\{(env|file):[^}]+\}`
	durationPattern  = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`
	bytesPattern     = `^[0-9]+(\.[0-9]+)? *([KMGT]iB|[kKMGT]B|B)$`
)

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

type object = map[string]any

// JSONSchema returns a JSON Schema (draft 2020-12) of the files that r loads.
// Editors complete and check with it; Load knows more than it can say.
func (r *Registry) JSONSchema() ([]byte, error) {
	root := r.structSchema(reflect.TypeFor[File]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "sluice pipeline"
	root["$defs"] = object{
		"rules": object{"type": "array", "items": oneKey(r, r.Rules, nil, nil)},
	}
	b, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write JSON Schema: %w", err)
	}
	return append(b, '\n'), nil
}

// oneKey describes a mapping with exactly one of the kinds as a key, beside others.
func oneKey(r *Registry, kinds []Kind, others object, required []string) object {
	properties, choice := object{}, []any{}
	maps.Copy(properties, others)
	for _, k := range kinds {
		s := r.typeSchema(reflect.TypeOf(k.New()).Elem(), fieldTag{})
		if k.Doc != "" {
			s["description"] = k.Doc
		}
		properties[k.Name] = s
		choice = append(choice, object{"required": []string{k.Name}})
	}
	s := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(choice) > 0 {
		s["oneOf"] = choice
	}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

func named(entry object) object {
	return object{"type": "object", "propertyNames": object{"pattern": namePattern.String(), "maxLength": maxNameBytes},
		"additionalProperties": entry}
}

func (r *Registry) sourcesSchema() object {
	others := object{"protect": object{
		"description": "rules per table that run before anything reaches Kafka",
		"type":        "object", "additionalProperties": object{"$ref": "#/$defs/rules"},
	}}
	maps.Copy(others, r.structSchema(reflect.TypeFor[sourceRest]())["properties"].(object))
	s := named(oneKey(r, r.Sources, others, nil))
	s["minProperties"] = 1
	return s
}

func (r *Registry) sinksSchema() object {
	var choices []any
	for _, k := range r.Sinks {
		stream := r.structSchema(reflect.TypeFor[Stream]())
		if k.NewStream != nil {
			more := r.structSchema(reflect.TypeOf(k.NewStream()).Elem())
			maps.Copy(stream["properties"].(object), more["properties"].(object))
			required, _ := stream["required"].([]string)
			also, _ := more["required"].([]string)
			stream["required"] = append(slices.Clone(required), also...)
		}
		streams := object{"streams": object{"type": "array", "minItems": 1, "items": stream}}
		choices = append(choices, oneKey(r, []Kind{k}, streams, []string{"streams"}))
	}
	if len(choices) == 1 {
		return named(choices[0].(object))
	}
	return named(object{"oneOf": choices})
}

func (r *Registry) structSchema(t reflect.Type) object {
	properties := object{}
	var required []string
	groups := map[string][]string{}
	optional := map[string]bool{}
	for _, f := range fieldsOf(t) {
		s := object{"type": "object"} // of a struct that holds its own kind
		if f.typ != reflect.PointerTo(t) {
			s = r.typeSchema(f.typ, f.tag)
		}
		if f.tag.doc != "" {
			s["description"] = f.tag.doc
		}
		properties[f.tag.name] = s
		if f.tag.required {
			required = append(required, f.tag.name)
		}
		if g := f.tag.oneof; g != "" {
			groups[g] = append(groups[g], f.tag.name)
			optional[g] = optional[g] || f.tag.optional
		}
	}
	s := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	var all []any
	for _, g := range slices.Sorted(maps.Keys(groups)) {
		all = append(all, chooseOne(groups[g], properties, optional[g]))
	}
	if len(all) > 0 {
		s["allOf"] = all
	}
	return s
}

// chooseOne says that exactly one (or none, if optional) of the names is
// there; a switch that is off counts as absent.
func chooseOne(group []string, properties object, optional bool) object {
	var choice []any
	there := func(name string) object {
		o := object{"required": []string{name}}
		if properties[name].(object)["type"] == "boolean" {
			o["properties"] = object{name: object{"const": true}}
		}
		return o
	}
	for _, name := range group {
		choice = append(choice, there(name))
	}
	if optional {
		choice = append(choice, object{"not": object{"anyOf": slices.Clone(choice)}})
	}
	return object{"oneOf": choice}
}

func (r *Registry) typeSchema(t reflect.Type, tag fieldTag) object {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	s := object{}
	switch {
	case t == reflect.TypeFor[Sources]():
		return r.sourcesSchema()
	case t == reflect.TypeFor[Sinks]():
		return r.sinksSchema()
	case t == rowType:
		return object{"type": "object"}
	case t == rulesType:
		return object{"$ref": "#/$defs/rules"}
	case t == reflect.TypeFor[yaml.Node]():
		return object{} // anything
	case t == secretType:
		s["type"] = "string"
		if !tag.address {
			s["pattern"] = "^" + referencePattern + "$"
		}
	case t == durationType:
		s["type"], s["pattern"] = "string", durationPattern
	case t == bytesType:
		s["type"], s["pattern"] = "string", bytesPattern
	case reflect.PointerTo(t).Implements(textUnmarshaler):
		s["type"] = "string"
	case t.Kind() == reflect.Struct:
		return r.structSchema(t)
	case t.Kind() == reflect.Slice:
		s["type"] = "array"
		s["items"] = r.typeSchema(t.Elem(), fieldTag{enum: tag.enum, min: tag.min, max: tag.max, or: tag.or})
		if len(tag.or) > 0 {
			return object{"anyOf": []any{s, orSchema(tag.or)}}
		}
	case t.Kind() == reflect.Map:
		s["type"] = "object"
		s["additionalProperties"] = r.typeSchema(t.Elem(), fieldTag{})
	case t.Kind() == reflect.String:
		s["type"] = "string"
		if len(tag.enum) > 0 {
			s = object{"anyOf": []any{object{"enum": tag.enum}, object{"type": "string", "pattern": referencePattern}}}
		}
		if len(tag.or) > 0 {
			return object{"anyOf": []any{s, orSchema(tag.or)}}
		}
	case t.Kind() == reflect.Bool:
		s["type"] = "boolean"
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		s["type"] = "number"
		limits(s, tag)
	default:
		s["type"] = "integer"
		limits(s, tag)
	}
	if tag.def != "" {
		s["default"] = defaultValue(s["type"], tag.def)
	}
	return s
}

// orSchema describes a mapping with exactly one of keys.
func orSchema(keys []string) object {
	properties := object{}
	for _, k := range keys {
		properties[k] = object{"type": "string"}
	}
	return object{"type": "object", "properties": properties, "additionalProperties": false, "minProperties": 1, "maxProperties": 1}
}

func limits(s object, tag fieldTag) {
	for key, text := range map[string]string{"minimum": tag.min, "maximum": tag.max} {
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			s[key] = n
		}
	}
}

func defaultValue(kind any, text string) any {
	switch kind {
	case "boolean":
		return text == "true"
	case "integer", "number":
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			return n
		}
	case "array":
		return strings.Split(text, ",")
	}
	return text
}
