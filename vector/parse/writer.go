package parse

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"
)

// Writer collects what a parser finds, in reading order, inside the limits.
// Its methods return a *Reject at a limit and the context's error at its end:
// a parser passes both on at once.
type Writer struct {
	ctx             context.Context
	limits          Limits
	doc             Document
	text            strings.Builder
	path            headingPath
	page            int
	calls           int
	inList, inTable bool // the last block is an open list, an open table
	warned          map[Code]int
}

func newWriter(ctx context.Context, format string, limits Limits) *Writer {
	return &Writer{ctx: ctx, limits: limits, doc: Document{Format: format}, warned: map[Code]int{}}
}

// Title sets the title, the first one that is not empty wins.
func (w *Writer) Title(title string) {
	if w.doc.Title == "" {
		w.doc.Title = cut(oneLine(title), 300)
	}
}

// Language sets what the file itself declares, as "en" or "en-GB".
func (w *Writer) Language(tag string) {
	primary, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(tag)), "-")
	primary, _, _ = strings.Cut(primary, "_")
	if len(primary) == 2 && primary[0] >= 'a' && primary[0] <= 'z' && primary[1] >= 'a' && primary[1] <= 'z' {
		w.doc.Language = primary
	}
}

// Page starts the next page, from 1.
func (w *Writer) Page(page int) error {
	if page > w.limits.Pages {
		return reject(CodeTooManyPage, "more than %d pages", w.limits.Pages)
	}
	w.page, w.inList, w.inTable = page, false, false
	w.doc.Pages = max(w.doc.Pages, page)
	return w.alive()
}

// Warn counts something that was left out.
func (w *Writer) Warn(code Code) { w.warned[code]++ }

// Heading adds a heading; the blocks after it are below it.
func (w *Writer) Heading(level int, title string) error {
	title = oneLine(title)
	if title == "" {
		return w.alive()
	}
	level = min(max(level, 1), 6)
	title = cut(title, 1000)
	above := w.path.over(level)
	if err := w.block(Heading, level, "", above, strings.Repeat("#", level)+" "+title); err != nil {
		return err
	}
	w.path.enter(level, cut(title, 200))
	return nil
}

// Paragraph adds a paragraph; line breaks inside of it stay.
func (w *Writer) Paragraph(text string) error {
	return w.block(Paragraph, 0, "", w.path.above, trimLines(clean(text)))
}

// Code adds source text as it is.
func (w *Writer) Code(lang, text string) error {
	return w.block(Listing, 0, strings.ToLower(lang), w.path.above, strings.Trim(clean(text), "\n"))
}

// Item adds a list item, depth from 0, to the list that the last call began,
// or to a new one.
func (w *Writer) Item(depth int, text string) error {
	text = trimLines(clean(text))
	if text == "" {
		return w.alive()
	}
	indent := strings.Repeat("  ", min(max(depth, 0), 16))
	line := indent + "- " + strings.ReplaceAll(text, "\n", "\n"+indent+"  ")
	if !w.inList {
		err := w.block(List, 0, "", w.path.above, line)
		w.inList = err == nil
		return err
	}
	return w.extend(line)
}

// Row adds a row to the table that the last call was in, or begins a table
// with it as the header: a table of any length is written as it is read.
func (w *Writer) Row(cells []string) error {
	var b strings.Builder
	b.WriteByte('|')
	for _, c := range cells {
		b.WriteByte(' ')
		b.WriteString(cell(c))
		b.WriteString(" |")
	}
	if !w.inTable {
		if len(cells) == 0 {
			return w.alive()
		}
		b.WriteString("\n|" + strings.Repeat(" --- |", len(cells)))
		err := w.block(Table, 0, "", w.path.above, b.String())
		w.inTable = err == nil
		return err
	}
	return w.extend(b.String())
}

// EndTable ends the open table, so that the next Row begins another one.
func (w *Writer) EndTable() { w.inTable = false }

// extend adds a line to the last block.
func (w *Writer) extend(line string) error {
	if err := w.room(len(line) + 1); err != nil {
		return err
	}
	w.text.WriteByte('\n')
	w.text.WriteString(line)
	w.doc.Blocks[len(w.doc.Blocks)-1].End = w.text.Len()
	return nil
}

// Verbatim makes text the document's text as it is; Mark tells its blocks. It
// is for formats that are text already, so that offsets are those of the file.
func (w *Writer) Verbatim(text string) error {
	if err := w.room(len(text)); err != nil {
		return err
	}
	w.text.WriteString(text)
	return nil
}

