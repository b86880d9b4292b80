package record

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

var (
	errSchema    = errors.New("written with another schema")
	errVectors   = errors.New("the batch has other columns")
	errControl   = errors.New("a control op is alone in its batch")
	errNoRow     = errors.New("has no row")
	errTwice     = errors.New("there twice")
	errAbsent    = errors.New("missing, neither nullable nor listed as unsent")
	errKeyless   = errors.New("missing in the old row and in the key")
	errUnsentBad = errors.New("header " + UnsentHeader + ": not a JSON array of names")
)

// Decoder reads topic records of one schema into batches, see UnsentHeader for
// the form. It expects the fields in schema order and without white space, as
// an Encoder writes them, and reads any other order and form more slowly;
// members it does not know are ignored. It is not safe for concurrent use.
type Decoder struct {
	schema *Schema
	cols   []column
	index  map[string]int
	keys   []int
	head   HeadReader

	unsentRaw []byte // the header that unsent was read from
	unsent    []bool // of each field

	old     []*Vector // the one old row of a delete
	scratch []byte    // strings with escapes that are parsed further
}

type column struct {
	field *Field
	width int
	name  string // "name":
	// head and tail are the first and last eight bytes of a name of 8 to 16, zero otherwise.
	head, tail uint64
}

// at reports whether the column's name stands at b[p:].
func (c *column) at(b []byte, p int) bool {
	n := len(c.name)
	if c.head == 0 || p+n > len(b) {
		return hasLiteral(b, p, c.name)
	}
	return binary.LittleEndian.Uint64(b[p:]) == c.head && binary.LittleEndian.Uint64(b[p+n-8:]) == c.tail
}

// NewDecoder compiles a decoder for s.
func NewDecoder(s *Schema) *Decoder {
	d := &Decoder{schema: s, keys: s.Keys(), index: make(map[string]int, len(s.Fields)),
		cols: make([]column, len(s.Fields)),
		old:  make([]*Vector, len(s.Fields)), unsent: make([]bool, len(s.Fields))}
	for i := range s.Fields {
		f := &s.Fields[i]
		c := column{field: f, width: f.Kind.Width(), name: string(appendString(nil, []byte(f.Name))) + ":"}
		if n := len(c.name); n >= 8 && n <= 16 {
			c.head, c.tail = binary.LittleEndian.Uint64([]byte(c.name)), binary.LittleEndian.Uint64([]byte(c.name[n-8:]))
		}
		d.cols[i] = c
		d.index[f.Name] = i
		d.old[i] = NewVector(f)
	}
	return d
}

// fault is an error at a byte of a value. It names the field and holds no value (invariant 7).
type fault struct {
	field string
	at    int
	err   error
}

func (f *fault) Error() string {
	if f.field == "" {
		return fmt.Sprintf("decode row: byte %d: %v", f.at, f.err)
	}
	return fmt.Sprintf("decode row: field %q: byte %d: %v", f.field, f.at, f.err)
}

func (f *fault) Unwrap() error { return f.err }

// Append appends exactly one row to b, a batch of the decoder's schema:
// Ops, Pos, Time and the cells, Before if any row of the batch has one. On
// error b is what it was before. Offsets are the caller's. The arguments are
// the key and value of a record and the value of its UnsentHeader; they may be
// reused afterwards.
//
// A field that is missing in "after" is Unsent if unsent lists it, else Null
// if it is nullable, else an error; the value wins over the list. A field that
// is missing in "before" is Unsent. Of a delete the key cells come from
// "before" or, where it lacks them, from key; Before gets the old row if it
// had more than the key.
//
// Errors name the field and the byte in value, never what is there. They are
// the fault of this record alone: the next one may be read.
func (d *Decoder) Append(b *Batch, key, value, unsent []byte) error {
	if len(b.After) != len(d.cols) {
		return &fault{err: errVectors}
	}
	env, err := d.open(value)
	if err == nil {
		err = d.append(b, key, value, unsent, env)
	}
	if err == errElsewhere {
		if env, err = d.head.scan(value); err == nil {
			err = d.append(b, key, value, unsent, env)
		}
	}
	return err
}

