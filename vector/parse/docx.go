package parse

import (
	"context"
	"strings"
)

// docxParser reads Word documents.
type docxParser struct{}

func (docxParser) Parse(ctx context.Context, in *Source, out *Writer) error {
	a, err := in.archive(ctx)
	if err != nil {
		return err
	}
	if err := a.coreProperties(out); err != nil {
		return err
	}
	d := docx{out: out, levels: map[string]int{}}
	if err := d.styles(a); err != nil {
		return err
	}
	for _, part := range []string{"word/document.xml", "word/footnotes.xml", "word/endnotes.xml"} {
		if err := a.walk(part, &walker{start: d.start, end: d.end, text: d.text}); err != nil {
			if r, ok := Rejected(err); ok && part != "word/document.xml" && r.Code == CodeBroken {
				out.Warn(WarnPartMissing)
				continue
			}
			return err
		}
	}
	return nil
}

// coreProperties reads title and language of an Office file.
func (a *archive) coreProperties(out *Writer) error {
	var text strings.Builder
	err := a.walk("docProps/core.xml", &walker{
		start: func(string, attrs) error { text.Reset(); return nil },
		text:  func(s string) error { text.WriteString(s); return nil },
		end: func(name string) error {
			switch name {
			case "title":
				out.Title(text.String())
			case "language":
				out.Language(text.String())
			}
			return nil
		},
	})
	if _, rejected := Rejected(err); rejected {
		out.Warn(WarnPartMissing) // the text does not need it
		return nil
	}
	return err
}

type docx struct {
	out    *Writer
	levels map[string]int // heading level by style, 0: none

	skip   int // inside of what is not text: fallbacks, deleted runs
	inText bool
	para   strings.Builder
	style  string
	level  int // outline level of the paragraph itself
	item   int // list depth + 1; 0: no item
	tables int
	cells  []string
	cell   strings.Builder
	stack  []docxParagraph
}

// docxParagraph is an outer paragraph while a text box inside of it is read.
type docxParagraph struct {
	text        string
	style       string
	level, item int
}

// styles learns which styles are headings: the names are the same in every
// language, the ids are not.
func (d *docx) styles(a *archive) error {
	based := map[string]string{}
	id := ""
	err := a.walk("word/styles.xml", &walker{start: func(name string, attr attrs) error {
		switch name {
		case "style":
			id = attr.get("styleId")
		case "name":
			d.nameStyle(id, strings.ToLower(attr.get("val")))
		case "basedOn":
			based[id] = attr.get("val")
		case "outlineLvl":
			if l := digit(attr.get("val")); l >= 0 && l < 6 && d.levels[id] == 0 {
				d.levels[id] = l + 1
			}
		}
		return nil
	}})
	if r, ok := Rejected(err); ok && r.Code != CodeBomb {
		d.out.Warn(WarnPartMissing)
		err = nil
	}
	for style := range based {
		for at, n := style, 0; d.levels[style] == 0 && at != "" && n < 10; n++ {
			at = based[at]
			d.levels[style] = d.levels[at]
		}
	}
	return err
}

func (d *docx) nameStyle(id, name string) {
	if rest, ok := strings.CutPrefix(name, "heading "); ok {
		if l := digit(rest); l > 0 {
			d.levels[id] = min(l, 6)
		}
	}
	if name == "title" {
		d.levels[id] = 1
	}
}

// digit is the value of a single digit; -1: it is none.
func digit(s string) int {
	if len(s) != 1 || s[0] < '0' || s[0] > '9' {
		return -1
	}
	return int(s[0] - '0')
}

func (d *docx) start(name string, attr attrs) error {
	switch name {
	case "Fallback", "del", "moveFrom", "footnotePr", "sectPr":
		d.skip++
	}
	if d.skip > 0 {
		return nil
	}
	switch name {
	case "p":
		if d.para.Len() > 0 || len(d.stack) > 0 {
			if len(d.stack) < 32 {
				d.stack = append(d.stack, docxParagraph{d.para.String(), d.style, d.level, d.item})
			}
			d.para.Reset()
		}
		d.style, d.level, d.item = "", 0, 0
	case "pStyle":
		d.style = attr.get("val")
	case "outlineLvl":
		if l := digit(attr.get("val")); l >= 0 && l < 6 {
			d.level = l + 1
		}
	case "numPr":
		d.item = max(d.item, 1)
	case "ilvl":
		if l := digit(attr.get("val")); l >= 0 {
			d.item = l + 1
		}
	case "t":
		d.inText = true
	case "tab":
		d.para.WriteByte('\t')
	case "br", "cr":
		d.para.WriteByte('\n')
	case "noBreakHyphen":
		d.para.WriteByte('-')
	case "tbl":
		if d.tables++; d.tables == 1 {
			d.out.EndTable()
		}
	case "tr":
		if d.tables == 1 {
			d.cells = nil
		}
	case "tc":
		if d.tables == 1 {
			d.cell.Reset()
		}
	case "gridSpan":
		if n := digit(attr.get("val")); n > 1 && d.tables == 1 {
			for range n - 1 {
				d.cells = append(d.cells, "")
			}
		}
	}
	return nil
}

func (d *docx) text(s string) error {
	if d.inText && d.skip == 0 {
		d.para.WriteString(s)
	}
	return nil
}

func (d *docx) end(name string) error {
	switch name {
	case "Fallback", "del", "moveFrom", "footnotePr", "sectPr":
		d.skip = max(d.skip-1, 0)
	}
	if d.skip > 0 {
		return nil
	}
	switch name {
	case "t":
		d.inText = false
	case "p":
		return d.endParagraph()
	case "tc":
		if d.tables == 1 {
			d.cells = append(d.cells, d.cell.String())
		}
	case "tr":
		if d.tables == 1 {
			return d.out.Row(d.cells)
		}
	case "tbl":
		if d.tables = max(d.tables-1, 0); d.tables == 0 {
			d.out.EndTable()
		}
	}
	return nil
}

func (d *docx) endParagraph() error {
	text := d.para.String()
	style, level, item := d.style, d.level, d.item
	d.para.Reset()
	d.style, d.level, d.item = "", 0, 0
	if n := len(d.stack); n > 0 {
		outer := d.stack[n-1]
		d.stack = d.stack[:n-1]
		d.para.WriteString(outer.text)
		d.style, d.level, d.item = outer.style, outer.level, outer.item
	}
	if strings.TrimSpace(text) == "" {
		return d.out.alive()
	}
	if level == 0 {
		level = d.levels[style]
	}
	switch {
	case d.tables > 0:
		if d.cell.Len() > 0 {
			d.cell.WriteByte(' ')
		}
		d.cell.WriteString(text)
		return nil
	case level > 0:
		return d.out.Heading(level, text)
	case item > 0:
		return d.out.Item(item-1, text)
	}
	return d.out.Paragraph(text)
}
