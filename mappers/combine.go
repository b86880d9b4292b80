package mappers

import "github.com/sluice-data/sluice/record"

// inputs returns the columns of some fields whose values the rule at work
// copies; nil after a mistake.
func (b *builder) inputs(path func(i int) string, names ...string) []column {
	var in []column
	for i, name := range names {
		c := b.find(path(i), name)
		if c < 0 {
			return nil
		}
		b.copies[b.cols[c].slot] = b.rule
		in = append(in, b.cols[c])
	}
	return in
}

// combine adds a column whose cells are made of several others.
func (b *builder) combine(in []column, f record.Field, cell func() cellFunc) {
	b.create(slotsOf(in), f, func(dst int) step { return newCombined(in, f, dst, cell()) })
}

// combineInto is combine in the place of column i.
func (b *builder) combineInto(i int, in []column, f record.Field, cell func() cellFunc) {
	b.replace(i, f, func(_, dst int) func() step {
		return func() step { return newCombined(in, f, dst, cell()) }
	})
	b.plan[len(b.plan)-1].read = slotsOf(in)
}

func slotsOf(cols []column) []int {
	slots := make([]int, len(cols))
	for i := range cols {
		slots[i] = cols[i].slot
	}
	return slots
}

// cellFunc appends what row i of its inputs makes; they are Present or Null
// there. It returns false, with nothing appended, if they make nothing.
type cellFunc func(dst *record.Vector, in []*record.Vector, i int) bool

// combined makes the cells of one column of those of several. Where an update
// did not send all of them, the old values are taken; where there is no old row
// either, the change cannot be computed. An update that sent none of them, key
// fields aside, changes nothing: its cell is Unsent.
type combined struct {
	in    []column
	field record.Field
	dst   int
	width int
	cell  cellFunc
	row   []*record.Vector // the inputs of one row

	code, reason string // why a row is refused that makes nothing
}

func newCombined(in []column, f record.Field, dst int, cell cellFunc) *combined {
	return &combined{in: in, field: f, dst: dst, width: f.Kind.Width(), cell: cell, row: make([]*record.Vector, len(in)),
		code: "value_not_canonical", reason: f.Name + ": a value is not what the rule is for"}
}

const codeInputUnsent = "input_unsent"

func (s *combined) apply(r *run) {
	s.image(r, r.cols[after], r.cols[before], r.in.Ops[:r.n], r.reject)
	if r.hasBefore() {
		s.image(r, r.cols[before], nil, nil, func(int, string, string) {})
	}
}

// image works on one image of the rows; ops is nil for the old one.
func (s *combined) image(r *run, vs, old []*record.Vector, ops []record.Op, no refuse) {
	dst := vs[s.dst]
	for i := range r.n {
		switch s.gather(vs, old, i, ops != nil && ops[i] == record.OpUpdate) {
		case unchanged:
			dst.AppendMissing(record.Unsent, s.width)
		case incomplete:
			if ops != nil && (ops[i] != record.OpDelete || s.field.Key > 0) {
				no(i, codeInputUnsent, s.field.Name+": the source did not send all of the fields it is made of, and there is no old row; set REPLICA IDENTITY FULL")
			}
			dst.AppendMissing(record.Unsent, s.width)
		default:
			if !s.cell(dst, s.row, i) {
				no(i, s.code, s.reason)
				dst.AppendMissing(record.Unsent, s.width)
			}
		}
	}
}

type gathered uint8

const (
	complete gathered = iota
	incomplete
	unchanged
)

// gather puts the vectors that row i is taken from into s.row.
func (s *combined) gather(vs, old []*record.Vector, i int, update bool) gathered {
	missing, unsent, changed := false, 0, false
	for k := range s.in {
		c := s.in[k].slot
		s.row[k] = vs[c]
		if vs[c].State[i] != record.Unsent {
			changed = changed || !update || s.in[k].field.Key == 0
			continue
		}
		unsent++
		if old != nil && old[c] != nil && old[c].State[i] != record.Unsent {
			s.row[k] = old[c]
		} else {
			missing = true
		}
	}
	switch {
	case unsent == len(s.in), unsent > 0 && !changed:
		return unchanged
	case missing:
		return incomplete
	}
	return complete
}
