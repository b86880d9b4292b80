package keys

import (
	"fmt"
	"strings"
)

// Scheme says where a reference points to.
type Scheme string

// The schemes of references.
const (
	Env  Scheme = "env"  // an environment variable
	File Scheme = "file" // a file; relative paths start at the configuration file's folder
)

// Ref names a key or a secret without holding it. It is comparable; the zero
// Ref names nothing.
type Ref struct {
	Scheme Scheme
	Name   string // the variable or the path
}

// ParseRef reads ${env:NAME}, ${file:path}, env:NAME or file:path. Its errors
// do not repeat s, which may be a secret written in the wrong place.
func ParseRef(s string) (Ref, error) {
	body, ok := strings.CutPrefix(s, "${")
	if ok {
		if body, ok = strings.CutSuffix(body, "}"); !ok {
			return Ref{}, fmt.Errorf("a reference is not closed; want ${env:NAME} or ${file:path}")
		}
	} else {
		body = s
	}
	scheme, name, ok := strings.Cut(body, ":")
	if !ok || Scheme(scheme) != Env && Scheme(scheme) != File {
		return Ref{}, fmt.Errorf("not a reference; want ${env:NAME} or ${file:path}")
	}
	r := Ref{Scheme: Scheme(scheme), Name: name}
	switch {
	case name == "":
		return Ref{}, fmt.Errorf("a reference names nothing; want ${env:NAME} or ${file:path}")
	case strings.ContainsAny(name, "${}\x00\n\r"):
		return Ref{}, fmt.Errorf("a reference holds a character that no name has; want ${env:NAME} or ${file:path}")
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
