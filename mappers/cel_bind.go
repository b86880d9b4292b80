package mappers

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"

	"github.com/sluice-data/sluice/record"
)

// celBinder turns a checked syntax tree into a program.
type celBinder struct {
	text  string
	tree  *ast.AST
	cols  []column
	parts int
	read  map[int]column // by slot
}

// bindCEL compiles an expression over columns.
func bindCEL(text string, cols []column) (*program, *bindError) {
	env, err := celEnvironment(cols)
	if err != nil {
		return nil, &bindError{0, "", CodeSyntax, err.Error()}
	}
	parsed, problem := parseCEL(env, text)
	if problem != nil {
		return nil, &bindError{problem.offset, "", CodeSyntax, problem.msg}
	}
	checked, issues := env.Check(parsed)
	if problem := celError(text, issues); problem != nil {
		return nil, &bindError{problem.offset, "", CodeType, problem.msg + unreadable(problem.msg)}
	}
	b := &celBinder{text: text, tree: checked.NativeRep(), cols: cols, read: map[int]column{}}
	root, bad := b.bind(b.tree.Expr())
	if bad == nil && root.opaque {
		bad = b.fail(b.tree.Expr(), "an expression cannot look into this field")
	}
	if bad != nil {
		return nil, bad
	}
	p := &program{root: root, parts: b.parts + 1}
	for i := range cols {
		if c, ok := b.read[cols[i].slot]; ok {
			p.inputs = append(p.inputs, c)
		}
	}
	return p, nil
}

// unreadable explains a message about a type that expressions cannot look into.
func unreadable(msg string) string {
	switch {
	case strings.Contains(msg, record.JSON.String()):
		return "; of a json field take the member first: json_extract"
	case strings.Contains(msg, record.DecimalText.String()):
		return "; cast a decimaltext field to decimal(p,s) first"
	}
	return ""
}

func (b *celBinder) fail(e ast.Expr, format string, args ...any) *bindError {
	at := b.tree.SourceInfo().GetStartLocation(e.ID())
	return &bindError{offsetOf(b.text, max(1, at.Line()), max(0, at.Column())), "", CodeType, fmt.Sprintf(format, args...)}
}

func (b *celBinder) bind(e ast.Expr) (*expr, *bindError) {
	var out *expr
	switch e.Kind() {
	case ast.LiteralKind:
		if out = bindLiteral(e); out == nil {
			return nil, b.fail(e, "a literal of type %s has no use here", e.AsLiteral().Type().TypeName())
		}
	case ast.IdentKind:
		for i := range b.cols {
			if c := &b.cols[i]; c.field.Name == e.AsIdent() {
				out = load(c)
				b.read[c.slot] = *c
			}
		}
		if out == nil {
			return nil, b.fail(e, "%s is no field", e.AsIdent())
		}
		if out.kind == vAny { // only its state can be read
			out.kind, out.opaque, out.run = vBool, true, loadState(b.cols, e.AsIdent())
		}
	case ast.CallKind:
		var err *bindError
		if out, err = b.call(e); err != nil {
			return nil, err
		}
	default:
		return nil, b.fail(e, "lists, maps and members are not supported here; json_extract takes a member out of a document")
	}
	b.number(out)
	return out, nil
}

// number gives e and what a function has put between it and its arguments their memory.
func (b *celBinder) number(e *expr) {
	if e.id > 0 {
		return
	}
	for _, a := range e.args {
		b.number(a)
	}
	b.parts++
	e.id = b.parts
}

// loadState reads whether a field is null, of which expressions hold no values.
func loadState(cols []column, name string) runFunc {
	var slot int
	var key bool
	for i := range cols {
		if c := &cols[i]; c.field.Name == name {
			slot, key = c.slot, c.field.Key > 0
		}
	}
	return func(f *frame, _ []*values, out *values) {
		first, second := f.first[slot], f.other(slot, key)
		for i := range f.n {
			out.state[i] = sUnsent
			if first != nil {
				out.state[i] = stateOf[first.State[i]&3]
			}
			if out.state[i] == sUnsent && second != nil {
				out.state[i] = stateOf[second.State[i]&3]
			}
		}
	}
}

func bindLiteral(e ast.Expr) *expr {
	switch v := e.AsLiteral().(type) {
	case types.Bool:
		state := sFalse
		if v {
			state = sTrue
		}
		return literal(vBool, func(out *values, i int) { out.state[i] = state })
	case types.Int:
		return literal(vInt, func(out *values, i int) { out.ints[i] = int64(v) })
	case types.Double:
		x := float64(v)
		lit := literal(vFloat, func(out *values, i int) { out.floats[i] = x })
		if !math.IsInf(x, 0) && !math.IsNaN(x) {
			lit.text = strconv.FormatFloat(x, 'f', -1, 64)
		}
		return lit
	case types.String:
		text := []byte(v)
		lit := literal(vText, func(out *values, i int) { out.texts[i] = text })
		lit.text = string(v)
		return lit
	case types.Bytes:
		text := []byte(v)
		return literal(vBytes, func(out *values, i int) { out.texts[i] = text })
	}
	return nil
}

func (b *celBinder) call(e ast.Expr) (*expr, *bindError) {
	call := e.AsCall()
	nodes := call.Args()
	if call.IsMemberFunction() {
		nodes = append([]ast.Expr{call.Target()}, nodes...)
	}
	ids := b.tree.GetOverloadIDs(e.ID())
	if len(ids) != 1 {
		return nil, b.fail(e, "the types of this part are not clear")
	}
	var function *celFunction
	for i := range celFunctions {
		if celFunctions[i].id() == ids[0] {
			function = &celFunctions[i]
		}
	}
	if function == nil {
		return nil, b.fail(e, "the function %s is not supported here", call.FunctionName())
	}
	var args []*expr
	constant := len(nodes) > 0
	for _, n := range nodes {
		a, err := b.bind(n)
		if err != nil {
			return nil, err
		}
		if a.opaque && function.name != funcIsNull {
			return nil, b.fail(n, "an expression cannot look into this field; it can only test it for null")
		}
		args, constant = append(args, a), constant && a.constant
	}
	out, err := function.bind(args)
	if err != nil {
		return nil, b.fail(e, "%s", err.Error())
	}
	if constant && !out.constant {
		out.constant = true // computed once for all batches
		for _, st := range constantState(b, out) {
			if st == sFailed {
				return nil, b.fail(e, "this part never has a value")
			}
		}
	}
	return out, nil
}

// constantState computes a constant part for one row.
func constantState(b *celBinder, e *expr) []byte {
	b.number(e)
	p := &program{root: e, parts: b.parts + 1}
	return p.eval(p.frame(), 1, nil, nil, false).state
}
