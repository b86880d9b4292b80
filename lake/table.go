package lake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
	"github.com/sluice-data/sluice/lake/keyindex"
	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// The modes of a table.
const (
	Append = "append" // a changelog: every change is a row
	Upsert = "upsert" // the newest row of each key
)

const (
	defaultTargetFileBytes = 256 << 20
	defaultZstdLevel       = 1

	// More open files than this cost more memory than they are worth: the
	// largest is finished first.
	maxOpenFiles = 64

	// Tries of one commit: with the pauses between them about a minute.
	commitTries = 16
)

// TableConfig is one stream's way into one table.
type TableConfig struct {
	Stream      record.StreamName
	Topic       string
	Table       string   // namespace.name
	Mode        string   // Append or Upsert
	PartitionBy []string // of a new table: day(created_at), bucket(16, id), truncate(4, name), id
	SortBy      []string // rows of a file are sorted in chunks: id, created_at desc

	TargetFileBytes int64 // a data file ends at this size; 0 = 256 MiB
	ZstdLevel       int   // 0 = 1
}

// Validate reports what is wrong with c.
func (c *TableConfig) Validate() error {
	var errs []error
	if parts := strings.Split(c.Table, "."); len(parts) < 2 || strings.Contains("."+c.Table+".", "..") {
		errs = append(errs, fmt.Errorf("table %q: want namespace.name", c.Table))
	}
	if c.Mode != Append && c.Mode != Upsert {
		errs = append(errs, fmt.Errorf("table %s: mode %q: want append or upsert", c.Table, c.Mode))
	}
	if c.Topic == "" {
		errs = append(errs, fmt.Errorf("table %s: no topic", c.Table))
	}
	if c.ZstdLevel < 0 || c.ZstdLevel > 22 {
		errs = append(errs, fmt.Errorf("table %s: zstd level %d: want 1 to 22", c.Table, c.ZstdLevel))
	}
	return errors.Join(append(errs, ValidatePartitionBy(c.PartitionBy))...)
}

// Table writes one topic into one Iceberg table and keeps the topic's offsets
// there. One goroutine uses it; after an error it is closed and opened anew.
type Table struct {
	lake  *Lake
	cfg   TableConfig
	id    table.Identifier
	log   *slog.Logger
	board *progress.Stream

	tbl    *table.Table     // as last loaded or committed; nil = does not exist yet
	marks  map[int32]string // the stored marks this writer started from, as they are spelled
	plans  map[string]*plan // by schema id
	files  *fileSet         // what the current snapshot holds; nil = not read yet
	index  *keyindex.Index  // of an upsert table
	failed error            // invariant 3: nothing is committed after a failure

	interval
	fileSeq    int
	gather     []*record.Vector // rows on their way into a file
	gatherPlan *plan
	stale      map[int32]*staleKeys // by partition, of an upsert table
}

// interval is what was written since the last flush.
type interval struct {
	open     map[fileSlot]*dataFile
	done     []*dataFile
	all      []*dataFile // every file begun, by number
	parts    map[int32]*partInterval
	held     []heldBatch // rows in memory
	heldSize int
	heldPlan *plan
	schema   string // newest schema written
	mapping  string // versions of the rules that its rows have gone through
	sourceUS int64  // newest source commit time
	oldestUS int64  // oldest source commit time, 0 = nothing was written
}

// partInterval is the part of one Kafka partition.
type partInterval struct {
	written int64 // rows taken, rejects not counted
	markers int64 // of these, rows that stand for a control op: counters are of rows
	drops   []drop
	pending pendingOps // of an upsert table: the newest op of each key
}

// drop takes away what a truncate or a new backfill makes moot.
type drop struct {
	partition    int32
	beforeEpoch  uint64
	backfillOnly bool
}

func (d drop) hits(o origin) bool {
	return o.partition == d.partition && o.epoch < d.beforeEpoch && (o.backfill || !d.backfillOnly)
}

// fileSlot is where rows of one kind are being written.
type fileSlot struct {
	origin
	tuple string
}

