package lake

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/sluice-data/sluice/lake/keyindex"
	"github.com/sluice-data/sluice/record"
)

// Rows written to Parquet at once: larger pieces gain nothing.
const pieceRows = 64 << 10

// heldBatch is a batch whose rows wait for the next spill.
type heldBatch struct {
	b      *record.Batch
	live   []bool           // rows that go into the table; nil = all
	hashes []keyindex.Hash  // of an upsert table
	fills  map[int32]filler // where rows get the cells that the source did not send
}

// rowRef is one held row.
type rowRef struct{ held, row int32 }

// unfitRows returns the rows with a value that no table can hold.
func (p *plan) unfitRows(b *record.Batch) []record.Reject {
	var rejects []record.Reject
	seen := map[int]bool{}
	for _, field := range p.check {
		f := &p.schema.Fields[field]
		for i := range b.Len() {
			if why := unfit(b.After[field], f, i); why != "" && !seen[i] {
				seen[i] = true
				rejects = append(rejects, record.Reject{Row: i, Code: "value_out_of_range", Reason: f.Name + ": " + why})
			}
		}
	}
	slices.SortFunc(rejects, func(x, y record.Reject) int { return x.Row - y.Row })
	return rejects
}

// liveRows returns the mask of the rows that are not rejected; nil = all.
func liveRows(n int, rejects []record.Reject) []bool {
	if len(rejects) == 0 {
		return nil
	}
	live := make([]bool, n)
	for i := range live {
		live[i] = true
	}
	for _, r := range rejects {
		live[r.Row] = false
	}
	return live
}

func originOf(b *record.Batch, i int) origin {
	return origin{partition: b.Partition.Partition, epoch: b.Pos[i].Epoch, backfill: b.Ops[i] == record.OpRead}
}

// hold takes rows of an append table: straight into the open file if it can.
func (t *Table) hold(ctx context.Context, b *record.Batch, rejects []record.Reject) error {
	live := liveRows(b.Len(), rejects)
	if done, err := t.direct(ctx, b, live); done || err != nil {
		b.Release()
		return err
	}
	t.held = append(t.held, heldBatch{b: b, live: live})
	t.heldSize += b.Bytes()
	if t.heldSize >= t.lake.cfg.ChunkBytes {
		return t.spill(ctx)
	}
	return nil
}

// direct writes b without copying its rows, when they all go into one file and
// in their own order.
func (t *Table) direct(ctx context.Context, b *record.Batch, live []bool) (bool, error) {
	p := t.heldPlan
	if live != nil || len(t.held) > 0 || len(p.sort) > 0 || len(p.spec.fields) > 0 {
		return false, nil
	}
	o := originOf(b, 0)
	for i := range b.Len() {
		if originOf(b, i) != o {
			return false, nil
		}
	}
	if t.open[fileSlot{origin: o}] == nil && b.Len() < probeRows {
		return false, nil // too few rows to choose encodings by
	}
	meta := changelogColumns(b.Len(), func(i int) (*record.Batch, int) { return b, i })
	rec, err := p.recordBatch(b.After, meta, b.Len())
	if err != nil {
		return false, err
	}
	_, _, err = t.put(ctx, o, tuple{}, rec, nil, b.Offsets)
	return true, err
}

// spill encodes the held rows to Parquet and lets their batches go.
func (t *Table) spill(ctx context.Context) error {
	if len(t.held) == 0 {
		return nil
	}
	olds, err := t.fetchOld(ctx)
	if err != nil {
		return err
	}
	groups, err := t.groupHeld(olds)
	if err != nil {
		return err
	}
	for _, g := range groups {
		t.sortRows(g.rows, olds)
		for piece := range slices.Chunk(g.rows, pieceRows) {
			if err := t.spillPiece(ctx, g, piece, olds); err != nil {
				return err
			}
		}
	}
	for _, h := range t.held {
		h.b.Release()
	}
	clear(t.held)
	t.held, t.heldSize = t.held[:0], 0
	return nil
}

type rowGroup struct {
	origin
	tuple tuple
	rows  []rowRef
}

