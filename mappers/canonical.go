package mappers

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/sluice-data/sluice/record"
)

// AppendCanonical appends the canonical text of row i of v, which is Present:
// what is hashed, encrypted and joined. Equal values of different systems have
// equal texts. The rules, version 1, never change:
//
//	bool              true, false
//	integers          decimal digits
//	floats, decimals  plain decimal digits without zeros at the end and without
//	                  exponent: 1.50 is 1.5, 1.0 is 1, -0 is 0; NaN, Infinity, -Infinity
//	text, enum        as it is
//	bytes             as they are
//	uuid              lower case with dashes
//	date              2024-02-29
//	time              23:59:59.999999, always six digits of a second
//	timestamp         2024-02-29T12:34:56.789012
//	timestamptz       2024-02-29T12:34:56.789012Z
//	json              without white space, names sorted, numbers as above
//	array             as a JSON list
//
// Years outside 0000 to 9999 have a sign and are astronomical (1 BC is 0000);
// both infinities are infinity and -infinity. It returns false for a value
// that has no such text, such as a number with an exponent of millions.
func AppendCanonical(dst []byte, f *record.Field, v *record.Vector, i int) ([]byte, bool) {
	switch f.Kind {
	case record.Bool:
		return strconv.AppendBool(dst, v.Fixed[i] != 0), true
	case record.Int16:
		return strconv.AppendInt(dst, int64(v.Int16At(i)), 10), true
	case record.Int32:
		return strconv.AppendInt(dst, int64(v.Int32At(i)), 10), true
	case record.Int64:
		return strconv.AppendInt(dst, v.Int64At(i), 10), true
	case record.Float32:
		return appendFloat(dst, float64(v.Float32At(i)), 32), true
	case record.Float64:
		return appendFloat(dst, v.Float64At(i), 64), true
	case record.Decimal:
		hi, lo := v.DecimalAt(i)
		start := len(dst)
		return trimNumber(record.AppendDecimal(dst, hi, lo, f.Scale), start), true
	case record.DecimalText:
		return appendNumber(dst, v.Value(i))
	case record.Text, record.Enum, record.Bytes:
		return append(dst, v.Value(i)...), true
	case record.Date:
		return appendDate(dst, v.Int32At(i)), true
	case record.Time:
		return appendClock(dst, v.Int64At(i)), true
	case record.Timestamp:
		return appendTimestamp(dst, v.Int64At(i), false), true
	case record.TimestampTZ:
		return appendTimestamp(dst, v.Int64At(i), true), true
	case record.UUID:
		return appendUUID(dst, v.FixedAt(i, 16)), true
	case record.JSON:
		return appendJSON(dst, v.Value(i))
	case record.Array:
		return appendArray(dst, f, v, i)
	}
	return dst, false
}

func isText(k record.Kind) bool { return k == record.Text || k == record.Enum }

