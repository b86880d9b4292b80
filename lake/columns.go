package lake

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/sluice-data/sluice/record"
)

// arrowType is the form in which a column of type t is written. All but
// narrower numbers and times of day have the layout of their record.Vector.
func arrowType(t iceberg.Type) (arrow.DataType, error) {
	switch t := t.(type) {
	case iceberg.BooleanType:
		return arrow.FixedWidthTypes.Boolean, nil
	case iceberg.Int32Type:
		return arrow.PrimitiveTypes.Int32, nil
	case iceberg.Int64Type:
		return arrow.PrimitiveTypes.Int64, nil
	case iceberg.Float32Type:
		return arrow.PrimitiveTypes.Float32, nil
	case iceberg.Float64Type:
		return arrow.PrimitiveTypes.Float64, nil
	case iceberg.DecimalType:
		return &arrow.Decimal128Type{Precision: int32(t.Precision()), Scale: int32(t.Scale())}, nil
	case iceberg.StringType:
		return arrow.BinaryTypes.String, nil
	case iceberg.BinaryType:
		return arrow.BinaryTypes.Binary, nil
	case iceberg.DateType:
		return arrow.FixedWidthTypes.Date32, nil
	case iceberg.TimestampType:
		return &arrow.TimestampType{Unit: arrow.Microsecond}, nil
	case iceberg.TimestampTzType:
		return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, nil
	case iceberg.UUIDType:
		return extensions.NewUUIDType(), nil
	case *iceberg.ListType:
		elem, err := arrowType(t.Element)
		if err != nil {
			return nil, err
		}
		return arrow.ListOfField(arrowField("element", elem, !t.ElementRequired, t.ElementID)), nil
	}
	return nil, fmt.Errorf("write Iceberg type %s: not supported", t)
}

func arrowField(name string, t arrow.DataType, nullable bool, id int) arrow.Field {
	return arrow.Field{Name: name, Type: t, Nullable: nullable,
		Metadata: arrow.NewMetadata([]string{"PARQUET:field_id"}, []string{fmt.Sprint(id)})}
}

// arrowColumn wraps v, of field f, as an array of type dt. It shares the
// memory of v where the layouts agree; the array is dead when v is reset.
func arrowColumn(v *record.Vector, f *record.Field, dt arrow.DataType) (arrow.Array, error) {
	n := v.Len()
	validity, nulls := validBits(v.State)
	data := func(buffers ...[]byte) arrow.Array {
		bufs := []*memory.Buffer{nil}
		if validity != nil {
			bufs[0] = memory.NewBufferBytes(validity)
		}
		for _, b := range buffers {
			bufs = append(bufs, memory.NewBufferBytes(b))
		}
		return array.MakeFromData(array.NewData(dt, n, bufs, nil, nulls, 0))
	}
	switch {
	case f.Kind == record.Time:
		u := timeText(v)
		return data(arrow.Int32Traits.CastToBytes(u.Offs), u.Data), nil
	case f.Kind == record.Bool:
		return data(packBits(v.Fixed)), nil
	case f.Kind == record.Array:
		elem, err := arrowColumn(v.Child, f.Elem, dt.(*arrow.ListType).Elem())
		if err != nil {
			return nil, err
		}
		bufs := []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(v.Offs))}
		if validity != nil {
			bufs[0] = memory.NewBufferBytes(validity)
		}
		return array.MakeFromData(array.NewData(dt, n, bufs, []arrow.ArrayData{elem.Data()}, nulls, 0)), nil
	case f.Kind.Width() == 0:
		return data(arrow.Int32Traits.CastToBytes(v.Offs), v.Data), nil
	}
	fixed, err := widen(v, f.Kind, dt)
	if err != nil {
		return nil, fmt.Errorf("column %s: %w", f.Name, err)
	}
	return data(fixed), nil
}

