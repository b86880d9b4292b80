package postgres

import (
	"encoding/hex"
	"math"
	"strconv"

	"github.com/sluice-data/sluice/record"
)

// appendText appends the text form of a value, or nothing if it is refused.
func (c *codec) appendText(v *record.Vector, b []byte) *refusal {
	switch c.form {
	case formBool:
		if len(b) != 1 || b[0] != 't' && b[0] != 'f' {
			return malformed
		}
		v.AppendBool(b[0] == 't')
	case formInt2, formInt4, formInt8:
		return c.intText(v, b)
	case formFloat4:
		f, err := strconv.ParseFloat(view(b), 32)
		if err != nil {
			return malformed
		}
		appendFloat32(v, float32(f))
	case formFloat8:
		f, err := strconv.ParseFloat(view(b), 64)
		if err != nil {
			return malformed
		}
		appendFloat64(v, f)
	case formDecimal:
		return c.decimalText(v, b)
	case formNumeric:
		if len(b) == 0 {
			return malformed
		}
		v.AppendData(b)
	case formString, formJSONB, formOther:
		return c.appendString(v, b)
	case formBytea:
		return byteaText(v, b)
	case formDate:
		return dateText(v, b)
	case formTime:
		micros, rest, ok := clock(b)
		if !ok || len(rest) > 0 {
			return malformed
		}
		v.AppendInt64(micros)
	case formTimestamp:
		return timestampText(v, b)
	case formUUID:
		return uuidText(v, b)
	case formArray:
		return c.arrayText(v, b)
	default:
		return malformed
	}
	return nil
}

func (c *codec) intText(v *record.Vector, b []byte) *refusal {
	neg := len(b) > 0 && b[0] == '-'
	digits := b
	if neg {
		digits = b[1:]
	}
	if len(digits) == 0 || len(digits) > 19 {
		return malformed
	}
	var x uint64
	for _, d := range digits {
		if d -= '0'; d > 9 {
			return malformed
		}
		x = x*10 + uint64(d)
	}
	n := int64(x)
	if neg {
		n = -n // the smallest int64 is its own negative
	}
	if x > 1<<63 || x == 1<<63 && !neg {
		return malformed
	}
	switch {
	case c.form == formInt8:
		v.AppendInt64(n)
	case c.form == formInt4 && n == int64(int32(n)):
		v.AppendInt32(int32(n))
	case c.form == formInt2 && n == int64(int16(n)):
		v.AppendInt16(int16(n))
	default:
		return malformed
	}
	return nil
}

func byteaText(v *record.Vector, b []byte) *refusal {
	if len(b) < 2 || b[0] != '\\' || b[1] != 'x' {
		return malformed
	}
	start := len(v.Data)
	out, err := hex.AppendDecode(v.Data, b[2:])
	if err != nil {
		v.Data = v.Data[:start]
		return malformed
	}
	v.Data, v.State = out, append(v.State, record.Present)
	v.Offs = append(v.Offs, int32(len(v.Data)))
	return nil
}

func uuidText(v *record.Vector, b []byte) *refusal {
	if len(b) != 36 || b[8] != '-' || b[13] != '-' || b[18] != '-' || b[23] != '-' {
		return malformed
	}
	var hexed [32]byte
	n := 0
	for i, x := range b {
		if i != 8 && i != 13 && i != 18 && i != 23 {
			hexed[n] = x
			n++
		}
	}
	var id [16]byte
	if _, err := hex.Decode(id[:], hexed[:]); err != nil {
		return malformed
	}
	v.AppendFixed(id[:])
	return nil
}

func infinite(b []byte) int {
	switch string(b) {
	case "infinity":
		return 1
	case "-infinity":
		return -1
	}
	return 0
}

func dateText(v *record.Vector, b []byte) *refusal {
	switch infinite(b) {
	case 1:
		return appendDate(v, math.MaxInt32)
	case -1:
		return appendDate(v, math.MinInt32)
	}
	b, bc := cutBC(b)
	days, rest, ok := calendar(b, bc)
	if !ok || len(rest) > 0 {
		return malformed
	}
	return appendDate(v, days-epochDays)
}

func timestampText(v *record.Vector, b []byte) *refusal {
	switch infinite(b) {
	case 1:
		return appendTimestamp(v, math.MaxInt64)
	case -1:
		return appendTimestamp(v, math.MinInt64)
	}
	b, bc := cutBC(b)
	days, rest, ok := calendar(b, bc)
	if !ok || len(rest) == 0 || rest[0] != ' ' {
		return malformed
	}
	micros, rest, ok := clock(rest[1:])
	if !ok {
		return malformed
	}
	if len(rest) > 0 { // an offset; sessions run in UTC, so it is +00
		for _, x := range rest {
			if x != '+' && x != '0' && x != ':' {
				return malformed
			}
		}
	}
	return appendTimestamp(v, (days-epochDays)*microsPerDay+micros) // Postgres' own range fits from 2000 on
}