func appendFloat(dst []byte, x float64, bits int) []byte {
	switch {
	case math.IsNaN(x):
		return append(dst, "NaN"...)
	case math.IsInf(x, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(x, -1):
		return append(dst, "-Infinity"...)
	case x == 0:
		return append(dst, '0') // -0 too
	}
	return strconv.AppendFloat(dst, x, 'f', -1, bits)
}

// trimNumber removes the zeros at the end of the plain decimal dst[start:],
// and the minus of a zero.
func trimNumber(dst []byte, start int) []byte {
	if bytes.IndexByte(dst[start:], '.') >= 0 {
		for dst[len(dst)-1] == '0' {
			dst = dst[:len(dst)-1]
		}
		if dst[len(dst)-1] == '.' {
			dst = dst[:len(dst)-1]
		}
	}
	if string(dst[start:]) == "-0" {
		return append(dst[:start], '0')
	}
	return dst
}

// maxExponent bounds how many zeros a short number may turn into.
const maxExponent = 20_000

// appendNumber appends decimal text of any form in the canonical one.
func appendNumber(dst, text []byte) ([]byte, bool) {
	switch string(text) {
	case "NaN", "Infinity", "-Infinity":
		return append(dst, text...), true
	}
	start, body, exponent := len(dst), text, 0
	if i := bytes.IndexAny(text, "eE"); i >= 0 {
		e, err := strconv.Atoi(string(text[i+1:]))
		if err != nil || e > maxExponent || e < -maxExponent {
			return dst, false
		}
		body, exponent = text[:i], e
	}
	if len(body) > 0 && (body[0] == '-' || body[0] == '+') {
		if body[0] == '-' {
			dst = append(dst, '-')
		}
		body = body[1:]
	}
	whole, fraction, _ := bytes.Cut(body, []byte("."))
	if len(whole)+len(fraction) == 0 || !allDigits(whole) || !allDigits(fraction) {
		return dst[:start], false
	}
	// point is where the decimal point stands among the digits whole‖fraction.
	point, digits := len(whole)+exponent, len(whole)+len(fraction)
	digit := func(k int) byte {
		switch {
		case k < 0 || k >= digits:
			return '0'
		case k < len(whole):
			return whole[k]
		}
		return fraction[k-len(whole)]
	}
	first := 0 // leading zeros are left out
	for first < point && digit(first) == '0' {
		first++
	}
	if first >= point {
		dst = append(dst, '0')
	}
	for k := first; k < point; k++ {
		dst = append(dst, digit(k))
	}
	if point < digits {
		dst = append(dst, '.')
		for k := point; k < digits; k++ {
			dst = append(dst, digit(k))
		}
	}
	return trimNumber(dst, start), true
}

func allDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// dayZero is 1970-01-01 counted from 0000-03-01.
const dayZero = 719468

// civil returns the proleptic Gregorian date of a day since 1970-01-01.
func civil(day int64) (year int64, month, dom int) {
	z := day + dayZero
	era := floorDiv(z, 146097)
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	dom = int(doy - (153*mp+2)/5 + 1)
	month = int(mp + 3)
	year = yoe + era*400
	if month > 12 {
		month -= 12
		year++
	}
	return year, month, dom
}

// days is the inverse of civil.
func days(year int64, month, dom int) int64 {
	m := int64(month)
	if m <= 2 {
		year--
		m += 12
	}
	era := floorDiv(year, 400)
	yoe := year - era*400
	doy := (153*(m-3)+2)/5 + int64(dom) - 1
	return era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - dayZero
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func appendTwo(dst []byte, n int) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }

func appendDay(dst []byte, day int64) []byte {
	year, month, dom := civil(day)
	if year < 0 || year > 9999 {
		sign := byte('+')
		if year < 0 {
			sign, year = '-', -year
		}
		dst = append(dst, sign)
	}
	for limit := int64(1000); limit > 1 && year < limit; limit /= 10 {
		dst = append(dst, '0')
	}
	dst = strconv.AppendInt(dst, year, 10)
	dst = appendTwo(append(dst, '-'), month)
	return appendTwo(append(dst, '-'), dom)
}

func appendDate(dst []byte, day int32) []byte {
	switch day {
	case math.MaxInt32:
		return append(dst, "infinity"...)
	case math.MinInt32:
		return append(dst, "-infinity"...)
	}
	return appendDay(dst, int64(day))
}

const (
	microsPerSecond = 1_000_000
	microsPerDay    = 86_400 * microsPerSecond
)

func appendClock(dst []byte, micros int64) []byte {
	s := int(micros / microsPerSecond)
	dst = appendTwo(dst, s/3600)
	dst = appendTwo(append(dst, ':'), s/60%60)
	dst = appendTwo(append(dst, ':'), s%60)
	fraction := int(micros % microsPerSecond)
	dst = append(dst, '.')
	dst = appendTwo(dst, fraction/10000)
	dst = appendTwo(dst, fraction/100%100)
	return appendTwo(dst, fraction%100)
}

func appendTimestamp(dst []byte, micros int64, utc bool) []byte {
	switch micros {
	case math.MaxInt64:
		return append(dst, "infinity"...)
	case math.MinInt64:
		return append(dst, "-infinity"...)
	}
	day := floorDiv(micros, microsPerDay)
	dst = appendDay(dst, day)
	dst = appendClock(append(dst, 'T'), micros-day*microsPerDay)
	if utc {
		dst = append(dst, 'Z')
	}
	return dst
}

func appendUUID(dst, u []byte) []byte {
	dst = append(hex.AppendEncode(dst, u[:4]), '-')
	dst = append(hex.AppendEncode(dst, u[4:6]), '-')
	dst = append(hex.AppendEncode(dst, u[6:8]), '-')
	dst = append(hex.AppendEncode(dst, u[8:10]), '-')
	return hex.AppendEncode(dst, u[10:16])
}

func appendArray(dst []byte, f *record.Field, v *record.Vector, i int) ([]byte, bool) {
	dst = append(dst, '[')
	for j := int(v.Offs[i]); j < int(v.Offs[i+1]); j++ {
		if j > int(v.Offs[i]) {
			dst = append(dst, ',')
		}
		if v.Child.State[j] != record.Present {
			dst = append(dst, "null"...)
			continue
		}
		start := len(dst)
		var ok bool
		if dst, ok = AppendCanonical(dst, f.Elem, v.Child, j); !ok {
			return dst, false
		}
		if !bareInJSON(f.Elem.Kind, dst[start:]) {
			dst = quoteTail(dst, start)
		}
	}
	return append(dst, ']'), true
}

// bareInJSON reports whether the canonical text of a value stands without quotes in a JSON list.
func bareInJSON(k record.Kind, text []byte) bool {
	switch k {
	case record.Bool, record.Int16, record.Int32, record.Int64, record.JSON:
		return true
	case record.Float32, record.Float64, record.Decimal, record.DecimalText:
		last := text[len(text)-1]
		return last >= '0' && last <= '9'
	}
	return false
}

// quoteTail turns dst[start:] into a JSON string.
func quoteTail(dst []byte, start int) []byte {
	return appendQuoted(dst[:start], string(dst[start:]))
}

// appendQuoted appends s as a JSON string with as few escapes as JSON allows.
// Bytes that are no UTF-8 stay as they are: two values never get one text.
func appendQuoted(dst []byte, s string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			_, size := utf8.DecodeRuneInString(s[i:])
			dst = append(dst, s[i:i+size]...)
			i += size
			continue
		}
		i++
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c == '\b':
			dst = append(dst, '\\', 'b')
		case c == '\f':
			dst = append(dst, '\\', 'f')
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// appendJSON appends a JSON document in its canonical form. Documents are the
// one kind that allocates per row: they have to be read to be sorted.
func appendJSON(dst, doc []byte) ([]byte, bool) {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil || d.More() {
		return dst, false
	}
	return appendJSONValue(dst, v), true
}

func appendJSONValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...)
	case bool:
		return strconv.AppendBool(dst, v)
	case string:
		return appendQuoted(dst, v)
	case json.Number:
		if out, ok := appendNumber(dst, []byte(v)); ok {
			return out
		}
		return append(dst, v...) // an exponent too large to write out stays one
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSONValue(dst, e)
		}
		return append(dst, ']')
	case map[string]any:
		dst = append(dst, '{')
		for i, name := range sortedNames(v) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendQuoted(dst, name), ':')
			dst = appendJSONValue(dst, v[name])
		}
		return append(dst, '}')
	}
	return dst
}

// leInt returns the little-endian signed integer of b, which has 2, 4 or 8 bytes.
func leInt(b []byte) int64 {
	switch len(b) {
	case 2:
		return int64(int16(binary.LittleEndian.Uint16(b)))
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(b)))
	}
	return int64(binary.LittleEndian.Uint64(b))
}
