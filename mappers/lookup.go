package mappers

import (
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sluice-data/sluice/record"
)

// maxTableBytes bounds the file of a lookup: a table lives in memory.
const maxTableBytes = 64 << 20

// Table is the content of a lookup file. It is immutable.
type Table struct {
	header []string
	rows   [][]string
}

// ParseTable reads a CSV file with a header line, of at most 64 MiB. Its errors
// name lines, never values.
func ParseTable(r io.Reader) (*Table, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxTableBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the table: %w", err)
	case len(text) > maxTableBytes:
		return nil, errors.New("the table has more than 64 MiB")
	}
	lines := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))))
	t := &Table{}
	if t.header, err = lines.Read(); err != nil {
		return nil, errors.New("the table has no header line")
	}
	if t.rows, err = lines.ReadAll(); err != nil {
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			return nil, fmt.Errorf("line %d of the table: %w", bad.Line, bad.Err)
		}
		return nil, errors.New("the table cannot be read")
	}
	return t, nil
}

// index maps the values of a column to those of another.
func (t *Table) index(key, value int) (map[string]string, int) {
	m := make(map[string]string, len(t.rows))
	for i, row := range t.rows {
		if _, twice := m[row[key]]; twice {
			return nil, i + 2
		}
		m[row[key]] = row[value]
	}
	return m, 0
}

func (b *builder) lookup(l *Lookup) {
	from := b.find("from", l.From)
	if from < 0 || !b.free("field", l.Field, -1) {
		return
	}
	var t *Table
	if b.scope.Tables != nil {
		t, _ = b.scope.Tables.Table(l.File)
	}
	if t == nil {
		b.fail("file", "", CodeSecret, "the table is not available")
		return
	}
	key, value := slices.Index(t.header, l.Key), slices.Index(t.header, l.Value)
	switch {
	case key < 0:
		b.fail("key", "", CodeMissing, "the table has no column %s%s", l.Key, suggest(l.Key, t.header))
		return
	case value < 0:
		b.fail("value", "", CodeMissing, "the table has no column %s%s", l.Value, suggest(l.Value, t.header))
		return
	}
	values, line := t.index(key, value)
	if line > 0 {
		b.fail("key", "", CodeRule, "line %d of the table has a key that is there before", line)
		return
	}
	in, missing, standard := b.cols[from], l.Missing, []byte(l.Default)
	b.copies[in.slot] = b.rule
	out := record.Field{Name: l.Field, Kind: record.Text, Nullable: true}
	b.copyOut(in, out, func() kernel {
		var text []byte
		return func(dst, src *record.Vector, _ twin, no refuse) {
			for i, st := range src.State {
				if st != record.Present {
					dst.AppendMissing(st, 0)
					continue
				}
				ok := false
				if text, ok = AppendCanonical(text[:0], &in.field, src, i); !ok {
					no(i, "value_not_canonical", in.field.Name+": the value has no canonical text to look up")
					dst.AppendMissing(record.Unsent, 0)
					continue
				}
				v, found := values[string(text)]
				switch {
				case found:
					dst.Data = append(dst.Data, v...)
					dst.State, dst.Offs = append(dst.State, record.Present), append(dst.Offs, int32(len(dst.Data)))
				case missing == "default":
					dst.AppendData(standard)
				case missing == "reject":
					no(i, "value_not_in_table", in.field.Name+": the table does not have the value")
					dst.AppendMissing(record.Unsent, 0)
				default:
					dst.AppendMissing(record.Null, 0)
				}
			}
		}
	})
}

func base64Text(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
