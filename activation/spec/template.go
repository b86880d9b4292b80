package spec

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-data/sluice/activation/delivery"
)

// node is a part of a body: a literal, a variable, a list or an object.
type node struct {
	literal  []byte
	variable string
	list     []node
	names    []string
	values   []node
	merge    []string // of an object: "match" and "fields" spread into it
	object   bool
}

// scope is what the variables of a template stand for.
type scope struct {
	object    *Object
	name      string // of the object
	operation delivery.Operation
	version   string
	change    *delivery.Change
	reference *delivery.Reference
	fields    []string // asked for by a lookup
	trace     int
	items     [][]byte
	values    string // of a lookup, written out
	job       string
}

var variables = []string{"match.name", "match.value", "match.text", "id", "fields", "trace", "object", "operation", "items", "item",
	"reference.id", "reference.type", "reference.category", "reference.object", "idempotency", "names", "seed"}

// parseNode turns YAML into a template.
func parseNode(y *yaml.Node) (node, error) {
	switch y.Kind {
	case 0:
		return node{}, nil
	case yaml.AliasNode:
		return parseNode(y.Alias)
	case yaml.ScalarNode:
		if name, ok := strings.CutPrefix(y.Value, "$"); ok {
			if !slices.Contains(variables, name) {
				return node{}, fmt.Errorf("line %d: unknown variable $%s, known are $%s", y.Line, name, strings.Join(variables, ", $"))
			}
			return node{variable: name}, nil
		}
		var v any
		if err := y.Decode(&v); err != nil {
			return node{}, fmt.Errorf("line %d: %w", y.Line, err)
		}
		b, err := json.Marshal(v)
		return node{literal: b}, err
	case yaml.SequenceNode:
		n := node{list: make([]node, 0, len(y.Content))}
		for _, c := range y.Content {
			child, err := parseNode(c)
			if err != nil {
				return node{}, err
			}
			n.list = append(n.list, child)
		}
		return n, nil
	case yaml.MappingNode:
		n := node{object: true}
		for i := 0; i+1 < len(y.Content); i += 2 {
			name, value := y.Content[i].Value, y.Content[i+1]
			if name == "$merge" {
				if err := value.Decode(&n.merge); err != nil {
					return node{}, fmt.Errorf("line %d: $merge: %w", value.Line, err)
				}
				for _, m := range n.merge {
					if m != "match" && m != "fields" {
						return node{}, fmt.Errorf("line %d: $merge takes match and fields, not %q", value.Line, m)
					}
				}
				continue
			}
			child, err := parseNode(value)
			if err != nil {
				return node{}, err
			}
			n.names, n.values = append(n.names, name), append(n.values, child)
		}
		return n, nil
	}
	return node{}, fmt.Errorf("line %d: unexpected YAML", y.Line)
}

func (n *node) empty() bool {
	return n.literal == nil && n.variable == "" && n.list == nil && !n.object
}

// append writes n as JSON.
func (n *node) append(dst []byte, s *scope) []byte {
	switch {
	case n.variable != "":
		return s.variable(dst, n.variable)
	case n.list != nil:
		dst = append(dst, '[')
		for i := range n.list {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = n.list[i].append(dst, s)
		}
		return append(dst, ']')
	case n.object:
		dst = append(dst, '{')
		start := len(dst)
		for i := range n.names {
			if len(dst) > start {
				dst = append(dst, ',')
			}
			dst = appendText(dst, n.names[i])
			dst = append(dst, ':')
			dst = n.values[i].append(dst, s)
		}
		if len(n.merge) > 0 {
			dst = s.object.members(dst, len(dst) > start, s.change, n.merge)
		}
		return append(dst, '}')
	}
	return append(dst, n.literal...)
}

// variable writes the value of the variable name.
func (s *scope) variable(dst []byte, name string) []byte {
	switch name {
	case "match.name":
		return appendText(dst, s.change.Match.Name)
	case "match.value":
		return append(dst, s.object.value(&s.change.Match)...)
	case "match.text":
		return appendText(dst, scalarText(s.change.Match.Value))
	case "id":
		return appendText(dst, s.change.ID)
	case "fields":
		dst = append(dst, '{')
		dst = s.object.members(dst, false, s.change, []string{"fields"})
		return append(dst, '}')
	case "trace":
		return append(strconv.AppendInt(append(dst, '"'), int64(s.trace), 10), '"')
	case "object":
		return appendText(dst, s.name)
	case "operation":
		return appendText(dst, s.operation.String())
	case "idempotency":
		return appendText(dst, s.change.Idempotency)
	case "item":
		return append(dst, s.items[0]...)
	case "items":
		dst = append(dst, '[')
		for i, item := range s.items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, item...)
		}
		return append(dst, ']')
	case "names":
		b, _ := json.Marshal(append([]string{}, s.fields...)) // strings always marshal
		return append(dst, b...)
	case "seed":
		return appendText(dst, s.values)
	case "reference.id":
		return appendText(dst, s.reference.ID)
	case "reference.object":
		return appendText(dst, s.reference.Object)
	case "reference.category":
		category, _, found := strings.Cut(s.reference.Type, ":")
		if !found {
			category = "USER_DEFINED"
		}
		return appendText(dst, category)
	case "reference.type":
		_, kind, found := strings.Cut(s.reference.Type, ":")
		if !found {
			kind = s.reference.Type
		}
		if n, err := strconv.Atoi(kind); err == nil {
			return strconv.AppendInt(dst, int64(n), 10)
		}
		return appendText(dst, kind)
	}
	return append(dst, "null"...)
}

