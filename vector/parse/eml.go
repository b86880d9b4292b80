package parse

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"

	"golang.org/x/text/encoding/htmlindex"
)

// emlParser reads a mail: its subject as the title, who wrote to whom and
// when, and its text. Attachments are counted, not read.
type emlParser struct{}

const (
	maxMailDepth = 20
	maxMailParts = 500
)

func (emlParser) Parse(ctx context.Context, in *Source, out *Writer) error {
	raw, err := in.Bytes()
	if err != nil {
		return err
	}
	if bytes.HasPrefix(raw, []byte("From ")) { // the line of an mbox
		if i := bytes.IndexByte(raw, '\n'); i >= 0 {
			raw = raw[i+1:]
		}
	}
	m := mailText{ctx: ctx, out: out}
	return m.message(raw, 0)
}

type mailText struct {
	ctx   context.Context
	out   *Writer
	parts int
}

var words = mime.WordDecoder{CharsetReader: func(charset string, r io.Reader) (io.Reader, error) {
	enc, err := htmlindex.Get(charset)
	if err != nil {
		return nil, err
	}
	return enc.NewDecoder().Reader(r), nil
}}

func decodeWords(s string) string {
	if plain, err := words.DecodeHeader(s); err == nil {
		return plain
	}
	return s
}

func (m *mailText) message(raw []byte, depth int) error {
	msg, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return reject(CodeBroken, "not a readable mail")
	}
	subject := decodeWords(msg.Header.Get("Subject"))
	m.out.Title(subject)
	if err := m.out.Heading(min(depth+1, 6), subject); err != nil {
		return err
	}
	var who []string
	for _, name := range []string{"From", "To", "Cc", "Date"} {
		if v := oneLine(decodeWords(msg.Header.Get(name))); v != "" {
			who = append(who, name+": "+cut(v, 500))
		}
	}
	if err := m.out.Paragraph(strings.Join(who, "\n")); err != nil {
		return err
	}
	return m.part(header(msg.Header), msg.Body, depth)
}

// header is what mail and multipart have in common.
type header map[string][]string

func (h header) get(name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func (m *mailText) part(h header, body io.Reader, depth int) error {
	if depth > maxMailDepth {
		return reject(CodeTooDeep, "a mail nested deeper than %d", maxMailDepth)
	}
	if m.parts++; m.parts > maxMailParts {
		return reject(CodeTextTooLong, "a mail of more than %d parts", maxMailParts)
	}
	if err := m.ctx.Err(); err != nil {
		return err
	}
	kind, params, err := mime.ParseMediaType(h.get("Content-Type"))
	if err != nil {
		kind, params = "text/plain", map[string]string{}
	}
	if place, _, _ := mime.ParseMediaType(h.get("Content-Disposition")); place == "attachment" {
		m.out.Warn(WarnAttachment)
		return nil
	}
	switch {
	case strings.HasPrefix(kind, "multipart/"):
		return m.multi(kind, params["boundary"], body, depth)
	case kind == "message/rfc822", kind == "text/plain", kind == "text/html":
		raw, err := io.ReadAll(decodeTransfer(h.get("Content-Transfer-Encoding"), body))
		if err != nil {
			m.out.Warn(WarnPartMissing) // what was readable counts
		}
		return m.text(kind, raw, params["charset"], depth)
	}
	m.out.Warn(WarnAttachment)
	return nil
}

func (m *mailText) text(kind string, raw []byte, charset string, depth int) error {
	switch kind {
	case "message/rfc822":
		return m.message(raw, depth+1)
	case "text/html":
		return writeHTML(m.ctx, raw, charset, m.out)
	}
	text, replaced := decode(raw, charset)
	if replaced {
		m.out.Warn(WarnReplaced)
	}
	for paragraph := range strings.SplitSeq(clean(text), "\n\n") {
		if err := m.out.Paragraph(paragraph); err != nil {
			return err
		}
	}
	return nil
}

// multi reads the parts; of alternatives the one that has the most structure
// and can be read.
func (m *mailText) multi(kind, boundary string, body io.Reader, depth int) error {
	if boundary == "" {
		return reject(CodeBroken, "a mail of parts that does not say where they end")
	}
	type alternative struct {
		h   header
		raw []byte
	}
	var best *alternative
	r := multipart.NewReader(body, boundary)
	for n := 0; ; n++ {
		p, err := r.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil || n > maxMailParts {
			m.out.Warn(WarnPartMissing) // the end is missing
			break
		}
		if kind != "multipart/alternative" {
			if err := m.part(header(p.Header), p, depth+1); err != nil {
				return err
			}
			continue
		}
		raw, err := io.ReadAll(p)
		if err != nil {
			m.out.Warn(WarnPartMissing)
		}
		sub, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if best == nil || sub == "text/html" || strings.HasPrefix(sub, "multipart/") {
			best = &alternative{header(p.Header), raw}
		}
	}
	if best == nil {
		return nil
	}
	return m.part(best.h, bytes.NewReader(best.raw), depth+1)
}

func decodeTransfer(name string, r io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, r)
	case "quoted-printable":
		return quotedprintable.NewReader(r)
	}
	return r
}
