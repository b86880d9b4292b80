package mappers

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/sluice-data/sluice/record"
)

// binder turns the syntax tree of a condition into nodes that know the type
// and the slot of each field.
type binder struct {
	cols  []column
	names func() []string
	read  map[int]bool // slots of the fields the condition reads
}

// bindError is a mistake of a condition that its schema shows.
type bindError struct {
	offset int
	field  string
	code   string
	msg    string
}

func (b *binder) bind(c *condition) (node, *bindError) {
	switch c.op {
	case "and", "or":
		out := logic{table: &andTable}
		if c.op == "or" {
			out.table = &orTable
		}
		for _, a := range c.args {
			n, err := b.bind(a)
			if err != nil {
				return nil, err
			}
			out.parts = append(out.parts, n)
		}
		return &out, nil
	case "not":
		n, err := b.bind(c.args[0])
		if err != nil {
			return nil, err
		}
		return &not{n}, nil
	case "value":
		return b.bare(c)
	}
	col, err := b.operand(c.args[0])
	if err != nil {
		return nil, err
	}
	switch c.op {
	case "is null":
		if col == nil {
			return nil, &bindError{c.args[0].offset, "", CodeType, "a value is never null; want a field"}
		}
		return b.leaf(col, isNull), nil
	case "in":
		return b.in(c, col)
	case "like", "ilike":
		return b.like(c, col)
	}
	return b.compare(c, col)
}

// operand returns the column that c names, nil if c is a literal.
func (b *binder) operand(c *condition) (*column, *bindError) {
	if c.op != "value" {
		return nil, &bindError{c.offset, "", CodeType, "want a field or a value, got a condition"}
	}
	t := c.value
	if t.kind == tokNumber || t.kind == tokText || t.kind == tokName && (t.word("true") || t.word("false")) {
		return nil, nil
	}
	for i := range b.cols {
		if b.cols[i].field.Name == t.text {
			b.read[b.cols[i].slot] = true
			return &b.cols[i], nil
		}
	}
	return nil, &bindError{c.offset, t.text, CodeMissing, fmt.Sprintf("there is no field %s here%s", t.text, suggest(t.text, b.names()))}
}

// bare binds a field or literal that stands as a condition of its own.
func (b *binder) bare(c *condition) (node, *bindError) {
	col, err := b.operand(c)
	switch {
	case err != nil:
		return nil, err
	case col != nil && col.field.Kind == record.Bool:
		return b.leaf(col, compareBool([3]byte{isFalse, isFalse, isTrue}, 0)), nil
	case col != nil:
		return nil, &bindError{c.offset, col.field.Name, CodeType, fmt.Sprintf("%s is %s, not a condition; compare it with something", col.field.Name, col.field.Kind)}
	case c.value.kind == tokName:
		if c.value.word("true") {
			return constant(isTrue), nil
		}
		return constant(isFalse), nil
	}
	return nil, &bindError{c.offset, "", CodeType, "a value is no condition"}
}

func (b *binder) leaf(col *column, k test) node {
	return &leaf{slot: col.slot, key: col.field.Key > 0, test: k}
}

// outcomes says for each operator what less, equal and greater mean.
var outcomes = map[string][3]byte{
	"=":  {isFalse, isTrue, isFalse},
	"<>": {isTrue, isFalse, isTrue},
	"<":  {isTrue, isFalse, isFalse},
	"<=": {isTrue, isTrue, isFalse},
	">":  {isFalse, isFalse, isTrue},
	">=": {isFalse, isTrue, isTrue},
}

