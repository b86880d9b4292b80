package record

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"unicode/utf8"
)

var (
	errNull     = errors.New("null in a field that is not nullable")
	errBool     = errors.New("not a boolean")
	errBase64   = errors.New("not base64")
	errUUID     = errors.New("not a UUID")
	errArray    = errors.New("not an array")
	errTooLarge = errors.New("a column above 2 GiB in one batch")
)

// null appends the null at b[p:] to v; allowed says whether it may stand there.
func (c *column) null(v *Vector, b []byte, p int, allowed bool) (int, error) {
	if !hasLiteral(b, p, "null") {
		return p, errSyntax
	}
	if !allowed {
		return p, errNull
	}
	v.AppendMissing(Null, c.width)
	return p + 4, nil
}

// cell appends the value at b[p:], which is not null, to v. After an error v
// may hold parts of it.
func (d *Decoder) cell(f *Field, v *Vector, b []byte, p int) (int, error) {
	if p >= len(b) {
		return p, errEnd
	}
	switch f.Kind {
	case Bool:
		if hasLiteral(b, p, "true") {
			v.AppendBool(true)
			return p + 4, nil
		}
		if hasLiteral(b, p, "false") {
			v.AppendBool(false)
			return p + 5, nil
		}
		return p, errBool
	case Int64:
		x, next, err := readInt(b, p)
		if err == nil {
			v.AppendInt64(x)
		}
		return next, err
	case Int32:
		x, next, err := readInt(b, p)
		if err == nil && x != int64(int32(x)) {
			err = errOverflow
		}
		if err == nil {
			v.AppendInt32(int32(x))
		}
		return next, err
	case Int16:
		x, next, err := readInt(b, p)
		if err == nil && x != int64(int16(x)) {
			err = errOverflow
		}
		if err == nil {
			v.AppendInt16(int16(x))
		}
		return next, err
	case Float32, Float64:
		return d.float(f.Kind, v, b, p)
	case Text, Enum:
		return text(v, b, p)
	case JSON:
		if b[p] == '"' {
			return text(v, b, p)
		}
		end, err := skipValue(b, p)
		if err == nil && !(json.Valid(b[p:end]) && utf8.Valid(b[p:end])) {
			err = errSyntax
		}
		if err != nil {
			return end, err
		}
		return end, data(v, b[p:end])
	case Array:
		return d.array(f, v, b, p)
	}
	// The usual texts have one length: no search for their end.
	if size := usualLength[f.Kind]; size > 0 && p+size+1 < len(b) && b[p] == '"' && b[p+size+1] == '"' {
		if parseInto(f, v, b[p+1:p+size+1]) == nil {
			return p + size + 2, nil
		}
	} else if f.Kind == Decimal {
		if next := usualDecimal(f, v, b, p); next > 0 {
			return next, nil
		}
	}
	s, next, err := d.short(b, p, f.Kind)
	if err != nil {
		return next, err
	}
	return next, parseInto(f, v, s)
}

// usualLength is the length of the text of most values of a kind, 0 where there is none.
var usualLength = [Array + 1]int{Date: 10, Time: 15, Timestamp: microLayout, TimestampTZ: microLayout + 1, UUID: 36}

// usualDecimal reads a string with at most 18 digits, Scale of them after the
// point, and appends it to v. It returns 0 and leaves v alone if b[p:] is anything else.
func usualDecimal(f *Field, v *Vector, b []byte, p int) int {
	if b[p] != '"' || f.Precision > 18 {
		return 0
	}
	p++
	neg := p < len(b) && b[p] == '-'
	if neg {
		p++
	}
	start, point, m := p, -1, int64(0)
	for ; p < len(b); p++ {
		if c := b[p] - '0'; c <= 9 {
			m = m*10 + int64(c)
		} else if b[p] == '.' && point < 0 {
			point = p
		} else {
			break
		}
	}
	scale := 0
	if point >= 0 {
		scale = p - point - 1
	}
	if p >= len(b) || b[p] != '"' || p-start > 19 || p == start || point == start || scale != f.Scale || point == p-1 ||
		uint64(m) >= pow10[f.Precision] {
		return 0
	}
	if neg {
		m = -m
	}
	v.AppendDecimal(m>>63, uint64(m))
	return p + 1
}

func (d *Decoder) float(k Kind, v *Vector, b []byte, p int) (next int, err error) {
	size, f := 64, 0.0
	if k == Float32 {
		size = 32
	}
	if b[p] != '"' {
		f, next, err = readFloat(b, p, size)
	} else {
		var s []byte
		if s, next, err = d.short(b, p, k); err == nil {
			f, err = nonFinite(s)
		}
	}
	if err != nil {
		return next, err
	}
	if size == 32 {
		v.AppendFloat32(float32(f))
	} else {
		v.AppendFloat64(f)
	}
	return next, nil
}

func nonFinite(s []byte) (float64, error) {
	switch string(s) {
	case textNaN:
		return math.NaN(), nil
	case textInf:
		return math.Inf(1), nil
	case textNegInf:
		return math.Inf(-1), nil
	}
	return 0, errNumber
}

