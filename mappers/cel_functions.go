package mappers

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/bits"

	"cel.dev/cel-go/common/operators"
)

// celFunction is one function that expressions have, for one list of arguments.
type celFunction struct {
	name   string
	member bool // called as x.name()
	args   []valueKind
	result valueKind
	bind   func(args []*expr) (*expr, error) // the error is for people
}

// id names the overload.
func (f *celFunction) id() string {
	id := f.name
	if f.member {
		id += "_of"
	}
	for _, a := range f.args {
		id += fmt.Sprintf("_%d", a)
	}
	return id
}

var celFunctions = allCELFunctions()

func allCELFunctions() []celFunction {
	var all []celFunction
	all = append(all, logicFunctions()...)
	all = append(all, comparisons()...)
	all = append(all, arithmetic()...)
	all = append(all, textFunctions()...)
	return append(all, timeFunctions()...)
}

type runFunc = func(f *frame, in []*values, out *values)

// simple is a function whose result has the kind result and scale 0.
func simple(name string, member bool, result valueKind, run runFunc, args ...valueKind) celFunction {
	return celFunction{name, member, args, result, func(bound []*expr) (*expr, error) {
		return &expr{kind: result, args: bound, run: run}, nil
	}}
}

// oneOf computes R of A.
func oneOf[A, R any](from func(*values) []A, to func(*values) []R, op func(A) (R, bool)) runFunc {
	return func(f *frame, in []*values, out *values) {
		a, r := from(in[0]), to(out)
		for i, st := range in[0].state[:f.n] {
			if st == sTrue {
				var ok bool
				if r[i], ok = op(a[i]); !ok {
					st = sFailed
				}
			}
			out.state[i] = st
		}
	}
}

// twoOf computes R of A and B.
func twoOf[A, B, R any](left func(*values) []A, right func(*values) []B, to func(*values) []R, op func(A, B) (R, bool)) runFunc {
	return func(f *frame, in []*values, out *values) {
		a, b, r := left(in[0]), right(in[1]), to(out)
		for i, st := range in[0].state[:f.n] {
			if st = max(st, in[1].state[i]); st == sTrue {
				var ok bool
				if r[i], ok = op(a[i], b[i]); !ok {
					st = sFailed
				}
			}
			out.state[i] = st
		}
	}
}

// testOf is a bool of A and B.
func testOf[A, B any](left func(*values) []A, right func(*values) []B, op func(A, B) bool) runFunc {
	return func(f *frame, in []*values, out *values) {
		a, b := left(in[0]), right(in[1])
		for i, st := range in[0].state[:f.n] {
			if st = max(st, in[1].state[i]); st == sTrue && !op(a[i], b[i]) {
				st = sFalse
			}
			out.state[i] = st
		}
	}
}

