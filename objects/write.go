package objects

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // S3's ETag is an MD5; nothing is protected by it
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const (
	// PartBytes is the size of one part of a multipart upload: 10,000 of them
	// are 80 GiB.
	PartBytes = 8 << 20

	// Two parts travel while the third is filled: the memory of one open
	// stream is at most three parts.
	partsInFlight = 2
)

var partPool = sync.Pool{New: func() any { b := make([]byte, 0, PartBytes); return &b }}

// Put writes one object in one request. Without Config.Overwrite it is an
// ErrExists error if another object has the name.
func (c *Client) Put(ctx context.Context, bucket, key string, body []byte) error {
	ctx, cancel := c.call(ctx)
	defer cancel()
	// A bytes.Reader can be rewound: only such a body survives a retry.
	_, err := c.s3.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key,
		Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))), IfNoneMatch: c.ifNoneMatch()})
	err = wrap("put", bucket, key, err)
	if errors.Is(err, ErrExists) {
		sum := md5.Sum(body) //nolint:gosec // see the import
		if c.isOurs(ctx, bucket, key, int64(len(body)), hex.EncodeToString(sum[:])) {
			return nil
		}
	}
	return err
}

func (c *Client) ifNoneMatch() *string {
	if c.overwrite {
		return nil
	}
	return aws.String("*")
}

// isOurs reports whether the object holds what was just written: the reply to
// a first try was lost, and its retry met the object.
func (c *Client) isOurs(ctx context.Context, bucket, key string, size int64, etag string) bool {
	o, err := c.Head(ctx, bucket, key)
	return err == nil && o.Size == size && o.ETag == etag
}

// Writer streams one object. Nothing is visible before Close. One goroutine
// uses it.
type Writer struct {
	c           *Client
	ctx         context.Context
	bucket, key string
	buf         []byte
	size        int64
	upload      string
	slots       chan struct{}
	wg          sync.WaitGroup
	closed      bool

	mu    sync.Mutex
	parts []types.CompletedPart
	err   error
}

// Create begins an object. ctx bounds the whole stream.
func (c *Client) Create(ctx context.Context, bucket, key string) *Writer {
	return &Writer{c: c, ctx: ctx, bucket: bucket, key: key, slots: make(chan struct{}, partsInFlight)}
}

// Size returns the bytes written so far.
func (w *Writer) Size() int64 { return w.size }

// Write takes p; it blocks while two parts are on their way.
func (w *Writer) Write(p []byte) (int, error) {
	if w.closed {
		return 0, fmt.Errorf("s3: write s3://%s/%s: the stream is closed", w.bucket, w.key)
	}
	n := 0
	for len(p) > 0 {
		if w.buf == nil && (w.upload != "" || len(p) > PartBytes/8) {
			w.buf = (*partPool.Get().(*[]byte))[:0]
		}
		k := min(len(p), PartBytes-len(w.buf))
		w.buf = append(w.buf, p[:k]...)
		p, n, w.size = p[k:], n+k, w.size+int64(k)
		if len(w.buf) == PartBytes {
			if err := w.sendPart(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// ReadFrom copies all of r.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	buf := make([]byte, 64<<10)
	var n int64
	for {
		k, err := r.Read(buf)
		if k > 0 {
			if _, werr := w.Write(buf[:k]); werr != nil {
				return n, werr
			}
			n += int64(k)
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

func (w *Writer) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *Writer) sendPart() error {
	if err := w.failure(); err != nil {
		return err
	}
	if w.upload == "" {
		ctx, cancel := w.c.call(w.ctx)
		defer cancel()
		out, err := w.c.s3.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &w.bucket, Key: &w.key,
			ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
		if err != nil {
			return w.fail(wrap("begin upload of", w.bucket, w.key, err))
		}
		w.upload = aws.ToString(out.UploadId)
	}
	body := w.buf
	w.buf = nil
	w.mu.Lock()
	w.parts = append(w.parts, types.CompletedPart{PartNumber: aws.Int32(int32(len(w.parts) + 1))})
	i := len(w.parts) - 1
	w.mu.Unlock()
	w.slots <- struct{}{}
	w.wg.Go(func() {
		defer func() { <-w.slots }()
		w.uploadPart(i, body)
	})
	return nil
}

func (w *Writer) uploadPart(i int, body []byte) {
	ctx, cancel := w.c.call(w.ctx)
	defer cancel()
	out, err := w.c.s3.UploadPart(ctx, &s3.UploadPartInput{Bucket: &w.bucket, Key: &w.key, UploadId: &w.upload,
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32, PartNumber: aws.Int32(int32(i + 1)), Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body)))})
	if err != nil {
		_ = w.fail(wrap("upload part of", w.bucket, w.key, err))
		return
	}
	w.mu.Lock()
	p := &w.parts[i]
	p.ETag, p.ChecksumCRC32 = out.ETag, out.ChecksumCRC32
	w.mu.Unlock()
	if cap(body) == PartBytes {
		body = body[:0]
		partPool.Put(&body)
	}
}

func (w *Writer) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	return w.err
}

// Close sends what is left and makes the object visible. A failed Close leaves
// nothing behind. Closing twice is fine.
func (w *Writer) Close() error {
	if w.closed {
		return w.failure()
	}
	if w.upload == "" && w.failure() == nil {
		w.closed = true
		err := w.c.Put(w.ctx, w.bucket, w.key, w.buf)
		w.buf = nil
		if err != nil {
			return w.fail(err)
		}
		return nil
	}
	if len(w.buf) > 0 && w.failure() == nil {
		_ = w.sendPart()
	}
	w.wg.Wait()
	if w.failure() != nil {
		_ = w.Abort()
		return w.failure()
	}
	w.closed = true
	if err := w.complete(); err != nil {
		w.closed = false
		_ = w.Abort()
		return w.fail(err)
	}
	return nil
}

func (w *Writer) complete() error {
	ctx, cancel := w.c.call(w.ctx)
	defer cancel()
	_, err := w.c.s3.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: &w.bucket, Key: &w.key,
		UploadId: &w.upload, IfNoneMatch: w.c.ifNoneMatch(), MultipartUpload: &types.CompletedMultipartUpload{Parts: w.parts}})
	err = wrap("complete upload of", w.bucket, w.key, err)
	// A lost reply makes the retry meet the finished object or find no upload.
	if (errors.Is(err, ErrExists) || errors.Is(err, ErrNotFound)) && w.c.isOurs(ctx, w.bucket, w.key, w.size, multipartETag(w.parts)) {
		return nil
	}
	return err
}

