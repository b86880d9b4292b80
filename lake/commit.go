package lake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/http"
	"strconv"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
	"github.com/sluice-data/sluice/objects"
	"github.com/sluice-data/sluice/record"
)

// Keys of a snapshot's summary, besides the marks.
const (
	summaryCommit   = "sluice.commit-id"    // of the try that made the snapshot
	summarySchema   = "sluice.schema"       // id of the newest schema written
	summaryMapping  = "sluice.mapping"      // versions of its rules: protect+shape
	summarySourceMS = "sluice.source-ts-ms" // newest source commit time, for freshness
	summaryPipeline = "sluice.pipeline"
)

// markKey names the table property that holds the mark of one partition. There
// is one for each: property-only commits are not fenced against each other,
// and none may speak of another writer's partition.
func (t *Table) markKey(partition int32) string {
	return "sluice." + t.lake.cfg.Pipeline + "." + t.cfg.Topic + "." + strconv.Itoa(int(partition))
}

func parseMark(text string) (record.Mark, error) {
	var m record.Mark
	err := json.Unmarshal([]byte(text), &m)
	return m, err
}

// Flush commits everything written since the last Flush together with marks.
// If the table does not exist yet, because no schema was seen, nothing is
// stored: a restart reads the same records again and filters them again.
func (t *Table) Flush(ctx context.Context, marks map[int32]record.Mark) (map[int32]record.Mark, error) {
	if t.failed != nil {
		return nil, fmt.Errorf("table %s was not opened anew after: %w", t.cfg.Table, t.failed)
	}
	out, err := t.flush(ctx, marks)
	if err != nil {
		// Invariant 3: commit nothing more after a failed flush.
		t.failed = err
		return nil, err
	}
	return out, nil
}

func (t *Table) flush(ctx context.Context, marks map[int32]record.Mark) (map[int32]record.Mark, error) {
	t.lake.hook(BeforeData)
	if err := t.spill(ctx); err != nil {
		return nil, err
	}
	if err := t.finishOpen(); err != nil {
		return nil, err
	}
	out, texts, err := t.countMarks(marks)
	if err != nil {
		return nil, err
	}
	if t.tbl == nil || t.idle(texts) {
		t.reset()
		return out, nil
	}
	if t.index != nil && t.heldPlan != nil {
		if err := t.syncIndex(ctx, t.heldPlan); err != nil {
			return nil, err
		}
	}
	c := &commit{t: t, id: uuid.NewString(), texts: texts}
	if c.deletes, err = t.stageDeletes(ctx, nil); err != nil {
		return nil, err
	}
	t.lake.hook(AfterData)
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	t.lake.hook(AfterCommit)
	for p, text := range texts {
		t.marks[p] = text
	}
	t.staleStored()
	if err := t.indexed(ctx, c); err != nil {
		return nil, err
	}
	t.lake.hook(AfterIndex)
	t.report(c)
	t.reset()
	return out, nil
}

// idle reports whether there is nothing to commit.
func (t *Table) idle(texts map[int32]string) bool {
	if len(texts) > 0 {
		return false
	}
	for _, p := range t.parts {
		if len(p.drops)+p.pending.len() > 0 {
			return false
		}
	}
	return len(t.done) == 0
}

// countMarks adds what this interval delivered and superseded to the marks.
func (t *Table) countMarks(marks map[int32]record.Mark) (map[int32]record.Mark, map[int32]string, error) {
	delivered := map[int32]int64{}
	for _, f := range t.done {
		delivered[f.partition] += f.rows
	}
	out := maps.Clone(marks)
	if out == nil {
		out = map[int32]record.Mark{}
	}
	for n, p := range t.parts {
		m, ok := out[n]
		if !ok {
			if p.written == 0 {
				continue
			}
			return nil, nil, fmt.Errorf("flush %s: no mark for partition %d, of which records were written", t.cfg.Table, n)
		}
		d := delivered[n]
		if !t.appends() {
			d = int64(p.pending.len())
		}
		m.Counts.Delivered += d - p.markers
		m.Counts.Superseded += p.written - d
		out[n] = m
	}
	texts := map[int32]string{} // only what moved: an old mark must not undo another writer's
	for n, m := range out {
		b, err := json.Marshal(m)
		if err != nil {
			return nil, nil, fmt.Errorf("flush %s: spell mark: %w", t.cfg.Table, err)
		}
		if text := string(b); text != t.marks[n] {
			texts[n] = text
		}
	}
	return out, texts, nil
}

