package lake

import (
	"context"
	"fmt"
	"iter"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go/table"
	"github.com/sluice-data/sluice/lake/keyindex"
	"github.com/sluice-data/sluice/record"
)

// keyFormat is the version of record.AppendCanonical; another one makes every
// key index useless.
const keyFormat = 1

// More added rows than this are cheaper to rebuild from than to catch up with,
// and they would be in memory all at once.
const catchUpRows = 2_000_000

func resolve(x *keyindex.Index, keys []keyindex.Hash) ([]keyindex.Location, []bool) {
	where, found := make([]keyindex.Location, len(keys)), make([]bool, len(keys))
	x.Resolve(keys, where, found)
	return where, found
}

func (t *Table) hashesOf(refs []rowRef) []keyindex.Hash {
	out := make([]keyindex.Hash, len(refs))
	for i, r := range refs {
		out[i] = t.held[r.held].hashes[r.row]
	}
	return out
}

// openIndex opens the key index and brings it to the current snapshot.
func (t *Table) openIndex(ctx context.Context, p *plan) error {
	if t.index == nil {
		x, err := keyindex.Open(t.lake.indexDir(t.cfg.Table, t.cfg.Topic), keyindex.Options{Logger: t.log})
		if err != nil {
			return fmt.Errorf("open the key index of %s: %w", t.cfg.Table, err)
		}
		t.index = x
		if why := x.Discarded(); why != nil {
			t.log.Warn("the key index was not usable and is made anew", "error", why)
		}
	}
	return t.syncIndex(ctx, p)
}

func (t *Table) stamp(p *plan) keyindex.Stamp {
	return stampOf(t.tbl, p)
}

func stampOf(tbl *table.Table, p *plan) keyindex.Stamp {
	return keyindex.Stamp{TableUUID: tbl.Metadata().TableUUID().String(), Snapshot: snapshotID(tbl),
		KeyFields: p.ids, Format: keyFormat}
}

// syncIndex makes the index know the current snapshot: by what changed since
// the one it knows, or from the whole table.
func (t *Table) syncIndex(ctx context.Context, p *plan) error {
	have, want := t.index.Stamp(), t.stamp(p)
	if have == want {
		return nil
	}
	set, err := t.fileSet(ctx)
	if err != nil {
		return err
	}
	since, ok := t.ancestor(have, want)
	if ok {
		if ok, err = t.catchUp(ctx, p, set, since); err != nil {
			return fmt.Errorf("bring the key index of %s up to date: %w", t.cfg.Table, err)
		}
	}
	if ok {
		return nil
	}
	t.log.Info("rebuilding the key index", "files", len(set.data))
	dead, err := t.deletedRows(ctx, set, -1)
	if err != nil {
		return err
	}
	if err := t.index.Rebuild(want, t.indexedFiles(ctx, p, set.ordered(), dead)); err != nil {
		return fmt.Errorf("rebuild the key index of %s: %w", t.cfg.Table, err)
	}
	return nil
}

// ancestor reports whether the index's snapshot is an ancestor of the current
// one, and its sequence number.
func (t *Table) ancestor(have, want keyindex.Stamp) (int64, bool) {
	snapshot := have.Snapshot
	have.Snapshot = want.Snapshot
	if have != want {
		return 0, false // another table, other keys
	}
	if snapshot == 0 {
		return -1, true
	}
	meta := t.tbl.Metadata()
	for id := want.Snapshot; ; {
		s := meta.SnapshotByID(id)
		switch {
		case s == nil:
			return 0, false
		case id == snapshot:
			return s.SequenceNumber, true
		case s.ParentSnapshotID == nil:
			return 0, false
		}
		id = *s.ParentSnapshotID
	}
}

// catchUp tells the index the difference between the files it knows and those
// of the table; false = there is too much of it.
func (t *Table) catchUp(ctx context.Context, p *plan, set *fileSet, since int64) (bool, error) {
	change := keyindex.Change{Stamp: t.stamp(p)}
	known := map[string]keyindex.File{}
	for f := range t.index.Files() {
		if _, ok := set.data[f.Path]; ok {
			known[f.Path] = f
		} else {
			change.RemovedFiles = append(change.RemovedFiles, f.Path)
		}
	}
	var added []fileInfo
	rows := int64(0)
	for _, f := range set.ordered() {
		if _, ok := known[f.file.FilePath()]; !ok {
			added = append(added, f)
			rows += f.file.Count()
		}
	}
	if rows > catchUpRows {
		return false, nil
	}
	dead, err := t.deletedRows(ctx, set, since)
	if err != nil {
		return false, err
	}
	for path, f := range known {
		if bits := dead[path]; bits != nil {
			change.Deletes = append(change.Deletes, keyindex.Delete{File: f.ID, Positions: bits.ToArray()})
		}
	}
	for f, err := range t.indexedFiles(ctx, p, added, dead) {
		if err != nil {
			return false, err
		}
		change.Added = append(change.Added, f)
	}
	return true, t.index.Apply(change)
}

// indexedFiles reads the keys of data files.
func (t *Table) indexedFiles(ctx context.Context, p *plan, files []fileInfo, dead map[string]*roaring.Bitmap) iter.Seq2[keyindex.AddedFile, error] {
	return func(yield func(keyindex.AddedFile, error) bool) {
		for _, f := range files {
			path := f.file.FilePath()
			keys, err := t.readKeys(ctx, p, path, f.file.Count())
			_, o, _ := parseFileName(path)
			if !yield(keyindex.AddedFile{Path: path, Rows: f.file.Count(), Partition: o.partition, Keys: keys, Deleted: dead[path]}, err) || err != nil {
				return
			}
		}
	}
}

// readKeys returns the key hash of each row of a data file; a row without a
// whole key has the zero hash.
func (t *Table) readKeys(ctx context.Context, p *plan, path string, rows int64) ([]keyindex.Hash, error) {
	keys := make([]keyindex.Hash, 0, rows)
	ids := make([]int, len(p.keys))
	for i, k := range p.keys {
		ids[i] = p.file.Field(k).ID
	}
	var cells []*record.Vector
	for _, k := range p.keys {
		cells = append(cells, record.NewVector(&p.schema.Fields[k]))
	}
	var key []byte
	err := t.scanFile(ctx, path, ids, nil, func(_, n int64, columns []arrow.Array) error {
		for i := range cells {
			cells[i].Reset()
		}
		for row := range int(n) {
			key = key[:0]
			whole := true
			for i, k := range p.keys {
				f := &p.schema.Fields[k]
				if err := appendCell(cells[i], f, columns[i], row); err != nil {
					return err
				}
				whole = whole && cells[i].State[row] == record.Present
				key = record.AppendCanonical(key, f, cells[i], row)
			}
			if whole {
				keys = append(keys, t.index.Hash(key))
			} else {
				keys = append(keys, keyindex.Hash{})
			}
		}
		return nil
	})
	return keys, err
}
