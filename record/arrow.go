package record

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// elementName is the name of the elements of an Arrow list.
const elementName = "element"

// ArrowType returns the Arrow type of the values of f. JSON, enums and
// unbounded decimals are text. The infinities of dates and timestamps stay the
// extreme values that stand for them: a sink decides what to do with them.
func ArrowType(f *Field) arrow.DataType {
	switch f.Kind {
	case Bool:
		return arrow.FixedWidthTypes.Boolean
	case Int16:
		return arrow.PrimitiveTypes.Int16
	case Int32:
		return arrow.PrimitiveTypes.Int32
	case Int64:
		return arrow.PrimitiveTypes.Int64
	case Float32:
		return arrow.PrimitiveTypes.Float32
	case Float64:
		return arrow.PrimitiveTypes.Float64
	case Decimal:
		return &arrow.Decimal128Type{Precision: int32(f.Precision), Scale: int32(f.Scale)}
	case Bytes:
		return arrow.BinaryTypes.Binary
	case Date:
		return arrow.FixedWidthTypes.Date32
	case Time:
		return arrow.FixedWidthTypes.Time64us
	case Timestamp:
		return &arrow.TimestampType{Unit: arrow.Microsecond}
	case TimestampTZ:
		return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	case UUID:
		return &arrow.FixedSizeBinaryType{ByteWidth: 16}
	case Array:
		return arrow.ListOfField(arrow.Field{Name: elementName, Type: ArrowType(f.Elem), Nullable: f.Elem.Nullable})
	}
	return arrow.BinaryTypes.String
}

// ArrowSchema returns the Arrow schema of the rows of s.
func ArrowSchema(s *Schema) *arrow.Schema {
	fields := make([]arrow.Field, len(s.Fields))
	for i := range s.Fields {
		f := &s.Fields[i]
		fields[i] = arrow.Field{Name: f.Name, Type: ArrowType(f), Nullable: f.Nullable}
	}
	return arrow.NewSchema(fields, nil)
}

// ArrowArray returns v, the values of f, as an Arrow array over the same
// memory: it is valid until v is changed or reset. Null and Unsent cells are
// null; only their bitmap and that of booleans are made anew.
func ArrowArray(v *Vector, f *Field) arrow.Array {
	d := arrowData(v, f, ArrowType(f))
	defer d.Release()
	return array.MakeFromData(d)
}

func arrowData(v *Vector, f *Field, t arrow.DataType) *array.Data {
	validity, nulls := validityBits(v.State)
	buffers := []*memory.Buffer{validity}
	var children []arrow.ArrayData
	switch {
	case f.Kind == Bool:
		buffers = append(buffers, memory.NewBufferBytes(packBits(v.Fixed)))
	case f.Kind.Width() > 0:
		buffers = append(buffers, memory.NewBufferBytes(v.Fixed))
	case f.Kind == Array:
		child := arrowData(v.Child, f.Elem, t.(*arrow.ListType).Elem())
		defer child.Release()
		buffers = append(buffers, offsets(v))
		children = []arrow.ArrayData{child}
	default:
		buffers = append(buffers, offsets(v), memory.NewBufferBytes(v.Data))
	}
	return array.NewData(t, len(v.State), buffers, children, nulls, 0)
}

func offsets(v *Vector) *memory.Buffer {
	return memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(v.Offs))
}

// validityBits returns the bitmap of the cells that are Present, nil if all are, and the number of others.
func validityBits(state []byte) (*memory.Buffer, int) {
	nulls := 0
	for _, s := range state {
		if s != Present {
			nulls++
		}
	}
	if nulls == 0 {
		return nil, 0
	}
	// Present is the one state with the lowest bit set.
	return memory.NewBufferBytes(packBits(state)), nulls
}

// packBits packs the lowest bit of every byte, eight at a time.
func packBits(b []byte) []byte {
	out := make([]byte, (len(b)+7)/8)
	for i, c := range b {
		out[i>>3] |= c & 1 << (i & 7)
	}
	return out
}
