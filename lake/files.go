package lake

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"golang.org/x/sync/errgroup"
)

// How many small objects are read or written side by side.
const parallel = 8

// fileSet is what one snapshot holds.
type fileSet struct {
	snapshot int64 // 0 = none
	data     map[string]fileInfo
	deletes  []deleteInfo
}

// fileInfo is one live data file.
type fileInfo struct {
	file iceberg.DataFile
	seq  int64 // data sequence number
}

// deleteInfo is one live delete file.
type deleteInfo struct {
	file iceberg.DataFile
	seq  int64
}

func snapshotID(tbl *table.Table) int64 {
	if s := tbl.CurrentSnapshot(); s != nil {
		return s.SnapshotID
	}
	return 0
}

// fileSet returns the files of the current snapshot; it reads every manifest
// unless the last commit was our own.
func (t *Table) fileSet(ctx context.Context) (*fileSet, error) {
	if t.files != nil && t.files.snapshot == snapshotID(t.tbl) {
		return t.files, nil
	}
	fs, err := readFileSet(ctx, &fileIO{store: t.lake.store, ctx: ctx}, t.tbl)
	if err != nil {
		return nil, fmt.Errorf("list the files of %s: %w", t.cfg.Table, err)
	}
	t.files = fs
	return fs, nil
}

func readFileSet(ctx context.Context, store *fileIO, tbl *table.Table) (*fileSet, error) {
	set := &fileSet{data: map[string]fileInfo{}}
	s := tbl.CurrentSnapshot()
	if s == nil {
		return set, nil
	}
	set.snapshot = s.SnapshotID
	manifests, err := s.Manifests(store)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	g, _ := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, m := range manifests {
		g.Go(func() error {
			for e, err := range m.Entries(store, true) {
				if err != nil {
					return err
				}
				mu.Lock()
				if f := e.DataFile(); f.ContentType() == iceberg.EntryContentData {
					set.data[f.FilePath()] = fileInfo{file: f, seq: e.SequenceNum()}
				} else {
					set.deletes = append(set.deletes, deleteInfo{file: f, seq: e.SequenceNum()})
				}
				mu.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(set.deletes, func(x, y deleteInfo) int {
		return cmp.Or(cmp.Compare(x.seq, y.seq), cmp.Compare(x.file.FilePath(), y.file.FilePath()))
	})
	return set, nil
}

// ordered returns the data files by age.
func (s *fileSet) ordered() []fileInfo {
	files := make([]fileInfo, 0, len(s.data))
	for _, f := range s.data {
		files = append(files, f)
	}
	slices.SortFunc(files, func(x, y fileInfo) int {
		return cmp.Or(cmp.Compare(x.seq, y.seq), cmp.Compare(x.file.FilePath(), y.file.FilePath()))
	})
	return files
}

// dropped returns the files that drops take away, and the delete files that
// speak only of them.
func (s *fileSet) dropped(topic string, drops []drop) (data, deletes []iceberg.DataFile, err error) {
	hash := topicHash(topic)
	gone := map[string]bool{}
	for _, f := range s.ordered() {
		path := f.file.FilePath()
		of, o, ok := parseFileName(path)
		if !ok {
			return nil, nil, fmt.Errorf("drop rows of a truncate or an older backfill: data file %s was written by another program, "+
				"so its rows' Kafka partition is not known; run sluice backfill into a new table", path)
		}
		if of == hash && slices.ContainsFunc(drops, func(d drop) bool { return d.hits(o) }) {
			gone[path] = true
			data = append(data, f.file)
		}
	}
	for _, d := range s.deletes {
		if ref := d.file.ReferencedDataFile(); ref != nil && gone[*ref] {
			deletes = append(deletes, d.file)
		}
	}
	return data, deletes, nil
}

// deletedRows reads the positions that the delete files with a sequence number
// above since take away, by data file.
func (t *Table) deletedRows(ctx context.Context, set *fileSet, since int64) (map[string]*roaring.Bitmap, error) {
	out := map[string]*roaring.Bitmap{}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, d := range set.deletes {
		if d.seq <= since || d.file.ContentType() != iceberg.EntryContentPosDeletes {
			continue
		}
		g.Go(func() error {
			return t.readDeletes(ctx, d.file.FilePath(), func(path string, pos int64) {
				mu.Lock()
				defer mu.Unlock()
				// A delete file does not speak of files that are younger than it.
				if f, ok := set.data[path]; !ok || f.seq > d.seq {
					return
				}
				if out[path] == nil {
					out[path] = roaring.New()
				}
				out[path].Add(uint32(pos))
			})
		})
	}
	return out, g.Wait()
}
