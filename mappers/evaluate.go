package mappers

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-data/sluice/record"
)

// Truth values of a condition for one row. unknown is SQL's: a null was
// compared. unsent means that the value it needs did not come with the change.
const (
	isFalse byte = 0
	isTrue  byte = 1
	unknown byte = 2
	unsent  byte = 3
)

// missing is the truth of a comparison by the state of its cell.
var missing = [4]byte{record.Null: unknown, record.Present: isFalse, record.Unsent: unsent, 3: unsent}

// andTable and orTable are indexed by left<<2 | right. What settles the result
// wins over unsent: false and unsent is false.
var (
	andTable = [16]byte{
		isFalse, isFalse, isFalse, isFalse,
		isFalse, isTrue, unknown, unsent,
		isFalse, unknown, unknown, unsent,
		isFalse, unsent, unsent, unsent,
	}
	orTable = [16]byte{
		isFalse, isTrue, unknown, unsent,
		isTrue, isTrue, isTrue, isTrue,
		unknown, isTrue, unknown, unsent,
		unsent, isTrue, unsent, unsent,
	}
	notTable = [4]byte{isTrue, isFalse, unknown, unsent}
)

// evaluation is one look at a batch: the cells of first, and for those that
// are unsent there the cells of second.
type evaluation struct {
	n             int
	first, second []*record.Vector // by slot; a nil vector is unsent as a whole
	secondKeys    bool             // only key columns may be looked up in second
	bufs          [][]byte
	used          int
	text          []byte // memory of tests
}

// get returns memory for n truth values; put gives the last one back.
func (e *evaluation) get() []byte {
	if e.used == len(e.bufs) {
		e.bufs = append(e.bufs, nil)
	}
	if cap(e.bufs[e.used]) < e.n {
		e.bufs[e.used] = make([]byte, e.n, e.n+e.n/4)
	}
	e.used++
	return e.bufs[e.used-1][:e.n]
}

func (e *evaluation) put() { e.used-- }

// other returns the second vector of a slot, nil if it must not be used.
func (e *evaluation) other(slot int, key bool) *record.Vector {
	if e.second == nil || e.secondKeys && !key {
		return nil
	}
	return e.second[slot]
}

// node is a part of a condition. eval writes a truth value for each row.
// Nodes are immutable: runs share them.
type node interface {
	eval(e *evaluation, out []byte)
}

// test writes the truth value of every row of one column.
type test func(e *evaluation, v *record.Vector, out []byte)

type leaf struct {
	slot int
	key  bool
	test test
}

func (l *leaf) eval(e *evaluation, out []byte) {
	if v := e.first[l.slot]; v != nil {
		l.test(e, v, out)
	} else {
		fill(out, unsent)
	}
	v := e.other(l.slot, l.key)
	if v == nil || bytes.IndexByte(out, unsent) < 0 {
		return
	}
	tmp := e.get()
	l.test(e, v, tmp)
	for i, t := range out {
		if t == unsent {
			out[i] = tmp[i]
		}
	}
	e.put()
}

func fill(out []byte, t byte) {
	for i := range out {
		out[i] = t
	}
}

// pair compares two columns row by row.
type pair struct {
	slots [2]int
	keys  [2]bool
	order func(x *record.Vector, i int, y *record.Vector, j int) int
	res   [3]byte
}

func (p *pair) eval(e *evaluation, out []byte) {
	var first, second [2]*record.Vector
	for k := range p.slots {
		first[k], second[k] = e.first[p.slots[k]], e.other(p.slots[k], p.keys[k])
	}
	for i := range out {
		var v [2]*record.Vector
		t := isTrue
		for k := range v {
			v[k] = first[k]
			if (v[k] == nil || v[k].State[i] == record.Unsent) && second[k] != nil {
				v[k] = second[k]
			}
			if v[k] == nil || v[k].State[i] == record.Unsent {
				t = unsent
			} else if v[k].State[i] == record.Null && t != unsent {
				t = unknown
			}
		}
		if t == isTrue {
			t = p.res[p.order(v[0], i, v[1], i)+1]
		}
		out[i] = t
	}
}

type logic struct {
	parts []node
	table *[16]byte
}

func (l *logic) eval(e *evaluation, out []byte) {
	l.parts[0].eval(e, out)
	tmp := e.get()
	for _, p := range l.parts[1:] {
		p.eval(e, tmp)
		for i, t := range tmp {
			out[i] = l.table[(out[i]<<2|t)&15]
		}
	}
	e.put()
}

type not struct{ part node }

func (n *not) eval(e *evaluation, out []byte) {
	n.part.eval(e, out)
	for i, t := range out {
		out[i] = notTable[t&3]
	}
}