// members writes the fields of a change, nested where the object says so.
func (o *Object) members(dst []byte, comma bool, c *delivery.Change, merge []string) []byte {
	fields := make([]*delivery.Field, 0, len(c.Fields)+1)
	for i := range c.Fields {
		fields = append(fields, &c.Fields[i])
	}
	if slices.Contains(merge, "match") && c.Match.Name != "" && len(c.Match.Value) > 0 &&
		!slices.ContainsFunc(fields, func(f *delivery.Field) bool { return f.Name == c.Match.Name }) {
		fields = append(fields, &c.Match)
	}
	if !o.Nested {
		for _, f := range fields {
			if comma {
				dst = append(dst, ',')
			}
			comma = true
			dst = appendText(dst, f.Name)
			dst = append(dst, ':')
			dst = append(dst, o.value(f)...)
		}
		return dst
	}
	root := &branch{}
	for _, f := range fields {
		at := root
		for _, part := range strings.Split(f.Name, ".") {
			at = at.child(part)
		}
		at.leaf = o.value(f)
	}
	return root.members(dst, comma)
}

// branch is an object that dotted names open.
type branch struct {
	names []string
	kids  []*branch
	leaf  []byte
}

func (b *branch) child(name string) *branch {
	if i := slices.Index(b.names, name); i >= 0 {
		return b.kids[i]
	}
	kid := &branch{}
	b.names, b.kids = append(b.names, name), append(b.kids, kid)
	return kid
}

func (b *branch) members(dst []byte, comma bool) []byte {
	for i, kid := range b.kids {
		if comma {
			dst = append(dst, ',')
		}
		comma = true
		dst = appendText(dst, b.names[i])
		dst = append(dst, ':')
		if kid.names == nil {
			dst = append(dst, kid.leaf...)
			continue
		}
		dst = append(dst, '{')
		dst = kid.members(dst, false)
		dst = append(dst, '}')
	}
	return dst
}

// value returns the JSON of f as the vendor wants it.
func (o *Object) value(f *delivery.Field) []byte {
	switch {
	case f.Clear:
		return o.clear
	case len(f.Value) == 0:
		return []byte("null")
	case o.Values == "text" && f.Value[0] != '"' && string(f.Value) != "null":
		return appendText(nil, joinedText(f.Value, o.Join))
	}
	return f.Value
}

// scalarText returns the text of a JSON value: a string's content, anything
// else as it is written.
func scalarText(v []byte) string {
	if len(v) > 0 && v[0] == '"' {
		var s string
		if json.Unmarshal(v, &s) == nil {
			return s
		}
	}
	return string(v)
}

// joinedText is scalarText with the elements of a list put together.
func joinedText(v []byte, separator string) string {
	if separator == "" || len(v) == 0 || v[0] != '[' {
		return scalarText(v)
	}
	var list []json.RawMessage
	if json.Unmarshal(v, &list) != nil {
		return string(v)
	}
	parts := make([]string, len(list))
	for i := range list {
		parts[i] = scalarText(list[i])
	}
	return strings.Join(parts, separator)
}

// appendText writes s as a JSON string.
func appendText(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			b, _ := json.Marshal(s) // a string always marshals
			return append(dst, b...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// placeholders that paths may hold.
var placeholders = []string{"object", "version", "match", "value", "values", "id", "ids", "job", "leaf", "fields", "reference.object", "reference.id"}

// expand fills the placeholders of a path, escaped for where they stand.
func expand(path string, s *scope, ids []string) string {
	var b strings.Builder
	query := false
	for {
		open := strings.IndexByte(path, '{')
		if open < 0 {
			break
		}
		end := strings.IndexByte(path[open:], '}')
		if end < 0 {
			break
		}
		head := path[:open]
		query = query || strings.Contains(head, "?")
		b.WriteString(head)
		v := s.placeholder(path[open+1:open+end], ids)
		if query {
			v = url.QueryEscape(v)
		} else {
			v = url.PathEscape(v)
		}
		b.WriteString(v)
		path = path[open+end+1:]
	}
	b.WriteString(path)
	return b.String()
}

func (s *scope) placeholder(name string, ids []string) string {
	switch name {
	case "object":
		return s.name
	case "version":
		return s.version
	case "match":
		if s.change != nil {
			return s.change.Match.Name
		}
	case "value":
		if s.change != nil {
			return scalarText(s.change.Match.Value)
		}
	case "leaf":
		if s.change != nil {
			return s.change.Match.Name[strings.LastIndexByte(s.change.Match.Name, '.')+1:]
		}
	case "values":
		return s.values
	case "id":
		if s.change != nil {
			return s.change.ID
		}
	case "ids":
		return strings.Join(ids, ",")
	case "job":
		return s.job
	case "fields":
		return strings.Join(s.fields, ",")
	case "reference.object":
		if s.reference != nil {
			return s.reference.Object
		}
	case "reference.id":
		if s.reference != nil {
			return s.reference.ID
		}
	}
	return ""
}