func logicFunctions() []celFunction {
	choose := func(name string, whenTrue, whenFalse int, args ...valueKind) celFunction {
		return celFunction{name, false, args, vAny, func(bound []*expr) (*expr, error) {
			e := &expr{args: bound}
			for _, k := range []int{whenTrue, whenFalse} {
				if k > 0 {
					if e.kind != vAny && bound[k].scale != e.scale {
						return nil, fmt.Errorf("the two results are decimals with %d and %d digits behind the point", e.scale, bound[k].scale)
					}
					e.kind, e.scale = bound[k].kind, bound[k].scale
				}
			}
			e.run = func(f *frame, in []*values, out *values) {
				for i, c := range in[0].state[:f.n] {
					from := whenFalse // an unknown condition is not true
					switch {
					case c == sTrue:
						from = whenTrue
					case c > sNull:
						out.state[i] = c
						continue
					}
					if from == 0 {
						out.state[i] = sNull
					} else {
						out.take(e.kind, in[from], i)
					}
				}
			}
			return e, nil
		}}
	}
	null := func(name string, yes, no byte) celFunction {
		return simple(name, false, vBool, func(f *frame, in []*values, out *values) {
			for i, st := range in[0].state[:f.n] {
				switch {
				case st == sNull:
					st = yes
				case st < sNull:
					st = no
				}
				out.state[i] = st
			}
		}, vAny)
	}
	return []celFunction{
		simple(operators.LogicalAnd, false, vBool, func(f *frame, in []*values, out *values) {
			for i, a := range in[0].state[:f.n] {
				if b := in[1].state[i]; a == sFalse || b == sFalse {
					out.state[i] = sFalse
				} else {
					out.state[i] = max(a, b)
				}
			}
		}, vBool, vBool),
		simple(operators.LogicalOr, false, vBool, func(f *frame, in []*values, out *values) {
			for i, a := range in[0].state[:f.n] {
				if b := in[1].state[i]; a == sTrue || b == sTrue {
					out.state[i] = sTrue
				} else {
					out.state[i] = max(a, b)
				}
			}
		}, vBool, vBool),
		simple(operators.LogicalNot, false, vBool, func(f *frame, in []*values, out *values) {
			for i, a := range in[0].state[:f.n] {
				if a <= sTrue {
					a ^= 1
				}
				out.state[i] = a
			}
		}, vBool),
		null(funcIsNull, sTrue, sFalse),
		choose(operators.Conditional, 1, 2, vBool, vAny, vAny), choose(funcThen, 1, 0, vBool, vAny), choose(funcElse, 0, 1, vBool, vAny),
		{"coalesce", false, []valueKind{vAny, vAny}, vAny, func(bound []*expr) (*expr, error) {
			if bound[0].scale != bound[1].scale {
				return nil, fmt.Errorf("the two values are decimals with %d and %d digits behind the point", bound[0].scale, bound[1].scale)
			}
			kind := bound[0].kind
			return &expr{kind: kind, scale: bound[0].scale, args: bound, run: func(f *frame, in []*values, out *values) {
				for i, st := range in[0].state[:f.n] {
					from := in[0]
					if st == sNull {
						from = in[1]
					}
					out.take(kind, from, i)
				}
			}}, nil
		}},
	}
}

// take copies value i of from.
func (v *values) take(k valueKind, from *values, i int) {
	v.state[i] = from.state[i]
	switch k {
	case vBool:
	case vFloat:
		v.floats[i] = from.floats[i]
	case vText, vBytes:
		v.texts[i] = from.texts[i]
	case vDecimal:
		v.decimals[i] = from.decimals[i]
	default:
		v.ints[i] = from.ints[i]
	}
}

// orders are the comparisons by what less, equal and greater mean.
var orders = []struct {
	name string
	res  [3]bool
}{
	{operators.Equals, [3]bool{false, true, false}}, {operators.NotEquals, [3]bool{true, false, true}},
	{operators.Less, [3]bool{true, false, false}}, {operators.LessEquals, [3]bool{true, true, false}},
	{operators.Greater, [3]bool{false, false, true}}, {operators.GreaterEquals, [3]bool{false, true, true}},
}

func compared[A, B any](left func(*values) []A, right func(*values) []B, order func(A, B) int, res [3]bool) runFunc {
	return testOf(left, right, func(a A, b B) bool { return res[order(a, b)+1] })
}

// cmpIntFloat orders exactly: the int is not rounded. NaN is above all numbers.
func cmpIntFloat(a int64, b float64) int {
	switch {
	case math.IsNaN(b) || b >= 1<<63:
		return -1
	case b < -1<<63:
		return 1
	}
	if c := cmp.Compare(a, int64(b)); c != 0 { // int64 cuts towards zero
		return c
	}
	return -cmp.Compare(b, math.Trunc(b))
}

