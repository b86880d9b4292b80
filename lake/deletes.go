package lake

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
	"github.com/sluice-data/sluice/lake/keyindex"
	"golang.org/x/sync/errgroup"
)

// Readers pay for the number of delete files: this many data files of a commit
// get one each, the rest share one per partition.
const ownDeleteFiles = 64

// fileDeletes are rows of one data file that a commit takes away.
type fileDeletes struct {
	path      string
	positions []uint32 // ascending
	spec      int
	tuple     tuple
}

// deleteSet is what a commit deletes: the positions, and the files that say so.
type deleteSet struct {
	rows  []fileDeletes // of files in the table, by path
	files []iceberg.DataFile
}

func (d *deleteSet) equal(o *deleteSet) bool {
	return slices.EqualFunc(d.rows, o.rows, func(x, y fileDeletes) bool {
		return x.path == y.path && slices.Equal(x.positions, y.positions)
	})
}

// resolveDeletes finds the rows in the table that this interval's ops replace.
func (t *Table) resolveDeletes(ctx context.Context) ([]fileDeletes, error) {
	if t.index == nil {
		return nil, nil
	}
	var keys []keyindex.Hash
	var parts []int32
	for n, p := range t.parts {
		keys, parts = slices.Grow(keys, p.pending.len()), slices.Grow(parts, p.pending.len())
		for h := range p.pending.all() {
			keys, parts = append(keys, h), append(parts, n)
		}
	}
	if len(keys) == 0 {
		return nil, nil
	}
	where, found := resolve(t.index, keys)
	byFile := map[uint32]*fileDeletes{}
	dropped := map[uint32]bool{}
	for i := range keys {
		if !found[i] {
			continue
		}
		id := where[i].File
		d := byFile[id]
		if d == nil {
			d = &fileDeletes{path: t.index.FilePath(id)}
			byFile[id] = d
			dropped[id] = t.droppedFile(parts[i], d.path)
		}
		d.positions = append(d.positions, where[i].Pos)
	}
	var out []fileDeletes
	var set *fileSet
	for id, d := range byFile {
		if dropped[id] {
			continue
		}
		slices.Sort(d.positions)
		d.positions = slices.Compact(d.positions)
		if !t.tbl.Spec().IsUnpartitioned() || len(t.tbl.Metadata().PartitionSpecs()) > 1 {
			if set == nil {
				var err error
				if set, err = t.fileSet(ctx); err != nil {
					return nil, err
				}
			}
			f, ok := set.data[d.path]
			if !ok {
				return nil, fmt.Errorf("delete rows of %s: the table does not have the file", d.path)
			}
			d.spec, d.tuple = int(f.file.SpecID()), tupleOf(f.file.Partition())
		}
		out = append(out, *d)
	}
	slices.SortFunc(out, func(x, y fileDeletes) int { return strings.Compare(x.path, y.path) })
	return out, nil
}

// stageDeletes writes the delete files of this interval. old, from a try that
// lost a race, is kept if it still says the right thing.
func (t *Table) stageDeletes(ctx context.Context, old *deleteSet) (*deleteSet, error) {
	rows, err := t.resolveDeletes(ctx)
	if err != nil {
		return nil, err
	}
	set := &deleteSet{rows: rows}
	if old != nil && old.equal(set) {
		return old, nil
	}
	var groups [][]fileDeletes
	byCount := slices.Clone(rows)
	slices.SortStableFunc(byCount, func(x, y fileDeletes) int { return cmp.Compare(len(y.positions), len(x.positions)) })
	for _, d := range byCount[:min(len(byCount), ownDeleteFiles)] {
		groups = append(groups, []fileDeletes{d})
	}
	alone := len(groups)
	groups = append(groups, shared(byCount[alone:])...)
	groups = append(groups, shared(t.replacedRows())...)
	set.files = make([]iceberg.DataFile, len(groups))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, group := range groups {
		g.Go(func() (err error) {
			set.files[i], err = t.writeDeletes(ctx, group, i < alone)
			return err
		})
	}
	return set, g.Wait()
}

// replacedRows are rows of this interval's own files that a newer one of the
// same interval replaced.
func (t *Table) replacedRows() []fileDeletes {
	var out []fileDeletes
	for _, f := range t.done {
		if f.dead != nil {
			out = append(out, fileDeletes{path: f.path, positions: f.dead.ToArray(), spec: f.plan.spec.spec.ID(), tuple: f.tuple})
		}
	}
	return out
}

