package mappers

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/sluice-data/sluice/record"
)

// onePath finds the document and the path that a rule takes a value from.
func (b *builder) onePath(option, name string) (col int, path []segment, ok bool) {
	col, path = b.split(name)
	switch {
	case col < 0 && b.find(option, name) >= 0:
		b.fail(option, name, CodeRule, "%s is a whole field; want a path into a json field, such as %s.member", name, name)
		return -1, nil, false
	case col < 0:
		return -1, nil, false
	case b.cols[col].field.Kind != record.JSON:
		b.fail(option, name, CodeType, "%s is %s; only json has fields inside", b.cols[col].field.Name, b.cols[col].field.Kind)
		return -1, nil, false
	}
	if !single(path) {
		b.fail(option, name, CodeRule, "%s can lead to several values; want member.member or member[0]", name)
		return -1, nil, false
	}
	return col, path, true
}

// single reports whether path leads to one value at most.
func single(path []segment) bool {
	return len(path) > 0 && !slices.ContainsFunc(path, func(s segment) bool { return s.glob || s.index == everyOne })
}

func (b *builder) jsonExtract(j *JSONExtract) {
	col, path, ok := b.onePath("from", j.From)
	if ok && b.free("field", j.Field, -1) {
		b.extract(col, path, j.Field, j.Type)
	}
}

// extract adds a field with what a path leads to.
func (b *builder) extract(col int, path []segment, name, kind string) {
	if kind == "" {
		kind = record.Text.String()
	}
	f, err := parseType(kind)
	if err != nil {
		return // the checker has reported it
	}
	f.Name, f.Nullable = name, true
	in := b.cols[col]
	b.copies[in.slot] = b.rule
	b.copyOut(in, f, func() kernel {
		return (&extractor{nested: nested{field: in.field.Name}, path: path, to: &f}).cells
	})
}

// extractor reads values out of documents.
type extractor struct {
	nested // its document and how to go through it
	path   []segment
	to     *record.Field
	text   []byte
}

func (e *extractor) cells(dst, src *record.Vector, _ twin, no refuse) {
	width := e.to.Kind.Width()
	for i, st := range src.State {
		if st != record.Present {
			dst.AppendMissing(st, width)
			continue
		}
		if code, reason := e.cell(dst, src.Value(i)); code != "" {
			no(i, code, e.to.Name+": "+reason)
			dst.AppendMissing(record.Unsent, width)
		}
	}
}

// cell appends the value of one document; with a code, nothing is appended.
func (e *extractor) cell(dst *record.Vector, doc []byte) (code, reason string) {
	if !json.Valid(doc) {
		return "value_not_json", "the value of " + e.field + " is no JSON document"
	}
	e.doc, e.blocked = doc, false
	raw := e.find(e.space(0), e.path)
	switch {
	case e.blocked:
		return codePath, "the document holds a value where the path needs an object or list"
	case raw == nil || raw[0] == 'n':
		dst.AppendMissing(record.Null, e.to.Kind.Width())
		return "", ""
	case e.to.Kind == record.JSON:
		dst.AppendData(raw)
		return "", ""
	case raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0:
		e.text = append(e.text[:0], raw[1:len(raw)-1]...)
	case raw[0] == '"':
		e.text = append(e.text[:0], unquoted(raw)...)
	case raw[0] == 't' || raw[0] == 'f':
		e.text = append(e.text[:0], raw...)
	case raw[0] != '{' && raw[0] != '[':
		var ok bool
		if e.text, ok = appendNumber(e.text[:0], raw); !ok {
			return codeCast, "the number has too many digits"
		}
	default:
		var ok bool
		if e.text, ok = appendJSON(e.text[:0], raw); !ok {
			return codeCast, "the value cannot be read"
		}
	}
	if !appendParsed(dst, e.to, e.text) {
		return codeCast, "the value has no exact form as " + e.to.Kind.String()
	}
	return "", ""
}

// find returns what path leads to from the value at offset i, nil if nothing
// is there. Of members of one name the last counts, as everywhere.
func (n *nested) find(i int, path []segment) []byte {
	if len(path) == 0 {
		return n.doc[i:n.skip(i)]
	}
	isList := n.doc[i] == '['
	if !isList && n.doc[i] != '{' || isList != (path[0].index != noIndex) {
		n.blocked = n.blocked || n.doc[i] != 'n'
		return nil
	}
	at := -1
	i = n.space(i + 1)
	for k := 0; n.doc[i] != ']' && n.doc[i] != '}'; k++ {
		hit := isList && path[0].picks(k)
		if !isList {
			end := n.skip(i)
			hit = path[0].fitsQuoted(n.doc[i:end])
			i = n.space(n.space(end) + 1)
		}
		if hit {
			at = i
		}
		if i = n.space(n.skip(i)); n.doc[i] == ',' {
			i = n.space(i + 1)
		}
	}
	if at < 0 {
		return nil
	}
	return n.find(at, path[1:])
}

