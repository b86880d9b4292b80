package keys

import (
	"errors"
	"fmt"
	"strings"
)

// Scheme says where a reference points to.
type Scheme string

// The schemes of references. Relative paths start at the configuration file's folder.
const (
	Env      Scheme = "env"     // an environment variable
	File     Scheme = "file"    // a file that is the key
	RingFile Scheme = "ring"    // a file that is a key ring
	AWSKMS   Scheme = "aws-kms" // a key ring of which AWS KMS has wrapped every key
	Vault    Scheme = "vault"   // a key ring of which the transit engine of Vault or OpenBao has wrapped every key
)

// IsRing reports whether a reference of scheme s points to the file of a ring.
func (s Scheme) IsRing() bool { return s == RingFile || s == AWSKMS || s == Vault }

// Ref names a key or a secret without holding it. It is comparable; the zero
// Ref names nothing.
type Ref struct {
	Scheme Scheme
	Name   string // the variable or the path
}

const wantRef = "want ${env:NAME}, ${file:path}, ${ring:path}, ${aws-kms:path} or ${vault:path}"

// ParseRef reads ${env:NAME}, ${file:path}, ${ring:path}, ${aws-kms:path} or
// ${vault:path}, with or without ${}. Its errors do not repeat s, which may be
// a secret written in the wrong place.
func ParseRef(s string) (Ref, error) {
	body, ok := strings.CutPrefix(s, "${")
	if ok {
		if body, ok = strings.CutSuffix(body, "}"); !ok {
			return Ref{}, errors.New("a reference is not closed; " + wantRef)
		}
	} else {
		body = s
	}
	scheme, name, ok := strings.Cut(body, ":")
	r := Ref{Scheme: Scheme(scheme), Name: name}
	if !ok || r.Scheme != Env && r.Scheme != File && !r.Scheme.IsRing() {
		return Ref{}, errors.New("not a reference; " + wantRef)
	}
	switch {
	case name == "":
		return Ref{}, errors.New("a reference names nothing; " + wantRef)
	case strings.ContainsAny(name, "${}\x00\n\r"):
		return Ref{}, errors.New("a reference holds a character that no name has; " + wantRef)
	case r.Scheme == Env && !isVariable(name):
		return Ref{}, fmt.Errorf("an environment variable is letters, digits and underscores; want ${env:NAME}")
	}
	return r, nil
}

func isVariable(s string) bool {
	for i, r := range s {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return true
}

// IsZero reports whether r names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// String returns the form that is written in configurations: ${env:NAME}.
func (r Ref) String() string {
	if r.IsZero() {
		return ""
	}
	return "${" + string(r.Scheme) + ":" + r.Name + "}"
}

// MarshalText writes the form of String.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what ParseRef reads.
func (r *Ref) UnmarshalText(b []byte) error {
	p, err := ParseRef(string(b))
	*r = p
	return err
}
