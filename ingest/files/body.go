package files

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"

	"github.com/sluice-data/sluice/ingest/files/root"
	"github.com/sluice-data/sluice/record"
)

var tooLarge = &root.Reason{Code: "too_large",
	Text: "the body is too big to be inline, and nobody could read it at its place; set store to copy such bodies to a bucket"}

// body is what is known of a body after it was read.
type body struct {
	size       int64
	sha        []byte // nil = not read
	mime       string
	inline     []byte // the body itself; nil where it is not inline
	object     string
	objectETag string
}

// load finds out what must be published of a listed file: nothing (what is 0),
// its metadata alone, or all of it.
func (ss *session) load(ctx context.Context, l *listing, f *known) (change, error) {
	c := change{old: f, known: known{path: l.Path, id: l.ID, etag: l.ETag, size: l.Size, modified: l.modified, mime: l.MIME, title: l.Title,
		uri: l.URI, metadata: l.Metadata, acl: l.acl, ref: l.Ref, origin: l.Object, live: true, op: record.OpUpdate}}
	published := f != nil && f.live && f.epoch == ss.cp.Epoch
	switch {
	case ss.loading:
		c.op = record.OpRead
	case !published:
		c.op = record.OpInsert
	}
	if l.Skip != nil {
		return refuse(c, f, published, l.Skip, l.Skip.Code != root.Forbidden.Code), nil
	}
	var b body
	var err error
	same := f != nil && f.etag == l.ETag && !f.racy && f.reason == "" && f.origin == l.Object && (l.Size < 0 || f.size == l.Size)
	if same && (published || !f.inline) {
		b = body{size: f.size, sha: f.sha, mime: f.mime, object: f.object, objectETag: f.objectETag}
		c.inline = f.inline
	} else if b, err = ss.read(ctx, l); err != nil {
		var reason *root.Reason
		if errors.As(err, &reason) {
			return refuse(c, f, published, reason, false), nil
		}
		return c, err
	}
	c.size, c.sha, c.object, c.objectETag, c.body = b.size, b.sha, b.object, b.objectETag, b.inline
	c.inline = c.inline || b.inline != nil
	if c.mime = first(l.MIME, root.TypeByName(l.Path)); c.mime == "" {
		c.mime = b.mime
	}
	c.racy = l.Weak && !same && l.modified > 0 && ss.s.now().UnixMicro()-l.modified < raceTime.Microseconds()
	ss.weigh(&c, f, published)
	return c, nil
}

// weigh decides which records a change needs.
func (ss *session) weigh(c *change, f *known, published bool) {
	c.what = whatFile | whatPermission
	if !published {
		return
	}
	if f.acl == c.acl {
		c.what &^= whatPermission
	}
	sameBody := f.inline == c.inline && f.object == c.object && f.objectETag == c.objectETag && bytes.Equal(f.sha, c.sha) &&
		(c.sha != nil || f.etag == c.etag)
	if sameBody {
		c.what |= whatLight
		c.body = nil
	}
	if sameBody && f.reason == "" && f.etag == c.etag && f.acl == c.acl && f.title == c.title && f.uri == c.uri && f.metadata == c.metadata &&
		f.modified == c.modified && f.size == c.size && f.mime == c.mime {
		c.what = 0
	}
}

// refuse makes c the dead letter of a file that is not read. One that went away
// for the reader (it is a link or a device now) is deleted where it was
// published; one that merely cannot be read now stays as it is.
func refuse(c change, f *known, published bool, reason *root.Reason, replaced bool) change {
	seen := f != nil && f.reason == reason.Code
	switch {
	case published && replaced:
		c.what, c.op, c.live = whatFile|whatPermission, record.OpDelete, false
	case seen: // it is on the dead letters already
		c.known = *f
		return c.nothing()
	case published:
		c.known, c.what = *f, whatReject
	default:
		c.what, c.live = whatReject, false
	}
	c.reason, c.text = reason.Code, reason.Text
	return c
}

func (c change) nothing() change {
	c.what, c.body = 0, nil
	return c
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// read reads what must be read of a file.
func (ss *session) read(ctx context.Context, l *listing) (body, error) {
	cfg := &ss.s.cfg
	if cfg.CopyAll {
		return ss.copyBody(ctx, l)
	}
	if l.Size <= int64(cfg.Inline) {
		b, err := ss.readInline(ctx, l.Entry)
		if !errors.Is(err, errNotInline) {
			return b, err
		}
	}
	switch {
	case strings.HasPrefix(l.Object, "s3://"):
		return body{size: l.Size, sha: l.SHA256, object: l.Object, objectETag: l.ETag}, nil
	case l.Object != "":
		b, err := ss.readHash(ctx, l.Entry)
		b.object, b.objectETag = l.Object, l.ETag
		return b, err
	case cfg.Store != nil:
		return ss.copyBody(ctx, l)
	}
	return body{}, tooLarge
}

var errNotInline = errors.New("the body is too big to be inline")

// readInline reads a body that travels in its record.
func (ss *session) readInline(ctx context.Context, e root.Entry) (body, error) {
	r, err := ss.root.Open(ctx, e, 0)
	if err != nil {
		return body{}, err
	}
	defer func() { _ = r.Close() }()
	limit := ss.s.cfg.Inline
	buf := bytes.NewBuffer(make([]byte, 0, min(max(e.Size, 0), int64(limit))+bytes.MinRead))
	if _, err := buf.ReadFrom(io.LimitReader(r, int64(limit)+1)); err != nil {
		return body{}, err
	}
	b := buf.Bytes()
	if len(b) > limit {
		return body{}, errNotInline
	}
	if e.Size >= 0 && e.Size != int64(len(b)) {
		return body{}, root.ErrChanged
	}
	sum := sha256.Sum256(b)
	return body{size: int64(len(b)), sha: sum[:], mime: sniff(b), inline: b}, nil
}

// readHash reads a body for its hash alone.
func (ss *session) readHash(ctx context.Context, e root.Entry) (body, error) {
	r, err := ss.root.Open(ctx, e, 0)
	if err != nil {
		return body{}, err
	}
	defer func() { _ = r.Close() }()
	h := newDigest()
	if _, err := io.Copy(h, &contextReader{ctx, r}); err != nil {
		return body{}, err
	}
	if e.Size >= 0 && e.Size != h.size {
		return body{}, root.ErrChanged
	}
	return body{size: h.size, sha: h.Sum(nil), mime: sniff(h.head)}, nil
}

// digest hashes what is written to it and keeps the first bytes.
type digest struct {
	hash.Hash
	head []byte
	size int64
}

func newDigest() *digest { return &digest{Hash: sha256.New()} }

func (d *digest) Write(p []byte) (int, error) {
	if n := 512 - len(d.head); n > 0 {
		d.head = append(d.head, p[:min(n, len(p))]...)
	}
	d.size += int64(len(p))
	return d.Hash.Write(p)
}

// contextReader ends a long read when ctx does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// sniff tells a media type by the first bytes, empty if they say nothing.
func sniff(head []byte) string {
	return root.BareType(http.DetectContentType(head[:min(len(head), 512)]))
}

func storeError(err error) error {
	return fmt.Errorf("copy a file to the store: %w", err)
}
