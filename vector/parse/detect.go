package parse

import (
	"bytes"
	"context"
	"path"
	"strings"
	"unicode/utf8"
)

// The formats.
const (
	FormatPDF      = "pdf"
	FormatDOCX     = "docx"
	FormatPPTX     = "pptx"
	FormatXLSX     = "xlsx"
	FormatODF      = "odf" // OpenDocument text and presentation
	FormatEPUB     = "epub"
	FormatHTML     = "html"
	FormatMarkdown = "markdown"
	FormatText     = "text"
	FormatCSV      = "csv"
	FormatJSON     = "json"
	FormatJSONL    = "jsonl"
	FormatEML      = "eml"
	FormatXML      = "xml"
	FormatCode     = "code"
)

// binary lists the first bytes of formats that are not read.
var binary = []struct{ magic, name string }{
	{"\x89PNG", "a PNG picture"}, {"\xff\xd8\xff", "a JPEG picture"}, {"GIF8", "a GIF picture"},
	{"II*\x00", "a TIFF picture"}, {"MM\x00*", "a TIFF picture"}, {"\x7fELF", "a program"},
	{"MZ", "a program"}, {"\x1f\x8b", "a gzip file"}, {"BZh", "a bzip2 file"}, {"\xfd7zXZ", "an xz file"},
	{"7z\xbc\xaf", "a 7z archive"}, {"Rar!", "a RAR archive"}, {"\x28\xb5\x2f\xfd", "a zstd file"},
	{"OggS", "an audio or video file"}, {"ID3", "an audio file"}, {"RIFF", "an audio, video or picture file"},
	{"\x00\x00\x00", "a binary file"}, {"SQLite format 3\x00", "a database"}, {"PAR1", "a Parquet file"},
	{"\xca\xfe\xba\xbe", "a program"}, {"wOFF", "a font"}, {"{\\rtf", "an RTF document"},
}

// detect tells the format by the content; the declared type and the ending of
// the name decide only between formats of plain text.
func detect(ctx context.Context, s *Source, mime string) (string, error) {
	head := s.head
	switch {
	case bytes.Contains(head[:min(len(head), 1024)], []byte("%PDF-")):
		return FormatPDF, nil
	case bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return detectArchive(ctx, s)
	case bytes.HasPrefix(head, []byte("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")):
		// UTF-16 names of the streams inside.
		if bytes.Contains(head, []byte("E\x00n\x00c\x00r\x00y\x00p\x00t\x00e\x00d\x00P\x00a\x00c\x00k")) {
			return "", reject(CodeEncrypted, "an Office file with a password")
		}
		return "", reject(CodeUnsupported, "an Office file of the format before 2007, or one with a password")
	}
	for _, b := range binary {
		if bytes.HasPrefix(head, []byte(b.magic)) && !bytes.HasPrefix(head, []byte("\x00\x00\xfe\xff")) {
			if b.magic == "MZ" && utf8.Valid(head[:min(len(head), 256)]) && !bytes.Contains(head, []byte{0}) {
				continue // a text that begins with these letters
			}
			return "", reject(CodeUnsupported, "%s", b.name)
		}
	}
	if wide(head) == "" && looksBinary(head) {
		return "", reject(CodeUnsupported, "not text, and no format that is read")
	}
	return detectText(s, mime), nil
}

// detectArchive looks at the names in a zip file.
func detectArchive(ctx context.Context, s *Source) (string, error) {
	at, size, err := s.ReaderAt()
	if err != nil {
		return "", err
	}
	z, err := openArchive(ctx, at, size, s.Limits)
	if err != nil {
		return "", err
	}
	has := z.has
	switch {
	case has("EncryptionInfo"):
		return "", reject(CodeEncrypted, "an Office file with a password")
	case has("word/document.xml"):
		return FormatDOCX, nil
	case has("ppt/presentation.xml"):
		return FormatPPTX, nil
	case has("xl/workbook.xml"):
		return FormatXLSX, nil
	case has("META-INF/container.xml"):
		return FormatEPUB, nil
	case has("content.xml") && has("META-INF/manifest.xml"):
		return FormatODF, nil
	case has("[Content_Types].xml"):
		return "", reject(CodeBroken, "an Office file without its main part")
	}
	return "", reject(CodeUnsupported, "a zip archive with %d entries", len(z.names))
}

// looksBinary: NUL, or too many control characters for any encoding of text.
func looksBinary(head []byte) bool {
	odd, nul := 0, 0
	for _, c := range head {
		switch {
		case c == 0:
			nul++
		case c < 0x20 && c != '\n' && c != '\r' && c != '\t' && c != '\f' && c != 0x1b:
			odd++
		}
	}
	// A stray NUL in a log or an export is no reason to refuse the text.
	return (nul+odd)*20 > len(head)
}

