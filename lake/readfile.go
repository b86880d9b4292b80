package lake

import (
	"context"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/sluice-data/sluice/record"
)

// Iceberg's reserved field ids of position delete files.
const (
	deletePathID = 2147483546
	deletePosID  = 2147483545
)

// scanFile reads the columns with the given field ids of a Parquet file, row
// group by row group. want says by first row and number of rows whether a row
// group is needed; nil = all. A column that the file does not have is nil.
func (t *Table) scanFile(ctx context.Context, path string, ids []int, want func(start, rows int64) bool, visit func(start, rows int64, columns []arrow.Array) error) error {
	bucket, key, err := split(path)
	if err != nil {
		return err
	}
	in := t.lake.store.Open(ctx, bucket, key)
	defer func() { _ = in.Close() }()
	pf, err := file.NewParquetReader(in)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	defer func() { _ = pf.Close() }()
	reader, err := pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	leaves, place := columnPlaces(reader.Manifest, ids)
	start := int64(0)
	for g := range pf.NumRowGroups() {
		rows := pf.MetaData().RowGroup(g).NumRows()
		if want == nil || want(start, rows) {
			if err := readRowGroup(ctx, reader, g, leaves, place, func(columns []arrow.Array) error {
				return visit(start, rows, columns)
			}); err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
		}
		start += rows
	}
	return nil
}

// columnPlaces finds the leaves of the columns with the given ids, and for
// each id the place of its column among those read, -1 if the file has none.
func columnPlaces(m *pqarrow.SchemaManifest, ids []int) (leaves, place []int) {
	place = make([]int, len(ids))
	for i := range place {
		place[i] = -1
	}
	n := 0
	for k := range m.Fields {
		f := &m.Fields[k]
		id, ok := f.Field.Metadata.GetValue("PARQUET:field_id")
		at := slices.IndexFunc(ids, func(want int) bool { return ok && fmt.Sprint(want) == id })
		if at < 0 {
			continue
		}
		place[at] = n
		n++
		leaves = appendLeaves(leaves, f)
	}
	return leaves, place
}

func appendLeaves(leaves []int, f *pqarrow.SchemaField) []int {
	if len(f.Children) == 0 {
		return append(leaves, f.ColIndex)
	}
	for i := range f.Children {
		leaves = appendLeaves(leaves, &f.Children[i])
	}
	return leaves
}

func readRowGroup(ctx context.Context, reader *pqarrow.FileReader, g int, leaves, place []int, visit func([]arrow.Array) error) error {
	columns := make([]arrow.Array, len(place))
	if len(leaves) == 0 {
		return visit(columns)
	}
	tbl, err := reader.ReadRowGroups(ctx, leaves, []int{g})
	if err != nil {
		return err
	}
	defer tbl.Release()
	for i, p := range place {
		if p < 0 {
			continue
		}
		chunks := tbl.Column(p).Data().Chunks()
		if len(chunks) == 1 {
			columns[i] = chunks[0]
			continue
		}
		whole, err := array.Concatenate(chunks, memory.DefaultAllocator)
		if err != nil {
			return err
		}
		columns[i] = whole
	}
	return visit(columns)
}

// readDeletes calls add for each row of a position delete file.
func (t *Table) readDeletes(ctx context.Context, path string, add func(path string, pos int64)) error {
	return t.scanFile(ctx, path, []int{deletePathID, deletePosID}, nil, func(_, rows int64, columns []arrow.Array) error {
		paths, ok1 := columns[0].(*array.String)
		positions, ok2 := columns[1].(*array.Int64)
		if !ok1 || !ok2 {
			return fmt.Errorf("it is no position delete file")
		}
		for i := range int(rows) {
			add(paths.Value(i), positions.Value(i))
		}
		return nil
	})
}

// oldCells are cells that rows in the table or in files of this interval have
// and that the source did not send again.
type oldCells struct {
	row     map[rowRef]int
	columns map[int]*record.Vector // by field, one row per wanted row
}

// at returns the cell that a held row lacks.
func (o *oldCells) at(field int, r rowRef, v *record.Vector) (*record.Vector, int) {
	if c := o.columns[field]; c != nil {
		return c, o.row[r]
	}
	return v, int(r.row)
}

