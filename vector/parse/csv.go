package parse

import (
	"context"
	"encoding/csv"
	"errors"
	"io"
	"strings"
)

// csvParser reads tables of text; its first row is the header.
type csvParser struct{}

func (csvParser) Parse(_ context.Context, in *Source, out *Writer) error {
	text, err := wholeText(in, out)
	if err != nil {
		return err
	}
	r := csv.NewReader(strings.NewReader(text))
	r.Comma = delimiter(text)
	r.LazyQuotes, r.FieldsPerRecord, r.ReuseRecord = true, -1, true
	for {
		row, err := r.Read()
		if err == io.EOF {
			return nil
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			out.Warn(WarnBadRow)
			continue
		}
		if err != nil {
			return err
		}
		if len(row) > maxColumns {
			out.Warn(WarnRowsCut)
			row = row[:maxColumns]
		}
		if err := out.Row(row); err != nil {
			return err
		}
	}
}

// delimiter is the sign that parts most of the first lines as it parts the
// first one.
func delimiter(text string) rune {
	best, bestScore := ',', 0
	for _, d := range []rune{',', ';', '\t', '|'} {
		first := strings.Count(firstLine(text), string(d))
		if first == 0 {
			continue
		}
		score, rest := first, text
		for range 5 {
			var line string
			line, rest, _ = strings.Cut(rest, "\n")
			if strings.Count(line, string(d)) == first {
				score += 10
			}
		}
		if score > bestScore {
			best, bestScore = d, score
		}
	}
	return best
}
