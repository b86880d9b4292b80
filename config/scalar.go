package config

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size, written with its unit: 64MiB.
type Bytes int64

var byteUnits = []struct {
	name string
	size float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// ParseBytes reads a size such as 64MiB, 1.5GB or 512B. A number without a
// unit is an error: nobody knows what was meant.
func ParseBytes(s string) (Bytes, error) {
	for _, u := range byteUnits {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || n < 0 || math.IsNaN(n) || n*u.size >= math.MaxInt64 {
			break
		}
		return Bytes(n * u.size), nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Errorf("size %s has no unit; want it like %sMiB", s, s)
	}
	return 0, fmt.Errorf("%q is no size; want a number with KiB, MiB, GiB, kB, MB or GB, such as 64MiB", s)
}

// String returns the shortest exact spelling.
func (b Bytes) String() string {
	for i := 3; i >= 0; i-- {
		if u := int64(byteUnits[i].size); b != 0 && int64(b)%u == 0 {
			return strconv.FormatInt(int64(b)/u, 10) + byteUnits[i].name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil && d >= 0 {
		return d, nil
	}
	if err == nil {
		return 0, fmt.Errorf("duration %s is negative", s)
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Errorf("duration %s has no unit; want it like %ss", s, s)
	}
	return 0, fmt.Errorf("%q is no duration; want a number with ms, s, m or h, such as 10s", s)
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	bytesType    = reflect.TypeFor[Bytes]()
	secretType   = reflect.TypeFor[Secret]()
	rulesType    = reflect.TypeFor[Rules]()
)

// setScalar parses text into v, which is a number, a boolean, a duration, a
// size or a text, and checks the limits of tag.
func setScalar(v reflect.Value, text string, tag fieldTag) error {
	switch {
	case v.Type() == durationType:
		d, err := parseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
	case v.Type() == bytesType:
		b, err := ParseBytes(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(b))
	case v.Kind() == reflect.String:
		if len(tag.enum) > 0 && !contains(tag.enum, text) {
			return fmt.Errorf("unknown %s %q%s", tag.name, text, suggest(text, tag.enum))
		}
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		switch text {
		case "true", "false":
			v.SetBool(text == "true")
		default:
			return fmt.Errorf("want true or false, got %q", text)
		}
	case v.CanInt():
		n, err := strconv.ParseInt(text, 0, 64)
		if err != nil || v.OverflowInt(n) {
			return fmt.Errorf("want a whole number, got %q", text)
		}
		v.SetInt(n)
	case v.CanUint():
		n, err := strconv.ParseUint(text, 0, 64)
		if err != nil || v.OverflowUint(n) {
			return fmt.Errorf("want a whole number of at least 0, got %q", text)
		}
		v.SetUint(n)
	case v.CanFloat():
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return fmt.Errorf("want a number, got %q", text)
		}
		v.SetFloat(n)
	default:
		return fmt.Errorf("a setting of type %s cannot be read", v.Type())
	}
	return checkLimits(v, tag)
}

func checkLimits(v reflect.Value, tag fieldTag) error {
	for _, limit := range []struct {
		text string
		word string
		bad  func(v, l float64) bool
	}{
		{tag.min, "least", func(v, l float64) bool { return v < l }},
		{tag.max, "most", func(v, l float64) bool { return v > l }},
	} {
		if limit.text == "" {
			continue
		}
		l := reflect.New(v.Type()).Elem()
		if err := setScalar(l, limit.text, fieldTag{}); err != nil {
			return fmt.Errorf("limit of %s: %w", tag.name, err)
		}
		if limit.bad(asFloat(v), asFloat(l)) {
			return fmt.Errorf("want at %s %s", limit.word, limit.text)
		}
	}
	return nil
}

func asFloat(v reflect.Value) float64 {
	switch {
	case v.CanInt():
		return float64(v.Int())
	case v.CanUint():
		return float64(v.Uint())
	case v.CanFloat():
		return v.Float()
	}
	return 0
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// Round returns about three digits, for people: 64.2 MiB.
func (b Bytes) Round() string {
	for i := 3; i >= 0; i-- {
		if u := byteUnits[i]; float64(b) >= u.size {
			return fmt.Sprintf("%.3g %s", float64(b)/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d B", int64(b))
}