// commit is one atomic change of the table.
type commit struct {
	t       *Table
	id      string
	texts   map[int32]string // marks after the commit
	deletes *deleteSet
	removed []iceberg.DataFile // data files that a truncate or a backfill takes away
	parent  int64              // snapshot it was staged on
	asked   bool               // that it landed was read from the table: others may have committed since
}

// run commits, however often it takes. The error value of a commit does not
// tell whether it landed, so after any error the table itself is asked.
func (c *commit) run(ctx context.Context) error {
	t := c.t
	var last error
	begun := t.lake.now()
	for try := range commitTries {
		if err := t.pause(ctx, try); err != nil {
			return errors.Join(err, last)
		}
		if try > 0 {
			done, err := c.look(ctx)
			if done {
				t.board.Unknown.Add(1)
				t.board.CommitTime.Observe(t.lake.now().Sub(begun).Seconds())
			}
			if done || err != nil && !transient(err) {
				return err
			}
			if err != nil {
				last = err
			}
			if hopeless(last) {
				break
			}
			if err != nil {
				continue
			}
		}
		tbl, err := c.attempt(ctx)
		if err == nil {
			t.adopt(c, tbl)
			t.board.CommitTime.Observe(t.lake.now().Sub(begun).Seconds())
			return nil
		}
		last = err
		t.log.Info("the commit was refused or its outcome is not known; looking at the table", "try", try+1, "error", err)
	}
	return fmt.Errorf("commit to %s: %w", t.cfg.Table, last)
}

// transient reports whether another try may help.
func transient(err error) bool {
	return !errors.Is(err, record.ErrFenced) && !errors.Is(err, errStaged)
}

// hopeless reports whether another try here would only hide what is wrong:
// people must remove the reason, or the store or the catalog is away. Then the
// caller shows the reason, and comes back later and with longer pauses.
func hopeless(err error) bool {
	var e *objects.Error
	if errors.As(err, &e) {
		away := e.Status == 0 || e.Status == http.StatusTooManyRequests || e.Status >= http.StatusInternalServerError
		return away || errors.Is(e, objects.ErrForbidden) || e.Code == "NoSuchBucket"
	}
	var network *net.OpError
	return errors.As(err, &network)
}

// errStaged marks an error of our own staging, which every try would repeat.
var errStaged = errors.New("stage the commit")

// look asks the table after a failed try: did it land, did another writer take
// over, or is the same to be tried on what is there now.
func (c *commit) look(ctx context.Context) (done bool, err error) {
	t := c.t
	before := snapshotID(t.tbl)
	if err := t.reload(ctx); err != nil {
		return false, err
	}
	if c.landed() {
		t.files, c.asked = nil, true
		return true, nil
	}
	if err := t.checkMarks(maps.Keys(c.texts)); err != nil {
		t.board.Conflicts.Add(1)
		return false, err
	}
	if snapshotID(t.tbl) == before {
		return false, nil
	}
	t.board.Conflicts.Add(1)
	// Another partition's writer or maintenance moved the table. Our rows are
	// still true; which rows they replace must be asked again.
	if t.index != nil && t.heldPlan != nil {
		if err := t.syncIndex(ctx, t.heldPlan); err != nil {
			return false, err
		}
	}
	c.deletes, err = t.stageDeletes(ctx, c.deletes)
	return false, err
}

// landed reports whether this commit is in the table.
func (c *commit) landed() bool {
	t := c.t
	if c.hasFiles() {
		for _, s := range t.tbl.Metadata().Snapshots() {
			if s.Summary != nil && s.Summary.Properties[summaryCommit] == c.id {
				return true
			}
		}
		return false
	}
	for p, text := range c.texts {
		if t.tbl.Properties()[t.markKey(p)] != text {
			return false
		}
	}
	return true
}

func (c *commit) hasFiles() bool {
	return len(c.t.done)+len(c.deletes.files)+len(c.removed) > 0
}

// checkMarks reports whether the stored marks of parts are those this writer
// started from. Invariant 11: the loser of two writers is fenced by the table itself.
func (t *Table) checkMarks(parts iter.Seq[int32]) error {
	if t.lake.cfg.Unsafe.NoMarks {
		return nil
	}
	props := t.tbl.Properties()
	for p := range parts {
		if props[t.markKey(p)] != t.marks[p] {
			return fmt.Errorf("table %s, partition %d of %s: %w", t.cfg.Table, p, t.cfg.Topic, record.ErrFenced)
		}
	}
	return nil
}