// multipartETag computes the tag that S3 gives to an object of these parts.
func multipartETag(parts []types.CompletedPart) string {
	h := md5.New() //nolint:gosec // see the import
	for _, p := range parts {
		sum, err := hex.DecodeString(strings.Trim(aws.ToString(p.ETag), `"`))
		if err != nil {
			return ""
		}
		h.Write(sum)
	}
	return fmt.Sprintf("%s-%d", hex.EncodeToString(h.Sum(nil)), len(parts))
}

// Abort drops the object. After Close it does nothing.
func (w *Writer) Abort() error {
	if w.closed {
		return nil
	}
	w.closed, w.buf = true, nil
	w.wg.Wait()
	if w.upload == "" {
		return nil
	}
	// The stream's own context may be over: the parts cost money until aborted.
	ctx, cancel := w.c.call(context.WithoutCancel(w.ctx))
	defer cancel()
	_, err := w.c.s3.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &w.bucket, Key: &w.key, UploadId: &w.upload})
	return wrap("abort upload of", w.bucket, w.key, err)
}

// Delete removes keys, a thousand a request, and returns the removed ones; a
// missing key counts as removed.
func (c *Client) Delete(ctx context.Context, bucket string, keys ...string) ([]string, error) {
	var deleted []string
	var failures []error
	for chunk := range slices.Chunk(keys, 1000) {
		ids := make([]types.ObjectIdentifier, len(chunk))
		for i := range chunk {
			ids[i].Key = &chunk[i]
		}
		out, err := c.deleteChunk(ctx, bucket, ids)
		if err != nil {
			failures = append(failures, wrap("delete from", bucket, "", err))
			continue
		}
		bad := map[string]bool{}
		for _, e := range out.Errors {
			key := aws.ToString(e.Key)
			bad[key] = true
			failures = append(failures, &Error{Op: "delete", Bucket: bucket, Key: key, Code: aws.ToString(e.Code),
				Err: errors.New(aws.ToString(e.Message))})
		}
		for _, k := range chunk {
			if !bad[k] {
				deleted = append(deleted, k)
			}
		}
	}
	return deleted, errors.Join(failures...)
}

func (c *Client) deleteChunk(ctx context.Context, bucket string, ids []types.ObjectIdentifier) (*s3.DeleteObjectsOutput, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	return c.s3.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &bucket,
		Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)}})
}

// EnsureBucket creates the bucket unless it is there.
func (c *Client) EnsureBucket(ctx context.Context, bucket string) error {
	ctx, cancel := c.call(ctx)
	defer cancel()
	_, err := c.s3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket})
	if err == nil {
		return nil
	}
	if err = wrap("look at bucket", bucket, "", err); !errors.Is(err, ErrNotFound) {
		return err
	}
	_, err = c.s3.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket})
	var ours *types.BucketAlreadyOwnedByYou
	if errors.As(err, &ours) {
		return nil
	}
	return wrap("create bucket", bucket, "", err)
}
