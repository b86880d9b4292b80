package parse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klippa-app/go-pdfium"
	"github.com/klippa-app/go-pdfium/enums"
	pdferrors "github.com/klippa-app/go-pdfium/errors"
	"github.com/klippa-app/go-pdfium/references"
	"github.com/klippa-app/go-pdfium/requests"
	"github.com/klippa-app/go-pdfium/responses"
)

// pdfParser reads PDF in a WebAssembly sandbox: a broken file can end its own
// instance and nothing else.
type pdfParser struct {
	sandbox sandbox
}

func (p *pdfParser) Parse(ctx context.Context, in *Source, out *Writer) error {
	at, size, err := in.ReaderAt()
	if err != nil {
		return err
	}
	// The library keeps the reader of a file that it could not open for ever:
	// what it keeps must hold nothing.
	reader := &detachable{r: io.NewSectionReader(at, 0, size)}
	defer reader.detach()
	return p.sandbox.run(ctx, func(instance pdfium.Pdfium) error {
		opened, err := instance.OpenDocument(&requests.OpenDocument{FileReader: reader, FileReaderSize: size})
		if err != nil {
			return refusal(err)
		}
		defer instance.FPDF_CloseDocument(&requests.FPDF_CloseDocument{Document: opened.Document}) //nolint:errcheck // only read
		f := pdfFile{pdf: instance, doc: opened.Document, out: out}
		return f.read(ctx)
	})
}

type detachable struct{ r io.ReadSeeker }

func (d *detachable) detach() { d.r = nil }

func (d *detachable) Read(p []byte) (int, error) {
	if d.r == nil {
		return 0, io.ErrClosedPipe
	}
	return d.r.Read(p)
}

func (d *detachable) Seek(offset int64, whence int) (int64, error) {
	if d.r == nil {
		return 0, io.ErrClosedPipe
	}
	return d.r.Seek(offset, whence)
}

// refusal gives the reason for which a file could not be opened.
func refusal(err error) error {
	switch {
	case errors.Is(err, pdferrors.ErrPassword), errors.Is(err, pdferrors.ErrSecurity):
		return reject(CodeEncrypted, "a PDF with a password")
	case errors.Is(err, pdferrors.ErrFormat), errors.Is(err, pdferrors.ErrFile), errors.Is(err, pdferrors.ErrUnknown),
		errors.Is(err, pdferrors.ErrSuccess), errors.Is(err, pdferrors.ErrUnexpected), errors.Is(err, pdferrors.ErrPage):
		return reject(CodeBroken, "not a readable PDF")
	}
	return err
}

type pdfFile struct {
	pdf     pdfium.Pdfium
	doc     references.FPDF_DOCUMENT
	out     *Writer
	outline map[int][]bookmark // by page, from 0
	repeats map[string]int     // lines at the edges of pages, without digits
	pages   int
}

type bookmark struct {
	level int
	title string
}

func (f *pdfFile) read(ctx context.Context) error {
	count, err := f.pdf.FPDF_GetPageCount(&requests.FPDF_GetPageCount{Document: f.doc})
	if err != nil {
		return refusal(err)
	}
	f.pages = count.PageCount
	if f.pages > f.out.limits.Pages {
		return reject(CodeTooManyPage, "%d pages; %d are allowed", f.pages, f.out.limits.Pages)
	}
	if f.pages == 0 {
		return reject(CodeEmpty, "a PDF without pages")
	}
	f.title()
	if err := f.readOutline(ctx); err != nil {
		return err
	}
	return f.readPages(ctx)
}

func (f *pdfFile) title() {
	tags := []string{"Title"}
	meta, err := f.pdf.GetMetaData(&requests.GetMetaData{Document: f.doc, Tags: &tags})
	if err != nil {
		return // a file without metadata is fine
	}
	for _, t := range meta.Tags {
		if t.Tag == "Title" && len(t.Value) < 1000 && !strings.HasSuffix(strings.ToLower(t.Value), ".dvi") {
			f.out.Title(t.Value)
		}
	}
}

// An outline may form a circle, which the library follows for ever: it is
// measured before it is read.
const (
	maxBookmarks     = 5000
	maxBookmarkDepth = 12
)

// readOutline collects the bookmarks: they give the headings of the pages. A
// broken outline costs its headings only.
func (f *pdfFile) readOutline(ctx context.Context) error {
	f.outline = map[int][]bookmark{}
	left := maxBookmarks
	if finite, err := f.measure(ctx, nil, 0, &left); err != nil || !finite || left == maxBookmarks {
		return ctx.Err()
	}
	all, err := f.pdf.GetBookmarks(&requests.GetBookmarks{Document: f.doc})
	if err != nil {
		return ctx.Err()
	}
	f.addBookmarks(all.Bookmarks, 1)
	return nil
}