// shared puts data files of one partition together, sorted by path as readers want.
func shared(files []fileDeletes) [][]fileDeletes {
	slices.SortFunc(files, func(x, y fileDeletes) int {
		return cmp.Or(cmp.Compare(x.spec, y.spec), strings.Compare(x.tuple.key, y.tuple.key), strings.Compare(x.path, y.path))
	})
	var groups [][]fileDeletes
	for i, f := range files {
		if i > 0 && f.spec == files[i-1].spec && f.tuple.key == files[i-1].tuple.key {
			groups[len(groups)-1] = append(groups[len(groups)-1], f)
			continue
		}
		groups = append(groups, []fileDeletes{f})
	}
	return groups
}

// writeDeletes writes one position delete file, sorted by path and position.
// alone says that it speaks of a data file in the table only: readers then
// need not look at it for any other.
func (t *Table) writeDeletes(ctx context.Context, group []fileDeletes, alone bool) (iceberg.DataFile, error) {
	path := strings.TrimSuffix(t.tbl.Location(), "/") + "/data/d-" + uuid.NewString() + ".parquet"
	bucket, key, err := split(path)
	if err != nil {
		return nil, err
	}
	props := parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Uncompressed), parquet.WithCreatedBy("sluice"),
		parquet.WithDictionaryDefault(false), parquet.WithDictionaryFor("file_path", true),
		parquet.WithEncodingFor("pos", parquet.Encodings.DeltaBinaryPacked))
	sc, err := pqarrow.ToParquet(table.PositionalDeleteArrowSchema, props, pqarrow.DefaultWriterProps())
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	out := t.lake.store.Create(ctx, bucket, key)
	w := file.NewParquetWriter(struct{ io.Writer }{out}, sc.Root(), file.WithWriterProps(props))
	if err := writePositions(w, group); err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	if err := out.Close(); err != nil {
		return nil, err
	}
	footer, err := w.FileMetadata()
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	args := table.DataFileArgs{Schema: iceberg.PositionalDeleteSchema, Format: iceberg.ParquetFile, Metadata: footer,
		FilePath: path, FileSize: out.Size(), Content: iceberg.EntryContentPosDeletes, FormatVersion: 2,
		PartitionValues: group[0].tuple.values}
	if spec := t.tbl.Metadata().PartitionSpecByID(group[0].spec); spec != nil {
		args.Spec = *spec
	}
	if alone {
		args.ReferencedDataFile = &group[0].path
	}
	df, err := table.DataFileFromMetadata(args)
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", path, err)
	}
	return df, nil
}

func writePositions(w *file.Writer, group []fileDeletes) error {
	rg, err := w.AppendRowGroupChecked()
	if err != nil {
		return err
	}
	column, err := rg.NextColumn()
	if err != nil {
		return err
	}
	paths, ok := column.(*file.ByteArrayColumnChunkWriter)
	if !ok {
		return fmt.Errorf("file_path is no text column")
	}
	for _, d := range group {
		values := make([]parquet.ByteArray, len(d.positions))
		for i := range values {
			values[i] = parquet.ByteArray(d.path)
		}
		if _, err := paths.WriteBatch(values, nil, nil); err != nil {
			return err
		}
	}
	if err := paths.Close(); err != nil {
		return err
	}
	if column, err = rg.NextColumn(); err != nil {
		return err
	}
	positions, ok := column.(*file.Int64ColumnChunkWriter)
	if !ok {
		return fmt.Errorf("pos is no int64 column")
	}
	for _, d := range group {
		values := make([]int64, len(d.positions))
		for i, p := range d.positions {
			values[i] = int64(p)
		}
		if _, err := positions.WriteBatch(values, nil, nil); err != nil {
			return err
		}
	}
	if err := positions.Close(); err != nil {
		return err
	}
	if err := rg.Close(); err != nil {
		return err
	}
	return w.Close()
}

// change tells the key index what the commit did.
func (t *Table) change(set *deleteSet, removed []iceberg.DataFile) keyindex.Change {
	var c keyindex.Change
	for _, d := range set.rows {
		if id, ok := t.index.FileID(d.path); ok {
			c.Deletes = append(c.Deletes, keyindex.Delete{File: id, Positions: d.positions})
		}
	}
	for _, f := range removed {
		if _, ok := t.index.FileID(f.FilePath()); ok {
			c.RemovedFiles = append(c.RemovedFiles, f.FilePath())
		}
	}
	for _, f := range t.done {
		var dead *roaring.Bitmap
		if f.dead != nil {
			dead = f.dead
		}
		c.Added = append(c.Added, keyindex.AddedFile{Path: f.path, Rows: f.rows, Partition: f.partition, Keys: f.keys, Deleted: dead})
	}
	return c
}
