package keyindex

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A run is a file of entries in hash order, one per hash, followed by a
// directory: for each value of the top bits the number of the first entry
// that has them, and one more for the end.
type run struct {
	runInfo
	f    *os.File
	data []byte // mapped: entries, then directory
	dir  []byte
}

// runInfo is what the MANIFEST says of a run.
type runInfo struct {
	Name    string
	Entries int64
	DirBits uint
	Bytes   int64
	CRC     uint32 // of the whole file
}

// Entries per directory slot. Interpolation finds one within a slot, so the
// large base spends less on its directory.
const (
	baseSlotEntries = 32
	runSlotEntries  = 8
)

const writeBytes = 256 << 10

// runWriter writes a run; entries come in hash order.
type runWriter struct {
	f       *diskFile
	buf     []byte
	written int64
	crc     uint32
	n       int64
	bits    uint
	dir     []uint32
	filled  int // directory slots that are set
	last    entry
}

// newRunWriter starts a run of about estimate entries.
func newRunWriter(d *disk, name string, estimate, slotEntries int64) (*runWriter, error) {
	f, err := d.create(name)
	if err != nil {
		return nil, err
	}
	bits := uint(1)
	for estimate>>bits > slotEntries {
		bits++
	}
	return &runWriter{f: f, bits: bits, dir: make([]uint32, 1<<bits+1), buf: make([]byte, 0, writeBytes+entryBytes)}, nil
}

func (w *runWriter) add(e *entry) error {
	if w.n > 0 && !w.last.before(e) {
		return errors.New("entries out of order")
	}
	if w.n == math.MaxUint32 {
		return errors.New("more than 4294967295 keys")
	}
	w.last = *e
	for slot := int(e.h0 >> (32 - w.bits)); w.filled <= slot; w.filled++ {
		w.dir[w.filled] = uint32(w.n)
	}
	w.n++
	w.buf = w.buf[:len(w.buf)+entryBytes]
	e.put(w.buf[len(w.buf)-entryBytes:])
	if len(w.buf) >= writeBytes {
		return w.flush()
	}
	return nil
}

func (w *runWriter) flush() error {
	if err := w.f.writeAt(w.buf, w.written); err != nil {
		return err
	}
	w.crc = crc32.Update(w.crc, castagnoli, w.buf)
	w.written += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// finish completes the file and makes it durable.
func (w *runWriter) finish() (runInfo, error) {
	for ; w.filled < len(w.dir); w.filled++ {
		w.dir[w.filled] = uint32(w.n)
	}
	for _, first := range w.dir {
		w.buf = binary.LittleEndian.AppendUint32(w.buf, first)
		if len(w.buf) >= writeBytes {
			if err := w.flush(); err != nil {
				return runInfo{}, err
			}
		}
	}
	if err := w.flush(); err != nil {
		return runInfo{}, err
	}
	if err := w.f.sync(); err != nil {
		return runInfo{}, err
	}
	info := runInfo{Name: w.f.name, Entries: w.n, DirBits: w.bits, Bytes: w.written, CRC: w.crc}
	return info, w.f.f.Close()
}

// writeRun writes sorted entries as a run and opens it.
func writeRun(d *disk, name string, es []entry) (*run, error) {
	w, err := newRunWriter(d, name, int64(len(es)), runSlotEntries)
	if err != nil {
		return nil, err
	}
	for i := range es {
		if err := w.add(&es[i]); err != nil {
			w.f.discard()
			return nil, err
		}
	}
	info, err := w.finish()
	if err != nil {
		w.f.discard()
		return nil, err
	}
	r, err := openRun(d, info, false)
	if err != nil {
		d.remove(name)
	}
	return r, err
}

// openRun maps a run. With verify it reads all of it, in order: that is also
// what makes the first lookups cheap, because random faults on a cold file
// cost 30 times as much.
func openRun(d *disk, info runInfo, verify bool) (*run, error) {
	if info.DirBits < 1 || info.DirBits > 31 || info.Entries < 1 ||
		info.Bytes != info.Entries*entryBytes+(1<<info.DirBits+1)*4 {
		return nil, fmt.Errorf("%w: %s: impossible sizes", errDamaged, info.Name)
	}
	f, err := os.Open(d.path(info.Name))
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.Size() != info.Bytes {
		err = fmt.Errorf("%w: %s has %d bytes, not %d", errDamaged, info.Name, st.Size(), info.Bytes)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Bytes), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("map %s: %w", info.Name, err)
	}
	r := &run{runInfo: info, f: f, data: data, dir: data[info.Entries*entryBytes:]}
	if verify && crc32.Checksum(data, castagnoli) != info.CRC {
		r.close()
		return nil, fmt.Errorf("%w: checksum of %s", errDamaged, info.Name)
	}
	// Advice only: lookups touch single pages.
	_ = unix.Madvise(data, unix.MADV_RANDOM)
	return r, nil
}

