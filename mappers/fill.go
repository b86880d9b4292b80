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
	in := b.inputs(func(i int) string { return at("fields", i) }, c.Fields...)
	if in == nil || !b.free("field", c.Field, -1) {
		return
	}
	separator := []byte(c.Separator)
	b.combine(in, record.Field{Name: c.Field, Kind: record.Text, Nullable: true}, func() cellFunc {
		return func(dst *record.Vector, vs []*record.Vector, i int) bool { return joinTexts(dst, vs, in, i, separator) }
	})
}

// joinTexts appends the canonical texts of a row; nulls are left out, and the
// result is null if all are.
func joinTexts(dst *record.Vector, vs []*record.Vector, in []column, i int, separator []byte) bool {
	parts, begin := 0, len(dst.Data)
	for k, v := range vs {
		if v.State[i] != record.Present {
			continue
		}
		if parts++; parts > 1 {
			dst.Data = append(dst.Data, separator...)
		}
		var ok bool
		if dst.Data, ok = AppendCanonical(dst.Data, &in[k].field, v, i); !ok {
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
