package lake

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
	"github.com/sluice-data/sluice/lake/keyindex"
	"github.com/sluice-data/sluice/objects"
	"github.com/sluice-data/sluice/record"
)

const (
	// Row groups this small keep an open file's memory low and let readers of
	// single rows fetch little.
	rowGroupRows = 128 << 10

	// Larger pages cost CPU, smaller ones bytes.
	pageBytes = 256 << 10

	// A dictionary pays only where values repeat: it is decided on the first
	// rows of a file.
	probeRows = 4096
)

// origin says which rows a data file holds. A file never mixes origins: what a
// truncate, a new backfill or a rebalance takes away are whole files.
type origin struct {
	partition int32 // of Kafka
	epoch     uint64
	backfill  bool // rows of a backfill, or else changes
}

// fileName carries the origin, so that it can be read from a manifest.
func fileName(topic string, o origin, seq int) string {
	class := byte('c')
	if o.backfill {
		class = 'r'
	}
	return fmt.Sprintf("t%08x-p%d-e%d-%c-%s-%05d.parquet", topicHash(topic), o.partition, o.epoch, class, uuid.New(), seq)
}

var fileNames = regexp.MustCompile(`^t([0-9a-f]{8})-p(\d+)-e(\d+)-([rc])-`)

// parseFileName returns the origin of a data file; ok is false for a file of
// another program.
func parseFileName(path string) (topic uint32, o origin, ok bool) {
	m := fileNames.FindStringSubmatch(path[strings.LastIndexByte(path, '/')+1:])
	if m == nil {
		return 0, origin{}, false
	}
	hash, err1 := strconv.ParseUint(m[1], 16, 32)
	partition, err2 := strconv.ParseInt(m[2], 10, 32)
	epoch, err3 := strconv.ParseUint(m[3], 10, 64)
	return uint32(hash), origin{partition: int32(partition), epoch: epoch, backfill: m[4] == "r"}, err1 == nil && err2 == nil && err3 == nil
}

func topicHash(topic string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(topic))
	return h.Sum32()
}

// dataFile is one open or finished Parquet file that no snapshot refers to yet.
type dataFile struct {
	origin
	no     int32 // place in Table.all
	plan   *plan
	tuple  tuple
	path   string
	out    *objects.Writer
	pq     *pqarrow.FileWriter
	rows   int64
	first  int64 // Kafka offsets
	last   int64
	chunks int

	keys []keyindex.Hash // of an upsert table: the key of each row
	dead *roaring.Bitmap // rows that a newer one of the same interval replaced, nil = none

	size int64            // when finished
	meta iceberg.DataFile // when finished
}

// openFile begins a data file whose first rows are rec.
func (t *Table) openFile(ctx context.Context, o origin, p *plan, tup tuple, rec arrow.RecordBatch) (*dataFile, error) {
	t.fileSeq++
	name := fileName(t.cfg.Topic, o, t.fileSeq)
	if !p.spec.spec.IsUnpartitioned() {
		name = p.spec.spec.PartitionToPath(structOf(p, tup), t.tbl.Schema()) + "/" + name
	}
	path := strings.TrimSuffix(t.tbl.Location(), "/") + "/data/" + name
	bucket, key, err := split(path)
	if err != nil {
		return nil, err
	}
	f := &dataFile{origin: o, plan: p, tuple: tup, path: path, first: -1, out: t.lake.store.Create(ctx, bucket, key)}
	props := []parquet.WriterProperty{
		parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(t.cfg.ZstdLevel),
		parquet.WithDataPageSize(pageBytes), parquet.WithMaxRowGroupLength(rowGroupRows),
		parquet.WithStoreDecimalAsInteger(true), parquet.WithDictionaryDefault(false), parquet.WithVersion(parquet.V2_LATEST),
		parquet.WithCreatedBy("sluice"),
	}
	for i, c := range rec.Columns() {
		if repeats(c) {
			path := rec.Schema().Field(i).Name
			props = append(props, parquet.WithDictionaryFor(path, true))
		}
	}
	// The wrapper hides Close: the footer's end is not yet the object's.
	f.pq, err = pqarrow.NewFileWriter(p.arrow, struct{ io.Writer }{f.out}, parquet.NewWriterProperties(props...), pqarrow.DefaultWriterProps())
	if err != nil {
		return nil, fmt.Errorf("begin %s: %w", path, err)
	}
	return f, nil
}

// structOf shows a tuple in the order of the spec's fields.
func structOf(p *plan, tup tuple) iceberg.StructLike {
	row := make(structRow, 0, len(p.spec.fields))
	for _, f := range p.spec.fields {
		row = append(row, tup.values[f.id])
	}
	return row
}

type structRow []any

func (r structRow) Size() int            { return len(r) }
func (r structRow) Get(pos int) any      { return r[pos] }
func (r structRow) Set(pos int, val any) { r[pos] = val }

