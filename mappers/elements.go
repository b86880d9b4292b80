package mappers

import "github.com/sluice-data/sluice/record"

// elements lets rule work on the elements of a list field, or inside the
// documents that are its elements.
func (b *builder) elements(option, name string, col int, path []segment, rule func(sub *builder)) {
	f := b.cols[col].field
	element := *f.Elem
	element.Name = name
	index := everyOne
	if path[0].index != noIndex {
		index, path = path[0].index, path[1:]
	}
	out := element
	var newKernel func() kernel
	switch {
	case len(path) > 0 && element.Kind != record.JSON:
		b.fail(option, f.Name, CodeType, "the elements of %s are %s; only json has fields inside", f.Name, element.Kind)
		return
	case len(path) > 0:
		if newKernel, _ = b.document(option, name, f.Name, path, rule); newKernel == nil {
			return
		}
	default:
		sub := b.sub(element)
		rule(sub)
		b.errs = append(b.errs, sub.errs...)
		switch {
		case len(sub.errs) > 0 || len(sub.cols) > 0 && len(sub.plan) == 0:
			return
		case len(sub.cols) == 0:
			b.fail(option, f.Name, CodeRule, "an element cannot be dropped, the others would change their places; redact it or drop %s", f.Name)
			return
		case sub.cols[0].field.Name != name:
			b.fail("suffix", f.Name, CodeRule, "the elements of a list have no names")
			return
		}
		out = sub.cols[0].field
		if out.Kind != element.Kind && index != everyOne {
			b.fail(option, f.Name, CodeType, "one element would become %s while the others stay %s; use %s[*]", out.Kind, element.Kind, f.Name)
			return
		}
		start := sub.plan[len(sub.plan)-1].start
		newKernel = func() kernel {
			c, ok := start().(*cells)
			if !ok {
				panic(stop("a rule of several fields cannot work inside a list"))
			}
			return c.kernel
		}
	}
	out.Name, out.Nullable, out.Key = "element", true, 0
	list := f
	list.Elem, list.SourceType = &out, ""
	b.replace(col, list, perRun(func() kernel {
		e := &elements{field: f.Name, index: index, kernel: newKernel(), width: out.Kind.Width(), work: record.NewVector(&out)}
		return e.cells
	}))
}

// elements runs a kernel over the elements of lists.
type elements struct {
	field   string
	index   int // the element it is for, or everyOne
	kernel  kernel
	width   int            // of a result
	work    *record.Vector // the results of all elements
	refused []bool         // by element
}

func (e *elements) cells(dst, src *record.Vector, _ twin, no refuse) {
	e.work.Reset()
	e.refused = append(e.refused[:0], make([]bool, src.Child.Len())...)
	e.kernel(e.work, src.Child, twin{}, func(i int, _, _ string) { e.refused[i] = true })
	for i, st := range src.State {
		if st != record.Present {
			dst.AppendMissing(st, 0)
			continue
		}
		from, to := int(src.Offs[i]), int(src.Offs[i+1])
		if e.refuses(from, to) {
			no(i, "value_not_canonical", e.field+": an element is not what the rule is for")
			dst.AppendMissing(record.Unsent, 0)
			continue
		}
		for j := from; j < to; j++ {
			if e.index == everyOne || e.index == j-from {
				dst.Child.AppendFrom(e.work, j, e.width)
			} else {
				dst.Child.AppendFrom(src.Child, j, e.width)
			}
		}
		dst.AppendList()
	}
}

// refuses reports whether the kernel has refused an element of a list that it is for.
func (e *elements) refuses(from, to int) bool {
	for j := from; j < to; j++ {
		if e.refused[j] && (e.index == everyOne || e.index == j-from) {
			return true
		}
	}
	return false
}
