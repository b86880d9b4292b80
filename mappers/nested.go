package mappers

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/sluice-data/sluice/record"
)

// The field of a hash, encrypt, mask, redact or drop rule may be a path into
// a json field: profile.email is the member email of the documents in profile.
// Lists on the way are entered, so that contacts.email covers every contact. A
// document without the path passes. One that holds a text or number where the
// path needs an object is refused: nobody knows what is in there.

const codePath = "path_not_an_object"

// split returns the json column and the path that name stands for, -1 if it is no path.
func (b *builder) split(name string) (col int, path []string) {
	if b.index(name) >= 0 {
		return -1, nil
	}
	for i := range name {
		if name[i] != '.' {
			continue
		}
		if c := b.index(name[:i]); c >= 0 {
			return c, strings.Split(name[i+1:], ".")
		}
	}
	return -1, nil
}

// inside lets rule work on a text field in the place of what path leads to. It
// reports whether name is a path.
func (b *builder) inside(option, name string, rule func(sub *builder)) bool {
	col, path := b.split(name)
	if col < 0 {
		return false
	}
	f := b.cols[col].field
	switch {
	case f.Kind != record.JSON:
		b.fail(option, f.Name, CodeType, "%s is %s; only json has fields inside", f.Name, f.Kind)
		return true
	case slices.Contains(path, ""):
		b.fail(option, f.Name, CodeRule, "a part of the path is empty")
		return true
	case isPattern(name):
		b.fail(option, f.Name, CodeRule, "a path takes no *")
		return true
	}
	value := record.Field{Name: name, Kind: record.Text, Nullable: true}
	sub := &builder{phase: b.phase, keys: b.keys, stream: b.stream, rules: b.rules, copies: map[int]int{}, rule: b.rule, kind: b.kind,
		slots: []record.Field{value}, cols: []column{{field: value}}}
	rule(sub)
	b.errs = append(b.errs, sub.errs...)
	switch {
	case len(sub.errs) > 0:
	case len(sub.cols) == 0:
		b.replace(col, f, perRun(func() kernel { return (&nested{field: f.Name, path: path}).cells }))
	case sub.cols[0].field.Name != name:
		b.fail("suffix", f.Name, CodeRule, "a field inside a document keeps its name")
	case len(sub.plan) == 1:
		start := sub.plan[0].start
		b.replace(col, f, perRun(func() kernel {
			n := &nested{field: f.Name, path: path, src: record.NewVector(&value), dst: record.NewVector(&value)}
			if c, ok := start().(*cells); ok {
				n.kernel = c.kernel
			}
			return n.cells
		}))
	}
	return true
}

// outside runs rule inside each name that is a path and returns the others in
// their places.
func (b *builder) outside(names []string, rule func(sub *builder, name string)) []string {
	rest := slices.Clone(names)
	for i, name := range names {
		if b.inside(at("fields", i), name, func(sub *builder) { rule(sub, name) }) {
			rest[i] = ""
		}
	}
	return rest
}

// nested runs a kernel over what a path leads to in the documents of a column:
// it collects the values, lets the kernel work on all of them, and writes the
// documents anew. Without a kernel it leaves the values out.
type nested struct {
	field    string
	path     []string
	kernel   kernel
	src, dst *record.Vector // the values and what becomes of them
	rows     []int          // the row of each value
	refused  map[int]bool   // rows with a value that the kernel refused
	writing  bool
	next     int // value to write next
	doc, out []byte
	blocked  bool // the path ends at something that is no object
}

func (n *nested) cells(dst, src *record.Vector, _ twin, no refuse) {
	if n.kernel != nil {
		n.collect(src)
	}
	n.writing, n.next = true, 0
	for i, st := range src.State {
		if st != record.Present {
			dst.AppendMissing(st, 0)
			continue
		}
		ok := n.walkAll(src.Value(i))
		switch {
		case !ok:
			no(i, "value_not_json", n.field+": the value is no JSON document")
		case n.blocked:
			no(i, codePath, n.field+"."+strings.Join(n.path, ".")+": the document holds a value where the path needs an object")
		case n.refused[i]:
			no(i, "value_not_canonical", n.field+"."+strings.Join(n.path, ".")+": the value is not what the rule is for")
		default:
			dst.AppendData(n.out)
			continue
		}
		dst.AppendMissing(record.Unsent, 0)
	}
}

