package postgres

import (
	"encoding/binary"
	"math/bits"

	"github.com/sluice-data/sluice/record"
)

// uint128 is an unsigned number below 10^38.
type uint128 struct{ hi, lo uint64 }

// mulAdd returns x·m + a.
func (x uint128) mulAdd(m, a uint64) uint128 {
	hi, lo := bits.Mul64(x.lo, m)
	lo, carry := bits.Add64(lo, a, 0)
	return uint128{x.hi*m + hi + carry, lo}
}

func (x uint128) appendTo(v *record.Vector, neg bool) {
	if neg {
		lo, borrow := bits.Sub64(0, x.lo, 0)
		hi, _ := bits.Sub64(0, x.hi, borrow)
		x = uint128{hi, lo}
	}
	v.AppendDecimal(int64(x.hi), x.lo)
}

// tens are the powers of ten below a group of four digits.
var tens = [...]uint64{1, 10, 100, 1000, 10000}

// decimalText reads numeric(p,s) from digits with at most s behind the point.
func (c *codec) decimalText(v *record.Vector, b []byte) *refusal {
	if len(b) == 0 {
		return malformed
	}
	switch b[0] {
	case 'N', 'I':
		return refuseNaN
	}
	neg := b[0] == '-'
	if neg {
		b = b[1:]
		if len(b) > 0 && b[0] == 'I' {
			return refuseNaN
		}
	}
	var x uint128
	digits, behind, point := 0, 0, false
	for _, d := range b {
		if d == '.' && !point {
			point = true
			continue
		}
		if d -= '0'; d > 9 {
			return malformed
		}
		if point {
			if behind == c.field.Scale {
				if d != 0 {
					return refuseDigits
				}
				continue
			}
			behind++
		}
		if digits > 0 || d != 0 {
			digits++
		}
		if digits > c.field.Precision {
			return refuseDigits
		}
		x = x.mulAdd(10, uint64(d))
	}
	for ; behind < c.field.Scale; behind++ {
		if digits > 0 {
			digits++
		}
		x = x.mulAdd(10, 0)
	}
	if digits > c.field.Precision {
		return refuseDigits
	}
	x.appendTo(v, neg)
	return nil
}

// numericHeader is how the binary form of a numeric begins: groups of four
// digits follow, the first with the factor 10000^weight.
type numericHeader struct {
	groups []byte // two bytes each
	weight int
	sign   uint16
	scale  int // digits behind the point that are shown
}

const (
	signNegative = 0x4000
	signNaN      = 0xC000
	signInfinity = 0xD000
	signMinusInf = 0xF000
)

func readNumeric(b []byte) (h numericHeader, ok bool) {
	if len(b) < 8 {
		return h, false
	}
	n := int(binary.BigEndian.Uint16(b))
	h.weight = int(int16(binary.BigEndian.Uint16(b[2:])))
	h.sign = binary.BigEndian.Uint16(b[4:])
	h.scale = int(binary.BigEndian.Uint16(b[6:]))
	h.groups = b[8:]
	if len(h.groups) != 2*n {
		return h, false
	}
	for i := 0; i < len(h.groups); i += 2 {
		if binary.BigEndian.Uint16(h.groups[i:]) > 9999 {
			return h, false
		}
	}
	return h, true
}

// group returns the group with the factor 10000^weight.
func (h *numericHeader) group(weight int) uint64 {
	i := h.weight - weight
	if i < 0 || 2*i >= len(h.groups) {
		return 0
	}
	return uint64(binary.BigEndian.Uint16(h.groups[2*i:]))
}

func (c *codec) decimalBinary(v *record.Vector, b []byte) *refusal {
	h, ok := readNumeric(b)
	switch {
	case !ok:
		return malformed
	case h.sign == signNaN || h.sign == signInfinity || h.sign == signMinusInf:
		return refuseNaN
	case h.sign != 0 && h.sign != signNegative:
		return malformed
	case h.weight > 9 && len(h.groups) > 0: // more than 38 digits before the point
		return refuseDigits
	}
	var x uint128
	last := -((c.field.Scale + 3) / 4) // weight of the group that holds the last kept digit
	for w := max(h.weight, 0); w >= last && w >= -10; w-- {
		g, keep := h.group(w), 4
		if w == last && c.field.Scale%4 != 0 {
			keep = c.field.Scale % 4
			if g%tens[4-keep] != 0 {
				return refuseDigits
			}
			g /= tens[4-keep]
		}
		if x.hi > (1<<63)/tens[keep] { // the next step could leave 128 bits
			return refuseDigits
		}
		x = x.mulAdd(tens[keep], g)
	}
	for w := last - 1; w > h.weight-len(h.groups)/2; w-- {
		if h.group(w) != 0 {
			return refuseDigits
		}
	}
	if !x.below(c.field.Precision) {
		return refuseDigits
	}
	x.appendTo(v, h.sign == signNegative)
	return nil
}

// below reports whether x < 10^digits.
func (x uint128) below(digits int) bool {
	limit := powers[digits]
	return x.hi < limit.hi || x.hi == limit.hi && x.lo < limit.lo
}

// powers are the powers of ten up to 10^38.
var powers = func() (p [39]uint128) {
	p[0] = uint128{0, 1}
	for i := 1; i < len(p); i++ {
		p[i] = p[i-1].mulAdd(10, 0)
	}
	return p
}()

// numericBinary writes the digits that Postgres would show.
func numericBinary(v *record.Vector, b []byte) *refusal {
	h, ok := readNumeric(b)
	if !ok {
		return malformed
	}
	switch h.sign {
	case signNaN:
		v.AppendData([]byte("NaN"))
		return nil
	case signInfinity:
		v.AppendData([]byte("Infinity"))
		return nil
	case signMinusInf:
		v.AppendData([]byte("-Infinity"))
		return nil
	case signNegative:
		v.Data = append(v.Data, '-')
	case 0:
	default:
		return malformed
	}
	if h.weight < 0 {
		v.Data = append(v.Data, '0')
	}
	for w := h.weight; w >= 0; w-- {
		v.Data = appendGroup(v.Data, h.group(w), 4, w == h.weight)
	}
	if h.scale > 0 {
		v.Data = append(v.Data, '.')
		for left, w := h.scale, -1; left > 0; left, w = left-4, w-1 {
			v.Data = appendGroup(v.Data, h.group(w), min(left, 4), false)
		}
	}
	v.State = append(v.State, record.Present)
	v.Offs = append(v.Offs, int32(len(v.Data)))
	return nil
}

// appendGroup appends the first digits of a group of four; bare leaves out leading zeros.
func appendGroup(dst []byte, g uint64, digits int, bare bool) []byte {
	for i := range digits {
		d := g / tens[3-i] % 10
		if bare && d == 0 && i < 3 {
			continue
		}
		bare = false
		dst = append(dst, byte('0'+d))
	}
	return dst
}
