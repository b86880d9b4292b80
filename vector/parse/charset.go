package parse

import (
	"bytes"
	"mime"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
)

func charsetOf(mimeType string) string {
	_, params, err := mime.ParseMediaType(mimeType)
	if err != nil {
		return ""
	}
	return params["charset"]
}

// wide tells a text of two-byte units by its mark, or by zeros in every other
// byte: "utf-16le", "utf-16be" or "".
func wide(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte("\xff\xfe")):
		return "utf-16le"
	case bytes.HasPrefix(b, []byte("\xfe\xff")):
		return "utf-16be"
	}
	n := min(len(b), 512) &^ 1
	if n < 8 {
		return ""
	}
	even, odd := 0, 0
	for i := 0; i < n; i += 2 {
		if b[i] == 0 {
			even++
		}
		if b[i+1] == 0 {
			odd++
		}
	}
	switch {
	case odd*10 > n*4 && even == 0:
		return "utf-16le"
	case even*10 > n*4 && odd == 0:
		return "utf-16be"
	}
	return ""
}

// narrow gives the head of a wide text as bytes, for looking at its beginning.
func narrow(head []byte) []byte {
	if w := wide(head); w != "" {
		return []byte(decodeWide(head, w == "utf-16be"))
	}
	return head
}

func decodeWide(b []byte, big bool) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		lo, hi := b[2*i], b[2*i+1]
		if big {
			lo, hi = hi, lo
		}
		units[i] = uint16(lo) | uint16(hi)<<8
	}
	return strings.TrimPrefix(string(utf16.Decode(units)), "\ufeff")
}

// decode gives text as UTF-8. What the file or its source declares counts only
// if the bytes can be that; replaced says that some bytes were no characters.
func decode(b []byte, declared string) (text string, replaced bool) {
	if w := wide(b); w != "" {
		return decodeWide(b, w == "utf-16be"), len(b)%2 == 1
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	if bytes.IndexByte(b, 0x1b) < 0 && utf8.Valid(b) {
		return string(b), false
	}
	if declared != "" {
		if enc, err := htmlindex.Get(declared); err == nil {
			if text, bad := decodeWith(enc, b); bad*1000 <= len(b) {
				return text, bad > 0
			}
		}
	}
	if mostlyUTF8(b) {
		return strings.ToValidUTF8(string(b), "\ufffd"), true
	}
	enc := guess(b)
	text, bad := decodeWith(enc, b)
	return text, bad > 0
}

func decodeWith(enc encoding.Encoding, b []byte) (string, int) {
	out, err := enc.NewDecoder().Bytes(b)
	if err != nil {
		return "", len(b)
	}
	return string(out), bytes.Count(out, []byte("\ufffd"))
}

// mostlyUTF8: a UTF-8 text with a few broken places, as a cut log file.
func mostlyUTF8(b []byte) bool {
	good, bad := 0, 0
	for i := 0; i < len(b); {
		if b[i] < utf8.RuneSelf {
			i++
			continue
		}
		_, size := utf8.DecodeRune(b[i:])
		if size > 1 {
			good++
		} else {
			bad++
		}
		i += size
	}
	return bad == 0 || good > 4*bad
}

// guess picks the encoding of bytes that are not UTF-8, by what decodes without
// errors into what people write.
func guess(b []byte) encoding.Encoding {
	sample := b[:min(len(b), 64<<10)]
	if bytes.Contains(sample, []byte("\x1b$")) {
		return japanese.ISO2022JP
	}
	best, bestScore := encoding.Encoding(charmap.Windows1252), scoreOf(charmap.Windows1252, sample)
	for _, enc := range []encoding.Encoding{japanese.ShiftJIS, japanese.EUCJP, simplifiedchinese.GB18030,
		traditionalchinese.Big5, korean.EUCKR, charmap.Windows1251, charmap.KOI8R, charmap.Windows1253, charmap.Windows1255,
		charmap.Windows1250} {
		if score := scoreOf(enc, sample); score > bestScore {
			best, bestScore = enc, score
		}
	}
	return best
}

// scoreOf is how much sample looks like writing when read as enc.
func scoreOf(enc encoding.Encoding, sample []byte) int {
	text, _ := decodeWith(enc, sample)
	score := 0
	var last rune
	for _, r := range text {
		score += plausible(last, r)
		last = r
	}
	return score
}

// frequent are the commonest Chinese characters, simplified and traditional.
const frequent = "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会家可下而过天去能对小多然于心学么之都好看起发当没成只如事把还用第样道想作种开从无情面最但现前些所同日手又行意动方期它头经长回位分因很给名法间知世什两次使身者被高已其进此话常与活正" +
	"這個們來為國說時會對過發後種經麼學現當沒動還進樣開從實無長給間兩點體電機關業問東車話"

// plausible weighs a character by what precedes it: wrong encodings give
// replacement signs, accents in a row and capitals inside of words.
func plausible(last, r rune) int {
	switch {
	case r < 0x80:
		return 0
	case r == utf8.RuneError:
		return -20
	case r < 0xa0, r >= 0xe000 && r < 0xf900:
		return -10
	case r >= 0x3041 && r <= 0x30fe:
		return 5
	case r >= 0xac00 && r <= 0xd7a3:
		return 3
	case r >= 0x4e00 && r <= 0x9fff:
		if strings.ContainsRune(frequent, r) {
			return 6
		}
		return 1
	case r >= 0xff61 && r <= 0xff9f:
		return -2
	case unicode.Is(unicode.Cyrillic, r), unicode.Is(unicode.Greek, r), unicode.Is(unicode.Hebrew, r):
		if unicode.IsUpper(r) && unicode.IsLower(last) {
			return -4
		}
		if unicode.IsLetter(last) && last < 0x250 {
			return -3
		}
		return 2
	case unicode.Is(unicode.Latin, r):
		switch {
		case last >= 0x80 && unicode.IsLetter(last):
			return -3
		case unicode.IsUpper(r) && unicode.IsLower(last):
			return -3
		case last < 0x80 && unicode.IsLetter(last):
			return 2
		}
		return 1
	case unicode.IsLetter(last) && last < 0x250 && !unicode.IsPunct(r):
		return -2
	}
	return 0
}