func (f *pdfFile) measure(ctx context.Context, parent *references.FPDF_BOOKMARK, depth int, left *int) (finite bool, err error) {
	first, err := f.pdf.FPDFBookmark_GetFirstChild(&requests.FPDFBookmark_GetFirstChild{Document: f.doc, Bookmark: parent})
	if err != nil || first.Bookmark == nil {
		return err == nil, err
	}
	if depth == maxBookmarkDepth {
		return false, nil
	}
	for b := first.Bookmark; b != nil; {
		if *left--; *left <= 0 || ctx.Err() != nil {
			return false, ctx.Err()
		}
		if finite, err := f.measure(ctx, b, depth+1, left); err != nil || !finite {
			return false, err
		}
		next, err := f.pdf.FPDFBookmark_GetNextSibling(&requests.FPDFBookmark_GetNextSibling{Document: f.doc, Bookmark: *b})
		if err != nil {
			return false, err
		}
		b = next.Bookmark
	}
	return true, nil
}

func (f *pdfFile) addBookmarks(bookmarks []responses.GetBookmarksBookmark, level int) {
	for _, b := range bookmarks {
		page := -1
		if b.DestInfo != nil {
			page = b.DestInfo.PageIndex
		} else if b.ActionInfo != nil && b.ActionInfo.DestInfo != nil {
			page = b.ActionInfo.DestInfo.PageIndex
		}
		if title := oneLine(b.Title); page >= 0 && title != "" {
			f.outline[page] = append(f.outline[page], bookmark{level: min(level, 6), title: cut(title, 300)})
		}
		f.addBookmarks(b.Children, level+1)
	}
}

// window is how many pages are looked at together to tell running heads.
const window = 16

func (f *pdfFile) readPages(ctx context.Context) error {
	unreadable := 0
	for from := 0; from < f.pages; from += window {
		var texts []string
		for page := from; page < min(from+window, f.pages); page++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			text, err := f.pageText(page)
			if err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if _, ok := Rejected(err); ok {
					return err
				}
				unreadable++
				f.out.Warn(WarnBadPage)
			}
			texts = append(texts, text)
		}
		f.countEdges(texts)
		for i, text := range texts {
			if err := f.writePage(from+i, text); err != nil {
				return err
			}
		}
	}
	f.out.doc.Pages = f.pages
	if unreadable == f.pages {
		return reject(CodeBroken, "none of the %d pages can be read", f.pages)
	}
	return nil
}

// pageText is the text of one page. A page without glyphs but with a picture
// is counted as one that needs OCR.
func (f *pdfFile) pageText(index int) (text string, err error) {
	defer func() {
		// The library slices by lengths that come from the file.
		if r := recover(); r != nil {
			text, err = "", fmt.Errorf("page %d: unreadable", index+1)
		}
	}()
	page := requests.Page{ByIndex: &requests.PageByIndex{Document: f.doc, Index: index}}
	loaded, err := f.pdf.FPDFText_LoadPage(&requests.FPDFText_LoadPage{Page: page})
	if err != nil {
		return "", err
	}
	defer f.pdf.FPDFText_ClosePage(&requests.FPDFText_ClosePage{TextPage: loaded.TextPage}) //nolint:errcheck // the text is read
	count, err := f.pdf.FPDFText_CountChars(&requests.FPDFText_CountChars{TextPage: loaded.TextPage})
	if err != nil {
		return "", err
	}
	if count.Count > f.out.limits.TextBytes {
		return "", reject(CodeTextTooLong, "more than %d characters on a page", f.out.limits.TextBytes)
	}
	if count.Count > 0 {
		got, err := f.pdf.FPDFText_GetText(&requests.FPDFText_GetText{TextPage: loaded.TextPage, Count: count.Count})
		if err != nil {
			return "", err
		}
		text = got.Text
	}
	if len(strings.TrimSpace(text)) < 10 && f.hasPicture(page) {
		f.out.doc.NeedsOCR++
	}
	return text, nil
}

func (f *pdfFile) hasPicture(page requests.Page) bool {
	objects, err := f.pdf.FPDFPage_CountObjects(&requests.FPDFPage_CountObjects{Page: page})
	if err != nil {
		return false
	}
	for i := range min(objects.Count, 50) {
		object, err := f.pdf.FPDFPage_GetObject(&requests.FPDFPage_GetObject{Page: page, Index: i})
		if err != nil {
			return false
		}
		kind, err := f.pdf.FPDFPageObj_GetType(&requests.FPDFPageObj_GetType{PageObject: object.PageObject})
		if err == nil && (kind.Type == enums.FPDF_PAGEOBJ_IMAGE || kind.Type == enums.FPDF_PAGEOBJ_FORM) {
			return true
		}
	}
	return false
}