func cutBC(b []byte) ([]byte, bool) {
	if n := len(b); n > 3 && string(b[n-3:]) == " BC" {
		return b[:n-3], true
	}
	return b, false
}

// calendar reads year-month-day and returns days since 1970-01-01.
func calendar(b []byte, bc bool) (days int64, rest []byte, ok bool) {
	year, b, ok1 := number(b, 4, 7)
	month, b, ok2 := after(b, '-')
	day, b, ok3 := after(b, '-')
	if !ok1 || !ok2 || !ok3 || month < 1 || month > 12 || day < 1 || day > 31 {
		return 0, nil, false
	}
	if bc {
		year = 1 - year
	}
	return daysOf(year, month, day), b, true
}

// daysOf counts the days from 1970-01-01 in the proleptic Gregorian calendar:
// years begin in March there, so that the leap day is the last of a year.
func daysOf(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era := year / 400
	if year < 0 {
		era = (year - 399) / 400
	}
	ofEra := year - era*400
	ofYear := (153*(month-3)+2)/5 + day - 1
	return era*146097 + ofEra*365 + ofEra/4 - ofEra/100 + ofYear - 719468
}

// clock reads hours:minutes:seconds with an optional fraction.
func clock(b []byte) (micros int64, rest []byte, ok bool) {
	h, b, ok1 := number(b, 2, 2)
	m, b, ok2 := after(b, ':')
	s, b, ok3 := after(b, ':')
	if !ok1 || !ok2 || !ok3 {
		return 0, nil, false
	}
	micros = ((h*60+m)*60 + s) * 1_000_000
	if len(b) > 0 && b[0] == '.' {
		scale := int64(100_000)
		b = b[1:]
		for len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
			micros += int64(b[0]-'0') * scale
			scale /= 10
			b = b[1:]
		}
	}
	return micros, b, true
}

// after reads a sign and the two digits behind it.
func after(b []byte, sign byte) (int64, []byte, bool) {
	if len(b) == 0 || b[0] != sign {
		return 0, nil, false
	}
	return number(b[1:], 2, 2)
}

func number(b []byte, least, most int) (n int64, rest []byte, ok bool) {
	i := 0
	for i < len(b) && i < most && b[i] >= '0' && b[i] <= '9' {
		n = n*10 + int64(b[i]-'0')
		i++
	}
	return n, b[i:], i >= least
}

func (c *codec) arrayText(v *record.Vector, b []byte) *refusal {
	if len(b) > 0 && b[0] == '[' {
		for _, x := range b { // [1:2][1:2]={…} or [0:1]={…}
			if x == '=' {
				break
			}
			if x == ']' {
				return refuseBoundsOrDims(b)
			}
		}
		return malformed
	}
	if len(b) < 2 || b[0] != '{' || b[len(b)-1] != '}' {
		return malformed
	}
	before := v.Child.Len()
	if r := c.elements(v.Child, b[1:len(b)-1]); r != nil {
		truncate(v.Child, before, c.elem.width)
		return r
	}
	v.AppendList()
	return nil
}

func refuseBoundsOrDims(b []byte) *refusal {
	for i := range b {
		if b[i] == '=' {
			break
		}
		if b[i] == ']' && i+1 < len(b) && b[i+1] == '[' {
			return refuseDims
		}
	}
	return refuseBounds
}

// elements reads what stands between the braces.
func (c *codec) elements(v *record.Vector, b []byte) *refusal {
	if len(b) == 0 {
		return nil
	}
	for {
		var value []byte
		quoted := len(b) > 0 && b[0] == '"'
		switch {
		case quoted:
			var ok bool
			if value, b, ok = c.quoted(b[1:]); !ok {
				return malformed
			}
		case len(b) > 0 && b[0] == '{':
			return refuseDims
		default:
			i := 0
			for i < len(b) && b[i] != ',' {
				i++
			}
			value, b = b[:i], b[i:]
			if len(value) == 0 {
				return malformed
			}
		}
		if !quoted && string(value) == "NULL" {
			v.AppendMissing(record.Null, c.elem.width)
		} else if r := c.elem.appendText(v, value); r != nil {
			return r
		}
		if len(b) == 0 {
			return nil
		}
		if b[0] != ',' {
			return malformed
		}
		b = b[1:]
	}
}

// quoted reads up to the closing quote; the value lives until the next call.
func (c *codec) quoted(b []byte) (value, rest []byte, ok bool) {
	c.unquot = c.unquot[:0]
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			return c.unquot, b[i+1:], true
		case '\\':
			if i++; i == len(b) {
				return nil, nil, false
			}
		}
		c.unquot = append(c.unquot, b[i])
	}
	return nil, nil, false
}
