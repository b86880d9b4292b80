package mappers

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"io"

	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/record"
)

// The methods of Encrypt and how their ciphertexts name them.
const (
	methodGCM = "aes-gcm" // XAES-256-GCM: 192-bit random nonces, so that one key serves any number of values
	methodSIV = "aes-siv" // AES-SIV (RFC 5297): equal values have equal ciphertexts
	methodCBC = "aes-cbc" // for readers of Airbyte's encryption mapper, as is
	methodCTR = "aes-ctr"
	methodECB = "aes-ecb" // opened only: equal blocks of values show as equal blocks of ciphertext

	methodRSA    = "rsa-oaep"   // RSA-OAEP with SHA-256: who writes cannot read
	methodHybrid = "rsa-hybrid" // RSA-OAEP wraps a key per batch, which encrypts with AES-256-GCM
)

type encryptMethod struct {
	tag  string // "" = its ciphertexts name nothing
	fits func(bytes int) bool
	want string
	same bool // equal values have equal ciphertexts
	box  func(key []byte) box
	rsa  bool // key is a public key
}

var encryptMethods = map[string]encryptMethod{
	methodGCM: {"xgcm", func(n int) bool { return n == 32 }, "32", false,
		func(key []byte) box { return &xaes{key: key, random: rand.Reader} }, false},
	methodSIV: {"siv", func(n int) bool { return n == 32 || n == 48 || n == 64 }, "32, 48 or 64", true,
		func(key []byte) box { return newSIV(key) }, false},
	methodCBC:    {"", aesKey, "16, 24 or 32", false, func(key []byte) box { return newLegacyAES(key, rand.Reader, false) }, false},
	methodCTR:    {"", aesKey, "16, 24 or 32", false, func(key []byte) box { return newLegacyAES(key, rand.Reader, true) }, false},
	methodRSA:    {"rsa", anySize, "a public key", false, func(key []byte) box { return newRSA(key, rand.Reader) }, true},
	methodHybrid: {"rsah", anySize, "a public key", false, func(key []byte) box { return &hybrid{rsa: newRSA(key, rand.Reader)} }, true},
}

func anySize(int) bool { return true }

func aesKey(bytes int) bool { return bytes == 16 || bytes == 24 || bytes == 32 }

// sealedVersion starts every ciphertext: sl1.method.key-id.base64url.
const sealedVersion = "sl1"

// KeyID returns the short public name of a secret key that ciphertexts carry.
func KeyID(key []byte) string { return keys.ID(key) }

func (b *builder) encrypt(e *Encrypt) {
	i := b.find("field", e.Field)
	name := e.Method
	if name == "" {
		name = methodGCM
	}
	m := encryptMethods[name]
	key, ok := b.key(e.Key, !m.same, m.fits, m.want)
	if !ok || i < 0 || !b.free("suffix", b.cols[i].field.Name+e.Suffix, i) {
		return
	}
	id := ""
	if m.rsa {
		public, err := parsePublic(key)
		if err != nil {
			b.fail("key", "", CodeSecret, "%v", err)
			return
		}
		id = publicID(public)
	} else {
		id = KeyID(key)
	}
	f := b.cols[i].field
	if f.Key > 0 && !m.same {
		b.fail("field", f.Name, CodeKeyField, "%s is part of the key, and %s gives it another value every time; use aes-siv or hash", f.Name, name)
		return
	}
	domain := e.Domain
	if domain == "" {
		domain = b.stream + "." + e.Field
	}
	head := ""
	if m.tag != "" {
		head = sealedVersion + "." + m.tag + "." + id + "."
	}
	in := f
	out := record.Field{Name: f.Name + e.Suffix, Kind: record.Text, Nullable: f.Nullable, Key: f.Key}
	if e.Per != "" {
		b.encryptPer(e, m, i, out, domain)
		return
	}
	b.replace(i, out, perRun(func() kernel {
		s := &sealer{field: &in, head: []byte(head), bound: []byte(head + domain), same: m.same, box: m.box(key)}
		return s.cells
	}))
}

