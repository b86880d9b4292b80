package mappers

import (
	"slices"
	"strings"

	"github.com/sluice-data/sluice/record"
)

// A name in a rule that hides, drops, keeps, allows or nests fields may select
// fields by more than their name:
//
//	*email*       every field whose name fits, in any case; also matching:*email*
//	type:text     every field of a type
//	tagged:pii    every field with a tag
//	"a*b.c"       the field of exactly that name
//
// A selector also takes in the column that somebody adds next year, from its
// first value on. A field that has exactly that name comes first.
const (
	byPattern = "matching:"
	byType    = "type:"
	byTag     = "tagged:"
)

// isPattern reports whether name selects fields by more than their name. The *
// of [*] is an index.
func isPattern(name string) bool {
	switch {
	case strings.HasPrefix(name, `"`):
		return false
	case strings.HasPrefix(name, byPattern), strings.HasPrefix(name, byType), strings.HasPrefix(name, byTag):
		return true
	}
	return strings.Contains(strings.ReplaceAll(name, "[*]", ""), "*")
}

// matches reports whether a pattern fits the whole of name, in any case: a
// protect rule must not miss EMail.
func matches(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	if last == 0 {
		return pattern == name
	}
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	for _, p := range parts[1:last] {
		i := strings.Index(name, p)
		if i < 0 {
			return false
		}
		name = name[i+len(p):]
	}
	return strings.HasSuffix(name, parts[last])
}

// selects reports whether name, which a rule holds, speaks of f. Kind and Tags
// of f may be unknown.
func selects(name string, f *record.Field) bool {
	switch {
	case name == f.Name || unquotedName(name) == f.Name:
		return true
	case !isPattern(name):
		return false
	}
	if p, ok := strings.CutPrefix(name, byType); ok {
		return f.Kind != 0 && f.Kind.String() == p
	}
	if p, ok := strings.CutPrefix(name, byTag); ok {
		return f.Tagged(p)
	}
	return matches(strings.TrimPrefix(name, byPattern), f.Name)
}

// selectsName is selects for a field of which only the name is known.
func selectsName(name, field string) bool { return selects(name, &record.Field{Name: field}) }

// speaksOf is selects, and true too for a path into f.
func speaksOf(name string, f *record.Field) bool {
	return selects(name, f) || leadsInto(name, f.Name)
}

// leadsInto reports whether name may be a path into field.
func leadsInto(name, field string) bool {
	for _, spelling := range []string{field, `"` + strings.ReplaceAll(field, `"`, `""`) + `"`} {
		if rest, ok := strings.CutPrefix(name, spelling); ok && rest != "" && (rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

// selectorProblem says what is wrong with a selector, "" if nothing is.
func selectorProblem(name string) string {
	if p, ok := strings.CutPrefix(name, byType); ok {
		if _, err := record.ParseKind(p); err != nil {
			return "unknown type " + p + suggest(p, typeNames())
		}
	}
	for _, by := range []string{byTag, byPattern, byType} {
		if name == by {
			return "the selector " + by + " names nothing"
		}
	}
	return ""
}

func typeNames() []string {
	var names []string
	for k := record.Bool; k <= record.Array; k++ {
		names = append(names, k.String())
	}
	return names
}

// selected returns the names of the fields that name speaks of. A plain name
// that is missing is a mistake; a pattern may wait for its first field.
func (b *builder) selected(path, name string) []string {
	if !isPattern(name) || b.index(name) >= 0 {
		i := b.find(path, name)
		if i < 0 {
			return nil
		}
		return []string{b.cols[i].field.Name}
	}
	var names []string
	for i := range b.cols {
		if f := &b.cols[i].field; selects(name, f) {
			names = append(names, f.Name)
		}
	}
	return names
}

// expand returns all fields that a list of names speaks of, each once.
func (b *builder) expand(names []string) (fields, paths []string) {
	for i, name := range names {
		if name == "" {
			continue // a path, which was handled before
		}
		for _, f := range b.selected(at("fields", i), name) {
			if !slices.Contains(fields, f) {
				fields, paths = append(fields, f), append(paths, at("fields", i))
			}
		}
	}
	return fields, paths
}
