package keys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ReadRing reads the ring of a file.
func ReadRing(ctx context.Context, path string, s Services) (*Ring, error) {
	text, _, err := readFile(Ref{RingFile, path}, "")
	if err != nil {
		return nil, err
	}
	r, err := ParseRing(ctx, text, s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// CreateRing writes r to a file that must not be there yet: a key is never
// overwritten. Its owner alone may read it.
func CreateRing(path string, r *Ring) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already; rotate it, or choose another name", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the folder of the ring: %w", err)
	}
	return writeRing(path, r, func(temporary string) error {
		// A link fails where the name is taken meanwhile; a rename would not.
		err := os.Link(temporary, path)
		return errors.Join(err, os.Remove(temporary))
	})
}

// UpdateRing replaces the ring of a file by what change makes of it, at once
// for every reader. Two updates at the same time are one update and one error.
func UpdateRing(ctx context.Context, path string, s Services, change func(*Ring) (*Ring, error)) (*Ring, error) {
	release, err := lockRing(path)
	if err != nil {
		return nil, err
	}
	defer release()
	r, err := ReadRing(ctx, path, s)
	if err != nil {
		return nil, err
	}
	if r, err = change(r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, writeRing(path, r, func(temporary string) error { return os.Rename(temporary, path) })
}

// lockRing keeps other updates out; a lock that a killed one left has to be removed by hand.
func lockRing(path string) (release func(), err error) {
	lock := path + ".lock"
	f, err := os.OpenFile(lock, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s is being changed; if nobody does so, remove %s", path, lock)
	}
	if err != nil {
		return nil, fmt.Errorf("change %s: %w", path, err)
	}
	_ = f.Close() // it has no content
	return func() { _ = os.Remove(lock) }, nil
}

// writeRing writes a ring durably to a temporary file and puts it in its place.
func writeRing(path string, r *Ring, place func(temporary string) error) error {
	text, err := r.Marshal()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new*") // with mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = place(f.Name())
	} else {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// syncDir makes a rename survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