// repeats reports whether a dictionary pays: at most a quarter of the first
// values are distinct. Text must repeat more, its dictionary costs more.
func repeats(a arrow.Array) bool {
	n := min(a.Len(), probeRows)
	limit := (n - a.NullN()) / 4
	switch a := a.(type) {
	case *array.Int32:
		return fewer(n, limit, a.IsValid, a.Value)
	case *array.Int64:
		return fewer(n, limit, a.IsValid, a.Value)
	case *array.Float32:
		return fewer(n, limit, a.IsValid, a.Value)
	case *array.Float64:
		return fewer(n, limit, a.IsValid, a.Value)
	case *array.Date32:
		return fewer(n, limit, a.IsValid, a.Value)
	case *array.Timestamp:
		return fewer(n, limit, a.IsValid, a.Value)
	case *array.Decimal128:
		return fewer(n, limit, a.IsValid, a.Value)
	case *array.String:
		return fewer(n, limit/8, a.IsValid, a.Value)
	}
	return false
}

func fewer[T comparable](n, limit int, valid func(int) bool, value func(int) T) bool {
	if limit < 1 {
		return false
	}
	seen := make(map[T]struct{}, limit+1)
	for i := range n {
		if valid(i) {
			seen[value(i)] = struct{}{}
			if len(seen) > limit {
				return false
			}
		}
	}
	return true
}

// write appends rows. keys has one hash a row for an upsert table.
func (f *dataFile) write(rec arrow.RecordBatch, keys []keyindex.Hash, first, last int64) error {
	if n, err := f.pq.RowGroupNumRows(); err == nil && n >= rowGroupRows {
		if err := f.pq.NewBufferedRowGroupChecked(); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
	}
	if err := f.pq.WriteBuffered(rec); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	if f.first < 0 {
		f.first = first
	}
	f.last = max(f.last, last)
	f.rows += rec.NumRows()
	f.keys = append(f.keys, keys...)
	f.chunks++
	return nil
}

// bytes returns what the file holds: on its way to the store and in memory.
func (f *dataFile) bytes() int64 {
	if f.meta != nil {
		return f.size
	}
	return f.out.Size() + f.pq.RowGroupTotalCompressedBytes()
}

// kill marks a row as replaced.
func (f *dataFile) kill(pos uint32) {
	if f.dead == nil {
		f.dead = roaring.New()
	}
	f.dead.Add(pos)
}

// finish makes the object visible; no snapshot knows it yet.
func (t *Table) finish(f *dataFile) error {
	if f.meta != nil {
		return nil
	}
	for _, kv := range [][2]string{
		{"sluice.topic", t.cfg.Topic}, {"sluice.partition", strconv.Itoa(int(f.partition))},
		{"sluice.epoch", strconv.FormatUint(f.epoch, 10)}, {"sluice.backfill", strconv.FormatBool(f.backfill)},
		{"sluice.first-offset", strconv.FormatInt(f.first, 10)}, {"sluice.last-offset", strconv.FormatInt(f.last, 10)},
	} {
		if err := f.pq.AppendKeyValueMetadata(kv[0], kv[1]); err != nil {
			return fmt.Errorf("finish %s: %w", f.path, err)
		}
	}
	if err := f.pq.Close(); err != nil {
		return fmt.Errorf("finish %s: %w", f.path, err)
	}
	footer, err := f.pq.FileMetadata()
	if err != nil {
		return fmt.Errorf("finish %s: %w", f.path, err)
	}
	if err := f.out.Close(); err != nil {
		return err
	}
	f.size = f.out.Size()
	sortOrder := 0
	if len(f.plan.sort) > 0 && f.chunks == 1 {
		sortOrder = t.sortOrderID()
	}
	f.meta, err = table.DataFileFromMetadata(table.DataFileArgs{Schema: f.plan.file, Spec: f.plan.spec.spec,
		Format: iceberg.ParquetFile, Metadata: footer, FilePath: f.path, FileSize: f.size,
		Content: iceberg.EntryContentData, PartitionValues: f.tuple.values, SortOrderID: sortOrder,
		Properties: t.tbl.Properties(), FormatVersion: t.tbl.Metadata().Version()})
	if err != nil {
		return fmt.Errorf("describe %s: %w", f.path, err)
	}
	f.pq = nil
	return nil
}

// sortOrderID returns the table's sort order if it is the configured one.
func (t *Table) sortOrderID() int {
	want, err := parseSortBy(t.cfg.SortBy, t.tbl.Schema())
	have := t.tbl.SortOrder()
	if err != nil || want.Len() != have.Len() {
		return 0
	}
	for i, f := range have.Fields() {
		if !f.Equals(want.Field(i)) {
			return 0
		}
	}
	return have.OrderID()
}

// abandon drops an open file; a finished one becomes an orphan that
// maintenance removes: a landed commit might refer to it.
func (f *dataFile) abandon() error {
	if f.meta != nil {
		return nil
	}
	return f.out.Abort()
}

// recordBatch makes the columns of a data file from rows of b; meta are the
// changelog's own columns.
func (p *plan) recordBatch(after []*record.Vector, meta []arrow.Array, rows int) (arrow.RecordBatch, error) {
	columns := make([]arrow.Array, 0, p.arrow.NumFields())
	for i, field := range p.fields {
		a, err := arrowColumn(after[field], &p.schema.Fields[field], p.arrow.Field(i).Type)
		if err != nil {
			return nil, err
		}
		columns = append(columns, a)
	}
	columns = append(columns, meta...)
	return array.NewRecordBatch(p.arrow, columns, int64(rows)), nil
}
