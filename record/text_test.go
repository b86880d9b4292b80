package record

import (
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestCalendarAgreesWithTime(t *testing.T) {
	for days := int64(-800_000); days < 3_000_000; days += 13 {
		want := time.Unix(days*86400, 0).UTC()
		y, m, d := civil(days)
		if int(y) != want.Year() || m != int(want.Month()) || d != want.Day() {
			t.Fatalf("day %d is %d-%d-%d, want %s", days, y, m, d, want.Format(time.DateOnly))
		}
		if back := dayNumber(y, m, d); back != days {
			t.Fatalf("day %d reads back as %d", days, back)
		}
	}
}

func TestTimestampText(t *testing.T) {
	for text, micros := range map[string]int64{
		"1970-01-01T00:00:00.000000":    0,
		"1969-12-31T23:59:59.999999":    -1,
		"2024-02-29T12:34:56.789012":    1709210096789012,
		"9999-12-31T23:59:59.999999":    253402300799999999,
		"+10000-01-01T00:00:00.000000":  253402300800000000,
		"+294247-01-10T04:00:54.775806": math.MaxInt64 - 1,
		"0000-01-01T00:00:00.000000":    -62167219200000000,
		"-0001-12-31T23:59:59.999999":   -62167219200000001,
		"-0043-03-15T00:00:00.000000":   time.Date(-43, 3, 15, 0, 0, 0, 0, time.UTC).UnixMicro(),
		"-290308-12-21T19:59:05.224193": math.MinInt64 + 1,
		"infinity":                      math.MaxInt64,
		"-infinity":                     math.MinInt64,
	} {
		v := NewVector(&Field{Kind: Timestamp})
		v.AppendInt64(micros)
		if got := string(appendMoment(nil, Timestamp, v, 0)); got != text {
			t.Errorf("%d is written as %s, want %s", micros, got, text)
		}
		if got, err := parseTimestampText([]byte(text), false); err != nil || got != micros {
			t.Errorf("%s is read as %d, %v; want %d", text, got, err, micros)
		}
	}
	for text, micros := range map[string]int64{ // what others write
		"2024-02-29 12:34:56Z":             1709210096000000,
		"2024-02-29T12:34:56.7+02:00":      1709202896700000,
		"2024-02-29T12:34:56.789012000-05": 1709228096789012,
		"1883-11-18T12:03:58-04:56:02":     -2717650800000000,
		"2024-02-29T24:00:00Z":             1709251200000000,
	} {
		if got, err := parseTimestampText([]byte(text), true); err != nil || got != micros {
			t.Errorf("%s is read as %d, %v; want %d", text, got, err, micros)
		}
	}
}

func TestTimestampAgreesWithTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		micros := rapid.Int64Range(-62167219200000000, 253402300799999999).Draw(t, "micros")
		want := time.UnixMicro(micros).UTC().Format("2006-01-02T15:04:05.000000")
		if got := string(appendTimestamp(nil, micros)); got != want {
			t.Fatalf("%d is written as %s, want %s", micros, got, want)
		}
		b := []byte(want)
		if got, ok := parseMicros(b); !ok || got != micros {
			t.Fatalf("%s is read as %d", want, got)
		}
		// The quick reader and the general one agree on damaged text, too.
		b[rapid.IntRange(0, len(b)-1).Draw(t, "place")] = rapid.Byte().Draw(t, "byte")
		quick, ok := parseMicros(b)
		days, n := parseDate(b)
		clock, _, err := parseClock(b[min(n+1, len(b)):])
		if slow := n == 10 && b[10] == 'T' && err == nil && b[11] != '2' || ok; ok && (!slow || quick != days*microsPerDay+clock) {
			t.Fatalf("%q: quick %d %v, general %d %v", b, quick, ok, days*microsPerDay+clock, err)
		}
	})
}

func decimalOf(hi int64, lo uint64) *big.Int {
	x := new(big.Int).Lsh(big.NewInt(hi), 64)
	return x.Add(x, new(big.Int).SetUint64(lo))
}

func TestDecimalAgreesWithBig(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		precision := rapid.IntRange(1, 38).Draw(t, "precision")
		scale := rapid.IntRange(0, precision).Draw(t, "scale")
		text := rapid.OneOf(rapid.StringMatching(`-?[0-9]{1,40}(\.[0-9]{0,40})?`), rapid.StringMatching(`-?[0-9]{0,20}\.[0-9]{1,20}`),
			rapid.StringMatching(`[+-]?[0-9]{1,9}(\.[0-9]{1,6})?0*([eE][+-]?[0-9]{1,2})?`), rapid.StringMatching(`[0-9.eE+-]{0,8}`)).Draw(t, "text")
		hi, lo, err := ParseDecimal([]byte(text), precision, scale)
		want, ok := new(big.Rat).SetString(text)
		if !ok {
			if err == nil {
				t.Fatalf("%q was read", text)
			}
			return
		}
		want.Mul(want, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)))
		limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(precision)), nil)
		fits := want.IsInt() && new(big.Int).Abs(want.Num()).Cmp(limit) < 0
		if fits != (err == nil) {
			t.Fatalf("%q as (%d,%d): %v", text, precision, scale, err)
		}
		if !fits {
			return
		}
		if got := decimalOf(hi, lo); got.Cmp(want.Num()) != 0 {
			t.Fatalf("%q as (%d,%d) is %v, want %v", text, precision, scale, got, want.Num())
		}
		back := AppendDecimal(nil, hi, lo, scale)
		if r, ok := new(big.Rat).SetString(string(back)); !ok || r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil))).Cmp(want) != 0 {
			t.Fatalf("%q is written as %s", text, back)
		}
		if i := strings.IndexByte(string(back), '.'); scale == 0 && i >= 0 || scale > 0 && len(back)-i-1 != scale {
			t.Fatalf("%s has not %d digits after the point", back, scale)
		}
	})
}

