package mappers

import (
	"math"
	"time"

	"cel.dev/cel-go/common/operators"
)

func finite(micros int64) bool { return micros != math.MaxInt64 && micros != math.MinInt64 }

func timeFunctions() []celFunction {
	shift := func(op func(a, b int64) (int64, bool)) func(a, b int64) (int64, bool) {
		return func(a, b int64) (int64, bool) {
			c, ok := op(a, b)
			return c, ok && finite(a) && finite(c)
		}
	}
	between := func(a, b int64) (int64, bool) {
		c, ok := checkedSub(a, b)
		return c, ok && finite(a) && finite(b)
	}
	pair := func(name string, op func(a, b int64) (int64, bool), result, left, right valueKind) celFunction {
		return simple(name, false, result, twoOf(intsOf, intsOf, intsOf, op), left, right)
	}
	all := []celFunction{
		simple("duration", false, vDuration, oneOf(textsOf, intsOf, func(a []byte) (int64, bool) {
			d, err := time.ParseDuration(string(a))
			return d.Microseconds(), err == nil
		}), vText),
		pair(operators.Add, checkedAdd, vDuration, vDuration, vDuration), pair(operators.Subtract, checkedSub, vDuration, vDuration, vDuration),
		simple("date", false, vDate, oneOf(intsOf, intsOf, dayOf), vStamp), simple("date", false, vDate, oneOf(intsOf, intsOf, dayOf), vDateTime),
	}
	for _, k := range []valueKind{vStamp, vDateTime} {
		all = append(all, pair(operators.Add, shift(checkedAdd), k, k, vDuration), pair(operators.Subtract, shift(checkedSub), k, k, vDuration),
			pair(operators.Subtract, between, vDuration, k, k))
		for name, part := range clockParts {
			all = append(all, simple(name, true, vInt, oneOf(intsOf, intsOf, func(a int64) (int64, bool) {
				return part(a - floorDiv(a, microsPerDay)*microsPerDay), finite(a)
			}), k))
		}
		for name, part := range dayParts {
			all = append(all, simple(name, true, vInt, oneOf(intsOf, intsOf, func(a int64) (int64, bool) {
				return part(floorDiv(a, microsPerDay)), finite(a)
			}), k))
		}
	}
	for name, part := range dayParts {
		all = append(all, simple(name, true, vInt, oneOf(intsOf, intsOf, func(a int64) (int64, bool) {
			return part(a), a != math.MaxInt32 && a != math.MinInt32
		}), vDate))
	}
	for name, unit := range map[string]int64{"getHours": 3600 * microsPerSecond, "getMinutes": 60 * microsPerSecond, "getSeconds": microsPerSecond, "getMilliseconds": 1000} {
		all = append(all, simple(name, true, vInt, oneOf(intsOf, intsOf, func(a int64) (int64, bool) { return a / unit, true }), vDuration))
	}
	return all
}

func dayOf(micros int64) (int64, bool) {
	day := floorDiv(micros, microsPerDay)
	return day, finite(micros) && day > math.MinInt32 && day < math.MaxInt32
}

// clockParts and dayParts are CEL's: months and days of the month count from
// 0, getDate counts from 1, the week begins on Sunday.
var clockParts = map[string]func(micros int64) int64{
	"getHours":        func(t int64) int64 { return t / (3600 * microsPerSecond) },
	"getMinutes":      func(t int64) int64 { return t / (60 * microsPerSecond) % 60 },
	"getSeconds":      func(t int64) int64 { return t / microsPerSecond % 60 },
	"getMilliseconds": func(t int64) int64 { return t / 1000 % 1000 },
}

var dayParts = map[string]func(day int64) int64{
	"getFullYear":   func(d int64) int64 { y, _, _ := civil(d); return y },
	"getMonth":      func(d int64) int64 { _, m, _ := civil(d); return int64(m) - 1 },
	"getDate":       func(d int64) int64 { _, _, n := civil(d); return int64(n) },
	"getDayOfMonth": func(d int64) int64 { _, _, n := civil(d); return int64(n) - 1 },
	"getDayOfYear":  func(d int64) int64 { y, _, _ := civil(d); return d - days(y, 1, 1) },
	"getDayOfWeek":  func(d int64) int64 { return d + 4 - floorDiv(d+4, 7)*7 },
}
