package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const (
	maxParts     = 10_000
	minPartBytes = 5 << 20 // of all parts but the last: the store's own limit
	maxCopyBytes = 5 << 30 // that one request may copy
)

// Upload is a multipart upload that outlives its process: its State, saved
// after each part, is enough to go on with it. One goroutine uses it.
type Upload struct {
	c           *Client
	bucket, key string
	state       UploadState
}

// UploadState is what must be kept to resume an Upload.
type UploadState struct {
	ID    string `json:"id"`
	Parts []Part `json:"parts"`
}

// Part is one part that the store holds.
type Part struct {
	Size  int64  `json:"size"`
	ETag  string `json:"etag"`
	CRC32 string `json:"crc32,omitempty"`
}

// Size returns the bytes of all parts.
func (s UploadState) Size() int64 {
	var n int64
	for _, p := range s.Parts {
		n += p.Size
	}
	return n
}

// PartBytesFor returns the part size for an object of size bytes.
func PartBytesFor(size int64) int {
	n := int64(PartBytes)
	for n*(maxParts-1) < size {
		n *= 2
	}
	return int(n)
}

// Store puts one object in one request, whatever was there before, and
// returns its ETag.
func (c *Client) Store(ctx context.Context, bucket, key string, body []byte, meta map[string]string) (string, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	out, err := c.s3.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Metadata: meta,
		Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body)))})
	if err != nil {
		return "", wrap("put", bucket, key, err)
	}
	return unquote(out.ETag), nil
}

// BeginUpload begins an object that will replace what is there.
func (c *Client) BeginUpload(ctx context.Context, bucket, key string, meta map[string]string) (*Upload, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	out, err := c.s3.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: &key, Metadata: meta,
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
	if err != nil {
		return nil, wrap("begin upload of", bucket, key, err)
	}
	return &Upload{c: c, bucket: bucket, key: key, state: UploadState{ID: aws.ToString(out.UploadId)}}, nil
}

// ResumeUpload goes on with an upload of an earlier process. An upload that
// the store does not know any more is ErrNotFound, unless it was completed:
// then its ETag is returned and there is nothing left to do.
func (c *Client) ResumeUpload(ctx context.Context, bucket, key string, s UploadState) (u *Upload, etag string, err error) {
	have := map[int32]string{}
	in := &s3.ListPartsInput{Bucket: &bucket, Key: &key, UploadId: &s.ID}
	for {
		out, err := c.listParts(ctx, in)
		if err = wrap("resume upload of", bucket, key, err); err != nil {
			if !errors.Is(err, ErrNotFound) || len(s.Parts) == 0 {
				return nil, "", err
			}
			done := (&Upload{state: s}).multipartETag()
			if o, headErr := c.Head(ctx, bucket, key); headErr == nil && o.Size == s.Size() && o.ETag == done {
				return nil, done, nil
			}
			return nil, "", err
		}
		for i := range out.Parts {
			have[aws.ToInt32(out.Parts[i].PartNumber)] = unquote(out.Parts[i].ETag)
		}
		if !aws.ToBool(out.IsTruncated) {
			break
		}
		in.PartNumberMarker = out.NextPartNumberMarker
	}
	for i := range s.Parts {
		if have[int32(i+1)] != s.Parts[i].ETag {
			s.Parts = s.Parts[:i] // the store lacks the rest: send it again
			break
		}
	}
	return &Upload{c: c, bucket: bucket, key: key, state: s}, "", nil
}

func (c *Client) listParts(ctx context.Context, in *s3.ListPartsInput) (*s3.ListPartsOutput, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	return c.s3.ListParts(ctx, in)
}

// State returns what to keep.
func (u *Upload) State() UploadState { return u.state }

// Put sends the next part: 5 MiB at least, but for the last one.
func (u *Upload) Put(ctx context.Context, body []byte) error {
	ctx, cancel := u.c.call(ctx)
	defer cancel()
	n := len(u.state.Parts)
	if n == maxParts || n > 0 && u.state.Parts[n-1].Size < minPartBytes {
		return fmt.Errorf("s3: upload part of s3://%s/%s: too many or too small parts", u.bucket, u.key)
	}
	out, err := u.c.s3.UploadPart(ctx, &s3.UploadPartInput{Bucket: &u.bucket, Key: &u.key, UploadId: &u.state.ID,
		ChecksumAlgorithm: types.ChecksumAlgorithmCrc32, PartNumber: aws.Int32(int32(n + 1)),
		Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body)))})
	if err != nil {
		return wrap("upload part of", u.bucket, u.key, err)
	}
	u.state.Parts = append(u.state.Parts, Part{Size: int64(len(body)), ETag: unquote(out.ETag), CRC32: aws.ToString(out.ChecksumCRC32)})
	return nil
}

