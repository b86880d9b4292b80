package mappers

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/record"
)

// Keys resolves a key reference to the secret keys behind it. It is an
// immutable snapshot: the same reference gives the same keys for the life of a
// Chain; new keys need a new Chain.
type Keys interface {
	// Key returns the key that ref names and whether there is one: of a ring
	// the one that a rotation does not change, for rules whose equal inputs
	// have equal results. The caller does not change it.
	Key(ref keys.Ref) ([]byte, bool)

	// Ring returns all keys that ref names and whether there are any. Its
	// primary one encrypts where results differ anyway.
	Ring(ref keys.Ref) (*keys.Ring, bool)
}

// Tables resolves the file of a lookup rule to its content, which is immutable too.
type Tables interface {
	// Table returns the table of a file, as the rule names it, and whether there is one.
	Table(file string) (*Table, bool)
}

// Scope is what rules are compiled in: all that a chain knows beside its rules
// and its schema.
type Scope struct {
	Phase  Phase
	Keys   Keys                        // nil: no rule may need a key
	Tables Tables                      // nil: no rule may look up
	People Subjects                    // nil: no rule may have a key per person
	Tags   func(field string) []string // tags that the configuration gives to fields, beside those of the schema; may be nil
}

// Compile is Scope.Compile with keys only.
func Compile(rules []Rule, in *record.Schema, ring Keys, phase Phase) (*Chain, error) {
	return Scope{Phase: phase, Keys: ring}.Compile(rules, in)
}

// Compile binds rules to the schema in, which is sealed. Its error is of type
// Errors: all mistakes at once, each with the place of its rule. A rule that
// names a field the schema lacks is a mistake: nothing passes around a rule.
func (s Scope) Compile(rules []Rule, in *record.Schema) (*Chain, error) {
	b := &builder{phase: s.Phase, scope: s, stream: in.Stream.String(), rules: rules, copies: map[int]int{}}
	for i := range in.Fields {
		f := in.Fields[i]
		f.Tags = s.tags(&f)
		b.slots = append(b.slots, f)
		b.cols = append(b.cols, column{field: f, slot: i})
	}
	b.given = len(b.slots)
	checker := checker{phase: s.Phase}
	checker.rules(rules)
	b.errs = checker.errs
	for i := range rules {
		b.rule, b.kind = i, rules[i].Kind()
		if !checker.bad[i] {
			b.compile(&rules[i])
		}
	}
	if len(b.errs) > 0 {
		slices.SortStableFunc(b.errs, func(x, y *Error) int { return x.Rule - y.Rule })
		return nil, b.errs
	}
	if len(b.cols) == 0 {
		return nil, Errors{{Rule: max(0, len(rules)-1), Kind: b.kind, Code: CodeRule, Msg: "no field is left"}}
	}
	c := &Chain{in: in, slots: b.slots, plan: b.plan}
	out := &record.Schema{Stream: in.Stream}
	for i := range b.cols {
		out.Fields = append(out.Fields, b.cols[i].field)
		c.outSlot = append(c.outSlot, b.cols[i].slot)
	}
	trimLive(c.plan, c.outSlot)
	c.out = out.Seal()
	if c.out.ID == in.ID {
		c.out = in // what passes unchanged keeps its schema
	}
	return c, nil
}

// tags returns the tags of f, those of the configuration included, each once.
func (s Scope) tags(f *record.Field) string {
	tags := f.Tags
	if s.Tags == nil {
		return tags
	}
	for _, t := range s.Tags(f.Name) {
		if !f.Tagged(t) && t != "" {
			tags += "," + t
		}
	}
	return strings.TrimPrefix(tags, ",")
}

// trimLive leaves in the live columns of each step only what a later step or
// the output reads: a row filter moves no column that is dropped afterwards,
// and needs no values of it.
func trimLive(plan []planned, out []int) {
	needed := map[int]bool{}
	for _, s := range out {
		needed[s] = true
	}
	for i := len(plan) - 1; i >= 0; i-- {
		plan[i].live = slices.DeleteFunc(plan[i].live, func(l live) bool { return !needed[l.slot] })
		for _, s := range plan[i].read {
			needed[s] = true
		}
	}
}

