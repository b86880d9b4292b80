package mappers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sluice-data/sluice/record"
)

// parseType reads a type as it is written in rules: text, decimal(10,2).
func parseType(s string) (record.Field, error) {
	if args, ok := strings.CutPrefix(s, "decimal("); ok {
		p, sc, _ := strings.Cut(strings.TrimSuffix(args, ")"), ",")
		precision, err1 := strconv.Atoi(strings.TrimSpace(p))
		scale, err2 := strconv.Atoi(strings.TrimSpace(sc))
		if err1 != nil || err2 != nil || !strings.HasSuffix(args, ")") || precision < 1 || precision > 38 || scale < 0 || scale > precision {
			return record.Field{}, fmt.Errorf("want decimal(p,s) with 1 to 38 digits, s of them after the point")
		}
		return record.Field{Kind: record.Decimal, Precision: precision, Scale: scale}, nil
	}
	k, err := record.ParseKind(s)
	switch {
	case err != nil:
		return record.Field{}, fmt.Errorf("unknown type %s%s", s, suggest(s, []string{"text", "bool", "int16", "int32", "int64",
			"float32", "float64", "decimal(10,2)", "decimaltext", "date", "time", "timestamp", "timestamptz", "uuid", "json", "bytes"}))
	case k == record.Decimal:
		return record.Field{}, fmt.Errorf("a decimal needs its digits: decimal(10,2)")
	case k == record.Array || k == record.Enum:
		return record.Field{}, fmt.Errorf("%s is no type to cast to", k)
	}
	return record.Field{Kind: k}, nil
}

func isNumber(k record.Kind) bool { return k >= record.Int16 && k <= record.DecimalText }

// castable reports whether some values of from have an exact value of to.
func castable(from, to record.Kind) bool {
	day := func(k record.Kind) bool {
		return k == record.Date || k == record.Timestamp || k == record.TimestampTZ
	}
	switch {
	case from == to, isText(from), to == record.Text:
		return true
	case isNumber(from):
		return isNumber(to)
	case day(from):
		return day(to)
	}
	return from == record.Array && to == record.JSON
}

func (b *builder) cast(c *Cast) {
	i := b.find("field", c.Field)
	to, err := parseType(c.To)
	if err != nil || i < 0 {
		return // the checker has reported a bad type
	}
	from := b.cols[i].field
	if !castable(from.Kind, to.Kind) {
		b.fail("to", from.Name, CodeType, "%s is %s, which has no exact form as %s", from.Name, from.Kind, c.To)
		return
	}
	if from.Key > 0 && (to.Kind == record.Float32 || to.Kind == record.Float64 || to.Kind == record.JSON) {
		b.fail("to", from.Name, CodeKeyField, "%s is part of the key and cannot be %s", from.Name, c.To)
		return
	}
	if from.Kind == to.Kind && from.Precision == to.Precision && from.Scale == to.Scale {
		return
	}
	to.Name, to.Nullable, to.Key = from.Name, from.Nullable, from.Key
	b.replace(i, to, perRun(func() kernel { return (&caster{from: &from, to: &to}).cells }))
}

// caster writes a value as text and reads it as its new type; what does not
// read back exactly is refused.
type caster struct {
	from, to *record.Field
	text     []byte
	back     []byte
}

const codeCast = "value_not_castable"

func (c *caster) cells(dst, src *record.Vector, _ twin, no refuse) {
	width := c.to.Kind.Width()
	for i, st := range src.State {
		if st != record.Present {
			dst.AppendMissing(st, width)
			continue
		}
		text, ok := c.source(src, i)
		ok = ok && appendParsed(dst, c.to, text)
		if ok && c.from.Key > 0 && isText(c.from.Kind) && !isText(c.to.Kind) {
			// Two keys must not become one: 01 and 1 would.
			c.back, ok = AppendCanonical(c.back[:0], c.to, dst, dst.Len()-1)
			if ok = ok && bytes.Equal(c.back, text); !ok {
				removeLast(dst, width)
			}
		}
		if !ok {
			no(i, codeCast, c.from.Name+": the value has no exact form as "+c.to.Kind.String())
			dst.AppendMissing(record.Unsent, width)
		}
	}
}

