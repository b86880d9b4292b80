package mappers

import (
	"bytes"
	"net/netip"
	"unicode/utf8"

	"github.com/sluice-data/sluice/record"
)

// notOnKey refuses rules that give several keys one value.
func (b *builder) notOnKey(path string, f *record.Field) bool {
	if f.Key > 0 {
		b.fail(path, f.Name, CodeKeyField, "%s is part of the key, and %s would give different keys the same value; hash it instead", f.Name, b.kind)
		return false
	}
	return true
}

func (b *builder) redact(r *Redact) {
	with := r.With
	if with == "" {
		with = "[redacted]"
	}
	text := []byte(with)
	fields, paths := b.expand(r.Fields)
	for i, name := range fields {
		c := b.index(name)
		if !b.notOnKey(paths[i], &b.cols[c].field) {
			continue
		}
		f := record.Field{Name: name, Kind: record.Text, Nullable: b.cols[c].field.Nullable}
		b.replace(c, f, perRun(func() kernel {
			return func(dst, src *record.Vector, _ twin, _ refuse) {
				for _, st := range src.State {
					if st == record.Present {
						dst.AppendData(text)
					} else {
						dst.AppendMissing(st, 0)
					}
				}
			}
		}))
	}
}

// maskers append the masked form of a value.
var maskers = map[string]func(dst, value []byte, m *Mask) []byte{
	"":      maskChars,
	"chars": maskChars,
	"email": maskEmail,
	"phone": maskDigits,
	"card":  maskDigits,
	"ip":    maskIP,

	maskDate: nil, // works on dates, not on texts
}

const maskDate = "date"

func (b *builder) mask(m *Mask) {
	i := b.find("field", m.Field)
	if i < 0 || !b.notOnKey("field", &b.cols[i].field) {
		return
	}
	f := b.cols[i].field
	if m.Kind == maskDate {
		b.maskDate(i, m)
		return
	}
	if !isText(f.Kind) {
		b.fail("field", f.Name, CodeType, "mask works on text, %s is %s; cast it to text first or redact it", f.Name, f.Kind)
		return
	}
	rule := *m
	if rule.Char == "" {
		rule.Char = "*"
	}
	mask, normal := maskers[m.Kind], normalizers[m.Normalize]
	out := record.Field{Name: f.Name, Kind: record.Text, Nullable: f.Nullable}
	b.replace(i, out, perRun(func() kernel {
		var text []byte
		return func(dst, src *record.Vector, _ twin, no refuse) {
			for i, st := range src.State {
				if st != record.Present {
					dst.AppendMissing(st, 0)
					continue
				}
				value, ok := src.Value(i), true
				if normal != nil {
					text, ok = normal(text[:0], value)
					value = text
				}
				if !ok {
					no(i, "value_not_canonical", f.Name+": the value is not what normalize is for")
					dst.AppendMissing(record.Unsent, 0)
					continue
				}
				dst.Data = mask(dst.Data, value, &rule)
				dst.State, dst.Offs = append(dst.State, record.Present), append(dst.Offs, int32(len(dst.Data)))
			}
		}
	}))
}

// maskDate keeps the year or month of a date or timestamp.
func (b *builder) maskDate(i int, m *Mask) {
	f, to := b.cols[i].field, m.Keep
	if to == "" {
		to = "year"
	}
	switch f.Kind {
	case record.Date:
		b.replace(i, f, perRun(func() kernel { return truncateDate(to) }))
	case record.Timestamp, record.TimestampTZ:
		b.replace(i, f, perRun(func() kernel { return truncateMicros(to) }))
	default:
		b.fail("field", f.Name, CodeType, "the kind date works on dates and timestamps, %s is %s; cast it first", f.Name, f.Kind)
	}
}

// maskChars hides all characters but the first and last few. A value that
// these would show as a whole is hidden as a whole.
func maskChars(dst, value []byte, m *Mask) []byte {
	n := utf8.RuneCount(value)
	first, last := m.KeepFirst, m.KeepLast
	if first+last >= n {
		first, last = 0, 0
	}
	if n == len(value) && len(m.Char) == 1 { // every character is a byte, as almost always
		dst = append(dst, value...)
		for i, hidden := first, dst[len(dst)-n:]; i < n-last; i++ {
			hidden[i] = m.Char[0]
		}
		return dst
	}
	for i := 0; len(value) > 0; i++ {
		_, size := utf8.DecodeRune(value)
		if i < first || i >= n-last {
			dst = append(dst, value[:size]...)
		} else {
			dst = append(dst, m.Char...)
		}
		value = value[size:]
	}
	return dst
}

// hideAll is what becomes of a value that is not what its rule expects.
func hideAll(dst, value []byte, m *Mask) []byte {
	return maskChars(dst, value, &Mask{Char: m.Char})
}

// maskEmail keeps the first character and the domain; the length of the name does not show.
func maskEmail(dst, value []byte, m *Mask) []byte {
	at := bytes.LastIndexByte(value, '@')
	if at <= 0 {
		return hideAll(dst, value, m)
	}
	if _, size := utf8.DecodeRune(value); size < at {
		dst = append(dst, value[:size]...)
	}
	for range 3 {
		dst = append(dst, m.Char...)
	}
	return append(dst, value[at:]...)
}

// maskDigits hides all digits and letters but the last few digits, and keeps separators.
func maskDigits(dst, value []byte, m *Mask) []byte {
	last := m.KeepLast
	if last == 0 {
		last = 4
	}
	digits := 0
	for _, c := range value {
		if c >= '0' && c <= '9' {
			digits++
		}
	}
	if digits <= last {
		return hideAll(dst, value, m)
	}
	seen := 0
	for len(value) > 0 {
		c, size := utf8.DecodeRune(value)
		switch {
		case c >= '0' && c <= '9':
			if seen++; seen > digits-last {
				dst = append(dst, byte(c))
			} else {
				dst = append(dst, m.Char...)
			}
		case c == ' ' || c == '-' || c == '+' || c == '(' || c == ')' || c == '.' || c == '/':
			dst = append(dst, byte(c))
		default:
			dst = append(dst, m.Char...)
		}
		value = value[size:]
	}
	return dst
}

// maskIP keeps the first 24 bits of an IPv4 and 48 of an IPv6 address.
func maskIP(dst, value []byte, m *Mask) []byte {
	text, _, _ := bytes.Cut(value, []byte("/"))
	if network, ok := network24(text); ok {
		dst = append(dst, network...)
		return append(dst, '0')
	}
	a, err := netip.ParseAddr(string(text))
	if err != nil {
		return hideAll(dst, value, m)
	}
	a, bits := a.WithZone("").Unmap(), 48
	if a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return hideAll(dst, value, m)
	}
	return p.Addr().AppendTo(dst)
}

// network24 returns the first three bytes of an IPv4 address with the dot
// behind them. It is here because netip allocates.
func network24(text []byte) ([]byte, bool) {
	dots, digits, n, end := 0, 0, 0, 0
	for i, c := range text {
		switch {
		case c >= '0' && c <= '9' && (digits == 0 || n > 0):
			n = n*10 + int(c-'0')
			if digits++; n > 255 {
				return nil, false
			}
		case c == '.' && digits > 0 && dots < 3:
			dots, digits, n, end = dots+1, 0, 0, i+1
		default:
			return nil, false
		}
	}
	return text[:end], dots == 3 && digits > 0
}
