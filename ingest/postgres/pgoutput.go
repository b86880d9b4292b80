package postgres

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The messages of pgoutput, protocol version 1. Slices of a parsed message
// alias the bytes it was parsed from and live until the next read.

// cell is one column of a tuple: n null, u unchanged TOAST, t text, b binary.
type cell struct {
	kind byte
	data []byte
}

// beginMessage opens a transaction. Its rows follow at once and up to its commitMessage.
type beginMessage struct {
	lsn    uint64 // start of the commit record
	micros int64  // commit time, µs since 2000-01-01
	xid    uint32 // without its epoch
}

// commitMessage closes a transaction.
type commitMessage struct {
	lsn, end uint64 // start and end of the commit record
	micros   int64
}

// relationMessage describes a table before its first change.
type relationMessage struct {
	oid             uint32
	namespace, name string
	identity        byte // as relreplident
	columns         []relationColumn
}

type relationColumn struct {
	column
	identity bool // part of the replica identity
}

// rowMessage is an insert, update or delete.
type rowMessage struct {
	relation uint32
	oldKind  byte // K: key columns only; O: whole old row; 0: none
	old, new []cell
}

// truncateMessage empties tables.
type truncateMessage struct{ relations []uint32 }

// reader cuts a message; after the first short read everything is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	part := r.b[:n:n]
	r.b = r.b[n:]
	return part
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) string() string {
	i := bytes.IndexByte(r.b, 0)
	if i < 0 {
		r.bad = true
		return ""
	}
	s := string(r.b[:i])
	r.b = r.b[i+1:]
	return s
}

func (r *reader) done(what string) error {
	if r.bad {
		return fmt.Errorf("read a %s message of pgoutput: it is cut short", what)
	}
	if len(r.b) > 0 {
		return fmt.Errorf("read a %s message of pgoutput: %d bytes too many", what, len(r.b))
	}
	return nil
}

func parseBegin(b []byte) (m beginMessage, err error) {
	r := reader{b: b}
	m.lsn, m.micros = r.uint64(), int64(r.uint64())
	m.xid = r.uint32()
	return m, r.done("begin")
}

func parseCommit(b []byte) (m commitMessage, err error) {
	r := reader{b: b}
	r.byte() // flags
	m.lsn, m.end, m.micros = r.uint64(), r.uint64(), int64(r.uint64())
	return m, r.done("commit")
}

func parseRelation(b []byte) (m relationMessage, err error) {
	r := reader{b: b}
	m.oid, m.namespace, m.name, m.identity = r.uint32(), r.string(), r.string(), r.byte()
	if m.namespace == "" {
		m.namespace = "pg_catalog" // the protocol leaves it out
	}
	for n := r.uint16(); n > 0 && !r.bad; n-- {
		var c relationColumn
		c.identity = r.byte()&1 != 0
		c.name, c.typ, c.typmod = r.string(), r.uint32(), int32(r.uint32())
		m.columns = append(m.columns, c)
	}
	return m, r.done("relation")
}

func parseTruncate(b []byte, m *truncateMessage) error {
	r := reader{b: b}
	n := r.uint32()
	r.byte() // cascade, restart identity
	m.relations = m.relations[:0]
	for ; n > 0 && !r.bad; n-- {
		m.relations = append(m.relations, r.uint32())
	}
	return r.done("truncate")
}

// parseRow reads an insert, update or delete; op is its message type.
func parseRow(op byte, b []byte, m *rowMessage) error {
	r := reader{b: b}
	m.relation, m.oldKind = r.uint32(), 0
	m.old, m.new = m.old[:0], m.new[:0]
	kind := r.byte()
	if op != 'I' && (kind == 'K' || kind == 'O') {
		m.oldKind = kind
		m.old = r.tuple(m.old)
		if op == 'U' {
			kind = r.byte()
		}
	}
	if op != 'D' {
		if kind != 'N' {
			r.bad = true
		}
		m.new = r.tuple(m.new)
	} else if m.oldKind == 0 {
		r.bad = true
	}
	if r.bad || len(r.b) > 0 {
		return r.done("row")
	}
	return nil
}

func (r *reader) tuple(cells []cell) []cell {
	for n := r.uint16(); n > 0 && !r.bad; n-- {
		c := cell{kind: r.byte()}
		switch c.kind {
		case 'n', 'u':
		case 't', 'b':
			c.data = r.take(int(int32(r.uint32())))
		default:
			r.bad = true
		}
		cells = append(cells, c)
	}
	return cells
}