// Named reports whether a rule speaks of a field of the incoming stream, by
// its name, a pattern, its type or a tag. A new column of a protected stream
// that no rule names is held back until somebody has decided about it; one
// that a rule names is that rule's from its first value on.
func (s Scope) Named(rules []Rule, field *record.Field) bool {
	f := *field
	f.Tags = s.tags(&f)
	return slices.ContainsFunc(rules, func(r Rule) bool {
		return slices.ContainsFunc(r.Names(), func(name string) bool { return speaksOf(name, &f) })
	})
}

// Named is Scope.Named for a field of which only the name is known.
func Named(rules []Rule, field string) bool {
	return Scope{}.Named(rules, &record.Field{Name: field})
}

// column is a field as it is between two rules, and the slot of its values.
type column struct {
	field record.Field
	slot  int
}

// builder compiles rules one after the other.
type builder struct {
	phase  Phase
	scope  Scope
	lone   bool // there is one field, inside a document or list
	stream string
	rules  []Rule
	slots  []record.Field
	given  int // how many of them the stream has
	cols   []column
	plan   []planned
	copies map[int]int // slots whose values a rule has copied elsewhere, and that rule
	errs   Errors
	rule   int
	kind   string
}

func (b *builder) compile(r *Rule) {
	switch {
	case r.Hash != nil:
		each(b, r.Hash.Field, *r.Hash, func(h *Hash) *string { return &h.Field }, (*builder).hash)
	case r.Encrypt != nil:
		each(b, r.Encrypt.Field, *r.Encrypt, func(e *Encrypt) *string { return &e.Field }, (*builder).encrypt)
	case r.Tokenize != nil:
		each(b, r.Tokenize.Field, *r.Tokenize, func(t *Tokenize) *string { return &t.Field }, (*builder).tokenize)
	case r.Pseudonym != nil:
		each(b, r.Pseudonym.Field, *r.Pseudonym, func(p *Pseudonym) *string { return &p.Field }, (*builder).pseudonym)
	case r.Mask != nil:
		each(b, r.Mask.Field, *r.Mask, func(m *Mask) *string { return &m.Field }, (*builder).mask)
	case r.Redact != nil:
		one := *r.Redact
		one.Fields = b.outside(one.Fields, func(sub *builder, name string) {
			sub.redact(&Redact{Fields: []string{name}, With: one.With})
		})
		b.redact(&one)
	case r.Drop != nil:
		b.drop(b.outside(r.Drop.Fields, func(sub *builder, _ string) { sub.cols = nil }))
	case r.Keep != nil:
		b.keep(r.Keep.Fields)
	case r.Allow != nil: // a column that it names may come later, or have gone: that hides nothing
	case r.Rename != nil:
		b.rename(r.Rename)
	case r.Filter != nil:
		b.filter(r.Filter)
	default:
		b.compileShape(r)
	}
}

// each compiles a rule for every field that its name selects, or for what it
// leads to inside of one.
func each[T any](b *builder, name string, rule T, field func(*T) *string, compile func(*builder, *T)) {
	if b.inside("field", name, func(sub *builder) { compile(sub, &rule) }) {
		return
	}
	for _, n := range b.selected("field", name) {
		one := rule
		*field(&one) = n
		compile(b, &one)
	}
}

