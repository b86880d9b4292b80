package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sluice-data/sluice"

// leaves import none of our rooms.
var leaves = []string{"record", "keys", "objects", "progress"}

// mayImport lists which of our rooms each room may import. A room that is not
// listed is a folder below one that is; the longest match counts. Test files
// may also use the fixtures.
var mayImport = map[string][]string{
	"record":           {},
	"progress":         {},
	"keys":             {},
	"objects":          {},
	"config":           {},
	"topic":            {"record", "progress"},
	"ingest":           {"record", "progress"},
	"ingest/files":     {"record", "progress", "objects"},
	"mappers":          {"record", "keys"},
	"lake":             {"record", "progress", "objects", "keys"},
	"activation":       {"record", "progress", "keys"},
	"vector":           {"record", "progress", "keys", "objects"},
	"cmd":              {"*"},
	"bench":            {"*"},
	"internal":         {"*"},
	"deploy":           {},
	"docs":             {},
	"examples":         {},
	"lake/keyindex":    {},
	"lake/restcatalog": {},
	"objects/gateway":  {},
}

// onlyIn names the rooms that alone may import a module.
var onlyIn = map[string][]string{
	"github.com/twmb/franz-go":                        {"topic"},
	"github.com/apache/iceberg-go":                    {"lake"},
	"github.com/aws/aws-sdk-go-v2/service/s3":         {"objects"},
	"github.com/aws/aws-sdk-go-v2/service/kms":        {"keys"},
	"github.com/pgvector/pgvector-go":                 {"vector"},
	"github.com/sashabaranov/go-openai":               {"vector"},
	"github.com/versity/versitygw":                    {"objects/gateway"},
	"github.com/apache/iceberg-go/io/gocloud":         {}, // leaks connections and doubles the build
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager": {},
}

var badPackageNames = []string{"utils", "util", "common", "shared", "types", "helpers", "misc"}

type file struct {
	path, room string // room: folder relative to the module, with slashes
	test       bool
	ast        *ast.File
}

func parseAll(t *testing.T) []file {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var files []file
	fset := token.NewFileSet()
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "tools" || name == "dist") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		files = append(files, file{path: rel, room: filepath.ToSlash(filepath.Dir(rel)),
			test: strings.HasSuffix(path, "_test.go"), ast: parsed})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("only %d Go files found below %s", len(files), root)
	}
	return files
}

func rules(room string) ([]string, bool) {
	for r := room; r != "." && r != ""; r = parent(r) {
		if allowed, ok := mayImport[r]; ok {
			return allowed, true
		}
	}
	return nil, false
}

func parent(room string) string {
	if i := strings.LastIndexByte(room, '/'); i >= 0 {
		return room[:i]
	}
	return ""
}

func within(room, of string) bool { return room == of || strings.HasPrefix(room, of+"/") }

func TestRoomsImportOnlyWhatTheyMay(t *testing.T) {
	for _, f := range parseAll(t) {
		allowed, ok := rules(f.room)
		if !ok {
			t.Errorf("%s: folder %s is no room of docs/architecture.md", f.path, f.room)
			continue
		}
		for _, spec := range f.ast.Imports {
			imported, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module+"/")
			if !ours || slices.Contains(allowed, "*") {
				continue
			}
			top := strings.SplitN(imported, "/", 2)[0]
			sameRoom := within(imported, strings.SplitN(f.room, "/", 2)[0]) && !within(f.room, imported) ||
				within(f.room, imported) && f.test
			fixture := f.test && (top == "internal" || strings.HasSuffix(imported, "test") || imported == "objects/gateway")
			if !slices.Contains(allowed, top) && !sameRoom && !fixture {
				t.Errorf("%s: %s may not import %s", f.path, f.room, imported)
			}
		}
	}
}

func TestModulesStayInTheirRoom(t *testing.T) {
	for _, f := range parseAll(t) {
		for _, spec := range f.ast.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			for mod, rooms := range onlyIn {
				if !within(path, mod) || f.test && len(rooms) > 0 {
					continue
				}
				if !slices.ContainsFunc(rooms, func(r string) bool { return within(f.room, r) }) {
					t.Errorf("%s: only %v may import %s", f.path, rooms, mod)
				}
			}
		}
	}
}

func TestForbiddenForms(t *testing.T) {
	for _, f := range parseAll(t) {
		if slices.Contains(badPackageNames, f.ast.Name.Name) {
			t.Errorf("%s: package %s is no noun of the domain", f.path, f.ast.Name.Name)
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: no init(): register in cmd/sluice/wiring.go", f.path)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			switch call := pkg.Name + "." + sel.Sel.Name; {
			case call == "context.WithValue":
				t.Errorf("%s: no values in a context", f.path)
			case call == "os.Exit" && f.room != "cmd/sluice" && !f.test && !strings.HasPrefix(f.room, "internal"):
				t.Errorf("%s: only main exits", f.path)
			}
			return true
		})
	}
}

func TestInterfacesAreSmall(t *testing.T) {
	for _, f := range parseAll(t) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if it, ok := spec.Type.(*ast.InterfaceType); ok && it.Methods.NumFields() > 5 {
				t.Errorf("%s: interface %s has %d methods; 5 at most", f.path, spec.Name.Name, it.Methods.NumFields())
			}
			return true
		})
	}
}

func TestLeavesAreListed(t *testing.T) {
	for _, l := range leaves {
		if allowed, ok := mayImport[l]; !ok || len(allowed) > 0 {
			t.Errorf("%s is a leaf and may import none of our rooms", l)
		}
	}
}
