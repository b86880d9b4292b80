package keys

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// RingBytes is the size of the keys that a ring makes: what HMAC-SHA-256,
// AES-256-GCM and AES-SIV with two halves of 128 bits want.
const RingBytes = 32

// maxVersions bounds a ring; a key that is changed every day fills it in two years.
const maxVersions = 1000

// State says what a version of a ring may still be used for.
type State string

// The states of a version.
const (
	Enabled  State = "enabled"  // protects and opens
	Disabled State = "disabled" // does nothing, but can be enabled again
)

// Version is one key of a ring. Its value is reached only through Value.
type Version struct {
	ID      string    // the short public name that ciphertexts carry, see ID
	Created time.Time // zero for the single key of a variable or a file
	State   State
	Wrap    Wrap // who has wrapped it; zero = nobody

	value   []byte // nil while it is not unwrapped
	wrapped []byte // what the wrapper made of value
}

// Value returns a copy of the key; nil of a version that is not unwrapped.
func (v Version) Value() []byte { return slices.Clone(v.value) }

// String keeps the key out of every print.
func (v Version) String() string { return "keys.Version(" + v.ID + ")" }

// GoString keeps the key out of every print.
func (v Version) GoString() string { return v.String() }

// Ring is one key over time: several versions of which one, the primary, seals
// what is new, while all that are enabled open what is old. It is immutable.
//
// Rules whose equal inputs must have equal results for ever, hash and aes-siv,
// use the stable version instead: a rotation does not move it, because every
// joined or key column would change with it; what is written already has to be read again when it moves.
type Ring struct {
	versions        []Version // oldest first
	primary, stable int
}

// ID returns the short public name of a key, which says nothing about it.
func ID(key []byte) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("sluice key id"))
	return hex.EncodeToString(m.Sum(nil)[:4])
}

// Single returns the ring that has only key.
func Single(key []byte) *Ring {
	return &Ring{versions: []Version{{ID: ID(key), State: Enabled, value: slices.Clone(key)}}}
}

// NewRing makes a ring with one random key, which wrap, if not zero, wraps.
func NewRing(ctx context.Context, now time.Time, wrap Wrap, s Services) (*Ring, error) {
	return (&Ring{primary: -1, stable: -1}).grow(ctx, now, wrap, s)
}

// Rotate returns r with a new primary, wrapped as the last one. The stable
// version follows only if stable is set.
func (r *Ring) Rotate(ctx context.Context, now time.Time, stable bool, s Services) (*Ring, error) {
	n, err := r.grow(ctx, now, r.Primary().Wrap, s)
	if err == nil && stable {
		n.stable = n.primary
	}
	return n, err
}

func (r *Ring) grow(ctx context.Context, now time.Time, wrap Wrap, s Services) (*Ring, error) {
	if len(r.versions) >= maxVersions {
		return nil, fmt.Errorf("rotate: the ring has %d versions, which is the most", maxVersions)
	}
	for range 8 { // a key whose id is there already is thrown away
		v := Version{Created: now.UTC().Truncate(time.Second), State: Enabled, Wrap: wrap}
		if wrap.IsZero() {
			v.value = make([]byte, RingBytes)
			if _, err := io.ReadFull(rand.Reader, v.value); err != nil {
				return nil, fmt.Errorf("make a key: %w", err)
			}
		} else {
			service, err := s.of(wrap)
			if err != nil {
				return nil, err
			}
			if v.value, v.wrapped, err = service.Generate(ctx, wrap.Key); err != nil {
				return nil, fmt.Errorf("make a key: %w", err)
			}
		}
		if v.ID = ID(v.value); r.index(v.ID) >= 0 {
			continue
		}
		n := &Ring{versions: append(slices.Clone(r.versions), v), stable: max(r.stable, 0)}
		n.primary = len(n.versions) - 1
		return n, nil
	}
	return nil, errors.New("make a key: every try had the id of an older one")
}

