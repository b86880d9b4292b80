package parse

import (
	"archive/zip"
	"context"
	"errors"
	"io"
	"path"
	"strings"
)

// archive is a zip file read in place: names are only compared, never used as
// a path, and everything that is expanded counts against one budget.
type archive struct {
	ctx    context.Context
	names  map[string]*zip.File
	left   int64
	limits Limits
}

const maxEntries = 20_000

func openArchive(ctx context.Context, at io.ReaderAt, size int64, limits Limits) (*archive, error) {
	z, err := zip.NewReader(at, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, reject(CodeBroken, "not a readable zip file")
	}
	if len(z.File) > maxEntries {
		return nil, reject(CodeBomb, "%d entries; %d are allowed", len(z.File), maxEntries)
	}
	a := &archive{ctx: ctx, names: make(map[string]*zip.File, len(z.File)), left: limits.ExpandedBytes, limits: limits}
	for _, f := range z.File {
		name := strings.TrimPrefix(strings.ReplaceAll(f.Name, `\`, "/"), "/")
		if _, double := a.names[name]; !double {
			a.names[name] = f
		}
	}
	return a, nil
}

func (s *Source) archive(ctx context.Context) (*archive, error) {
	at, size, err := s.ReaderAt()
	if err != nil {
		return nil, err
	}
	return openArchive(ctx, at, size, s.Limits)
}

func (a *archive) has(name string) bool { return a.names[name] != nil }

// open reads one entry; nil and no error: there is none of this name.
func (a *archive) open(name string) (io.ReadCloser, error) {
	f := a.names[name]
	if f == nil {
		return nil, nil
	}
	if f.Flags&1 != 0 {
		return nil, reject(CodeEncrypted, "an archive with a password")
	}
	r, err := f.Open()
	if err != nil {
		return nil, reject(CodeBroken, "an entry of the archive cannot be read")
	}
	return &entry{a: a, r: r}, nil
}

// bytes is one whole entry, no larger than Limits.TextBytes.
func (a *archive) bytes(name string) ([]byte, error) {
	r, err := a.open(name)
	if r == nil || err != nil {
		return nil, err
	}
	defer r.Close()
	whole, err := io.ReadAll(io.LimitReader(r, int64(a.limits.TextBytes)+1))
	if err == nil && len(whole) > a.limits.TextBytes {
		err = reject(CodeTextTooLong, "more than %d bytes in one entry", a.limits.TextBytes)
	}
	return whole, err
}

// entry counts what it expands to.
type entry struct {
	a *archive
	r io.ReadCloser
}

func (e *entry) Close() error { return e.r.Close() }

func (e *entry) Read(p []byte) (int, error) {
	if err := e.a.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := e.r.Read(p)
	if e.a.left -= int64(n); e.a.left < 0 {
		return 0, reject(CodeBomb, "expands to more than %d bytes", e.a.limits.ExpandedBytes)
	}
	if err != nil && err != io.EOF && e.a.ctx.Err() == nil {
		err = reject(CodeBroken, "an entry of the archive is damaged")
	}
	return n, err
}

// relations reads the targets of the part's links by their id.
func (a *archive) relations(part string) (map[string]string, error) {
	dir, base := path.Split(part)
	out := map[string]string{}
	err := a.walk(dir+"_rels/"+base+".rels", &walker{start: func(name string, attr attrs) error {
		if name != "Relationship" || attr.get("TargetMode") == "External" {
			return nil
		}
		target := attr.get("Target")
		if !strings.HasPrefix(target, "/") {
			target = path.Join(dir, target)
		}
		out[attr.get("Id")] = strings.TrimPrefix(path.Clean("/"+target), "/")
		return nil
	}})
	return out, err
}
