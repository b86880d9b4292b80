package keyindex

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// record is a Change with its file ids, as the log holds it.
type record struct {
	stamp   Stamp
	next    uint32 // file id after this record
	deletes []Delete
	removed []uint32
	added   []newFile
}

func (r *record) keys() int {
	n := 0
	for i := range r.added {
		n += len(r.added[i].keys)
	}
	return n
}

// appendTo encodes the record.
func (r *record) appendTo(b []byte) ([]byte, error) {
	b = appendText(b, r.stamp.TableUUID)
	b = binary.AppendVarint(b, r.stamp.Snapshot)
	b = appendText(b, r.stamp.KeyFields)
	b = binary.AppendVarint(b, int64(r.stamp.Format))
	b = binary.AppendUvarint(b, uint64(r.next))
	b = binary.AppendUvarint(b, uint64(len(r.deletes)))
	for _, d := range r.deletes {
		b = binary.AppendUvarint(b, uint64(d.File))
		b = binary.AppendUvarint(b, uint64(len(d.Positions)))
		for _, pos := range d.Positions {
			b = binary.LittleEndian.AppendUint32(b, pos)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(r.removed)))
	for _, id := range r.removed {
		b = binary.AppendUvarint(b, uint64(id))
	}
	b = binary.AppendUvarint(b, uint64(len(r.added)))
	for i := range r.added {
		f := &r.added[i]
		var err error
		if b, err = appendFile(b, &f.File); err != nil {
			return nil, err
		}
		b = binary.AppendUvarint(b, uint64(len(f.keys)))
		b = slices.Grow(b, len(f.keys)*len(Hash{}))
		for _, h := range f.keys {
			b = append(b, h[:]...)
		}
	}
	return b, nil
}

func decodeRecord(b []byte) (*record, error) {
	d := &decoder{b: b}
	r := &record{}
	r.stamp = Stamp{TableUUID: d.text(), Snapshot: d.varint(), KeyFields: d.text(), Format: int(d.varint())}
	r.next = d.uint32()
	for range d.count(2) {
		del := Delete{File: d.uint32()}
		raw := d.take(d.count(4) * 4)
		del.Positions = make([]uint32, len(raw)/4)
		for i := range del.Positions {
			del.Positions[i] = binary.LittleEndian.Uint32(raw[4*i:])
		}
		r.deletes = append(r.deletes, del)
	}
	for range d.count(1) {
		r.removed = append(r.removed, d.uint32())
	}
	for range d.count(6) {
		f := newFile{File: d.file()}
		raw := d.take(d.count(len(Hash{})) * len(Hash{}))
		f.keys = make([]Hash, len(raw)/len(Hash{}))
		for i := range f.keys {
			copy(f.keys[i][:], raw[i*len(Hash{}):])
		}
		r.added = append(r.added, f)
	}
	return r, d.end()
}

// appendFile encodes a file, as log and file table hold it.
func appendFile(b []byte, f *File) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(f.ID))
	b = appendText(b, f.Path)
	b = binary.AppendUvarint(b, uint64(f.Rows))
	b = binary.AppendVarint(b, int64(f.Partition))
	if f.Deleted.IsEmpty() {
		return binary.AppendUvarint(b, 0), nil
	}
	raw, err := f.Deleted.ToBytes()
	if err != nil {
		return nil, err
	}
	b = binary.AppendUvarint(b, uint64(len(raw)))
	return append(b, raw...), nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads what the append functions wrote; after the first mistake it
// returns zero values.
type decoder struct {
	b   []byte
	err error
}

var errShort = errors.New("ends too early")

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.fail(errShort)
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uint32() uint32 {
	v := d.uvarint()
	if v > math.MaxUint32 {
		d.fail(errors.New("number too large"))
		return 0
	}
	return uint32(v)
}

// count reads how many things of at least size bytes follow, never more than
// there is room for.
func (d *decoder) count(size int) int {
	v := d.uvarint()
	if v > uint64(len(d.b)/size) {
		d.fail(errShort)
		return 0
	}
	return int(v)
}

func (d *decoder) text() string { return string(d.take(d.count(1))) }

func (d *decoder) file() File {
	f := File{ID: d.uint32(), Path: d.text(), Rows: int64(d.uvarint()), Partition: int32(d.varint()), Deleted: roaring.New()}
	if raw := d.take(d.count(1)); len(raw) > 0 {
		if err := f.Deleted.UnmarshalBinary(raw); err != nil {
			d.fail(err)
		}
	}
	return f
}

func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		return errors.New("too long")
	}
	return d.err
}

// wal is the log of the changes since the MANIFEST. It is not synced at each
// change: after a power failure the index is behind, which is allowed.
type wal struct {
	f    *diskFile
	size int64
	seq  uint64 // of the last record
}

// Each record begins with the length of its payload, a CRC of the rest of the
// header and the payload, and its number, counted from 1.
const logHeaderBytes = 4 + 4 + 8

// append adds a record. After an error the log is as it was: what a failed
// write left behind is not counted and is overwritten by the next one.
func (l *wal) append(b []byte) error {
	if len(b)-logHeaderBytes > math.MaxUint32 {
		return errors.New("change too large for the log")
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)-logHeaderBytes))
	binary.LittleEndian.PutUint64(b[8:], l.seq+1)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	if err := l.f.writeAt(b, l.size); err != nil {
		return err
	}
	l.size += int64(len(b))
	l.seq++
	return nil
}

func (l *wal) sync() error { return l.f.sync() }

func (l *wal) close() { l.f.f.Close() }

// openLog gives each whole record of a log to apply and cuts off the rest.
func openLog(d *disk, name string, apply func(payload []byte) error) (*wal, error) {
	f, err := os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	l := &wal{f: &diskFile{disk: d, name: name, f: f}}
	if err := l.replay(apply); err != nil {
		f.Close()
		return nil, err
	}
	if err := f.Truncate(l.size); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

func (l *wal) replay(apply func(payload []byte) error) error {
	st, err := l.f.f.Stat()
	if err != nil {
		return err
	}
	var buf []byte
	for {
		var head [logHeaderBytes]byte
		if st.Size()-l.size < logHeaderBytes {
			return nil
		}
		if _, err := l.f.f.ReadAt(head[:], l.size); err != nil {
			return err
		}
		n := int64(binary.LittleEndian.Uint32(head[:]))
		if n == 0 || n > st.Size()-l.size-logHeaderBytes || binary.LittleEndian.Uint64(head[8:]) != l.seq+1 {
			return nil
		}
		if int64(cap(buf)) < n {
			buf = make([]byte, n)
		}
		buf = buf[:n]
		if _, err := l.f.f.ReadAt(buf, l.size+logHeaderBytes); err != nil && err != io.EOF {
			return err
		}
		crc := crc32.Update(crc32.Checksum(head[8:], castagnoli), castagnoli, buf)
		if crc != binary.LittleEndian.Uint32(head[4:]) {
			return nil
		}
		if err := apply(buf); err != nil {
			return fmt.Errorf("%w: record %d of %s: %w", errDamaged, l.seq+1, l.f.name, err)
		}
		l.size += logHeaderBytes + n
		l.seq++
	}
}
