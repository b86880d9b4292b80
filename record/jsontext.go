package record

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

var (
	errSyntax   = errors.New("not valid JSON")
	errEnd      = errors.New("the value ends too early")
	errString   = errors.New("not a string")
	errEscape   = errors.New("a string with an invalid escape")
	errUTF8     = errors.New("a string that is not UTF-8")
	errInteger  = errors.New("not an integer")
	errOverflow = errors.New("an integer that does not fit its type")
	errNumber   = errors.New("not a number")
)

// One byte in every place of a word, for looking at eight bytes at once.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// hasByte has the high bit of the lowest byte of w that equals c set; bits above it may be wrong.
func hasByte(w, c uint64) uint64 {
	x := w ^ c*ones
	return (x - ones) & ^x & highs
}

// zeroBytes has the high bit of every byte of x that is zero set, and no other bit.
func zeroBytes(x uint64) uint64 {
	const low = ^uint64(highs)
	return ^((x&low + low) | x | low)
}

// escapes holds what follows the backslash of a byte that a JSON string escapes; u stands for \u00XX.
var escapes = func() (t [256]byte) {
	for c := range 0x20 {
		t[c] = 'u'
	}
	t['\b'], t['\t'], t['\n'], t['\f'], t['\r'], t['"'], t['\\'] = 'b', 't', 'n', 'f', 'r', '"', '\\'
	return t
}()

const hexDigits = "0123456789abcdef"

// escapeChunk bounds the room that is reserved for the worst case of escaping.
const escapeChunk = 1024

// appendString appends s as a JSON string. Bytes that are not UTF-8 stay as
// they are: the reader refuses them.
func appendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	for len(s) > escapeChunk {
		dst = appendEscaped(dst, s[:escapeChunk])
		s = s[escapeChunk:]
	}
	return append(appendEscaped(dst, s), '"')
}

// appendEscaped appends s, at most escapeChunk bytes, with its JSON escapes.
func appendEscaped(dst, s []byte) []byte {
	if room := 6*len(s) + 8; cap(dst)-len(dst) < room {
		dst = slices.Grow(dst, room)
	}
	out := dst[:cap(dst)]
	n, i := len(dst), 0
	// Words may reach past the end of s into what follows it in its column.
	for full := s[:cap(s)]; i < len(s) && i+8 <= len(full); {
		w := binary.LittleEndian.Uint64(full[i:])
		binary.LittleEndian.PutUint64(out[n:], w)
		hit := hasByte(w, '"') | hasByte(w, '\\') | (w-0x20*ones)&^w&highs
		if hit == 0 {
			i, n = i+8, n+8
			continue
		}
		if i+8 <= len(s) && zeroBytes(w&(0xe0*ones)) == 0 {
			n += escapeWord((*[16]byte)(out[n:]), w)
			i += 8
			continue
		}
		k := bits.TrailingZeros64(hit) >> 3
		i, n = i+k, n+k
		if i >= len(s) {
			break
		}
		if c := s[i]; c >= 0x20 { // a quote or a backslash
			out[n], out[n+1] = '\\', c
			n += 2
		} else {
			n = putEscape(out, n, c)
		}
		i++
	}
	if i > len(s) {
		return out[:n-(i-len(s))]
	}
	for ; i < len(s); i++ {
		if c := s[i]; escapes[c] == 0 {
			out[n] = c
			n++
		} else {
			n = putEscape(out, n, c)
		}
	}
	return out[:n]
}

// escapeWord writes the eight bytes of w, none of them a control character,
// with a backslash before quotes and backslashes, and returns the bytes
// written. It does without branches: JSON in a string has one in every word.
func escapeWord(out *[16]byte, w uint64) (n int) {
	hit := zeroBytes(w^'"'*ones) | zeroBytes(w^'\\'*ones)
	for range 8 {
		out[n&15] = '\\'
		n += int(hit >> 7 & 1)
		out[n&15] = byte(w)
		n++
		hit, w = hit>>8, w>>8
	}
	return n
}

// putEscape writes the escape of c at out[n:] and returns the place after it.
func putEscape(out []byte, n int, c byte) int {
	e := escapes[c]
	out[n], out[n+1] = '\\', e
	if e != 'u' {
		return n + 2
	}
	out[n+2], out[n+3], out[n+4], out[n+5] = '0', '0', hexDigits[c>>4], hexDigits[c&15]
	return n + 6
}

