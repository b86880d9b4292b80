package mappers

import (
	"fmt"
	"regexp"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/sluice-data/sluice/record"
)

// An expression is written in the Common Expression Language. Its front end
// parses and checks it; what runs is ours, column by column: see program. Its
// logic is SQL's: a null in gives a null out, except in &&, ||, ?: and
// coalesce, and x == null is the test for it. There are no loops, so the cost
// of a row is bounded by the expression, which is bounded in size.
const (
	maxExpressionBytes = 4096
	maxExpressionNodes = 1000
	maxExpressionDepth = 64
)

// Names of our own functions that an expression cannot spell: the rewriting
// of null puts them in.
const (
	funcIsNull = "@is_null"
	funcThen   = "@then" // the second argument if the first is true, else null
	funcElse   = "@else" // null if the first argument is true, else the second
)

var (
	celDecimal  = cel.OpaqueType("decimal")
	celDate     = cel.OpaqueType("date")
	celDateTime = cel.OpaqueType("datetime")
	celTime     = cel.OpaqueType("time")
	celA        = cel.TypeParamType("A")
)

// celTypes are the types of values by the kind that holds them.
var celTypes = map[valueKind]*cel.Type{
	vBool: cel.BoolType, vInt: cel.IntType, vFloat: cel.DoubleType, vText: cel.StringType, vBytes: cel.BytesType, vDecimal: celDecimal,
	vStamp: cel.TimestampType, vDateTime: celDateTime, vDate: celDate, vTime: celTime, vDuration: cel.DurationType,
}

// celType returns the type that a field has in expressions: opaque, with
// nothing but tests for null, where expressions cannot look into it.
func celType(f *record.Field) *cel.Type {
	if k, ok := valueKindOf(f.Kind); ok {
		return celTypes[k]
	}
	return cel.OpaqueType(f.Kind.String())
}

var identifier = regexp.MustCompile(`^[_a-zA-Z][_a-zA-Z0-9]*$`)

// celBase declares our functions: what it does not declare is an error when
// the rule is loaded. It is made once, as that takes as long as ten thousand rows.
var celBase = sync.OnceValues(func() (*cel.Env, error) {
	options := []cel.EnvOption{cel.ClearMacros(), cel.ParserExpressionSizeLimit(maxExpressionBytes), cel.ParserRecursionLimit(maxExpressionDepth),
		cel.ExpressionNodeLimit(maxExpressionNodes), cel.ExpressionNestingDepthLimit(maxExpressionDepth)}
	byName := map[string][]cel.FunctionOpt{}
	var order []string
	for i := range celFunctions {
		f := &celFunctions[i]
		if byName[f.name] == nil {
			order = append(order, f.name)
		}
		args := make([]*cel.Type, len(f.args))
		for k, a := range f.args {
			args[k] = celTypeOf(a)
		}
		declare := cel.Overload
		if f.member {
			declare = cel.MemberOverload
		}
		byName[f.name] = append(byName[f.name], declare(f.id(), args, celTypeOf(f.result)))
	}
	for _, name := range order {
		options = append(options, cel.Function(name, byName[name]...))
	}
	return cel.NewCustomEnv(options...)
})

// celEnvironment declares the fields beside our functions.
func celEnvironment(cols []column) (*cel.Env, error) {
	base, err := celBase()
	if err != nil || len(cols) == 0 {
		return base, err
	}
	var fields []cel.EnvOption
	for i := range cols {
		if f := &cols[i].field; identifier.MatchString(f.Name) {
			fields = append(fields, cel.Variable(f.Name, celType(f)))
		}
	}
	return base.Extend(fields...)
}

func celTypeOf(k valueKind) *cel.Type {
	if k == vAny {
		return celA
	}
	return celTypes[k]
}

// parseCEL parses an expression and writes its nulls and lists in our functions.
func parseCEL(env *cel.Env, text string) (*cel.Ast, *syntaxError) {
	if strings.TrimSpace(text) == "" {
		return nil, &syntaxError{0, "the expression is empty"}
	}
	parsed, issues := env.Parse(text)
	if err := celError(text, issues); err != nil {
		return nil, err
	}
	r := rewriter{make: ast.NewExprFactory(), next: ast.MaxID(parsed.NativeRep()) + 1}
	if r.rewrite(parsed.NativeRep().Expr()); r.nodes > maxExpressionNodes {
		return nil, &syntaxError{0, fmt.Sprintf("the expression has more than %d parts", maxExpressionNodes)}
	}
	return parsed, nil
}

// checkCEL finds the mistakes of an expression that show without a schema.
func checkCEL(text string) *syntaxError {
	env, err := celEnvironment(nil)
	if err != nil {
		return &syntaxError{0, err.Error()}
	}
	_, problem := parseCEL(env, text)
	return problem
}