// Mark adds the block text[start:end] of a Verbatim text; title is that of a
// heading.
func (w *Writer) Mark(kind Kind, level int, lang, title string, start, end int) error {
	if err := w.alive(); err != nil {
		return err
	}
	if len(w.doc.Blocks) >= w.limits.Blocks {
		return reject(CodeTextTooLong, "more than %d paragraphs", w.limits.Blocks)
	}
	above := w.path.above
	if kind == Heading {
		above = w.path.over(level)
	}
	w.doc.Blocks = append(w.doc.Blocks, Block{Kind: kind, Level: level, Page: w.page, Lang: lang, Heading: above, Start: start, End: end})
	if title = oneLine(title); kind == Heading && title != "" {
		w.path.enter(level, cut(title, 200))
	}
	return nil
}

func (w *Writer) block(kind Kind, level int, lang string, above []string, text string) error {
	w.inList, w.inTable = false, false
	if strings.TrimSpace(text) == "" {
		return w.alive()
	}
	if len(w.doc.Blocks) >= w.limits.Blocks {
		return reject(CodeTextTooLong, "more than %d paragraphs", w.limits.Blocks)
	}
	if err := w.room(len(text) + 2); err != nil {
		return err
	}
	if w.text.Len() > 0 {
		w.text.WriteString("\n\n")
	}
	start := w.text.Len()
	w.text.WriteString(text)
	w.doc.Blocks = append(w.doc.Blocks, Block{Kind: kind, Level: level, Page: w.page, Lang: lang,
		Heading: above, Start: start, End: w.text.Len()})
	return nil
}

func (w *Writer) room(n int) error {
	if w.text.Len()+n > w.limits.TextBytes {
		return reject(CodeTextTooLong, "more than %d bytes of text", w.limits.TextBytes)
	}
	return w.alive()
}

func (w *Writer) alive() error {
	if w.calls++; w.calls&63 == 0 {
		return w.ctx.Err()
	}
	return nil
}

func (w *Writer) finish() (*Document, error) {
	d := &w.doc
	d.Text = w.text.String()
	if len(d.Blocks) == 0 {
		if d.NeedsOCR > 0 {
			return nil, reject(CodeNeedsOCR, "%d pages hold pictures and no text", d.NeedsOCR)
		}
		return nil, reject(CodeEmpty, "no text in the file")
	}
	if d.Title == "" {
		for _, b := range d.Blocks[:min(len(d.Blocks), 20)] {
			if b.Kind == Heading && b.Level == 1 {
				d.Title = cut(oneLine(strings.Trim(d.Body(b), "#= \n")), 300)
				break
			}
		}
	}
	if d.Language == "" {
		d.Language = language(d.Text)
	}
	if d.NeedsOCR > 0 {
		w.warned[WarnNeedsOCR] = d.NeedsOCR
	}
	for code, n := range w.warned {
		d.Warnings = append(d.Warnings, Warning{Code: code, Count: n})
	}
	slices.SortFunc(d.Warnings, func(a, b Warning) int { return strings.Compare(string(a.Code), string(b.Code)) })
	return d, w.ctx.Err()
}

// clean makes text valid UTF-8 with plain line ends and without control
// characters: the store refuses NUL, and the others mean nothing to a reader.
func clean(s string) string {
	if isClean(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size <= 1:
			b.WriteRune(utf8.RuneError)
		case r == '\r':
			if i+1 >= len(s) || s[i+1] != '\n' {
				b.WriteByte('\n')
			}
		case r == '\u2028' || r == '\u2029' || r == '\u0085' || r == '\f' || r == '\v':
			b.WriteByte('\n')
		case !isControl(r):
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}

// isControl: C0 and C1 but tab and line end, noncharacters, and the byte order
// mark inside of a text.
func isControl(r rune) bool {
	return r < 0x20 && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == 0xfeff || r&0xfffe == 0xfffe ||
		r >= 0xfdd0 && r <= 0xfdef
}

func isClean(s string) bool {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c < 0x20 && c != '\n' && c != '\t' || c == 0x7f {
				return false
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size <= 1 || isControl(r) || r == '\u2028' || r == '\u2029' {
			return false
		}
		i += size
	}
	return true
}

// oneLine folds all white space to single spaces.
func oneLine(s string) string { return strings.Join(strings.Fields(clean(s)), " ") }

// trimLines drops white space at the end of lines, and empty lines at both ends.
func trimLines(s string) string {
	if !strings.Contains(s, "\n") {
		return strings.TrimSpace(s)
	}
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \t")
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// cut shortens s to at most n bytes, at the end of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// cell is one cell of a Markdown table.
func cell(s string) string {
	s = oneLine(s)
	if strings.IndexByte(s, '|') >= 0 {
		s = strings.ReplaceAll(s, "|", `\|`)
	}
	return s
}
