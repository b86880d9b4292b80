package parse

import "sync"

// Config is what an Engine needs to know of the machine.
type Config struct {
	CacheDir string // compiled PDF reader, a start is 20 times faster with it; "": none
	Workers  int    // PDF files that are read at once; 2
	Limits   Limits // only PDFMemoryBytes counts here
}

// Engine reads documents. It holds the sandbox that reads PDF, started with
// the first one.
type Engine struct {
	parsers map[string]Parser
	pdf     *pdfParser
}

// New makes an Engine; Close it.
func New(cfg Config) *Engine {
	e := &Engine{pdf: newPDFParser(cfg)}
	e.parsers = map[string]Parser{
		FormatPDF:      e.pdf,
		FormatDOCX:     docxParser{},
		FormatPPTX:     pptxParser{},
		FormatXLSX:     xlsxParser{},
		FormatODF:      odfParser{},
		FormatEPUB:     epubParser{},
		FormatHTML:     htmlParser{},
		FormatMarkdown: markdownParser{},
		FormatText:     textParser{},
		FormatCSV:      csvParser{},
		FormatJSON:     jsonParser{},
		FormatJSONL:    jsonParser{lines: true},
		FormatEML:      emlParser{},
		FormatXML:      xmlParser{},
		FormatCode:     codeParser{},
	}
	return e
}

// Close ends the sandbox; twice is fine.
func (e *Engine) Close() error { return e.pdf.close() }

func (e *Engine) parser(format string) Parser {
	if p, ok := e.parsers[format]; ok {
		return p
	}
	return textParser{}
}

var sharedEngine = sync.OnceValue(func() *Engine { return New(Config{CacheDir: userCacheDir()}) })
