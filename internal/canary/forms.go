package canary

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf16"
)

// forms returns the ways in which a text may be written down, by name.
func forms(text string) map[string]string {
	out := map[string]string{
		"plain":    text,
		"capitals": strings.ToUpper(text),
		"reversed": reversed(text),
		"utf-16le": wide(text, binary.LittleEndian),
		"utf-16be": wide(text, binary.BigEndian),
		"escaped":  escaped(text, `\u%04x`),
		"Escaped":  escaped(text, `\u%04X`),
		"percent":  escaped(text, "%%%02x"),
	}
	maps.Copy(out, byteForms([]byte(text)))
	delete(out, "bytes") // which are plain
	return out
}

// byteForms returns the ways in which bytes may be written down as text.
func byteForms(b []byte) map[string]string {
	out := map[string]string{
		"bytes": string(b),
		"hex":   hex.EncodeToString(b),
		"Hex":   strings.ToUpper(hex.EncodeToString(b)),
	}
	for shift := range 3 {
		out[fmt.Sprintf("base64+%d", shift)] = inBase64(b, shift, base64.RawStdEncoding)
		out[fmt.Sprintf("base64url+%d", shift)] = inBase64(b, shift, base64.RawURLEncoding)
	}
	return out
}

// inBase64 returns the characters that b alone decides when shift bytes (mod 3)
// are encoded before it.
func inBase64(b []byte, shift int, enc *base64.Encoding) string {
	whole := enc.EncodeToString(append(make([]byte, shift), b...))
	return whole[(8*shift+5)/6 : 8*(shift+len(b))/6]
}

// numberForms returns the ways in which a whole number is stored.
func numberForms(n int64) map[string]string {
	out := forms(fmt.Sprint(n))
	out["int64le"] = string(binary.LittleEndian.AppendUint64(nil, uint64(n)))
	out["int64be"] = string(binary.BigEndian.AppendUint64(nil, uint64(n)))
	out["varint"] = string(binary.AppendVarint(nil, n)) // as Avro writes it
	return out
}

func reversed(text string) string {
	r := []rune(text)
	slices.Reverse(r)
	return string(r)
}

func wide(text string, order binary.AppendByteOrder) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, unit)
	}
	return string(b)
}

func escaped(text, form string) string {
	var b strings.Builder
	for _, r := range text {
		fmt.Fprintf(&b, form, r)
	}
	return b.String()
}
