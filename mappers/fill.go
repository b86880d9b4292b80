package mappers

import (
	"github.com/sluice-data/sluice/record"
)

// parsedOnce returns a vector with text as its only value.
func (b *builder) parsedOnce(f *record.Field, path, text string) (*record.Vector, bool) {
	v := record.NewVector(f)
	if f.Kind == record.Enum {
		v.AppendData([]byte(text))
		return v, true
	}
	if f.Kind == record.Array || !appendParsed(v, f, []byte(text)) {
		b.fail(path, f.Name, CodeType, "the value does not fit the type %s", f.Kind)
		return nil, false
	}
	return v, true
}

func (b *builder) defaultValue(d *Default) {
	i := b.find("field", d.Field)
	if i < 0 {
		return
	}
	f := b.cols[i].field
	value, ok := b.parsedOnce(&f, "value", d.Value)
	if !ok {
		return
	}
	width := f.Kind.Width()
	b.replace(i, f, perRun(func() kernel {
		return func(dst, src *record.Vector, _ twin, _ refuse) {
			for i, st := range src.State {
				if st == record.Null {
					dst.AppendFrom(value, 0, width)
				} else {
					dst.AppendFrom(src, i, width)
				}
			}
		}
	}))
}

func (b *builder) constant(c *Constant) {
	kind := c.Type
	if kind == "" {
		kind = record.Text.String()
	}
	f, err := parseType(kind)
	if err != nil || !b.free("field", c.Field, -1) {
		return
	}
	f.Name, f.Nullable = c.Field, true // a delete has none
	value, ok := b.parsedOnce(&f, "value", c.Value)
	if !ok {
		return
	}
	b.create(nil, f, func(dst int) step { return &constantStep{dst: dst, width: f.Kind.Width(), value: value} })
}

// create adds a column of field f whose cells a step computes from some slots.
func (b *builder) create(read []int, f record.Field, start func(dst int) step) {
	dst := len(b.slots)
	b.slots = append(b.slots, f)
	b.cols = append(b.cols, column{field: f, slot: dst})
	b.add(read, func() step { return start(dst) })
}

type constantStep struct {
	dst, width int
	value      *record.Vector
}

func (s *constantStep) apply(r *run) {
	v := r.cols[after][s.dst]
	for _, op := range r.in.Ops[:r.n] {
		if op == record.OpDelete {
			v.AppendMissing(record.Unsent, s.width)
		} else {
			v.AppendFrom(s.value, 0, s.width)
		}
	}
	if r.hasBefore() { // the old row had no such field
		for range r.n {
			r.cols[before][s.dst].AppendMissing(record.Unsent, s.width)
		}
	}
}

func (b *builder) concat(c *Concat) {
	s := concatStep{separator: []byte(c.Separator)}
	for i, name := range c.Fields {
		col := b.find(at("fields", i), name)
		if col < 0 {
			return
		}
		f := b.cols[col].field
		b.copies[b.cols[col].slot] = b.rule
		s.src, s.fields = append(s.src, b.cols[col].slot), append(s.fields, &f)
	}
	if !b.free("field", c.Field, -1) {
		return
	}
	b.create(s.src, record.Field{Name: c.Field, Kind: record.Text, Nullable: true}, func(dst int) step {
		own := s
		own.dst, own.name = dst, c.Field
		return &own
	})
}

// concatStep joins the canonical texts of its fields. Nulls are left out; the
// result is null if all are. Where some of the fields were not sent their old
// values are taken; without an old row the change cannot be computed.
type concatStep struct {
	name      string
	src       []int
	fields    []*record.Field
	separator []byte
	dst       int
}

func (s *concatStep) apply(r *run) {
	s.image(r, r.cols[after], r.cols[before], func(i int, code, reason string) {
		if r.in.Ops[i] != record.OpDelete {
			r.reject(i, code, s.name+reason)
		}
	})
	if r.hasBefore() {
		s.image(r, r.cols[before], nil, func(int, string, string) {})
	}
}

func (s *concatStep) image(r *run, vs, old []*record.Vector, no refuse) {
	dst := vs[s.dst]
	for i := range r.n {
		missing, changed := false, false
		for _, c := range s.src {
			if vs[c].State[i] != record.Unsent {
				changed = true
			} else if old == nil || old[c] == nil || old[c].State[i] == record.Unsent {
				missing = true
			}
		}
		// With nothing sent, or too little, the sink keeps what it has.
		if missing || !changed {
			if changed {
				no(i, "input_unsent", ": the source did not send all of the fields it is made of, and there is no old row; set REPLICA IDENTITY FULL")
			}
			dst.AppendMissing(record.Unsent, 0)
			continue
		}
		if !s.row(dst, vs, old, i) {
			no(i, "value_not_canonical", ": a value has no canonical text")
			dst.AppendMissing(record.Unsent, 0)
		}
	}
}

// row appends the joined text of one row; false, with nothing appended, if it has none.
func (s *concatStep) row(dst *record.Vector, vs, old []*record.Vector, i int) bool {
	parts, begin := 0, len(dst.Data)
	for k, c := range s.src {
		v := vs[c]
		if v.State[i] == record.Unsent {
			v = old[c]
		}
		if v.State[i] != record.Present {
			continue
		}
		if parts++; parts > 1 {
			dst.Data = append(dst.Data, s.separator...)
		}
		var ok bool
		if dst.Data, ok = AppendCanonical(dst.Data, s.fields[k], v, i); !ok {
			dst.Data = dst.Data[:begin]
			return false
		}
	}
	if parts == 0 {
		dst.AppendMissing(record.Null, 0)
		return true
	}
	dst.State, dst.Offs = append(dst.State, record.Present), append(dst.Offs, int32(len(dst.Data)))
	return true
}
