package mappers

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-data/sluice/record"
)

// A path leads from a field to what lies inside: profile.email is the member
// email of the documents in profile, items[0] the first element of a list,
// items[*] every one, profile.* every member and profile."a.b" the member a.b.
// Lists on the way that the path does not mention are entered.

// segment is one step of a path.
type segment struct {
	name  string // of a member, or a pattern of names
	glob  bool
	index int // of an element; noIndex in a step to a member
}

const (
	noIndex  = -1
	everyOne = -2
)

// fits reports whether s leads to the member called name.
func (s *segment) fits(name string) bool {
	return s.index == noIndex && (s.name == name || s.glob && matches(s.name, name))
}

// fitsQuoted is fits for a name as it stands in a document.
func (s *segment) fitsQuoted(raw []byte) bool {
	if s.glob || bytes.IndexByte(raw, '\\') >= 0 {
		return s.fits(unquoted(raw))
	}
	return s.index == noIndex && string(raw[1:len(raw)-1]) == s.name
}

// picks reports whether s leads to element i.
func (s *segment) picks(i int) bool { return s.index == everyOne || s.index == i }

// parsePath splits a path; false if it is none, such as a..b or a[x].
func parsePath(s string) ([]segment, bool) {
	var path []segment
	for {
		name, rest, isQuoted, ok := pathName(s)
		if !ok {
			return nil, false
		}
		path = append(path, segment{name: name, glob: !isQuoted && strings.Contains(name, "*"), index: noIndex})
		for strings.HasPrefix(rest, "[") {
			inner, after, closed := strings.Cut(rest[1:], "]")
			n, err := strconv.Atoi(inner)
			if inner == "*" {
				n, err = everyOne, nil
			}
			if !closed || err != nil || n < 0 && n != everyOne || len(inner) > 9 {
				return nil, false
			}
			path, rest = append(path, segment{index: n}), after
		}
		if rest == "" {
			return path, true
		}
		if rest[0] != '.' {
			return nil, false
		}
		s = rest[1:]
	}
}

// pathName takes one name, quoted or not, from the start of s.
func pathName(s string) (name, rest string, isQuoted, ok bool) {
	if strings.HasPrefix(s, `"`) {
		name, end, closed := quoted(s, 0)
		if !closed || name == "" {
			return "", "", true, false
		}
		return name, s[end:], true, true
	}
	end := strings.IndexAny(s, ".[")
	if end < 0 {
		end = len(s)
	}
	return s[:end], s[end:], false, end > 0
}

// unquotedName returns the field that a name in quotes means, else name itself.
func unquotedName(name string) string {
	if !strings.HasPrefix(name, `"`) {
		return name
	}
	if n, rest, _, ok := pathName(name); ok && rest == "" {
		return n
	}
	return name
}

// split returns the column and the path inside it that name stands for, -1 if it is no path.
func (b *builder) split(name string) (col int, path []segment) {
	if b.index(name) >= 0 {
		return -1, nil
	}
	path, ok := parsePath(name)
	if !ok {
		// a..b is a mistake in a path, not a missing field, if there is an a.
		if head, rest, cut := strings.Cut(name, "."); cut && b.index(head) >= 0 && rest != "" {
			return b.index(head), nil
		}
		return -1, nil
	}
	column := ""
	for k := range len(path) - 1 {
		if path[k].index != noIndex {
			break
		}
		if k > 0 {
			column += "."
		}
		column += path[k].name
		if c := b.index(column); c >= 0 {
			return c, path[k+1:]
		}
	}
	return -1, nil
}

// inside lets rule work on a field in the place of what path leads to. It
// reports whether name is a path.
func (b *builder) inside(option, name string, rule func(sub *builder)) bool {
	col, path := b.split(name)
	if col < 0 {
		return false
	}
	f := b.cols[col].field
	switch {
	case f.Kind != record.JSON && f.Kind != record.Array:
		b.fail(option, f.Name, CodeType, "%s is %s; only json and lists have something inside", f.Name, f.Kind)
		return true
	case len(path) == 0:
		b.fail(option, f.Name, CodeRule, "a part of the path is empty or no index; want %s.member or %s[0]", f.Name, f.Name)
		return true
	case f.Kind == record.Array:
		b.elements(option, name, col, path, rule)
		return true
	}
	k, _ := b.document(option, name, f.Name, path, rule)
	if k != nil {
		b.replace(col, f, perRun(k))
	}
	return true
}

// document makes the kernel of a rule inside documents; nil after a mistake.
func (b *builder) document(option, name, field string, path []segment, rule func(sub *builder)) (newKernel func() kernel, ok bool) {
	value := record.Field{Name: name, Kind: record.Text, Nullable: true}
	sub := b.sub(value)
	rule(sub)
	b.errs = append(b.errs, sub.errs...)
	switch {
	case len(sub.errs) > 0:
		return nil, false
	case len(sub.cols) == 0:
		return func() kernel { return (&nested{field: field, name: name, path: path}).cells }, true
	case sub.cols[0].field.Name != name:
		b.fail("suffix", field, CodeRule, "a field inside a document keeps its name")
		return nil, false
	case len(sub.plan) != 1:
		return nil, true
	}
	start := sub.plan[0].start
	return func() kernel {
		n := &nested{field: field, name: name, path: path, src: record.NewVector(&value), dst: record.NewVector(&value)}
		if c, ok := start().(*cells); ok {
			n.kernel = c.kernel
		} else {
			panic(stop("a rule of several fields cannot work inside a document"))
		}
		return n.cells
	}, true
}

// sub returns a builder of a schema with one field.
func (b *builder) sub(f record.Field) *builder {
	return &builder{phase: b.phase, scope: b.scope, stream: b.stream, rules: b.rules, copies: map[int]int{}, rule: b.rule, kind: b.kind,
		slots: []record.Field{f}, cols: []column{{field: f}}, lone: true}
}

// outside runs rule inside each name that is a path and returns the others in
// their places.
func (b *builder) outside(names []string, rule func(sub *builder, name string)) []string {
	rest := slices.Clone(names)
	for i, name := range names {
		if b.inside(at("fields", i), name, func(sub *builder) { rule(sub, name) }) {
			rest[i] = ""
		}
	}
	return rest
}