// groupHeld sorts the live rows by the file they go to.
func (t *Table) groupHeld(olds *oldCells) ([]*rowGroup, error) {
	p := t.heldPlan
	var order []*rowGroup
	bySlot := map[fileSlot]*rowGroup{}
	for h := range t.held {
		b := t.held[h].b
		var last *rowGroup
		for i := range b.Len() {
			if t.held[h].live != nil && !t.held[h].live[i] {
				continue
			}
			o := originOf(b, i)
			if last == nil || last.origin != o || len(p.spec.fields) > 0 {
				var tup tuple
				if len(p.spec.fields) > 0 {
					var err error
					r := rowRef{held: int32(h), row: int32(i)}
					cell := func(field int) (*record.Vector, int) { return t.cell(field, r, olds) }
					if tup, err = p.spec.of(p.schema.Fields, cell); err != nil {
						return nil, err
					}
				}
				slot := fileSlot{origin: o, tuple: tup.key}
				if last = bySlot[slot]; last == nil {
					last = &rowGroup{origin: o, tuple: tup}
					bySlot[slot] = last
					order = append(order, last)
				}
			}
			last.rows = append(last.rows, rowRef{held: int32(h), row: int32(i)})
		}
	}
	return order, nil
}

func (t *Table) sortRows(rows []rowRef, olds *oldCells) {
	p := t.heldPlan
	if len(p.sort) == 0 {
		return
	}
	slices.SortStableFunc(rows, func(x, y rowRef) int {
		for _, s := range p.sort {
			v, i := t.cell(s.field, x, olds)
			u, j := t.cell(s.field, y, olds)
			c := compareCells(v, u, &p.schema.Fields[s.field], i, j)
			if s.desc {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
}

// spillPiece copies rows together, column by column, and writes them.
func (t *Table) spillPiece(ctx context.Context, g *rowGroup, rows []rowRef, olds *oldCells) error {
	p := t.heldPlan
	fields := p.schema.Fields
	for len(t.gather) < len(fields) {
		t.gather = append(t.gather, nil)
	}
	for i := range fields {
		if t.gather[i] == nil || t.gatherPlan != p {
			t.gather[i] = record.NewVector(&fields[i])
		}
		t.gather[i].Reset()
	}
	t.gatherPlan = p
	for i := range fields {
		v, width := t.gather[i], fields[i].Kind.Width()
		for _, r := range rows {
			u, row := t.cell(i, r, olds)
			v.AppendFrom(u, row, width)
		}
	}
	var meta []arrow.Array
	if t.appends() {
		meta = changelogColumns(len(rows), func(i int) (*record.Batch, int) { return t.held[rows[i].held].b, int(rows[i].row) })
	}
	rec, err := p.recordBatch(t.gather[:len(fields)], meta, len(rows))
	if err != nil {
		return err
	}
	var keys []keyindex.Hash
	if !t.appends() {
		keys = make([]keyindex.Hash, 0, len(rows))
	}
	offsets := make([]int64, 0, len(rows))
	for _, r := range rows {
		h := &t.held[r.held]
		if !t.appends() {
			keys = append(keys, h.hashes[r.row])
		}
		if h.b.Offsets != nil {
			offsets = append(offsets, h.b.Offsets[r.row])
		}
	}
	f, start, err := t.put(ctx, g.origin, g.tuple, rec, keys, offsets)
	if err != nil || t.appends() {
		return err
	}
	pending := &t.part(g.partition).pending
	for i := range keys {
		pending.put(keys[i], place{held: inFile, file: f.no, row: uint32(start) + uint32(i)})
	}
	return nil
}

// cell returns where the value of a field of a held row is: in the row itself,
// in an earlier one of its key, or in the table.
func (t *Table) cell(field int, r rowRef, olds *oldCells) (*record.Vector, int) {
	for {
		h := &t.held[r.held]
		v := h.b.After[field]
		if v.State[r.row] != record.Unsent || t.appends() {
			return v, int(r.row)
		}
		from := h.fills[r.row]
		if from.held < 0 {
			return olds.at(field, r, v)
		}
		r = rowRef{held: from.held, row: int32(from.row)}
	}
}

// put appends rec to the open file of its slot and returns the file and the
// position of the first row.
func (t *Table) put(ctx context.Context, o origin, tup tuple, rec arrow.RecordBatch, keys []keyindex.Hash, offsets []int64) (*dataFile, int64, error) {
	slot := fileSlot{origin: o, tuple: tup.key}
	f := t.open[slot]
	if f == nil {
		if err := t.makeRoom(); err != nil {
			return nil, 0, err
		}
		var err error
		if f, err = t.openFile(ctx, o, t.heldPlan, tup, rec); err != nil {
			return nil, 0, err
		}
		f.no = int32(len(t.all))
		t.all = append(t.all, f)
		t.open[slot] = f
	}
	start := f.rows
	first, last := int64(0), int64(0)
	if len(offsets) > 0 {
		first, last = slices.Min(offsets), slices.Max(offsets)
	}
	if err := f.write(rec, keys, first, last); err != nil {
		return nil, 0, err
	}
	if f.bytes() >= t.cfg.TargetFileBytes {
		delete(t.open, slot)
		t.done = append(t.done, f)
		return f, start, t.finish(f)
	}
	return f, start, nil
}

// makeRoom finishes the largest open file when there are too many.
func (t *Table) makeRoom() error {
	if len(t.open) < maxOpenFiles {
		return nil
	}
	var largest fileSlot
	size := int64(-1)
	for slot, f := range t.open {
		if n := f.bytes(); n > size {
			largest, size = slot, n
		}
	}
	f := t.open[largest]
	delete(t.open, largest)
	t.done = append(t.done, f)
	return t.finish(f)
}

// finishOpen finishes every open file.
func (t *Table) finishOpen() error {
	for slot, f := range t.open {
		if err := t.finish(f); err != nil {
			return err
		}
		delete(t.open, slot)
		t.done = append(t.done, f)
	}
	// The order of a map must not show in a snapshot.
	slices.SortFunc(t.done, func(x, y *dataFile) int { return int(x.no - y.no) })
	return nil
}

// changelogColumns makes the columns that only a changelog has.
func changelogColumns(n int, at func(int) (*record.Batch, int)) []arrow.Array {
	opOffs, ops := make([]int32, 1, n+1), make([]byte, 0, 6*n)
	long := make([][]byte, 5) // epoch, lsn, seq, committed, offset
	for k := range long {
		long[k] = make([]byte, 0, 8*n)
	}
	partitions := make([]byte, 0, 4*n)
	for i := range n {
		b, row := at(i)
		ops = append(ops, b.Ops[row].String()...)
		opOffs = append(opOffs, int32(len(ops)))
		pos, offset := b.Pos[row], int64(0)
		if b.Offsets != nil {
			offset = b.Offsets[row]
		}
		for k, x := range [...]uint64{pos.Epoch, pos.LSN, pos.Seq, uint64(b.Time[row]), uint64(offset)} {
			long[k] = binary.LittleEndian.AppendUint64(long[k], x)
		}
		partitions = binary.LittleEndian.AppendUint32(partitions, uint32(b.Partition.Partition))
	}
	fixed := func(dt arrow.DataType, data []byte) arrow.Array {
		return array.MakeFromData(array.NewData(dt, n, []*memory.Buffer{nil, memory.NewBufferBytes(data)}, nil, 0, 0))
	}
	int64s := arrow.PrimitiveTypes.Int64
	return []arrow.Array{
		array.MakeFromData(array.NewData(arrow.BinaryTypes.String, n, []*memory.Buffer{nil,
			memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(opOffs)), memory.NewBufferBytes(ops)}, nil, 0, 0)),
		fixed(int64s, long[0]), fixed(int64s, long[1]), fixed(int64s, long[2]),
		fixed(&arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, long[3]),
		fixed(arrow.PrimitiveTypes.Int32, partitions), fixed(int64s, long[4]),
	}
}