// collect runs the kernel over the values of all documents.
func (n *nested) collect(src *record.Vector) {
	n.src.Reset()
	n.dst.Reset()
	n.rows, n.writing = n.rows[:0], false
	clear(n.refused)
	for i, st := range src.State {
		if st == record.Present {
			n.walkAll(src.Value(i))
			for len(n.rows) < n.src.Len() {
				n.rows = append(n.rows, i)
			}
		}
	}
	n.kernel(n.dst, n.src, twin{}, func(k int, _, _ string) {
		if n.refused == nil {
			n.refused = map[int]bool{}
		}
		n.refused[n.rows[k]] = true
	})
}

// walkAll goes through a document; false if it is none.
func (n *nested) walkAll(doc []byte) bool {
	n.doc, n.out, n.blocked = doc, n.out[:0], false
	if !json.Valid(doc) {
		return false
	}
	n.walk(n.space(0), n.path)
	return true
}

// walk writes the value at offset i and returns the offset behind it. The
// document is valid, which is why it looks no closer.
func (n *nested) walk(i int, path []string) int {
	if len(path) == 0 {
		return n.value(i)
	}
	switch n.doc[i] {
	case '[':
		n.out = append(n.out, '[')
		i = n.space(i + 1)
		for n.doc[i] != ']' {
			i = n.space(n.walk(i, path))
			if n.doc[i] == ',' {
				n.out = append(n.out, ',')
				i = n.space(i + 1)
			}
		}
		n.out = append(n.out, ']')
		return i + 1
	case '{':
		return n.object(i, path)
	}
	end := n.skip(i)
	n.blocked = n.blocked || n.doc[i] != 'n'
	n.out = append(n.out, n.doc[i:end]...)
	return end
}

func (n *nested) object(i int, path []string) int {
	n.out = append(n.out, '{')
	first := true
	i = n.space(i + 1)
	for n.doc[i] != '}' {
		end := n.skip(i)
		name := n.doc[i:end]
		hit := string(name[1:len(name)-1]) == path[0]
		if !hit && bytes.IndexByte(name, '\\') >= 0 {
			hit = unquoted(name) == path[0]
		}
		i = n.space(n.space(end) + 1) // over the colon
		if hit && len(path) == 1 && n.kernel == nil {
			i = n.skip(i)
		} else {
			if !first {
				n.out = append(n.out, ',')
			}
			first = false
			n.out = append(append(n.out, name...), ':')
			if hit {
				i = n.walk(i, path[1:])
			} else {
				end := n.skip(i)
				n.out = append(n.out, n.doc[i:end]...)
				i = end
			}
		}
		if i = n.space(i); n.doc[i] == ',' {
			i = n.space(i + 1)
		}
	}
	n.out = append(n.out, '}')
	return i + 1
}

// value collects or writes the value at offset i, which the path leads to.
func (n *nested) value(i int) int {
	end := n.skip(i)
	raw := n.doc[i:end]
	switch {
	case n.kernel == nil:
	case n.writing:
		k := n.next
		n.next++
		if n.dst.State[k] == record.Present {
			n.out = appendQuoted(n.out, string(n.dst.Value(k)))
		} else {
			n.out = append(n.out, "null"...)
		}
	case raw[0] == 'n':
		n.src.AppendMissing(record.Null, 0)
	case raw[0] == '"':
		n.src.AppendData([]byte(unquoted(raw)))
	default:
		text, ok := appendJSON(nil, raw)
		if !ok {
			text = raw // it is valid, so it can be read; were it not, it stays what it is
		}
		n.src.AppendData(text)
	}
	return end
}

func unquoted(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return string(raw)
	}
	return s
}

// space returns the offset of the first byte at or behind i that is no white space.
func (n *nested) space(i int) int {
	for i < len(n.doc) && (n.doc[i] == ' ' || n.doc[i] == '\n' || n.doc[i] == '\t' || n.doc[i] == '\r') {
		i++
	}
	return i
}

// skip returns the offset behind the value at offset i.
func (n *nested) skip(i int) int {
	depth := 0
	for ; i < len(n.doc); i++ {
		switch c := n.doc[i]; c {
		case '"':
			for i++; n.doc[i] != '"'; i++ {
				if n.doc[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 {
				return i // the end of what a bare number or word stands in
			}
		case ',', ':', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return i
			}
		}
	}
	return i
}
