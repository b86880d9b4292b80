package record

// Keep keeps only the given rows, which are ascending and each at most once,
// in place in all columns. It allocates nothing.
func (b *Batch) Keep(rows []int32) {
	n := len(b.Ops)
	if len(rows) == n {
		return
	}
	for to, from := range rows {
		b.Ops[to], b.Pos[to], b.Time[to] = b.Ops[from], b.Pos[from], b.Time[from]
	}
	if len(b.Offsets) == n {
		for to, from := range rows {
			b.Offsets[to] = b.Offsets[from]
		}
		b.Offsets = b.Offsets[:len(rows)]
	}
	b.Ops, b.Pos, b.Time = b.Ops[:len(rows)], b.Pos[:len(rows)], b.Time[:len(rows)]
	for i := range b.After {
		b.After[i].keep(rows, &b.Schema.Fields[i])
	}
	for i := range b.Before {
		b.Before[i].keep(rows, &b.Schema.Fields[i])
	}
}

// keep keeps the given rows. Neighbours move as one piece.
func (v *Vector) keep(rows []int32, f *Field) {
	width := f.Kind.Width()
	to, data := 0, int32(0) // rows and elements kept so far
	for i := 0; i < len(rows); {
		from, run := int(rows[i]), 1
		for i+run < len(rows) && int(rows[i+run]) == from+run {
			run++
		}
		copy(v.State[to:], v.State[from:from+run])
		switch {
		case width > 0:
			copy(v.Fixed[to*width:], v.Fixed[from*width:(from+run)*width])
		default:
			start, end := v.Offs[from], v.Offs[from+run]
			v.move(data, start, end, f)
			for k := range run {
				v.Offs[to+1+k] = v.Offs[from+1+k] - start + data
			}
			data += end - start
		}
		to, i = to+run, i+run
	}
	v.truncate(to, f)
}

// move copies the bytes or elements start to end down to place to.
func (v *Vector) move(to, start, end int32, f *Field) {
	if f.Kind != Array {
		copy(v.Data[to:], v.Data[start:end])
		return
	}
	c, width := v.Child, f.Elem.Kind.Width()
	if to == start || start == end {
		return
	}
	copy(c.State[to:], c.State[start:end])
	if width > 0 {
		copy(c.Fixed[int(to)*width:], c.Fixed[int(start)*width:int(end)*width])
		return
	}
	base, low := c.Offs[to], c.Offs[start]
	c.move(base, low, c.Offs[end], f.Elem)
	for k := range end - start {
		c.Offs[to+1+k] = c.Offs[start+1+k] - low + base
	}
}

// truncate keeps the first n rows and drops whatever follows them, parts of an
// unfinished row included. A vector with fewer rows stays as it is.
func (v *Vector) truncate(n int, f *Field) {
	if len(v.State) < n {
		return
	}
	v.State = v.State[:n]
	if width := f.Kind.Width(); width > 0 {
		v.Fixed = v.Fixed[:n*width]
		return
	}
	v.Offs = v.Offs[:n+1]
	if f.Kind == Array {
		v.Child.truncate(int(v.Offs[n]), f.Elem)
		return
	}
	v.Data = v.Data[:v.Offs[n]]
}