// widen returns the values of v in the width that dt has.
func widen(v *record.Vector, k record.Kind, dt arrow.DataType) ([]byte, error) {
	id := dt.ID()
	same := false
	switch k {
	case record.Int32:
		same = id == arrow.INT32
	case record.Int64:
		same = id == arrow.INT64
	case record.Float32:
		same = id == arrow.FLOAT32
	case record.Float64:
		same = id == arrow.FLOAT64
	case record.Decimal:
		same = id == arrow.DECIMAL128
	case record.Date:
		same = id == arrow.DATE32
	case record.Timestamp, record.TimestampTZ:
		same = id == arrow.TIMESTAMP
	case record.UUID:
		same = id == arrow.EXTENSION
	}
	if same {
		return v.Fixed, nil
	}
	n := v.Len()
	switch {
	case k == record.Int16 && id == arrow.INT32:
		out := make([]byte, 0, 4*n)
		for i := range n {
			out = binary.LittleEndian.AppendUint32(out, uint32(int32(v.Int16At(i))))
		}
		return out, nil
	case k == record.Int16 && id == arrow.INT64:
		out := make([]byte, 0, 8*n)
		for i := range n {
			out = binary.LittleEndian.AppendUint64(out, uint64(int64(v.Int16At(i))))
		}
		return out, nil
	case k == record.Int32 && id == arrow.INT64:
		out := make([]byte, 0, 8*n)
		for i := range n {
			out = binary.LittleEndian.AppendUint64(out, uint64(int64(v.Int32At(i))))
		}
		return out, nil
	case k == record.Float32 && id == arrow.FLOAT64:
		out := make([]byte, 0, 8*n)
		for i := range n {
			out = binary.LittleEndian.AppendUint64(out, math.Float64bits(float64(v.Float32At(i))))
		}
		return out, nil
	}
	return nil, fmt.Errorf("%s does not go into %s", k, dt)
}

// validBits packs states to Arrow's bitmap; nil if every row has a value.
func validBits(state []byte) (bits []byte, nulls int) {
	for _, s := range state {
		if s != record.Present {
			nulls++
		}
	}
	if nulls == 0 {
		return nil, 0
	}
	bits = make([]byte, bitutil.BytesForBits(int64(len(state))))
	for i, s := range state {
		if s == record.Present {
			bits[i>>3] |= 1 << (i & 7)
		}
	}
	return bits, nulls
}

func packBits(values []byte) []byte {
	bits := make([]byte, bitutil.BytesForBits(int64(len(values))))
	for i, b := range values {
		bits[i>>3] |= (b & 1) << (i & 7)
	}
	return bits
}

// timeText spells times of day as Postgres does: 07:08:09.5.
func timeText(v *record.Vector) *record.Vector {
	out := &record.Vector{State: v.State, Offs: make([]int32, 1, v.Len()+1)}
	for i := range v.Len() {
		if v.State[i] == record.Present {
			out.Data = appendTime(out.Data, v.Int64At(i))
		}
		out.Offs = append(out.Offs, int32(len(out.Data)))
	}
	return out
}

func appendTime(dst []byte, micros int64) []byte {
	two := func(n int64) { dst = append(dst, byte('0'+n/10), byte('0'+n%10)) }
	seconds, fraction := micros/1e6, micros%1e6
	two(seconds / 3600)
	dst = append(dst, ':')
	two(seconds / 60 % 60)
	dst = append(dst, ':')
	two(seconds % 60)
	if fraction == 0 {
		return dst
	}
	dst = append(dst, '.')
	for digit := int64(1e5); fraction > 0; digit /= 10 {
		dst = append(dst, byte('0'+fraction/digit))
		fraction %= digit
	}
	return dst
}

