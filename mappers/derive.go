package mappers

import (
	"github.com/sluice-data/sluice/record"
)

func (b *builder) derive(d *Derive) {
	p, bad := bindCEL(d.CEL, b.cols)
	if bad != nil {
		b.fail("cel", bad.field, bad.code, "%s", bad.msg)
		b.errs[len(b.errs)-1].Offset = bad.offset
		return
	}
	f, ok := p.root.kind.field(p.root.scale)
	if !ok {
		b.fail("cel", "", CodeType, "the result is a duration, which no field holds; take its seconds: .getSeconds()")
		return
	}
	if f.Name = d.Field; !b.free("field", d.Field, -1) {
		return
	}
	for i := range p.inputs {
		b.copies[p.inputs[i].slot] = b.rule
	}
	b.create(slotsOf(p.inputs), f, func(dst int) step { return &derived{program: p, frame: p.frame(), field: f, dst: dst} })
}

// derived computes a column. An update that sent none of the fields it is made
// of changes nothing; see combined.
type derived struct {
	program *program
	frame   *frame
	field   record.Field
	dst     int
}

const codeExpression = "expression_failed"

func (d *derived) apply(r *run) {
	out := d.program.eval(d.frame, r.n, r.cols[after], r.cols[before], false)
	d.image(r, out, r.cols[after], r.in.Ops[:r.n], r.reject)
	if r.hasBefore() {
		out = d.program.eval(d.frame, r.n, r.cols[before], nil, false)
		d.image(r, out, r.cols[before], nil, func(int, string, string) {})
	}
}

// image writes the results of one image; ops is nil for the old one.
func (d *derived) image(r *run, out *values, vs []*record.Vector, ops []record.Op, no refuse) {
	dst, width := vs[d.dst], d.field.Kind.Width()
	for i := range r.n {
		st := out.state[i]
		switch {
		case ops != nil && ops[i] == record.OpDelete:
			dst.AppendMissing(record.Unsent, width)
		case st <= sTrue:
			out.append(dst, d.program.root.kind, i)
		case st == sNull:
			dst.AppendMissing(record.Null, width)
		case st == sUnsent:
			if ops != nil && d.changed(vs, i) {
				no(i, codeInputUnsent, d.field.Name+": the source did not send all of the fields it is made of, and there is no old row; set REPLICA IDENTITY FULL")
			}
			dst.AppendMissing(record.Unsent, width)
		default:
			no(i, codeExpression, d.field.Name+": the expression has no value for this row: an overflow, a division by zero, or a text that cannot be read")
			dst.AppendMissing(record.Unsent, width)
		}
	}
}

// changed reports whether row i has an input that the source sent, key fields aside.
func (d *derived) changed(vs []*record.Vector, i int) bool {
	for k := range d.program.inputs {
		in := &d.program.inputs[k]
		if in.field.Key == 0 && vs[in.slot].State[i] != record.Unsent {
			return true
		}
	}
	return false
}
