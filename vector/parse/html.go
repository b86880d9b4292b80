package parse

import (
	"bytes"
	"context"
	"io"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// htmlParser reads HTML as a stream of tags, without building a tree: nesting
// costs nothing, and a page of any size is read in one pass.
type htmlParser struct{}

func (htmlParser) Parse(ctx context.Context, in *Source, out *Writer) error {
	raw, err := in.Bytes()
	if err != nil {
		return err
	}
	return writeHTML(ctx, raw, in.charset, out)
}

// writeHTML writes a page. Only its main part counts, if it names one that
// holds most of the text; else what is around menus and footers; else all.
func writeHTML(ctx context.Context, raw []byte, charset string, out *Writer) error {
	text, replaced := decode(raw, htmlCharset(raw, charset))
	if replaced {
		out.Warn(WarnReplaced)
	}
	p := page{ctx: ctx, limits: out.limits}
	for _, chrome := range []bool{true, false} {
		p = page{ctx: ctx, limits: out.limits, skipChrome: chrome}
		if err := p.read(strings.NewReader(text)); err != nil {
			return err
		}
		if len(p.blocks) > 0 {
			break
		}
	}
	out.Title(p.title)
	out.Language(p.lang)
	inMain, all := 0, 0
	for _, b := range p.blocks {
		all += len(b.text)
		if b.main {
			inMain += len(b.text)
		}
	}
	for _, b := range p.blocks {
		if inMain*5 > all*2 && !b.main {
			continue
		}
		if err := b.write(out); err != nil {
			return err
		}
	}
	return nil
}

// htmlCharset is what the page itself declares, or the given one.
func htmlCharset(raw []byte, declared string) string {
	if declared != "" {
		return declared
	}
	head := bytes.ToLower(raw[:min(len(raw), 2048)])
	i := bytes.Index(head, []byte("charset="))
	if i < 0 {
		return ""
	}
	name := strings.TrimLeft(string(head[i+len("charset="):]), `"' `)
	if end := strings.IndexAny(name, `"'/>; `); end >= 0 {
		name = name[:end]
	}
	return name
}

// found is one block of a page, kept until its main part is known.
type found struct {
	kind  Kind
	level int // of a heading; depth of an item; 1 for the first row of a table
	text  string
	cells []string
	lang  string
	main  bool
}

func (f found) write(out *Writer) error {
	switch f.kind {
	case Heading:
		return out.Heading(f.level, f.text)
	case List:
		return out.Item(f.level, f.text)
	case Table:
		if f.level == 1 {
			out.EndTable()
		}
		return out.Row(f.cells)
	case Listing:
		return out.Code(f.lang, f.text)
	}
	return out.Paragraph(f.text)
}

type page struct {
	ctx        context.Context
	limits     Limits
	skipChrome bool

	blocks []found
	title  string
	lang   string
	text   strings.Builder
	kind   Kind
	level  int
	code   string
	size   int

	lists  int  // open lists
	pre    int  // open pre elements
	main   int  // open main and article elements
	table  bool // between the tags of a table
	first  bool // no row of the table yet
	cells  []string
	inCell bool

	skip      string // name of the element that is left out
	skipDepth int
}

func (p *page) read(r io.Reader) error {
	z := html.NewTokenizer(r)
	z.SetMaxBuf(p.limits.TextBytes + 1)
	for n := 0; ; n++ {
		if n&255 == 0 {
			if err := p.ctx.Err(); err != nil {
				return err
			}
		}
		switch z.Next() {
		case html.ErrorToken:
			if z.Err() == io.EOF {
				p.flush()
				p.endRow()
				return nil
			}
			return reject(CodeBroken, "not readable HTML")
		case html.TextToken:
			if p.skip == "" {
				p.addText(string(z.Text()))
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			name, attrs := z.TagName()
			p.open(z, string(name), attrs)
		case html.EndTagToken:
			name, _ := z.TagName()
			p.close(string(name))
		}
		if p.size > p.limits.TextBytes || len(p.blocks) > p.limits.Blocks*4 {
			return reject(CodeTextTooLong, "more than %d bytes of text", p.limits.TextBytes)
		}
	}
}

func (p *page) addText(s string) {
	p.size += len(s)
	if p.pre > 0 {
		p.text.WriteString(s)
		return
	}
	if strings.TrimSpace(s) == "" {
		p.space()
		return
	}
	if s[0] <= ' ' {
		p.space()
	}
	for i, word := range strings.Fields(s) {
		if i > 0 {
			p.text.WriteByte(' ')
		}
		p.text.WriteString(word)
	}
	if s[len(s)-1] <= ' ' {
		p.space()
	}
}

// space adds one space, unless there is white space already.
func (p *page) space() {
	if t := p.text.String(); t != "" && t[len(t)-1] > ' ' {
		p.text.WriteByte(' ')
	}
}

// flush ends the block that is open.
func (p *page) flush() {
	if p.inCell {
		p.space()
		return
	}
	text := p.text.String()
	if strings.TrimSpace(text) != "" {
		p.blocks = append(p.blocks, found{kind: p.kind, level: p.level, text: text, lang: p.code, main: p.main > 0})
	}
	p.text.Reset()
	p.kind, p.level = Paragraph, 0
	if p.lists > 0 {
		p.kind, p.level = List, p.lists-1
	}
}

func (p *page) endCell() {
	if p.inCell {
		p.cells = append(p.cells, strings.TrimSpace(p.text.String()))
		p.text.Reset()
		p.inCell = false
	}
}

func (p *page) endRow() {
	p.endCell()
	if strings.TrimSpace(strings.Join(p.cells, "")) != "" {
		level := 0
		if p.first {
			level = 1
		}
		p.blocks = append(p.blocks, found{kind: Table, level: level, cells: p.cells, text: strings.Join(p.cells, " "), main: p.main > 0})
		p.first = false
	}
	p.cells = nil
}

// left lists elements whose content is never text of the page.
var left = map[string]bool{"script": true, "style": true, "noscript": true, "template": true, "svg": true, "math": true,
	"iframe": true, "object": true, "select": true, "textarea": true, "canvas": true, "button": true, "dialog": true}

// chrome lists elements around the text.
var chrome = map[string]bool{"nav": true, "footer": true, "aside": true, "menu": true}

// void lists elements without an end tag.
var void = map[string]bool{"area": true, "base": true, "br": true, "col": true, "embed": true, "hr": true, "img": true,
	"input": true, "link": true, "meta": true, "source": true, "track": true, "wbr": true}

// inline lists elements that end no paragraph.
var inline = map[string]bool{"a": true, "abbr": true, "b": true, "bdi": true, "bdo": true, "cite": true, "code": true,
	"data": true, "del": true, "dfn": true, "em": true, "font": true, "i": true, "ins": true, "kbd": true, "label": true, "mark": true,
	"q": true, "s": true, "samp": true, "small": true, "span": true, "strong": true, "sub": true, "sup": true, "time": true,
	"tt": true, "u": true, "var": true, "wbr": true, "img": true, "big": true, "strike": true}

func (p *page) open(z *html.Tokenizer, name string, attrs bool) {
	if p.skip != "" {
		if name == p.skip && !void[name] {
			p.skipDepth++
		}
		return
	}
	hidden, lang, span, alt := attributes(z, attrs)
	if name == "html" && lang != "" {
		p.lang = lang
	}
	if left[name] || hidden && !void[name] && name != "html" && name != "body" || p.skipChrome && chrome[name] {
		p.skip, p.skipDepth = name, 1
		return
	}
	if inline[name] {
		if name == "img" && alt != "" {
			p.addText(" " + alt + " ")
		}
		if name == "code" && p.pre > 0 && p.code == "" {
			p.code = lang
		}
		return
	}
	p.begin(name, lang, span)
}

// begin handles the start of an element that forms a block.
func (p *page) begin(name, lang string, span int) {
	switch name {
	case "br":
		if p.pre > 0 || !p.inCell {
			p.text.WriteByte('\n')
		} else {
			p.space()
		}
		return
	case "title":
		p.flush()
		p.kind, p.level = Heading, 0
		return
	case "td", "th":
		p.endCell()
		p.flush()
		for ; span > 1 && p.first; span-- {
			p.cells = append(p.cells, "")
		}
		p.inCell = true
		return
	case "tr":
		p.endRow()
		p.flush()
		return
	case "table":
		p.endRow()
		p.flush()
		p.table, p.first = true, true
		return
	}
	p.flush()
	switch name {
	case "main", "article":
		p.main++
	case "h1", "h2", "h3", "h4", "h5", "h6":
		p.kind, p.level = Heading, int(name[1]-'0')
	case "ul", "ol", "dl":
		p.lists++
	case "li", "dd", "dt":
		p.kind, p.level = List, max(p.lists-1, 0)
	case "pre":
		p.pre++
		p.kind, p.code = Listing, lang
	}
}

func (p *page) close(name string) {
	if p.skip != "" {
		if name == p.skip {
			if p.skipDepth--; p.skipDepth == 0 {
				p.skip = ""
			}
		}
		return
	}
	if inline[name] || void[name] {
		return
	}
	switch name {
	case "title":
		if p.title == "" {
			p.title = p.text.String()
		}
		p.text.Reset()
		p.kind = Paragraph
		return
	case "td", "th":
		p.endCell()
		return
	case "tr":
		p.endRow()
		return
	case "table":
		p.endRow()
		p.table = false
	}
	p.flush()
	switch name {
	case "main", "article":
		p.main = max(p.main-1, 0)
	case "ul", "ol", "dl":
		p.lists = max(p.lists-1, 0)
		p.kind, p.level = Paragraph, 0
	case "pre":
		p.pre, p.code = max(p.pre-1, 0), ""
	case "li", "dd", "dt":
		p.kind, p.level = Paragraph, 0
	}
}

// attributes reads what matters of a tag. Text that a reader does not see is
// no text of the page.
func attributes(z *html.Tokenizer, more bool) (hidden bool, lang string, span int, alt string) {
	for n := 0; more && n < 64; n++ {
		var key, value []byte
		key, value, more = z.TagAttr()
		switch atom.Lookup(key) {
		case atom.Hidden:
			hidden = true
		case atom.Style:
			style := strings.ReplaceAll(strings.ToLower(string(value)), " ", "")
			hidden = hidden || strings.Contains(style, "display:none") || strings.Contains(style, "visibility:hidden")
		case atom.Lang:
			lang = cut(string(value), 20)
		case atom.Alt:
			alt = cut(string(value), 300)
		case atom.Colspan:
			if len(value) <= 2 {
				for _, c := range value {
					if c >= '0' && c <= '9' {
						span = span*10 + int(c-'0')
					}
				}
			}
		case atom.Class:
			for word := range strings.FieldsSeq(string(value)) {
				if name, ok := strings.CutPrefix(word, "language-"); ok {
					lang = cut(name, 20)
				}
			}
		}
	}
	return hidden, lang, span, alt
}
