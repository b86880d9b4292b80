package mappers

import (
	"maps"
	"slices"

	"github.com/sluice-data/sluice/record"
)

func (b *builder) filter(f *Filter) {
	if f.CEL != "" {
		b.filterCEL(f)
		return
	}
	c, syntax := parseCondition(f.Where)
	if syntax != nil {
		return // the checker has reported it
	}
	bind := &binder{cols: b.cols, names: b.names, read: map[int]bool{}}
	where, err := bind.bind(c)
	if err != nil {
		b.fail("where", err.field, err.code, "%s", err.msg)
		b.errs[len(b.errs)-1].Offset = err.offset
		return
	}
	b.add(slices.Collect(maps.Keys(bind.read)), func() step { return &filter{where: where} })
}

// filterCEL is filter with an expression as its condition.
func (b *builder) filterCEL(f *Filter) {
	p, err := bindCEL(f.CEL, b.cols)
	if err == nil && p.root.kind != vBool {
		err = &bindError{0, "", CodeType, "the expression is no condition: its result is not true or false"}
	}
	if err != nil {
		b.fail("cel", err.field, err.code, "%s", err.msg)
		b.errs[len(b.errs)-1].Offset = err.offset
		return
	}
	b.add(slotsOf(p.inputs), func() step { return &filter{where: &expression{program: p, frame: p.frame()}} })
}

// expression is a program as a condition. Unlike other nodes it belongs to one run.
type expression struct {
	program *program
	frame   *frame
}

func (x *expression) eval(e *evaluation, out []byte) {
	// The states of a program are the truth values of a condition, and failed beside them.
	copy(out, x.program.eval(x.frame, e.n, e.first, e.second, e.secondKeys).state)
}

// filter keeps the rows for which its condition is true. It is right for
// changes: a row is at the sink exactly when its newest image matches.
//
//	insert, read   stay if the new row matches
//	update         new row matches, old one too or unknown: stays
//	               new row matches, old one does not: becomes an insert
//	               new row does not match, old one did or is unknown: becomes a delete of its key
//	               neither matches: goes
//	delete         goes if the old row did not match, else stays
//
// The old row is known from the before-image, or by its key alone if the
// condition reads only key fields. Cells that the source did not send are
// decided from the before-image; without it the row is rejected, never guessed.
type filter struct {
	where   node
	look    evaluation
	now     []byte
	then    []byte
	rows    []int32
	how     []byte
	changed bool
}

const codeFilterUnsent = "filter_unsent"

func (f *filter) apply(r *run) {
	f.evaluate(r)
	f.rows, f.how, f.changed = f.rows[:0], f.how[:0], false
	entered := false
	for i, op := range r.in.Ops[:r.n] {
		keep, how := true, asIs
		now, then := f.now[i], f.then[i]
		switch {
		case op == record.OpDelete:
			keep = then == isTrue || then >= unsent
		case now == sFailed:
			r.refuse(i, codeExpression, "the row filter has no value for this row: an overflow, a division by zero, or a text that cannot be read")
			continue
		case now == unsent:
			r.refuse(i, codeFilterUnsent, "the row filter needs a field that the source did not send, and there is no old row; set REPLICA IDENTITY FULL")
			continue
		case op == record.OpUpdate && now == isTrue:
			if then == isFalse || then == unknown {
				how, entered = toInsert, true
			}
		case op == record.OpUpdate:
			keep, how = then == isTrue || then >= unsent, toDelete
		default:
			keep = now == isTrue
		}
		if !keep {
			r.filtered++
			continue
		}
		f.changed = f.changed || how != asIs
		f.rows, f.how = append(f.rows, int32(i)), append(f.how, how)
	}
	if entered {
		f.complete(r)
	}
	if len(f.rows) == r.n && !f.changed {
		return
	}
	if !f.changed {
		r.keep(f.rows, nil)
		return
	}
	r.keep(f.rows, f.how)
}

// evaluate finds out whether the new and the old rows match.
func (f *filter) evaluate(r *run) {
	if cap(f.now) < r.n {
		f.now, f.then = make([]byte, r.n, r.n+r.n/4), make([]byte, r.n, r.n+r.n/4)
	}
	f.now, f.then = f.now[:r.n], f.then[:r.n]
	e := &f.look
	e.n, e.first, e.second, e.secondKeys = r.n, r.cols[after], r.cols[before], false
	f.where.eval(e, f.now)
	for _, op := range r.in.Ops[:r.n] {
		if op == record.OpUpdate || op == record.OpDelete {
			// An update never changes the key, so the key of the new row is the old one's.
			e.first, e.second, e.secondKeys = r.cols[before], r.cols[after], true
			f.where.eval(e, f.then)
			return
		}
	}
}

// complete gives rows that entered the filter their unsent cells from the old
// row: the sink has no row to take them from. Rows for which that is not
// possible are refused.
func (f *filter) complete(r *run) {
	kept := 0
	for k, row := range f.rows {
		if f.how[k] == toInsert && !completable(r, int(row)) {
			r.refuse(int(row), codeFilterUnsent, "the row enters the filter and the source did not send all of its fields; set REPLICA IDENTITY FULL")
			continue
		}
		f.rows[kept], f.how[kept] = row, f.how[k]
		kept++
	}
	f.rows, f.how = f.rows[:kept], f.how[:kept]
	for _, l := range r.live {
		v := r.cols[after][l.slot]
		for k, row := range f.rows {
			if f.how[k] == toInsert && v.State[row] == record.Unsent {
				r.cols[after][l.slot] = f.merge(v, r.cols[before][l.slot], l.field)
				break
			}
		}
	}
}

func completable(r *run, row int) bool {
	for _, l := range r.live {
		if r.cols[after][l.slot].State[row] != record.Unsent {
			continue
		}
		if v := r.cols[before][l.slot]; v == nil || v.State[row] == record.Unsent {
			return false
		}
	}
	return true
}

// merge returns a copy of v in which the unsent cells of entered rows come from old.
func (f *filter) merge(v, old *record.Vector, field *record.Field) *record.Vector {
	merged, width, k := record.NewVector(field), field.Kind.Width(), 0
	for i := range v.State {
		for k < len(f.rows) && int(f.rows[k]) < i {
			k++
		}
		from := v
		if v.State[i] == record.Unsent && k < len(f.rows) && int(f.rows[k]) == i && f.how[k] == toInsert {
			from = old
		}
		merged.AppendFrom(from, i, width)
	}
	return merged
}