func TestDecimalExtremes(t *testing.T) {
	nines := strings.Repeat("9", 38)
	for _, text := range []string{nines, "-" + nines, nines[:28] + "." + nines[28:], "-0." + nines, "0." + strings.Repeat("0", 37) + "1"} {
		scale := 0
		if i := strings.IndexByte(text, '.'); i >= 0 {
			scale = len(text) - i - 1
		}
		hi, lo, err := ParseDecimal([]byte(text), 38, scale)
		if err != nil || string(AppendDecimal(nil, hi, lo, scale)) != text {
			t.Errorf("%s: %s, %v", text, AppendDecimal(nil, hi, lo, scale), err)
		}
	}
	if got := string(AppendDecimal(nil, math.MinInt64, 0, 0)); got != "-170141183460469231731687303715884105728" {
		t.Errorf("the lowest 128-bit integer is %s", got)
	}
	for _, text := range []string{"1e99999999999999999999", "1" + nines, "0." + nines + "1", "1e-39", "9e38"} {
		if _, _, err := ParseDecimal([]byte(text), 38, 0); err == nil {
			t.Errorf("%s was read", text)
		}
	}
	if hi, lo, err := ParseDecimal([]byte("0e99999999999"), 5, 2); hi != 0 || lo != 0 || err != nil {
		t.Errorf("zero with an exponent: %d %d %v", hi, lo, err)
	}
}

func TestFloats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.OneOf(rapid.Float64(), rapid.Float64Range(-1e6, 1e6), rapid.Custom(func(t *rapid.T) float64 {
			return float64(rapid.Int64Range(-1e12, 1e12).Draw(t, "m")) / math.Pow(10, float64(rapid.IntRange(0, 9).Draw(t, "decimals")))
		})).Draw(t, "f")
		text := appendFloat(nil, f, 64)
		got, n, err := readFloat(append(text, ','), 0, 64)
		if err != nil || n != len(text) || math.Float64bits(got) != math.Float64bits(f) {
			t.Fatalf("%v is written as %s and read as %v, %v", f, text, got, err)
		}
		if std, err := strconv.ParseFloat(string(text), 64); err != nil || math.Float64bits(std) != math.Float64bits(f) {
			t.Fatalf("%v is written as %s: others read %v", f, text, std)
		}
		g := float32(f)
		if f64 := float64(g); !math.IsInf(f64, 0) {
			text := appendFloat(nil, f64, 32)
			got, _, err := readFloat(text, 0, 32)
			if std, _ := strconv.ParseFloat(string(text), 32); err != nil || math.Float32bits(float32(got)) != math.Float32bits(g) || float32(std) != g {
				t.Fatalf("float32 %v is written as %s and read as %v, %v", g, text, got, err)
			}
		}
	})
}

func TestStringsAgreeWithJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawText(t)
		// What stands behind the value in its column must not show.
		padded := append(append([]byte{}, s...), `"\"\\tail`...)
		text := appendString([]byte("x"), padded[:len(s)])[1:]
		var std string
		if err := json.Unmarshal(text, &std); err != nil || std != string(s) {
			t.Fatalf("%q is written as %s: %v", s, text, err)
		}
		for _, form := range [][]byte{text, mustMarshal(string(s))} {
			got, n, err := unescape([]byte("y"), append(form, `,"z":1}`...), 1)
			if err != nil || string(got) != "y"+string(s) || n != len(form) {
				t.Fatalf("%s is read as %q up to %d, %v", form, got, n, err)
			}
		}
	})
}

func mustMarshal(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return b
}

func TestIntegers(t *testing.T) {
	for _, x := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64, 999999999999999999, 1000000000000000000} {
		if got, _, err := readInt([]byte(strconv.FormatInt(x, 10)), 0); err != nil || got != x {
			t.Errorf("%d is read as %d, %v", x, got, err)
		}
	}
	for _, text := range []string{"", "-", "9223372036854775808", "-9223372036854775809", "18446744073709551616", "1.0", "1e1", "x"} {
		if got, _, err := readInt([]byte(text), 0); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
}
