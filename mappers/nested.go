package mappers

import (
	"bytes"
	"encoding/json"

	"github.com/sluice-data/sluice/record"
)

// A rule inside documents: a document without the path passes. One that holds a
// text or number where the path needs an object is refused: nobody knows what
// is in there.

const codePath = "path_not_an_object"

// nested runs a kernel over what a path leads to in the documents of a column:
// it collects the values, lets the kernel work on all of them, and writes the
// documents anew. Without a kernel it leaves the values out.
type nested struct {
	field    string
	name     string // the path as the rule has it
	path     []segment
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
			no(i, codePath, n.name+": the document holds a value where the path needs an object")
		case n.refused[i]:
			no(i, "value_not_canonical", n.name+": the value is not what the rule is for")
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
func (n *nested) walk(i int, path []segment) int {
	if len(path) == 0 {
		return n.value(i)
	}
	switch {
	case n.doc[i] == '[':
		return n.list(i, path)
	case n.doc[i] == '{' && path[0].index == noIndex:
		return n.object(i, path)
	}
	n.blocked = n.blocked || n.doc[i] != 'n'
	return n.copy(i)
}

// copy writes the value at offset i as it is.
func (n *nested) copy(i int) int {
	end := n.skip(i)
	n.out = append(n.out, n.doc[i:end]...)
	return end
}

// list enters a list: with an index the elements that it picks, else all.
func (n *nested) list(i int, path []segment) int {
	n.out = append(n.out, '[')
	first := true
	i = n.space(i + 1)
	for k := 0; n.doc[i] != ']'; k++ {
		inner, hit := path, true
		if path[0].index != noIndex {
			inner, hit = path[1:], path[0].picks(k)
		}
		if hit && len(inner) == 0 && n.kernel == nil {
			i = n.skip(i)
		} else {
			if !first {
				n.out = append(n.out, ',')
			}
			first = false
			if hit {
				i = n.walk(i, inner)
			} else {
				i = n.copy(i)
			}
		}
		if i = n.space(i); n.doc[i] == ',' {
			i = n.space(i + 1)
		}
	}
	n.out = append(n.out, ']')
	return i + 1
}

func (n *nested) object(i int, path []segment) int {
	n.out = append(n.out, '{')
	first := true
	i = n.space(i + 1)
	for n.doc[i] != '}' {
		end := n.skip(i)
		name := n.doc[i:end]
		hit := path[0].fitsQuoted(name)
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
				i = n.copy(i)
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