// attempt stages the commit on the table as last seen and sends it.
func (c *commit) attempt(ctx context.Context) (*table.Table, error) {
	t := c.t
	if t.lake.cfg.Unsafe.NoPin {
		if err := t.reload(ctx); err != nil {
			return nil, err
		}
	}
	c.parent = snapshotID(t.tbl)
	tx := t.tbl.NewTransaction()
	if !t.lake.cfg.Unsafe.NoPin {
		// Invariant 11: on any other snapshot than the one our marks and
		// deletes were checked against, the commit is refused.
		if err := tx.AssertRefSnapshotID(""); err != nil {
			return nil, err
		}
	}
	summary := c.summary()
	var drops []drop
	for _, p := range t.parts {
		drops = append(drops, p.drops...)
	}
	c.removed = nil
	if len(drops) > 0 {
		set, err := t.fileSet(ctx)
		if err != nil {
			return nil, err
		}
		data, deletes, err := set.dropped(t.cfg.Topic, drops)
		if err != nil {
			return nil, errors.Join(errStaged, err)
		}
		if c.removed = data; len(data) > 0 {
			if err := tx.ReplaceFiles(ctx, data, nil, deletes, summary, table.WithoutAutoNameMapping()); err != nil {
				return nil, fmt.Errorf("drop %d files of %s: %w", len(data), t.cfg.Table, err)
			}
		}
	}
	if len(t.done)+len(c.deletes.files) > 0 {
		delta := tx.NewRowDelta(summary)
		for _, f := range t.done {
			delta.AddRows(f.meta)
		}
		delta.AddDeletes(c.deletes.files...)
		if err := delta.Commit(ctx); err != nil {
			return nil, fmt.Errorf("stage rows of %s: %w", t.cfg.Table, err)
		}
	}
	if !t.lake.cfg.Unsafe.NoMarks {
		// Invariant 2: the offsets change in the same atomic write as the rows.
		props := iceberg.Properties{}
		for p, text := range c.texts {
			props[t.markKey(p)] = text
		}
		maps.Copy(props, t.staleTexts())
		if err := tx.SetProperties(props); err != nil {
			return nil, err
		}
	}
	return tx.Commit(ctx)
}

func (c *commit) summary() iceberg.Properties {
	t := c.t
	s := iceberg.Properties{summaryCommit: c.id, summaryPipeline: t.lake.cfg.Pipeline}
	if t.schema != "" {
		s[summarySchema] = t.schema
	}
	if t.mapping != "" {
		s[summaryMapping] = t.mapping
	}
	if t.sourceUS > 0 {
		s[summarySourceMS] = strconv.FormatInt(t.sourceUS/1000, 10)
	}
	for p, text := range c.texts {
		s[t.markKey(p)] = text
	}
	return s
}

// adopt takes the committed table as the current one.
func (t *Table) adopt(c *commit, tbl *table.Table) {
	parent := snapshotID(t.tbl)
	t.tbl = tbl
	if t.files == nil || t.files.snapshot != parent {
		t.files = nil
		return
	}
	s := tbl.CurrentSnapshot()
	if s == nil {
		return
	}
	for _, f := range c.removed {
		delete(t.files.data, f.FilePath())
	}
	if len(c.removed) > 0 {
		t.files = nil // their delete files went with them
		return
	}
	for _, f := range t.done {
		t.files.data[f.path] = fileInfo{file: f.meta, seq: s.SequenceNumber}
	}
	for _, f := range c.deletes.files {
		t.files.deletes = append(t.files.deletes, deleteInfo{file: f, seq: s.SequenceNumber})
	}
	t.files.snapshot = s.SnapshotID
}

// indexed tells the key index about the commit.
func (t *Table) indexed(ctx context.Context, c *commit) error {
	if t.index == nil || t.heldPlan == nil {
		return nil
	}
	want := t.stamp(t.heldPlan)
	if c.asked || t.index.Stamp().Snapshot != c.parent {
		return t.syncIndex(ctx, t.heldPlan)
	}
	if t.index.Stamp() == want {
		return nil
	}
	change := t.change(c.deletes, c.removed)
	change.Stamp = want
	if err := t.index.Apply(change); err != nil {
		return fmt.Errorf("tell the key index of %s about snapshot %d: %w", t.cfg.Table, want.Snapshot, err)
	}
	return nil
}

// report shows the commit on the board.
func (t *Table) report(c *commit) {
	id := "offsets only"
	if s := t.tbl.CurrentSnapshot(); s != nil && c.hasFiles() {
		id = strconv.FormatInt(s.SnapshotID, 10)
	}
	t.board.Committed(id, t.lake.now())
	t.board.Files.Add(int64(len(t.done)))
	if t.sourceUS > 0 {
		t.board.SourceMicros.Store(t.sourceUS)
	}
	if t.oldestUS > 0 {
		t.board.Freshness.Observe(float64(t.lake.now().UnixMicro()-t.oldestUS) / 1e6)
	}
}
