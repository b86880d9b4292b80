package keyindex

import (
	"fmt"
	"iter"
	"sync/atomic"
)

// Rebuild replaces what the index knows by the live files of the table at
// stamp, given in the order of their data sequence numbers: of two live rows
// of one key the later one wins, and Stats counts the other as a duplicate.
// It keeps nothing of a file after asking for the next one. After an error,
// also one that files yields, the index is as it was.
func (x *Index) Rebuild(stamp Stamp, files iter.Seq2[AddedFile, error]) error {
	if x.broken != nil {
		return x.broken
	}
	x.cancelMerge()
	c := x.newChunks()
	if err := x.rebuild(stamp, files, c); err != nil {
		x.drop(c.runs)
		return fmt.Errorf("rebuild key index at snapshot %d: %w", stamp.Snapshot, err)
	}
	return nil
}

func (x *Index) rebuild(stamp Stamp, files iter.Seq2[AddedFile, error], c *chunks) error {
	// Ids go on where they were: entries of merged runs cannot come to life.
	table := newFileTable(x.files.next)
	for a, err := range files {
		if err != nil {
			return err
		}
		r := &record{next: table.next + 1}
		r.added = []newFile{table.newFile(table.next, &a)}
		if err := table.check(r); err != nil {
			return err
		}
		table.take(r)
		if err := c.add(&r.added[0]); err != nil {
			return err
		}
	}
	if err := c.spill(); err != nil {
		return err
	}
	duplicates := c.superseded
	if len(c.runs) > 1 {
		base, superseded, err := mergeRuns(x.disk, x.name("run"), c.runs, baseSlotEntries, nil, &atomic.Bool{})
		if err != nil {
			return err
		}
		x.drop(c.runs)
		c.runs = []*run{base}
		duplicates += superseded
	}
	return x.swap(stamp, table, c.runs, duplicates)
}

// chunks turns entries in any order into sorted runs, in bounded memory.
type chunks struct {
	x          *Index
	es         []entry
	sorter     sorter
	runs       []*run
	superseded int64
}

func (x *Index) newChunks() *chunks { return &chunks{x: x} }

// add takes the entries of a file, in pieces.
func (c *chunks) add(f *newFile) error {
	for e := range f.entries {
		if len(c.es) == c.x.opts.chunkEntries {
			if err := c.spill(); err != nil {
				return err
			}
		}
		c.es = append(c.es, e)
	}
	return nil
}

// spill writes what was added since the last time as a run.
func (c *chunks) spill() error {
	if len(c.es) == 0 {
		return nil
	}
	c.sorter.sort(c.es)
	es, superseded := newestOfEach(c.es)
	r, err := writeRun(c.x.disk, c.x.name("run"), es)
	if err != nil {
		return err
	}
	c.superseded += superseded
	c.runs = append(c.runs, r)
	c.es = c.es[:0]
	return nil
}
