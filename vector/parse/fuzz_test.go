package parse_test

import (
	"testing"
	"time"

	"github.com/sluice-data/sluice/vector/parse"
)

var fuzzLimits = parse.Limits{InputBytes: 1 << 20, TextBytes: 1 << 20, ExpandedBytes: 4 << 20, Pages: 50, Duration: 5 * time.Second}

// FuzzParse: any bytes under any name give a document that holds together, or
// a reject.
func FuzzParse(f *testing.F) {
	for name, content := range corpus() {
		f.Add(name, content)
	}
	for _, bad := range append(hostileArchives(), hostileText()...) {
		if content := bad.content(); len(content) < 64<<10 {
			f.Add(bad.name, content)
		}
	}
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		doc, err := read(t, name, content, fuzzLimits)
		if err != nil {
			if _, ok := parse.Rejected(err); !ok {
				t.Fatal(err)
			}
			return
		}
		checkDocument(t, doc)
	})
}

// FuzzOffice puts the fuzzed bytes inside of intact archives, where mutation
// of the compressed file would not get.
func FuzzOffice(f *testing.F) {
	f.Add(0, []byte(`<w:document><w:p><w:r><w:t>x</w:t></w:r></w:p><w:tbl><w:tr><w:tc><w:p/></w:tc></w:tr></w:tbl></w:document>`))
	f.Add(1, []byte(`<p:sld><p:sp><p:ph type="title"/><a:p><a:t>x</a:t></a:p></p:sp></p:sld>`))
	f.Add(2, []byte(`<sheetData><row r="3"><c r="B3" t="s"><v>0</v></c></row></sheetData>`))
	f.Add(3, []byte(`<o><text:h text:outline-level="2">x</text:h><table:table><table:table-row><table:table-cell/></table:table-row></table:table></o>`))
	f.Fuzz(func(t *testing.T, kind int, xml []byte) {
		content := map[int][]byte{
			0: zipped("word/document.xml", string(xml), "word/styles.xml", string(xml)),
			1: zipped("ppt/presentation.xml", `<p><sldId r:id="1"/></p>`, "ppt/_rels/presentation.xml.rels", `<r><Relationship Id="1" Target="s.xml"/></r>`, "ppt/s.xml", string(xml)),
			2: xlsx(string(xml), "xl/sharedStrings.xml", "<sst><si><t>s</t></si></sst>", "xl/styles.xml", string(xml)),
			3: zipped("META-INF/manifest.xml", "<m/>", "content.xml", string(xml)),
		}[kind&3]
		doc, err := read(t, "x", content, fuzzLimits)
		if err != nil {
			if _, ok := parse.Rejected(err); !ok {
				t.Fatal(err)
			}
			return
		}
		checkDocument(t, doc)
	})
}