type constant byte

func (c constant) eval(_ *evaluation, out []byte) { fill(out, byte(c)) }

func isNull(_ *evaluation, v *record.Vector, out []byte) {
	for i, st := range v.State {
		switch st {
		case record.Null:
			out[i] = isTrue
		case record.Present:
			out[i] = isFalse
		default:
			out[i] = unsent
		}
	}
}

func compareBool(res [3]byte, bit byte) test {
	return func(_ *evaluation, v *record.Vector, out []byte) {
		for i, st := range v.State {
			if st != record.Present {
				out[i] = missing[st&3]
				continue
			}
			out[i] = res[cmp.Compare(v.Fixed[i], bit)+1]
		}
	}
}

func compareInts(width int, lit int64, res [3]byte) test {
	switch width {
	case 2:
		return func(_ *evaluation, v *record.Vector, out []byte) {
			for i, st := range v.State {
				if st != record.Present {
					out[i] = missing[st&3]
					continue
				}
				out[i] = res[cmpInt(int64(v.Int16At(i)), lit)+1]
			}
		}
	case 4:
		return func(_ *evaluation, v *record.Vector, out []byte) {
			for i, st := range v.State {
				if st != record.Present {
					out[i] = missing[st&3]
					continue
				}
				out[i] = res[cmpInt(int64(v.Int32At(i)), lit)+1]
			}
		}
	}
	return func(_ *evaluation, v *record.Vector, out []byte) {
		for i, st := range v.State {
			if st != record.Present {
				out[i] = missing[st&3]
				continue
			}
			out[i] = res[cmpInt(v.Int64At(i), lit)+1]
		}
	}
}