func (b *builder) move(m *Move) {
	switch col, _ := b.split(m.From); {
	case col >= 0:
		b.moveOut(m)
	case b.find("from", m.From) < 0:
	default:
		if to, path := b.split(m.To); to >= 0 {
			b.moveIn(m, to, path)
		} else {
			b.moveName(m)
		}
	}
}

// moveOut makes a member of a document a field.
func (b *builder) moveOut(m *Move) {
	col, path, ok := b.onePath("from", m.From)
	if !ok {
		return
	}
	if to, _ := b.split(m.To); to >= 0 {
		b.fail("to", m.To, CodeRule, "a value moves into a document from a field; move it to a field first")
		return
	}
	to := unquotedName(m.To)
	if !b.free("to", to, -1) {
		return
	}
	f := b.cols[col].field
	b.extract(col, path, to, m.Type)
	b.replace(col, f, perRun(func() kernel { return (&nested{field: f.Name, name: m.From, path: path}).cells }))
}

// moveName is a rename.
func (b *builder) moveName(m *Move) {
	to := unquotedName(m.To)
	if to == m.To && strings.ContainsAny(to, ".[") {
		b.fail("to", m.To, CodeMissing, "%s is a path, and there is no json field that it leads into; nest makes one, and quotes mean a name with dots", m.To)
		return
	}
	i := b.find("from", m.From)
	if b.free("to", to, i) {
		b.cols[i].field.Name = to
	}
}

// moveIn makes a field a member of a document.
func (b *builder) moveIn(m *Move, to int, path []segment) {
	from := b.find("from", m.From)
	f, in := b.cols[to].field, []column{b.cols[to], b.cols[from]}
	switch {
	case !b.notOnKey("from", &b.cols[from].field):
		return
	case from == to:
		b.fail("to", m.To, CodeRule, "a field cannot move into itself")
		return
	case f.Kind != record.JSON:
		b.fail("to", m.To, CodeType, "%s is %s; only json has fields inside", f.Name, f.Kind)
		return
	case !single(path) || slices.ContainsFunc(path, func(s segment) bool { return s.index != noIndex }):
		b.fail("to", m.To, CodeRule, "want a path of members, such as %s.member", f.Name)
		return
	}
	b.copies[in[1].slot] = b.rule
	f.Nullable = true
	b.combineInto(to, in, f, func() cellFunc { return (&inserter{path: path, value: in[1].field}).cell })
	b.cols = slices.Delete(b.cols, from, from+1)
}

// inserter writes a value to a place in documents.
type inserter struct {
	nested
	path  []segment
	value record.Field
	text  []byte
}

func (s *inserter) cell(dst *record.Vector, in []*record.Vector, i int) bool {
	var ok bool
	if s.text, ok = appendJSONCell(s.text[:0], &s.value, in[1], i); !ok {
		return false
	}
	s.doc, s.out, s.blocked = nullDocument, s.out[:0], false
	if in[0].State[i] == record.Present {
		s.doc = in[0].Value(i)
	}
	if !json.Valid(s.doc) {
		return false
	}
	s.put(s.space(0), s.path)
	if s.blocked {
		return false
	}
	dst.AppendData(s.out)
	return true
}

var nullDocument = []byte("null")

// put writes the value at offset i with s.text at its path.
func (s *inserter) put(i int, path []segment) {
	switch {
	case len(path) == 0:
		s.out = append(s.out, s.text...)
		return
	case s.doc[i] == 'n':
		s.make(path)
		return
	case s.doc[i] != '{':
		s.blocked = true
		return
	}
	s.out = append(s.out, '{')
	start, done := len(s.out), false
	for i = s.space(i + 1); s.doc[i] != '}'; {
		end := s.skip(i)
		name := s.doc[i:end]
		i = s.space(s.space(end) + 1)
		end = s.skip(i)
		if hit := path[0].fitsQuoted(name); !hit || !done {
			if len(s.out) > start {
				s.out = append(s.out, ',')
			}
			s.out = append(append(s.out, name...), ':')
			if hit {
				s.put(i, path[1:])
				done = true
			} else {
				s.out = append(s.out, s.doc[i:end]...)
			}
		}
		if i = s.space(end); s.doc[i] == ',' {
			i = s.space(i + 1)
		}
	}
	if !done {
		if len(s.out) > start {
			s.out = append(s.out, ',')
		}
		s.out = append(appendQuoted(s.out, path[0].name), ':')
		s.make(path[1:])
	}
	s.out = append(s.out, '}')
}

