package record

import (
	"encoding/base64"
	"encoding/hex"
	"math"
	"strconv"
)

// Origin is the constant part of the source block of a stream.
type Origin struct {
	Connector string // kind of source as Debezium spells it: postgresql
	Name      string // topic prefix + "." + source
	Database  string
}

// Encoder writes the rows of one schema as topic records, see UnsentHeader for
// the form. It is not safe for concurrent use; make one per goroutine.
type Encoder struct {
	schema *Schema
	keys   []int
	names  []label // of each field

	sources [2][]byte // ,"source":{ up to the schema id's closing quote; [1] with snapshot true
	lsn     bool      // write the source's lsn field

	// tail is what follows op, up to the last slash of the position, of the rows
	// that share tailKey: all rows of a transaction or of a backfill.
	tail    []byte
	tailKey tailKey
}

// label is ,"name": with room behind it, so that short ones are copied as one
// block of fixed size.
type label struct {
	block [labelBlock]byte
	text  []byte
}

const labelBlock = 24

// appendTo appends l's text.
func (l *label) appendTo(dst []byte) []byte {
	if n := len(dst) + len(l.text); len(l.text) <= labelBlock {
		return append(dst, l.block[:]...)[:n]
	}
	return append(dst, l.text...)
}

type tailKey struct {
	epoch, lsn uint64
	time       int64
	snapshot   bool
}

// NewEncoder returns an encoder of rows of s, which is sealed.
func NewEncoder(s *Schema, o Origin) *Encoder {
	e := &Encoder{schema: s, keys: s.Keys(), names: make([]label, len(s.Fields)), lsn: o.Connector == "postgresql"}
	for i := range s.Fields {
		l := &e.names[i]
		l.text = append(appendString([]byte{','}, []byte(s.Fields[i].Name)), ':')
		copy(l.block[:], l.text)
	}
	for i, snapshot := range []string{"false", "true"} {
		b := append([]byte(litSource), '{')
		member := func(name, value string) {
			if b[len(b)-1] != '{' {
				b = append(b, ',')
			}
			b = append(appendString(b, []byte(name)), ':')
			b = appendString(b, []byte(value))
		}
		member("connector", o.Connector)
		member("name", o.Name)
		member("db", o.Database)
		if s.Stream.Namespace != "" {
			member("schema", s.Stream.Namespace)
		}
		member("table", s.Stream.Name)
		member("snapshot", snapshot)
		if s.Mapping != "" {
			member("mapping", s.Mapping)
		}
		member("schema_id", s.ID)
		e.sources[i] = b
	}
	return e
}

// AppendKey appends the canonical JSON of the primary key of a row, in key
// order: {"id":1}. It returns dst unchanged if the stream has no key or the
// row is a control op. Numbers that are equal have equal keys: zeros at the
// end of unbounded decimals and the sign of zero are left out.
func (e *Encoder) AppendKey(dst []byte, b *Batch, row int) []byte {
	if len(e.keys) == 0 || b.Ops[row].Control() {
		return dst
	}
	open := len(dst)
	for _, i := range e.keys {
		dst = e.names[i].appendTo(dst)
		f, v := &e.schema.Fields[i], b.After[i]
		switch {
		case v.State[row] != Present:
			dst = append(dst, "null"...)
		case f.Kind == DecimalText:
			dst = append(appendCanonicalDecimal(append(dst, '"'), v.Value(row)), '"')
		case f.Kind == Float64 && v.Float64At(row) == 0, f.Kind == Float32 && v.Float32At(row) == 0:
			dst = append(dst, '0')
		default:
			dst = appendCell(dst, f, v, row)
		}
	}
	dst[open] = '{'
	return append(dst, '}')
}

// AppendValue appends the envelope of a row.
func (e *Encoder) AppendValue(dst []byte, b *Batch, row int) []byte {
	op := b.Ops[row]
	switch {
	case op == OpDelete:
		dst = e.appendOld(append(dst, litBefore...), b, row)
		dst = append(dst, litNoAfter...)
	case op.Control():
		dst = append(dst, litNoRows...)
		if op != OpTruncate {
			dst = append(append(append(dst, litMessage...), op.String()...), litMessageEnd...)
		}
	case anySent(b.Before, row):
		dst = e.appendRow(append(dst, litBefore...), b.Before, row)
		dst = e.appendRow(append(dst, litAfter...), b.After, row)
	default:
		dst = e.appendRow(append(dst, litNoBefore...), b.After, row)
	}
	dst = append(append(append(dst, litOp...), op.Code()...), '"')
	pos := b.Pos[row]
	if k := (tailKey{pos.Epoch, pos.LSN, b.Time[row], op == OpRead}); k != e.tailKey || len(e.tail) == 0 {
		e.prepareTail(k)
	}
	dst = strconv.AppendUint(append(dst, e.tail...), pos.Seq, 10)
	return append(dst, litEnd...)
}

func (e *Encoder) prepareTail(k tailKey) {
	millis := k.time / 1000
	if k.time < 0 && millis*1000 != k.time {
		millis--
	}
	source := e.sources[0]
	if k.snapshot {
		source = e.sources[1]
	}
	t := strconv.AppendInt(append(e.tail[:0], litTsMs...), millis, 10)
	t = append(t, source...)
	t = strconv.AppendInt(append(t, litTsMs...), millis, 10)
	t = strconv.AppendInt(append(t, litTsUs...), k.time, 10)
	if e.lsn {
		t = strconv.AppendUint(append(t, litLSN...), k.lsn, 10)
	}
	t = append(strconv.AppendUint(append(t, litPos...), k.epoch, 10), '/')
	e.tail, e.tailKey = append(strconv.AppendUint(t, k.lsn, 16), '/'), k
}