// Complete makes the object visible and returns its ETag.
func (u *Upload) Complete(ctx context.Context) (string, error) {
	call, cancel := u.c.call(ctx)
	defer cancel()
	out, err := u.c.s3.CompleteMultipartUpload(call, &s3.CompleteMultipartUploadInput{Bucket: &u.bucket, Key: &u.key,
		UploadId: &u.state.ID, MultipartUpload: &types.CompletedMultipartUpload{Parts: u.completed()}})
	if err = wrap("complete upload of", u.bucket, u.key, err); err == nil {
		return unquote(out.ETag), nil
	}
	// A lost reply makes the retry find no upload.
	if etag := u.multipartETag(); errors.Is(err, ErrNotFound) && u.c.isOurs(ctx, u.bucket, u.key, u.state.Size(), etag) {
		return etag, nil
	}
	return "", err
}

func (u *Upload) completed() []types.CompletedPart {
	parts := make([]types.CompletedPart, len(u.state.Parts))
	for i, p := range u.state.Parts {
		parts[i] = types.CompletedPart{PartNumber: aws.Int32(int32(i + 1)), ETag: aws.String(p.ETag)}
		if p.CRC32 != "" {
			parts[i].ChecksumCRC32 = aws.String(p.CRC32)
		}
	}
	return parts
}

func (u *Upload) multipartETag() string { return multipartETag(u.completed()) }

// Abort drops the upload.
func (u *Upload) Abort(ctx context.Context) error {
	ctx, cancel := u.c.call(ctx)
	defer cancel()
	_, err := u.c.s3.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &u.bucket, Key: &u.key, UploadId: &u.state.ID})
	if err = wrap("abort upload of", u.bucket, u.key, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Copy makes the store itself copy the version etag of an object of size
// bytes to another key, and returns the ETag of the copy. Another version is
// ErrChanged.
func (c *Client) Copy(ctx context.Context, from Claim, etag string, size int64, to Claim, meta map[string]string) (string, error) {
	source := escapeSource(from.Bucket + "/" + from.Key)
	if size > maxCopyBytes {
		return c.copyParts(ctx, source, etag, size, to, meta)
	}
	call, cancel := c.call(ctx)
	defer cancel()
	out, err := c.s3.CopyObject(call, &s3.CopyObjectInput{Bucket: &to.Bucket, Key: &to.Key, CopySource: &source,
		CopySourceIfMatch: ifMatch(etag), Metadata: meta, MetadataDirective: types.MetadataDirectiveReplace})
	if err != nil {
		return "", wrap("copy", from.Bucket, from.Key, err)
	}
	return unquote(out.CopyObjectResult.ETag), nil
}

func (c *Client) copyParts(ctx context.Context, source, etag string, size int64, to Claim, meta map[string]string) (string, error) {
	u, err := c.BeginUpload(ctx, to.Bucket, to.Key, meta)
	if err != nil {
		return "", err
	}
	step := max(int64(1<<30), size/(maxParts-1)+1)
	for off := int64(0); off < size; off += step {
		if err := u.putCopy(ctx, source, etag, off, min(off+step, size)); err != nil {
			return "", errors.Join(err, u.Abort(context.WithoutCancel(ctx)))
		}
	}
	return u.Complete(ctx)
}

func (u *Upload) putCopy(ctx context.Context, source, etag string, off, end int64) error {
	ctx, cancel := u.c.call(ctx)
	defer cancel()
	out, err := u.c.s3.UploadPartCopy(ctx, &s3.UploadPartCopyInput{Bucket: &u.bucket, Key: &u.key, UploadId: &u.state.ID,
		PartNumber: aws.Int32(int32(len(u.state.Parts) + 1)), CopySource: &source, CopySourceIfMatch: ifMatch(etag),
		CopySourceRange: aws.String(fmt.Sprintf("bytes=%d-%d", off, end-1))})
	if err != nil {
		return wrap("copy to", u.bucket, u.key, err)
	}
	u.state.Parts = append(u.state.Parts, Part{Size: end - off, ETag: unquote(out.CopyPartResult.ETag),
		CRC32: aws.ToString(out.CopyPartResult.ChecksumCRC32)})
	return nil
}

// escapeSource percent-encodes a copy source but for its slashes.
func escapeSource(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch ch := s[i]; {
		case ch >= 'a' && ch <= 'z', ch >= 'A' && ch <= 'Z', ch >= '0' && ch <= '9', strings.IndexByte("/-._~", ch) >= 0:
			b.WriteByte(ch)
		default:
			fmt.Fprintf(&b, "%%%02X", ch)
		}
	}
	return b.String()
}

func unquote(etag *string) string { return strings.Trim(aws.ToString(etag), `"`) }
