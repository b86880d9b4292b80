package parse

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"
)

// xlsxParser reads Excel sheets, each as a page with its tables. Rows are
// written as they come: what a sheet claims to measure is not believed.
type xlsxParser struct{}

func (xlsxParser) Parse(ctx context.Context, in *Source, out *Writer) error {
	a, err := in.archive(ctx)
	if err != nil {
		return err
	}
	if err := a.coreProperties(out); err != nil {
		return err
	}
	x := xlsx{a: a, out: out}
	if err := x.workbook(); err != nil {
		return err
	}
	if err := x.sharedStrings(); err != nil {
		return err
	}
	if err := x.styles(); err != nil {
		return err
	}
	for i, s := range x.sheets {
		if err := out.Page(i + 1); err != nil {
			return err
		}
		if err := out.Heading(2, s.name); err != nil {
			return err
		}
		if err := x.sheet(s.part); err != nil {
			return err
		}
	}
	// The names of empty sheets are no text.
	for _, b := range out.doc.Blocks {
		if b.Kind != Heading {
			return nil
		}
	}
	return reject(CodeEmpty, "no cells in %d sheets", len(x.sheets))
}

// maxColumns of a row are read; the others are counted as left out.
const maxColumns = 1024

type xlsx struct {
	a       *archive
	out     *Writer
	sheets  []sheet
	strings []string
	dates   []dateKind // by cell style
	epoch   time.Time

	row     []string
	place   int // column of the open cell
	typ     string
	kind    dateKind
	value   strings.Builder
	inValue bool
	last    int // number of the row before
}

type sheet struct{ name, part string }

type dateKind uint8

const (
	notDate dateKind = iota
	onlyDate
	onlyTime
	dateAndTime
)

func (x *xlsx) workbook() error {
	targets, err := x.a.relations("xl/workbook.xml")
	if err != nil {
		return err
	}
	x.epoch = time.Date(1899, 12, 30, 0, 0, 0, 0, time.UTC)
	return x.a.walk("xl/workbook.xml", &walker{start: func(name string, attr attrs) error {
		switch name {
		case "workbookPr":
			if v := attr.get("date1904"); v == "1" || v == "true" {
				x.epoch = time.Date(1904, 1, 1, 0, 0, 0, 0, time.UTC)
			}
		case "sheet":
			if strings.HasSuffix(strings.ToLower(attr.get("state")), "hidden") {
				x.out.Warn(WarnPartMissing) // what its author hid is not shown to others
				return nil
			}
			x.sheets = append(x.sheets, sheet{name: attr.get("name"), part: targets[attr.get("id")]})
		}
		return nil
	}})
}

// sharedStrings holds the texts of all cells: they may come to as much as the
// text of the document.
func (x *xlsx) sharedStrings() error {
	var text strings.Builder
	inText, phonetic, size := false, 0, 0
	return x.a.walk("xl/sharedStrings.xml", &walker{
		start: func(name string, _ attrs) error {
			switch name {
			case "si":
				text.Reset()
			case "t":
				inText = true
			case "rPh":
				phonetic++
			}
			return nil
		},
		text: func(s string) error {
			if inText && phonetic == 0 {
				text.WriteString(s)
			}
			return nil
		},
		end: func(name string) error {
			switch name {
			case "t":
				inText = false
			case "rPh":
				phonetic--
			case "si":
				if size += text.Len() + 16; size > x.out.limits.TextBytes*2 {
					return reject(CodeTextTooLong, "more than %d bytes of cell texts", x.out.limits.TextBytes*2)
				}
				x.strings = append(x.strings, text.String())
			}
			return nil
		},
	})
}

// styles learns which cells hold dates: to Excel they are numbers.
func (x *xlsx) styles() error {
	custom := map[string]dateKind{}
	inCells := false
	err := x.a.walk("xl/styles.xml", &walker{
		start: func(name string, attr attrs) error {
			switch name {
			case "numFmt":
				custom[attr.get("numFmtId")] = dateFormat(attr.get("formatCode"))
			case "cellXfs":
				inCells = true
			case "xf":
				if inCells && len(x.dates) < 100_000 {
					id := attr.get("numFmtId")
					kind, own := custom[id]
					if !own {
						kind = builtinFormat(id)
					}
					x.dates = append(x.dates, kind)
				}
			}
			return nil
		},
		end: func(name string) error {
			if name == "cellXfs" {
				inCells = false
			}
			return nil
		},
	})
	if r, ok := Rejected(err); ok && r.Code != CodeBomb {
		x.out.Warn(WarnPartMissing)
		return nil
	}
	return err
}

