package mappers

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
)

// minRSABits is the least modulus that is thought safe today.
const minRSABits = 2048

// parsePublic reads a public key: PEM, a certificate's key included, or DER in
// hexadecimal digits.
func parsePublic(text []byte) (*rsa.PublicKey, error) {
	der := text
	if block, _ := pem.Decode(text); block != nil {
		if block.Type != "PUBLIC KEY" && block.Type != "RSA PUBLIC KEY" {
			return nil, errors.New("want a PUBLIC KEY in PEM; a private key does not belong where data is only encrypted")
		}
		der = block.Bytes
	} else if raw, err := hex.DecodeString(string(text)); err == nil {
		der = raw
	}
	var public *rsa.PublicKey
	if k, err := x509.ParsePKIXPublicKey(der); err == nil {
		public, _ = k.(*rsa.PublicKey)
	} else if k, err := x509.ParsePKCS1PublicKey(der); err == nil {
		public = k
	}
	switch {
	case public == nil:
		return nil, errors.New("the key is no RSA public key in PEM or in hexadecimal DER")
	case public.Size()*8 < minRSABits:
		return nil, errors.New("the RSA key has fewer than 2048 bits")
	}
	return public, nil
}

// parsePrivate reads a private key in PEM or DER.
func parsePrivate(text []byte) (*rsa.PrivateKey, error) {
	der := text
	if block, _ := pem.Decode(text); block != nil {
		der = block.Bytes
	}
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if private, ok := k.(*rsa.PrivateKey); ok {
			return private, nil
		}
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	return nil, errSealed
}

// publicID names a public key in ciphertexts: four bytes of the digest of its DER.
func publicID(k *rsa.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		panic(stop("the RSA key cannot be named"))
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:4])
}

// RSAKeyID returns the name that ciphertexts carry of the pair that a private
// key, as PEM or DER, belongs to.
func RSAKeyID(private []byte) (string, error) {
	k, err := parsePrivate(private)
	if err != nil {
		return "", errors.New("the key is no RSA private key in PEM or DER")
	}
	return publicID(&k.PublicKey), nil
}

// rsaBox is RSA-OAEP with SHA-256; what a value is bound to is its label.
type rsaBox struct {
	key    *rsa.PublicKey
	random io.Reader
}

func newRSA(key []byte, random io.Reader) *rsaBox {
	public, err := parsePublic(key)
	if err != nil {
		panic(stop("the key is no RSA public key"))
	}
	return &rsaBox{key: public, random: random}
}

func (r *rsaBox) begin() {}

func (r *rsaBox) seal(dst, plain, bound []byte) ([]byte, bool) {
	if len(plain) > r.key.Size()-2*sha256.Size-2 {
		return dst, false
	}
	sealed, err := rsa.EncryptOAEP(sha256.New(), r.random, r.key, plain, bound)
	if err != nil {
		panic(stop("RSA-OAEP cannot encrypt"))
	}
	return append(dst, sealed...), true
}

func (r *rsaBox) open([]byte, []byte) ([]byte, error) { return nil, errSealed }

// hybrid makes a random AES-256 key for each batch and image, which RSA-OAEP
// wraps once. A ciphertext is the wrapped key, a nonce of 12 bytes that counts
// the values of the key, and AES-256-GCM.
type hybrid struct {
	rsa     *rsaBox
	aead    cipher.AEAD
	key     [32]byte
	wrapped []byte
	nonce   [12]byte
	count   uint64
}

func (h *hybrid) begin() {
	h.aead, h.wrapped, h.count = nil, nil, 0
	if _, err := io.ReadFull(h.rsa.random, h.key[:]); err != nil {
		panic(stop("there is no randomness to encrypt with"))
	}
}

func (h *hybrid) seal(dst, plain, bound []byte) ([]byte, bool) {
	if h.aead == nil {
		wrapped, ok := h.rsa.seal(nil, h.key[:], bound)
		aead, err := gcm(h.key[:])
		if !ok || err != nil {
			panic(stop("RSA-OAEP cannot wrap a key"))
		}
		h.aead, h.wrapped = aead, wrapped
	}
	binary.BigEndian.PutUint64(h.nonce[4:], h.count)
	h.count++
	dst = append(append(dst, h.wrapped...), h.nonce[:]...)
	return h.aead.Seal(dst, h.nonce[:], plain, bound), true
}

func (h *hybrid) open([]byte, []byte) ([]byte, error) { return nil, errSealed }

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// openRSA opens what rsaBox and hybrid have sealed.
func openRSA(tag, id string, body, bound, private []byte) ([]byte, error) {
	k, err := parsePrivate(private)
	if err != nil || publicID(&k.PublicKey) != id || len(body) < k.Size() {
		return nil, errSealed
	}
	plain, err := rsa.DecryptOAEP(sha256.New(), nil, k, body[:k.Size()], bound)
	if err != nil {
		return nil, errSealed
	}
	rest := body[k.Size():]
	if tag == encryptMethods[methodRSA].tag {
		if len(rest) > 0 {
			return nil, errSealed
		}
		return plain, nil
	}
	aead, err := gcm(plain)
	if err != nil || len(rest) < 12 {
		return nil, errSealed
	}
	if plain, err = aead.Open(nil, rest[:12], rest[12:], bound); err != nil {
		return nil, errSealed
	}
	return plain, nil
}