// append reads the rows that env points at.
func (d *Decoder) append(b *Batch, key, value, unsent []byte, env envelope) error {
	head := env.head
	if head.SchemaID != d.schema.ID && head.SchemaID != "" && d.schema.ID != "" {
		return &fault{err: errSchema}
	}
	n := len(b.Ops)
	if head.Op.Control() && n > 0 || n == 1 && b.Ops[0].Control() {
		return &fault{err: errControl}
	}
	hadBefore := b.Before != nil
	var err error
	switch {
	case head.Op.Control():
	case head.Op == OpDelete:
		err = d.deleted(b, n, key, value, env)
	default:
		err = d.changed(b, n, value, unsent, env)
	}
	if err != nil {
		d.undo(b.After, n)
		if d.undo(b.Before, n); !hadBefore {
			b.Before = nil
		}
		return err
	}
	b.Ops, b.Pos, b.Time = append(b.Ops, head.Op), append(b.Pos, head.Pos), append(b.Time, head.Time)
	return nil
}

// errElsewhere says that a row does not end where its envelope goes on: the
// value only looked like one of our own.
var errElsewhere = errors.New("the row ends elsewhere")

// open reads the head of v and finds its rows.
func (d *Decoder) open(v []byte) (envelope, error) {
	head, end, ok := d.head.fast(v)
	if !ok {
		return d.head.scan(v)
	}
	// The usual forms: no old row, or of a delete an old row and no new one. The
	// row is read in full, and must end where the envelope goes on.
	if at := len(litNoBefore); head.Op < OpDelete && at < end && hasLiteral(v, 0, litNoBefore) && v[at] == '{' {
		return envelope{head: head, after: at, end: end}, nil
	}
	at := len(litBefore)
	end -= len(litNoAfter)
	if head.Op == OpDelete && at < end && hasLiteral(v, 0, litBefore) && v[at] == '{' && hasLiteral(v, end, litNoAfter) {
		return envelope{head: head, before: at, end: end}, nil
	}
	return d.head.scan(v)
}

// undo takes everything after the first n rows off vs.
func (d *Decoder) undo(vs []*Vector, n int) {
	for i, v := range vs {
		v.truncate(n, d.cols[i].field)
	}
}

// changed reads the rows of an insert, update or backfill row as row n of b.
func (d *Decoder) changed(b *Batch, n int, value, unsent []byte, env envelope) error {
	if env.after == 0 {
		return &fault{err: fmt.Errorf("member after: %w", errNoRow)}
	}
	listed, err := d.readUnsent(unsent)
	if err != nil {
		return err
	}
	next, got, err := d.row(b.After, n, value, env.after, false)
	if err != nil {
		return err
	}
	if env.end > 0 && next != env.end {
		return errElsewhere
	}
	if got < len(d.cols) {
		if err := d.fill(b.After, n, listed); err != nil {
			return err
		}
	}
	if env.before > 0 {
		d.needBefore(b, n)
		if _, _, err = d.row(b.Before, n, value, env.before, true); err != nil {
			return err
		}
		d.fillUnsent(b.Before, n)
	} else if b.Before != nil {
		d.fillUnsent(b.Before, n)
	}
	return nil
}

// deleted reads the old row of a delete as row n of b.
func (d *Decoder) deleted(b *Batch, n int, key, value []byte, env envelope) error {
	for _, v := range d.old {
		v.Reset()
	}
	got := 0
	if env.before > 0 {
		next, cells, err := d.row(d.old, 0, value, env.before, true)
		if err != nil {
			return err
		}
		if env.end > 0 && next != env.end {
			return errElsewhere
		}
		got = cells
	}
	keys := 0
	for _, i := range d.keys {
		if d.old[i].Len() > 0 {
			keys++
		}
	}
	more := got > keys
	if keys < len(d.keys) {
		if err := d.keysFrom(key); err != nil {
			return err
		}
	}
	d.fillUnsent(d.old, 0)
	if more {
		d.needBefore(b, n)
	}
	for i, c := range d.cols {
		if c.field.Key == 0 {
			b.After[i].AppendMissing(Unsent, c.width)
		} else if d.old[i].State[0] != Present {
			return &fault{field: c.field.Name, err: errKeyless}
		} else {
			b.After[i].AppendFrom(d.old[i], 0, c.width)
		}
		if more {
			b.Before[i].AppendFrom(d.old[i], 0, c.width)
		} else if b.Before != nil {
			b.Before[i].AppendMissing(Unsent, c.width)
		}
	}
	return nil
}

// keysFrom reads the key cells that the old row lacks from the record's key.
func (d *Decoder) keysFrom(key []byte) error {
	if len(key) == 0 {
		return nil
	}
	_, err := eachMember(key, skipSpace(key, 0), func(name []byte, at int) (int, error) {
		if i, ok := d.index[string(name)]; ok && d.cols[i].field.Key > 0 && d.old[i].Len() == 0 && !hasLiteral(key, at, "null") {
			next, err := d.cell(d.cols[i].field, d.old[i], key, at)
			if err != nil {
				return next, &fault{field: d.cols[i].field.Name, at: at, err: err}
			}
			return next, nil
		}
		return skipValue(key, at)
	})
	if err != nil {
		return fmt.Errorf("key of a delete: %w", err)
	}
	return nil
}

