package config

import (
	"errors"
	"log/slog"
	"net/url"
	"strings"
)

// Secret is a password, a key or an address that may hold one. The file has
// it only as a reference; every printed form of it is that reference.
type Secret struct {
	text  string
	value string
}

// String returns what the file has: ${env:NAME}.
func (s Secret) String() string { return s.text }

// GoString returns what String returns.
func (s Secret) GoString() string { return "config.Secret(" + s.text + ")" }

// MarshalText returns what String returns; it also serves JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.text), nil }

// LogValue returns what String returns.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.text) }

// IsZero reports whether the file has no such setting.
func (s Secret) IsZero() bool { return s.text == "" }

// Value returns the secret itself, "" before File.Resolve.
func (s Secret) Value() string { return s.value }

// errPlainSecret never repeats what it speaks of.
var errPlainSecret = errors.New("a secret does not belong into this file; put it into an environment variable or a file and write ${env:NAME} or ${file:path}")

// checkSecret checks the text of a Secret in the file. address says that it is
// an address: one without a password may be written as it is, and references
// may be parts of it.
func checkSecret(text string, address bool) error {
	refs, err := references(text)
	if err != nil {
		return err
	}
	if len(refs) == 1 && refs[0].whole(text) {
		return nil
	}
	if !address {
		return errPlainSecret
	}
	// A reference in the place of the password is what we want to see there.
	const mark = "sluice-reference"
	plain := expand(text, refs, func(string) string { return mark })
	if hasPassword(plain, mark) {
		return errPlainSecret
	}
	return nil
}

// hasPassword reports whether an address, as URL or as key=value words, holds
// a password other than mark. What cannot be understood counts as one.
func hasPassword(address, mark string) bool {
	if !strings.Contains(address, "://") {
		for _, word := range strings.Fields(address) {
			key, value, ok := strings.Cut(word, "=")
			if !ok && !localAddress(word) || secretWord(key) && strings.Trim(value, "'") != mark {
				return true
			}
		}
		return false
	}
	u, err := url.Parse(address)
	if err != nil {
		return true
	}
	if password, ok := u.User.Password(); ok && password != mark {
		return true
	}
	for key, values := range u.Query() {
		for _, v := range values {
			if secretWord(key) && v != mark {
				return true
			}
		}
	}
	return false
}

// localAddress reports whether word is like sqlite:data/catalog.db.
func localAddress(word string) bool {
	scheme, path, ok := strings.Cut(word, ":")
	return ok && scheme != "" && path != "" && !strings.ContainsAny(word, "@?")
}

func secretWord(key string) bool {
	key = strings.ToLower(key)
	for _, w := range []string{"password", "passwd", "secret", "token", "api_key", "apikey"} {
		if strings.Contains(key, w) {
			return true
		}
	}
	return false
}