// make writes the objects of a path that is not there yet.
func (s *inserter) make(path []segment) {
	for _, p := range path {
		s.out = append(appendQuoted(append(s.out, '{'), p.name), ':')
	}
	s.out = append(s.out, s.text...)
	for range path {
		s.out = append(s.out, '}')
	}
}

// appendJSONCell appends a cell as a JSON value; false if it has none.
func appendJSONCell(dst []byte, f *record.Field, v *record.Vector, i int) ([]byte, bool) {
	if v.State[i] != record.Present {
		return append(dst, "null"...), true
	}
	if f.Kind == record.JSON {
		return append(dst, v.Value(i)...), json.Valid(v.Value(i))
	}
	start := len(dst)
	dst, ok := AppendCanonical(dst, f, v, i)
	if !ok {
		return dst, false
	}
	if f.Kind == record.Bytes {
		return appendQuoted(dst[:start], base64Text(v.Value(i))), true
	}
	if f.Kind != record.Array && !bareInJSON(f.Kind, dst[start:]) {
		dst = quoteTail(dst, start)
	}
	return dst, json.Valid(dst[start:])
}

func (b *builder) nest(n *Nest) {
	fields, paths := b.expand(n.Fields)
	var in []column
	for i, name := range fields {
		c := b.cols[b.index(name)]
		if !b.notOnKey(paths[i], &c.field) {
			return
		}
		b.copies[c.slot] = b.rule
		in = append(in, c)
	}
	b.cols = slices.DeleteFunc(b.cols, func(c column) bool { return slices.Contains(fields, c.field.Name) })
	if !b.free("field", n.Field, -1) {
		return
	}
	if len(in) == 0 {
		b.fail("fields", "", CodeMissing, "no field is selected")
		return
	}
	b.combine(in, record.Field{Name: n.Field, Kind: record.JSON, Nullable: true}, func() cellFunc {
		return func(dst *record.Vector, vs []*record.Vector, i int) bool {
			begin := len(dst.Data)
			for k := range in {
				sep := byte(',')
				if k == 0 {
					sep = '{'
				}
				dst.Data = append(appendQuoted(append(dst.Data, sep), in[k].field.Name), ':')
				var ok bool
				if dst.Data, ok = appendJSONCell(dst.Data, &in[k].field, vs[k], i); !ok {
					dst.Data = dst.Data[:begin]
					return false
				}
			}
			dst.Data = append(dst.Data, '}')
			dst.State, dst.Offs = append(dst.State, record.Present), append(dst.Offs, int32(len(dst.Data)))
			return true
		}
	})
}

// name returns the field that a path becomes.
func (f *Flatten) name(path string) string {
	return f.Prefix + strings.NewReplacer("].", "_", ".", "_", "[", "_", "]", "", `"`, "").Replace(path)
}

func (b *builder) flatten(f *Flatten) {
	i := b.find("field", f.Field)
	if i < 0 {
		return
	}
	in := b.cols[i]
	if in.field.Kind != record.JSON {
		b.fail("field", in.field.Name, CodeType, "%s is %s; only json has fields inside", in.field.Name, in.field.Kind)
		return
	}
	if !f.Keep {
		if !b.notOnKey("field", &in.field) {
			return
		}
		defer func() {
			b.cols = slices.DeleteFunc(b.cols, func(c column) bool { return c.slot == in.slot })
		}()
	}
	for _, p := range sortedKeys(f.Fields) {
		path, ok := parsePath(p)
		if !ok || !single(path) {
			b.fail("fields."+p, in.field.Name, CodeRule, "%s can lead to several values; want member.member or member[0]", p)
			return
		}
		name := f.name(p)
		if other := b.index(name); other >= 0 && b.cols[other].slot == in.slot && !f.Keep {
			b.cols[other].field.Name = "" // it makes room for its own member
		}
		if !b.free("fields."+p, name, -1) {
			return
		}
		b.extract(slices.IndexFunc(b.cols, func(c column) bool { return c.slot == in.slot }), path, name, f.Fields[p])
	}
}