// Table returns the writer of one table. It does not touch the table yet.
func (l *Lake) Table(c TableConfig) (*Table, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.TargetFileBytes <= 0 {
		c.TargetFileBytes = defaultTargetFileBytes
	}
	if c.ZstdLevel == 0 {
		c.ZstdLevel = defaultZstdLevel
	}
	t := &Table{lake: l, cfg: c, id: strings.Split(c.Table, "."), log: l.log.With("table", c.Table),
		board: l.cfg.Board.Stream(progress.Sink, l.cfg.Owner, c.Stream.String()),
		marks: map[int32]string{}, plans: map[string]*plan{}, stale: map[int32]*staleKeys{}}
	t.reset()
	return t, nil
}

func (t *Table) appends() bool { return t.cfg.Mode == Append }

func (t *Table) reset() {
	t.interval = interval{open: map[fileSlot]*dataFile{}, parts: map[int32]*partInterval{}}
}

func (t *Table) part(n int32) *partInterval {
	p := t.parts[n]
	if p == nil {
		p = &partInterval{}
		t.parts[n] = p
	}
	return p
}

// Load returns the stored marks of parts and begins to write them.
func (t *Table) Load(ctx context.Context, parts []int32) (map[int32]record.Mark, error) {
	var last error
	for try := range commitTries {
		if err := t.pause(ctx, try); err != nil {
			return nil, errors.Join(last, err)
		}
		if last = t.reload(ctx); last == nil || errors.Is(last, catalog.ErrNoSuchTable) {
			break
		}
		if hopeless(last) {
			break
		}
		t.log.Warn("the catalog or the store does not answer; trying again", "error", last)
	}
	if last != nil && !errors.Is(last, catalog.ErrNoSuchTable) {
		return nil, last
	}
	marks := map[int32]record.Mark{}
	for _, p := range parts {
		delete(t.marks, p)
		delete(t.stale, p)
		if t.tbl == nil {
			continue
		}
		t.stale[p] = readStaleKeys(t.tbl.Properties()[t.staleProperty(p)])
		text, ok := t.tbl.Properties()[t.markKey(p)]
		if !ok {
			continue
		}
		m, err := parseMark(text)
		if err != nil {
			return nil, fmt.Errorf("table %s: property %s: %w", t.cfg.Table, t.markKey(p), err)
		}
		marks[p], t.marks[p] = m, text
	}
	for _, p := range parts {
		if _, ok := t.marks[p]; !ok {
			t.marks[p] = ""
		}
	}
	return marks, nil
}

// reload brings the handle up to date.
func (t *Table) reload(ctx context.Context) error {
	tbl, err := t.lake.loadTable(ctx, t.id)
	if err != nil {
		return err
	}
	if t.tbl != nil && t.tbl.Metadata().TableUUID() != tbl.Metadata().TableUUID() {
		return fmt.Errorf("table %s was dropped and made again while it was written", t.cfg.Table)
	}
	t.tbl = tbl
	return nil
}

// Write takes b over.
func (t *Table) Write(ctx context.Context, b *record.Batch) ([]record.Reject, error) {
	if t.failed != nil {
		b.Release()
		return nil, fmt.Errorf("table %s was not opened anew after: %w", t.cfg.Table, t.failed)
	}
	rejects, err := t.write(ctx, b)
	if err != nil {
		t.failed = err
	}
	return rejects, err
}

