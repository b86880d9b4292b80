package record

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
)

var (
	errDate      = errors.New("not a date of the form 2006-01-02")
	errTime      = errors.New("not a time of the form 15:04:05.000000")
	errTimestamp = errors.New("not a timestamp of the form 2006-01-02T15:04:05.000000")
	errZone      = errors.New("a timestamp without its zone, or with one where none belongs")
	errYear      = errors.New("a point in time that does not fit 64 bits of microseconds")
	errSubMicro  = errors.New("a time with digits below microseconds")
)

const (
	microsPerSecond = 1_000_000
	microsPerDay    = 86_400 * microsPerSecond
)

// civil returns the proleptic Gregorian date of a day number, 0 being 1970-01-01.
func civil(days int64) (year int64, month, day int) {
	// Years start in March here, so that the leap day is the last one; an era is 400 years.
	z := days + 719_468
	era := z / 146_097
	if z < 0 {
		era = (z - 146_096) / 146_097
	}
	doe := uint32(z - era*146_097)
	yoe := (doe - doe/1_460 + doe/36_524 - doe/146_096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	year, month, day = int64(yoe)+era*400, int(mp)+3, int(doy-(153*mp+2)/5)+1
	if month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}

// dayNumber is the reverse of civil.
func dayNumber(year int64, month, day int) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era := year / 400
	if year < 0 {
		era = (year - 399) / 400
	}
	yoe := uint32(year - era*400)
	doy := uint32(153*(month-3)+2)/5 + uint32(day) - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	return era*146_097 + int64(doe) - 719_468
}

