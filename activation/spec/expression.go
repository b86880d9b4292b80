package spec

import (
	"encoding/json"
	"fmt"
	"math"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// maxCost bounds what one evaluation may do: an answer is foreign data.
const maxCost = 100_000

// expression is a compiled CEL expression over an answer.
type expression struct {
	program cel.Program
}

// facts are what an expression may look at.
type facts struct {
	status        int
	operation     string
	code, message string
	headers       map[string]string
	body, item    any // decoded with UseNumber
}

// newEnvironment returns what the expressions of a spec are compiled in.
func newEnvironment() (*cel.Env, error) {
	env, err := cel.NewEnv(
		cel.Variable("status", cel.IntType), cel.Variable("operation", cel.StringType),
		cel.Variable("code", cel.StringType), cel.Variable("message", cel.StringType),
		cel.Variable("headers", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("body", cel.DynType), cel.Variable("item", cel.DynType))
	if err != nil {
		return nil, fmt.Errorf("prepare expressions: %w", err)
	}
	return env, nil
}

// compile checks text, which must give a bool, or a string where asText.
func compile(env *cel.Env, text string, asText bool) (*expression, error) {
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, fmt.Errorf("expression %q: %w", text, issues.Err())
	}
	want := cel.BoolType
	if asText {
		want = cel.StringType
	}
	if out := ast.OutputType(); !out.IsExactType(want) && !out.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("expression %q gives %s, wanted %s", text, out, want)
	}
	program, err := env.Program(ast, cel.CostLimit(maxCost))
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", text, err)
	}
	return &expression{program}, nil
}

func (e *expression) eval(f *facts) any {
	out, _, err := e.program.Eval(map[string]any{"status": f.status, "operation": f.operation, "code": f.code, "message": f.message,
		"headers": f.headers, "body": plain(f.body), "item": plain(f.item)})
	if err != nil || types.IsUnknownOrError(out) {
		return nil
	}
	return out.Value()
}

// holds reports whether e is true of f. What the answer lacks makes it false.
func (e *expression) holds(f *facts) bool {
	b, ok := e.eval(f).(bool)
	return ok && b
}

// text returns what e gives, empty where the answer lacks what it needs.
func (e *expression) text(f *facts) string {
	s, _ := e.eval(f).(string)
	return s
}

// plain replaces the numbers of a decoded document by ones that expressions
// know: whole ones by int64, others by float64.
func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, err := v.Float64()
		if err != nil {
			return math.NaN()
		}
		return f
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plain(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			out[k] = plain(v[k])
		}
		return out
	case nil:
		return types.NullValue // an expression has no other nothing
	}
	return v
}