func comparisons() []celFunction {
	var all []celFunction
	for _, o := range orders {
		res, name := o.res, o.name
		mirrored := [3]bool{res[2], res[1], res[0]}
		for _, k := range []valueKind{vInt, vStamp, vDateTime, vDate, vTime, vDuration} {
			all = append(all, simple(name, false, vBool, compared(intsOf, intsOf, cmpInt, res), k, k))
		}
		for _, k := range []valueKind{vText, vBytes} {
			all = append(all, simple(name, false, vBool, testOf(textsOf, textsOf, func(a, b []byte) bool {
				return res[bytes.Compare(a, b)+1]
			}), k, k))
		}
		all = append(all, simple(name, false, vBool, compared(floatsOf, floatsOf, cmpFloat, res), vFloat, vFloat),
			simple(name, false, vBool, compared(intsOf, floatsOf, cmpIntFloat, res), vInt, vFloat),
			simple(name, false, vBool, compared(floatsOf, intsOf, func(a float64, b int64) int { return cmpIntFloat(b, a) }, mirrored), vFloat, vInt),
			decimalComparison(name, res, vDecimal, vDecimal), decimalComparison(name, res, vDecimal, vInt), decimalComparison(name, res, vInt, vDecimal),
			decimalComparison(name, res, vDecimal, vFloat), decimalComparison(name, res, vFloat, vDecimal))
		if name == operators.Equals || name == operators.NotEquals {
			all = append(all, simple(name, false, vBool, func(f *frame, in []*values, out *values) {
				for i, a := range in[0].state[:f.n] {
					st := max(a, in[1].state[i])
					if st <= sTrue {
						st = sFalse
						if (a == in[1].state[i]) == res[1] {
							st = sTrue
						}
					}
					out.state[i] = st
				}
			}, vBool, vBool))
		}
	}
	return all
}

// decimalComparison compares decimals with what becomes one without loss.
func decimalComparison(name string, res [3]bool, left, right valueKind) celFunction {
	return celFunction{name, false, []valueKind{left, right}, vBool, func(bound []*expr) (*expr, error) {
		args, err := asDecimals(bound)
		if err != nil {
			return nil, err
		}
		scale := max(args[0].scale, args[1].scale)
		up := [2]int{scale - args[0].scale, scale - args[1].scale}
		return &expr{kind: vBool, args: args, run: testOf(decimalsOf, decimalsOf, func(a, b decimal) bool {
			x, ok1 := a.rescale(up[0])
			y, ok2 := b.rescale(up[1])
			switch {
			case !ok1: // what does not fit is larger than all that does
				return res[sign(a)+1]
			case !ok2:
				return res[-sign(b)+1]
			}
			return res[x.cmp(y)+1]
		})}, nil
	}}
}

func sign(d decimal) int {
	if d.negative() {
		return -1
	}
	return 1
}

// asDecimals turns ints and literal floats beside a decimal into decimals.
func asDecimals(bound []*expr) ([]*expr, error) {
	args := make([]*expr, len(bound))
	for i, e := range bound {
		switch e.kind {
		case vDecimal:
			args[i] = e
		case vInt:
			args[i] = &expr{kind: vDecimal, args: []*expr{e}, run: oneOf(intsOf, decimalsOf, func(n int64) (decimal, bool) { return decimalOf(n), true })}
		default:
			d, scale, ok := parseDecimal(e.text)
			if !e.constant || !ok {
				return nil, fmt.Errorf("a decimal and a double that is no literal; write double(…) around the decimal")
			}
			args[i] = literal(vDecimal, func(out *values, i int) { out.decimals[i] = d })
			args[i].scale = scale
		}
	}
	return args, nil
}

func checkedAdd(a, b int64) (int64, bool) { c := a + b; return c, (c > a) == (b > 0) }
func checkedSub(a, b int64) (int64, bool) { c := a - b; return c, (c < a) == (b > 0) }