// Rewrap returns r with every enabled version wrapped anew for wrap; a zero
// wrap takes all wraps off. Ids and values stay.
func (r *Ring) Rewrap(ctx context.Context, wrap Wrap, s Services) (*Ring, error) {
	n := *r
	n.versions = slices.Clone(r.versions)
	for i := range n.versions {
		v := &n.versions[i]
		if v.value == nil {
			return nil, fmt.Errorf("version %s is disabled and not open; enable it first", v.ID)
		}
		v.Wrap, v.wrapped = wrap, nil
		if wrap.IsZero() {
			continue
		}
		service, err := s.of(wrap)
		if err != nil {
			return nil, err
		}
		if v.wrapped, err = service.Wrap(ctx, wrap.Key, v.value); err != nil {
			return nil, fmt.Errorf("wrap version %s: %w", v.ID, err)
		}
	}
	return &n, nil
}

// SetState returns r with the version of this id in state s. The primary and
// the stable version cannot be disabled.
func (r *Ring) SetState(id string, s State) (*Ring, error) {
	i := r.index(id)
	switch {
	case i < 0:
		return nil, fmt.Errorf("the ring has no version %s", id)
	case s == Disabled && i == r.primary:
		return nil, fmt.Errorf("version %s is the primary; rotate first", id)
	case s == Disabled && i == r.stable:
		return nil, fmt.Errorf("version %s is the one that hash and aes-siv rules use; rotate with --stable first", id)
	}
	n := *r
	n.versions = slices.Clone(r.versions)
	n.versions[i].State = s
	return &n, nil
}

// Primary returns the version that seals new values.
func (r *Ring) Primary() Version { return r.versions[r.primary] }

// Stable returns the version of rules whose equal inputs have equal results.
func (r *Ring) Stable() Version { return r.versions[r.stable] }

// Key returns a copy of the key with this id, false if the ring has none that
// is enabled.
func (r *Ring) Key(id string) ([]byte, bool) {
	i := r.index(id)
	if i < 0 || r.versions[i].State != Enabled || r.versions[i].value == nil {
		return nil, false
	}
	return r.versions[i].Value(), true
}

// Versions returns all versions, oldest first.
func (r *Ring) Versions() []Version { return slices.Clone(r.versions) }

func (r *Ring) index(id string) int {
	return slices.IndexFunc(r.versions, func(v Version) bool { return v.ID == id })
}

// String keeps the keys out of every print.
func (r *Ring) String() string { return fmt.Sprintf("keys.Ring(%d versions)", len(r.versions)) }

// GoString keeps the keys out of every print.
func (r *Ring) GoString() string { return r.String() }

// ringFile is the form of a ring in a file.
type ringFile struct {
	Format  string        `json:"format"`
	Primary string        `json:"primary"`
	Stable  string        `json:"stable"`
	Keys    []versionFile `json:"keys"`
}

type versionFile struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	State   State     `json:"state"`
	Wrap    string    `json:"wrapped_by,omitempty"` // aws-kms:KEY or vault:MOUNT/KEY
	Key     string    `json:"key"`                  // base64 of the key, or of what the wrapper made of it
}

// ringFormat is the first member of a ring's file.
const ringFormat = "sluice-keyring-1"

// Wrap names who has wrapped a key.
type Wrap struct {
	By  Scheme // AWSKMS or Vault; "" = nobody
	Key string // the wrapping key: an id, alias or ARN; mount/name of a transit key
}

// IsZero reports whether nobody has wrapped the key.
func (w Wrap) IsZero() bool { return w == Wrap{} }

// String returns the form in ring files: aws-kms:alias/sluice.
func (w Wrap) String() string {
	if w.IsZero() {
		return ""
	}
	return string(w.By) + ":" + w.Key
}

