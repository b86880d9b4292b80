// Package parse reads files of many formats and gives their text with its
// structure: headings, paragraphs, lists, tables, code, pages.
//
// What comes in is hostile until proven otherwise: every parser has caps of
// time, memory and depth, opens no file and no connection, and a file that it
// refuses is a Reject with a reason that holds nothing of the content.
package parse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// Input is one file.
type Input struct {
	Name string // only its ending is looked at, where the content leaves a doubt
	Mime string // as declared by the source; the content wins
	Size int64  // bytes; below 0: unknown

	// Body is read once, from its start. A Body that is also an io.ReaderAt with
	// a known Size is read in place; any other one is held in memory.
	Body io.Reader
}

// Limits are the caps of one document. A zero field means its default.
type Limits struct {
	InputBytes     int64         // size of the file; 128 MiB
	TextBytes      int           // size of Document.Text, and of a file that is read as a whole; 32 MiB
	ExpandedBytes  int64         // sum of what the entries of an archive expand to; 512 MiB
	Pages          int           // pages, slides or sheets; 5000
	Depth          int           // nesting of elements, lists, objects, messages; 256
	Blocks         int           // 500 000
	Duration       time.Duration // wall time; 60 s
	PDFMemoryBytes int64         // memory of the sandbox that reads PDF; only New looks at it; 256 MiB
}

// WithDefaults fills the zero fields.
func (l Limits) WithDefaults() Limits {
	set(&l.InputBytes, 128<<20)
	set(&l.TextBytes, 32<<20)
	set(&l.ExpandedBytes, 512<<20)
	set(&l.Pages, 5000)
	set(&l.Depth, 256)
	set(&l.Blocks, 500_000)
	set(&l.Duration, 60*time.Second)
	set(&l.PDFMemoryBytes, 256<<20)
	return l
}

