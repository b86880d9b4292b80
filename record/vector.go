package record

import (
	"encoding/binary"
	"math"
)

// State of one cell of a Vector.
const (
	Null    byte = 0 // SQL NULL
	Present byte = 1 // the cell has a value
	Unsent  byte = 2 // the source did not send the value (unchanged TOAST, partial row image): keep the old one
)

// Vector is one column of a Batch. All rows have a State; a row that is not
// Present still takes a slot in Fixed (zeroes) or Offs (empty).
//
// Fixed-width kinds use Fixed, kinds of variable size use Offs and Data,
// arrays use Offs and Child; the layouts are Arrow's, so that a Vector becomes
// an Arrow column without a copy (Bool and State are packed to bits then).
type Vector struct {
	State []byte
	Fixed []byte  // rows × Kind.Width()
	Offs  []int32 // rows + 1 entries, the first 0
	Data  []byte
	Child *Vector // elements of an Array
}

// NewVector returns an empty vector for values of f.
func NewVector(f *Field) *Vector {
	v := &Vector{}
	if f.Kind.Width() == 0 {
		v.Offs = append(v.Offs, 0)
	}
	if f.Kind == Array {
		v.Child = NewVector(f.Elem)
	}
	return v
}

// Reset empties v and keeps its memory.
func (v *Vector) Reset() {
	v.State, v.Fixed, v.Data = v.State[:0], v.Fixed[:0], v.Data[:0]
	if len(v.Offs) > 0 {
		v.Offs = v.Offs[:1]
	}
	if v.Child != nil {
		v.Child.Reset()
	}
}

// Len returns the number of rows.
func (v *Vector) Len() int { return len(v.State) }

// Bytes returns the memory v holds values in.
func (v *Vector) Bytes() int {
	n := len(v.State) + len(v.Fixed) + 4*len(v.Offs) + len(v.Data)
	if v.Child != nil {
		n += v.Child.Bytes()
	}
	return n
}

var zeros [16]byte

// AppendMissing appends a row without a value; state is Null or Unsent and width its Kind.Width().
func (v *Vector) AppendMissing(state byte, width int) {
	v.State = append(v.State, state)
	if width > 0 {
		v.Fixed = append(v.Fixed, zeros[:width]...)
		return
	}
	v.Offs = append(v.Offs, v.Offs[len(v.Offs)-1])
}

// AppendBool appends a value of kind Bool.
func (v *Vector) AppendBool(b bool) {
	var x byte
	if b {
		x = 1
	}
	v.State, v.Fixed = append(v.State, Present), append(v.Fixed, x)
}

// AppendInt16 appends a value of kind Int16.
func (v *Vector) AppendInt16(x int16) {
	v.State, v.Fixed = append(v.State, Present), binary.LittleEndian.AppendUint16(v.Fixed, uint16(x))
}

// AppendInt32 appends a value of kind Int32 or Date.
func (v *Vector) AppendInt32(x int32) {
	v.State, v.Fixed = append(v.State, Present), binary.LittleEndian.AppendUint32(v.Fixed, uint32(x))
}

// AppendInt64 appends a value of kind Int64, Time, Timestamp or TimestampTZ.
func (v *Vector) AppendInt64(x int64) {
	v.State, v.Fixed = append(v.State, Present), binary.LittleEndian.AppendUint64(v.Fixed, uint64(x))
}

// AppendFloat32 appends a value of kind Float32.
func (v *Vector) AppendFloat32(x float32) { v.AppendInt32(int32(math.Float32bits(x))) }

// AppendFloat64 appends a value of kind Float64.
func (v *Vector) AppendFloat64(x float64) { v.AppendInt64(int64(math.Float64bits(x))) }

// AppendDecimal appends the unscaled value hi·2^64 + lo of kind Decimal.
func (v *Vector) AppendDecimal(hi int64, lo uint64) {
	v.State = append(v.State, Present)
	v.Fixed = binary.LittleEndian.AppendUint64(v.Fixed, lo)
	v.Fixed = binary.LittleEndian.AppendUint64(v.Fixed, uint64(hi))
}

// AppendFixed appends the Width() bytes of b.
func (v *Vector) AppendFixed(b []byte) {
	v.State, v.Fixed = append(v.State, Present), append(v.Fixed, b...)
}

// AppendData appends a copy of b as a value of variable size.
func (v *Vector) AppendData(b []byte) {
	v.State, v.Data = append(v.State, Present), append(v.Data, b...)
	v.Offs = append(v.Offs, int32(len(v.Data)))
}

// AppendList closes the elements appended to Child since the last row into one array.
func (v *Vector) AppendList() {
	v.State = append(v.State, Present)
	v.Offs = append(v.Offs, int32(v.Child.Len()))
}

// Value returns the bytes of row i of a kind of variable size. It aliases v.
func (v *Vector) Value(i int) []byte { return v.Data[v.Offs[i]:v.Offs[i+1]] }

// FixedAt returns the bytes of row i of a fixed kind. It aliases v.
func (v *Vector) FixedAt(i, width int) []byte { return v.Fixed[i*width : (i+1)*width : (i+1)*width] }

// Int64At returns row i of an 8-byte kind.
func (v *Vector) Int64At(i int) int64 { return int64(binary.LittleEndian.Uint64(v.Fixed[8*i:])) }

// Int32At returns row i of a 4-byte kind.
func (v *Vector) Int32At(i int) int32 { return int32(binary.LittleEndian.Uint32(v.Fixed[4*i:])) }

// Int16At returns row i of kind Int16.
func (v *Vector) Int16At(i int) int16 { return int16(binary.LittleEndian.Uint16(v.Fixed[2*i:])) }

// Float64At returns row i of kind Float64.
func (v *Vector) Float64At(i int) float64 { return math.Float64frombits(uint64(v.Int64At(i))) }

// Float32At returns row i of kind Float32.
func (v *Vector) Float32At(i int) float32 { return math.Float32frombits(uint32(v.Int32At(i))) }

// DecimalAt returns row i of kind Decimal as hi·2^64 + lo.
func (v *Vector) DecimalAt(i int) (hi int64, lo uint64) {
	b := v.Fixed[16*i : 16*i+16]
	return int64(binary.LittleEndian.Uint64(b[8:])), binary.LittleEndian.Uint64(b)
}

// AppendFrom appends row i of u, which has the same kind as v; width is its Kind.Width().
func (v *Vector) AppendFrom(u *Vector, i, width int) {
	switch {
	case width > 0:
		v.State, v.Fixed = append(v.State, u.State[i]), append(v.Fixed, u.FixedAt(i, width)...)
	case u.Child != nil:
		v.appendListFrom(u, i)
	default:
		v.State, v.Data = append(v.State, u.State[i]), append(v.Data, u.Value(i)...)
		v.Offs = append(v.Offs, int32(len(v.Data)))
	}
}

func (v *Vector) appendListFrom(u *Vector, i int) {
	width := 0
	if u.Child.Offs == nil && u.Child.Len() > 0 {
		width = len(u.Child.Fixed) / u.Child.Len()
	}
	for j := u.Offs[i]; j < u.Offs[i+1]; j++ {
		v.Child.AppendFrom(u.Child, int(j), width)
	}
	v.State, v.Offs = append(v.State, u.State[i]), append(v.Offs, int32(v.Child.Len()))
}