// needBefore gives b its Before vectors, Unsent in all n rows, if it has none.
func (d *Decoder) needBefore(b *Batch, n int) {
	if b.Before != nil {
		return
	}
	b.Before = make([]*Vector, len(d.cols))
	for i, c := range d.cols {
		b.Before[i] = NewVector(c.field)
		for range n {
			b.Before[i].AppendMissing(Unsent, c.width)
		}
	}
}

// fill appends to every column of After that row n has no cell in.
func (d *Decoder) fill(vs []*Vector, n int, listed []bool) error {
	for i, v := range vs {
		if len(v.State) > n {
			continue
		}
		switch c := &d.cols[i]; {
		case listed != nil && listed[i]:
			v.AppendMissing(Unsent, c.width)
		case c.field.Nullable:
			v.AppendMissing(Null, c.width)
		default:
			return &fault{field: c.field.Name, err: errAbsent}
		}
	}
	return nil
}

func (d *Decoder) fillUnsent(vs []*Vector, n int) {
	for i, v := range vs {
		if len(v.State) == n {
			v.AppendMissing(Unsent, d.cols[i].width)
		}
	}
}

// readUnsent returns which fields the header's value lists, nil if it is empty.
func (d *Decoder) readUnsent(raw []byte) ([]bool, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	if bytes.Equal(raw, d.unsentRaw) {
		return d.unsent, nil
	}
	d.unsentRaw = d.unsentRaw[:0]
	var names []string
	if err := json.Unmarshal(raw, &names); err != nil {
		return nil, &fault{err: errUnsentBad}
	}
	clear(d.unsent)
	for _, name := range names {
		if i, ok := d.index[name]; ok {
			d.unsent[i] = true
		}
	}
	d.unsentRaw = append(d.unsentRaw, raw...)
	return d.unsent, nil
}

// row reads the object at b[p:] as row n of vs and returns the place after it
// and the number of cells it gave. Columns it does not name stay one short.
// An old row may have nulls anywhere.
func (d *Decoder) row(vs []*Vector, n int, b []byte, p int, old bool) (next, got int, err error) {
	p++ // the caller has seen the brace
	if end := skipSpace(b, p); end < len(b) && b[end] == '}' {
		return end + 1, 0, nil
	}
	for expect := 0; ; { // the column whose turn it is
		i := -1
		if expect < len(d.cols) && d.cols[expect].at(b, p) {
			i = expect
			p += len(d.cols[expect].name)
			if p < len(b) && b[p] <= ' ' {
				p = skipSpace(b, p)
			}
		} else if i, p, err = d.member(b, p); err != nil {
			return p, got, &fault{at: p, err: err}
		}
		if i < 0 {
			if p, err = skipValue(b, p); err != nil {
				return p, got, &fault{at: p, err: err}
			}
		} else {
			c, v := &d.cols[i], vs[i]
			if len(v.State) != n {
				return p, got, &fault{c.field.Name, p, errTwice}
			}
			at := p
			if p < len(b) && b[p] == 'n' {
				p, err = c.null(v, b, p, old || c.field.Nullable)
			} else {
				p, err = d.cell(c.field, v, b, p)
			}
			if err != nil {
				return p, got, &fault{c.field.Name, at, err}
			}
			got, expect = got+1, i+1
		}
		if p < len(b) && b[p] != ',' && b[p] != '}' {
			p = skipSpace(b, p)
		}
		if p >= len(b) {
			return p, got, &fault{at: p, err: errEnd}
		}
		p++
		switch b[p-1] {
		case ',':
		case '}':
			return p, got, nil
		default:
			return p, got, &fault{at: p - 1, err: errSyntax}
		}
	}
}

// member reads a name of any form at b[p:] and returns its column, -1 if there
// is none, and the place of its value.
func (d *Decoder) member(b []byte, p int) (i, at int, err error) {
	p = skipSpace(b, p)
	if p >= len(b) {
		return 0, p, errEnd
	}
	if b[p] != '"' {
		return 0, p, errString
	}
	if d.scratch, at, err = unescape(d.scratch[:0], b, p+1); err != nil {
		return 0, at, err
	}
	i, ok := d.index[string(d.scratch)]
	if !ok {
		i = -1
	}
	if at = skipSpace(b, at); at >= len(b) || b[at] != ':' {
		return 0, at, errSyntax
	}
	return i, skipSpace(b, at+1), nil
}
