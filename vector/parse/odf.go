package parse

import (
	"context"
	"strconv"
	"strings"
)

// odfParser reads OpenDocument texts, slides and sheets.
type odfParser struct{}

func (odfParser) Parse(ctx context.Context, in *Source, out *Writer) error {
	a, err := in.archive(ctx)
	if err != nil {
		return err
	}
	manifest, err := a.bytes("META-INF/manifest.xml")
	if err != nil {
		return err
	}
	if strings.Contains(string(manifest), "encryption-data") {
		return reject(CodeEncrypted, "an OpenDocument file with a password")
	}
	o := odf{out: out}
	if err := a.walk("meta.xml", &walker{
		start: func(string, attrs) error { o.text.Reset(); return nil },
		text:  func(s string) error { o.text.WriteString(s); return nil },
		end: func(name string) error {
			switch name {
			case "title":
				out.Title(o.text.String())
			case "language":
				out.Language(o.text.String())
			}
			return nil
		},
	}); err != nil {
		return err
	}
	o.text.Reset()
	return a.walk("content.xml", &walker{start: o.start, end: o.end, text: o.add})
}

type odf struct {
	out    *Writer
	open   int // open paragraphs and headings
	text   strings.Builder
	level  int
	lists  int
	pages  int
	tables int
	cells  []string
	cell   strings.Builder
	repeat int
	skip   int
}

func (o *odf) start(name string, attr attrs) error {
	if name == "annotation" || name == "tracked-changes" {
		o.skip++
	}
	if o.skip > 0 {
		return nil
	}
	switch name {
	case "h", "p":
		o.open++
		o.level = 0
		if name == "h" {
			o.level = max(digit(attr.get("outline-level")), 1)
		}
	case "s":
		o.text.WriteByte(' ')
	case "tab":
		o.text.WriteByte('\t')
	case "line-break":
		o.text.WriteByte('\n')
	case "list":
		o.lists++
	case "page":
		o.pages++
		return o.out.Page(o.pages)
	case "table":
		o.tables++
		if o.tables == 1 {
			o.out.EndTable()
		}
	case "table-row":
		o.cells = nil
	case "table-cell", "covered-table-cell":
		o.cell.Reset()
		o.repeat, _ = strconv.Atoi(attr.get("number-columns-repeated"))
	}
	return nil
}

func (o *odf) add(s string) error {
	if o.open > 0 && o.skip == 0 {
		o.text.WriteString(s)
	}
	return nil
}

func (o *odf) end(name string) error {
	if name == "annotation" || name == "tracked-changes" {
		o.skip = max(o.skip-1, 0)
	}
	if o.skip > 0 {
		return nil
	}
	switch name {
	case "h", "p":
		o.open = max(o.open-1, 0)
		text := o.text.String()
		o.text.Reset()
		switch {
		case o.tables > 0:
			o.cell.WriteString(text + " ")
			return nil
		case o.level > 0:
			return o.out.Heading(o.level, text)
		case o.lists > 0:
			return o.out.Item(o.lists-1, text)
		}
		return o.out.Paragraph(text)
	case "list":
		o.lists = max(o.lists-1, 0)
	case "table-cell", "covered-table-cell":
		for n := min(max(o.repeat, 1), 64); n > 0 && len(o.cells) < maxColumns; n-- {
			o.cells = append(o.cells, o.cell.String())
		}
	case "table-row":
		n := len(o.cells)
		for n > 0 && strings.TrimSpace(o.cells[n-1]) == "" {
			n--
		}
		if n > 0 {
			return o.out.Row(o.cells[:n])
		}
	case "table":
		o.tables = max(o.tables-1, 0)
		o.out.EndTable()
	}
	return nil
}

// epubParser reads the chapters of a book in their order, each as a page.
type epubParser struct{}

func (epubParser) Parse(ctx context.Context, in *Source, out *Writer) error {
	a, err := in.archive(ctx)
	if err != nil {
		return err
	}
	if a.has("META-INF/encryption.xml") {
		return reject(CodeEncrypted, "a protected book")
	}
	root := ""
	if err := a.walk("META-INF/container.xml", &walker{start: func(name string, attr attrs) error {
		if name == "rootfile" && root == "" {
			root = attr.get("full-path")
		}
		return nil
	}}); err != nil {
		return err
	}
	chapters, err := spine(a, root, out)
	if err != nil {
		return err
	}
	for i, name := range chapters {
		if err := out.Page(i + 1); err != nil {
			return err
		}
		raw, err := a.bytes(name)
		if err != nil {
			return err
		}
		if raw == nil {
			out.Warn(WarnPartMissing)
			continue
		}
		if err := writeHTML(ctx, raw, "", out); err != nil {
			return err
		}
	}
	return nil
}

// spine gives the names of the chapters.
func spine(a *archive, root string, out *Writer) ([]string, error) {
	dir := root[:strings.LastIndexByte(root, '/')+1]
	byID := map[string]string{}
	var order []string
	var text strings.Builder
	err := a.walk(root, &walker{
		start: func(name string, attr attrs) error {
			text.Reset()
			switch name {
			case "item":
				if strings.Contains(attr.get("media-type"), "html") {
					byID[attr.get("id")] = dir + attr.get("href")
				}
			case "itemref":
				if part := byID[attr.get("idref")]; part != "" {
					order = append(order, part)
				}
			}
			return nil
		},
		text: func(s string) error { text.WriteString(s); return nil },
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
	return order, err
}