// box is an authenticated cipher. begin is called once per batch and image.
type box interface {
	begin()
	// seal appends the ciphertext of plain; false if plain is too long for it.
	seal(dst, plain, bound []byte) ([]byte, bool)
	open(sealed, bound []byte) ([]byte, error)
}

// sealer encrypts the canonical text of the cells of one column. The
// ciphertext is bound to its method, key and domain: moved to another field it
// does not open.
type sealer struct {
	field       *record.Field
	head, bound []byte
	box         box
	same        bool // equal values have equal ciphertexts
	text        []byte
	sealed      []byte
}

func (s *sealer) cells(dst, src *record.Vector, done twin, no refuse) {
	s.box.begin()
	for i, st := range src.State {
		if st != record.Present {
			dst.AppendMissing(st, 0)
			continue
		}
		if s.same && done.copy(dst, src, i, s.field.Kind.Width()) {
			continue
		}
		var ok bool
		if s.text, ok = AppendCanonical(s.text[:0], s.field, src, i); !ok {
			no(i, "value_not_canonical", s.field.Name+": the value has no canonical text to encrypt")
			dst.AppendMissing(record.Unsent, 0)
			continue
		}
		if s.sealed, ok = s.box.seal(s.sealed[:0], s.text, s.bound); !ok {
			no(i, "value_too_long", s.field.Name+": the value is longer than rsa-oaep encrypts with this key; use rsa-hybrid")
			dst.AppendMissing(record.Unsent, 0)
			continue
		}
		if len(s.head) == 0 {
			dst.Data = hex.AppendEncode(dst.Data, s.sealed)
		} else {
			dst.Data = base64.RawURLEncoding.AppendEncode(append(dst.Data, s.head...), s.sealed)
		}
		dst.State, dst.Offs = append(dst.State, record.Present), append(dst.Offs, int32(len(dst.Data)))
	}
}

// xaes is XAES-256-GCM (c2sp.org/XAES-256-GCM): the first half of a nonce of
// 24 bytes derives the key under which the second half is the nonce of
// AES-256-GCM. Here 20 bytes are random per batch and 4 count its values, so
// that the derivation is done once per batch.
type xaes struct {
	key    []byte
	random io.Reader
	nonce  [24]byte
	count  uint32
	aead   cipher.AEAD
}

func (x *xaes) begin() {
	if _, err := io.ReadFull(x.random, x.nonce[:20]); err != nil {
		panic(stop("there is no randomness to encrypt with"))
	}
	x.count = 0
	x.aead = x.derive(x.nonce[:12])
}

func (x *xaes) derive(salt []byte) cipher.AEAD {
	block, err := aes.NewCipher(x.key)
	if err != nil {
		panic(stop("the key does not fit the cipher"))
	}
	var k1 [16]byte
	block.Encrypt(k1[:], k1[:])
	double(&k1)
	var derived [32]byte
	for half := range 2 {
		m := derived[16*half : 16*half+16]
		m[1], m[2] = byte(half+1), 'X'
		copy(m[4:], salt)
		subtle.XORBytes(m, m, k1[:])
		block.Encrypt(m, m)
	}
	inner, err := aes.NewCipher(derived[:])
	if err != nil {
		panic(stop("the key does not fit the cipher"))
	}
	aead, err := cipher.NewGCM(inner)
	if err != nil {
		panic(stop("the key does not fit the cipher"))
	}
	return aead
}

func (x *xaes) seal(dst, plain, bound []byte) ([]byte, bool) {
	binary.BigEndian.PutUint32(x.nonce[20:], x.count)
	if x.count++; x.count == 0 {
		panic(stop("a batch has too many rows for one nonce"))
	}
	dst = append(dst, x.nonce[:]...)
	return x.aead.Seal(dst, x.nonce[12:], plain, bound), true
}

func (x *xaes) open(sealed, bound []byte) ([]byte, error) {
	if len(sealed) < 24+16 {
		return nil, errSealed
	}
	plain, err := x.derive(sealed[:12]).Open(nil, sealed[12:24], sealed[24:], bound)
	if err != nil {
		return nil, errSealed
	}
	return plain, nil
}