func (b *builder) compileShape(r *Rule) {
	switch {
	case r.Cast != nil:
		b.cast(r.Cast)
	case r.Default != nil:
		b.defaultValue(r.Default)
	case r.Constant != nil:
		b.constant(r.Constant)
	case r.Concat != nil:
		b.concat(r.Concat)
	case r.Truncate != nil:
		b.truncate(r.Truncate)
	case r.JSONExtract != nil:
		b.jsonExtract(r.JSONExtract)
	case r.Move != nil:
		b.move(r.Move)
	case r.Nest != nil:
		b.nest(r.Nest)
	case r.Flatten != nil:
		b.flatten(r.Flatten)
	case r.Split != nil:
		b.splitText(r.Split)
	case r.Lookup != nil:
		b.lookup(r.Lookup)
	case r.Derive != nil:
		b.derive(r.Derive)
	default:
		// Invariant 6: a rule that nobody runs must not look like one that ran.
		b.fail("", "", CodeRule, "this rule cannot run")
	}
}

func at(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

func (b *builder) fail(path, field, code, format string, args ...any) {
	b.errs = append(b.errs, &Error{Rule: b.rule, Kind: b.kind, Path: path, Field: field, Code: code,
		Msg: fmt.Sprintf(format, args...)})
}

func (b *builder) names() []string {
	names := make([]string, len(b.cols))
	for i := range b.cols {
		names[i] = b.cols[i].field.Name
	}
	return names
}

// index returns the column of that name, -1 if there is none.
func (b *builder) index(name string) int {
	return slices.IndexFunc(b.cols, func(c column) bool { return c.field.Name == name })
}

// find is index with an error when there is none. A missing field fails in
// both phases: a rule that does nothing would hide a renamed column.
func (b *builder) find(path, name string) int {
	i := b.index(name)
	if i < 0 {
		i = b.index(unquotedName(name))
	}
	if i < 0 {
		b.fail(path, name, CodeMissing, "%s has no field %s here%s", b.stream, name, suggest(name, b.names()))
	}
	return i
}

// free reports whether name may be given to the column at index self (-1: to a new one).
func (b *builder) free(path, name string, self int) bool {
	if name == "" {
		b.fail(path, "", CodeRule, "a field needs a name")
		return false
	}
	if i := b.index(name); i >= 0 && i != self {
		b.fail(path, name, CodeExists, "%s has a field %s already", b.stream, name)
		return false
	}
	return true
}

// replace gives the column at index i a new slot of field f, computed by step.
func (b *builder) replace(i int, f record.Field, plan func(src, dst int) func() step) {
	src, dst := b.cols[i].slot, len(b.slots)
	if f.Tags = ""; !b.rules[b.rule].protects() {
		f.Tags = b.cols[i].field.Tags // still the value that was tagged
	}
	if copier, copied := b.copies[src]; copied && b.phase == Protect {
		// Invariant 6: the copy would carry the plaintext.
		if b.rules[b.rule].protects() {
			b.fail("", b.cols[i].field.Name, CodeLeak, "rule %d (%s) has copied %s before it is protected; move that rule down", copier+1, b.rules[copier].Kind(), b.cols[i].field.Name)
		}
		b.copies[dst] = copier
	}
	b.slots = append(b.slots, f)
	b.cols[i] = column{field: f, slot: dst}
	b.add([]int{src}, plan(src, dst))
}

// add plans a step that reads some slots; the columns as they are now must
// stay aligned after it.
func (b *builder) add(read []int, start func() step) {
	p := planned{rule: b.rule, kind: b.kind, read: read, start: start}
	for i := range b.cols {
		f := b.cols[i].field
		p.live = append(p.live, live{slot: b.cols[i].slot, field: &f})
	}
	b.plan = append(b.plan, p)
}

// key returns the secret key that ref names and checks its size in bytes: that
// of which equal inputs have equal results, or with fresh the newest one.
func (b *builder) key(ref keys.Ref, fresh bool, fits func(bytes int) bool, want string) ([]byte, bool) {
	if b.scope.Keys == nil {
		b.fail("key", "", CodeSecret, "there is no key ring to find the key in")
		return nil, false
	}
	key, ok := b.scope.Keys.Key(ref)
	if fresh {
		var ring *keys.Ring
		if ring, ok = b.scope.Keys.Ring(ref); ok && ring != nil {
			key = ring.Primary().Value()
		}
	}
	switch {
	case !ok || len(key) == 0:
		b.fail("key", "", CodeSecret, "the key is not available")
	case !fits(len(key)):
		b.fail("key", "", CodeSecret, "the key has %d bytes; want %s", len(key), want)
	default:
		return slices.Clone(key), true
	}
	return nil, false
}

func (b *builder) drop(names []string) {
	fields, paths := b.expand(names)
	for i, name := range fields {
		c := b.index(name)
		if b.cols[c].field.Key > 0 {
			b.fail(paths[i], name, CodeKeyField, "%s is part of the key, without it changes find no row; hash it instead", name)
			continue
		}
		b.cols = slices.Delete(b.cols, c, c+1)
	}
}

func (b *builder) keep(names []string) {
	stays := map[string]bool{}
	fields, _ := b.expand(names)
	for _, name := range fields {
		stays[name] = true
	}
	for i := range b.cols {
		if f := &b.cols[i].field; f.Key > 0 && !stays[f.Name] {
			b.fail("fields", f.Name, CodeKeyField, "%s is part of the key, without it changes find no row; add it to the list", f.Name)
		}
	}
	b.cols = slices.DeleteFunc(b.cols, func(c column) bool { return c.field.Key == 0 && !stays[c.field.Name] })
}

// rename gives all new names at once, so that two fields can swap theirs.
func (b *builder) rename(names map[string]string) {
	given := map[string]string{}
	renamed := slices.Clone(b.cols)
	for _, old := range sortedKeys(names) {
		i, to := b.find(old, old), names[old]
		if to == "" {
			b.fail(old, old, CodeRule, "the new name is empty")
			continue
		}
		if i >= 0 {
			renamed[i].field.Name = to
			given[to] = old
		}
	}
	seen := map[string]bool{}
	for i := range renamed {
		n := renamed[i].field.Name
		if seen[n] {
			path := given[n]
			b.fail(path, n, CodeExists, "two fields would be named %s", n)
		}
		seen[n] = true
	}
	b.cols = renamed
}

// cells is a step that turns the cells of one column into those of another.
type cells struct {
	src, dst int
	kernel   kernel
}

// kernel appends to dst what becomes of each row of src. Null stays null and
// Unsent stays Unsent. A value it cannot work on it refuses by calling no, and
// appends an Unsent cell. done is another image of the same rows that the
// kernel has worked on already, if there is one: a slow kernel that gives
// equal values equal results copies from there.
type kernel func(dst, src *record.Vector, done twin, no refuse)

// refuse takes the row, a stable code and a reason without a value.
type refuse func(row int, code, reason string)

// twin is a column before and after a kernel; the zero twin holds nothing.
type twin struct {
	src, dst *record.Vector
}

// copy appends the result of row i to dst if src has the same value there as
// the twin. Most old rows differ from the new ones in few fields.
func (t twin) copy(dst, src *record.Vector, i, srcWidth int) bool {
	if t.src == nil || t.dst.State[i] != record.Present {
		return false
	}
	if srcWidth > 0 {
		if string(t.src.FixedAt(i, srcWidth)) != string(src.FixedAt(i, srcWidth)) {
			return false
		}
	} else if src.Child != nil || string(t.src.Value(i)) != string(src.Value(i)) {
		return false
	}
	dst.AppendFrom(t.dst, i, 0)
	return true
}

func (s *cells) apply(r *run) {
	src, dst := r.cols[after][s.src], r.cols[after][s.dst]
	s.kernel(dst, src, twin{}, r.reject)
	if r.hasBefore() {
		// An old value that does not fit is unknown; the new row does not suffer for it.
		s.kernel(r.cols[before][s.dst], r.cols[before][s.src], twin{src, dst}, func(int, string, string) {})
	}
}

// perRun plans a step of kernels; newKernel is called once per run, so that a
// kernel may keep state.
func perRun(newKernel func() kernel) func(src, dst int) func() step {
	return func(src, dst int) func() step {
		return func() step { return &cells{src: src, dst: dst, kernel: newKernel()} }
	}
}