// unescape appends the content of the JSON string whose first byte after the
// quote is b[p] to dst and returns the place after the closing quote.
func unescape(dst, b []byte, p int) ([]byte, int, error) {
	start := len(dst)
	// An escape is never shorter than what it stands for.
	if room := len(b) - p + 8; cap(dst)-start < room {
		dst = slices.Grow(dst, room)
	}
	out, n := dst[:cap(dst)], start
	var high uint64
	for {
		if p+8 <= len(b) {
			w := binary.LittleEndian.Uint64(b[p:])
			binary.LittleEndian.PutUint64(out[n:], w)
			hit := hasByte(w, '"') | hasByte(w, '\\')
			if hit == 0 {
				high |= w
				p, n = p+8, n+8
				continue
			}
			k := bits.TrailingZeros64(hit)
			high |= w & (hit&-hit - 1)
			p, n = p+k>>3, n+k>>3
		} else {
			for p < len(b) && b[p] != '"' && b[p] != '\\' {
				out[n] = b[p]
				high |= uint64(b[p])
				p, n = p+1, n+1
			}
			if p >= len(b) {
				return dst, p, errEnd
			}
		}
		if b[p] == '"' {
			break
		}
		if p+1 < len(b) && (b[p+1] == '"' || b[p+1] == '\\') {
			out[n] = b[p+1]
			p, n = p+2, n+1
			continue
		}
		r, size := unescapeOne(b[p:])
		if size == 0 {
			return dst, p, errEscape
		}
		n += utf8.EncodeRune(out[n:n+utf8.RuneLen(r)], r)
		p += size
	}
	if high&highs != 0 && !utf8.Valid(out[start:n]) {
		return dst, p, errUTF8
	}
	return out[:n], p + 1, nil
}