// siv is AES-SIV of RFC 5297 with one piece of associated data.
type siv struct {
	mac, ctr cipher.Block
	k1, k2   [16]byte // the CMAC subkeys
	zero     [16]byte // the CMAC of a block of zeros
	last     []byte
	// Scratch of the ciphers, kept here so that no value allocates.
	d, v, counter, stream [16]byte
}

func newSIV(key []byte) *siv {
	s := &siv{}
	var err1, err2 error
	s.mac, err1 = aes.NewCipher(key[:len(key)/2])
	s.ctr, err2 = aes.NewCipher(key[len(key)/2:])
	if err1 != nil || err2 != nil {
		panic(stop("the key does not fit the cipher"))
	}
	s.mac.Encrypt(s.k1[:], s.k1[:])
	double(&s.k1)
	s.k2 = s.k1
	double(&s.k2)
	s.cmac(&s.zero, make([]byte, 16))
	return s
}

func (s *siv) begin() {}

// double multiplies by x in the field of CMAC and SIV.
func double(b *[16]byte) {
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	carry := hi >> 63
	hi, lo = hi<<1|lo>>63, lo<<1^carry*0x87
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
}

// cmac writes the CMAC of m.
func (s *siv) cmac(out *[16]byte, m []byte) {
	clear(out[:])
	for len(m) > 16 {
		subtle.XORBytes(out[:], out[:], m[:16])
		s.mac.Encrypt(out[:], out[:])
		m = m[16:]
	}
	subtle.XORBytes(out[:], out[:], m)
	if len(m) == 16 {
		subtle.XORBytes(out[:], out[:], s.k1[:])
	} else {
		out[len(m)] ^= 0x80
		subtle.XORBytes(out[:], out[:], s.k2[:])
	}
	s.mac.Encrypt(out[:], out[:])
}

// s2v writes the synthetic nonce of plain and bound to s.v.
func (s *siv) s2v(plain, bound []byte) {
	s.d = s.zero
	double(&s.d)
	s.cmac(&s.v, bound)
	subtle.XORBytes(s.d[:], s.d[:], s.v[:])
	s.last = append(s.last[:0], plain...)
	if len(plain) >= 16 {
		end := s.last[len(plain)-16:]
		subtle.XORBytes(end, end, s.d[:])
	} else {
		double(&s.d)
		s.last = append(s.last, 0x80)
		for len(s.last) < 16 {
			s.last = append(s.last, 0)
		}
		subtle.XORBytes(s.last, s.last, s.d[:])
	}
	s.cmac(&s.v, s.last)
}

// xor encrypts or decrypts data in place with the key stream of s.v.
func (s *siv) xor(data []byte) {
	s.counter = s.v
	s.counter[8] &= 0x7f
	s.counter[12] &= 0x7f
	for len(data) > 0 {
		s.ctr.Encrypt(s.stream[:], s.counter[:])
		n := subtle.XORBytes(data, data, s.stream[:min(16, len(data))])
		data = data[n:]
		for i := 15; i >= 0; i-- {
			if s.counter[i]++; s.counter[i] != 0 {
				break
			}
		}
	}
}

func (s *siv) seal(dst, plain, bound []byte) ([]byte, bool) {
	s.s2v(plain, bound)
	dst = append(dst, s.v[:]...)
	start := len(dst)
	dst = append(dst, plain...)
	s.xor(dst[start:])
	return dst, true
}

func (s *siv) open(sealed, bound []byte) ([]byte, error) {
	if len(sealed) < 16 {
		return nil, errSealed
	}
	var want [16]byte
	copy(want[:], sealed)
	s.v = want
	plain := append([]byte{}, sealed[16:]...)
	s.xor(plain)
	s.s2v(plain, bound)
	if subtle.ConstantTimeCompare(s.v[:], want[:]) != 1 {
		return nil, errSealed
	}
	return plain, nil
}