func checkedMul(a, b int64) (int64, bool) {
	hi, lo := bits.Mul64(magnitude(a), magnitude(b))
	if (a < 0) != (b < 0) {
		return -int64(lo), hi == 0 && lo <= 1<<63
	}
	return int64(lo), hi == 0 && lo < 1<<63
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

func arithmetic() []celFunction {
	ints := func(name string, op func(a, b int64) (int64, bool)) celFunction {
		return simple(name, false, vInt, twoOf(intsOf, intsOf, intsOf, op), vInt, vInt)
	}
	floats := func(name string, op func(a, b float64) float64) celFunction {
		return simple(name, false, vFloat, twoOf(floatsOf, floatsOf, floatsOf, func(a, b float64) (float64, bool) { return op(a, b), true }), vFloat, vFloat)
	}
	all := []celFunction{
		ints(operators.Add, checkedAdd), ints(operators.Subtract, checkedSub), ints(operators.Multiply, checkedMul),
		ints(operators.Divide, func(a, b int64) (int64, bool) {
			if b == 0 || a == math.MinInt64 && b == -1 {
				return 0, false
			}
			return a / b, true
		}),
		ints(operators.Modulo, func(a, b int64) (int64, bool) {
			if b == 0 {
				return 0, false
			}
			if b == -1 {
				return 0, true
			}
			return a % b, true
		}),
		floats(operators.Add, func(a, b float64) float64 { return a + b }), floats(operators.Subtract, func(a, b float64) float64 { return a - b }),
		floats(operators.Multiply, func(a, b float64) float64 { return a * b }),
		simple(operators.Divide, false, vFloat, twoOf(floatsOf, floatsOf, floatsOf, func(a, b float64) (float64, bool) { return a / b, b != 0 }), vFloat, vFloat),
		simple(operators.Negate, false, vInt, oneOf(intsOf, intsOf, func(a int64) (int64, bool) { return -a, a != math.MinInt64 }), vInt),
		simple(operators.Negate, false, vFloat, oneOf(floatsOf, floatsOf, func(a float64) (float64, bool) { return -a, true }), vFloat),
		{operators.Negate, false, []valueKind{vDecimal}, vDecimal, func(bound []*expr) (*expr, error) {
			return &expr{kind: vDecimal, scale: bound[0].scale, args: bound, run: oneOf(decimalsOf, decimalsOf, func(a decimal) (decimal, bool) { return a.neg(), true })}, nil
		}},
	}
	for _, kinds := range [][2]valueKind{{vDecimal, vDecimal}, {vDecimal, vInt}, {vInt, vDecimal}, {vDecimal, vFloat}, {vFloat, vDecimal}} {
		all = append(all, decimalSum(operators.Add, kinds, false), decimalSum(operators.Subtract, kinds, true), decimalProduct(kinds))
	}
	return all
}

func decimalSum(name string, kinds [2]valueKind, minus bool) celFunction {
	return celFunction{name, false, kinds[:], vDecimal, func(bound []*expr) (*expr, error) {
		args, err := asDecimals(bound)
		if err != nil {
			return nil, err
		}
		scale := max(args[0].scale, args[1].scale)
		up := [2]int{scale - args[0].scale, scale - args[1].scale}
		return &expr{kind: vDecimal, scale: scale, args: args, run: twoOf(decimalsOf, decimalsOf, decimalsOf, func(a, b decimal) (decimal, bool) {
			x, ok1 := a.rescale(up[0])
			y, ok2 := b.rescale(up[1])
			if minus {
				y = y.neg()
			}
			s, ok := x.plus(y)
			return s, ok && ok1 && ok2
		})}, nil
	}}
}

func decimalProduct(kinds [2]valueKind) celFunction {
	return celFunction{operators.Multiply, false, kinds[:], vDecimal, func(bound []*expr) (*expr, error) {
		args, err := asDecimals(bound)
		if err != nil {
			return nil, err
		}
		scale := args[0].scale + args[1].scale
		if scale > maxDigits {
			return nil, fmt.Errorf("the product would have %d digits behind the point; at most %d fit: cast one of them first", scale, maxDigits)
		}
		return &expr{kind: vDecimal, scale: scale, args: args, run: twoOf(decimalsOf, decimalsOf, decimalsOf, func(a, b decimal) (decimal, bool) {
			p, ok := a.times(b)
			return p, ok && p.fits()
		})}, nil
	}}
}
