package mappers

import (
	"bytes"
	"slices"

	"github.com/sluice-data/sluice/record"
)

func (b *builder) splitText(s *Split) {
	i := b.find("field", s.Field)
	if i < 0 {
		return
	}
	f := b.cols[i].field
	if !isText(f.Kind) {
		b.fail("field", f.Name, CodeType, "split works on text, %s is %s", f.Name, f.Kind)
		return
	}
	separator := []byte(s.Separator)
	if len(s.Into) == 0 {
		b.splitList(i, separator)
		return
	}
	in := b.cols[i]
	if !s.Keep {
		if f.Key > 0 {
			b.fail("field", f.Name, CodeKeyField, "%s is part of the key, without it changes find no row; set keep: true", f.Name)
			return
		}
		b.cols = slices.Delete(b.cols, i, i+1)
	}
	b.copies[in.slot] = b.rule
	for n, name := range s.Into {
		if !b.free(at("into", n), name, -1) {
			return
		}
		part := splitPart{separator: separator, n: n, last: n == len(s.Into)-1}
		b.copyOut(in, record.Field{Name: name, Kind: record.Text, Nullable: true}, func() kernel { return part.cells })
	}
}

// copyOut adds a column that a kernel computes from another one.
func (b *builder) copyOut(in column, f record.Field, newKernel func() kernel) {
	b.create([]int{in.slot}, f, func(dst int) step { return &cells{src: in.slot, dst: dst, kernel: newKernel()} })
}

func (b *builder) splitList(i int, separator []byte) {
	f := b.cols[i].field
	if !b.notOnKey("field", &f) {
		return
	}
	out := record.Field{Name: f.Name, Kind: record.Array, Nullable: f.Nullable, Elem: &record.Field{Name: "element", Kind: record.Text, Nullable: true}}
	b.replace(i, out, perRun(func() kernel {
		return func(dst, src *record.Vector, _ twin, _ refuse) {
			for i, st := range src.State {
				if st != record.Present {
					dst.AppendMissing(st, 0)
					continue
				}
				for rest, more := src.Value(i), len(src.Value(i)) > 0; more; {
					var part []byte
					part, rest, more = bytes.Cut(rest, separator)
					dst.Child.AppendData(part)
				}
				dst.AppendList()
			}
		}
	}))
}

// splitPart takes the n-th part of a text, the last one with all that follows.
type splitPart struct {
	separator []byte
	n         int
	last      bool
}

func (p *splitPart) cells(dst, src *record.Vector, _ twin, _ refuse) {
	for i, st := range src.State {
		if st != record.Present {
			dst.AppendMissing(st, 0)
			continue
		}
		rest, found := src.Value(i), true
		for range p.n {
			if _, rest, found = bytes.Cut(rest, p.separator); !found {
				break
			}
		}
		if !found {
			dst.AppendMissing(record.Null, 0)
			continue
		}
		if !p.last {
			rest, _, _ = bytes.Cut(rest, p.separator)
		}
		dst.AppendData(rest)
	}
}