func set[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Parser reads one format. Parse is called by many goroutines at once. It
// returns a *Reject for a file that it refuses and honours ctx within a second.
type Parser interface {
	Parse(ctx context.Context, in *Source, out *Writer) error
}

// Parse reads one document with a shared Engine, which lives as long as the
// process. Errors: a *Reject, an error of Body, or the error of ctx.
func Parse(ctx context.Context, in Input, limits Limits) (*Document, error) {
	return sharedEngine().Parse(ctx, in, limits)
}

// Parse reads one document; many goroutines may call it.
func (e *Engine) Parse(ctx context.Context, in Input, limits Limits) (*Document, error) {
	limits = limits.WithDefaults()
	bounded, cancel := context.WithTimeout(ctx, limits.Duration)
	defer cancel()
	src, out, err := e.read(bounded, in, limits)
	if body := src.body.failed(); body != nil && ctx.Err() == nil && bounded.Err() == nil {
		return nil, fmt.Errorf("read the file: %w", body) // whatever the parser made of it
	}
	if err != nil {
		return nil, settle(ctx, bounded, limits, err)
	}
	doc, err := out.finish()
	if err != nil {
		return nil, settle(ctx, bounded, limits, err)
	}
	return doc, nil
}

// read opens and parses. A panic is a file that found a bug: it is refused,
// the others go on.
func (e *Engine) read(ctx context.Context, in Input, limits Limits) (src *Source, out *Writer, err error) {
	src = newSource(ctx, in, limits)
	defer func() {
		if recover() != nil {
			err = reject(CodeBroken, "the parser of %s gave up", src.Format)
		}
	}()
	if err := src.open(ctx, in); err != nil {
		return src, nil, err
	}
	out = newWriter(ctx, src.Format, limits)
	return src, out, e.parser(src.Format).Parse(ctx, src, out)
}

// settle turns the end of the document's own time into a reject: the caller's
// context says whether it was ours that ended.
func settle(ctx, bounded context.Context, limits Limits, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if _, ok := Rejected(err); ok {
		return err
	}
	if bounded.Err() != nil {
		return reject(CodeTooSlow, "takes longer than %v", limits.Duration)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return reject(CodeTruncated, "ends too early")
	}
	var start *startError
	if errors.As(err, &start) {
		return err // the machine's fault, not the file's
	}
	return reject(CodeBroken, "not readable")
}

// Source is the opened file that a Parser reads.
type Source struct {
	Format string
	Name   string
	Size   int64
	Limits Limits

	body    *body
	at      io.ReaderAt // nil: only stream has the file
	stream  io.Reader
	head    []byte
	charset string // declared by the Mime type
}

const headBytes = 8 << 10

func newSource(ctx context.Context, in Input, limits Limits) *Source {
	s := &Source{Name: in.Name, Size: in.Size, Limits: limits, charset: charsetOf(in.Mime),
		body: &body{ctx: ctx, r: in.Body, left: limits.InputBytes, limit: limits.InputBytes}}
	s.stream = s.body
	if at, ok := in.Body.(io.ReaderAt); ok && in.Size >= 0 {
		s.body.at, s.at = at, s.body
		s.stream = io.NewSectionReader(s.body, 0, in.Size)
	}
	return s
}

// open reads the head and tells the format.
func (s *Source) open(ctx context.Context, in Input) error {
	if in.Body == nil {
		return reject(CodeEmpty, "no content")
	}
	if in.Size > s.Limits.InputBytes {
		return reject(CodeTooLarge, "%d bytes; %d are allowed", in.Size, s.Limits.InputBytes)
	}
	s.head = make([]byte, headBytes)
	n, err := io.ReadFull(s.stream, s.head)
	s.head = s.head[:n]
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	if n == 0 {
		return reject(CodeEmpty, "no content")
	}
	s.stream = io.MultiReader(bytes.NewReader(s.head), s.stream)
	s.Format, err = detect(ctx, s, in.Mime)
	return err
}

// ReaderAt gives the file for reading at any place, held in memory where Body
// could not do that.
func (s *Source) ReaderAt() (io.ReaderAt, int64, error) {
	if s.at == nil {
		whole, err := io.ReadAll(s.stream)
		if err != nil {
			return nil, 0, err
		}
		s.at, s.Size = bytes.NewReader(whole), int64(len(whole))
	}
	return s.at, s.Size, nil
}

// Bytes is the whole file, which may be no larger than Limits.TextBytes.
func (s *Source) Bytes() ([]byte, error) {
	limit := int64(s.Limits.TextBytes)
	if s.Size > limit {
		return nil, reject(CodeTextTooLong, "%d bytes of text; %d are allowed", s.Size, limit)
	}
	whole, err := io.ReadAll(io.LimitReader(s.stream, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(whole)) > limit {
		return nil, reject(CodeTextTooLong, "more than %d bytes of text", limit)
	}
	return whole, nil
}

// body guards Input.Body: it ends with the context and at the limit, and keeps
// the first error that the caller's reader gave, so that a file which could
// not be read is never called broken.
type body struct {
	ctx         context.Context
	r           io.Reader
	at          io.ReaderAt
	left, limit int64
	err         atomic.Pointer[error]
}

func (b *body) failed() error {
	if err := b.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (b *body) keep(err error) error {
	if err != nil && err != io.EOF {
		b.err.CompareAndSwap(nil, &err)
	}
	return err
}

// Read is for a Body that is a stream only.
func (b *body) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.left <= 0 {
		var one [1]byte
		if n, err := io.ReadFull(b.r, one[:]); n == 0 {
			return 0, b.keep(err)
		}
		return 0, reject(CodeTooLarge, "more than %d bytes", b.limit)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, b.keep(err)
}

// ReadAt is for a Body that can be read at any place.
func (b *body) ReadAt(p []byte, off int64) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if off < 0 { // a place that the file itself gave, through a reader of its format
		return 0, errors.New("a place before the beginning")
	}
	n, err := b.at.ReadAt(p, off)
	return n, b.keep(err)
}
