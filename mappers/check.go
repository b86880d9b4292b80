package mappers

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/record"
)

// Check finds the mistakes of rules that show without a schema and without
// keys. fields are the names of the stream's fields, or nil if they are not
// known. The error is of type Errors.
func Check(rules []Rule, phase Phase, fields []string) error {
	c := checker{phase: phase}
	c.rules(rules)
	if fields != nil {
		c.known(rules, fields)
	}
	if len(c.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(c.errs, func(x, y *Error) int { return x.Rule - y.Rule })
	return c.errs
}

// checker looks at rules without a schema.
type checker struct {
	phase Phase
	errs  Errors
	bad   map[int]bool // rules that have a mistake
	rule  int
	kind  string
}

func (c *checker) fail(path, field, code, format string, args ...any) {
	if c.bad == nil {
		c.bad = map[int]bool{}
	}
	c.bad[c.rule] = true
	c.errs = append(c.errs, &Error{Rule: c.rule, Kind: c.kind, Path: path, Field: field, Code: code, Msg: fmt.Sprintf(format, args...)})
}

func (c *checker) rules(rules []Rule) {
	for i := range rules {
		r := &rules[i]
		c.rule, c.kind = i, r.Kind()
		switch {
		case c.kind == "":
			c.fail("", "", CodeRule, "a rule is exactly one of %s", strings.Join(kindNames(), ", "))
			continue
		case r.Rename == nil && r.Filter == nil && r.Constant == nil && r.Derive == nil && len(r.Names()) == 0:
			c.fail("fields", "", CodeRule, "name at least one field")
			continue
		case r.Flatten == nil && slices.Contains(r.Adds(), ""):
			c.fail("field", "", CodeRule, "the new field needs a name")
			continue
		case r.Allow != nil && c.phase != Protect:
			c.fail("", "", CodeRule, "allow belongs to protect: nothing is held back here")
			continue
		}
		c.twice(r)
		c.options(r)
	}
	c.leaks(rules)
}

// twice refuses empty and repeated names.
func (c *checker) twice(r *Rule) {
	names := r.Names()
	path := func(i int) string {
		switch {
		case r.Hash != nil && i == 1:
			return "salt_field"
		case r.Move != nil || r.JSONExtract != nil || r.Lookup != nil:
			return "from"
		case r.Redact != nil || r.Drop != nil || r.Keep != nil || r.Allow != nil || r.Concat != nil || r.Nest != nil:
			return at("fields", i)
		}
		return "field"
	}
	for i, n := range names {
		if n == "" {
			c.fail(path(i), "", CodeRule, "the name of the field is missing")
		} else if slices.Contains(names[:i], n) && r.Concat == nil {
			c.fail(path(i), n, CodeRule, "%s is named twice", n)
		}
		if problem := selectorProblem(n); problem != "" && r.takesPatterns() {
			c.fail(path(i), "", CodeRule, "%s", problem)
		}
	}
}

func (c *checker) options(r *Rule) {
	switch {
	case r.Hash != nil:
		c.hash(r.Hash)
	case r.Encrypt != nil:
		c.encrypt(r.Encrypt)
	case r.Mask != nil:
		c.mask(r.Mask)
	case r.Tokenize != nil:
		c.needsKey(r.Tokenize.Key, "tokenize")
		if r.Tokenize.Keep < 0 {
			c.fail("keep_last", "", CodeRule, "keep_last counts characters and is not negative")
		}
	case r.Pseudonym != nil:
		c.needsKey(r.Pseudonym.Key, "pseudonym")
	case r.Cast != nil:
		c.typeName("to", r.Cast.Field, r.Cast.To)
	case r.JSONExtract != nil && r.JSONExtract.Type != "":
		c.typeName("type", r.JSONExtract.Field, r.JSONExtract.Type)
	case r.Move != nil && r.Move.Type != "":
		c.typeName("type", r.Move.From, r.Move.Type)
	case r.Flatten != nil:
		for _, path := range sortedKeys(r.Flatten.Fields) {
			c.typeName("fields."+path, path, r.Flatten.Fields[path])
			if _, ok := parsePath(path); !ok {
				c.fail("fields."+path, path, CodeRule, "%s is no path; want member.member or member[0]", path)
			}
		}
		if len(r.Flatten.Fields) == 0 {
			c.fail("fields", "", CodeRule, "name at least one member")
		}
	case r.Split != nil && r.Split.Separator == "":
		c.fail("separator", r.Split.Field, CodeRule, "the separator is missing")
	case r.Lookup != nil:
		c.lookup(r.Lookup)
	case r.Derive != nil:
		c.expression(r.Derive.CEL)
	case r.Constant != nil && r.Constant.Type != "":
		c.typeName("type", r.Constant.Field, r.Constant.Type)
	case r.Truncate != nil:
		c.truncate(r.Truncate)
	case r.Filter != nil && r.Filter.CEL != "":
		if r.Filter.Where != "" {
			c.fail("cel", "", CodeRule, "a filter has where or cel, not both")
		}
		c.expression(r.Filter.CEL)
	case r.Filter != nil:
		if _, err := parseCondition(r.Filter.Where); err != nil {
			c.fail("where", "", CodeSyntax, "%s", err.msg)
			c.errs[len(c.errs)-1].Offset = err.offset
		}
	}
}

func (c *checker) hash(h *Hash) {
	m, ok := hashMethods[methodName(h.Method)]
	if !ok {
		c.fail("method", "", CodeRule, "unknown method %s; want one of %s", h.Method, strings.Join(sortedMethods(), ", "))
		return
	}
	if m.keyed && h.Key.IsZero() {
		c.fail("key", "", CodeRule, "%s needs a key; without one use sha256, which can be guessed", m.name)
	}
	if !m.keyed && !h.Key.IsZero() {
		c.fail("key", "", CodeRule, "%s uses no key; use hmac-sha256", m.name)
	}
	if h.Length != 0 && (h.Length < minHashDigits || h.Length > m.digits) {
		c.fail("length", "", CodeRule, "length is %d; want 0, or %d to %d hexadecimal digits", h.Length, minHashDigits, m.digits)
	}
	if _, ok := normalizers[h.Normalize]; !ok {
		c.fail("normalize", "", CodeRule, "unknown normalize %s; want none, trim-lower, email, email-google or phone", h.Normalize)
	}
}

func (c *checker) encrypt(e *Encrypt) {
	if _, ok := encryptMethods[e.Method]; e.Method == methodECB {
		c.fail("method", "", CodeRule, "aes-ecb shows which values have equal parts and is only opened, never written; use aes-gcm or aes-siv")
	} else if !ok && e.Method != "" {
		c.fail("method", "", CodeRule, "unknown method %s; want one of %s", e.Method, strings.Join(sealMethods(), ", "))
	}
	if e.Key.IsZero() {
		c.fail("key", "", CodeRule, "encrypt needs a key")
	}
}

func sealMethods() []string { return slices.Sorted(maps.Keys(encryptMethods)) }

func (c *checker) needsKey(ref keys.Ref, kind string) {
	if ref.IsZero() {
		c.fail("key", "", CodeRule, "%s needs a key; without one everybody could compute it", kind)
	}
}

func (c *checker) lookup(l *Lookup) {
	for path, v := range map[string]string{"file": l.File, "key": l.Key, "value": l.Value} {
		if v == "" {
			c.fail(path, "", CodeRule, "%s is missing", path)
		}
	}
	switch l.Missing {
	case "", "null", "reject", "default":
	default:
		c.fail("missing", "", CodeRule, "unknown missing %s; want null, reject or default", l.Missing)
	}
	if l.Default != "" && l.Missing != "default" {
		c.fail("default", "", CodeRule, "a default needs missing: default")
	}
}

func (c *checker) expression(text string) {
	if err := checkCEL(text); err != nil {
		c.fail("cel", "", CodeSyntax, "%s", err.msg)
		c.errs[len(c.errs)-1].Offset = err.offset
	}
}

func (c *checker) mask(m *Mask) {
	if _, ok := maskers[m.Kind]; !ok {
		c.fail("kind", "", CodeRule, "unknown kind %s; want chars, email, phone, card, ip or date", m.Kind)
	}
	if _, ok := normalizers[m.Normalize]; !ok {
		c.fail("normalize", "", CodeRule, "unknown normalize %s; want none, trim-lower, email, email-google or phone", m.Normalize)
	}
	if m.Keep != "" && (m.Kind != maskDate || m.Keep != "year" && m.Keep != "month") {
		c.fail("keep", "", CodeRule, "keep is for the kind date; want year or month")
	}
	if m.KeepFirst < 0 || m.KeepLast < 0 {
		c.fail("keep_first", "", CodeRule, "keep_first and keep_last count characters and are not negative")
	}
}

func (c *checker) truncate(t *Truncate) {
	_, known := units[t.To]
	switch {
	case t.Chars != 0 && t.To != "":
		c.fail("chars", t.Field, CodeRule, "chars is for texts, to for times; set one of them")
	case t.Chars < 0 || t.Chars == 0 && t.To == "":
		c.fail("chars", t.Field, CodeRule, "set chars to the characters to keep, or to to a unit of time")
	case t.To != "" && !known:
		c.fail("to", t.Field, CodeRule, "unknown unit %s; want second, minute, hour, day, month or year", t.To)
	}
}

func (c *checker) typeName(path, field, name string) {
	if _, err := parseType(name); err != nil {
		c.fail(path, field, CodeRule, "%v", err)
	}
}

// leaks refuses a copy of a field that a later rule of a protect list hides:
// the copy would carry its plaintext (Invariant 6).
func (c *checker) leaks(rules []Rule) {
	if c.phase != Protect {
		return
	}
	for i := range rules {
		if !rules[i].copies() {
			continue
		}
		for j := i + 1; j < len(rules); j++ {
			if !rules[j].protects() {
				continue
			}
			for n, f := range rules[i].Names() {
				if slices.ContainsFunc(rules[j].Names(), func(name string) bool { return speaksOf(name, &record.Field{Name: f}) }) {
					c.rule, c.kind = i, rules[i].Kind()
					path := "from"
					if rules[i].Concat != nil || rules[i].Nest != nil {
						path = at("fields", n)
					}
					c.fail(path, f, CodeLeak, "%s is copied before rule %d (%s) protects it; move that rule up", f, j+1, rules[j].Kind())
				}
			}
		}
	}
}

// known checks names against the fields of the stream, rule by rule.
func (c *checker) known(rules []Rule, fields []string) {
	names := slices.Clone(fields)
	for i := range rules {
		r := &rules[i]
		c.rule, c.kind = i, r.Kind()
		if c.bad[i] {
			continue
		}
		for _, n := range r.Names() {
			wide := r.takesPatterns() && isPattern(n) || r.takesPaths() && insideOne(n, names)
			if !wide && !slices.Contains(names, n) && !slices.Contains(names, unquotedName(n)) {
				c.fail("", n, CodeMissing, "the stream has no field %s here%s", n, suggest(n, names))
			}
		}
		names = namesAfter(r, names)
	}
}

// insideOne reports whether name may be a path into one of names.
func insideOne(name string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return leadsInto(name, n) })
}

