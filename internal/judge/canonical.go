package judge

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The canonical texts, the same here and in judge.py:
//
//	bool       t or f
//	int        decimal digits
//	float      16 hexadecimal digits of the IEEE 754 bits as a double; one NaN, -0 differs from 0
//	numeric    decimal digits without exponent and trailing zeros; NaN, Infinity, -Infinity
//	text       itself
//	bytes      hexadecimal digits
//	date       days since 1970-01-01; infinity, -infinity
//	time       microseconds since midnight
//	timestamp  microseconds since 1970-01-01 UTC; infinity, -infinity
//	uuid       lower case with dashes
//	json       structure with sorted keys, lengths before strings, numbers as numeric
//	KIND[]     [length:text,n,…] with n for NULL

// daysTo2000 is the distance of Postgres's epoch from 1970-01-01.
const (
	daysTo2000   = 10957
	microsTo2000 = daysTo2000 * 86_400_000_000
)

// kinds maps the types of Postgres; what is not listed is read as text.
var kinds = map[uint32]string{
	16: "bool", 20: "int", 21: "int", 23: "int", 26: "int", 700: "float", 701: "float", 1700: "numeric",
	25: "text", 1043: "text", 1042: "text", 19: "text", 18: "text", 17: "bytes", 1082: "date", 1083: "time",
	1114: "timestamp", 1184: "timestamp", 2950: "uuid", 114: "json", 3802: "json",
}

// canonical appends the text of a value in Postgres's binary form.
func canonical(dst []byte, oid uint32, b []byte) ([]byte, error) {
	if want := sizes[oid]; want != 0 && len(b) != want {
		return nil, fmt.Errorf("%d bytes for a value of %d", len(b), want)
	}
	switch kinds[oid] {
	case "bool":
		if b[0] != 0 {
			return append(dst, 't'), nil
		}
		return append(dst, 'f'), nil
	case "int":
		return strconv.AppendInt(dst, integer(oid, b), 10), nil
	case "float":
		return appendFloat(dst, b), nil
	case "numeric":
		return appendNumeric(dst, b)
	case "bytes":
		return hex.AppendEncode(dst, b), nil
	case "date":
		return appendDate(dst, int32(binary.BigEndian.Uint32(b))), nil
	case "time":
		return strconv.AppendInt(dst, int64(binary.BigEndian.Uint64(b)), 10), nil
	case "timestamp":
		return appendTimestamp(dst, int64(binary.BigEndian.Uint64(b))), nil
	case "uuid":
		return fmt.Appendf(dst, "%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
	case "json":
		if oid == 3802 && len(b) > 0 {
			b = b[1:] // the version of the binary form
		}
		return appendJSON(dst, b)
	}
	return append(dst, b...), nil
}

var sizes = map[uint32]int{16: 1, 20: 8, 21: 2, 23: 4, 26: 4, 700: 4, 701: 8, 1082: 4, 1083: 8, 1114: 8, 1184: 8, 2950: 16}

func integer(oid uint32, b []byte) int64 {
	switch {
	case len(b) == 2:
		return int64(int16(binary.BigEndian.Uint16(b)))
	case oid == 26:
		return int64(binary.BigEndian.Uint32(b))
	case len(b) == 4:
		return int64(int32(binary.BigEndian.Uint32(b)))
	}
	return int64(binary.BigEndian.Uint64(b))
}

func appendFloat(dst, b []byte) []byte {
	var f float64
	if len(b) == 4 {
		f = float64(math.Float32frombits(binary.BigEndian.Uint32(b)))
	} else {
		f = math.Float64frombits(binary.BigEndian.Uint64(b))
	}
	bits := math.Float64bits(f)
	if f != f {
		bits = 0x7ff8000000000000
	}
	return fmt.Appendf(dst, "%016x", bits)
}

func appendDate(dst []byte, days int32) []byte {
	switch days {
	case math.MaxInt32:
		return append(dst, "infinity"...)
	case math.MinInt32:
		return append(dst, "-infinity"...)
	}
	return strconv.AppendInt(dst, int64(days)+daysTo2000, 10)
}

func appendTimestamp(dst []byte, micros int64) []byte {
	switch micros {
	case math.MaxInt64:
		return append(dst, "infinity"...)
	case math.MinInt64:
		return append(dst, "-infinity"...)
	}
	if micros > math.MaxInt64-microsTo2000 { // the last years of Postgres's range do not fit
		return append(dst, strconv.FormatUint(uint64(micros)+microsTo2000, 10)...)
	}
	return strconv.AppendInt(dst, micros+microsTo2000, 10)
}

// appendNumeric appends a numeric: groups of four decimal digits, the first of weight 10000^weight.
func appendNumeric(dst, b []byte) ([]byte, error) {
	if len(b) < 8 || len(b) != 8+2*int(binary.BigEndian.Uint16(b)) {
		return nil, errors.New("a numeric of wrong length")
	}
	weight, sign := int(int16(binary.BigEndian.Uint16(b[2:]))), binary.BigEndian.Uint16(b[4:])
	switch sign {
	case 0xC000:
		return append(dst, "NaN"...), nil
	case 0xD000:
		return append(dst, "Infinity"...), nil
	case 0xF000:
		return append(dst, "-Infinity"...), nil
	}
	groups := b[8:]
	group := func(i int) int {
		if i < 0 || 2*i >= len(groups) {
			return 0
		}
		return int(binary.BigEndian.Uint16(groups[2*i:]))
	}
	if len(groups) == 0 {
		return append(dst, '0'), nil
	}
	if sign == 0x4000 {
		dst = append(dst, '-')
	}
	whole, fraction := []byte{}, []byte{}
	for i := 0; i <= weight; i++ {
		whole = fmt.Appendf(whole, "%04d", group(i))
	}
	if whole = bytes.TrimLeft(whole, "0"); len(whole) == 0 {
		whole = []byte{'0'}
	}
	dst = append(dst, whole...)
	for i := weight + 1; i < len(groups)/2; i++ { // below 0: groups of zeros after the point
		fraction = fmt.Appendf(fraction, "%04d", group(i))
	}
	if fraction = bytes.TrimRight(fraction, "0"); len(fraction) > 0 {
		dst = append(append(dst, '.'), fraction...)
	}
	return dst, nil
}

// appendArray appends an array in Postgres's binary form; elements are of type oid.
func appendArray(dst []byte, oid uint32, b []byte) ([]byte, error) {
	if len(b) < 12 {
		return nil, errors.New("an array of wrong length")
	}
	dims := int(binary.BigEndian.Uint32(b))
	b = b[12:]
	if dims == 0 {
		return append(dst, "[]"...), nil
	}
	if dims < 0 || dims > 6 || len(b) < 8*dims {
		return nil, errors.New("an array of wrong dimensions")
	}
	lengths := make([]int, dims)
	for i := range lengths {
		lengths[i] = int(binary.BigEndian.Uint32(b[8*i:]))
	}
	dst, rest, err := appendElements(dst, oid, lengths, b[8*dims:])
	if err == nil && len(rest) > 0 {
		err = errors.New("an array with bytes left over")
	}
	return dst, err
}

func appendElements(dst []byte, oid uint32, lengths []int, b []byte) ([]byte, []byte, error) {
	dst = append(dst, '[')
	for range lengths[0] {
		var text []byte
		var err error
		switch {
		case len(lengths) > 1:
			text, b, err = appendElements(nil, oid, lengths[1:], b)
		case len(b) < 4:
			err = errors.New("an array cut short")
		default:
			size := int(int32(binary.BigEndian.Uint32(b)))
			b = b[4:]
			if size < 0 {
				dst = append(dst, "n,"...)
				continue
			}
			if size > len(b) {
				return nil, nil, errors.New("an array cut short")
			}
			text, err = canonical(nil, oid, b[:size])
			b = b[size:]
		}
		if err != nil {
			return nil, nil, err
		}
		dst = append(strconv.AppendInt(dst, int64(len(text)), 10), ':')
		dst = append(append(dst, text...), ',')
	}
	return append(dst, ']'), b, nil
}

func appendJSON(dst, text []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, errors.New("text that is not JSON")
	}
	return appendJSONValue(dst, v), nil
}

func appendJSONValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, 'n')
	case bool:
		if v {
			return append(dst, 't')
		}
		return append(dst, 'f')
	case json.Number:
		return append(append(dst, '#'), plain(string(v))...)
	case string:
		return append(append(strconv.AppendInt(append(dst, 's'), int64(len(v)), 10), ':'), v...)
	case []any:
		dst = append(dst, '[')
		for _, e := range v {
			dst = append(appendJSONValue(dst, e), ',')
		}
		return append(dst, ']')
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		dst = append(dst, '{')
		for _, name := range names {
			dst = append(appendJSONValue(dst, name), '=')
			dst = append(appendJSONValue(dst, v[name]), ',')
		}
		return append(dst, '}')
	}
	return append(dst, '?')
}

// plain writes a decimal number without exponent and without zeros that say nothing.
func plain(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	exponent := 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		n, err := strconv.Atoi(strings.TrimPrefix(s[i+1:], "+"))
		if err != nil || n > 100_000 || n < -100_000 {
			return sign + s // nothing real: leave it as it is
		}
		exponent, s = n, s[:i]
	}
	whole, fraction, _ := strings.Cut(s, ".")
	switch {
	case exponent > 0:
		fraction += strings.Repeat("0", max(0, exponent-len(fraction)))
		whole, fraction = whole+fraction[:exponent], fraction[exponent:]
	case exponent < 0:
		whole = strings.Repeat("0", max(0, -exponent-len(whole))) + whole
		whole, fraction = whole[:len(whole)+exponent], whole[len(whole)+exponent:]+fraction
	}
	whole, fraction = strings.TrimLeft(whole, "0"), strings.TrimRight(fraction, "0")
	if whole == "" {
		whole = "0"
	}
	if fraction != "" {
		whole += "." + fraction
	}
	if whole == "0" {
		return whole
	}
	return sign + whole
}
