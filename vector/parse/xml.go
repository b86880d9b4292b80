package parse

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"strings"

	"golang.org/x/text/encoding/htmlindex"
)

// walker gets the tokens of an XML part; names come without their prefix. A
// nil function ignores its tokens.
type walker struct {
	start func(name string, attr attrs) error
	end   func(name string) error
	text  func(text string) error
}

type attrs []xml.Attr

func (a attrs) get(local string) string {
	for _, at := range a {
		if at.Name.Local == local {
			return at.Value
		}
	}
	return ""
}

// walk reads one part of an archive; a part that is not there has no tokens.
func (a *archive) walk(name string, w *walker) error {
	r, err := a.open(name)
	if r == nil || err != nil {
		return err
	}
	defer r.Close()
	return walkXML(a.ctx, r, a.limits, w)
}

// walkXML reads tokens without ever building a tree. Entities other than those
// of XML itself are not expanded: a file that declares some is refused.
func walkXML(ctx context.Context, r io.Reader, limits Limits, w *walker) error {
	in := &tokenReader{r: bufio.NewReaderSize(r, 32<<10)}
	d := xml.NewDecoder(in)
	d.CharsetReader = func(label string, input io.Reader) (io.Reader, error) {
		enc, err := htmlindex.Get(label)
		if err != nil {
			return nil, reject(CodeBadEncoding, "XML in an encoding that is not known")
		}
		return enc.NewDecoder().Reader(input), nil
	}
	depth := 0
	for n := 0; ; n++ {
		if n&255 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		in.size = 0
		token, err := d.RawToken()
		if err != nil {
			if err == io.EOF && depth == 0 {
				return nil
			}
			return xmlError(ctx, err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if depth++; depth > limits.Depth {
				return reject(CodeTooDeep, "XML nested deeper than %d", limits.Depth)
			}
			if w.start != nil {
				err = w.start(t.Name.Local, t.Attr)
			}
		case xml.EndElement:
			if depth--; depth < 0 {
				return reject(CodeBroken, "XML ends an element that it did not begin")
			}
			if w.end != nil {
				err = w.end(t.Name.Local)
			}
		case xml.CharData:
			if w.text != nil {
				err = w.text(string(t))
			}
		case xml.Directive:
			if strings.Contains(strings.ToUpper(string(t)), "<!ENTITY") {
				return reject(CodeEntity, "XML that declares entities")
			}
		}
		if err != nil {
			return err
		}
	}
}

func xmlError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r, ok := Rejected(err); ok {
		return r
	}
	var syntax *xml.SyntaxError
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &syntax) && syntax.Msg == "unexpected EOF" {
		return reject(CodeTruncated, "XML ends too early")
	}
	return reject(CodeBroken, "not readable XML")
}

// maxToken bounds one tag, text or comment: the XML library holds it in memory.
const maxToken = 16 << 20

// tokenReader counts the bytes of the current token.
type tokenReader struct {
	r    *bufio.Reader
	size int
}

func (t *tokenReader) ReadByte() (byte, error) {
	if t.size++; t.size > maxToken {
		return 0, reject(CodeTextTooLong, "XML with a single piece above %d bytes", maxToken)
	}
	return t.r.ReadByte()
}

func (t *tokenReader) Read(p []byte) (int, error) { return t.r.Read(p) }

// xmlParser reads XML of any kind: one line for every element with text.
type xmlParser struct{}

func (xmlParser) Parse(ctx context.Context, in *Source, out *Writer) error {
	raw, err := in.Bytes()
	if err != nil {
		return err
	}
	text := string(raw)
	if wide(raw) != "" || in.charset != "" {
		text, _ = decode(raw, in.charset)
		// The declaration names the encoding that the text no longer has.
		if i := strings.Index(text, "?>"); i >= 0 && strings.HasPrefix(text, "<?xml") {
			text = text[i+2:]
		}
	}
	var path []string
	var own, block strings.Builder
	flush := func() error {
		s := block.String()
		block.Reset()
		return out.Paragraph(s)
	}
	line := func() {
		if s := oneLine(own.String()); s != "" && len(path) > 0 {
			block.WriteString(path[len(path)-1] + ": " + s + "\n")
		}
		own.Reset()
	}
	err = walkXML(ctx, strings.NewReader(text), in.Limits, &walker{
		start: func(name string, attr attrs) error {
			line()
			path = append(path, name)
			for _, a := range attr {
				if v := oneLine(a.Value); v != "" && a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
					block.WriteString(name + "." + a.Name.Local + ": " + cut(v, 2000) + "\n")
				}
			}
			return nil
		},
		end: func(string) error {
			line()
			path = path[:len(path)-1]
			if len(path) <= 1 || block.Len() > 16<<10 {
				return flush()
			}
			return nil
		},
		text: func(s string) error { own.WriteString(s); return nil },
	})
	if err != nil {
		return err
	}
	return flush()
}
