package mappers

import (
	"crypto/aes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
)

var errSealed = errors.New("not a ciphertext of this key and place")

// SealedKeyID returns the key id that a ciphertext names, false if it is none.
func SealedKeyID(sealed string) (string, bool) {
	parts := strings.Split(sealed, ".")
	if len(parts) != 4 || parts[0] != sealedVersion {
		return "", false
	}
	return parts[2], true
}

// DecryptLegacy opens a ciphertext of the methods aes-cbc and aes-ctr, and of
// aes-ecb, with which no rule encrypts. They are not authenticated: of a wrong
// key aes-ctr gives noise, and the others mostly an error.
func DecryptLegacy(method, sealed string, key []byte) ([]byte, error) {
	body, err := hex.DecodeString(sealed)
	if err != nil {
		return nil, errSealed
	}
	if method == methodECB {
		return openECB(body, key)
	}
	m, ok := encryptMethods[method]
	if !ok || m.tag != "" || !m.fits(len(key)) {
		return nil, errSealed
	}
	return m.box(key).open(body, nil)
}

// openECB opens AES-ECB with PKCS#5 padding.
func openECB(body, key []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil || len(body) == 0 || len(body)%16 != 0 {
		return nil, errSealed
	}
	plain := make([]byte, len(body))
	for i := 0; i < len(body); i += 16 {
		block.Decrypt(plain[i:i+16], body[i:i+16])
	}
	return unpad(plain)
}

// Opener finds the key with which a ciphertext opens.
type Opener interface {
	// Key returns the key with this id: a secret key, or for the rsa methods
	// the private key as PEM or DER; false if there is none.
	Key(id string) (key []byte, ok bool)
}

// Open opens a ciphertext of an encrypt rule with one of the keys of a ring,
// such as a *keys.Ring. domain is as for Decrypt.
func Open(sealed, domain string, ring Opener) ([]byte, error) {
	id, ok := SealedKeyID(sealed)
	if !ok {
		return nil, errSealed
	}
	key, ok := ring.Key(id)
	if !ok {
		return nil, errors.New("none of the keys has the id " + id)
	}
	return Decrypt(sealed, key, domain)
}

// Decrypt opens a ciphertext of an encrypt rule with its secret key, or, of the
// rsa methods, with the private key as PEM or DER. domain is that of the rule:
// source.schema.table.field where the rule names none, with the names that the
// field had at the rule. The error does not tell a wrong key from a wrong
// domain or a changed text.
func Decrypt(sealed string, key []byte, domain string) ([]byte, error) {
	parts := strings.Split(sealed, ".")
	if len(parts) != 4 || parts[0] != sealedVersion {
		return nil, errSealed
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[3])
	if err != nil {
		return nil, errSealed
	}
	bound := []byte(strings.Join(parts[:3], ".") + "." + domain)
	for _, m := range encryptMethods {
		switch {
		case m.tag == "" || m.tag != parts[1] || !m.fits(len(key)):
		case m.rsa:
			return openRSA(m.tag, parts[2], body, bound, key)
		case parts[2] == KeyID(key):
			return m.box(key).open(body, bound)
		}
	}
	return nil, errSealed
}