// celError returns the first issue with its place. The text of an issue names
// fields, types and functions of the expression.
func celError(text string, issues *cel.Issues) *syntaxError {
	if issues == nil || issues.Err() == nil {
		return nil
	}
	list := issues.Errors()
	if len(list) == 0 {
		return &syntaxError{0, "the expression cannot be read"}
	}
	e := list[0]
	msg, _, _ := strings.Cut(e.Message, " (in container")
	if i := strings.IndexByte(msg, '\''); i >= 0 { // '_+_' is how the front end names +
		if name, rest, ok := strings.Cut(msg[i+1:], "'"); ok {
			if plain, isOperator := operators.FindReverse(name); isOperator && plain != "" {
				msg = msg[:i] + plain + rest
			}
		}
	}
	return &syntaxError{offsetOf(text, e.Location.Line(), e.Location.Column()), msg}
}

// offsetOf turns a line from 1 and a column of characters from 0 into bytes.
func offsetOf(text string, line, column int) int {
	at := 0
	for ; line > 1; line-- {
		i := strings.IndexByte(text[at:], '\n')
		if i < 0 {
			return at
		}
		at += i + 1
	}
	for i := range text[at:] {
		if column == 0 {
			return at + i
		}
		column--
	}
	return len(text)
}

// rewriter replaces what needs null as a value or a list: x == null becomes a
// test, c ? x : null a choice, x in [a, b] a row of comparisons.
type rewriter struct {
	make  ast.ExprFactory
	next  int64
	nodes int
}

func (r *rewriter) id() int64 { r.next++; return r.next }

func isNullLiteral(e ast.Expr) bool {
	return e.Kind() == ast.LiteralKind && e.AsLiteral().Type().TypeName() == "null_type"
}

func (r *rewriter) rewrite(e ast.Expr) {
	r.nodes++
	if e.Kind() != ast.CallKind {
		return
	}
	call := e.AsCall()
	if call.IsMemberFunction() {
		r.rewrite(call.Target())
	}
	for _, a := range call.Args() {
		r.rewrite(a)
	}
	args, id := call.Args(), e.ID()
	switch name := call.FunctionName(); name {
	case operators.Equals, operators.NotEquals:
		x := args[0]
		if isNullLiteral(x) {
			x = args[1]
		} else if !isNullLiteral(args[1]) {
			return
		}
		test := r.make.NewCall(id, funcIsNull, r.make.CopyExpr(x))
		if name == operators.NotEquals {
			test = r.make.NewCall(id, operators.LogicalNot, r.make.NewCall(r.id(), funcIsNull, r.make.CopyExpr(x)))
		}
		e.SetKindCase(test)
	case operators.Conditional:
		if isNullLiteral(args[2]) {
			e.SetKindCase(r.make.NewCall(id, funcThen, r.make.CopyExpr(args[0]), r.make.CopyExpr(args[1])))
		} else if isNullLiteral(args[1]) {
			e.SetKindCase(r.make.NewCall(id, funcElse, r.make.CopyExpr(args[0]), r.make.CopyExpr(args[2])))
		}
	case operators.In:
		if args[1].Kind() == ast.ListKind {
			e.SetKindCase(r.anyOf(args[0], args[1].AsList().Elements()))
		}
	}
}

// anyOf compares x with each element. It does not begin what would be too
// large: x is written once for each of them.
func (r *rewriter) anyOf(x ast.Expr, elements []ast.Expr) ast.Expr {
	if r.nodes += len(elements) * (size(x) + 2); r.nodes > maxExpressionNodes || len(elements) == 0 {
		return r.make.NewLiteral(r.id(), types.False)
	}
	var either ast.Expr
	for _, el := range elements {
		same := r.make.NewCall(el.ID(), operators.Equals, r.make.CopyExpr(x), r.make.CopyExpr(el))
		same.AsCall().Args()[1].RenumberIDs(func(int64) int64 { return r.id() })
		if isNullLiteral(el) {
			same = r.make.NewCall(el.ID(), funcIsNull, r.make.CopyExpr(x))
		}
		if either == nil {
			either = same
		} else {
			either = r.make.NewCall(r.id(), operators.LogicalOr, either, same)
		}
	}
	return either
}

// size returns the number of parts of e.
func size(e ast.Expr) int {
	n := 1
	switch e.Kind() {
	case ast.CallKind:
		if e.AsCall().IsMemberFunction() {
			n += size(e.AsCall().Target())
		}
		for _, a := range e.AsCall().Args() {
			n += size(a)
		}
	case ast.ListKind:
		for _, el := range e.AsList().Elements() {
			n += size(el)
		}
	}
	return n
}
