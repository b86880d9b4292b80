package mappers

import "github.com/sluice-data/sluice/record"

// What becomes of a kept row.
const (
	asIs     byte = iota
	toDelete      // the row left the filter: only its key stays in After
	toInsert      // the row entered the filter: there is no old row
)

// keep leaves only the given rows, in rising order. how, if not nil, has an
// entry for each of them.
func (r *run) keep(rows []int32, how []byte) {
	b := r.in
	if len(r.rows) == 0 {
		r.rows = append(r.rows, rows...)
	} else {
		for i, row := range rows {
			r.rows[i] = r.rows[row]
		}
		r.rows = r.rows[:len(rows)]
	}
	for i, row := range rows {
		b.Ops[i], b.Pos[i], b.Time[i] = b.Ops[row], b.Pos[row], b.Time[row]
	}
	if len(b.Offsets) > 0 {
		for i, row := range rows {
			b.Offsets[i] = b.Offsets[row]
		}
	}
	var blankAfter, blankBefore func(i int) bool
	if how != nil {
		for i, h := range how {
			switch h {
			case toDelete:
				b.Ops[i] = record.OpDelete
			case toInsert:
				b.Ops[i] = record.OpInsert
			}
		}
		blankAfter = func(i int) bool { return how[i] == toDelete }
		blankBefore = func(i int) bool { return how[i] == toInsert }
	}
	for _, l := range r.live {
		blank := blankAfter
		if l.field.Key > 0 {
			blank = nil
		}
		r.keepRows(r.cols[after][l.slot], l.field, rows, blank)
		if v := r.cols[before][l.slot]; v != nil {
			r.keepRows(v, l.field, rows, blankBefore)
		}
	}
	r.n = len(rows)
}

// keepRows moves the given rows of v to its front. A row that blank names
// loses its value and becomes Unsent.
func (r *run) keepRows(v *record.Vector, f *record.Field, rows []int32, blank func(i int) bool) {
	unchanged := blank == nil && len(rows) == v.Len()
	if unchanged {
		return
	}
	if w := f.Kind.Width(); w > 0 {
		keepFixed(v, w, rows, blank)
		return
	}
	if f.Kind == record.Array {
		r.keepArrays(v, f, rows, blank)
		return
	}
	if blank == nil {
		keepData(v, rows)
		return
	}
	end, last, lastTo := int32(0), int32(-1), int32(0)
	for i, row := range rows {
		from, to := v.Offs[row], v.Offs[row+1]
		if row == last+1 {
			from = lastTo // the end of the row before was overwritten
		}
		last, lastTo = row, to
		v.State[i] = v.State[row]
		if blank != nil && blank(i) {
			v.State[i], to = record.Unsent, from
		}
		// Rows only move to the front: what is written here was read before.
		end += int32(copy(v.Data[end:], v.Data[from:to]))
		v.Offs[i+1] = end
	}
	v.State, v.Offs, v.Data = v.State[:len(rows)], v.Offs[:len(rows)+1], v.Data[:end]
}

// keepData is keepRows for values of variable size that all stay what they are:
// neighbours move together.
func keepData(v *record.Vector, rows []int32) {
	size := int32(0)
	for i := 0; i < len(rows); {
		end := runEnd(rows, i)
		row, count := int(rows[i]), end-i
		// A run moves to the front by at least the gap before it, so its offsets are still there.
		from, to := v.Offs[row], v.Offs[row+count]
		if row == i { // nothing has moved yet
			i, size = end, to
			continue
		}
		copy(v.State[i:end], v.State[row:])
		copy(v.Data[size:], v.Data[from:to])
		for k := range count {
			v.Offs[i+k+1] = v.Offs[row+k+1] - from + size
		}
		i, size = end, size+to-from
	}
	v.State, v.Offs, v.Data = v.State[:len(rows)], v.Offs[:len(rows)+1], v.Data[:size]
}

// runEnd returns the end of the run of neighbours in rows that starts at i.
func runEnd(rows []int32, i int) int {
	end := i + 1
	for end < len(rows) && rows[end] == rows[end-1]+1 {
		end++
	}
	return end
}

func keepFixed(v *record.Vector, w int, rows []int32, blank func(i int) bool) {
	for i := 0; i < len(rows); {
		end := runEnd(rows, i)
		row := int(rows[i])
		copy(v.State[i:end], v.State[row:])
		copy(v.Fixed[i*w:end*w], v.Fixed[row*w:])
		for ; i < end; i++ {
			if blank != nil && blank(i) {
				v.State[i] = record.Unsent
				clear(v.Fixed[i*w : (i+1)*w])
			}
		}
	}
	v.State, v.Fixed = v.State[:len(rows)], v.Fixed[:len(rows)*w]
}

func (r *run) keepArrays(v *record.Vector, f *record.Field, rows []int32, blank func(i int) bool) {
	r.children = r.children[:0]
	last, lastTo := int32(-1), int32(0)
	for i, row := range rows {
		from, to := v.Offs[row], v.Offs[row+1]
		if row == last+1 {
			from = lastTo // the end of the row before was overwritten
		}
		last, lastTo = row, to
		v.State[i] = v.State[row]
		if blank != nil && blank(i) {
			v.State[i], to = record.Unsent, from
		}
		for j := from; j < to; j++ {
			r.children = append(r.children, j)
		}
		v.Offs[i+1] = int32(len(r.children))
	}
	v.State, v.Offs = v.State[:len(rows)], v.Offs[:len(rows)+1]
	r.keepRows(v.Child, f.Elem, r.children, nil)
}