// text appends the string at b[p:] to v.
func text(v *Vector, b []byte, p int) (next int, err error) {
	if b[p] != '"' {
		return p, errString
	}
	if v.Data, next, err = unescape(v.Data, b, p+1); err != nil {
		return next, err
	}
	if len(v.Data) > math.MaxInt32 {
		return next, errTooLarge
	}
	v.State, v.Offs = append(v.State, Present), append(v.Offs, int32(len(v.Data)))
	return next, nil
}

// data appends s to v.
func data(v *Vector, s []byte) error {
	if len(v.Data)+len(s) > math.MaxInt32 {
		return errTooLarge
	}
	v.AppendData(s)
	return nil
}

// short returns the content of the string at b[p:], or of a number where the
// kind is decimal. It is valid until the next call.
func (d *Decoder) short(b []byte, p int, k Kind) (s []byte, next int, err error) {
	if b[p] != '"' {
		if k != Decimal && k != DecimalText {
			return nil, p, errString
		}
		if next, err = skipValue(b, p); err == nil && b[p]-'0' > 9 && b[p] != '-' {
			err = errNumber
		}
		return b[p:next], next, err
	}
	p++
	i := bytes.IndexByte(b[p:], '"')
	if i < 0 {
		return nil, len(b), errEnd
	}
	if s = b[p : p+i]; bytes.IndexByte(s, '\\') < 0 {
		return s, p + i + 1, nil
	}
	d.scratch, next, err = unescape(d.scratch[:0], b, p)
	return d.scratch, next, err
}

// parseInto appends the value that s is the text of to v.
func parseInto(f *Field, v *Vector, s []byte) error {
	switch f.Kind {
	case Decimal:
		hi, lo, err := ParseDecimal(s, f.Precision, f.Scale)
		if err != nil {
			return err
		}
		v.AppendDecimal(hi, lo)
	case DecimalText:
		if !validDecimalText(s) {
			return errDecimalSyntax
		}
		return data(v, s)
	case Bytes:
		return base64Into(v, s)
	case UUID:
		return uuidInto(v, s)
	case Date:
		days, err := parseDateText(s)
		if err != nil {
			return err
		}
		v.AppendInt32(days)
	default:
		var micros int64
		var err error
		if f.Kind == Time {
			micros, err = parseTimeText(s)
		} else {
			micros, err = parseTimestampText(s, f.Kind == TimestampTZ)
		}
		if err != nil {
			return err
		}
		v.AppendInt64(micros)
	}
	return nil
}

// validDecimalText reports whether s is a decimal number or one of the words for what is none.
func validDecimalText(s []byte) bool {
	switch string(s) {
	case textNaN, textInf, textNegInf:
		return true
	}
	_, _, err := parseDecimalLong(bytes.TrimPrefix(s, []byte{'-'}), false, maxPrecision, 0)
	return err != errDecimalSyntax
}

func base64Into(v *Vector, s []byte) error {
	size := base64.StdEncoding.DecodedLen(len(s))
	if len(v.Data)+size > math.MaxInt32 {
		return errTooLarge
	}
	v.Data = slices.Grow(v.Data, size)
	at := len(v.Data)
	n, err := base64.StdEncoding.Strict().Decode(v.Data[at:at+size], s)
	if err != nil {
		return errBase64
	}
	v.Data = v.Data[:at+n]
	v.State, v.Offs = append(v.State, Present), append(v.Offs, int32(len(v.Data)))
	return nil
}

// uuidPlaces is where each byte of a UUID stands in its text.
var uuidPlaces = [16]byte{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34}

func uuidInto(v *Vector, s []byte) error {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return errUUID
	}
	var u [16]byte
	var bad byte
	for i, at := range uuidPlaces {
		hi, lo := unhex(s[at]), unhex(s[at+1])
		bad |= hi | lo
		u[i] = hi<<4 | lo
	}
	if bad > 15 {
		return errUUID
	}
	v.AppendFixed(u[:])
	return nil
}

// array appends the elements of the array at b[p:] to v.
func (d *Decoder) array(f *Field, v *Vector, b []byte, p int) (int, error) {
	if b[p] != '[' {
		return p, errArray
	}
	elem := column{field: f.Elem, width: f.Elem.Kind.Width()}
	p = skipSpace(b, p+1)
	if p < len(b) && b[p] == ']' {
		v.AppendList()
		return p + 1, nil
	}
	for {
		var err error
		if p < len(b) && b[p] == 'n' {
			p, err = elem.null(v.Child, b, p, f.Elem.Nullable)
		} else {
			p, err = d.cell(f.Elem, v.Child, b, p)
		}
		if err != nil {
			return p, err
		}
		if p = skipSpace(b, p); p >= len(b) {
			return p, errEnd
		}
		if b[p] == ']' {
			break
		}
		if b[p] != ',' {
			return p, errSyntax
		}
		p = skipSpace(b, p+1)
	}
	if v.Child.Len() > math.MaxInt32 {
		return p, errTooLarge
	}
	v.AppendList()
	return p + 1, nil
}
