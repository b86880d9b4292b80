package mappers

// Kind is one kind of rule, for the configuration.
type Kind struct {
	Name string
	Doc  string     // one sentence for people
	New  func() any // a pointer to its empty settings, which RuleOf takes

	of func(r *Rule) any // the settings of this kind in r, nil if there are none
}

// Kinds lists all rules.
func Kinds() []Kind {
	return []Kind{
		{"hash", "Replaces a value by its digest.", func() any { return new(Hash) }, func(r *Rule) any { return set(r.Hash) }},
		{"encrypt", "Replaces a value by its ciphertext.", func() any { return new(Encrypt) }, func(r *Rule) any { return set(r.Encrypt) }},
		{"tokenize", "Replaces letters and digits by keyed others of the same class; not reversible, two values can get one token.", func() any { return new(Tokenize) }, func(r *Rule) any { return set(r.Tokenize) }},
		{"pseudonym", "Replaces a value by a short keyed name.", func() any { return new(Pseudonym) }, func(r *Rule) any { return set(r.Pseudonym) }},
		{"mask", "Hides most of a value and keeps a recognisable rest.", func() any { return new(Mask) }, func(r *Rule) any { return set(r.Mask) }},
		{"redact", "Replaces every value of some fields by a fixed text.", func() any { return new(Redact) }, func(r *Rule) any { return set(r.Redact) }},
		{"drop", "Removes fields.", func() any { return new(Drop) }, func(r *Rule) any { return set(r.Drop) }},
		{"keep", "Removes all fields but the named ones.", func() any { return new(Keep) }, func(r *Rule) any { return set(r.Keep) }},
		{"allow", "Lets new columns of a protected stream pass unchanged.", func() any { return new(Allow) }, func(r *Rule) any { return set(r.Allow) }},
		{"rename", "Gives fields new names: old name to new name, all at once.", func() any { return new(map[string]string) }, renameOf},
		{"move", "Moves a value out of a document, into one, or from one name to another.", func() any { return new(Move) }, func(r *Rule) any { return set(r.Move) }},
		{"nest", "Moves fields into one document.", func() any { return new(Nest) }, func(r *Rule) any { return set(r.Nest) }},
		{"flatten", "Moves members of a document into fields of their own.", func() any { return new(Flatten) }, func(r *Rule) any { return set(r.Flatten) }},
		{"json_extract", "Copies a value out of a document into a field of its own.", func() any { return new(JSONExtract) }, func(r *Rule) any { return set(r.JSONExtract) }},
		{"split", "Cuts a text at a separator into fields or a list.", func() any { return new(Split) }, func(r *Rule) any { return set(r.Split) }},
		{"filter", "Keeps the rows for which a condition is true.", func() any { return new(Filter) }, func(r *Rule) any { return set(r.Filter) }},
		{"cast", "Changes the type of a field without loss.", func() any { return new(Cast) }, func(r *Rule) any { return set(r.Cast) }},
		{"default", "Replaces null by a value.", func() any { return new(Default) }, func(r *Rule) any { return set(r.Default) }},
		{"constant", "Adds a field with the same value in every row.", func() any { return new(Constant) }, func(r *Rule) any { return set(r.Constant) }},
		{"concat", "Adds a text field made of other fields.", func() any { return new(Concat) }, func(r *Rule) any { return set(r.Concat) }},
		{"lookup", "Adds a field whose value a table has for another field.", func() any { return new(Lookup) }, func(r *Rule) any { return set(r.Lookup) }},
		{"derive", "Adds a field that a CEL expression computes.", func() any { return new(Derive) }, func(r *Rule) any { return set(r.Derive) }},
		{"truncate", "Shortens a text, or rounds a date or time down.", func() any { return new(Truncate) }, func(r *Rule) any { return set(r.Truncate) }},
	}
}

// set returns p as settings, and no typed nil.
func set[T any](p *T) any {
	if p == nil {
		return nil
	}
	return p
}

func renameOf(r *Rule) any {
	if r.Rename == nil {
		return nil
	}
	return &r.Rename
}

// RuleOf returns the rule of settings that one of Kinds made; false for anything else.
func RuleOf(settings any) (Rule, bool) {
	switch s := settings.(type) {
	case *Hash:
		return Rule{Hash: s}, true
	case *Encrypt:
		return Rule{Encrypt: s}, true
	case *Tokenize:
		return Rule{Tokenize: s}, true
	case *Pseudonym:
		return Rule{Pseudonym: s}, true
	case *Mask:
		return Rule{Mask: s}, true
	case *Redact:
		return Rule{Redact: s}, true
	case *Drop:
		return Rule{Drop: s}, true
	case *Keep:
		return Rule{Keep: s}, true
	case *Allow:
		return Rule{Allow: s}, true
	case *map[string]string:
		return Rule{Rename: *s}, len(*s) > 0
	case *Move:
		return Rule{Move: s}, true
	case *Nest:
		return Rule{Nest: s}, true
	case *Flatten:
		return Rule{Flatten: s}, true
	case *JSONExtract:
		return Rule{JSONExtract: s}, true
	case *Split:
		return Rule{Split: s}, true
	case *Filter:
		return Rule{Filter: s}, true
	case *Cast:
		return Rule{Cast: s}, true
	case *Default:
		return Rule{Default: s}, true
	case *Constant:
		return Rule{Constant: s}, true
	case *Concat:
		return Rule{Concat: s}, true
	case *Lookup:
		return Rule{Lookup: s}, true
	case *Derive:
		return Rule{Derive: s}, true
	case *Truncate:
		return Rule{Truncate: s}, true
	}
	return Rule{}, false
}

// Settings returns the settings of the rule that is set, as RuleOf takes them;
// nil if none or several are.
func (r *Rule) Settings() any {
	if k := r.kind(); k != nil {
		return k.of(r)
	}
	return nil
}

// Kind returns the name of the rule that is set, such as "hash"; "" if none or several are.
func (r *Rule) Kind() string {
	if k := r.kind(); k != nil {
		return k.Name
	}
	return ""
}

func (r *Rule) kind() *Kind {
	var found *Kind
	for _, k := range Kinds() {
		if k.of(r) == nil {
			continue
		}
		if found != nil {
			return nil
		}
		found = &k
	}
	return found
}

func kindNames() []string {
	var names []string
	for _, k := range Kinds() {
		names = append(names, k.Name)
	}
	return names
}
