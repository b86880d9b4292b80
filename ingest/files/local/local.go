// Package local reads the files below a folder of this machine.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-data/sluice/ingest/files/root"
	"github.com/sluice-data/sluice/objects"
)

const (
	// ACLFile holds the access list of a folder and of those below that have none.
	ACLFile = ".sluice-acl.yaml"

	maxACLBytes = 1 << 20
	maxDepth    = 256 // of folders
	dirChunk    = 1024
)

// Folder is the root of a local tree. Symbolic links to files inside it are
// followed, nothing ever leads out of it.
type Folder struct {
	dir  string
	root *os.Root
	acls bool
}

// Open opens the folder dir. With acls the ACLFile of each folder is read.
func Open(dir string, acls bool) (*Folder, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder %s: %w", dir, err)
	}
	r, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("open the folder of the files: %w", err)
	}
	return &Folder{dir: abs, root: r, acls: acls}, nil
}

// Close releases the folder.
func (f *Folder) Close() error { return f.root.Close() }

// List yields every file below the folder. An error ends the listing: a part
// of a tree is never taken for the whole.
func (f *Folder) List(ctx context.Context) iter.Seq2[root.Entry, error] {
	return func(yield func(root.Entry, error) bool) {
		if err := f.walk(ctx, ".", nil, 0, yield); err != nil && !errors.Is(err, errStop) {
			yield(root.Entry{}, err)
		}
	}
}

var errStop = errors.New("stop")

// walk lists the folder dir, whose files have the access list acl unless it
// has its own. A folder that goes away meanwhile has no files.
func (f *Folder) walk(ctx context.Context, dir string, acl *root.ACL, depth int, yield func(root.Entry, error) bool) error {
	if depth > maxDepth {
		return errors.New("list folder: more than 256 levels deep")
	}
	d, err := f.root.Open(dir)
	if err != nil {
		if depth > 0 && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("list folder: %w; grant read access or exclude it", cause(err))
	}
	defer func() { _ = d.Close() }()
	if f.acls {
		if acl, err = f.acl(dir, acl); err != nil {
			return err
		}
	}
	for {
		items, err := d.ReadDir(dirChunk)
		for _, item := range items {
			if err := ctx.Err(); err != nil {
				return err
			}
			name := path.Join(dir, item.Name())
			if item.IsDir() {
				if err := f.walk(ctx, name, acl, depth+1, yield); err != nil {
					return err
				}
				continue
			}
			if f.acls && item.Name() == ACLFile {
				continue
			}
			e, ok, err := f.entry(name, item.Type())
			if err != nil {
				return err
			}
			e.ACL = acl
			if ok && !yield(e, nil) {
				return errStop
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list folder: %w", cause(err))
		}
	}
}

// acl reads the access list of one folder. One that cannot be read hides the
// folder's files: they have an unknown list.
func (f *Folder) acl(dir string, inherited *root.ACL) (*root.ACL, error) {
	file, _, err := objects.OpenFile(f.root, path.Join(dir, ACLFile), "")
	if errors.Is(err, fs.ErrNotExist) {
		return inherited, nil
	}
	if err != nil {
		return nil, nil //nolint:nilerr // fail closed: unknown
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxACLBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ACLFile, cause(err))
	}
	var a root.ACL
	if len(text) > maxACLBytes || yaml.Unmarshal(text, &a) != nil {
		return nil, nil
	}
	a = a.Normal()
	return &a, nil
}

// entry describes one name; ok is false for a file that just went away.
func (f *Folder) entry(name string, mode fs.FileMode) (e root.Entry, ok bool, err error) {
	if bad := root.CheckPath(name); bad != nil {
		return root.Entry{Path: root.Printable(name), Skip: bad}, true, nil
	}
	e = root.Entry{Path: name}
	fi, err := f.root.Stat(name) // follows links, inside only
	link := mode&fs.ModeSymlink != 0
	switch {
	case err != nil && link:
		e.Skip = root.LinkOutside
	case errors.Is(err, fs.ErrNotExist):
		return e, false, nil
	case err != nil:
		return e, false, fmt.Errorf("look at a file: %w", cause(err))
	case link && fi.IsDir():
		e.Skip = root.LinkFolder
	case !fi.Mode().IsRegular():
		e.Skip = root.Special
	}
	if e.Skip != nil {
		return e, true, nil
	}
	e.ETag, e.Weak, e.Size, e.Modified = objects.FileETag(fi), true, fi.Size(), fi.ModTime()
	if st, has := fi.Sys().(*syscall.Stat_t); has && st.Nlink == 1 && !link {
		e.ID = fmt.Sprintf("%x-%x", st.Dev, st.Ino)
	}
	e.URI = (&url.URL{Scheme: "file", Path: filepath.Join(f.dir, filepath.FromSlash(name))}).String()
	e.Object = objects.Claim{File: name}.String()
	return e, true, nil
}

// Open reads the listed version of a file from offset on.
func (f *Folder) Open(_ context.Context, e root.Entry, offset int64) (io.ReadCloser, error) {
	file, _, err := objects.OpenFile(f.root, e.Path, e.ETag)
	switch {
	case errors.Is(err, objects.ErrChanged), errors.Is(err, fs.ErrNotExist):
		return nil, root.ErrChanged
	case errors.Is(err, fs.ErrPermission):
		return nil, root.Forbidden
	case err != nil:
		return nil, err
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("read file: %w", cause(err))
	}
	return &checked{File: file, etag: e.ETag}, nil
}

// checked tells at the end whether the file was written to meanwhile.
type checked struct {
	*os.File
	etag string
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.File.Read(p)
	if errors.Is(err, io.EOF) {
		if fi, statErr := c.Stat(); statErr == nil && objects.FileETag(fi) != c.etag {
			return n, root.ErrChanged
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("read file: %w", cause(err))
	}
	return n, err
}

// cause drops the path of a file error: it is the key of a row (invariant 7).
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
