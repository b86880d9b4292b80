package keys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// MaxBytes is the size of the largest key or secret.
const MaxBytes = 1 << 20

// AdvisedBytes is the shortest key that an HMAC should have: below 128 bits it
// can be searched.
const AdvisedBytes = 16

// Snapshot holds the keys behind some references as they were at one moment.
// It is immutable; a rotation is a new Snapshot.
type Snapshot struct {
	rings    map[Ref]*Ring
	failed   map[Ref]error
	warnings []string
}

// Load reads refs, of which relative files start at baseDir. It reports all
// references that cannot be read, not only the first. Key services are those
// that the environment describes.
func Load(ctx context.Context, refs []Ref, baseDir string) (*Snapshot, error) {
	s := Open(ctx, refs, baseDir, NewServices(os.Getenv))
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var errs []error
	for _, r := range refs {
		if err := s.Err(r); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return s, nil
}

// Open reads refs. A key that cannot be had is missing in the Snapshot, and Err
// says why.
func Open(ctx context.Context, refs []Ref, baseDir string, services Services) *Snapshot {
	s := &Snapshot{rings: make(map[Ref]*Ring, len(refs)), failed: map[Ref]error{}}
	for _, r := range refs {
		if s.rings[r] != nil || s.failed[r] != nil {
			continue
		}
		text, warnings, err := readText(r, baseDir)
		if err != nil {
			s.failed[r] = err
			continue
		}
		ring, err := parse(ctx, r, text, services)
		if err != nil {
			s.failed[r] = err
			continue
		}
		s.rings[r] = ring
		if !r.Scheme.IsRing() || ring.Secret() {
			s.warnings = append(s.warnings, warnings...)
		}
	}
	return s
}

// parse makes the ring of a reference from the text it points to.
func parse(ctx context.Context, r Ref, text []byte, services Services) (*Ring, error) {
	if !r.Scheme.IsRing() {
		return Single(text), nil
	}
	ring, err := ParseRing(ctx, text, services)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	if r.Scheme == RingFile {
		return ring, nil
	}
	for _, v := range ring.versions {
		if v.Wrap.By != r.Scheme { // the reference promises who keeps the keys
			return nil, fmt.Errorf("%s: version %s is not wrapped by %s; fix: sluice keys rewrap", r, v.ID, r.Scheme)
		}
	}
	return ring, nil
}

// Ring returns the ring of r and whether the snapshot has it. A variable or a
// file with one key is a ring of one version.
func (s *Snapshot) Ring(r Ref) (*Ring, bool) {
	if s == nil {
		return nil, false
	}
	ring, ok := s.rings[r]
	return ring, ok
}

// Key returns a copy of the key of r and whether the snapshot has it: of a
// ring its stable version, which a rotation does not change.
func (s *Snapshot) Key(r Ref) ([]byte, bool) {
	ring, ok := s.Ring(r)
	if !ok {
		return nil, false
	}
	return ring.Stable().Value(), true
}

// Err says why the snapshot does not have the key of r; nil if it has.
func (s *Snapshot) Err(r Ref) error {
	if s == nil {
		return fmt.Errorf("%s: no keys were loaded", r)
	}
	if err := s.failed[r]; err != nil {
		return err
	}
	if s.rings[r] == nil {
		return fmt.Errorf("%s was not loaded", r)
	}
	return nil
}

// Refs returns the references of the snapshot, those without a key included,
// in the order of their spelling.
func (s *Snapshot) Refs() []Ref {
	refs := slices.AppendSeq(slices.Collect(maps.Keys(s.rings)), maps.Keys(s.failed))
	slices.SortFunc(refs, func(a, b Ref) int { return strings.Compare(a.String(), b.String()) })
	return refs
}

// Warnings returns what is unsafe about the sources of the values, with its fix.
func (s *Snapshot) Warnings() []string { return slices.Clone(s.warnings) }

// Short returns the references that have a key of fewer than AdvisedBytes,
// which is too few for the key of an HMAC, in the order of their spelling.
func (s *Snapshot) Short() []Ref {
	var short []Ref
	for r, ring := range s.rings {
		for _, v := range ring.versions {
			if v.value != nil && len(v.value) < AdvisedBytes {
				short = append(short, r)
				break
			}
		}
	}
	slices.SortFunc(short, func(a, b Ref) int { return strings.Compare(a.String(), b.String()) })
	return short
}

// String keeps the values out of every print.
func (s *Snapshot) String() string { return fmt.Sprintf("keys.Snapshot(%d values)", len(s.rings)) }

// GoString keeps the values out of every print.
func (s *Snapshot) GoString() string { return s.String() }

// Read returns the value of one reference to a variable or a file, without the
// line end that editors put behind it, and what is unsafe about where it lies.
func Read(r Ref, baseDir string) (value []byte, warnings []string, err error) {
	if r.Scheme.IsRing() {
		return nil, nil, fmt.Errorf("%s is a key ring; only keys of rules can be one", r)
	}
	return readText(r, baseDir)
}

// readText returns what r points to: a value, or the text of a ring.
func readText(r Ref, baseDir string) (value []byte, warnings []string, err error) {
	switch {
	case r.Scheme == Env:
		v, ok := os.LookupEnv(r.Name)
		if !ok {
			return nil, nil, fmt.Errorf("%s: the environment variable is not set", r)
		}
		value = []byte(v)
	case r.Scheme == File, r.Scheme.IsRing():
		if value, warnings, err = readFile(r, baseDir); err != nil {
			return nil, nil, err
		}
	default:
		return nil, nil, fmt.Errorf("reference with scheme %q; %s", r.Scheme, wantRef)
	}
	value = trimLineEnd(value)
	if len(value) == 0 {
		return nil, nil, fmt.Errorf("%s is empty", r)
	}
	return value, warnings, nil
}

func readFile(r Ref, baseDir string) ([]byte, []string, error) {
	path := r.Name
	if !filepath.IsAbs(path) {
		path = filepath.Join(baseDir, path)
	}
	// A named pipe would block the start for ever; stat comes before open.
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, fileError(r, path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s: %s is not a regular file", r, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fileError(r, path, err)
	}
	defer f.Close()
	value, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, nil, fileError(r, path, err)
	}
	if len(value) > MaxBytes {
		return nil, nil, fmt.Errorf("%s: %s has more than %d bytes", r, path, MaxBytes)
	}
	var warnings []string
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		warnings = append(warnings, fmt.Sprintf("%s: others may read it (mode %04o); fix: chmod 600 %s", r, perm, path))
	}
	return value, warnings, nil
}

func fileError(r Ref, path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: no file %s", r, path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %s is unreadable (permission denied); fix: chown or chmod it for the user that runs sluice", r, path)
	}
	return fmt.Errorf("%s: %w", r, err)
}

// trimLineEnd removes one trailing line end: editors add it, keys do not have it.
func trimLineEnd(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
		if n := len(b); n > 0 && b[n-1] == '\r' {
			b = b[:n-1]
		}
	}
	return b
}

// Fixed returns a Snapshot of keys that are known already: those of tests, and
// those made for a look at rules without their real keys.
func Fixed(values map[Ref][]byte) *Snapshot {
	s := &Snapshot{rings: make(map[Ref]*Ring, len(values)), failed: map[Ref]error{}}
	for r, v := range values {
		s.rings[r] = Single(v)
	}
	return s
}