func (r *run) close() {
	if r.data != nil {
		_ = unix.Munmap(r.data)
		r.f.Close()
		r.data, r.dir = nil, nil
	}
}

// guess returns the entries that may hold the hash of k, [lo, end), and the
// likely place among them: the directory gives the slot, interpolation the
// place in it.
func (r *run) guess(k *entry) (lo, i, end uint64) {
	slot := k.h0 >> (32 - r.DirBits)
	lo = uint64(binary.LittleEndian.Uint32(r.dir[4*slot:]))
	end = uint64(binary.LittleEndian.Uint32(r.dir[4*slot+4:]))
	return lo, lo + (end-lo)*(k.hi()<<r.DirBits>>32)>>32, end
}

// touch reads where find will look first for each of keys. These reads do not
// wait for each other as those of one find after another do.
func (r *run) touch(keys []entry) (sum byte) {
	for i := range keys {
		if lo, at, end := r.guess(&keys[i]); lo < end {
			sum ^= r.data[at*entryBytes]
		}
	}
	return sum
}

// find looks the hash of k up.
func (r *run) find(k *entry) (Location, bool) {
	hi, h2 := k.hi(), k.h2
	lo, i, end := r.guess(k)
	if lo >= end {
		return Location{}, false
	}
	for i > lo && r.compare(i, hi, h2) > 0 {
		i--
	}
	for ; i < end; i++ {
		switch c := r.compare(i, hi, h2); {
		case c == 0:
			b := r.data[i*entryBytes+12 : i*entryBytes+entryBytes]
			return Location{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])}, true
		case c > 0:
			return Location{}, false
		}
	}
	return Location{}, false
}

// compare orders entry i against a hash.
func (r *run) compare(i, hi uint64, h2 uint32) int {
	b := r.data[i*entryBytes : i*entryBytes+12]
	switch a := binary.BigEndian.Uint64(b); {
	case a < hi:
		return -1
	case a > hi:
		return 1
	}
	switch a := binary.BigEndian.Uint32(b[8:]); {
	case a < h2:
		return -1
	case a > h2:
		return 1
	}
	return 0
}

// cursor reads a run in order, by plain reads: mapped pages of a cold file
// would be faulted in one by one.
type cursor struct {
	r    *run
	next int64 // offset of what is not in buf yet
	buf  []byte
	rest []byte // of buf
}

func newCursor(r *run, bufBytes int) *cursor {
	return &cursor{r: r, buf: make([]byte, max(bufBytes/entryBytes, 1)*entryBytes)}
}

// read returns the next entry, and false at the end.
func (c *cursor) read() (entry, bool, error) {
	if len(c.rest) == 0 {
		left := c.r.Entries*entryBytes - c.next
		if left == 0 {
			return entry{}, false, nil
		}
		b := c.buf[:min(left, int64(len(c.buf)))]
		if _, err := c.r.f.ReadAt(b, c.next); err != nil && err != io.EOF {
			return entry{}, false, fmt.Errorf("read %s: %w", c.r.Name, err)
		}
		c.next += int64(len(b))
		c.rest = b
	}
	e := readEntry(c.rest)
	c.rest = c.rest[entryBytes:]
	return e, true, nil
}
