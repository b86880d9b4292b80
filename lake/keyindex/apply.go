package keyindex

import (
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// AddedFile is a data file that a snapshot added.
type AddedFile struct {
	Path      string
	Rows      int64
	Partition int32           // of Kafka
	Keys      []Hash          // by row position; the zero Hash is a row without key; nil: no row has one
	Deleted   *roaring.Bitmap // positions that are deleted already, or nil
}

// Delete says which rows of a live file a snapshot deleted.
type Delete struct {
	File      uint32
	Positions []uint32
}

// Change is what one snapshot, or several, did to the table. Deletes come
// first, then the removed files, then the added ones. Where the index knew a
// key, the row in an added file takes its place unless it is in Deleted: a
// compaction that moves a row which was superseded meanwhile must say so.
type Change struct {
	Stamp        Stamp // of the table after the change
	Added        []AddedFile
	RemovedFiles []string
	Deletes      []Delete
}

// Apply takes over a change after the catalog said that it is committed. After
// an error the index is as it was, at its old stamp, and Apply may be called
// again, unless the change itself does not fit what the index knows. Apply
// keeps nothing of c.
func (x *Index) Apply(c Change) error {
	if err := x.apply(c); err != nil {
		return fmt.Errorf("apply snapshot %d to key index: %w", c.Stamp.Snapshot, err)
	}
	return nil
}

func (x *Index) apply(c Change) error {
	if x.broken != nil {
		return x.broken
	}
	x.finishMerge(len(x.runs) >= maxRuns)
	r, err := x.plan(c)
	if err != nil {
		return err
	}
	n := r.keys()
	if n > x.opts.MemtableEntries {
		return x.applyAsRuns(r)
	}
	b, err := r.appendTo(append(x.payload[:0], make([]byte, logHeaderBytes)...))
	if err != nil {
		return err
	}
	if cap(b) <= 4<<20 {
		x.payload = b
	}
	// A small table never fills the memtable; its log has a limit too.
	logLimit := int64(x.opts.MemtableEntries)*32 + 1<<20
	if x.mem.n > 0 && x.mem.n+n > x.opts.MemtableEntries || x.wal.size > 0 && x.wal.size+int64(len(b)) > logLimit {
		if err := x.flush(); err != nil {
			return err
		}
	}
	if err := x.wal.append(b); err != nil {
		return err
	}
	x.take(r)
	return nil
}

// plan gives the change its file ids and checks it.
func (x *Index) plan(c Change) (*record, error) {
	r := &record{stamp: c.Stamp, next: x.files.next, deletes: c.Deletes}
	for _, path := range c.RemovedFiles {
		id, ok := x.files.byPath[path]
		if !ok {
			return nil, fmt.Errorf("remove file %s: not in the index", path)
		}
		r.removed = append(r.removed, id)
	}
	for i := range c.Added {
		r.added = append(r.added, x.files.newFile(r.next, &c.Added[i]))
		r.next++
	}
	return r, x.files.check(r)
}

// take applies a record that the log holds.
func (x *Index) take(r *record) {
	x.files.take(r)
	x.stamp = r.stamp
	n := 0
	for i := range r.added {
		n += len(r.added[i].keys)
	}
	es := slices.Grow(x.pending[:0], n)
	for i := range r.added {
		for e := range r.added[i].entries {
			es = append(es, e)
		}
	}
	x.order.sort(es)
	x.mem.reserve(len(es))
	for i := range es {
		x.mem.put(es[i])
	}
	x.keep(es)
}

// flush makes a run of the memtable and begins a new log.
func (x *Index) flush() error {
	runs, err := x.flushedRuns()
	if err != nil {
		return err
	}
	if err := x.swap(x.stamp, x.files, runs, x.manifest.Duplicates); err != nil {
		x.drop(runs)
		return err
	}
	x.startMerge()
	return nil
}

// flushedRuns returns the runs with one more that holds the memtable.
func (x *Index) flushedRuns() ([]*run, error) {
	runs := slices.Clip(x.runs)
	if x.mem.n == 0 {
		return runs, nil
	}
	r, err := writeRun(x.disk, x.name("run"), x.mem.sorted())
	if err != nil {
		return nil, err
	}
	return append(runs, r), nil
}

// drop removes those runs that the index did not adopt.
func (x *Index) drop(runs []*run) {
	for _, r := range runs {
		if !slices.Contains(x.runs, r) {
			r.close()
			if x.broken == nil {
				x.disk.remove(r.Name)
			}
		}
	}
}

// applyAsRuns applies a change that is larger than the memtable: its entries
// become runs at once, and the MANIFEST takes the place of the log record.
func (x *Index) applyAsRuns(r *record) error {
	runs, err := x.flushedRuns()
	if err != nil {
		return err
	}
	c := x.newChunks()
	for i := range r.added {
		if err = c.add(&r.added[i]); err != nil {
			break
		}
	}
	if err == nil {
		err = c.spill()
	}
	runs = append(runs, c.runs...)
	if err == nil {
		files := x.files.clone()
		files.take(r)
		err = x.swap(r.stamp, files, runs, x.manifest.Duplicates)
	}
	if err != nil {
		x.drop(runs)
		return err
	}
	x.startMerge()
	return nil
}
