package parse

import (
	"context"
	"path"
	"strings"
)

// pptxParser reads PowerPoint slides, each as a page with its notes.
type pptxParser struct{}

func (pptxParser) Parse(ctx context.Context, in *Source, out *Writer) error {
	a, err := in.archive(ctx)
	if err != nil {
		return err
	}
	if err := a.coreProperties(out); err != nil {
		return err
	}
	targets, err := a.relations("ppt/presentation.xml")
	if err != nil {
		return err
	}
	var order []string
	err = a.walk("ppt/presentation.xml", &walker{start: func(name string, attr attrs) error {
		if name == "sldId" {
			for _, at := range attr {
				if at.Name.Space == "r" && at.Name.Local == "id" {
					order = append(order, targets[at.Value])
				}
			}
		}
		return nil
	}})
	if err != nil {
		return err
	}
	for i, part := range order {
		if err := out.Page(i + 1); err != nil {
			return err
		}
		if !a.has(part) {
			out.Warn(WarnPartMissing)
			continue
		}
		if err := writeSlide(a, part, out); err != nil {
			return err
		}
	}
	return nil
}

func writeSlide(a *archive, part string, out *Writer) error {
	s := slide{out: out}
	if err := a.walk(part, &walker{start: s.start, end: s.end, text: s.addText}); err != nil {
		return err
	}
	if err := s.write(); err != nil {
		return err
	}
	links, err := a.relations(part)
	if err != nil {
		return err
	}
	for _, target := range links {
		if path.Dir(target) != "ppt/notesSlides" {
			continue
		}
		n := slide{out: out, notes: true}
		if err := a.walk(target, &walker{start: n.start, end: n.end, text: n.addText}); err != nil {
			return err
		}
		return n.write()
	}
	return nil
}

// slide collects the shapes of a slide: its title comes first, wherever it
// stands in the file.
type slide struct {
	out   *Writer
	notes bool

	shape  string // placeholder type of the open shape
	inText bool
	para   strings.Builder
	level  int
	table  bool
	cells  []string
	cell   strings.Builder
	title  string
	found  []found
	rows   int
}

func (s *slide) start(name string, attr attrs) error {
	switch name {
	case "sp":
		s.shape = ""
	case "ph":
		s.shape = attr.get("type")
		if s.shape == "" {
			s.shape = "body"
		}
	case "t":
		s.inText = true
	case "p":
		s.level = 0
	case "pPr":
		if l := digit(attr.get("lvl")); l > 0 {
			s.level = l
		}
	case "br":
		s.para.WriteByte('\n')
	case "tbl":
		s.table, s.rows = true, 0
	case "tr":
		s.cells = nil
	case "tc":
		s.cell.Reset()
	}
	return nil
}

func (s *slide) addText(text string) error {
	if s.inText {
		s.para.WriteString(text)
	}
	return nil
}

func (s *slide) end(name string) error {
	switch name {
	case "t":
		s.inText = false
	case "p":
		s.endParagraph()
	case "tc":
		s.cells = append(s.cells, s.cell.String())
	case "tr":
		s.rows++
		s.found = append(s.found, found{kind: Table, level: s.rows, cells: s.cells})
	case "tbl":
		s.table = false
	}
	if len(s.found) > s.out.limits.Blocks {
		return reject(CodeTextTooLong, "more than %d paragraphs", s.out.limits.Blocks)
	}
	return s.out.alive()
}

func (s *slide) endParagraph() {
	text := s.para.String()
	s.para.Reset()
	if strings.TrimSpace(text) == "" {
		return
	}
	switch {
	case s.table:
		s.cell.WriteString(text + " ")
	case s.shape == "title" || s.shape == "ctrTitle":
		s.title += " " + text
	case s.shape == "sldNum" || s.shape == "ftr" || s.shape == "dt" || s.shape == "hdr" || s.shape == "sldImg":
	case s.shape == "body" && !s.notes || s.level > 0:
		s.found = append(s.found, found{kind: List, level: s.level, text: text})
	default:
		s.found = append(s.found, found{text: text})
	}
}

func (s *slide) write() error {
	if s.notes && len(s.found) > 0 {
		s.found[0].text = "Notes: " + s.found[0].text
	}
	if err := s.out.Heading(2, s.title); err != nil {
		return err
	}
	for _, f := range s.found {
		if err := f.write(s.out); err != nil {
			return err
		}
	}
	return nil
}
