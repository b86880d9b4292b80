package mappers

import (
	"slices"
	"strings"
)

// A name in hash, encrypt, mask, redact, drop, keep and allow may hold *,
// which stands for any characters: *email* also takes in the column that
// somebody adds next year, from its first value on. A field that has exactly
// that name comes first.

// isPattern reports whether name selects fields by their spelling.
func isPattern(name string) bool { return strings.Contains(name, "*") }

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

// selects reports whether name, which a rule holds, speaks of field.
func selects(name, field string) bool {
	return name == field || isPattern(name) && matches(name, field)
}

// speaksOf is selects, and true too for a path into field.
func speaksOf(name, field string) bool {
	return selects(name, field) || strings.HasPrefix(name, field+".")
}

// selected returns the names of the fields that name speaks of. A plain name
// that is missing is a mistake; a pattern may wait for its first field.
func (b *builder) selected(path, name string) []string {
	if !isPattern(name) || b.index(name) >= 0 {
		if b.find(path, name) < 0 {
			return nil
		}
		return []string{name}
	}
	return slices.DeleteFunc(b.names(), func(f string) bool { return !matches(name, f) })
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