func daysIn(year int64, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// appendDate appends the ISO form of a day number.
func appendDate(dst []byte, days int64) []byte {
	year, month, day := civil(days)
	if year < 0 || year > 9999 {
		dst = appendBigYear(dst, year)
	} else {
		a, b := 2*(year/100), 2*(year%100)
		dst = append(dst, pairs[a], pairs[a+1], pairs[b], pairs[b+1])
	}
	m, d := 2*month, 2*day
	return append(dst, '-', pairs[m], pairs[m+1], '-', pairs[d], pairs[d+1])
}

func appendBigYear(dst []byte, year int64) []byte {
	sign, u := byte('+'), uint64(year)
	if year < 0 {
		sign, u = '-', uint64(-year)
	}
	dst = append(dst, sign)
	if u < 1000 {
		return appendPadded(dst, u, 4)
	}
	return strconv.AppendUint(dst, u, 10)
}

// appendClock appends HH:MM:SS.ffffff of a non-negative number of µs.
func appendClock(dst []byte, micros int64) []byte {
	secs := uint64(micros) / microsPerSecond
	frac := uint32(uint64(micros) - secs*microsPerSecond)
	hour := secs / 3600
	if hour > 99 { // not a time of day; the digits still tell which value it is, and no reader takes them for one
		dst = strconv.AppendUint(dst, hour/100, 10)
	}
	rest := uint32(secs - hour*3600)
	h, m, s := 2*(hour%100), 2*(rest/60), 2*(rest%60)
	f1, f2, f3 := 2*(frac/10_000), 2*(frac/100%100), 2*(frac%100)
	return append(dst, pairs[h], pairs[h+1], ':', pairs[m], pairs[m+1], ':', pairs[s], pairs[s+1], '.',
		pairs[f1], pairs[f1+1], pairs[f2], pairs[f2+1], pairs[f3], pairs[f3+1])
}

// appendTime appends a time of day in µs.
func appendTime(dst []byte, micros int64) []byte {
	if micros < 0 {
		return appendClock(append(dst, '-'), -micros)
	}
	return appendClock(dst, micros)
}

// appendTimestamp appends the ISO form of µs since 1970, infinities included, without a zone.
func appendTimestamp(dst []byte, micros int64) []byte {
	days := micros / microsPerDay
	if micros < 0 && days*microsPerDay != micros {
		days--
	}
	dst = append(appendDate(dst, days), 'T')
	return appendClock(dst, micros-days*microsPerDay)
}

// parseDigits2 reads two digits at b[i:i+2], which exist; more than 99 means that they are none.
func parseDigits2(b []byte, i int) int {
	hi, lo := b[i]-'0', b[i+1]-'0'
	if hi > 9 || lo > 9 {
		return 1 << 20
	}
	return int(hi)*10 + int(lo)
}

// parseDate reads an ISO date at the start of b and returns its day number and length; 0 is an error.
func parseDate(b []byte) (days int64, n int) {
	if len(b) < 10 {
		return 0, 0
	}
	var year int64
	if b[0] == '+' || b[0] == '-' {
		n = 1
		for n < len(b) && n <= 9 && b[n]-'0' <= 9 {
			year = year*10 + int64(b[n]-'0')
			n++
		}
		if n < 5 || n > 9 || len(b) < n+6 {
			return 0, 0
		}
		if b[0] == '-' {
			year = -year
		}
	} else {
		century := parseDigits2(b, 0)
		year, n = int64(century)*100+int64(parseDigits2(b, 2)), 4
		if year > 9999 {
			return 0, 0
		}
	}
	month, day := parseDigits2(b, n+1), parseDigits2(b, n+4)
	if b[n] != '-' || b[n+3] != '-' || month < 1 || month > 12 || day < 1 || day > 28 && (day > 31 || day > daysIn(year, month)) {
		return 0, 0
	}
	return dayNumber(year, month, day), n + 6
}

// parseClock reads HH:MM:SS[.f…] at the start of b and returns µs and length; 0 is an error.
func parseClock(b []byte) (micros int64, n int, err error) {
	if len(b) < 8 || b[2] != ':' || b[5] != ':' {
		return 0, 0, errTime
	}
	h, m, s := parseDigits2(b, 0), parseDigits2(b, 3), parseDigits2(b, 6)
	if h > 24 || m > 59 || s > 59 {
		return 0, 0, errTime
	}
	micros, n = int64(h*3600+m*60+s)*microsPerSecond, 8
	if len(b) > 8 && b[8] == '.' {
		scale := int64(microsPerSecond)
		for n = 9; n < len(b) && b[n]-'0' <= 9; n++ {
			scale /= 10
			if scale == 0 && b[n] != '0' {
				return 0, 0, errSubMicro
			}
			micros += scale * int64(b[n]-'0')
		}
		if n == 9 {
			return 0, 0, errTime
		}
	}
	if micros > microsPerDay {
		return 0, 0, errTime
	}
	return micros, n, nil
}

// parseDateText reads a value of kind Date.
func parseDateText(b []byte) (int32, error) {
	days, n := parseDate(b)
	if n == 0 || n != len(b) {
		switch string(b) {
		case textTimeInf:
			return math.MaxInt32, nil
		case textTimeNeg:
			return math.MinInt32, nil
		}
		return 0, errDate
	}
	// The ends of the range stand for the infinities.
	if days >= math.MaxInt32 || days <= math.MinInt32 {
		return 0, errDate
	}
	return int32(days), nil
}

// parseTimeText reads a value of kind Time.
func parseTimeText(b []byte) (int64, error) {
	micros, n, err := parseClock(b)
	if err == nil && n != len(b) {
		err = errTime
	}
	return micros, err
}

// The layout YYYY-MM-DDTHH:MM:SS.ffff in words of eight bytes, little endian:
// XOR leaves the value of each digit and zero in place of each separator; the
// sum with more then has a high bit where a byte was neither.
const (
	dateLayout  = '0' | '0'<<8 | '0'<<16 | '0'<<24 | '-'<<32 | '0'<<40 | '0'<<48 | '-'<<56
	dateMore    = 0x7f76767f76767676
	hourLayout  = '0' | '0'<<8 | 'T'<<16 | '0'<<24 | '0'<<32 | ':'<<40 | '0'<<48 | '0'<<56
	hourMore    = 0x76767f76767f7676
	fracLayout  = ':' | '0'<<8 | '0'<<16 | '.'<<24 | '0'<<32 | '0'<<40 | '0'<<48 | '0'<<56
	fracMore    = 0x767676767f76767f
	microLayout = 26 // bytes of YYYY-MM-DDTHH:MM:SS.ffffff
)

// parseMicros reads the form that appendTimestamp writes of years 0000 to
// 9999 at the start of b, which has at least microLayout bytes.
func parseMicros(b []byte) (int64, bool) {
	d := binary.LittleEndian.Uint64(b) ^ dateLayout
	h := binary.LittleEndian.Uint64(b[8:]) ^ hourLayout
	f := binary.LittleEndian.Uint64(b[16:]) ^ fracLayout
	f3 := parseDigits2(b, 24)
	if (d|(d+dateMore)|h|(h+hourMore)|f|(f+fracMore))&highs != 0 || f3 > 99 {
		return 0, false
	}
	// Each byte with its right neighbour as a number of two digits.
	d, h, f = d*10+d>>8, h*10+h>>8, f*10+f>>8
	at := func(w uint64, i int) int64 { return int64(w >> (8 * i) & 0xff) }
	year, month, day := at(d, 0)*100+at(d, 2), int(at(d, 5)), int(at(h, 0))
	hour, minute, second := at(h, 3), at(h, 6), at(f, 1)
	if month < 1 || month > 12 || day < 1 || day > 28 && (day > 31 || day > daysIn(year, month)) || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	return dayNumber(year, month, day)*microsPerDay + (hour*3600+minute*60+second)*microsPerSecond +
		at(f, 4)*10_000 + at(f, 6)*100 + int64(f3), true
}

// parseTimestampText reads a value of kind Timestamp, or TimestampTZ if zoned.
func parseTimestampText(b []byte, zoned bool) (int64, error) {
	if len(b) == microLayout && !zoned || len(b) == microLayout+1 && zoned && b[microLayout] == 'Z' {
		if micros, ok := parseMicros(b); ok {
			return micros, nil
		}
	}
	days, n := parseDate(b)
	if n == 0 {
		switch string(b) {
		case textTimeInf:
			return math.MaxInt64, nil
		case textTimeNeg:
			return math.MinInt64, nil
		}
		return 0, errTimestamp
	}
	if n == len(b) || b[n] != 'T' && b[n] != ' ' {
		return 0, errTimestamp
	}
	clock, m, err := parseClock(b[n+1:])
	if err != nil {
		return 0, err
	}
	offset, ok := parseZone(b[n+1+m:], zoned)
	if !ok {
		return 0, errZone
	}
	// One day less than fits, so that the sum cannot overflow nor reach an infinity.
	if limit := int64(math.MaxInt64/microsPerDay) - 2; days > limit || days < -limit {
		return parseExtreme(days, clock-offset)
	}
	return days*microsPerDay + clock - offset, nil
}

// parseExtreme adds days and µs at the ends of the range with a check.
func parseExtreme(days, micros int64) (int64, error) {
	limit := int64(math.MaxInt64 / microsPerDay)
	if days > limit || days < -limit-1 {
		return 0, errYear
	}
	// Move towards zero first: the product of the lowest day alone may not fit.
	if days < 0 {
		days, micros = days+2, micros-2*microsPerDay
	} else {
		days, micros = days-2, micros+2*microsPerDay
	}
	base := days * microsPerDay
	sum := base + micros
	if (micros > 0) != (sum > base) || sum == math.MaxInt64 || sum == math.MinInt64 {
		return 0, errYear
	}
	return sum, nil
}

// parseZone reads what follows a timestamp: Z or ±HH[:MM[:SS]] if zoned, nothing otherwise.
func parseZone(b []byte, zoned bool) (micros int64, ok bool) {
	if !zoned {
		return 0, len(b) == 0
	}
	if len(b) == 1 && b[0] == 'Z' {
		return 0, true
	}
	if len(b) != 3 && len(b) != 6 && len(b) != 9 || b[0] != '+' && b[0] != '-' {
		return 0, false
	}
	secs, unit := 0, 3600
	for i := 1; i < len(b); i += 3 {
		x := parseDigits2(b, i)
		if x > 59 || i > 1 && b[i-1] != ':' {
			return 0, false
		}
		secs += x * unit
		unit /= 60
	}
	if secs > 24*3600 {
		return 0, false
	}
	if b[0] == '-' {
		secs = -secs
	}
	return int64(secs) * microsPerSecond, true
}