var mirrored = map[string]string{"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

func (b *binder) compare(c *condition, left *column) (node, *bindError) {
	right, err := b.operand(c.args[1])
	if err != nil {
		return nil, err
	}
	op, literal := c.op, c.args[1]
	switch {
	case left == nil && right == nil:
		return nil, &bindError{c.offset, "", CodeType, "two values are compared; one side must be a field"}
	case left != nil && right != nil:
		return b.columns(c, left, right)
	case left == nil:
		left, literal, op = right, c.args[0], mirrored[op]
	}
	f := &left.field
	if (f.Kind == record.Enum || f.Kind == record.Bool) && op != "=" && op != "<>" {
		return nil, &bindError{c.offset, f.Name, CodeType, fmt.Sprintf("%s is %s and has no order; use =, <> or in", f.Name, f.Kind)}
	}
	k, err := compareLiteral(f, literal, outcomes[op])
	if err != nil {
		return nil, err
	}
	return b.leaf(left, k), nil
}

// columns compares two fields of one kind.
func (b *binder) columns(c *condition, x, y *column) (node, *bindError) {
	f, g := &x.field, &y.field
	order := comparator(f, g)
	if order == nil {
		return nil, &bindError{c.offset, f.Name, CodeType, fmt.Sprintf("%s (%s) and %s (%s) cannot be compared; cast one of them", f.Name, f.Kind, g.Name, g.Kind)}
	}
	if (f.Kind == record.Enum || f.Kind == record.Bool) && c.op != "=" && c.op != "<>" {
		return nil, &bindError{c.offset, f.Name, CodeType, fmt.Sprintf("%s is %s and has no order; use = or <>", f.Name, f.Kind)}
	}
	return &pair{slots: [2]int{x.slot, y.slot}, keys: [2]bool{f.Key > 0, g.Key > 0}, order: order, res: outcomes[c.op]}, nil
}

func (b *binder) in(c *condition, col *column) (node, *bindError) {
	if col == nil {
		return nil, &bindError{c.args[0].offset, "", CodeType, "want a field before in"}
	}
	set := map[string]bool{}
	either := &logic{table: &orTable}
	for _, a := range c.args[1:] {
		if a.value.kind == tokQuoted || a.value.kind == tokName && !a.value.word("true") && !a.value.word("false") {
			return nil, &bindError{a.offset, "", CodeType, "want a value, not a field, in the list"}
		}
		k, err := compareLiteral(&col.field, a, outcomes["="])
		if err != nil {
			return nil, err
		}
		either.parts = append(either.parts, b.leaf(col, k))
		set[a.value.text] = true
	}
	if isText(col.field.Kind) {
		return b.leaf(col, inSet(set)), nil
	}
	return either, nil
}

func (b *binder) like(c *condition, col *column) (node, *bindError) {
	if col == nil || !isText(col.field.Kind) {
		return nil, &bindError{c.args[0].offset, "", CodeType, "want a text field before " + c.op}
	}
	if c.args[1].value.kind != tokText {
		return nil, &bindError{c.args[1].offset, "", CodeType, "want a pattern in quotes after " + c.op}
	}
	p, ok := parsePattern(c.args[1].value.text, c.op == "ilike")
	if !ok {
		return nil, &bindError{c.args[1].offset, "", CodeSyntax, `the pattern ends with its escape character \`}
	}
	return b.leaf(col, p.test), nil
}

// compareLiteral compares the values of f with a literal.
func compareLiteral(f *record.Field, c *condition, res [3]byte) (test, *bindError) {
	lit := c.value
	wrong := func(want string) (test, *bindError) {
		return nil, &bindError{c.offset, f.Name, CodeType, fmt.Sprintf("%s is %s and is compared with %s; want %s", f.Name, f.Kind, describe(lit), want)}
	}
	switch f.Kind {
	case record.Bool:
		if lit.kind != tokName {
			return wrong("true or false")
		}
		bit := byte(0)
		if lit.word("true") {
			bit = 1
		}
		return compareBool(res, bit), nil
	case record.Int16, record.Int32, record.Int64, record.Decimal, record.Float32, record.Float64, record.DecimalText:
		if lit.kind != tokNumber {
			return wrong("a number")
		}
		return compareNumber(f, lit.text, res, func() (test, *bindError) { return wrong("a number such as 12.5") })
	}
	if lit.kind != tokText {
		return wrong("a text in quotes")
	}
	text := []byte(lit.text)
	switch f.Kind {
	case record.Text, record.Enum:
		return compareBytes(text, res), nil
	case record.Bytes:
		raw, err := hex.DecodeString(strings.TrimPrefix(lit.text, `\x`))
		if err != nil || !strings.HasPrefix(lit.text, `\x`) {
			return wrong(`bytes as '\x0a1b'`)
		}
		return compareBytes(raw, res), nil
	case record.UUID:
		u, ok := parseUUID(text)
		if !ok {
			return wrong("a UUID in quotes")
		}
		return compareFixed(u[:], res), nil
	case record.Date:
		if day, ok := parseDate(text); ok {
			return compareInts(4, int64(day), res), nil
		}
		return wrong("a date as '2024-02-29'")
	case record.Time:
		if t, ok := parseClock(text); ok {
			return compareInts(8, t, res), nil
		}
		return wrong("a time as '23:59:59'")
	case record.Timestamp, record.TimestampTZ:
		if t, ok := parseTimestamp(text, f.Kind == record.TimestampTZ); ok {
			return compareInts(8, t, res), nil
		}
		if f.Kind == record.Timestamp {
			return wrong("a time without zone as '2024-02-29 12:34:56'")
		}
		return wrong("a time as '2024-02-29T12:34:56Z'")
	}
	return nil, &bindError{c.offset, f.Name, CodeType, fmt.Sprintf("%s is %s; only is null works on it", f.Name, f.Kind)}
}

func describe(t token) string {
	switch t.kind {
	case tokNumber:
		return "a number"
	case tokText:
		return "a text"
	}
	return t.text
}

// compareNumber compares exactly: the literal is never rounded to the type of
// an integer or decimal field.
func compareNumber(f *record.Field, text string, res [3]byte, wrong func() (test, *bindError)) (test, *bindError) {
	canonical, ok := appendNumber(nil, []byte(text))
	if !ok {
		return wrong()
	}
	switch f.Kind {
	case record.Float64, record.Float32:
		bits := 8 * f.Kind.Width()
		x, _ := strconv.ParseFloat(text, bits) // out of range gives ±Inf, which compares right
		return compareFloats(bits, x, res), nil
	case record.DecimalText:
		return compareDigits(canonical, res), nil
	}
	r, ok := new(big.Rat).SetString(string(canonical))
	if !ok {
		return wrong()
	}
	scale := 0
	if f.Kind == record.Decimal {
		scale = f.Scale
	}
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)))
	floor, rest := new(big.Int), new(big.Int)
	floor.DivMod(r.Num(), r.Denom(), rest)
	if rest.Sign() != 0 {
		res[1] = res[0] // what equals the floor is less than the literal
	}
	if f.Kind == record.Decimal {
		if floor.BitLen() > 126 {
			return always(res, floor.Sign()), nil
		}
		hi := new(big.Int).Rsh(floor, 64) // rounds down, as two's complement does
		lo := new(big.Int).And(floor, new(big.Int).SetUint64(math.MaxUint64))
		return compareWide(hi.Int64(), lo.Uint64(), res), nil
	}
	if !floor.IsInt64() {
		return always(res, floor.Sign()), nil
	}
	return compareInts(f.Kind.Width(), floor.Int64(), res), nil
}

// always is a comparison with a literal beyond every value of the field.
func always(res [3]byte, sign int) test {
	r := res[0]
	if sign < 0 {
		r = res[2]
	}
	return func(_ *evaluation, v *record.Vector, out []byte) {
		for i, st := range v.State {
			out[i] = missing[st&3]
			if st == record.Present {
				out[i] = r
			}
		}
	}
}

// comparator orders the values of two fields, nil if they have no common order.
func comparator(f, g *record.Field) func(x *record.Vector, i int, y *record.Vector, j int) int {
	whole := func(k record.Kind) bool { return k == record.Int16 || k == record.Int32 || k == record.Int64 }
	fw, gw := f.Kind.Width(), g.Kind.Width()
	switch {
	case whole(f.Kind) && whole(g.Kind), f.Kind == g.Kind && (f.Kind == record.Date || f.Kind == record.Time ||
		f.Kind == record.Timestamp || f.Kind == record.TimestampTZ):
		return func(x *record.Vector, i int, y *record.Vector, j int) int {
			return cmpInt(leInt(x.FixedAt(i, fw)), leInt(y.FixedAt(j, gw)))
		}
	case isText(f.Kind) && isText(g.Kind), f.Kind == record.Bytes && g.Kind == record.Bytes:
		return func(x *record.Vector, i int, y *record.Vector, j int) int {
			return bytes.Compare(x.Value(i), y.Value(j))
		}
	case f.Kind == g.Kind && (f.Kind == record.UUID || f.Kind == record.Bool):
		return func(x *record.Vector, i int, y *record.Vector, j int) int {
			return bytes.Compare(x.FixedAt(i, fw), y.FixedAt(j, gw))
		}
	case f.Kind == record.Decimal && g.Kind == record.Decimal && f.Scale == g.Scale:
		return func(x *record.Vector, i int, y *record.Vector, j int) int {
			a, b := x.FixedAt(i, 16), y.FixedAt(j, 16)
			return cmpWide(leInt(a[8:]), uint64(leInt(a[:8])), leInt(b[8:]), uint64(leInt(b[:8])))
		}
	case f.Kind == g.Kind && f.Kind == record.Float64:
		return func(x *record.Vector, i int, y *record.Vector, j int) int {
			return cmpFloat(x.Float64At(i), y.Float64At(j))
		}
	case f.Kind == g.Kind && f.Kind == record.Float32:
		return func(x *record.Vector, i int, y *record.Vector, j int) int {
			return cmpFloat(float64(x.Float32At(i)), float64(y.Float32At(j)))
		}
	}
	return nil
}
