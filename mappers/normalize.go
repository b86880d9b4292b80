package mappers

import (
	"bytes"
	"unicode"
	"unicode/utf8"
)

// trimLower appends value without surrounding space, in lower case.
func trimLower(dst, value []byte) ([]byte, bool) {
	for value = bytes.TrimSpace(value); len(value) > 0; {
		c, size := utf8.DecodeRune(value)
		if c == utf8.RuneError && size == 1 {
			dst = append(dst, value[0])
		} else {
			dst = utf8.AppendRune(dst, unicode.ToLower(c))
		}
		value = value[size:]
	}
	return dst, true
}

// googleEmail is trimLower and leaves out the dots before gmail.com and
// googlemail.com, as advertising platforms ask for.
func googleEmail(dst, value []byte) ([]byte, bool) {
	start := len(dst)
	dst, _ = trimLower(dst, value)
	name, domain, found := bytes.Cut(dst[start:], []byte("@"))
	if !found || string(domain) != "gmail.com" && string(domain) != "googlemail.com" {
		return dst, true
	}
	end := start
	for i := range name {
		if name[i] != '.' {
			dst[end] = name[i]
			end++
		}
	}
	end += copy(dst[end:], dst[start+len(name):])
	return dst[:end], true
}

// phoneE164 appends an international phone number as + and its digits. A
// number without + or 00 in front names no country and is refused.
func phoneE164(dst, value []byte) ([]byte, bool) {
	start := len(dst)
	value = bytes.TrimSpace(value)
	switch {
	case bytes.HasPrefix(value, []byte("+")):
		value = value[1:]
	case bytes.HasPrefix(value, []byte("00")):
		value = value[2:]
	default:
		return dst, false
	}
	dst = append(dst, '+')
	for _, c := range value {
		switch {
		case c >= '0' && c <= '9':
			dst = append(dst, c)
		case c == ' ' || c == '-' || c == '.' || c == '(' || c == ')' || c == '/':
		default:
			return dst, false
		}
	}
	digits := len(dst) - start - 1
	return dst, digits >= 7 && digits <= 15
}
