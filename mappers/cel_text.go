package mappers

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"unicode/utf8"

	"cel.dev/cel-go/common/operators"

	"github.com/sluice-data/sluice/record"
)

// maxPattern bounds a regular expression; it runs in time linear in the text.
const maxPattern = 1000

func textFunctions() []celFunction {
	contains := func(name string, op func(a, b []byte) bool) celFunction {
		return simple(name, true, vBool, testOf(textsOf, textsOf, op), vText, vText)
	}
	all := []celFunction{
		contains("contains", bytes.Contains), contains("startsWith", bytes.HasPrefix), contains("endsWith", bytes.HasSuffix),
		{"matches", true, []valueKind{vText, vText}, vBool, bindMatches},
		made(operators.Add, false, func(f *frame, dst []byte, in []*values, i int) ([]byte, bool) {
			return append(append(dst, in[0].texts[i]...), in[1].texts[i]...), true
		}, vText, vText),
		made("lowerAscii", true, func(_ *frame, dst []byte, in []*values, i int) ([]byte, bool) {
			return shifted(dst, in[0].texts[i], 'A', 'Z', 'a'-'A'), true
		}, vText),
		made("upperAscii", true, func(_ *frame, dst []byte, in []*values, i int) ([]byte, bool) {
			return shifted(dst, in[0].texts[i], 'a', 'z', 256-('a'-'A')), true
		}, vText),
		made("trim", true, func(_ *frame, dst []byte, in []*values, i int) ([]byte, bool) {
			return append(dst, bytes.TrimSpace(in[0].texts[i])...), true
		}, vText),
		made("replace", true, replaceAll, vText, vText, vText),
		made("substring", true, func(_ *frame, dst []byte, in []*values, i int) ([]byte, bool) {
			return substring(dst, in[0].texts[i], in[1].ints[i], math.MaxInt64)
		}, vText, vInt),
		made("substring", true, func(_ *frame, dst []byte, in []*values, i int) ([]byte, bool) {
			return substring(dst, in[0].texts[i], in[1].ints[i], in[2].ints[i])
		}, vText, vInt, vInt),
	}
	characters := oneOf(textsOf, intsOf, func(a []byte) (int64, bool) { return int64(utf8.RuneCount(a)), true })
	length := oneOf(textsOf, intsOf, func(a []byte) (int64, bool) { return int64(len(a)), true })
	for _, member := range []bool{true, false} {
		all = append(all, simple("size", member, vInt, characters, vText), simple("size", member, vInt, length, vBytes))
	}
	return append(all, conversions()...)
}

// made is a function that makes a text.
func made(name string, member bool, make func(f *frame, dst []byte, in []*values, i int) ([]byte, bool), args ...valueKind) celFunction {
	return simple(name, member, vText, func(f *frame, in []*values, out *values) {
		for i := range f.n {
			st := sTrue
			for _, a := range in {
				st = max(st, a.state[i])
			}
			if st == sTrue {
				start := len(f.arena)
				text, ok := make(f, f.arena, in, i)
				if !ok || len(text)-start > maxText {
					st = sFailed
				} else {
					f.arena = text
					out.texts[i] = text[start:len(text):len(text)]
				}
			}
			out.state[i] = st
		}
	}, args...)
}

func bindMatches(bound []*expr) (*expr, error) {
	if !bound[1].constant || len(bound[1].text) > maxPattern {
		return nil, fmt.Errorf("the pattern of matches must be a literal of at most %d bytes", maxPattern)
	}
	re, err := regexp.Compile(bound[1].text)
	if err != nil {
		return nil, fmt.Errorf("the pattern of matches cannot be read")
	}
	return &expr{kind: vBool, args: bound[:1], run: func(f *frame, in []*values, out *values) {
		for i, st := range in[0].state[:f.n] {
			if st == sTrue && !re.Match(in[0].texts[i]) {
				st = sFalse
			}
			out.state[i] = st
		}
	}}, nil
}

func shifted(dst, text []byte, from, to, by byte) []byte {
	for _, c := range text {
		if c >= from && c <= to {
			c += by
		}
		dst = append(dst, c)
	}
	return dst
}

func replaceAll(_ *frame, dst []byte, in []*values, i int) ([]byte, bool) {
	text, old, by := in[0].texts[i], in[1].texts[i], in[2].texts[i]
	if len(old) == 0 {
		return dst, false
	}
	for start := len(dst); ; {
		at := bytes.Index(text, old)
		if at < 0 {
			return append(dst, text...), true
		}
		if dst = append(append(dst, text[:at]...), by...); len(dst)-start > maxText {
			return dst, false
		}
		text = text[at+len(old):]
	}
}

// substring appends the characters from from to before to.
func substring(dst, text []byte, from, to int64) ([]byte, bool) {
	if from < 0 || to < from {
		return dst, false
	}
	begin, n, at := -1, int64(0), 0
	for ; ; n++ {
		if n == from {
			begin = at
		}
		if n == to || at == len(text) {
			break
		}
		_, size := utf8.DecodeRune(text[at:])
		at += size
	}
	if begin < 0 || n < to && to != math.MaxInt64 {
		return dst, false
	}
	return append(dst, text[begin:at]...), true
}

