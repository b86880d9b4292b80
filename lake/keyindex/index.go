// Package keyindex remembers on local disk where the live row of each key of
// a table is: in which data file, at which position. It is a cache that can be
// rebuilt from the table: it may be behind the table, never ahead of it.
//
// An index is a folder: immutable sorted runs of key hashes, a table of data
// files with the positions deleted in them, a log of the changes since, and a
// MANIFEST that names them and is replaced by rename. An entry is live while
// its file is and its position is not deleted, so runs hold no tombstones.
package keyindex

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"

	"github.com/RoaringBitmap/roaring/v2"
	"golang.org/x/sys/unix"
)

// Location is the place of a row: a data file and the row's position in it,
// counted from 0.
type Location struct{ File, Pos uint32 }

// Stamp says what an index speaks of. The zero Stamp is that of an empty index
// that never heard of a table.
type Stamp struct {
	TableUUID string
	Snapshot  int64
	KeyFields string // the caller's spelling of the key columns
	Format    int    // the caller's version of its key encoding
}

// Options of an index. The zero value is good.
type Options struct {
	// MemtableEntries is how many entries are held in memory before they
	// become a run; 24 to 48 bytes each. Default 700,000.
	MemtableEntries int
	Logger          *slog.Logger // default: slog.Default()

	fault        func(op, name string) error // fails operations on disk, for tests
	volatile     bool                        // tests do not pull the plug: nothing waits for the disk
	chunkEntries int                         // entries sorted at once by Rebuild
}

const (
	// A table of 2^20 slots at most 7/10 full: 21 MB.
	defaultMemtableEntries = 700_000
	// 20 MB, and as much again while it is sorted.
	defaultChunkEntries = 1 << 20
)

// Index is an open index. One goroutine uses it; only Hash may be called from
// several.
type Index struct {
	disk     *disk
	lock     *os.File
	opts     Options
	log      *slog.Logger
	seed     uint64
	stamp    Stamp
	manifest manifest // as on disk: older than stamp by what the log holds
	runs     []*run   // oldest first
	mem      *memtable
	files    *fileTable
	wal      *wal
	merge    *merge // the one under way, or nil
	nextName uint64
	order    sorter // memory of Resolve and Apply
	payload  []byte // memory of Apply
	pending  []entry
	touched  byte // keeps the reads of run.touch from being optimised away

	discarded error
	broken    error // set when nobody knows which MANIFEST the disk holds
	closed    bool
}

// Open opens the index in dir, or makes an empty one, and locks dir until
// Close. An index that is damaged or of another format is emptied: Stamp is
// then zero and Discarded says why. Errors are those of the disk and a dir
// that another process has open.
func Open(dir string, o Options) (*Index, error) {
	if o.MemtableEntries <= 0 {
		o.MemtableEntries = defaultMemtableEntries
	}
	if o.chunkEntries <= 0 {
		o.chunkEntries = defaultChunkEntries
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("key index: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	x := &Index{disk: &disk{dir: dir, fault: o.fault, volatile: o.volatile}, lock: lock, opts: o, log: o.Logger}
	err = x.load()
	if errors.Is(err, errDamaged) || errors.Is(err, fs.ErrNotExist) {
		x.discarded = err
		x.log.Warn("key index discarded, it will be rebuilt from the table", "dir", dir, "reason", err)
		x.release()
		err = x.reset()
	}
	if err != nil {
		x.release()
		lock.Close()
		return nil, fmt.Errorf("open key index %s: %w", dir, err)
	}
	return x, nil
}

// lockDir makes sure that one process at a time uses dir.
func lockDir(dir string) (*os.File, error) {
	lock, err := os.OpenFile(dir+"/LOCK", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("key index: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock key index %s: in use by another process: %w", dir, err)
	}
	return lock, nil
}

// Close stops the merge under way and releases the folder. What Apply took is
// in the log, so nothing is lost. Closing twice is fine.
func (x *Index) Close() error {
	if x.closed {
		return nil
	}
	x.closed = true
	x.cancelMerge()
	err := x.wal.sync()
	x.release()
	if e := x.lock.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("close key index %s: %w", x.disk.dir, err)
	}
	return nil
}

// release lets go of runs and log.
func (x *Index) release() {
	for _, r := range x.runs {
		r.close()
	}
	x.runs = nil
	if x.wal != nil {
		x.wal.close()
		x.wal = nil
	}
}

// Stamp says which state of which table the index knows.
func (x *Index) Stamp() Stamp { return x.stamp }

// Discarded says why Open threw away what it found; nil if it did not.
func (x *Index) Discarded() error { return x.discarded }

// File is a live data file.
type File struct {
	ID        uint32
	Path      string
	Rows      int64
	Partition int32           // of Kafka
	Deleted   *roaring.Bitmap // positions deleted; owned by the index, read-only
}

// FileID returns the id of a live file. An id is never used for another file.
func (x *Index) FileID(path string) (uint32, bool) {
	id, ok := x.files.byPath[path]
	return id, ok
}

// FilePath returns the path of a live file, "" for any other id.
func (x *Index) FilePath(id uint32) string {
	if f := x.files.byID[id]; f != nil {
		return f.Path
	}
	return ""
}

// File returns a live file by its id.
func (x *Index) File(id uint32) (File, bool) {
	if f := x.files.byID[id]; f != nil {
		return *f, true
	}
	return File{}, false
}

// Files goes over the live files in the order in which they were added.
func (x *Index) Files() iter.Seq[File] { return x.files.all() }

// Stats are the sizes of an index.
type Stats struct {
	Entries       int64 // in runs and memtable; superseded ones count until they are merged away
	Runs          int
	Files         int   // live
	DiskBytes     int64 // runs, log and file table
	LogBytes      int64
	MemtableBytes int64
	Duplicates    int64 // live rows that the last Rebuild found to have a newer row of the same key
}

// Stats returns the sizes of the index.
func (x *Index) Stats() Stats {
	s := Stats{
		Entries:       int64(x.mem.n),
		Runs:          len(x.runs),
		Files:         len(x.files.byID),
		LogBytes:      x.wal.size,
		DiskBytes:     x.wal.size + x.manifest.Files.Bytes,
		MemtableBytes: int64(cap(x.mem.slots)) * entryBytes,
		Duplicates:    x.manifest.Duplicates,
	}
	for _, r := range x.runs {
		s.Entries += r.Entries
		s.DiskBytes += r.Bytes
	}
	return s
}
