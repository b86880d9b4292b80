package mappers

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Codes of an Error, for machines.
const (
	CodeRule     = "rule_invalid"      // not exactly one rule, an option that is missing or out of range
	CodeMissing  = "field_not_found"   // the stream has no such field
	CodeExists   = "field_exists"      // two fields would get one name
	CodeType     = "type_unsupported"  // the rule cannot work on the field's type
	CodeKeyField = "key_destroyed"     // the rule would drop a key field or make it random
	CodeSecret   = "secret_missing"    // the key reference gives no key
	CodeSyntax   = "expression_syntax" // a condition cannot be parsed
	CodeLeak     = "protected_copied"  // a field is copied before a later rule protects it
)

// Error is one mistake in a list of rules.
type Error struct {
	Rule   int    // index in the list
	Kind   string // hash, drop, …; "" if not exactly one is set
	Path   string // option inside the rule: field, fields[1], where
	Field  string // the stream's field it is about, if any
	Offset int    // bytes into the text of Path where the mistake is, for Filter.Where; else 0
	Code   string // one of the Code constants
	Msg    string // what is wrong and how to fix it
}

// Error returns "rule 2 (hash) field: …".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("rule " + strconv.Itoa(e.Rule+1))
	if e.Kind != "" {
		b.WriteString(" (" + e.Kind + ")")
	}
	if e.Path != "" {
		b.WriteString(" " + e.Path)
	}
	if e.Offset > 0 {
		b.WriteString(" at " + strconv.Itoa(e.Offset+1))
	}
	return b.String() + ": " + e.Msg
}

// Errors are all mistakes of one list of rules, in its order.
type Errors []*Error

// Error returns all mistakes, one a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes each mistake visible to errors.As.
func (e Errors) Unwrap() []error {
	list := make([]error, len(e))
	for i := range e {
		list[i] = e[i]
	}
	return list
}

// RunError is a rule that could not run: its stream must stop (Invariant 6).
type RunError struct {
	Stream string
	Rule   int // index in the list; -1 if the batch did not fit the chain
	Kind   string
	Msg    string // holds no row value
}

// Error names the stream, the rule and what happened.
func (e *RunError) Error() string {
	if e.Rule < 0 {
		return fmt.Sprintf("map %s: %s", e.Stream, e.Msg)
	}
	return fmt.Sprintf("map %s: rule %d (%s): %s", e.Stream, e.Rule+1, e.Kind, e.Msg)
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

func sortedNames(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

// suggest returns "; did you mean x?" for the name nearest to want, "" if none is near.
func suggest(want string, names []string) string {
	best, bestAt := "", 1+len(want)/3
	for _, n := range names {
		if strings.EqualFold(n, want) {
			return "; did you mean " + n + "?"
		}
		if d := distance(want, n); d <= bestAt && (best == "" || d < distance(want, best)) {
			best = n
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance is the number of single-character edits from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
