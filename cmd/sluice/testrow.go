package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/record"
)

// testSchema is the schema of a test's rows.
func testSchema(t *config.Test) (*record.Schema, error) {
	name, err := record.ParseStreamName(t.Stream)
	if err != nil {
		return nil, err
	}
	s := &record.Schema{Stream: name}
	for _, c := range t.Columns {
		f, err := testField(c.Name, c.Value.Text)
		if err != nil {
			return nil, fmt.Errorf("columns.%s: %w", c.Name, err)
		}
		f.Key = slices.Index(t.Key, c.Name) + 1
		f.Nullable = f.Key == 0
		s.Fields = append(s.Fields, f)
	}
	for _, k := range t.Key {
		if s.Index(k) < 0 {
			return nil, fmt.Errorf("key: there is no column %s", k)
		}
	}
	return s.Seal(), nil
}

// testField reads a type: int64, decimal(10,2), text[].
func testField(name, spec string) (record.Field, error) {
	f := record.Field{Name: name, Nullable: true, SourceType: spec}
	if elem, ok := strings.CutSuffix(spec, "[]"); ok {
		e, err := testField("element", elem)
		if err != nil {
			return f, err
		}
		f.Kind, f.Elem = record.Array, &e
		return f, nil
	}
	kind, args, _ := strings.Cut(strings.TrimSuffix(spec, ")"), "(")
	var err error
	if f.Kind, err = record.ParseKind(kind); err != nil || f.Kind == record.Array {
		return f, fmt.Errorf("unknown type %q; want bool, int16, int32, int64, float32, float64, decimal(p,s), decimaltext, text, bytes, date, time, timestamp, timestamptz, uuid, json, enum or one of them with []", spec)
	}
	if f.Kind == record.Decimal {
		p, s, _ := strings.Cut(args, ",")
		var err1, err2 error
		f.Precision, err1 = strconv.Atoi(strings.TrimSpace(p))
		f.Scale, err2 = strconv.Atoi(strings.TrimSpace(s))
		if err1 != nil || err2 != nil || f.Precision < 1 || f.Precision > 38 || f.Scale < 0 || f.Scale > f.Precision {
			return f, fmt.Errorf("want decimal(p,s) with 1 to 38 digits, got %q", spec)
		}
	}
	return f, nil
}

// testBatch makes one batch of each row.
func testBatch(s *record.Schema, rows []config.Row) ([]*record.Batch, error) {
	dec := record.NewDecoder(s)
	var batches []*record.Batch
	for i, row := range rows {
		value, unsent, err := envelopeOf(s, row, i)
		if err != nil {
			return nil, fmt.Errorf("rows[%d]: %w", i, err)
		}
		b := record.NewBatch(s, nil)
		if err := dec.Append(b, nil, value, unsent); err != nil {
			return nil, fmt.Errorf("rows[%d]: %w", i, err)
		}
		batches = append(batches, b)
	}
	return batches, nil
}

// envelopeOf writes a row as topics have it: what a test takes is then what the flow takes.
func envelopeOf(s *record.Schema, row config.Row, i int) (value, unsent []byte, err error) {
	op, before := record.OpRead, "null"
	var cells config.Row
	for _, c := range row {
		switch {
		case c.Name == "_op":
			var ok bool
			if op, ok = map[string]record.Op{"read": record.OpRead, "insert": record.OpInsert, "update": record.OpUpdate, "delete": record.OpDelete}[c.Value.Text]; !ok {
				return nil, nil, fmt.Errorf("_op: want read, insert, update or delete, got %q", c.Value.Text)
			}
		case c.Name == "_before":
			if before, err = objectOf(s, c.Value.Fields); err != nil {
				return nil, nil, fmt.Errorf("_before: %w", err)
			}
		case s.Index(c.Name) < 0:
			return nil, nil, fmt.Errorf("%s is no column", c.Name)
		default:
			cells = append(cells, c)
		}
	}
	after, err := objectOf(s, cells)
	if err != nil {
		return nil, nil, err
	}
	if op == record.OpDelete {
		before, after = after, "null"
	}
	var missing []string
	for _, f := range s.Fields {
		if _, ok := cells.Get(f.Name); !ok && op == record.OpUpdate {
			missing = append(missing, f.Name) // an update without a cell is one that did not send it
		}
	}
	if len(missing) > 0 {
		if unsent, err = json.Marshal(missing); err != nil {
			return nil, nil, err
		}
	}
	return fmt.Appendf(nil, `{"before":%s,"after":%s,"op":%q,"ts_ms":0,"source":{"connector":"test","schema_id":%q,"ts_ms":0,"ts_us":0,"pos":"1/0/%d"}}`,
		before, after, op.Code(), s.ID, i+1), unsent, nil
}