// namesAfter returns the field names that r leaves.
func namesAfter(r *Rule, names []string) []string {
	named := func(field string) bool {
		return slices.ContainsFunc(r.Names(), func(n string) bool { return selectsName(n, field) })
	}
	out := slices.Clone(names)
	switch {
	case r.Drop != nil:
		return slices.DeleteFunc(out, named)
	case r.Keep != nil:
		return slices.DeleteFunc(out, func(n string) bool { return !named(n) })
	case r.Nest != nil, r.Flatten != nil && !r.Flatten.Keep, r.Split != nil && len(r.Split.Into) > 0 && !r.Split.Keep:
		out = slices.DeleteFunc(out, named)
	case r.Move != nil:
		inside := insideOne(r.Move.To, out)
		out = slices.DeleteFunc(out, func(n string) bool { return selectsName(r.Move.From, n) })
		if !inside {
			out = append(out, unquotedName(r.Move.To))
		}
	}
	out = append(out, r.Adds()...)
	for i, n := range out {
		switch {
		case r.Rename[n] != "":
			out[i] = r.Rename[n]
		case r.Hash != nil && selectsName(r.Hash.Field, n):
			out[i] += r.Hash.Suffix
		case r.Encrypt != nil && named(n):
			out[i] += r.Encrypt.Suffix
		case r.Pseudonym != nil && named(n):
			out[i] += r.Pseudonym.Suffix
		}
	}
	return out
}
