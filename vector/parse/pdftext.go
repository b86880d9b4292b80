package parse

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// writePage turns the lines of one page into blocks.
func (f *pdfFile) writePage(index int, text string) error {
	if err := f.out.Page(index + 1); err != nil {
		return err
	}
	marks := f.outline[index]
	lines := f.withoutEdges(pdfLines(text))
	var open []string
	flush := func() error {
		text := joinLines(open)
		open = open[:0]
		for _, mark := range bullets {
			if item, ok := strings.CutPrefix(text, mark); ok {
				return f.out.Item(0, item)
			}
		}
		return f.out.Paragraph(text)
	}
	for i := 0; i < len(lines); i++ {
		if used, n := matchBookmark(marks, lines[i:]); n > 0 {
			if err := flush(); err != nil {
				return err
			}
			for _, m := range marks[:used] {
				if err := f.out.Heading(m.level, m.title); err != nil {
					return err
				}
			}
			marks = marks[used:]
			i += n - 1
			continue
		}
		if lines[i] == "" || len(open) > 0 && endsParagraph(open, lines[i]) {
			if err := flush(); err != nil {
				return err
			}
		}
		if lines[i] != "" {
			open = append(open, lines[i])
		}
	}
	if err := flush(); err != nil {
		return err
	}
	// Bookmarks whose title is not on the page still tell where things are.
	for _, m := range marks {
		f.out.path.enter(m.level, cut(m.title, 200))
	}
	return nil
}

// pdfLines gives the lines of a page. U+0002 is the hyphen of a broken word.
func pdfLines(text string) []string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.ReplaceAll(text, "-\x02\n", "")
	text = strings.ReplaceAll(text, "\x02\n", "")
	lines := strings.Split(clean(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines
}

// matchBookmark tells whether lines begin with the title of one of the next
// bookmarks, over up to three lines: how many bookmarks are used up, how many
// lines.
func matchBookmark(marks []bookmark, lines []string) (used, n int) {
	if len(marks) == 0 || lines[0] == "" {
		return 0, 0
	}
	for m := range min(len(marks), 4) {
		want := squeeze(marks[m].title)
		if want == "" {
			continue
		}
		got := ""
		for k := 0; k < 3 && k < len(lines) && len(got) < len(want)+24; k++ {
			got += squeeze(lines[k])
			// "3.2 Title" and "Title" are the same heading, "Title … 17" is its entry in the contents.
			if got == want || strings.TrimLeft(got, "0123456789.") == want || got == strings.TrimLeft(want, "0123456789.") {
				return m + 1, k + 1
			}
		}
	}
	return 0, 0
}

// squeeze keeps letters and digits, in lower case.
func squeeze(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || r == '.' {
			return unicode.ToLower(r)
		}
		return -1
	}, s)
}

// endsParagraph tells whether next begins a paragraph, which a PDF does not
// say: the last line ended a sentence and was short, or next is an item.
func endsParagraph(open []string, next string) bool {
	if isItem(next) {
		return true
	}
	last := open[len(open)-1]
	end, _ := utf8.DecodeLastRuneInString(last)
	if !strings.ContainsRune(".!?:;。！？”\"", end) {
		return false
	}
	widest := 0
	for _, l := range open {
		widest = max(widest, len(l))
	}
	return len(last)*10 < max(widest, len(next))*8
}

var bullets = []string{"• ", "– ", "- ", "* ", "▪ ", "● ", "◦ ", "‣ "}

func isItem(line string) bool {
	for _, mark := range bullets {
		if strings.HasPrefix(line, mark) {
			return true
		}
	}
	digits := strings.TrimLeft(line, "0123456789")
	return len(digits) < len(line) && len(line)-len(digits) <= 3 &&
		(strings.HasPrefix(digits, ". ") || strings.HasPrefix(digits, ") "))
}

// joinLines makes one paragraph of its lines. Lines of signs that are written
// without spaces are joined without one.
func joinLines(lines []string) string {
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			last, _ := utf8.DecodeLastRuneInString(lines[i-1])
			first, _ := utf8.DecodeRuneInString(line)
			if !noSpaces(last) || !noSpaces(first) {
				b.WriteByte(' ')
			}
		}
		b.WriteString(line)
	}
	return b.String()
}

func noSpaces(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana) || r >= 0x3000 && r <= 0x303f || r >= 0xff00 && r <= 0xff60
}

// countEdges learns which lines repeat at the top and at the bottom of pages.
func (f *pdfFile) countEdges(texts []string) {
	f.repeats = map[string]int{}
	for _, text := range texts {
		for _, line := range edges(pdfLines(text)) {
			f.repeats[line]++
		}
	}
}

// edges gives the first and the last line of a page, without digits: page
// numbers change.
func edges(lines []string) []string {
	var out []string
	for i := range lines {
		if lines[i] != "" {
			out = append(out, "^"+digitless(lines[i]))
			break
		}
	}
	for i := len(lines) - 1; i >= 0; i-- {
		if lines[i] != "" {
			return append(out, "$"+digitless(lines[i]))
		}
	}
	return out
}

func digitless(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, s)
}

// withoutEdges drops running heads and page numbers: lines that at least half
// of the pages around have at the same edge.
func (f *pdfFile) withoutEdges(lines []string) []string {
	const often = 4
	drop := func(key string) bool { return f.repeats[key] >= often }
	for i := range lines {
		if lines[i] != "" {
			if drop("^" + digitless(lines[i])) {
				lines[i] = ""
			}
			break
		}
	}
	for i := len(lines) - 1; i >= 0; i-- {
		if lines[i] != "" {
			if drop("$" + digitless(lines[i])) {
				lines[i] = ""
			}
			break
		}
	}
	return lines
}
