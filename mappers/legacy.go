package mappers

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"io"
)

// legacyAES writes what Airbyte's encryption mapper writes: the hexadecimal
// digits of a random 16-byte IV and the ciphertext of AES-CBC with PKCS#5
// padding or of AES-CTR. Nothing in it names the key or shows a change: it is
// here for readers that expect it.
type legacyAES struct {
	block  cipher.Block
	random io.Reader
	ctr    bool
	ivs    [16 * 128]byte // randomness for the next values: reading it one by one is slow
	used   int
	stream [16]byte
}

func newLegacyAES(key []byte, random io.Reader, ctr bool) *legacyAES {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(stop("the key does not fit the cipher"))
	}
	return &legacyAES{block: block, random: random, ctr: ctr, used: 16 * 128}
}

func (l *legacyAES) begin() {}

// iv returns 16 random bytes that were never used before.
func (l *legacyAES) iv() []byte {
	if l.used == len(l.ivs) {
		if _, err := io.ReadFull(l.random, l.ivs[:]); err != nil {
			panic(stop("there is no randomness to encrypt with"))
		}
		l.used = 0
	}
	l.used += 16
	return l.ivs[l.used-16 : l.used]
}

func (l *legacyAES) seal(dst, plain, _ []byte) ([]byte, bool) {
	iv := l.iv()
	dst = append(dst, iv...)
	start := len(dst)
	dst = append(dst, plain...)
	if l.ctr {
		l.count(dst[start:], iv)
		return dst, true
	}
	n := 16 - len(plain)%16
	for range n {
		dst = append(dst, byte(n))
	}
	for b := dst[start:]; len(b) > 0; b = b[16:] {
		subtle.XORBytes(b, b[:16], iv)
		l.block.Encrypt(b[:16], b[:16])
		iv = b[:16]
	}
	return dst, true
}

// count encrypts or decrypts data in place with the key stream that starts at
// iv, which it changes: it is used up.
func (l *legacyAES) count(data, iv []byte) {
	for len(data) > 0 {
		l.block.Encrypt(l.stream[:], iv)
		data = data[subtle.XORBytes(data, data, l.stream[:min(16, len(data))]):]
		for i := 15; i >= 0; i-- {
			if iv[i]++; iv[i] != 0 {
				break
			}
		}
	}
}

func (l *legacyAES) open(sealed, _ []byte) ([]byte, error) {
	if len(sealed) < 16 {
		return nil, errSealed
	}
	iv, plain := bytes.Clone(sealed[:16]), bytes.Clone(sealed[16:])
	if l.ctr {
		l.count(plain, iv)
		return plain, nil
	}
	if len(plain) == 0 || len(plain)%16 != 0 {
		return nil, errSealed
	}
	cipher.NewCBCDecrypter(l.block, iv).CryptBlocks(plain, plain)
	return unpad(plain)
}

// unpad removes the padding of PKCS#5.
func unpad(plain []byte) ([]byte, error) {
	n := int(plain[len(plain)-1])
	if n == 0 || n > 16 || !bytes.Equal(plain[len(plain)-n:], bytes.Repeat([]byte{byte(n)}, n)) {
		return nil, errSealed
	}
	return plain[:len(plain)-n], nil
}