// ParseWrap reads what String writes.
func ParseWrap(s string) (Wrap, error) {
	if s == "" {
		return Wrap{}, nil
	}
	by, key, ok := strings.Cut(s, ":")
	w := Wrap{By: Scheme(by), Key: key}
	if !ok || w.By != AWSKMS && w.By != Vault || key == "" || strings.ContainsAny(key, " \t\r\n?#%") || strings.Contains(key, "..") {
		return Wrap{}, errors.New("want aws-kms:KEY or vault:MOUNT/KEY")
	}
	return w, nil
}

// ParseRing reads the text of a ring's file. Wrapped keys are opened by s; of
// a disabled version the key is not needed. Errors hold no key.
func ParseRing(ctx context.Context, text []byte, s Services) (*Ring, error) {
	var f ringFile
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, errors.New("not a key ring; `sluice keys new` makes one") // the parser's error quotes the text
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the key ring")
	}
	switch {
	case f.Format != ringFormat:
		return nil, fmt.Errorf("not a key ring of format %s", ringFormat)
	case len(f.Keys) == 0 || len(f.Keys) > maxVersions:
		return nil, fmt.Errorf("the ring has %d versions; want 1 to %d", len(f.Keys), maxVersions)
	}
	r := &Ring{}
	for i := range f.Keys {
		v, err := parseVersion(ctx, &f.Keys[i], s)
		if err != nil {
			return nil, fmt.Errorf("version %d: %w", i+1, err)
		}
		if r.index(v.ID) >= 0 {
			return nil, fmt.Errorf("version %d: the ring has id %s twice", i+1, v.ID)
		}
		r.versions = append(r.versions, v)
	}
	r.primary, r.stable = r.index(f.Primary), r.index(f.Stable)
	for name, i := range map[string]int{"primary": r.primary, "stable": r.stable} {
		if i < 0 || r.versions[i].State != Enabled {
			return nil, fmt.Errorf("its %s version is not there or not enabled", name)
		}
	}
	return r, nil
}

func parseVersion(ctx context.Context, f *versionFile, s Services) (Version, error) {
	v := Version{ID: f.ID, Created: f.Created, State: f.State}
	if f.State != Enabled && f.State != Disabled {
		return v, fmt.Errorf("want state enabled or disabled")
	}
	if raw, err := hex.DecodeString(f.ID); err != nil || len(raw) != 4 || strings.ToLower(f.ID) != f.ID {
		return v, fmt.Errorf("want an id of eight hexadecimal digits")
	}
	var err error
	if v.Wrap, err = ParseWrap(f.Wrap); err != nil {
		return v, fmt.Errorf("wrapped_by: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(f.Key)
	if err != nil || len(key) == 0 {
		return v, errors.New("key is no base64")
	}
	if !v.Wrap.IsZero() {
		v.wrapped = key
		if f.State == Disabled {
			return v, nil
		}
		service, err := s.of(v.Wrap)
		if err != nil {
			return v, err
		}
		if key, err = service.Unwrap(ctx, v.Wrap.Key, key); err != nil {
			return v, err
		}
	}
	if ID(key) != f.ID {
		return v, fmt.Errorf("the key does not belong to id %s; the file was changed or mixed up", f.ID)
	}
	v.value = key
	return v, nil
}

// Marshal writes r as a ring's file. A file with a version that nobody has
// wrapped is itself the secret.
func (r *Ring) Marshal() ([]byte, error) {
	f := ringFile{Format: ringFormat, Primary: r.Primary().ID, Stable: r.Stable().ID}
	for _, v := range r.versions {
		key := v.value
		if !v.Wrap.IsZero() {
			key = v.wrapped
		}
		f.Keys = append(f.Keys, versionFile{ID: v.ID, Created: v.Created, State: v.State, Wrap: v.Wrap.String(),
			Key: base64.StdEncoding.EncodeToString(key)})
	}
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the ring: %w", err)
	}
	return append(text, '\n'), nil
}

// Secret reports whether the file of r is itself a secret: somebody who reads
// it has a key.
func (r *Ring) Secret() bool {
	return slices.ContainsFunc(r.versions, func(v Version) bool { return v.Wrap.IsZero() })
}
