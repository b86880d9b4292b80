package mappers

// Kind is one kind of rule, for the configuration.
type Kind struct {
	Name string
	Doc  string     // one sentence for people
	New  func() any // a pointer to its empty settings, which RuleOf takes
}

// Kinds lists all rules.
func Kinds() []Kind {
	return []Kind{
		{"hash", "Replaces a value by its digest.", func() any { return new(Hash) }},
		{"encrypt", "Replaces a value by its ciphertext.", func() any { return new(Encrypt) }},
		{"mask", "Hides most of a value and keeps a recognisable rest.", func() any { return new(Mask) }},
		{"redact", "Replaces every value of some fields by a fixed text.", func() any { return new(Redact) }},
		{"drop", "Removes fields.", func() any { return new(Drop) }},
		{"keep", "Removes all fields but the named ones.", func() any { return new(Keep) }},
		{"allow", "Lets new columns of a protected stream pass unchanged.", func() any { return new(Allow) }},
		{"rename", "Gives fields new names: old name to new name, all at once.", func() any { return new(map[string]string) }},
		{"filter", "Keeps the rows for which a condition is true.", func() any { return new(Filter) }},
		{"cast", "Changes the type of a field without loss.", func() any { return new(Cast) }},
		{"default", "Replaces null by a value.", func() any { return new(Default) }},
		{"constant", "Adds a field with the same value in every row.", func() any { return new(Constant) }},
		{"concat", "Adds a text field made of other fields.", func() any { return new(Concat) }},
		{"truncate", "Shortens a text, or rounds a date or time down.", func() any { return new(Truncate) }},
	}
}

// RuleOf returns the rule of settings that one of Kinds made; false for anything else.
func RuleOf(settings any) (Rule, bool) {
	switch s := settings.(type) {
	case *Hash:
		return Rule{Hash: s}, true
	case *Encrypt:
		return Rule{Encrypt: s}, true
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
	case *Truncate:
		return Rule{Truncate: s}, true
	}
	return Rule{}, false
}
