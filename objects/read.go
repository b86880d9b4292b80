package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// The end of an object fetched when its size is asked for: a Parquet footer
// and its length come along, and no HEAD is needed.
const tailBytes = 64 << 10

// Object describes one stored object.
type Object struct {
	Key      string
	Size     int64
	ETag     string // without quotes
	Modified time.Time
}

// Head describes the object of the given key.
func (c *Client) Head(ctx context.Context, bucket, key string) (Object, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	out, err := c.s3.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return Object{}, wrap("head", bucket, key, err)
	}
	return Object{Key: key, Size: aws.ToInt64(out.ContentLength), ETag: strings.Trim(aws.ToString(out.ETag), `"`),
		Modified: aws.ToTime(out.LastModified)}, nil
}

// Get reads a whole object.
func (c *Client) Get(ctx context.Context, bucket, key string) ([]byte, error) {
	b, _, err := c.get(ctx, bucket, key, "", "")
	return b, err
}

// get reads the object or a range of it and returns also the size of the
// whole; an object with another tag than etag, if given, is ErrChanged.
func (c *Client) get(ctx context.Context, bucket, key, byteRange, etag string) ([]byte, int64, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	in := &s3.GetObjectInput{Bucket: &bucket, Key: &key, IfMatch: ifMatch(etag)}
	if byteRange != "" {
		in.Range = &byteRange
	}
	// The SDK retries the request but not the body: a body cut short is asked for again.
	for try := 0; ; try++ {
		out, err := c.s3.GetObject(ctx, in)
		if err != nil {
			return nil, 0, wrap("get", bucket, key, err)
		}
		buf := bytes.NewBuffer(make([]byte, 0, max(0, aws.ToInt64(out.ContentLength))+bytes.MinRead))
		_, err = buf.ReadFrom(out.Body)
		_ = out.Body.Close()
		if err == nil {
			return buf.Bytes(), wholeSize(out), nil
		}
		if try == 2 || ctx.Err() != nil {
			return nil, 0, wrap("get", bucket, key, err)
		}
	}
}

// wholeSize reads the number after the slash of "bytes 0-7/1234".
func wholeSize(out *s3.GetObjectOutput) int64 {
	if _, total, ok := strings.Cut(aws.ToString(out.ContentRange), "/"); ok {
		if n, err := strconv.ParseInt(total, 10, 64); err == nil {
			return n
		}
	}
	return aws.ToInt64(out.ContentLength)
}

// Reader reads one object by ranges or from its start to its end. ReadAt may
// be called from several goroutines at once, everything else by one.
type Reader struct {
	c           *Client
	ctx         context.Context
	bucket, key string
	etag        string // the only version to read; empty = any
	pos         int64
	size        int64 // -1 = not known yet
	tail        []byte
	body        io.ReadCloser
	bodyPos     int64
}

// Open returns a reader. It makes no request: a missing object shows at the
// first read. ctx bounds all reads.
func (c *Client) Open(ctx context.Context, bucket, key string) *Reader {
	return &Reader{c: c, ctx: ctx, bucket: bucket, key: key, size: -1}
}

// OpenVersion returns a reader of the version of an object that has the given
// ETag: any read of another one is an ErrChanged error.
func (c *Client) OpenVersion(ctx context.Context, bucket, key, etag string) *Reader {
	return &Reader{c: c, ctx: ctx, bucket: bucket, key: key, etag: etag, size: -1}
}

func ifMatch(etag string) *string {
	if etag == "" {
		return nil
	}
	return aws.String(`"` + etag + `"`)
}

// Size returns the object's size; the first call fetches the last 64 KiB,
// from which later reads are served.
func (r *Reader) Size() (int64, error) {
	if r.size >= 0 {
		return r.size, nil
	}
	tail, size, err := r.c.get(r.ctx, r.bucket, r.key, fmt.Sprintf("bytes=-%d", tailBytes), r.etag)
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusRequestedRangeNotSatisfiable {
		tail, size, err = nil, 0, nil // an empty object has no last bytes
	}
	if err != nil {
		return 0, err
	}
	r.tail, r.size = tail, size
	return size, nil
}

