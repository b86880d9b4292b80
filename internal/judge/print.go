// Package judge tells whether a Postgres table and an Iceberg table hold the
// same rows, as an independent engine reads them.
//
// Every value gets one canonical text. A Print holds per column the sum of the
// 64-bit hashes of these texts and the number of NULLs, and the sum over whole
// rows: it depends neither on the order of rows nor on who read them.
package judge

import (
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Print is the fingerprint of a table.
type Print struct {
	Rows    int64             `json:"rows"`
	Columns map[string]Column `json:"columns"`
	RowHash string            `json:"row_hash"` // sum over whole rows: finds values swapped between rows
}

// Column is the fingerprint of one column.
type Column struct {
	Kind  string `json:"kind"`
	Hash  string `json:"hash"` // sum of the hashes of all values, 16 hexadecimal digits
	Nulls int64  `json:"nulls"`
}

// Fields names the columns of p with their kinds, as Table.Columns wants them.
func (p Print) Fields() []string {
	var fields []string
	for _, name := range slices.Sorted(maps.Keys(p.Columns)) {
		fields = append(fields, name+":"+p.Columns[name].Kind)
	}
	return fields
}

// Equal returns nil when a and b are of the same rows, else an error that
// names what differs: the number of rows, the columns, or the combination of
// values into rows. It shows no value.
func Equal(a, b Print) error {
	var differ []error
	if a.Rows != b.Rows {
		differ = append(differ, fmt.Errorf("%d rows against %d", a.Rows, b.Rows))
	}
	for _, name := range slices.Sorted(maps.Keys(a.Columns)) {
		x := a.Columns[name]
		y, ok := b.Columns[name]
		switch {
		case !ok:
			differ = append(differ, fmt.Errorf("column %s is missing on one side", name))
		case x.Nulls != y.Nulls:
			differ = append(differ, fmt.Errorf("column %s (%s): %d NULLs against %d", name, x.Kind, x.Nulls, y.Nulls))
		case x.Hash != y.Hash:
			differ = append(differ, fmt.Errorf("column %s (%s): different values", name, x.Kind))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.Columns)) {
		if _, ok := a.Columns[name]; !ok {
			differ = append(differ, fmt.Errorf("column %s is missing on one side", name))
		}
	}
	if len(differ) == 0 && a.RowHash != b.RowHash {
		differ = append(differ, errors.New("the same values in every column, but combined to other rows"))
	}
	return errors.Join(differ...)
}

// hash is the last 8 bytes of the MD5 of b: the hash that every engine's side has at hand.
func hash(b []byte) uint64 {
	sum := md5.Sum(b)
	return binary.LittleEndian.Uint64(sum[8:])
}

// summer adds rows up to a Print.
type summer struct {
	names []string // sorted
	kinds []string
	hash  []uint64
	nulls []int64
	rows  int64
	sum   uint64
	row   []byte
}

// newSummer takes the columns in sorted order.
func newSummer(names, kinds []string) *summer {
	return &summer{names: names, kinds: kinds, hash: make([]uint64, len(names)), nulls: make([]int64, len(names))}
}

// value adds the value of column i to the current row; nil is NULL.
func (s *summer) value(i int, text []byte) {
	if i > 0 {
		s.row = append(s.row, ',')
	}
	if text == nil {
		s.nulls[i]++
		s.row = append(s.row, 'n')
		return
	}
	h := hash(text)
	s.hash[i] += h
	s.row = strconv.AppendUint(s.row, h, 10)
}

// endRow closes the current row.
func (s *summer) endRow() {
	s.sum += hash(s.row)
	s.row = s.row[:0]
	s.rows++
}

func (s *summer) print() Print {
	p := Print{Rows: s.rows, Columns: map[string]Column{}, RowHash: fmt.Sprintf("%016x", s.sum)}
	for i, name := range s.names {
		p.Columns[name] = Column{Kind: s.kinds[i], Hash: fmt.Sprintf("%016x", s.hash[i]), Nulls: s.nulls[i]}
	}
	return p
}
