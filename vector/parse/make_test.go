package parse_test

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/vector/parse"
)

var engine *parse.Engine

func TestMain(m *testing.M) {
	// The compiled PDF reader stays from run to run, as it does in a deployment.
	engine = parse.New(parse.Config{CacheDir: filepath.Join(os.TempDir(), fmt.Sprintf("sluice-pdf-%d", os.Getuid()))})
	code := m.Run()
	_ = engine.Close()
	os.Exit(code)
}

func read(t testing.TB, name string, content []byte, limits parse.Limits) (*parse.Document, error) {
	t.Helper()
	return engine.Parse(context.Background(), parse.Input{Name: name, Size: int64(len(content)), Body: bytes.NewReader(content)}, limits)
}

// zipped makes an archive of name, content, name, content, …
func zipped(parts ...string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i+1 < len(parts); i += 2 {
		w, err := z.Create(parts[i])
		if err == nil {
			_, err = w.Write([]byte(parts[i+1]))
		}
		if err != nil {
			panic(err)
		}
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

const head = `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>` + "\n"

func docx(body string, more ...string) []byte {
	parts := []string{
		"[Content_Types].xml", head + `<Types xmlns="x"/>`,
		"word/document.xml", head + `<w:document xmlns:w="w"><w:body>` + body + `</w:body></w:document>`,
	}
	return zipped(append(parts, more...)...)
}

const wordStyles = head + `<w:styles xmlns:w="w">
<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>
<w:style w:styleId="berschrift2"><w:name w:val="heading 2"/></w:style>
<w:style w:styleId="Eigene"><w:name w:val="Mine"/><w:basedOn w:val="berschrift2"/></w:style></w:styles>`

func styled(style, text string) string {
	return `<w:p><w:pPr><w:pStyle w:val="` + style + `"/></w:pPr><w:r><w:t>` + text + `</w:t></w:r></w:p>`
}

func para(text string) string {
	return `<w:p><w:r><w:t xml:space="preserve">` + text + `</w:t></w:r></w:p>`
}

func pptx(slides ...string) []byte {
	ids, links := "", ""
	parts := []string{}
	for i, s := range slides {
		ids += fmt.Sprintf(`<p:sldId id="%d" r:id="rId%d"/>`, 256+i, i+1)
		links += fmt.Sprintf(`<Relationship Id="rId%d" Target="slides/slide%d.xml"/>`, i+1, i+1)
		parts = append(parts, fmt.Sprintf("ppt/slides/slide%d.xml", i+1),
			head+`<p:sld xmlns:p="p" xmlns:a="a"><p:cSld><p:spTree>`+s+`</p:spTree></p:cSld></p:sld>`)
	}
	parts = append(parts, "ppt/presentation.xml", head+`<p:presentation xmlns:p="p" xmlns:r="r"><p:sldIdLst>`+ids+`</p:sldIdLst></p:presentation>`,
		"ppt/_rels/presentation.xml.rels", head+`<Relationships>`+links+`</Relationships>`)
	return zipped(parts...)
}

func shape(kind, text string) string {
	ph := ""
	if kind != "" {
		ph = `<p:nvPr><p:ph type="` + kind + `"/></p:nvPr>`
	}
	paragraphs := ""
	for line := range strings.SplitSeq(text, "\n") {
		level := len(line) - len(strings.TrimLeft(line, ">"))
		paragraphs += fmt.Sprintf(`<a:p><a:pPr lvl="%d"/><a:r><a:t>%s</a:t></a:r></a:p>`, level, line[level:])
	}
	return `<p:sp><p:nvSpPr>` + ph + `</p:nvSpPr><p:txBody>` + paragraphs + `</p:txBody></p:sp>`
}

func xlsx(sheetXML string, more ...string) []byte {
	parts := []string{
		"xl/workbook.xml", head + `<workbook xmlns:r="r"><sheets><sheet name="Umsatz" sheetId="1" r:id="rId1"/></sheets></workbook>`,
		"xl/_rels/workbook.xml.rels", head + `<Relationships><Relationship Id="rId1" Target="worksheets/sheet1.xml"/></Relationships>`,
		"xl/worksheets/sheet1.xml", head + `<worksheet>` + sheetXML + `</worksheet>`,
	}
	return zipped(append(parts, more...)...)
}

// pdf writes a file of pages of lines; an empty page holds a picture.
type pdf struct {
	objects []string
	pages   []string
	outline []string // title per page, "" for none
	encrypt string
	streams map[int]string // whole content of some pages
}

func (p *pdf) add(object string) int {
	p.objects = append(p.objects, object)
	return len(p.objects)
}

func stream(dict, data string) string {
	return fmt.Sprintf("<< %s /Length %d >>\nstream\n%s\nendstream", dict, len(data), data)
}

func (p *pdf) bytes() []byte {
	p.objects = nil
	catalog := p.add("")
	tree := p.add("")
	font := p.add("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
	picture := p.add(stream("/Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8", "x"))
	var kids []string
	var ids []int
	for _, text := range p.pages {
		content := "q 500 0 0 700 50 50 cm /Im Do Q"
		if text != "" {
			content = "BT /F 11 Tf 14 TL 60 780 Td\n"
			for line := range strings.SplitSeq(text, "\n") {
				content += "(" + strings.NewReplacer("(", `\(`, ")", `\)`).Replace(line) + ") Tj T*\n"
			}
			content += "ET"
		}
		object := stream("", content)
		if whole, ok := p.streams[len(ids)]; ok {
			object = whole
		}
		c := p.add(object)
		id := p.add(fmt.Sprintf("<< /Type /Page /Parent %d 0 R /MediaBox [0 0 595 842] /Contents %d 0 R /Resources << /Font << /F %d 0 R >> /XObject << /Im %d 0 R >> >> >>",
			tree, c, font, picture))
		ids = append(ids, id)
		kids = append(kids, fmt.Sprintf("%d 0 R", id))
	}
	p.objects[tree-1] = fmt.Sprintf("<< /Type /Pages /Count %d /Kids [%s] >>", len(kids), strings.Join(kids, " "))
	marks := p.bookmarks(ids)
	p.objects[catalog-1] = fmt.Sprintf("<< /Type /Catalog /Pages %d 0 R %s >>", tree, marks)
	return p.file(catalog)
}

func (p *pdf) bookmarks(ids []int) string {
	if len(p.outline) == 0 {
		return ""
	}
	root := p.add("")
	first := len(p.objects) + 1
	for i, title := range p.outline {
		next := ""
		if i+1 < len(p.outline) {
			next = fmt.Sprintf("/Next %d 0 R", first+i+1)
		}
		p.add(fmt.Sprintf("<< /Title (%s) /Parent %d 0 R /Dest [%d 0 R /Fit] %s >>", title, root, ids[i], next))
	}
	p.objects[root-1] = fmt.Sprintf("<< /Type /Outlines /First %d 0 R /Last %d 0 R /Count %d >>", first, len(p.objects), len(p.outline))
	return fmt.Sprintf("/Outlines %d 0 R", root)
}

func (p *pdf) file(catalog int) []byte {
	var b bytes.Buffer
	b.WriteString("%PDF-1.4\n")
	var places []int
	for i, o := range p.objects {
		places = append(places, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, o)
	}
	at := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(places)+1)
	for _, place := range places {
		fmt.Fprintf(&b, "%010d 00000 n \n", place)
	}
	fmt.Fprintf(&b, "trailer\n<< /Size %d /Root %d 0 R %s >>\nstartxref\n%d\n%%%%EOF\n", len(places)+1, catalog, p.encrypt, at)
	return b.Bytes()
}

const locked = "/ID [<00112233445566778899aabbccddeeff> <00112233445566778899aabbccddeeff>] /Encrypt << /Filter /Standard /V 1 /R 2 /Length 40 /P -44 " +
	"/O <0102030405060708091011121314151617181920212223242526272829303132> /U <3102030405060708091011121314151617181920212223242526272829303132> >>"