type oldRow struct {
	ref rowRef
	pos uint32
}

// fetchOld reads all cells that live held rows lack, file by file.
func (t *Table) fetchOld(ctx context.Context) (*oldCells, error) {
	refs, fields := t.lacking()
	if len(refs) == 0 {
		return nil, nil
	}
	byFile, err := t.locateOld(refs)
	if err != nil {
		return nil, err
	}
	p := t.heldPlan
	out := &oldCells{row: map[rowRef]int{}, columns: map[int]*record.Vector{}}
	ids := make([]int, len(fields))
	for i, field := range fields {
		ids[i] = p.file.Field(slices.Index(p.fields, field)).ID
		out.columns[field] = record.NewVector(&p.schema.Fields[field])
	}
	for path, rows := range byFile {
		slices.SortFunc(rows, func(x, y oldRow) int { return int(int64(x.pos) - int64(y.pos)) })
		if err := t.readOld(ctx, path, rows, ids, fields, out); err != nil {
			return nil, err
		}
		for _, r := range rows {
			if _, ok := out.row[r.ref]; !ok {
				return nil, fmt.Errorf("read %s: it has no row %d, of which the key index knows; remove the index folder to rebuild it", path, r.pos)
			}
		}
	}
	return out, nil
}

func (t *Table) readOld(ctx context.Context, path string, rows []oldRow, ids, fields []int, out *oldCells) error {
	next := 0
	want := func(start, n int64) bool { return next < len(rows) && int64(rows[next].pos) < start+n }
	return t.scanFile(ctx, path, ids, want, func(start, n int64, columns []arrow.Array) error {
		for ; next < len(rows) && int64(rows[next].pos) < start+n; next++ {
			out.row[rows[next].ref] = len(out.row)
			for i, field := range fields {
				f := &t.heldPlan.schema.Fields[field]
				if err := appendCell(out.columns[field], f, columns[i], int(int64(rows[next].pos)-start)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// lacking returns the held rows that take cells from a row outside memory, for
// all live rows, and the fields in question.
func (t *Table) lacking() (refs []rowRef, fields []int) {
	seen := map[rowRef]bool{}
	wanted := map[int]bool{}
	for k := range t.held {
		for row := range t.held[k].fills {
			if !t.held[k].live[row] {
				continue
			}
			for field := range t.heldPlan.schema.Fields {
				r := rowRef{held: int32(k), row: row}
				for t.held[r.held].b.After[field].State[r.row] == record.Unsent {
					from := t.held[r.held].fills[r.row]
					if from.held < 0 {
						wanted[field] = true
						if !seen[r] {
							seen[r] = true
							refs = append(refs, r)
						}
						break
					}
					r = rowRef{held: from.held, row: int32(from.row)}
				}
			}
		}
	}
	for field := range t.heldPlan.schema.Fields {
		if wanted[field] {
			fields = append(fields, field)
		}
	}
	return refs, fields
}

// locateOld finds file and position of the rows that refs replace.
func (t *Table) locateOld(refs []rowRef) (map[string][]oldRow, error) {
	byFile := map[string][]oldRow{}
	var rest []rowRef
	for _, r := range refs {
		from := t.held[r.held].fills[r.row]
		if from.held == inTable {
			rest = append(rest, r)
			continue
		}
		// A row of this interval that is in a file already: only a finished file can be read.
		f := t.all[from.file]
		if f.meta == nil {
			delete(t.open, fileSlot{origin: f.origin, tuple: f.tuple.key})
			t.done = append(t.done, f)
			if err := t.finish(f); err != nil {
				return nil, err
			}
		}
		byFile[f.path] = append(byFile[f.path], oldRow{ref: r, pos: from.row})
	}
	if len(rest) == 0 {
		return byFile, nil
	}
	hashes := t.hashesOf(rest)
	where, found := resolve(t.index, hashes)
	for i, r := range rest {
		if !found[i] {
			return nil, fmt.Errorf("find the old row of a key in %s: the key index lost it", t.cfg.Table)
		}
		path := t.index.FilePath(where[i].File)
		byFile[path] = append(byFile[path], oldRow{ref: r, pos: where[i].Pos})
	}
	return byFile, nil
}
