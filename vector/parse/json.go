package parse

import (
	"context"
	"encoding/json"
	"io"
	"strconv"
	"strings"
)

// jsonParser reads JSON, or lines of it: "path: value" lines, a paragraph for
// every element of the outermost array or object.
type jsonParser struct{ lines bool }

func (p jsonParser) Parse(_ context.Context, in *Source, out *Writer) error {
	text, err := wholeText(in, out)
	if err != nil {
		return err
	}
	if p.lines {
		return jsonLines(text, out)
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	values := 0
	for {
		w := jsonWriter{out: out, d: d}
		if err := w.value("", 0); err != nil {
			if err == io.EOF && values > 0 {
				return nil
			}
			if values > 0 && out.doc.Blocks != nil {
				return jsonLines(text, freshWriter(out)) // it had lines of JSON
			}
			return jsonError(err)
		}
		values++
		if err := w.flush(); err != nil {
			return err
		}
	}
}

// freshWriter forgets what was written.
func freshWriter(out *Writer) *Writer {
	*out = *newWriter(out.ctx, out.doc.Format, out.limits)
	return out
}

func jsonLines(text string, out *Writer) error {
	good := 0
	for line := range strings.SplitSeq(text, "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		d := json.NewDecoder(strings.NewReader(line))
		d.UseNumber()
		w := jsonWriter{out: out, d: d, single: true}
		if err := w.value("", 0); err != nil {
			if r, ok := Rejected(err); ok && r.Code == CodeTextTooLong || out.ctx.Err() != nil {
				return err
			}
			out.Warn(WarnBadRow)
			continue
		}
		good++
		if err := w.flush(); err != nil {
			return err
		}
	}
	if good == 0 {
		return reject(CodeBroken, "no line of it is readable JSON")
	}
	return nil
}

func jsonError(err error) error {
	if _, ok := Rejected(err); ok {
		return err
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return reject(CodeTruncated, "JSON ends too early")
	}
	if _, ok := err.(*json.SyntaxError); ok {
		return reject(CodeBroken, "not readable JSON")
	}
	return err
}

type jsonWriter struct {
	out    *Writer
	d      *json.Decoder
	single bool // one paragraph for the whole value
	text   strings.Builder
}

func (w *jsonWriter) flush() error {
	text := w.text.String()
	w.text.Reset()
	return w.out.Paragraph(text)
}

// value writes the next value; the recursion ends at Limits.Depth.
func (w *jsonWriter) value(path string, depth int) error {
	if depth > w.out.limits.Depth {
		return reject(CodeTooDeep, "JSON nested deeper than %d", w.out.limits.Depth)
	}
	token, err := w.d.Token()
	if err != nil {
		return err
	}
	delim, composite := token.(json.Delim)
	if !composite {
		return w.scalar(path, token)
	}
	for n := 0; w.d.More(); n++ {
		at := path
		if delim == '{' {
			key, err := w.d.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string)
			if at = cut(oneLine(name), 200); path != "" {
				at = cut(path, 1000) + "." + at
			}
		} else if n > 0 && path != "" && w.text.Len() > 4<<10 {
			w.text.WriteByte('\n') // long lists read better in parts
		}
		if err := w.value(at, depth+1); err != nil {
			return err
		}
		if !w.single && (depth == 0 && delim == '[' || depth <= 1 && w.text.Len() > 2<<10) {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	_, err = w.d.Token()
	return err
}

func (w *jsonWriter) scalar(path string, token json.Token) error {
	var text string
	switch v := token.(type) {
	case string:
		text = v
	case json.Number:
		text = v.String()
	case bool:
		text = strconv.FormatBool(v)
	default:
		return w.out.alive() // null says nothing
	}
	if w.text.Len()+len(path)+len(text) > w.out.limits.TextBytes {
		return reject(CodeTextTooLong, "more than %d bytes of text", w.out.limits.TextBytes)
	}
	if path != "" {
		w.text.WriteString(path + ": ")
	}
	w.text.WriteString(strings.TrimSpace(text))
	w.text.WriteByte('\n')
	return w.out.alive()
}