var byMime = map[string]string{
	"text/html": FormatHTML, "application/xhtml+xml": FormatHTML, "text/markdown": FormatMarkdown,
	"text/csv": FormatCSV, "text/tab-separated-values": FormatCSV, "application/json": FormatJSON,
	"application/x-ndjson": FormatJSONL, "application/jsonl": FormatJSONL, "message/rfc822": FormatEML,
	"application/xml": FormatXML, "text/xml": FormatXML,
}

var byEnding = map[string]string{
	".html": FormatHTML, ".htm": FormatHTML, ".xhtml": FormatHTML, ".md": FormatMarkdown, ".markdown": FormatMarkdown,
	".csv": FormatCSV, ".tsv": FormatCSV, ".json": FormatJSON, ".jsonl": FormatJSONL, ".ndjson": FormatJSONL,
	".eml": FormatEML, ".xml": FormatXML,
}

// detectText tells apart what is text. A claim by name or type counts only as
// far as the content can be that.
func detectText(s *Source, mime string) string {
	start := strings.ToLower(strings.TrimLeft(strings.TrimPrefix(string(narrow(s.head)), "\ufeff"), " \t\r\n"))
	if format := byShape(start); format != "" {
		return format
	}
	if looksLikeMail(start) && mailOnly(start) {
		return FormatEML
	}
	ending := strings.ToLower(path.Ext(s.Name))
	declared, _, _ := strings.Cut(strings.ToLower(mime), ";")
	claim := byEnding[ending]
	if claim == "" {
		claim = byMime[strings.TrimSpace(declared)]
	}
	switch claim {
	case FormatMarkdown, FormatHTML:
		return claim
	case FormatCSV:
		if strings.ContainsAny(firstLine(start), ",;\t|") {
			return FormatCSV
		}
	case FormatJSON, FormatJSONL:
		if strings.HasPrefix(start, "{") || strings.HasPrefix(start, "[") {
			return claim
		}
	case FormatEML:
		if looksLikeMail(start) {
			return FormatEML
		}
	case "":
		if languageOfFile(s.Name) != "" {
			return FormatCode
		}
	}
	return FormatText
}

// byShape knows formats whose beginning leaves no doubt, whatever the name says.
func byShape(start string) string {
	switch {
	case strings.HasPrefix(start, "<!doctype html"), strings.HasPrefix(start, "<html"):
		return FormatHTML
	case strings.HasPrefix(start, "<?xml"):
		if strings.Contains(start[:min(len(start), 1024)], "<html") {
			return FormatHTML
		}
		return FormatXML
	}
	return ""
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// looksLikeMail: the first line is a header field.
func looksLikeMail(start string) bool {
	name, _, found := strings.Cut(firstLine(start), ":")
	if !found || name == "" || len(name) > 70 {
		return false
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f {
			return strings.HasPrefix(name, "from ") // an mbox line
		}
	}
	return true
}

// mailOnly: fields that only a mail has, for files whose name says nothing.
func mailOnly(start string) bool {
	fields, _, _ := strings.Cut(strings.ReplaceAll(start, "\r", ""), "\n\n")
	fields = "\n" + fields
	return strings.Contains(fields, "\nfrom:") &&
		(strings.Contains(fields, "\nmessage-id:") || strings.Contains(fields, "\nmime-version:") || strings.Contains(fields, "\nreceived:"))
}

// languages maps endings and names of source files to the name of their language.
var languages = map[string]string{
	".go": "go", ".py": "python", ".js": "javascript", ".mjs": "javascript", ".jsx": "javascript", ".ts": "typescript",
	".tsx": "typescript", ".java": "java", ".kt": "kotlin", ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp", ".hpp": "cpp",
	".cs": "csharp", ".rb": "ruby", ".rs": "rust", ".php": "php", ".swift": "swift", ".scala": "scala", ".sh": "shell",
	".bash": "shell", ".sql": "sql", ".proto": "proto", ".sol": "sol", ".lua": "lua", ".pl": "perl", ".r": "r",
	".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".ini": "ini", ".tf": "hcl", ".css": "css", ".tex": "latex",
	".rst": "rst", ".ex": "elixir", ".hs": "haskell", ".dart": "dart", ".m": "objectivec", ".ps1": "powershell",
	"makefile": "makefile", "dockerfile": "dockerfile",
}

func languageOfFile(name string) string {
	base := strings.ToLower(path.Base(name))
	if lang := languages[base]; lang != "" {
		return lang
	}
	return languages[path.Ext(base)]
}