// source returns the text of a value in the form that the new type reads.
func (c *caster) source(src *record.Vector, i int) ([]byte, bool) {
	switch {
	case c.from.Kind == record.Text, c.from.Kind == record.Enum, c.from.Kind == record.JSON,
		c.from.Kind == record.Bytes, c.from.Kind == record.DecimalText:
		return src.Value(i), true
	case c.from.Kind == record.Decimal && c.to.Kind == record.Text:
		hi, lo := src.DecimalAt(i) // its text keeps the digits of its scale
		c.text = record.AppendDecimal(c.text[:0], hi, lo, c.from.Scale)
		return c.text, true
	}
	var ok bool
	if c.text, ok = AppendCanonical(c.text[:0], c.from, src, i); !ok {
		return nil, false
	}
	switch {
	case c.from.Kind == record.TimestampTZ && c.to.Kind != record.Text:
		return bytes.TrimSuffix(bytes.TrimSuffix(c.text, []byte("Z")), midnightIf(c.to.Kind)), true
	case c.from.Kind == record.Timestamp && c.to.Kind == record.Date:
		return bytes.TrimSuffix(c.text, midnightIf(c.to.Kind)), true
	}
	return c.text, true
}

func midnightIf(to record.Kind) []byte {
	if to == record.Date {
		return []byte("T00:00:00.000000")
	}
	return nil
}

// removeLast takes back the value appended last.
func removeLast(v *record.Vector, width int) {
	n := len(v.State) - 1
	v.State = v.State[:n]
	if width > 0 {
		v.Fixed = v.Fixed[:n*width]
		return
	}
	v.Offs = v.Offs[:n+1]
	v.Data = v.Data[:v.Offs[n]]
}

// appendParsed reads text as a value of f and appends it; false if it has no exact one.
func appendParsed(v *record.Vector, f *record.Field, text []byte) bool {
	switch f.Kind {
	case record.Text:
		if !utf8.Valid(text) {
			return false
		}
		v.AppendData(text)
	case record.Bytes:
		v.AppendData(text)
	case record.JSON:
		if !json.Valid(text) {
			return false
		}
		v.AppendData(text)
	case record.Bool:
		switch string(text) {
		case "true", "t", "1":
			v.AppendBool(true)
		case "false", "f", "0":
			v.AppendBool(false)
		default:
			return false
		}
	case record.UUID:
		u, ok := parseUUID(text)
		if !ok {
			return false
		}
		v.AppendFixed(u[:])
	default:
		if isNumber(f.Kind) {
			return appendParsedNumber(v, f, text)
		}
		return appendParsedTime(v, f, text)
	}
	return true
}

func appendParsedTime(v *record.Vector, f *record.Field, text []byte) bool {
	var t int64
	var ok bool
	switch f.Kind {
	case record.Date:
		day, ok := parseDate(text)
		if ok {
			v.AppendInt32(day)
		}
		return ok
	case record.Time:
		t, ok = parseClock(text)
	case record.Timestamp, record.TimestampTZ:
		t, ok = parseTimestamp(text, f.Kind == record.TimestampTZ)
	}
	if ok {
		v.AppendInt64(t)
	}
	return ok
}

func appendParsedNumber(v *record.Vector, f *record.Field, text []byte) bool {
	switch f.Kind {
	case record.Decimal:
		hi, lo, err := record.ParseDecimal(text, f.Precision, f.Scale)
		if err == nil {
			v.AppendDecimal(hi, lo)
		}
		return err == nil
	case record.DecimalText:
		data, ok := appendNumber(v.Data, text)
		if !ok {
			return false
		}
		v.State, v.Data = append(v.State, record.Present), data
		v.Offs = append(v.Offs, int32(len(data)))
		return true
	case record.Float32, record.Float64:
		return appendParsedFloat(v, f.Kind, text)
	}
	hi, lo, err := record.ParseDecimal(text, 19, 0)
	n := int64(lo)
	if err != nil || hi != n>>63 {
		return false
	}
	switch f.Kind {
	case record.Int16:
		if n != int64(int16(n)) {
			return false
		}
		v.AppendInt16(int16(n))
	case record.Int32:
		if n != int64(int32(n)) {
			return false
		}
		v.AppendInt32(int32(n))
	default:
		v.AppendInt64(n)
	}
	return true
}

// appendParsedFloat takes only numbers whose shortest digits are those of the
// text: 0.1 fits, 0.1000000000000000055 does not.
func appendParsedFloat(v *record.Vector, k record.Kind, text []byte) bool {
	var memory, memory2 [64]byte
	canonical, ok := appendNumber(memory[:0], text)
	if !ok {
		return false
	}
	bits := 8 * k.Width()
	x, err := strconv.ParseFloat(string(text), bits)
	if err != nil {
		return false
	}
	if !bytes.Equal(appendFloat(memory2[:0], x, bits), canonical) {
		return false
	}
	if k == record.Float32 {
		v.AppendFloat32(float32(x))
	} else {
		v.AppendFloat64(x)
	}
	return true
}
