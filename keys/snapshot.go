package keys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// Snapshot holds the values of some references as they were at one moment. It
// is immutable; a rotation is a new Snapshot.
type Snapshot struct {
	values   map[Ref][]byte
	warnings []string
}

// Load reads refs, of which relative files start at baseDir. It reports all
// references that cannot be read, not only the first.
func Load(ctx context.Context, refs []Ref, baseDir string) (*Snapshot, error) {
	s := &Snapshot{values: make(map[Ref][]byte, len(refs))}
	var errs []error
	for _, r := range refs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, done := s.values[r]; done {
			continue
		}
		v, warnings, err := Read(r, baseDir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.values[r] = v
		s.warnings = append(s.warnings, warnings...)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return s, nil
}

// Key returns a copy of the value of r and whether the snapshot has it.
func (s *Snapshot) Key(r Ref) ([]byte, bool) {
	if s == nil {
		return nil, false
	}
	v, ok := s.values[r]
	return slices.Clone(v), ok
}

// Warnings returns what is unsafe about the sources of the values, with its fix.
func (s *Snapshot) Warnings() []string { return slices.Clone(s.warnings) }

// Short returns the references whose value has fewer than AdvisedBytes, which
// is too few for the key of an HMAC, in the order of their spelling.
func (s *Snapshot) Short() []Ref {
	var short []Ref
	for r, v := range s.values {
		if len(v) < AdvisedBytes {
			short = append(short, r)
		}
	}
	slices.SortFunc(short, func(a, b Ref) int { return strings.Compare(a.String(), b.String()) })
	return short
}

// String keeps the values out of every print.
func (s *Snapshot) String() string { return fmt.Sprintf("keys.Snapshot(%d values)", len(s.values)) }

// GoString keeps the values out of every print.
func (s *Snapshot) GoString() string { return s.String() }

// Read returns the value of one reference, without the line end that editors
// put behind it, and what is unsafe about where it lies.
func Read(r Ref, baseDir string) (value []byte, warnings []string, err error) {
	switch r.Scheme {
	case Env:
		v, ok := os.LookupEnv(r.Name)
		if !ok {
			return nil, nil, fmt.Errorf("%s: the environment variable is not set", r)
		}
		value = []byte(v)
	case File:
		if value, warnings, err = readFile(r, baseDir); err != nil {
			return nil, nil, err
		}
	default:
		return nil, nil, fmt.Errorf("reference with scheme %q; want env or file", r.Scheme)
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