// AppendUnsent appends the value of the UnsentHeader of a row: a JSON array of
// the names of the cells of After that the source did not send. It returns dst
// unchanged if there are none, and for deletes and control ops.
func (e *Encoder) AppendUnsent(dst []byte, b *Batch, row int) []byte {
	if b.Ops[row] >= OpDelete {
		return dst
	}
	open := len(dst)
	for i, v := range b.After {
		if v.State[row] == Unsent {
			name := e.names[i].text
			dst = append(dst, name[:len(name)-1]...)
		}
	}
	if len(dst) == open {
		return dst
	}
	dst[open] = '['
	// The first name lost its comma to the bracket.
	return append(dst, ']')
}

// anySent reports whether a row has a cell that is not Unsent.
func anySent(vs []*Vector, row int) bool {
	for _, v := range vs {
		if v.State[row] != Unsent {
			return true
		}
	}
	return false
}

// appendRow appends the sent cells of a row as a JSON object.
func (e *Encoder) appendRow(dst []byte, vs []*Vector, row int) []byte {
	open := len(dst)
	for i, v := range vs {
		switch v.State[row] {
		case Present:
			dst = appendCell(e.names[i].appendTo(dst), &e.schema.Fields[i], v, row)
		case Null:
			dst = append(e.names[i].appendTo(dst), "null"...)
		}
	}
	return closeObject(dst, open)
}

// appendOld appends the old row of a delete: its key cells and what Before has.
func (e *Encoder) appendOld(dst []byte, b *Batch, row int) []byte {
	open := len(dst)
	for i := range e.names {
		f, v := &e.schema.Fields[i], b.After[i]
		if f.Key == 0 || v.State[row] == Unsent {
			if b.Before == nil {
				continue
			}
			v = b.Before[i]
		}
		switch v.State[row] {
		case Present:
			dst = appendCell(e.names[i].appendTo(dst), f, v, row)
		case Null:
			dst = append(e.names[i].appendTo(dst), "null"...)
		}
	}
	return closeObject(dst, open)
}

// closeObject turns the comma of the first member at open into a brace and adds the last one.
func closeObject(dst []byte, open int) []byte {
	if len(dst) == open {
		return append(dst, '{', '}')
	}
	dst[open] = '{'
	return append(dst, '}')
}

// AppendJSON appends one cell as the topics spell it: a JSON value, null for
// Null and Unsent.
func AppendJSON(dst []byte, f *Field, v *Vector, row int) []byte {
	if v.State[row] != Present {
		return append(dst, "null"...)
	}
	return appendCell(dst, f, v, row)
}

// appendCell appends the value of a cell that is Present.
func appendCell(dst []byte, f *Field, v *Vector, row int) []byte {
	switch f.Kind {
	case Bool:
		if v.Fixed[row] != 0 {
			return append(dst, "true"...)
		}
		return append(dst, "false"...)
	case Int16:
		return strconv.AppendInt(dst, int64(v.Int16At(row)), 10)
	case Int32:
		return strconv.AppendInt(dst, int64(v.Int32At(row)), 10)
	case Int64:
		return strconv.AppendInt(dst, v.Int64At(row), 10)
	case Float32:
		return appendFloat(dst, float64(v.Float32At(row)), 32)
	case Float64:
		return appendFloat(dst, v.Float64At(row), 64)
	case Decimal:
		hi, lo := v.DecimalAt(row)
		return append(AppendDecimal(append(dst, '"'), hi, lo, f.Scale), '"')
	case DecimalText, Text, JSON, Enum:
		return appendString(dst, v.Value(row))
	case Bytes:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), v.Value(row)), '"')
	case UUID:
		return append(appendUUID(append(dst, '"'), v.FixedAt(row, 16)), '"')
	case Array:
		return appendArray(dst, f.Elem, v, row)
	}
	return append(appendMoment(append(dst, '"'), f.Kind, v, row), '"')
}

// appendMoment appends the text of a date, time or timestamp.
func appendMoment(dst []byte, k Kind, v *Vector, row int) []byte {
	if k == Date {
		switch days := v.Int32At(row); days {
		case math.MaxInt32:
			return append(dst, textTimeInf...)
		case math.MinInt32:
			return append(dst, textTimeNeg...)
		default:
			return appendDate(dst, int64(days))
		}
	}
	micros := v.Int64At(row)
	if k == Time {
		return appendTime(dst, micros)
	}
	switch micros {
	case math.MaxInt64:
		return append(dst, textTimeInf...)
	case math.MinInt64:
		return append(dst, textTimeNeg...)
	}
	dst = appendTimestamp(dst, micros)
	if k == TimestampTZ {
		dst = append(dst, 'Z')
	}
	return dst
}

func appendUUID(dst, u []byte) []byte {
	dst = append(hex.AppendEncode(dst, u[:4]), '-')
	dst = append(hex.AppendEncode(dst, u[4:6]), '-')
	dst = append(hex.AppendEncode(dst, u[6:8]), '-')
	dst = append(hex.AppendEncode(dst, u[8:10]), '-')
	return hex.AppendEncode(dst, u[10:])
}

func appendArray(dst []byte, elem *Field, v *Vector, row int) []byte {
	dst = append(dst, '[')
	for j := v.Offs[row]; j < v.Offs[row+1]; j++ {
		if j > v.Offs[row] {
			dst = append(dst, ',')
		}
		if v.Child.State[j] == Present {
			dst = appendCell(dst, elem, v.Child, int(j))
		} else {
			dst = append(dst, "null"...)
		}
	}
	return append(dst, ']')
}
