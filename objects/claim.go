package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"unicode/utf8"
)

// Claim is the address of a body that does not travel with its record, such
// as a file above 1 MiB: s3://bucket/key, or file: and a path below a folder
// that writer and reader both know. Its record also has the ETag it was listed
// with, so that nobody reads another version by mistake.
type Claim struct {
	Bucket, Key string // of an object
	File        string // slash-separated path of a local file; empty for objects
}

// String returns the form that records hold; ParseClaim reads it back.
func (c Claim) String() string {
	if c.File != "" {
		return "file:" + c.File
	}
	return "s3://" + c.Bucket + "/" + c.Key
}

// ParseClaim reads the form that String writes. A path that could leave its
// folder is an error.
func ParseClaim(s string) (Claim, error) {
	if file, ok := strings.CutPrefix(s, "file:"); ok {
		if !fs.ValidPath(file) || file == "." || strings.ContainsRune(file, 0) {
			return Claim{}, errors.New("claim: want file: and a path below the folder")
		}
		return Claim{File: file}, nil
	}
	rest, ok := strings.CutPrefix(s, "s3://")
	bucket, key, found := strings.Cut(rest, "/")
	if !ok || !found || bucket == "" || key == "" || !utf8.ValidString(s) || path.Clean(bucket) != bucket {
		return Claim{}, errors.New("claim: want s3://bucket/key or file:path")
	}
	return Claim{Bucket: bucket, Key: key}, nil
}

// FileETag returns the version of a local file: it changes when the file is
// written or replaced.
func FileETag(fi fs.FileInfo) string {
	var inode uint64
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		inode = uint64(st.Ino) //nolint:unconvert // another type on other systems
	}
	return fmt.Sprintf("%x-%x-%x", fi.ModTime().UnixNano(), fi.Size(), inode)
}

// Bodies reads claims.
type Bodies struct {
	S3   *Client  // nil: claims of objects are errors
	Root *os.Root // the folder of file: claims; nil: these are errors
}

// Open returns the body of a claim. One that is not the version etag any more
// is an ErrChanged error, a missing one is fs.ErrNotExist: in both cases a
// newer record of the same key is on its way. An empty etag takes any version.
// ctx bounds all reads.
func (b Bodies) Open(ctx context.Context, claim, etag string) (io.ReadCloser, error) {
	c, err := ParseClaim(claim)
	switch {
	case err != nil:
		return nil, err
	case c.File != "" && b.Root == nil:
		return nil, errors.New("open claim: no folder is known for file: claims")
	case c.File != "":
		f, _, err := OpenFile(b.Root, c.File, etag)
		return f, err
	case b.S3 == nil:
		return nil, errors.New("open claim: no object store is known for s3: claims")
	}
	r := b.S3.OpenVersion(ctx, c.Bucket, c.Key, etag)
	if _, err := r.Size(); err != nil { // a wrong version shows here, not in the middle
		return nil, err
	}
	return r, nil
}

// OpenFile opens the regular file name below root if it still is the version
// etag; an empty etag takes any. Symbolic links that leave root are errors.
func OpenFile(root *os.Root, name, etag string) (*os.File, fs.FileInfo, error) {
	// Without O_NONBLOCK a named pipe that took the file's place would hang us.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, hidePath("open file", err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("open file: not a regular file")
	}
	if err == nil && etag != "" && FileETag(fi) != etag {
		err = fmt.Errorf("open file: %w", ErrChanged)
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

// hidePath keeps the cause of a file error: a name is the key of a row, which
// no error holds (invariant 7).
func hidePath(do string, err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("%s: %w", do, err)
}
