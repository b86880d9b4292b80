package record

import (
	"encoding/binary"
	"math"
)

// The tags of canonical cells. Kinds that a source may widen into each other
// share a tag, so that a key keeps its bytes when its column grows. They are
// stored in key indexes: never change one.
const (
	tagNull      = 'n'
	tagBool      = 'B'
	tagInt       = 'i'
	tagFloat     = 'f'
	tagDecimal   = 'd'
	tagText      = 's'
	tagBytes     = 'b'
	tagDate      = 'D'
	tagTime      = 'H'
	tagTimestamp = 'T'
	tagZoned     = 'Z'
	tagUUID      = 'u'
	tagArray     = 'a'
)

// CanonicalKey appends the canonical bytes of the key cells of a row, in key
// order: equal keys and only they have equal bytes, whether the row came from
// Kafka or from a file. A stream without a key adds nothing.
func CanonicalKey(dst []byte, b *Batch, row int) []byte {
	fields := b.Schema.Fields
	for place := 1; ; place++ {
		found := false
		for i := range fields {
			if fields[i].Key == place {
				dst = AppendCanonical(dst, &fields[i], b.After[i], row)
				found = true
				break
			}
		}
		if !found {
			return dst
		}
	}
}

// AppendCanonical appends the canonical bytes of one cell: a tag for its type,
// the length where it varies, and the value. Numbers that are equal are the
// same: -0.0 and 0.0, all NaN, decimals 1.0 and 1.00; int32 and int64, float32
// and float64, decimals of any precision and scale are one type. Null and
// Unsent are the same.
func AppendCanonical(dst []byte, f *Field, v *Vector, row int) []byte {
	if v.State[row] != Present {
		return append(dst, tagNull)
	}
	switch f.Kind {
	case Bool:
		return append(dst, tagBool, v.Fixed[row])
	case Int16:
		return appendWord(dst, tagInt, uint64(v.Int16At(row)))
	case Int32:
		return appendWord(dst, tagInt, uint64(v.Int32At(row)))
	case Int64:
		return appendWord(dst, tagInt, uint64(v.Int64At(row)))
	case Float32:
		return appendCanonicalFloat(dst, float64(v.Float32At(row)))
	case Float64:
		return appendCanonicalFloat(dst, v.Float64At(row))
	case Decimal:
		var buf [48]byte
		hi, lo := v.DecimalAt(row)
		return appendDecimalCell(dst, AppendDecimal(buf[:0], hi, lo, f.Scale))
	case DecimalText:
		return appendDecimalCell(dst, v.Value(row))
	case Date:
		return binary.BigEndian.AppendUint32(append(dst, tagDate), uint32(v.Int32At(row)))
	case Time:
		return appendWord(dst, tagTime, uint64(v.Int64At(row)))
	case Timestamp:
		return appendWord(dst, tagTimestamp, uint64(v.Int64At(row)))
	case TimestampTZ:
		return appendWord(dst, tagZoned, uint64(v.Int64At(row)))
	case UUID:
		return append(append(dst, tagUUID), v.FixedAt(row, 16)...)
	case Bytes:
		return appendCounted(dst, tagBytes, v.Value(row))
	case Array:
		dst = binary.AppendUvarint(append(dst, tagArray), uint64(v.Offs[row+1]-v.Offs[row]))
		for j := v.Offs[row]; j < v.Offs[row+1]; j++ {
			dst = AppendCanonical(dst, f.Elem, v.Child, int(j))
		}
		return dst
	}
	return appendCounted(dst, tagText, v.Value(row))
}

func appendWord(dst []byte, tag byte, x uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, tag), x)
}

func appendCounted(dst []byte, tag byte, s []byte) []byte {
	return append(binary.AppendUvarint(append(dst, tag), uint64(len(s))), s...)
}

func appendCanonicalFloat(dst []byte, f float64) []byte {
	switch {
	case f == 0:
		f = 0 // not -0.0
	case f != f:
		f = math.NaN()
	}
	return appendWord(dst, tagFloat, math.Float64bits(f))
}

// appendDecimalCell appends decimal text of any length with its length.
func appendDecimalCell(dst, s []byte) []byte {
	var buf [64]byte
	return appendCounted(dst, tagDecimal, appendCanonicalDecimal(buf[:0], s))
}
