package ingest

import (
	"slices"

	"github.com/sluice-data/sluice/record"
)

// narrow takes the columns that are held back out of b, without a copy.
func (v *version) narrow(b *record.Batch) *record.Batch {
	if v.keep == nil {
		return b
	}
	if op, ok := b.Control(); ok {
		n := record.NewControl(v.in, op, b.Pos[0], b.Time[0])
		b.Release()
		return n
	}
	n := record.NewBatch(v.in, func(*record.Batch) { b.Release() })
	n.Ops, n.Pos, n.Time, n.Rejects = b.Ops, b.Pos, b.Time, b.Rejects
	n.After = columns(b.After, v.keep)
	if b.Before != nil {
		n.Before = columns(b.Before, v.keep)
	}
	return n
}

func columns(from []*record.Vector, keep []int) []*record.Vector {
	to := make([]*record.Vector, len(keep))
	for j, i := range keep {
		to[j] = from[i]
	}
	return to
}

// copyKeys copies what a dead letter needs of b before the chain takes it over.
func (v *version) copyKeys(b *record.Batch, control bool) *record.Batch {
	if control {
		return nil
	}
	k := &record.Batch{Schema: v.in, Pos: slices.Clone(b.Pos), Time: slices.Clone(b.Time), After: make([]*record.Vector, len(v.in.Fields))}
	for _, i := range v.keys {
		k.After[i] = clone(b.After[i])
	}
	return k
}

func clone(v *record.Vector) *record.Vector {
	if v == nil {
		return nil
	}
	return &record.Vector{State: slices.Clone(v.State), Fixed: slices.Clone(v.Fixed),
		Offs: slices.Clone(v.Offs), Data: slices.Clone(v.Data), Child: clone(v.Child)}
}

// pick makes deletes of the refused rows of b: key cells, positions and times.
func pick(b *record.Batch, rejects []record.Reject) *record.Batch {
	out := record.NewBatch(b.Schema, nil)
	keys := b.Schema.Keys()
	for _, r := range rejects {
		out.Ops = append(out.Ops, record.OpDelete)
		out.Pos = append(out.Pos, b.Pos[r.Row])
		out.Time = append(out.Time, b.Time[r.Row])
		for i := range b.Schema.Fields {
			width := b.Schema.Fields[i].Kind.Width()
			if slices.Contains(keys, i) {
				out.After[i].AppendFrom(b.After[i], r.Row, width)
			} else {
				out.After[i].AppendMissing(record.Unsent, width)
			}
		}
	}
	return out
}

// without copies b but for the refused rows and releases it.
func without(b *record.Batch, rejects []record.Reject) *record.Batch {
	refused := make(map[int]bool, len(rejects))
	for _, r := range rejects {
		refused[r.Row] = true
	}
	out := record.NewBatch(b.Schema, nil)
	if b.Before != nil {
		out.Before = make([]*record.Vector, len(b.Before))
		for i := range b.Before {
			out.Before[i] = record.NewVector(&b.Schema.Fields[i])
		}
	}
	for row := range b.Ops {
		if refused[row] {
			continue
		}
		out.Ops = append(out.Ops, b.Ops[row])
		out.Pos = append(out.Pos, b.Pos[row])
		out.Time = append(out.Time, b.Time[row])
		for i := range out.After {
			out.After[i].AppendFrom(b.After[i], row, b.Schema.Fields[i].Kind.Width())
		}
		for i := range out.Before {
			out.Before[i].AppendFrom(b.Before[i], row, b.Schema.Fields[i].Kind.Width())
		}
	}
	b.Release()
	return out
}
