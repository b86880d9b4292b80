package postgres

import (
	"encoding/binary"
	"math"
	"unicode/utf8"
	"unsafe"

	"github.com/sluice-data/sluice/record"
)

// form is how values of a type look on the wire.
type form uint8

const (
	formBool form = 1 + iota
	formInt2
	formInt4
	formInt8
	formFloat4
	formFloat8
	formDecimal // numeric(p,s) that fits 128 bits
	formNumeric // any other numeric
	formString  // the same bytes in text and in binary
	formBytea
	formDate
	formTime
	formTimestamp // with and without time zone: sessions run in UTC
	formUUID
	formJSONB
	formArray
	formOther // only its text form is known
)

// codec appends values of one column to a Vector, from either wire format and
// with the same result.
type codec struct {
	field  record.Field
	form   form
	width  int
	elem   *codec // of an array
	check  bool   // the server does not guarantee UTF-8
	unquot []byte // scratch for quoted array elements; a codec has one user at a time
}

// binary reports whether values can be read in binary format.
func (c *codec) binary() bool {
	if c.form == formArray {
		return c.elem.binary()
	}
	return c.form != formOther
}

// refusal says why a value cannot be kept. A fatal one means that the value is
// not what its type promises, so that no row of the stream can be trusted.
type refusal struct {
	code, reason string
	fatal        bool
}

var (
	refuseRange  = &refusal{code: "value_out_of_range", reason: "is outside of what the type can hold in microseconds since 1970"}
	refuseNaN    = &refusal{code: "value_not_a_number", reason: "is NaN, which numeric with a scale cannot carry on; use numeric without precision"}
	refuseDigits = &refusal{code: "value_out_of_range", reason: "has more digits than its type"}
	refuseDims   = &refusal{code: "array_dimensions", reason: "is an array of more than one dimension"}
	refuseBounds = &refusal{code: "array_bounds", reason: "is an array that does not start at index 1"}
	refuseUTF8   = &refusal{code: "invalid_utf8", reason: "is not valid UTF-8"}
	malformed    = &refusal{code: "malformed", reason: "does not read as its type", fatal: true}
)

// appendCell appends one cell as it stands in a tuple: kind n, u, t or b. A
// refused value becomes an unsent cell.
func (c *codec) appendCell(v *record.Vector, kind byte, data []byte) *refusal {
	var r *refusal
	switch kind {
	case 'n':
		v.AppendMissing(record.Null, c.width)
		return nil
	case 'u':
		v.AppendMissing(record.Unsent, c.width)
		return nil
	case 't':
		r = c.appendText(v, data)
	case 'b':
		r = c.appendBinary(v, data)
	default:
		r = malformed
	}
	if r != nil {
		v.AppendMissing(record.Unsent, c.width)
	}
	return r
}

// appendBinary appends the binary form of a value, or nothing if it is refused.
func (c *codec) appendBinary(v *record.Vector, b []byte) *refusal {
	if n := binarySize[c.form]; n > 0 && len(b) != n {
		return malformed
	}
	switch c.form {
	case formBool:
		v.AppendBool(b[0] != 0)
	case formInt2:
		v.AppendInt16(int16(binary.BigEndian.Uint16(b)))
	case formInt4:
		v.AppendInt32(int32(binary.BigEndian.Uint32(b)))
	case formInt8:
		v.AppendInt64(int64(binary.BigEndian.Uint64(b)))
	case formFloat4:
		appendFloat32(v, math.Float32frombits(binary.BigEndian.Uint32(b)))
	case formFloat8:
		appendFloat64(v, math.Float64frombits(binary.BigEndian.Uint64(b)))
	case formDecimal:
		return c.decimalBinary(v, b)
	case formNumeric:
		return numericBinary(v, b)
	case formString:
		return c.appendString(v, b)
	case formBytea:
		v.AppendData(b)
	case formDate:
		return appendDate(v, int64(int32(binary.BigEndian.Uint32(b))))
	case formTime:
		v.AppendInt64(int64(binary.BigEndian.Uint64(b)))
	case formTimestamp:
		return appendTimestamp(v, int64(binary.BigEndian.Uint64(b)))
	case formUUID:
		v.AppendFixed(b)
	case formJSONB:
		if len(b) < 2 || b[0] != 1 {
			return malformed
		}
		return c.appendString(v, b[1:])
	case formArray:
		return c.arrayBinary(v, b)
	default:
		return malformed
	}
	return nil
}

