package mappers

import (
	"bytes"
	"encoding/hex"
	"math"
)

// parseUUID reads 32 hexadecimal digits with or without dashes.
func parseUUID(s []byte) (u [16]byte, ok bool) {
	if len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' {
		for i, from := range []int{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34} {
			if _, err := hex.Decode(u[i:i+1], s[from:from+2]); err != nil {
				return u, false
			}
		}
		return u, true
	}
	if len(s) != 32 {
		return u, false
	}
	_, err := hex.Decode(u[:], s)
	return u, err == nil
}

// number reads the digits at the start of s, at least low and at most high of them.
func number(s []byte, low, high int) (n int64, rest []byte, ok bool) {
	i := 0
	for i < len(s) && i < high && s[i] >= '0' && s[i] <= '9' {
		n = n*10 + int64(s[i]-'0')
		i++
	}
	return n, s[i:], i >= low
}

func cut(s []byte, c byte) ([]byte, bool) {
	if len(s) > 0 && s[0] == c {
		return s[1:], true
	}
	return s, false
}

// parseDay reads a date at the start of s, in the form that appendDay writes.
func parseDay(s []byte) (day int64, rest []byte, ok bool) {
	sign, digits := int64(1), 4
	if len(s) > 0 && (s[0] == '+' || s[0] == '-') {
		if s[0] == '-' {
			sign = -1
		}
		s, digits = s[1:], 7
	}
	year, s, ok1 := number(s, 4, digits)
	s, dash1 := cut(s, '-')
	month, s, ok2 := number(s, 2, 2)
	s, dash2 := cut(s, '-')
	dom, s, ok3 := number(s, 2, 2)
	if !ok1 || !ok2 || !ok3 || !dash1 || !dash2 || month < 1 || month > 12 || dom < 1 {
		return 0, nil, false
	}
	day = days(sign*year, int(month), int(dom))
	y, m, d := civil(day)
	return day, s, y == sign*year && m == int(month) && d == int(dom)
}

// parseDate reads a date or ±infinity.
func parseDate(s []byte) (int32, bool) {
	switch string(s) {
	case "infinity":
		return math.MaxInt32, true
	case "-infinity":
		return math.MinInt32, true
	}
	day, rest, ok := parseDay(s)
	return int32(day), ok && len(rest) == 0 && day > math.MinInt32 && day < math.MaxInt32
}

// clock reads a time of day at the start of s; seconds and their fraction may be missing.
func clock(s []byte) (micros int64, rest []byte, ok bool) {
	hour, s, ok1 := number(s, 2, 2)
	s, colon := cut(s, ':')
	minute, s, ok2 := number(s, 2, 2)
	if !ok1 || !ok2 || !colon || minute > 59 {
		return 0, nil, false
	}
	micros = (hour*60 + minute) * 60 * microsPerSecond
	if after, more := cut(s, ':'); more {
		second, r, ok := number(after, 2, 2)
		if !ok || second > 59 {
			return 0, nil, false
		}
		micros, s = micros+second*microsPerSecond, r
		if after, more := cut(s, '.'); more {
			fraction, r, ok := number(after, 1, 6)
			if !ok {
				return 0, nil, false
			}
			for range 6 - (len(after) - len(r)) {
				fraction *= 10
			}
			r = bytes.TrimLeft(r, "0") // more digits are fine if they say nothing
			micros, s = micros+fraction, r
		}
	}
	return micros, s, micros <= microsPerDay
}

// parseClock reads a time of day up to 24:00:00.
func parseClock(s []byte) (int64, bool) {
	t, rest, ok := clock(s)
	return t, ok && len(rest) == 0
}

// parseTimestamp reads a date and maybe a time of day, with T or a space
// between them. With zone it reads Z or an offset too, and takes UTC where
// there is none; without zone there must be none.
func parseTimestamp(s []byte, zone bool) (int64, bool) {
	switch string(s) {
	case "infinity":
		return math.MaxInt64, true
	case "-infinity":
		return math.MinInt64, true
	}
	day, s, ok := parseDay(s)
	if !ok {
		return 0, false
	}
	micros := int64(0)
	if len(s) > 0 && (s[0] == 'T' || s[0] == ' ') {
		if micros, s, ok = clock(s[1:]); !ok {
			return 0, false
		}
	}
	if zone {
		offset, rest, ok := zoneOffset(s)
		if !ok {
			return 0, false
		}
		micros, s = micros-offset, rest
	}
	const lastDay = math.MaxInt64/microsPerDay - 2
	if len(s) > 0 || day > lastDay || day < -lastDay {
		return 0, false
	}
	return day*microsPerDay + micros, true
}

// zoneOffset reads Z, ±hh, ±hhmm or ±hh:mm in microseconds east of UTC; nothing is UTC.
func zoneOffset(s []byte) (micros int64, rest []byte, ok bool) {
	if rest, z := cut(s, 'Z'); z || len(s) == 0 {
		return 0, rest, true
	}
	if s[0] != '+' && s[0] != '-' {
		return 0, nil, false
	}
	sign := int64(1)
	if s[0] == '-' {
		sign = -1
	}
	hours, s, ok := number(s[1:], 2, 2)
	minutes := int64(0)
	if ok && len(s) > 0 {
		s, _ = cut(s, ':')
		minutes, s, ok = number(s, 2, 2)
	}
	return sign * (hours*60 + minutes) * 60 * microsPerSecond, s, ok && hours < 24 && minutes < 60
}
