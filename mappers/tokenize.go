package mappers

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"hash"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-data/sluice/record"
)

// domainOf is what a keyed rule puts before its values: the domain of the rule
// or the place of the field, and a zero byte.
func (b *builder) domainOf(kind, domain, field string) []byte {
	if domain == "" {
		domain = b.stream + "." + field
	}
	return append([]byte(kind+"\x00"+domain), 0)
}

func keyBytes(n int) bool { return n >= minKeyBytes }

func (b *builder) tokenize(t *Tokenize) {
	i := b.find("field", t.Field)
	key, ok := b.key(t.Key, false, keyBytes, "16 or more")
	if !ok || i < 0 || !b.notOnKey("field", &b.cols[i].field) {
		return
	}
	f := b.cols[i].field
	if !isText(f.Kind) {
		b.fail("field", f.Name, CodeType, "tokenize works on text, %s is %s; cast it to text first or use pseudonym", f.Name, f.Kind)
		return
	}
	domain := b.domainOf("token", t.Domain, t.Field)
	out := record.Field{Name: f.Name, Kind: record.Text, Nullable: f.Nullable}
	b.replace(i, out, perRun(func() kernel {
		return (&tokenizer{mac: hmac.New(sha256.New, key), domain: domain, keep: t.Keep}).cells
	}))
}

// tokenizer draws the letters and digits of a token from a keyed stream that
// starts with the digest of the value.
type tokenizer struct {
	mac    hash.Hash
	domain []byte
	keep   int
	stream []byte
	used   int
}

func (t *tokenizer) cells(dst, src *record.Vector, done twin, _ refuse) {
	for i, st := range src.State {
		if st != record.Present {
			dst.AppendMissing(st, 0)
			continue
		}
		if done.copy(dst, src, i, 0) {
			continue
		}
		dst.Data = t.token(dst.Data, src.Value(i))
		dst.State, dst.Offs = append(dst.State, record.Present), append(dst.Offs, int32(len(dst.Data)))
	}
}

func (t *tokenizer) token(dst, value []byte) []byte {
	t.mac.Reset()
	t.mac.Write(t.domain)
	t.mac.Write(value)
	t.stream, t.used = t.mac.Sum(t.stream[:0]), 0
	kept := t.keepFrom(value)
	for at := 0; at < len(value); {
		c, size := utf8.DecodeRune(value[at:])
		switch {
		case at >= kept:
			dst = append(dst, value[at:at+size]...)
		case c >= '0' && c <= '9':
			dst = append(dst, '0'+t.draw(10))
		case c >= 'A' && c <= 'Z' || unicode.IsUpper(c):
			dst = append(dst, 'A'+t.draw(26))
		case c >= utf8.RuneSelf || c >= 'a' && c <= 'z':
			dst = append(dst, 'a'+t.draw(26)) // anything beyond ASCII might be a letter
		case c < ' ' || c == utf8.RuneError:
			dst = append(dst, ' ')
		default:
			dst = append(dst, byte(c))
		}
		at += size
	}
	return dst
}

// keepFrom returns the offset from which value stays as it is. A value that
// would stay as a whole stays nowhere.
func (t *tokenizer) keepFrom(value []byte) int {
	if t.keep == 0 {
		return len(value)
	}
	end, n := len(value), 0
	for end > 0 && n < t.keep {
		c, size := utf8.DecodeLastRune(value[:end])
		if c == utf8.RuneError {
			break
		}
		end -= size
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			n++
		}
	}
	for _, c := range string(value[:end]) {
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			return end
		}
	}
	return len(value)
}

// draw returns a number below n; every number is as likely as the others.
func (t *tokenizer) draw(n byte) byte {
	limit := 255 / n * n
	for {
		if t.used == len(t.stream) {
			t.mac.Reset()
			t.mac.Write(t.stream)
			t.stream, t.used = t.mac.Sum(t.stream[:0]), 0
		}
		x := t.stream[t.used]
		t.used++
		if x < limit {
			return x % n
		}
	}
}

// pseudonymAlphabet has no letters that are taken for digits, and sorts as its values do.
var pseudonymAlphabet = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

func (b *builder) pseudonym(p *Pseudonym) {
	i := b.find("field", p.Field)
	key, ok := b.key(p.Key, false, keyBytes, "16 or more")
	if !ok || i < 0 || !b.free("suffix", b.cols[i].field.Name+p.Suffix, i) {
		return
	}
	f := b.cols[i].field
	domain, prefix := b.domainOf("pseudonym", p.Domain, p.Field), []byte(p.Prefix)
	out := record.Field{Name: f.Name + p.Suffix, Kind: record.Text, Nullable: f.Nullable, Key: f.Key}
	b.replace(i, out, perRun(func() kernel {
		mac, width := hmac.New(sha256.New, key), f.Kind.Width()
		var text, sum []byte
		return func(dst, src *record.Vector, done twin, no refuse) {
			for i, st := range src.State {
				if st != record.Present {
					dst.AppendMissing(st, 0)
					continue
				}
				if done.copy(dst, src, i, width) {
					continue
				}
				var ok bool
				if text, ok = AppendCanonical(text[:0], &f, src, i); !ok {
					no(i, "value_not_canonical", f.Name+": the value has no canonical text to name")
					dst.AppendMissing(record.Unsent, 0)
					continue
				}
				mac.Reset()
				mac.Write(domain)
				mac.Write(text)
				sum = mac.Sum(sum[:0])
				dst.Data = pseudonymAlphabet.AppendEncode(append(dst.Data, prefix...), sum[:16])
				dst.State, dst.Offs = append(dst.State, record.Present), append(dst.Offs, int32(len(dst.Data)))
			}
		}
	}))
}