func cmpInt(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func compareWide(hi int64, lo uint64, res [3]byte) test {
	return func(_ *evaluation, v *record.Vector, out []byte) {
		for i, st := range v.State {
			if st != record.Present {
				out[i] = missing[st&3]
				continue
			}
			h, l := v.DecimalAt(i)
			out[i] = res[cmpWide(h, l, hi, lo)+1]
		}
	}
}

func cmpWide(ahi int64, alo uint64, bhi int64, blo uint64) int {
	if ahi != bhi {
		return cmpInt(ahi, bhi)
	}
	return cmp.Compare(alo, blo)
}

func compareFloats(bits int, lit float64, res [3]byte) test {
	return func(_ *evaluation, v *record.Vector, out []byte) {
		for i, st := range v.State {
			if st != record.Present {
				out[i] = missing[st&3]
				continue
			}
			var x float64
			if bits == 32 {
				x = float64(math.Float32frombits(binary.LittleEndian.Uint32(v.Fixed[4*i:])))
			} else {
				x = v.Float64At(i)
			}
			out[i] = res[cmpFloat(x, lit)+1]
		}
	}
}

// cmpFloat orders as Postgres does: NaN equals itself and is above all others.
func cmpFloat(a, b float64) int { return -cmp.Compare(-a, -b) }

func compareBytes(lit []byte, res [3]byte) test {
	if res[0] == res[2] { // = or <>: no order is needed
		return func(_ *evaluation, v *record.Vector, out []byte) {
			for i, st := range v.State {
				switch {
				case st != record.Present:
					out[i] = missing[st&3]
				case string(v.Value(i)) == string(lit):
					out[i] = res[1]
				default:
					out[i] = res[0]
				}
			}
		}
	}
	return func(_ *evaluation, v *record.Vector, out []byte) {
		for i, st := range v.State {
			if st != record.Present {
				out[i] = missing[st&3]
				continue
			}
			out[i] = res[bytes.Compare(v.Value(i), lit)+1]
		}
	}
}

func compareFixed(lit []byte, res [3]byte) test {
	return func(_ *evaluation, v *record.Vector, out []byte) {
		for i, st := range v.State {
			if st != record.Present {
				out[i] = missing[st&3]
				continue
			}
			out[i] = res[bytes.Compare(v.FixedAt(i, len(lit)), lit)+1]
		}
	}
}

// compareDigits compares decimal text of any size with a canonical number.
func compareDigits(lit []byte, res [3]byte) test {
	return func(e *evaluation, v *record.Vector, out []byte) {
		for i, st := range v.State {
			if st != record.Present {
				out[i] = missing[st&3]
				continue
			}
			var ok bool
			if e.text, ok = appendNumber(e.text[:0], v.Value(i)); !ok {
				out[i] = unknown
				continue
			}
			out[i] = res[cmpDigits(e.text, lit)+1]
		}
	}
}

// cmpDigits orders canonical numbers; NaN is above all, as in Postgres.
func cmpDigits(a, b []byte) int {
	ra, rb := rank(a), rank(b)
	if ra != rb || ra != 0 && ra != -1 {
		return cmp.Compare(ra, rb)
	}
	if ra == -1 {
		a, b = b[1:], a[1:] // of two negatives the longer one is the smaller
	}
	wa, fa, _ := bytes.Cut(a, []byte("."))
	wb, fb, _ := bytes.Cut(b, []byte("."))
	if len(wa) != len(wb) {
		return cmp.Compare(len(wa), len(wb))
	}
	if c := bytes.Compare(wa, wb); c != 0 {
		return c
	}
	return bytes.Compare(fa, fb)
}

// rank groups canonical numbers: -Infinity, negative, zero or positive, Infinity, NaN.
func rank(a []byte) int {
	switch {
	case string(a) == "NaN":
		return 2
	case string(a) == "Infinity":
		return 1
	case string(a) == "-Infinity":
		return -2
	case a[0] == '-':
		return -1
	}
	return 0
}

func inSet(set map[string]bool) test {
	return func(_ *evaluation, v *record.Vector, out []byte) {
		for i, st := range v.State {
			switch {
			case st != record.Present:
				out[i] = missing[st&3]
			case set[string(v.Value(i))]:
				out[i] = isTrue
			default:
				out[i] = isFalse
			}
		}
	}
}

// pattern is a like pattern: parts of fixed runes between %.
type pattern struct {
	parts []part
	fold  bool
	plain string // of kinds prefix to equals
	kind  patternKind
}

type patternKind uint8

const (
	general patternKind = iota
	prefix
	suffix
	contains
	equals
)

// part is one rune of a pattern, any rune (_) or any run of runes (%).
type part struct {
	r        rune
	any, run bool
}

// parsePattern reads a like pattern, in which \ escapes; false if it ends with its escape.
func parsePattern(s string, fold bool) (*pattern, bool) {
	p := &pattern{fold: fold}
	var fixed []rune
	runs := 0
	escaped, ones := false, false
	for _, r := range s {
		switch {
		case escaped:
			escaped = false
			p.parts, fixed = append(p.parts, part{r: lowerIf(r, fold)}), append(fixed, r)
		case r == '\\':
			escaped = true
		case r == '%':
			if n := len(p.parts); n == 0 || !p.parts[n-1].run {
				p.parts = append(p.parts, part{run: true})
				runs++
			}
		case r == '_':
			p.parts, ones = append(p.parts, part{any: true}), true
		default:
			p.parts, fixed = append(p.parts, part{r: lowerIf(r, fold)}), append(fixed, r)
		}
	}
	if escaped {
		return nil, false
	}
	p.plain = string(fixed)
	n := len(p.parts)
	switch {
	case fold || ones || !utf8.ValidString(s):
	case runs == 0:
		p.kind = equals
	case runs == 1 && p.parts[n-1].run:
		p.kind = prefix
	case runs == 1 && p.parts[0].run:
		p.kind = suffix
	case runs == 2 && n > 1 && p.parts[0].run && p.parts[n-1].run:
		p.kind = contains
	}
	return p, true
}

func lowerIf(r rune, fold bool) rune {
	if fold {
		return unicode.ToLower(r)
	}
	return r
}

func (p *pattern) test(_ *evaluation, v *record.Vector, out []byte) {
	plain := []byte(p.plain)
	for i, st := range v.State {
		if st != record.Present {
			out[i] = missing[st&3]
			continue
		}
		var match bool
		value := v.Value(i)
		switch p.kind {
		case prefix:
			match = bytes.HasPrefix(value, plain)
		case suffix:
			match = bytes.HasSuffix(value, plain)
		case contains:
			match = bytes.Contains(value, plain)
		case equals:
			match = bytes.Equal(value, plain)
		default:
			match = p.match(value)
		}
		out[i] = isFalse
		if match {
			out[i] = isTrue
		}
	}
}

// match goes back to the last % only, which is enough: what an earlier one
// could take instead, the last one can take too.
func (p *pattern) match(value []byte) bool {
	at, k := 0, 0
	back, backAt := -1, 0
	for at < len(value) || k < len(p.parts) {
		if k < len(p.parts) && p.parts[k].run {
			back, backAt, k = k, at, k+1
			continue
		}
		if at < len(value) && k < len(p.parts) {
			r, size := utf8.DecodeRune(value[at:])
			if p.parts[k].any || lowerIf(r, p.fold) == p.parts[k].r {
				at, k = at+size, k+1
				continue
			}
		}
		if back < 0 || backAt >= len(value) {
			return false
		}
		_, size := utf8.DecodeRune(value[backAt:])
		backAt += size
		at, k = backAt, back+1
	}
	return true
}