// unescapeOne reads the escape at the start of b; size 0 is an error.
func unescapeOne(b []byte) (r rune, size int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return rune(b[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r = hex4(b)
		if utf16.IsSurrogate(r) {
			// A lone half stands for no character: an error, not U+FFFD.
			if r = utf16.DecodeRune(r, hex4(b[6:])); r == utf8.RuneError {
				return 0, 0
			}
			return r, 12
		}
		if r >= 0 {
			return r, 6
		}
	}
	return 0, 0
}

// hex4 reads \uXXXX at the start of b, -1 if it is not there.
func hex4(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range b[2:6] {
		d := unhex(c)
		if d > 15 {
			return -1
		}
		r = r<<4 | rune(d)
	}
	return r
}

// hexValues holds the value of each hexadecimal digit, 0xff for other bytes.
var hexValues = func() (t [256]byte) {
	for c := range t {
		t[c] = 0xff
	}
	for d := range byte(16) {
		t[hexDigits[d]], t["0123456789ABCDEF"[d]] = d, d
	}
	return t
}()

func unhex(c byte) byte { return hexValues[c] }

// readInt reads the integer at b[p:].
func readInt(b []byte, p int) (x int64, next int, err error) {
	neg := p < len(b) && b[p] == '-'
	if neg {
		p++
	}
	start := p
	var u uint64
	for ; p < len(b); p++ {
		c := b[p] - '0'
		if c > 9 {
			break
		}
		if p-start >= 18 && (u > math.MaxUint64/10 || u*10 > math.MaxUint64-uint64(c)) {
			return 0, p, errOverflow
		}
		u = u*10 + uint64(c)
	}
	if p == start {
		return 0, p, errInteger
	}
	if p < len(b) && (b[p] == '.' || b[p]|0x20 == 'e') {
		return 0, p, errInteger
	}
	if neg {
		if u > 1<<63 {
			return 0, p, errOverflow
		}
		return -int64(u), p, nil
	}
	if u > math.MaxInt64 {
		return 0, p, errOverflow
	}
	return int64(u), p, nil
}

// exactPow10 are the powers of ten that a float64 holds exactly.
var exactPow10 = [23]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// readFloat reads the number at b[p:] as the nearest float of the given size, 32 or 64.
func readFloat(b []byte, p, size int) (f float64, next int, err error) {
	start := p
	neg := p < len(b) && b[p] == '-'
	if neg {
		p++
	}
	var m uint64
	first, point := p, -1
	for ; p < len(b); p++ {
		if c := b[p] - '0'; c <= 9 {
			m = m*10 + uint64(c)
		} else if b[p] == '.' && point < 0 {
			point = p
		} else {
			break
		}
	}
	decimals := 0
	if point >= 0 {
		decimals = p - 1 - point
	}
	// Both the digits and the power are exact below: one division rounds once.
	plain := p > first && p-first <= 18 && point != first && decimals <= 22 && (point < 0 || decimals > 0) &&
		(p == len(b) || b[p]|0x20 != 'e')
	if plain && (size == 64 && m < 1<<53 || m < 1<<24 && decimals <= 10) {
		if size == 64 {
			f = float64(m) / exactPow10[decimals]
		} else {
			f = float64(float32(m) / float32(exactPow10[decimals]))
		}
		if neg {
			f = -f
		}
		return f, p, nil
	}
	for p < len(b) && (b[p]-'0' <= 9 || b[p] == '.' || b[p]|0x20 == 'e' || b[p] == '+' || b[p] == '-') {
		p++
	}
	if p == start {
		return 0, p, errNumber
	}
	f, err = strconv.ParseFloat(unsafe.String(&b[start], p-start), size)
	if err != nil {
		return 0, p, errNumber
	}
	return f, p, nil
}

// appendFloat appends f so that it reads back to the same bits; size is 32 or 64.
func appendFloat(dst []byte, f float64, size int) []byte {
	switch {
	case f == 0:
		if math.Signbit(f) {
			return append(dst, "-0.0"...)
		}
		return append(dst, '0')
	case f != f:
		return append(dst, `"`+textNaN+`"`...)
	case f > math.MaxFloat64:
		return append(dst, `"`+textInf+`"`...)
	case f < -math.MaxFloat64:
		return append(dst, `"`+textNegInf+`"`...)
	}
	// Most floats in databases are short decimals: an exact quotient with a power of ten.
	m := math.Round(math.Abs(f) * 1e6)
	if size == 64 && m < 1<<53 && m/1e6 == math.Abs(f) ||
		size == 32 && m < 1<<24 && float32(m)/1e6 == float32(math.Abs(f)) {
		if f < 0 {
			dst = append(dst, '-')
		}
		u := uint64(m)
		whole, frac := u/1_000_000, u%1_000_000
		dst = strconv.AppendUint(dst, whole, 10)
		if frac == 0 {
			return dst
		}
		dst = appendPadded(append(dst, '.'), frac, 6)
		for dst[len(dst)-1] == '0' {
			dst = dst[:len(dst)-1]
		}
		return dst
	}
	return strconv.AppendFloat(dst, f, 'g', -1, size)
}

// skipSpace returns the place of the first byte at or after p that is no white space.
func skipSpace(b []byte, p int) int {
	for p < len(b) && (b[p] == ' ' || b[p] == '\n' || b[p] == '\t' || b[p] == '\r') {
		p++
	}
	return p
}

// skipString returns the place after the JSON string at b[p:].
func skipString(b []byte, p int) (int, error) {
	if p >= len(b) || b[p] != '"' {
		return p, errString
	}
	for p++; p < len(b); p++ {
		switch b[p] {
		case '"':
			return p + 1, nil
		case '\\':
			p++
		}
	}
	return len(b), errEnd
}

// skipValue returns the place after the JSON value at b[p:]. Of objects and
// arrays it checks brackets and strings only.
func skipValue(b []byte, p int) (int, error) {
	if p >= len(b) {
		return p, errEnd
	}
	switch c := b[p]; {
	case c == '"':
		return skipString(b, p)
	case c == '{' || c == '[':
		return skipNested(b, p)
	}
	start := p
	for p < len(b) && (b[p]|0x20 >= 'a' && b[p]|0x20 <= 'z' || b[p]-'0' <= 9 || b[p] == '-' || b[p] == '+' || b[p] == '.') {
		p++
	}
	if p == start {
		return p, errSyntax
	}
	return p, nil
}

func skipNested(b []byte, p int) (int, error) {
	depth := 0
	for p < len(b) {
		switch b[p] {
		case '"':
			next, err := skipString(b, p)
			if err != nil {
				return next, err
			}
			p = next
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return p + 1, nil
			}
		}
		p++
	}
	return p, errEnd
}

// hasLiteral reports whether b holds lit at p.
func hasLiteral(b []byte, p int, lit string) bool {
	return len(b)-p >= len(lit) && string(b[p:p+len(lit)]) == lit
}

// eachMember calls f with the raw name and the place of the value of every
// member of the object at b[p:]; f returns the place after the value.
func eachMember(b []byte, p int, f func(name []byte, at int) (int, error)) (int, error) {
	if p >= len(b) || b[p] != '{' {
		return p, errSyntax
	}
	p = skipSpace(b, p+1)
	if p < len(b) && b[p] == '}' {
		return p + 1, nil
	}
	for {
		end, err := skipString(b, p)
		if err != nil {
			return end, err
		}
		name := b[p+1 : end-1]
		if p = skipSpace(b, end); p >= len(b) || b[p] != ':' {
			return p, errSyntax
		}
		if p, err = f(name, skipSpace(b, p+1)); err != nil {
			return p, err
		}
		p = skipSpace(b, p)
		if p >= len(b) {
			return p, errEnd
		}
		if b[p] == '}' {
			return p + 1, nil
		}
		if b[p] != ',' {
			return p, errSyntax
		}
		p = skipSpace(b, p+1)
	}
}
