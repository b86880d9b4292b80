package mappers

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/sluice-data/sluice/record"
)

// units are how many microseconds a unit of fixed length has.
var units = map[string]int64{
	"second": microsPerSecond,
	"minute": 60 * microsPerSecond,
	"hour":   3600 * microsPerSecond,
	"day":    microsPerDay,
	"month":  0,
	"year":   0,
}

func (b *builder) truncate(t *Truncate) {
	i := b.find("field", t.Field)
	if i < 0 || !b.notOnKey("field", &b.cols[i].field) {
		return
	}
	f := b.cols[i].field
	var k kernel
	switch {
	case t.Chars > 0 && isText(f.Kind):
		k = truncateText(t.Chars)
		f.Kind, f.SourceType = record.Text, ""
	case t.Chars > 0:
		b.fail("chars", f.Name, CodeType, "only texts have characters, %s is %s", f.Name, f.Kind)
	case f.Kind == record.Timestamp || f.Kind == record.TimestampTZ:
		k = truncateMicros(t.To)
	case f.Kind == record.Time && units[t.To] > 0 && t.To != "day":
		k = truncateMicros(t.To)
	case f.Kind == record.Date && (t.To == "month" || t.To == "year"):
		k = truncateDate(t.To)
	default:
		b.fail("to", f.Name, CodeType, "%s is %s, which is not rounded down to %s", f.Name, f.Kind, t.To)
	}
	if k != nil {
		b.replace(i, f, perRun(func() kernel { return k }))
	}
}

func truncateText(chars int) kernel {
	return func(dst, src *record.Vector, _ twin, _ refuse) {
		for i, st := range src.State {
			if st != record.Present {
				dst.AppendMissing(st, 0)
				continue
			}
			value, end := src.Value(i), 0
			for n := 0; n < chars && end < len(value); n++ {
				_, size := utf8.DecodeRune(value[end:])
				end += size
			}
			dst.AppendData(value[:end])
		}
	}
}

// truncateMicros rounds times down, those of a time zone in UTC. Infinities stay.
func truncateMicros(to string) kernel {
	unit := units[to]
	return func(dst, src *record.Vector, _ twin, no refuse) {
		for i, st := range src.State {
			t := src.Int64At(i)
			switch {
			case st != record.Present:
				dst.AppendMissing(st, 8)
				continue
			case t == math.MaxInt64 || t == math.MinInt64:
			case unit > 0:
				t = floorDiv(t, unit) * unit
			default:
				t = truncateDay(floorDiv(t, microsPerDay), to) * microsPerDay
			}
			if t > src.Int64At(i) { // the first years that fit 64 bits have no start in them
				no(i, codeCast, "the time cannot be rounded down to "+to)
				dst.AppendMissing(record.Unsent, 8)
				continue
			}
			dst.AppendInt64(t)
		}
	}
}

func truncateDate(to string) kernel {
	return func(dst, src *record.Vector, _ twin, no refuse) {
		for i, st := range src.State {
			day := int32(binary.LittleEndian.Uint32(src.Fixed[4*i:]))
			switch {
			case st != record.Present:
				dst.AppendMissing(st, 4)
			case day == math.MaxInt32 || day == math.MinInt32:
				dst.AppendInt32(day)
			case truncateDay(int64(day), to) <= math.MinInt32:
				no(i, codeCast, "the date cannot be rounded down to "+to)
				dst.AppendMissing(record.Unsent, 4)
			default:
				dst.AppendInt32(int32(truncateDay(int64(day), to)))
			}
		}
	}
}

func truncateDay(day int64, to string) int64 {
	year, month, _ := civil(day)
	if to == "year" {
		month = 1
	}
	return days(year, month, 1)
}
