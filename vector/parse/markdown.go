package parse

import (
	"context"
	"strings"
)

// markdownParser finds the blocks of Markdown line by line. The text stays as
// it is, so that offsets are those of the file; inline marks are for readers.
type markdownParser struct{}

func (markdownParser) Parse(_ context.Context, in *Source, out *Writer) error {
	text, err := wholeText(in, out)
	if err != nil {
		return err
	}
	if err := out.Verbatim(text); err != nil {
		return err
	}
	m := markdown{text: text, out: out, open: -1}
	return m.read(m.frontMatter())
}

type markdown struct {
	text string
	out  *Writer
	open int // where the open paragraph, list or table begins; -1: none
	last int // its end so far
	kind Kind
}

// frontMatter skips the settings at the head of a page, and takes its title.
func (m *markdown) frontMatter() int {
	for _, fence := range []string{"---\n", "+++\n"} {
		if !strings.HasPrefix(m.text, fence) {
			continue
		}
		end := strings.Index(m.text[4:], "\n"+fence)
		if end < 0 || end > 8<<10 {
			continue
		}
		for line := range strings.SplitSeq(m.text[4:4+end], "\n") {
			key, value, found := strings.Cut(line, ":")
			if !found {
				key, value, _ = strings.Cut(line, "=")
			}
			if strings.TrimSpace(key) == "title" {
				m.out.Title(strings.Trim(strings.TrimSpace(value), `"'`))
			}
		}
		return 4 + end + 5
	}
	return 0
}

func (m *markdown) read(at int) error {
	for at < len(m.text) {
		next := lineEnd(m.text, at, len(m.text))
		line := strings.TrimRight(m.text[at:next], " \t\n")
		body := strings.TrimLeft(line, " \t")
		indent := len(line) - len(body)
		var err error
		switch level := headingLevel(body); {
		case body == "":
			if m.kind != List {
				err = m.flush()
			}
		case indent < 4 && level > 0:
			err = m.heading(level, strings.Trim(body[level:], "# \t"), at, at+len(line))
		case indent < 4 && (strings.HasPrefix(body, "```") || strings.HasPrefix(body, "~~~")) && m.kind != List:
			next, err = m.fence(at, next, body)
		case m.open >= 0 && m.kind == Paragraph && indent < 4 && underline(body) > 0:
			err = m.setext(underline(body), at+len(line))
		case indent < 4 && rule(body):
			err = m.flush()
		case itemRune(body) && (m.open < 0 || m.kind != Paragraph || indent < 4):
			err = m.extend(List, at, line)
		case m.open >= 0 && m.kind == List && (indent > 0 || !m.afterEmpty(at)):
			m.last = at + len(line) // goes on
		case strings.HasPrefix(body, "|") || m.kind == Table && m.open >= 0 && strings.Contains(body, "|"):
			err = m.extend(Table, at, line)
		case m.startsTable(body, next):
			err = m.extend(Table, at, line)
		default:
			err = m.extend(Paragraph, at, line)
		}
		if err != nil {
			return err
		}
		at = next
	}
	return m.flush()
}

func headingLevel(body string) int {
	n := 0
	for n < len(body) && body[n] == '#' {
		n++
	}
	if n == 0 || n > 6 || n < len(body) && body[n] != ' ' && body[n] != '\t' {
		return 0
	}
	return n
}

// underline tells a line of = or - below a heading.
func underline(body string) int {
	if len(body) >= 2 && strings.Trim(body, "=") == "" {
		return 1
	}
	if len(body) >= 2 && strings.Trim(body, "-") == "" {
		return 2
	}
	return 0
}

func rule(body string) bool {
	bare := strings.ReplaceAll(body, " ", "")
	return len(bare) >= 3 && (strings.Trim(bare, "-") == "" || strings.Trim(bare, "*") == "" || strings.Trim(bare, "_") == "")
}

func itemRune(body string) bool {
	if len(body) >= 2 && (body[0] == '-' || body[0] == '*' || body[0] == '+') && (body[1] == ' ' || body[1] == '\t') {
		return true
	}
	digits := strings.TrimLeft(body, "0123456789")
	n := len(body) - len(digits)
	return n > 0 && n < 10 && (strings.HasPrefix(digits, ". ") || strings.HasPrefix(digits, ") "))
}

// afterEmpty: the line before at is empty.
func (m *markdown) afterEmpty(at int) bool {
	return strings.HasSuffix(strings.TrimRight(m.text[max(0, at-64):at], " \t"), "\n\n") || at == 0
}

// startsTable: a header line whose next line is the delimiter line of a table.
func (m *markdown) startsTable(body string, next int) bool {
	if !strings.Contains(body, "|") || next >= len(m.text) {
		return false
	}
	line := strings.TrimSpace(m.text[next:lineEnd(m.text, next, len(m.text))])
	return strings.Contains(line, "-") && strings.Contains(line, "|") && strings.Trim(line, "|-: ") == ""
}

func (m *markdown) extend(kind Kind, at int, line string) error {
	if m.open >= 0 && m.kind != kind {
		if err := m.flush(); err != nil {
			return err
		}
	}
	if m.open < 0 {
		m.open, m.kind = at, kind
	}
	m.last = at + len(line)
	return nil
}

func (m *markdown) flush() error {
	if m.open < 0 {
		return nil
	}
	start, kind := m.open, m.kind
	m.open, m.kind = -1, Paragraph
	return m.out.Mark(kind, 0, "", "", start, m.last)
}

func (m *markdown) heading(level int, title string, start, end int) error {
	if err := m.flush(); err != nil {
		return err
	}
	return m.out.Mark(Heading, level, "", plainTitle(title), start, end)
}

// setext makes the open paragraph a heading.
func (m *markdown) setext(level, end int) error {
	start := m.open
	title := m.text[start:m.last]
	m.open = -1
	return m.out.Mark(Heading, level, "", plainTitle(title), start, end)
}

var inlineMarks = strings.NewReplacer("`", "", "**", "", "__", "")

// plainTitle drops the marks of code, emphasis and links.
func plainTitle(title string) string {
	title = inlineMarks.Replace(title)
	for range 8 {
		open := strings.IndexByte(title, '[')
		if open < 0 {
			break
		}
		text, rest, found := strings.Cut(title[open+1:], "](")
		_, after, closed := strings.Cut(rest, ")")
		if !found || !closed {
			break
		}
		title = title[:open] + text + after
	}
	return title
}

// fence marks a block of code up to its closing fence, or to the end.
func (m *markdown) fence(at, next int, body string) (int, error) {
	if err := m.flush(); err != nil {
		return next, err
	}
	mark := body[:len(body)-len(strings.TrimLeft(body, body[:1]))]
	lang, _, _ := strings.Cut(strings.TrimSpace(body[len(mark):]), " ")
	end := len(m.text)
	for next < len(m.text) {
		from := next
		next = lineEnd(m.text, next, len(m.text))
		if line := strings.TrimSpace(m.text[from:next]); strings.HasPrefix(line, mark) && strings.Trim(line, mark[:1]) == "" {
			end = next
			break
		}
	}
	end = at + len(strings.TrimRight(m.text[at:end], "\n"))
	return next, m.out.Mark(Listing, 0, strings.ToLower(cut(lang, 20)), "", at, end)
}
