package quality_test

import (
	"bytes"
	"context"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/vector/parse"
)

// The documents are the pages of Go's standard library, which every machine
// that builds this has: one Markdown page a package, one section a function or
// type. A question is the first sentence of a section, which is taken out of
// the page; names are taken out of the question, and common words replaced by
// their synonyms, so that equal words alone do not win.

// question asks for a section of a page.
type question struct {
	text    string
	page    int
	passage string // the rest of the section's text
}

var packages = strings.Fields(`archive/tar archive/zip bufio bytes compress/flate compress/gzip container/heap container/list context crypto
crypto/aes crypto/cipher crypto/ecdsa crypto/hmac crypto/rand crypto/rsa crypto/sha256 crypto/tls crypto/x509 database/sql database/sql/driver
encoding/base64 encoding/binary encoding/csv encoding/gob encoding/hex encoding/json encoding/pem encoding/xml errors expvar flag fmt go/ast
go/build go/doc go/format go/parser go/token go/types hash hash/crc32 hash/maphash html html/template image image/color image/draw image/png io io/fs
iter log log/slog maps math math/big math/bits math/cmplx math/rand math/rand/v2 mime mime/multipart mime/quotedprintable net net/http
net/http/cookiejar net/http/httptest net/http/httputil net/mail net/netip net/rpc net/smtp net/textproto net/url os os/exec os/signal os/user
path path/filepath plugin reflect regexp regexp/syntax runtime runtime/debug runtime/metrics runtime/pprof runtime/trace slices sort strconv
strings sync sync/atomic syscall testing testing/fstest testing/iotest testing/quick text/scanner text/tabwriter text/template text/template/parse
time unicode unicode/utf16 unicode/utf8 unsafe`)

var synonyms = map[string]string{"returns": "gives", "return": "give", "reports": "tells", "whether": "if", "sets": "assigns", "set": "assign",
	"creates": "makes", "new": "fresh", "reads": "loads", "writes": "stores", "read": "load", "write": "store", "number": "count", "string": "text",
	"error": "failure", "file": "document", "directory": "folder", "function": "routine", "slice": "sequence", "value": "item", "values": "items",
	"first": "initial", "last": "final", "name": "label", "current": "present", "specified": "named", "given": "passed", "equal": "same",
	"contains": "holds", "removes": "deletes", "calls": "invokes", "begins": "starts", "size": "length", "bytes": "octets", "byte": "octet",
	"list": "collection", "map": "dictionary", "connection": "link", "request": "query", "response": "answer", "time": "moment", "copy": "duplicate"}

// material builds pages and questions; every step-th question is kept.
func material(t *testing.T, names []string, step int) (pages []*parse.Document, questions []question) {
	t.Helper()
	root := filepath.Join(runtime.GOROOT(), "src") //nolint:staticcheck // tests run with the toolchain that built them
	for _, name := range names {
		fset := token.NewFileSet()
		var files []*ast.File
		entries, err := os.ReadDir(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
				continue
			}
			f, err := parser.ParseFile(fset, filepath.Join(root, name, e.Name()), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			if len(files) == 0 || files[0].Name.Name == f.Name.Name {
				files = append(files, f)
			}
		}
		p, err := doc.NewFromFiles(fset, files, name)
		if err != nil {
			t.Fatal(err)
		}
		page, asked := render(p, fset, len(pages))
		parsed, err := parse.Parse(context.Background(), parse.Input{Name: name + ".md", Size: int64(len(page)), Body: strings.NewReader(page)}, parse.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, parsed)
		questions = append(questions, asked...)
	}
	var kept []question
	for i := 0; i < len(questions); i += step {
		kept = append(kept, questions[i])
	}
	return pages, kept
}

func render(p *doc.Package, fset *token.FileSet, page int) (string, []question) {
	var b bytes.Buffer
	var asked []question
	fmt.Fprintf(&b, "# Package %s\n\n%s\n", p.ImportPath, p.Doc)
	section := func(level int, kind, name, text string, decl ast.Node) {
		first, rest, _ := strings.Cut(strings.TrimSpace(text), ". ")
		first, rest = strings.Join(strings.Fields(first), " "), strings.TrimSpace(rest)
		words := len(strings.Fields(rest))
		ask := words >= 15 && words <= 120 && len(strings.Fields(first)) >= 7 && !strings.Contains(rest, "\n\n\t")
		if ask {
			asked = append(asked, question{text: reword(first, name), page: page, passage: rest})
			text = rest
		}
		fmt.Fprintf(&b, "%s %s %s\n\n", strings.Repeat("#", level), kind, name)
		if f, ok := decl.(*ast.FuncDecl); ok {
			f.Body, f.Doc = nil, nil
			b.WriteString("```go\n")
			_ = printer.Fprint(&b, fset, f)
			b.WriteString("\n```\n\n")
		}
		b.WriteString(strings.TrimSpace(text) + "\n\n")
	}
	for _, f := range p.Funcs {
		section(2, "func", f.Name, f.Doc, f.Decl)
	}
	for _, typ := range p.Types {
		section(2, "type", typ.Name, typ.Doc, nil)
		for _, f := range slices.Concat(typ.Funcs, typ.Methods) {
			section(3, "func", f.Name, f.Doc, f.Decl)
		}
	}
	return b.String(), asked
}

// reword drops the name and replaces common words.
func reword(sentence, name string) string {
	words := strings.Fields(sentence)
	out := words[:0]
	for _, w := range words {
		bare := strings.ToLower(strings.Trim(w, ".,;:()[]*"))
		if strings.EqualFold(bare, name) {
			continue
		}
		if s, ok := synonyms[bare]; ok {
			w = s
		}
		out = append(out, w)
	}
	return strings.Join(out, " ")
}