func objectOf(s *record.Schema, cells config.Row) (string, error) {
	var b strings.Builder
	b.WriteByte('{')
	for _, c := range cells {
		i := s.Index(c.Name)
		if i < 0 {
			return "", fmt.Errorf("%s is no column", c.Name)
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.WriteString(jsonText(c.Name) + ":" + wireValue(&s.Fields[i], c.Value))
	}
	return b.String() + "}", nil
}

// wireValue spells v as topics spell a value of f. What does not fit is left
// to the decoder, which says so.
func wireValue(f *record.Field, v config.Value) string {
	switch {
	case v.Kind == config.Null:
		return "null"
	case f.Kind == record.Array && v.Kind == config.List:
		var parts []string
		for _, e := range v.List {
			parts = append(parts, wireValue(f.Elem, e))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case v.Kind == config.List || v.Kind == config.Map:
		return jsonText(canonicalValue(v)) // a document
	}
	switch f.Kind {
	case record.Bool, record.Int16, record.Int32, record.Int64, record.Float32, record.Float64:
		if json.Valid([]byte(v.Text)) {
			return v.Text
		}
	case record.Decimal:
		return jsonText(scaled(v.Text, f.Scale))
	}
	return jsonText(v.Text)
}

// scaled gives a decimal all digits behind its point.
func scaled(text string, scale int) string {
	whole, part, _ := strings.Cut(text, ".")
	if scale > len(part) && strings.Trim(whole, "-0123456789") == "" {
		part += strings.Repeat("0", scale-len(part))
		return whole + "." + part
	}
	return text
}

func jsonText(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}

// unquoted returns the text of a JSON string, and other JSON as it is.
func unquoted(cell string) string {
	var s string
	if json.Unmarshal([]byte(cell), &s) == nil {
		return s
	}
	return cell
}

// canonicalCell makes cells comparable: a number and its text are the same, a
// document has no white space and its names are sorted.
func canonicalCell(cell string) string {
	if cell == "" {
		return "(not sent)"
	}
	text := unquoted(cell)
	if cell == "null" {
		return "null"
	}
	if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		var v any
		if d.Decode(&v) == nil {
			if out, err := json.Marshal(v); err == nil {
				return string(out)
			}
		}
	}
	return sameNumber(text)
}

// canonicalValue is canonicalCell for what the file has.
func canonicalValue(v config.Value) string {
	switch v.Kind {
	case config.Null:
		return "null"
	case config.List, config.Map:
		out, err := json.Marshal(plainValue(v))
		if err != nil {
			return "(" + err.Error() + ")"
		}
		return string(out)
	}
	return canonicalCell(jsonText(v.Text))
}

func plainValue(v config.Value) any {
	switch v.Kind {
	case config.Null:
		return nil
	case config.List:
		list := []any{}
		for _, e := range v.List {
			list = append(list, plainValue(e))
		}
		return list
	case config.Map:
		m := map[string]any{}
		for _, c := range v.Fields {
			m[c.Name] = plainValue(c.Value)
		}
		return m
	case config.Scalar:
		if json.Valid([]byte(v.Text)) {
			return json.RawMessage(v.Text)
		}
	}
	return v.Text
}

// sameNumber takes zeros at the end of a fraction away, so that 1.5 is 1.50.
func sameNumber(s string) string {
	if strings.Count(s, ".") == 1 && strings.Trim(s, "-.0123456789") == "" {
		return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// text shows a result row as the file would have it.
func (r resultRow) text() string {
	var parts []string
	if r.op != record.OpRead {
		parts = append(parts, "_op: "+r.op.String())
	}
	for i, name := range r.names {
		if r.cells[i] != "" {
			parts = append(parts, name+": "+r.cells[i])
		}
	}
	return "{ " + strings.Join(parts, ", ") + " }"
}

func rowText(row config.Row) string {
	var parts []string
	for _, c := range row {
		text := canonicalValue(c.Value)
		if c.Value.Kind == config.Quoted {
			text = jsonText(c.Value.Text)
		}
		parts = append(parts, c.Name+": "+text)
	}
	return "{ " + strings.Join(parts, ", ") + " }"
}
