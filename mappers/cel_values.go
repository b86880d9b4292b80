package mappers

import (
	"github.com/sluice-data/sluice/record"
)

// valueKind says how an expression holds values.
type valueKind uint8

const (
	vAny      valueKind = iota // any of the others, in declarations
	vBool                      // in state
	vInt                       // ints
	vFloat                     // floats
	vText                      // texts
	vBytes                     // texts
	vDecimal                   // decimals
	vStamp                     // ints: µs since 1970 UTC
	vDateTime                  // ints: µs since 1970, no zone
	vDate                      // ints: days since 1970
	vTime                      // ints: µs since midnight
	vDuration                  // ints: µs
)

// valueKindOf returns how expressions hold the values of a field; false if they cannot.
func valueKindOf(k record.Kind) (valueKind, bool) {
	switch k {
	case record.Bool:
		return vBool, true
	case record.Int16, record.Int32, record.Int64:
		return vInt, true
	case record.Float32, record.Float64:
		return vFloat, true
	case record.Text, record.Enum, record.UUID:
		return vText, true
	case record.Bytes:
		return vBytes, true
	case record.Decimal:
		return vDecimal, true
	case record.TimestampTZ:
		return vStamp, true
	case record.Timestamp:
		return vDateTime, true
	case record.Date:
		return vDate, true
	case record.Time:
		return vTime, true
	}
	return vAny, false
}

// field returns the field that values of k are stored in; false if there is none.
func (k valueKind) field(scale int) (record.Field, bool) {
	kinds := map[valueKind]record.Kind{vBool: record.Bool, vInt: record.Int64, vFloat: record.Float64, vText: record.Text, vBytes: record.Bytes,
		vStamp: record.TimestampTZ, vDateTime: record.Timestamp, vDate: record.Date, vTime: record.Time}
	if k == vDecimal {
		return record.Field{Kind: record.Decimal, Precision: maxDigits, Scale: scale, Nullable: true}, true
	}
	f := record.Field{Kind: kinds[k], Nullable: true}
	return f, f.Kind != 0
}

// The states of a row. A bool is true or false in its state, of every other
// kind sTrue means that there is a value. The order makes the state of a
// strict function the largest of its arguments, that of && the largest unless
// one is false, and that of || the largest unless one is true.
const (
	sFalse  byte = 0
	sTrue   byte = 1
	sNull   byte = 2
	sUnsent byte = 3
	sFailed byte = 4 // there is no value: an overflow, a division by zero, a text that is no number
)

// values are the values of one part of an expression for the rows of a batch.
type values struct {
	state    []byte
	ints     []int64
	floats   []float64
	texts    [][]byte
	decimals []decimal
}

// reset makes room for n values of kind k.
func (v *values) reset(k valueKind, n int) {
	v.state = sized(v.state, n)
	switch k {
	case vBool:
	case vFloat:
		v.floats = sized(v.floats, n)
	case vText, vBytes:
		v.texts = sized(v.texts, n)
	case vDecimal:
		v.decimals = sized(v.decimals, n)
	default:
		v.ints = sized(v.ints, n)
	}
}

func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/4)
	}
	return s[:n]
}

func intsOf(v *values) []int64       { return v.ints }
func floatsOf(v *values) []float64   { return v.floats }
func textsOf(v *values) [][]byte     { return v.texts }
func decimalsOf(v *values) []decimal { return v.decimals }

// frame is one run of a program: its memory and the columns it looks at.
type frame struct {
	n             int
	first, second []*record.Vector
	secondKeys    bool
	pool          []values
	in            [][]*values
	arena         []byte // texts that were made; a full one stays where it is
}

// maxText bounds a text that an expression makes.
const maxText = 1 << 20

func (f *frame) other(slot int, key bool) *record.Vector {
	if f.second == nil || f.secondKeys && !key {
		return nil
	}
	return f.second[slot]
}

// expr is a part of an expression. It is immutable; its memory is in a frame.
type expr struct {
	id       int
	kind     valueKind
	scale    int // of decimals
	args     []*expr
	constant bool
	opaque   bool   // only its state is known
	text     string // of a literal
	run      func(f *frame, in []*values, out *values)
}

// program is a compiled expression.
type program struct {
	root   *expr
	parts  int
	inputs []column // the fields it reads
}

func (p *program) frame() *frame {
	return &frame{pool: make([]values, p.parts), in: make([][]*values, p.parts)}
}