func builtinFormat(id string) dateKind {
	n, err := strconv.Atoi(id)
	switch {
	case err != nil:
		return notDate
	case n >= 14 && n <= 17, n >= 27 && n <= 31, n == 36, n >= 50 && n <= 58:
		return onlyDate
	case n >= 18 && n <= 21, n >= 32 && n <= 35, n >= 45 && n <= 47:
		return onlyTime
	case n == 22:
		return dateAndTime
	}
	return notDate
}

// dateFormat looks for the letters of a date outside of quotes and brackets.
func dateFormat(code string) dateKind {
	date, clock := false, false
	quoted, bracket := false, false
	for i := 0; i < len(code); i++ {
		switch c := code[i] | 0x20; {
		case code[i] == '\\':
			i++
		case code[i] == '"':
			quoted = !quoted
		case quoted:
		case code[i] == '[':
			bracket = true
		case code[i] == ']':
			bracket = false
		case bracket:
		case c == 'd' || c == 'y':
			date = true
		case c == 'h' || c == 's':
			clock = true
		}
	}
	switch {
	case date && clock:
		return dateAndTime
	case date:
		return onlyDate
	case clock:
		return onlyTime
	}
	return notDate
}

func (x *xlsx) sheet(part string) error {
	if !x.a.has(part) {
		x.out.Warn(WarnPartMissing)
		return nil
	}
	x.row, x.last = x.row[:0], 0
	return x.a.walk(part, &walker{start: x.start, end: x.end, text: func(s string) error {
		if x.inValue {
			x.value.WriteString(s)
		}
		return nil
	}})
}

func (x *xlsx) start(name string, attr attrs) error {
	switch name {
	case "row":
		n, err := strconv.Atoi(attr.get("r"))
		if err != nil {
			n = x.last + 1
		}
		if n > x.last+1 {
			x.out.EndTable() // empty rows part tables
		}
		x.last, x.row, x.place = n, x.row[:0], -1
	case "c":
		x.value.Reset()
		x.typ, x.kind = attr.get("t"), notDate
		if c := column(attr.get("r")); c >= 0 {
			x.place = c
		} else {
			x.place++
		}
		if i, err := strconv.Atoi(attr.get("s")); err == nil && i >= 0 && i < len(x.dates) {
			x.kind = x.dates[i]
		}
	case "v", "t":
		x.inValue = true
	}
	return nil
}

func (x *xlsx) end(name string) error {
	switch name {
	case "v", "t":
		x.inValue = false
	case "c":
		return x.endCell()
	case "row":
		n := len(x.row)
		for n > 0 && strings.TrimSpace(x.row[n-1]) == "" {
			n--
		}
		if n == 0 {
			x.out.EndTable()
			return x.out.alive()
		}
		return x.out.Row(x.row[:n])
	}
	return nil
}

func (x *xlsx) endCell() error {
	text := x.value.String()
	if text == "" {
		return nil
	}
	if x.place >= maxColumns {
		x.out.Warn(WarnRowsCut)
		return nil
	}
	switch x.typ {
	case "s":
		i, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || i < 0 || i >= len(x.strings) {
			return reject(CodeBroken, "a cell names a text that is not there")
		}
		text = x.strings[i]
	case "b":
		text = map[string]string{"1": "true", "0": "false"}[text]
	case "", "n":
		text = x.number(text)
	}
	for len(x.row) < x.place {
		x.row = append(x.row, "")
	}
	if len(x.row) > x.place { // a place named twice: the later cell counts
		x.row = x.row[:x.place]
	}
	x.row = append(x.row, text)
	return nil
}

// number shows a number as Excel does, with 15 digits, or as a date.
func (x *xlsx) number(text string) string {
	f, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return text
	}
	if x.kind != notDate && f >= 0 && f < 2_958_466 { // the year 10000
		days, part := math.Modf(f)
		at := x.epoch.AddDate(0, 0, int(days)).Add(time.Duration(math.Round(part*86400)) * time.Second)
		switch {
		case x.kind == onlyTime:
			return at.Format("15:04:05")
		case x.kind == onlyDate || part == 0:
			return at.Format("2006-01-02")
		}
		return at.Format("2006-01-02 15:04:05")
	}
	short := strconv.FormatFloat(f, 'g', 15, 64)
	if strings.Contains(short, "e") {
		if plain := strconv.FormatFloat(f, 'f', -1, 64); len(plain) <= 20 {
			return plain
		}
	}
	return short
}

// column is the column of a cell name as "BC12", from 0; -1: it is none.
func column(name string) int {
	n := 0
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c >= '0' && c <= '9' && i > 0 {
			break
		}
		if c < 'A' || c > 'Z' || i > 3 {
			return -1
		}
		n = n*26 + int(c-'A') + 1
	}
	return n - 1
}
