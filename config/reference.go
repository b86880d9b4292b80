package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// reference is one ${scheme:name} inside a text.
type reference struct {
	start, end int    // of the whole ${…} in the text
	target     string // scheme:name
}

func (r reference) whole(text string) bool { return r.start == 0 && r.end == len(text) }

// references finds the ${…} of text; $${ stands for a plain ${.
func references(text string) ([]reference, error) {
	var refs []reference
	for at := 0; ; {
		i := strings.Index(text[at:], "${")
		if i < 0 {
			return refs, nil
		}
		start := at + i
		if start > 0 && text[start-1] == '$' {
			at = start + 2
			continue
		}
		length := strings.IndexByte(text[start:], '}')
		if length < 0 {
			return nil, errors.New("a ${ is not closed; want ${env:NAME} or ${file:path}, or $${ for the characters themselves")
		}
		r := reference{start: start, end: start + length + 1, target: text[start+2 : start+length]}
		scheme, name, ok := strings.Cut(r.target, ":")
		switch {
		case !ok && envName(r.target):
			return nil, fmt.Errorf("${%s} does not say where from; did you mean \"${env:%s}\"?", r.target, r.target)
		case !ok:
			return nil, errors.New("a reference does not say where from; want ${env:NAME} or ${file:path}")
		case scheme != "env" && scheme != "file":
			return nil, fmt.Errorf("unknown kind of reference %q%s", scheme, suggest(scheme, []string{"env", "file"}))
		case name == "":
			return nil, fmt.Errorf("${%s} names nothing; want ${env:NAME} or ${file:path}", r.target)
		case scheme == "env" && !envName(name):
			return nil, errors.New("the name of an environment variable is letters, digits and underscores")
		}
		refs = append(refs, r)
		at = r.end
	}
}

func envName(s string) bool {
	for i, r := range s {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

// expand replaces the references of text by what value returns for their targets.
func expand(text string, refs []reference, value func(target string) string) string {
	var b strings.Builder
	at := 0
	for _, r := range refs {
		b.WriteString(unescape(text[at:r.start]))
		b.WriteString(value(r.target))
		at = r.end
	}
	b.WriteString(unescape(text[at:]))
	return b.String()
}

func unescape(s string) string { return strings.ReplaceAll(s, "$${", "${") }

// pending is a setting whose value is known only when its references are resolved.
type pending struct {
	path   string
	pos    Pos
	text   string
	refs   []reference
	secret bool
	set    func(value string) error
}

// References returns the targets of all references, such as env:NAME, each
// once and in the order of the file. Keys of rules are not among them: rules
// name their keys themselves.
func (f *File) References() []string {
	var targets []string
	for _, p := range f.pending {
		for _, r := range p.refs {
			if !slices.Contains(targets, r.target) {
				targets = append(targets, r.target)
			}
		}
	}
	return targets
}

// Resolve puts the values of all references in their places; lookup gets
// targets such as env:NAME and its errors must not hold a value. It returns
// Problems that name every reference that cannot be resolved.
func (f *File) Resolve(lookup func(target string) (string, error)) error {
	var problems Problems
	for _, p := range f.pending {
		report := func(err error) {
			problems = append(problems, Problem{File: f.path, Pos: p.pos, Path: p.path, Message: err.Error()})
		}
		values, bad := map[string]string{}, false
		for _, r := range p.refs {
			v, err := lookup(r.target)
			if err != nil {
				report(err)
				bad = true
				continue
			}
			values[r.target] = v
		}
		if bad {
			continue
		}
		value := expand(p.text, p.refs, func(target string) string { return values[target] })
		if err := p.set(value); err != nil {
			report(err)
			continue
		}
		f.remember(p, value, values)
	}
	if len(problems) > 0 {
		problems.sort()
		return problems
	}
	return nil
}

// remember keeps what must never be printed: the secrets, what they were made
// of, and the password inside an address.
func (f *File) remember(p pending, value string, parts map[string]string) {
	if !p.secret {
		return
	}
	f.secrets = append(f.secrets, value)
	for _, v := range parts {
		f.secrets = append(f.secrets, v)
	}
	if u, err := url.Parse(value); err == nil {
		if password, ok := u.User.Password(); ok {
			f.secrets = append(f.secrets, password, url.QueryEscape(password))
		}
	}
}

// SecretValues returns the values that a log must not hold. They are known
// after Resolve.
func (f *File) SecretValues() []string {
	values := slices.DeleteFunc(slices.Clone(f.secrets), func(s string) bool { return s == "" })
	slices.Sort(values)
	return slices.Compact(values)
}