// eval computes the values of p for n rows of first; cells that are unsent
// there come from second.
func (p *program) eval(f *frame, n int, first, second []*record.Vector, secondKeys bool) *values {
	f.n, f.first, f.second, f.secondKeys, f.arena = n, first, second, secondKeys, f.arena[:0]
	return f.eval(p.root)
}

func (f *frame) eval(e *expr) *values {
	out := &f.pool[e.id]
	if e.constant && len(out.state) >= f.n {
		return out
	}
	if f.in[e.id] == nil {
		f.in[e.id] = make([]*values, len(e.args))
	}
	for i, a := range e.args {
		f.in[e.id][i] = f.eval(a)
	}
	out.reset(e.kind, f.n)
	if e.constant { // its texts outlive the batch
		arena := f.arena
		f.arena = nil
		e.run(f, f.in[e.id], out)
		f.arena = arena
		return out
	}
	e.run(f, f.in[e.id], out)
	return out
}

// literal is a part that has the same value in every row.
func literal(kind valueKind, set func(out *values, i int)) *expr {
	return &expr{kind: kind, constant: true, run: func(f *frame, _ []*values, out *values) {
		for i := range f.n {
			out.state[i] = sTrue
			set(out, i)
		}
	}}
}

// stateOf translates the state of a cell.
var stateOf = [4]byte{record.Null: sNull, record.Present: sTrue, record.Unsent: sUnsent, 3: sUnsent}

// load reads a field.
func load(c *column) *expr {
	kind, _ := valueKindOf(c.field.Kind)
	slot, key, fixed := c.slot, c.field.Key > 0, c.field
	return &expr{kind: kind, scale: c.field.Scale, run: func(f *frame, _ []*values, out *values) {
		first, second := f.first[slot], f.other(slot, key)
		if first == nil {
			first, second = second, nil
		}
		if first == nil {
			fill(out.state, sUnsent)
			return
		}
		for i, st := range first.State[:f.n] {
			out.state[i] = stateOf[st&3]
		}
		read(out, &fixed, f, first, nil)
		if second == nil {
			return
		}
		for i, st := range out.state {
			if st == sUnsent {
				out.state[i] = stateOf[second.State[i]&3]
				read(out, &fixed, f, second, &i)
			}
		}
	}}
}

// read copies the values of v, or of one row, to out. Texts are not copied.
func read(out *values, field *record.Field, f *frame, v *record.Vector, row *int) {
	from, to := 0, f.n
	if row != nil {
		from, to = *row, *row+1
	}
	switch field.Kind {
	case record.Bool:
		for i := from; i < to; i++ {
			if v.State[i] == record.Present {
				out.state[i] = v.Fixed[i] & 1
			}
		}
	case record.Int16:
		for i := from; i < to; i++ {
			out.ints[i] = int64(v.Int16At(i))
		}
	case record.Int32, record.Date:
		for i := from; i < to; i++ {
			out.ints[i] = int64(v.Int32At(i))
		}
	case record.Float32:
		for i := from; i < to; i++ {
			out.floats[i] = float64(v.Float32At(i))
		}
	case record.Float64:
		for i := from; i < to; i++ {
			out.floats[i] = v.Float64At(i)
		}
	case record.Decimal:
		for i := from; i < to; i++ {
			out.decimals[i].hi, out.decimals[i].lo = v.DecimalAt(i)
		}
	case record.UUID:
		for i := from; i < to; i++ {
			start := len(f.arena)
			f.arena = appendUUID(f.arena, v.FixedAt(i, 16))
			out.texts[i] = f.arena[start:len(f.arena):len(f.arena)]
		}
	case record.Text, record.Enum, record.Bytes:
		for i := from; i < to; i++ {
			out.texts[i] = v.Value(i)
		}
	default:
		for i := from; i < to; i++ {
			out.ints[i] = v.Int64At(i)
		}
	}
}

// append appends value i, which is there, to a column of the kind's field.
func (v *values) append(dst *record.Vector, k valueKind, i int) {
	switch k {
	case vBool:
		dst.AppendBool(v.state[i] == sTrue)
	case vFloat:
		dst.AppendFloat64(v.floats[i])
	case vText, vBytes:
		dst.AppendData(v.texts[i])
	case vDecimal:
		dst.AppendDecimal(v.decimals[i].hi, v.decimals[i].lo)
	case vDate:
		dst.AppendInt32(int32(v.ints[i]))
	default:
		dst.AppendInt64(v.ints[i])
	}
}
