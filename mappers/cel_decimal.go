package mappers

import (
	"math/big"
	"math/bits"
	"strconv"

	"github.com/sluice-data/sluice/record"
)

// maxDigits is the precision of computed decimals.
const maxDigits = 38

// decimal is hi·2^64 + lo times 10^-scale; the scale is that of its column.
type decimal struct {
	hi int64
	lo uint64
}

// tens are the powers of ten that fit 128 bits.
var tens = func() (t [maxDigits + 1]decimal) {
	t[0] = decimal{0, 1}
	for i := 1; i < len(t); i++ {
		t[i], _ = t[i-1].times(decimal{0, 10})
	}
	return t
}()

func (d decimal) negative() bool { return d.hi < 0 }

func (d decimal) neg() decimal {
	lo, borrow := bits.Sub64(0, d.lo, 0)
	hi, _ := bits.Sub64(0, uint64(d.hi), borrow)
	return decimal{int64(hi), lo}
}

func (d decimal) abs() decimal {
	if d.negative() {
		return d.neg()
	}
	return d
}

func (d decimal) cmp(e decimal) int { return cmpWide(d.hi, d.lo, e.hi, e.lo) }

// fits reports whether d has at most 38 digits.
func (d decimal) fits() bool { a := d.abs(); return a.hi >= 0 && a.cmp(tens[maxDigits]) < 0 }

// plus returns d + e; false if that has too many digits. Both fit.
func (d decimal) plus(e decimal) (decimal, bool) {
	lo, carry := bits.Add64(d.lo, e.lo, 0)
	hi, _ := bits.Add64(uint64(d.hi), uint64(e.hi), carry)
	s := decimal{int64(hi), lo} // two times 10^38 is below 2^128, but may pass 2^127
	if d.negative() == e.negative() && s.negative() != d.negative() {
		return decimal{}, false
	}
	return s, s.fits()
}

// times returns d · e; false if that does not fit 127 bits.
func (d decimal) times(e decimal) (decimal, bool) {
	a, b := d.abs(), e.abs()
	if a.hi != 0 && b.hi != 0 || a.hi < 0 || b.hi < 0 {
		return decimal{}, false
	}
	if a.hi == 0 {
		a, b = b, a
	}
	hi, lo := bits.Mul64(a.lo, b.lo)
	over, middle := bits.Mul64(uint64(a.hi), b.lo)
	hi, carry := bits.Add64(hi, middle, 0)
	if over != 0 || carry != 0 || hi > 1<<63-1 {
		return decimal{}, false
	}
	p := decimal{int64(hi), lo}
	if d.negative() != e.negative() {
		p = p.neg()
	}
	return p, true
}

// rescale multiplies d by 10^k; false if that has too many digits.
func (d decimal) rescale(k int) (decimal, bool) {
	if k == 0 {
		return d, true
	}
	if k > maxDigits {
		return decimal{}, d == decimal{}
	}
	p, ok := d.times(tens[k])
	return p, ok && p.fits()
}

func (d decimal) big() *big.Int {
	b := new(big.Int).Lsh(big.NewInt(d.hi), 64)
	return b.Add(b, new(big.Int).SetUint64(d.lo))
}

// whole returns d without what is behind the point; false if that is no int64.
func (d decimal) whole(scale int) (int64, bool) {
	q := new(big.Int).Quo(d.big(), tens[scale].big())
	return q.Int64(), q.IsInt64()
}

// float returns the float64 nearest to d.
func (d decimal) float(scale int) float64 {
	var memory [64]byte
	x, err := strconv.ParseFloat(string(record.AppendDecimal(memory[:0], d.hi, d.lo, scale)), 64)
	if err != nil {
		return 0 // 38 digits are always in range
	}
	return x
}

func decimalOf(n int64) decimal { return decimal{n >> 63, uint64(n)} }
