package mappers

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"slices"
	"strings"

	"github.com/sluice-data/sluice/record"
)

// minHashDigits keeps 128 bits: with fewer, a few billion values would collide.
const minHashDigits = 32

// minKeyBytes is the least key of an HMAC that cannot be guessed.
const minKeyBytes = 16

type hashMethod struct {
	name   string
	digits int // hexadecimal digits of the digest
	keyed  bool
	new    func() hash.Hash
}

// hashMethods are found by methodName, so that sha256, SHA-256 and sha-256 are one.
var hashMethods = map[string]hashMethod{
	"hmacsha256": {"hmac-sha256", 64, true, sha256.New},
	"hmacsha512": {"hmac-sha512", 128, true, sha512.New},
	"sha256":     {"sha256", 64, false, sha256.New},
	"sha512":     {"sha512", 128, false, sha512.New},
	"sha384":     {"sha384", 96, false, sha512.New384},
	"sha224":     {"sha224", 56, false, sha256.New224},
	"sha1":       {"sha1", 40, false, sha1.New},
	"md5":        {"md5", 32, false, md5.New},
	"md2":        {"md2", 32, false, newMD2},
}

func methodName(m string) string {
	if m == "" {
		return "hmacsha256"
	}
	return strings.ReplaceAll(strings.ToLower(m), "-", "")
}

func sortedMethods() []string {
	var names []string
	for _, m := range hashMethods {
		names = append(names, m.name)
	}
	slices.Sort(names)
	return names
}

func (b *builder) hash(h *Hash) {
	i := b.find("field", h.Field)
	m := hashMethods[methodName(h.Method)]
	var key []byte
	if m.keyed {
		k, ok := b.key(h.Key, false, func(n int) bool { return n >= minKeyBytes }, "16 or more")
		if !ok {
			return
		}
		key = k
	}
	if i < 0 || !b.free("suffix", b.cols[i].field.Name+h.Suffix, i) {
		return
	}
	f := b.cols[i].field
	normal := normalizers[h.Normalize]
	if normal != nil && f.Kind != record.Text && f.Kind != record.Enum {
		b.fail("normalize", f.Name, CodeType, "normalize works on text, %s is %s", f.Name, f.Kind)
		return
	}
	if normal != nil && f.Key > 0 {
		b.fail("normalize", f.Name, CodeKeyField, "%s is part of the key, and normalizing would give different keys the same value", f.Name)
		return
	}
	digits := m.digits
	if h.Length > 0 {
		digits = h.Length
	}
	in := f
	out := record.Field{Name: f.Name + h.Suffix, Kind: record.Text, Nullable: f.Nullable, Key: f.Key}
	start := func() *digester {
		d := &digester{field: &in, normal: normal, salt: []byte(h.Salt), digits: digits}
		if m.keyed {
			d.state = hmac.New(m.new, key)
		} else {
			d.state = m.new()
		}
		return d
	}
	if h.SaltField != "" {
		b.saltedHash(h, i, out, start)
		return
	}
	b.replace(i, out, perRun(func() kernel { return start().cells }))
}

// saltedHash puts the canonical text of another field before the value.
func (b *builder) saltedHash(h *Hash, i int, out record.Field, start func() *digester) {
	if b.lone {
		b.fail("salt_field", h.SaltField, CodeRule, "a value inside a document or list has no field beside it; use salt")
		return
	}
	s := b.find("salt_field", h.SaltField)
	switch {
	case s < 0:
		return
	case s == i:
		b.fail("salt_field", h.SaltField, CodeRule, "a field is no salt for itself")
		return
	case out.Key > 0 && b.cols[s].field.Key == 0:
		b.fail("salt_field", h.SaltField, CodeKeyField, "%s is part of the key, but its salt %s is not: a change of %s would make it another row", out.Name, h.SaltField, h.SaltField)
		return
	}
	in := []column{b.cols[i], b.cols[s]}
	b.combineInto(i, in, out, func() cellFunc {
		d := start()
		return func(dst *record.Vector, vs []*record.Vector, row int) bool {
			if vs[0].State[row] == record.Null {
				dst.AppendMissing(record.Null, 0)
				return true
			}
			var ok bool
			if vs[1].State[row] != record.Present {
				return false // without its salt the digest would be that of nobody
			}
			if d.saltText, ok = AppendCanonical(d.saltText[:0], &in[1].field, vs[1], row); !ok {
				return false
			}
			d.saltText = append(d.saltText, 0)
			return d.cell(dst, vs[0], row)
		}
	})
}

// digester hashes the cells of one column; it keeps the digest state and its
// buffers, so that no row allocates.
type digester struct {
	field    *record.Field
	normal   func(dst, value []byte) ([]byte, bool)
	salt     []byte
	saltText []byte // of the salt field of the row at work
	digits   int
	state    hash.Hash
	text     []byte
	sum      []byte
}

func (d *digester) cells(dst, src *record.Vector, done twin, no refuse) {
	width := d.field.Kind.Width()
	for i, st := range src.State {
		if st != record.Present {
			dst.AppendMissing(st, 0)
			continue
		}
		if done.copy(dst, src, i, width) {
			continue
		}
		if !d.cell(dst, src, i) {
			no(i, "value_not_canonical", d.field.Name+": the value has no canonical text to hash")
			dst.AppendMissing(record.Unsent, 0)
		}
	}
}

// cell appends the digest of row i, which is Present; false, with nothing
// appended, if the value has no text.
func (d *digester) cell(dst, src *record.Vector, i int) bool {
	var value []byte
	ok := true
	switch {
	case d.normal != nil:
		d.text, ok = d.normal(d.text[:0], src.Value(i))
		value = d.text
	case isText(d.field.Kind):
		value = src.Value(i)
	default:
		d.text, ok = AppendCanonical(d.text[:0], d.field, src, i)
		value = d.text
	}
	if !ok {
		return false
	}
	d.state.Reset()
	if len(d.saltText) > 0 {
		d.state.Write(d.saltText)
	}
	if len(d.salt) > 0 {
		d.state.Write(d.salt)
	}
	d.state.Write(value)
	d.sum = d.state.Sum(d.sum[:0])
	dst.State = append(dst.State, record.Present)
	end := len(dst.Data) + d.digits
	dst.Data = hex.AppendEncode(dst.Data, d.sum)[:end]
	dst.Offs = append(dst.Offs, int32(end))
	return true
}

// normalizers bring a text into the one spelling that is hashed; false = the
// text is not what the normalizer is for.
var normalizers = map[string]func(dst, value []byte) ([]byte, bool){
	"":             nil,
	"none":         nil,
	"trim-lower":   trimLower,
	"email":        trimLower,
	"email-google": googleEmail,
	"phone":        phoneE164,
}