// parseTime reads what appendTime wrote.
func parseTime(s string) (int64, error) {
	bad := errors.New("a time of day is not spelled hh:mm:ss.ffffff")
	if len(s) < 8 || s[2] != ':' || s[5] != ':' || len(s) > 15 || len(s) == 9 || len(s) > 8 && s[8] != '.' {
		return 0, bad
	}
	var n [4]int64
	for i, part := range []string{s[0:2], s[3:5], s[6:8], (s[min(len(s), 9):] + "000000")[:6]} {
		for _, c := range []byte(part) {
			if c < '0' || c > '9' {
				return 0, bad
			}
			n[i] = n[i]*10 + int64(c-'0')
		}
	}
	return ((n[0]*60+n[1])*60+n[2])*1e6 + n[3], nil
}

// appendCell appends row i of a, a column of the table, to v, which holds values of f.
func appendCell(v *record.Vector, f *record.Field, a arrow.Array, i int) error {
	if a == nil || a.IsNull(i) {
		v.AppendMissing(record.Null, f.Kind.Width())
		return nil
	}
	if ext, ok := a.(array.ExtensionArray); ok {
		a = ext.Storage()
	}
	switch a := a.(type) {
	case *array.Boolean:
		v.AppendBool(a.Value(i))
	case *array.Int32:
		return appendInt(v, f, int64(a.Value(i)))
	case *array.Int64:
		return appendInt(v, f, a.Value(i))
	case *array.Float32:
		if f.Kind == record.Float64 {
			v.AppendFloat64(float64(a.Value(i)))
			return nil
		}
		v.AppendFloat32(a.Value(i))
	case *array.Float64:
		if f.Kind == record.Float32 {
			v.AppendFloat32(float32(a.Value(i)))
			return nil
		}
		v.AppendFloat64(a.Value(i))
	case *array.Decimal128:
		d := a.Value(i)
		v.AppendDecimal(d.HighBits(), d.LowBits())
	case *array.String:
		if f.Kind == record.Time {
			t, err := parseTime(a.Value(i))
			v.AppendInt64(t)
			return err
		}
		v.AppendData([]byte(a.Value(i)))
	case *array.Binary:
		v.AppendData(a.Value(i))
	case *array.FixedSizeBinary:
		v.AppendFixed(a.Value(i))
	case *array.Date32:
		v.AppendInt32(int32(a.Value(i)))
	case *array.Timestamp:
		v.AppendInt64(int64(a.Value(i)))
	case *array.List:
		start, end := a.ValueOffsets(i)
		for j := start; j < end; j++ {
			if err := appendCell(v.Child, f.Elem, a.ListValues(), int(j)); err != nil {
				return err
			}
		}
		v.AppendList()
	default:
		return fmt.Errorf("column %s: cannot read %s", f.Name, a.DataType())
	}
	return nil
}

func appendInt(v *record.Vector, f *record.Field, x int64) error {
	switch f.Kind {
	case record.Int16:
		v.AppendInt16(int16(x))
	case record.Int32:
		v.AppendInt32(int32(x))
	case record.Int64:
		v.AppendInt64(x)
	default:
		return fmt.Errorf("column %s: an integer does not go into %s", f.Name, f.Kind)
	}
	return nil
}

// unfit returns the field of row i whose value no table can hold, and why.
func unfit(v *record.Vector, f *record.Field, i int) string {
	if v.State[i] != record.Present {
		return ""
	}
	switch f.Kind {
	case record.Date:
		if x := v.Int32At(i); x == math.MaxInt32 || x == math.MinInt32 {
			return "infinity is no Iceberg date"
		}
	case record.Timestamp, record.TimestampTZ:
		if x := v.Int64At(i); x == math.MaxInt64 || x == math.MinInt64 {
			return "infinity is no Iceberg timestamp"
		}
	case record.Array:
		for j := v.Offs[i]; j < v.Offs[i+1]; j++ {
			if why := unfit(v.Child, f.Elem, int(j)); why != "" {
				return why
			}
		}
	}
	return ""
}

// mayUnfit reports whether a field can hold values that no table can.
func mayUnfit(f *record.Field) bool {
	switch f.Kind {
	case record.Date, record.Timestamp, record.TimestampTZ:
		return true
	case record.Array:
		return mayUnfit(f.Elem)
	}
	return false
}