func (t *Table) write(ctx context.Context, b *record.Batch) ([]record.Reject, error) {
	for _, us := range b.Time {
		t.sourceUS = max(t.sourceUS, us)
		if t.oldestUS == 0 || us < t.oldestUS {
			t.oldestUS = us
		}
	}
	if op, ok := b.Control(); ok && op == record.OpTruncate && t.appends() {
		marker := truncateRow(b)
		t.part(b.Partition.Partition).markers++
		b.Release()
		b = marker
	} else if ok {
		defer b.Release()
		return nil, t.control(ctx, b, op)
	}
	if b.Len() == 0 {
		b.Release()
		return nil, nil
	}
	p, err := t.planFor(ctx, b.Schema)
	if err != nil {
		b.Release()
		return nil, err
	}
	if t.heldPlan != p {
		// Held rows share one plan: rows of another schema go out first.
		if err := t.spill(ctx); err != nil {
			b.Release()
			return nil, err
		}
		if err := t.finishOpen(); err != nil {
			b.Release()
			return nil, err
		}
		t.heldPlan, t.schema, t.mapping = p, b.Schema.ID, b.Schema.Mapping
	}
	rejects := p.unfitRows(b)
	if t.appends() {
		t.part(b.Partition.Partition).written += int64(b.Len() - len(rejects))
		return rejects, t.hold(ctx, b, rejects)
	}
	return t.fold(ctx, p, b, rejects)
}

// truncateRow is how a truncate looks in a changelog: a row without values. It
// takes nothing away: a changelog keeps its history.
func truncateRow(b *record.Batch) *record.Batch {
	row := record.NewBatch(b.Schema, nil)
	row.Partition, row.Ops, row.Pos, row.Time, row.Offsets = b.Partition, b.Ops, b.Pos, b.Time, b.Offsets
	for i := range b.Schema.Fields {
		row.After[i].AppendMissing(record.Null, b.Schema.Fields[i].Kind.Width())
	}
	return row
}

// control applies an op that speaks of the whole stream.
func (t *Table) control(ctx context.Context, b *record.Batch, op record.Op) error {
	if t.tbl == nil && b.Schema != nil {
		if _, err := t.planFor(ctx, b.Schema); err != nil {
			return err
		}
	}
	part := b.Partition.Partition
	t.part(part)
	switch op {
	case record.OpTruncate:
		return t.discard(drop{partition: part, beforeEpoch: math.MaxUint64})
	case record.OpBackfillBegin:
		return t.discard(drop{partition: part, beforeEpoch: b.Pos[0].Epoch, backfillOnly: t.appends()})
	}
	return nil
}

// discard drops what this interval wrote and d makes moot, and remembers d for
// what earlier commits wrote.
func (t *Table) discard(d drop) error {
	p := t.part(d.partition)
	p.drops = append(p.drops, d)
	t.staleOf(d.partition).reset()
	for slot, f := range t.open {
		if d.hits(f.origin) {
			delete(t.open, slot)
			if err := f.abandon(); err != nil {
				t.log.Warn("an abandoned upload stays until the store's own rule removes it", "error", err)
			}
		}
	}
	keep := t.done[:0]
	for _, f := range t.done {
		if !d.hits(f.origin) {
			keep = append(keep, f)
		}
	}
	clear(t.done[len(keep):])
	t.done = keep
	t.discardHeld(d)
	return nil
}

// Buffered returns the bytes that a Flush would make durable: rows in memory,
// and Parquet in memory and on its way to the store (invariant 9).
func (t *Table) Buffered() int {
	n := int64(t.heldSize)
	for _, f := range t.open {
		n += f.bytes()
	}
	for _, f := range t.done {
		n += f.size
	}
	for _, p := range t.parts {
		n += int64(len(p.pending.slots)) * pendingSlotBytes
	}
	return int(n)
}

// Close drops what was not flushed.
func (t *Table) Close() error {
	var errs []error
	for _, f := range t.open {
		errs = append(errs, f.abandon())
	}
	for _, h := range t.held {
		h.b.Release()
	}
	t.reset()
	if t.index != nil {
		errs = append(errs, t.index.Close())
		t.index = nil
	}
	if t.failed == nil {
		t.failed = errors.New("it was closed")
	}
	return errors.Join(errs...)
}

// pause waits before the n-th try of something that the catalog or the store
// refused; the first try waits for nothing.
func (t *Table) pause(ctx context.Context, try int) error {
	if try == 0 {
		return ctx.Err()
	}
	d := min(20*time.Millisecond<<min(try, 10), 5*time.Second)
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
