// Package bucket reads the objects of an S3 bucket, or those below a prefix.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/sluice-data/sluice/ingest/files/root"
	"github.com/sluice-data/sluice/objects"
)

// Bucket is the root of the objects below a prefix.
type Bucket struct {
	client         *objects.Client
	bucket, prefix string
}

// Open returns the objects of bucket whose keys begin with prefix, which is
// empty or ends with a slash. It does not connect.
func Open(client *objects.Client, bucket, prefix string) (*Bucket, error) {
	if bucket == "" || prefix != "" && !strings.HasSuffix(prefix, "/") {
		return nil, fmt.Errorf("bucket %q, prefix %q: want a bucket and a prefix that ends with a slash", bucket, prefix)
	}
	return &Bucket{client, bucket, prefix}, nil
}

// List yields every object; the keys of folder markers are no files.
func (b *Bucket) List(ctx context.Context) iter.Seq2[root.Entry, error] {
	return func(yield func(root.Entry, error) bool) {
		for o, err := range b.client.List(ctx, b.bucket, b.prefix) {
			if err != nil {
				yield(root.Entry{}, err)
				return
			}
			path, below := strings.CutPrefix(o.Key, b.prefix)
			if !below || path == "" || strings.HasSuffix(path, "/") && o.Size == 0 {
				continue
			}
			claim := objects.Claim{Bucket: b.bucket, Key: o.Key}.String()
			e := root.Entry{Path: path, ETag: o.ETag, Size: o.Size, Modified: o.Modified, URI: claim, Object: claim}
			if bad := root.CheckPath(path); bad != nil {
				e = root.Entry{Path: root.Printable(path), ETag: o.ETag, Skip: bad}
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Open reads the listed version of an object from offset on.
func (b *Bucket) Open(ctx context.Context, e root.Entry, offset int64) (io.ReadCloser, error) {
	r := b.client.OpenVersion(ctx, b.bucket, b.prefix+e.Path, e.ETag)
	if offset > 0 {
		if _, err := r.Seek(offset, io.SeekStart); err != nil {
			return nil, err
		}
	}
	return body{r}, nil
}

// body tells a new version, and what may not be read, in the words of a root.
type body struct{ *objects.Reader }

func (b body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	switch {
	case err == nil, errors.Is(err, io.EOF):
	case errors.Is(err, objects.ErrChanged), errors.Is(err, objects.ErrNotFound):
		err = root.ErrChanged
	case errors.Is(err, objects.ErrForbidden):
		err = root.Forbidden
	}
	return n, err
}