func conversions() []celFunction {
	parsed := func(name string, kind record.Kind, result valueKind, read func(v *record.Vector) int64) celFunction {
		field := &record.Field{Kind: kind}
		return celFunction{name, false, []valueKind{vText}, result, func(bound []*expr) (*expr, error) {
			return &expr{kind: result, args: bound, run: func(f *frame, in []*values, out *values) {
				v := record.NewVector(field)
				oneOf(textsOf, intsOf, func(a []byte) (int64, bool) {
					v.Reset()
					if !appendParsed(v, field, a) {
						return 0, false
					}
					return read(v), true
				})(f, in, out)
			}}, nil
		}}
	}
	at64 := func(v *record.Vector) int64 { return v.Int64At(0) }
	all := []celFunction{
		parsed("int", record.Int64, vInt, at64), parsed("timestamp", record.TimestampTZ, vStamp, at64), parsed("datetime", record.Timestamp, vDateTime, at64),
		parsed("time", record.Time, vTime, at64), parsed("date", record.Date, vDate, func(v *record.Vector) int64 { return int64(v.Int32At(0)) }),
		simple("int", false, vInt, oneOf(floatsOf, intsOf, func(a float64) (int64, bool) { return int64(a), a > -1<<63 && a < 1<<63 }), vFloat),
		simple("int", false, vInt, oneOf(intsOf, intsOf, func(a int64) (int64, bool) { return a, true }), vInt),
		simple("double", false, vFloat, oneOf(floatsOf, floatsOf, func(a float64) (float64, bool) { return a, true }), vFloat),
		simple("double", false, vFloat, oneOf(intsOf, floatsOf, func(a int64) (float64, bool) { return float64(a), true }), vInt),
		simple("double", false, vFloat, oneOf(textsOf, floatsOf, func(a []byte) (float64, bool) {
			if _, ok := appendNumber(nil, a); !ok {
				return 0, false
			}
			x, err := strconv.ParseFloat(string(a), 64)
			return x, err == nil
		}), vText),
		{"int", false, []valueKind{vDecimal}, vInt, func(bound []*expr) (*expr, error) {
			scale := bound[0].scale
			return &expr{kind: vInt, args: bound, run: oneOf(decimalsOf, intsOf, func(a decimal) (int64, bool) { return a.whole(scale) })}, nil
		}},
		{"double", false, []valueKind{vDecimal}, vFloat, func(bound []*expr) (*expr, error) {
			scale := bound[0].scale
			return &expr{kind: vFloat, args: bound, run: oneOf(decimalsOf, floatsOf, func(a decimal) (float64, bool) { return a.float(scale), true })}, nil
		}},
		{"string", false, []valueKind{vDecimal}, vText, func(bound []*expr) (*expr, error) {
			scale := bound[0].scale
			return &expr{kind: vText, args: bound, run: textOf(func(dst []byte, v *values, i int) []byte {
				return record.AppendDecimal(dst, v.decimals[i].hi, v.decimals[i].lo, scale)
			})}, nil
		}},
	}
	for kind, text := range map[valueKind]func(dst []byte, v *values, i int) []byte{
		vInt:      func(dst []byte, v *values, i int) []byte { return strconv.AppendInt(dst, v.ints[i], 10) },
		vFloat:    func(dst []byte, v *values, i int) []byte { return appendFloat(dst, v.floats[i], 64) },
		vText:     func(dst []byte, v *values, i int) []byte { return append(dst, v.texts[i]...) },
		vStamp:    func(dst []byte, v *values, i int) []byte { return appendTimestamp(dst, v.ints[i], true) },
		vDateTime: func(dst []byte, v *values, i int) []byte { return appendTimestamp(dst, v.ints[i], false) },
		vDate:     func(dst []byte, v *values, i int) []byte { return appendDate(dst, int32(v.ints[i])) },
		vTime:     func(dst []byte, v *values, i int) []byte { return appendClock(dst, v.ints[i]) },
	} {
		all = append(all, simple("string", false, vText, textOf(text), kind))
	}
	return append(all, simple("string", false, vText, func(f *frame, in []*values, out *values) {
		for i, st := range in[0].state[:f.n] {
			switch st {
			case sTrue:
				out.texts[i] = []byte("true")
			case sFalse:
				out.texts[i], st = []byte("false"), sTrue
			}
			out.state[i] = st
		}
	}, vBool))
}

// textOf writes values as text.
func textOf(text func(dst []byte, v *values, i int) []byte) runFunc {
	return func(f *frame, in []*values, out *values) {
		for i, st := range in[0].state[:f.n] {
			if out.state[i] = st; st == sTrue {
				start := len(f.arena)
				f.arena = text(f.arena, in[0], i)
				out.texts[i] = f.arena[start:len(f.arena):len(f.arena)]
			}
		}
	}
}

// parseDecimal reads a plain decimal number as a literal has it.
func parseDecimal(text string) (d decimal, scale int, ok bool) {
	plain, ok := appendNumber(nil, []byte(text))
	if !ok {
		return decimal{}, 0, false
	}
	if i := bytes.IndexByte(plain, '.'); i >= 0 {
		scale = len(plain) - i - 1
	}
	if scale > maxDigits {
		return decimal{}, 0, false
	}
	d.hi, d.lo, ok = numberDigits(plain, scale)
	return d, scale, ok
}

func numberDigits(plain []byte, scale int) (hi int64, lo uint64, ok bool) {
	hi, lo, err := record.ParseDecimal(plain, maxDigits, scale)
	return hi, lo, err == nil
}