// ReadAt reads len(p) bytes at off with one ranged GET.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.size >= 0 {
		if off >= r.size {
			return 0, io.EOF
		}
		if tailStart := r.size - int64(len(r.tail)); off >= tailStart {
			n := copy(p, r.tail[off-tailStart:])
			if n < len(p) {
				return n, io.EOF
			}
			return n, nil
		}
	}
	b, _, err := r.c.get(r.ctx, r.bucket, r.key, fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1), r.etag)
	if err != nil {
		var e *Error
		if errors.As(err, &e) && e.Status == http.StatusRequestedRangeNotSatisfiable {
			return 0, io.EOF
		}
		return 0, err
	}
	n := copy(p, b)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Read reads on from the current place; the first call starts one GET to the
// object's end.
func (r *Reader) Read(p []byte) (int, error) {
	if r.size >= 0 && r.pos >= r.size-int64(len(r.tail)) {
		n, err := r.ReadAt(p, r.pos)
		r.pos += int64(n)
		if n > 0 && errors.Is(err, io.EOF) {
			err = nil
		}
		return n, err
	}
	if r.body == nil || r.bodyPos != r.pos {
		if err := r.openBody(); err != nil {
			return 0, err
		}
	}
	n, err := r.body.Read(p)
	r.pos, r.bodyPos = r.pos+int64(n), r.bodyPos+int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		r.closeBody() // the next Read asks for the rest
		if n > 0 {
			err = nil
		} else {
			err = wrap("get", r.bucket, r.key, err)
		}
	}
	return n, err
}

func (r *Reader) openBody() error {
	r.closeBody()
	in := &s3.GetObjectInput{Bucket: &r.bucket, Key: &r.key, IfMatch: ifMatch(r.etag)}
	if r.pos > 0 {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", r.pos))
	}
	out, err := r.c.s3.GetObject(r.ctx, in)
	if err != nil {
		return wrap("get", r.bucket, r.key, err)
	}
	if r.size < 0 {
		r.size = wholeSize(out)
	}
	r.body, r.bodyPos = out.Body, r.pos
	return nil
}

func (r *Reader) closeBody() {
	if r.body != nil {
		_ = r.body.Close()
		r.body = nil
	}
}

// Seek moves the place of the next Read.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		size, err := r.Size()
		if err != nil {
			return 0, err
		}
		offset += size
	}
	if offset < 0 {
		return 0, fmt.Errorf("s3: seek s3://%s/%s before its start", r.bucket, r.key)
	}
	r.pos = offset
	return offset, nil
}

// Close ends the reads. Closing twice is fine.
func (r *Reader) Close() error {
	r.closeBody()
	return nil
}

// List yields the objects whose key begins with prefix, in key order.
func (c *Client) List(ctx context.Context, bucket, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		in := &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix}
		for {
			out, err := c.listPage(ctx, in)
			if err != nil {
				yield(Object{}, wrap("list", bucket, prefix, err))
				return
			}
			for i := range out.Contents {
				o := &out.Contents[i]
				if !yield(Object{Key: aws.ToString(o.Key), Size: aws.ToInt64(o.Size),
					ETag: strings.Trim(aws.ToString(o.ETag), `"`), Modified: aws.ToTime(o.LastModified)}, nil) {
					return
				}
			}
			if !aws.ToBool(out.IsTruncated) {
				return
			}
			in.ContinuationToken = out.NextContinuationToken
		}
	}
}

func (c *Client) listPage(ctx context.Context, in *s3.ListObjectsV2Input) (*s3.ListObjectsV2Output, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	return c.s3.ListObjectsV2(ctx, in)
}
