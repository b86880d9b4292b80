package mappers

import (
	"fmt"
	"slices"
	"strings"
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
			c.fail("", "", CodeRule, "a rule is exactly one of %s", strings.Join(kinds, ", "))
			continue
		case r.Rename == nil && r.Filter == nil && r.Constant == nil && len(r.Names()) == 0:
			c.fail("fields", "", CodeRule, "name at least one field")
			continue
		case r.Constant != nil && r.Constant.Field == "", r.Concat != nil && r.Concat.Field == "":
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

var kinds = []string{"hash", "encrypt", "mask", "redact", "drop", "keep", "allow", "rename", "filter", "cast",
	"default", "constant", "concat", "truncate"}

// twice refuses empty and repeated names.
func (c *checker) twice(r *Rule) {
	names := r.Names()
	path := func(i int) string {
		if r.Hash != nil || r.Encrypt != nil || r.Mask != nil || r.Cast != nil || r.Default != nil || r.Truncate != nil {
			return "field"
		}
		return at("fields", i)
	}
	for i, n := range names {
		if n == "" {
			c.fail(path(i), "", CodeRule, "the name of the field is missing")
		} else if slices.Contains(names[:i], n) && r.Concat == nil {
			c.fail(path(i), n, CodeRule, "%s is named twice", n)
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
	case r.Cast != nil:
		c.typeName("to", r.Cast.Field, r.Cast.To)
	case r.Constant != nil && r.Constant.Type != "":
		c.typeName("type", r.Constant.Field, r.Constant.Type)
	case r.Truncate != nil:
		c.truncate(r.Truncate)
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
	if _, ok := encryptMethods[e.Method]; !ok && e.Method != "" {
		c.fail("method", "", CodeRule, "unknown method %s; want %s, %s, %s or %s", e.Method, methodGCM, methodSIV, methodCBC, methodCTR)
	}
	if e.Key.IsZero() {
		c.fail("key", "", CodeRule, "encrypt needs a key")
	}
}

func (c *checker) mask(m *Mask) {
	if _, ok := maskers[m.Kind]; !ok {
		c.fail("kind", "", CodeRule, "unknown kind %s; want chars, email, phone, card or ip", m.Kind)
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
		if rules[i].Concat == nil {
			continue
		}
		for j := i + 1; j < len(rules); j++ {
			if !rules[j].protects() {
				continue
			}
			for n, f := range rules[i].Concat.Fields {
				if slices.ContainsFunc(rules[j].Names(), func(name string) bool { return speaksOf(name, f) }) {
					c.rule, c.kind = i, "concat"
					c.fail(at("fields", n), f, CodeLeak, "%s is copied before rule %d (%s) protects it; move that rule up", f, j+1, rules[j].Kind())
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
			wide := r.takesPatterns() && (isPattern(n) || insideOne(n, names))
			if !wide && !slices.Contains(names, n) {
				c.fail("", n, CodeMissing, "the stream has no field %s here%s", n, suggest(n, names))
			}
		}
		names = namesAfter(r, names)
	}
}

// insideOne reports whether name may be a path into one of names.
func insideOne(name string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(name, n+".") })
}

// namesAfter returns the field names that r leaves.
func namesAfter(r *Rule, names []string) []string {
	named := func(field string) bool {
		return slices.ContainsFunc(r.Names(), func(n string) bool { return selects(n, field) })
	}
	switch {
	case r.Drop != nil:
		return slices.DeleteFunc(slices.Clone(names), named)
	case r.Keep != nil:
		return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !named(n) })
	case r.Constant != nil:
		return append(slices.Clone(names), r.Constant.Field)
	case r.Concat != nil:
		return append(slices.Clone(names), r.Concat.Field)
	}
	out := slices.Clone(names)
	for i, n := range out {
		switch {
		case r.Rename[n] != "":
			out[i] = r.Rename[n]
		case r.Hash != nil && named(n):
			out[i] += r.Hash.Suffix
		case r.Encrypt != nil && named(n):
			out[i] += r.Encrypt.Suffix
		}
	}
	return out
}
