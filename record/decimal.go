package record

import (
	"errors"
	"math/bits"
	"strconv"
)

var (
	errDecimalSyntax = errors.New("not a decimal number")
	errDecimalRange  = errors.New("more digits before the point than the declared precision")
	errDecimalScale  = errors.New("more digits after the point than the declared scale")
)

// maxPrecision is what a 128-bit integer holds in full.
const maxPrecision = 38

var pow10 = [20]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19}

// ParseDecimal reads decimal text, with or without exponent, as the integer
// hi·2^64 + lo = value × 10^scale. It never rounds: digits that the declared
// precision and scale do not hold are an error, zeros after the point aside.
func ParseDecimal(b []byte, precision, scale int) (hi int64, lo uint64, err error) {
	p, neg := 0, false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		neg, p = b[0] == '-', 1
	}
	if len(b)-p > 18 {
		return parseDecimalLong(b[p:], neg, precision, scale)
	}
	var m uint64
	point := -1
	for i := p; i < len(b); i++ {
		if c := b[i] - '0'; c <= 9 {
			m = m*10 + uint64(c)
		} else if b[i] == '.' && point < 0 {
			point = i
		} else {
			return parseDecimalLong(b[p:], neg, precision, scale)
		}
	}
	pad := scale
	if point >= 0 {
		pad -= len(b) - 1 - point
	}
	// Anything unusual (no digits, too many after the point, a product above 64 bits) takes the long way.
	if pad < 0 || len(b)-p < 2 && point >= 0 || len(b) == p || pad > 18 || m != 0 && m >= pow10[19-pad] {
		return parseDecimalLong(b[p:], neg, precision, scale)
	}
	m *= pow10[pad]
	if precision < len(pow10) && m >= pow10[precision] {
		return 0, 0, errDecimalRange
	}
	if neg {
		return signed(0, m, true)
	}
	return 0, m, nil
}

// parseDecimalLong reads an unsigned decimal of any form and length.
func parseDecimalLong(b []byte, neg bool, precision, scale int) (int64, uint64, error) {
	end, digits, point, exp := 0, 0, -1, 0
	for ; end < len(b); end++ {
		if c := b[end]; c == '.' && point < 0 {
			point = digits
		} else if c < '0' || c > '9' {
			break
		} else {
			digits++
		}
	}
	if digits == 0 {
		return 0, 0, errDecimalSyntax
	}
	if point < 0 {
		point = digits
	}
	if end < len(b) {
		if b[end]|0x20 != 'e' {
			return 0, 0, errDecimalSyntax
		}
		e, ok := parseExponent(b[end+1:])
		if !ok {
			return 0, 0, errDecimalSyntax
		}
		exp = e
	}
	// place is the power of ten of the next digit in the unscaled integer.
	place := point + exp + scale - 1
	var hi, lo uint64
	significant := 0
	for _, c := range b[:end] {
		if c == '.' {
			continue
		}
		if place < 0 {
			if c != '0' {
				return 0, 0, errDecimalScale
			}
		} else if significant > 0 || c != '0' {
			if significant++; significant > min(precision, maxPrecision) {
				return 0, 0, errDecimalRange
			}
			hi, lo = mulAdd(hi, lo, uint64(c-'0'))
		}
		place--
	}
	if significant == 0 {
		return 0, 0, nil
	}
	if significant+place+1 > min(precision, maxPrecision) {
		return 0, 0, errDecimalRange
	}
	for ; place >= 0; place-- {
		hi, lo = mulAdd(hi, lo, 0)
	}
	return signed(hi, lo, neg)
}

// parseExponent reads a signed exponent; its size is clamped where it cannot matter any more.
func parseExponent(b []byte) (int, bool) {
	neg := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		neg, b = b[0] == '-', b[1:]
	}
	if len(b) == 0 {
		return 0, false
	}
	e := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		e = min(e*10+int(c-'0'), 1<<40)
	}
	if neg {
		e = -e
	}
	return e, true
}

// mulAdd returns (hi·2^64 + lo) × 10 + d.
func mulAdd(hi, lo, d uint64) (uint64, uint64) {
	over, l := bits.Mul64(lo, 10)
	l, carry := bits.Add64(l, d, 0)
	return hi*10 + over + carry, l
}

func signed(hi, lo uint64, neg bool) (int64, uint64, error) {
	if neg {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
	}
	return int64(hi), lo, nil
}

// AppendDecimal appends (hi·2^64 + lo) / 10^scale with exactly scale digits after the point.
func AppendDecimal(dst []byte, hi int64, lo uint64, scale int) []byte {
	h := uint64(hi)
	if hi < 0 {
		dst = append(dst, '-')
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		h, _ = bits.Sub64(0, h, borrow)
	}
	if h == 0 && scale < len(pow10) {
		if scale <= 0 {
			return strconv.AppendUint(dst, lo, 10)
		}
		whole := lo / pow10[scale]
		dst = append(strconv.AppendUint(dst, whole, 10), '.')
		return appendPadded(dst, lo-whole*pow10[scale], scale)
	}
	var buf [48]byte
	digits := strconv.AppendUint(buf[:0], lo, 10)
	if h != 0 {
		q, r := bits.Div64(h, lo, 1e19)
		digits = appendPadded(strconv.AppendUint(buf[:0], q, 10), r, 19)
	}
	if scale <= 0 {
		return append(dst, digits...)
	}
	if len(digits) <= scale {
		dst = append(dst, '0', '.')
		for range scale - len(digits) {
			dst = append(dst, '0')
		}
		return append(dst, digits...)
	}
	dst = append(append(dst, digits[:len(digits)-scale]...), '.')
	return append(dst, digits[len(digits)-scale:]...)
}

// appendPadded appends x with leading zeros to width digits, at most 20.
func appendPadded(dst []byte, x uint64, width int) []byte {
	var buf [20]byte
	i := width
	for ; i >= 2; i -= 2 {
		q := x / 100
		d := 2 * (x - q*100)
		buf[i-1], buf[i-2] = pairs[d+1], pairs[d]
		x = q
	}
	if i == 1 {
		buf[0] = byte('0' + x%10)
	}
	return append(dst, buf[:width]...)
}

// pairs holds the two digits of 0 to 99.
const pairs = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899"

// appendCanonicalDecimal appends decimal text without zeros at its start and at
// its end and without a minus before zero, so that equal numbers have equal
// text. Text that is no plain decimal number is appended as it is.
func appendCanonicalDecimal(dst, b []byte) []byte {
	body, neg, point := b, false, -1
	if len(body) > 0 && body[0] == '-' {
		body, neg = body[1:], true
	}
	for i, c := range body {
		if c == '.' && point < 0 {
			point = i
		} else if c < '0' || c > '9' {
			return append(dst, b...)
		}
	}
	if point == 0 || len(body) == 0 {
		return append(dst, b...)
	}
	if point > 0 {
		for body[len(body)-1] == '0' {
			body = body[:len(body)-1]
		}
		if body[len(body)-1] == '.' {
			body = body[:len(body)-1]
		}
	}
	for len(body) > 1 && body[0] == '0' && body[1] != '.' {
		body = body[1:]
	}
	if neg && (len(body) != 1 || body[0] != '0') {
		dst = append(dst, '-')
	}
	return append(dst, body...)
}