// binarySize is the length of binary values of fixed size.
var binarySize = [...]int{formBool: 1, formInt2: 2, formInt4: 4, formInt8: 8, formFloat4: 4, formFloat8: 8,
	formDate: 4, formTime: 8, formTimestamp: 8, formUUID: 16, formOther: 0}

func (c *codec) appendString(v *record.Vector, b []byte) *refusal {
	if c.check && !utf8.Valid(b) {
		return refuseUTF8
	}
	v.AppendData(b)
	return nil
}

// A NaN has many bit patterns; text does not tell them apart, so binary must not.
func appendFloat32(v *record.Vector, f float32) {
	if f != f {
		f = float32(math.NaN())
	}
	v.AppendFloat32(f)
}

func appendFloat64(v *record.Vector, f float64) {
	if f != f {
		f = math.NaN()
	}
	v.AppendFloat64(f)
}

// Days and microseconds between 1970-01-01 and 2000-01-01, where Postgres begins to count.
const (
	epochDays   = 10957
	epochMicros = epochDays * microsPerDay

	microsPerDay = 24 * 60 * 60 * 1_000_000
)

// appendDate appends days since 2000-01-01.
func appendDate(v *record.Vector, days int64) *refusal {
	switch days {
	case math.MaxInt32, math.MinInt32:
		v.AppendInt32(int32(days))
		return nil
	}
	if days += epochDays; days >= math.MaxInt32 || days <= math.MinInt32 {
		return refuseRange
	}
	v.AppendInt32(int32(days))
	return nil
}

// appendTimestamp appends microseconds since 2000-01-01.
func appendTimestamp(v *record.Vector, micros int64) *refusal {
	switch {
	case micros == math.MaxInt64 || micros == math.MinInt64:
	case micros >= math.MaxInt64-epochMicros:
		return refuseRange
	default:
		micros += epochMicros
	}
	v.AppendInt64(micros)
	return nil
}

func (c *codec) arrayBinary(v *record.Vector, b []byte) *refusal {
	if len(b) < 12 {
		return malformed
	}
	dims := binary.BigEndian.Uint32(b)
	if dims == 0 {
		v.AppendList()
		return nil
	}
	if dims > 1 {
		return refuseDims
	}
	if len(b) < 20 {
		return malformed
	}
	n, bound := int(int32(binary.BigEndian.Uint32(b[12:]))), int32(binary.BigEndian.Uint32(b[16:]))
	if bound != 1 {
		return refuseBounds
	}
	b = b[20:]
	before := v.Child.Len()
	r := func() *refusal {
		for range n {
			if len(b) < 4 {
				return malformed
			}
			size := int32(binary.BigEndian.Uint32(b))
			b = b[4:]
			if size == -1 {
				v.Child.AppendMissing(record.Null, c.elem.width)
				continue
			}
			if size < 0 || int(size) > len(b) {
				return malformed
			}
			if r := c.elem.appendBinary(v.Child, b[:size]); r != nil {
				return r
			}
			b = b[size:]
		}
		if len(b) > 0 {
			return malformed
		}
		return nil
	}()
	if r != nil {
		truncate(v.Child, before, c.elem.width)
		return r
	}
	v.AppendList()
	return nil
}

// truncate cuts v back to n rows.
func truncate(v *record.Vector, n, width int) {
	v.State = v.State[:n]
	if width > 0 {
		v.Fixed = v.Fixed[:n*width]
		return
	}
	v.Offs = v.Offs[:n+1]
	if v.Child == nil {
		v.Data = v.Data[:v.Offs[n]]
	}
}

// view returns b as a string without a copy, for parsers that keep nothing of it.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
