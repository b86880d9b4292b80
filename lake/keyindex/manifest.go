package keyindex

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

const (
	manifestName   = "MANIFEST"
	manifestFormat = 1
)

// errDamaged marks an index that cannot be used and is to be rebuilt.
var errDamaged = errors.New("damaged")

// manifest names the files of an index. It is replaced as a whole, by rename;
// the log holds what came after it.
type manifest struct {
	Format     int
	Seed       uint64
	Stamp      Stamp
	Runs       []runInfo // oldest first
	Files      fileRef   // the file table
	Log        string
	Duplicates int64
}

type fileRef struct {
	Name  string
	Bytes int64
	CRC   uint32
}

// encode returns a line with the checksum of the rest, and the rest.
func (m *manifest) encode() ([]byte, error) {
	body, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, "%08x\n", crc32.Checksum(body, castagnoli)), body...), nil
}

func decodeManifest(b []byte) (manifest, error) {
	var m manifest
	sum, body, ok := bytes.Cut(b, []byte("\n"))
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)) {
		return m, fmt.Errorf("%w: checksum of %s", errDamaged, manifestName)
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return m, fmt.Errorf("%w: %s: %w", errDamaged, manifestName, err)
	}
	if m.Format != manifestFormat {
		return m, fmt.Errorf("%w: format %d, this program knows %d", errDamaged, m.Format, manifestFormat)
	}
	return m, nil
}

// load reads the index that is on disk, or makes an empty one if there is none.
func (x *Index) load() error {
	b, err := os.ReadFile(x.disk.path(manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		names, err := x.disk.own()
		if err != nil {
			return err
		}
		// A crash inside the first Open leaves files without a MANIFEST.
		if slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "run-") }) {
			return fmt.Errorf("%w: no %s", errDamaged, manifestName)
		}
		return x.reset()
	}
	if err != nil {
		return err
	}
	m, err := decodeManifest(b)
	if err != nil {
		return err
	}
	x.manifest, x.seed, x.stamp = m, m.Seed, m.Stamp
	for _, info := range m.Runs {
		r, err := openRun(x.disk, info, true)
		if err != nil {
			return err
		}
		x.runs = append(x.runs, r)
	}
	if x.files, err = readFiles(x.disk, m.Files); err != nil {
		return err
	}
	x.mem = newMemtable()
	x.wal, err = openLog(x.disk, m.Log, func(payload []byte) error {
		r, err := decodeRecord(payload)
		if err != nil {
			return err
		}
		if err := x.files.check(r); err != nil {
			return err
		}
		x.take(r)
		return nil
	})
	if err != nil {
		return err
	}
	return x.removeOrphans()
}

// removeOrphans removes what an interrupted change left behind, and finds the
// first free file name.
func (x *Index) removeOrphans() error {
	names, err := x.disk.own()
	if err != nil {
		return err
	}
	used := x.manifest.names()
	for _, name := range names {
		if !slices.Contains(used, name) {
			x.disk.remove(name)
		}
		if _, number, ok := strings.Cut(name, "-"); ok {
			if n, err := strconv.ParseUint(number, 10, 64); err == nil {
				x.nextName = max(x.nextName, n+1)
			}
		}
	}
	return nil
}

func (m *manifest) names() []string {
	names := []string{manifestName, m.Files.Name, m.Log}
	for _, r := range m.Runs {
		names = append(names, r.Name)
	}
	return names
}

// reset makes the index empty, on disk too.
func (x *Index) reset() error {
	names, err := x.disk.own()
	if err != nil {
		return err
	}
	// Without its MANIFEST the rest is nothing, so that one goes first.
	if err := os.Remove(x.disk.path(manifestName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range names {
		x.disk.remove(name)
	}
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	x.seed = binary.LittleEndian.Uint64(seed[:])
	x.manifest, x.stamp = manifest{}, Stamp{}
	x.mem = newMemtable()
	return x.swap(Stamp{}, newFileTable(1), nil, 0)
}

// name returns a file name that was never used.
func (x *Index) name(kind string) string {
	x.nextName++
	return fmt.Sprintf("%s-%08d", kind, x.nextName-1)
}

// swap makes stamp, files and runs the state of the index, on disk with one
// rename, and empties memtable and log. After an error all is as before.
func (x *Index) swap(stamp Stamp, files *fileTable, runs []*run, duplicates int64) error {
	ref, err := writeFiles(x.disk, x.name("files"), files)
	if err != nil {
		return err
	}
	log, err := x.disk.create(x.name("log"))
	if err != nil {
		x.disk.remove(ref.Name)
		return err
	}
	next := manifest{
		Format: manifestFormat, Seed: x.seed, Stamp: stamp, Runs: infos(runs),
		Files: ref, Log: log.name, Duplicates: duplicates,
	}
	if err := x.publish(next); err != nil {
		if x.broken == nil {
			x.disk.remove(ref.Name)
			log.discard()
		} else {
			log.f.Close()
		}
		return err
	}
	if x.wal != nil {
		x.wal.close()
	}
	x.wal = &wal{f: log}
	x.stamp, x.files = stamp, files
	x.mem.reset()
	x.adopt(runs)
	return nil
}

func infos(runs []*run) []runInfo {
	list := make([]runInfo, len(runs))
	for i, r := range runs {
		list[i] = r.runInfo
	}
	return list
}

// adopt uses runs from now on and closes the others.
func (x *Index) adopt(runs []*run) {
	for _, r := range x.runs {
		if !slices.Contains(runs, r) {
			r.close()
		}
	}
	x.runs = runs
}

// publish replaces the MANIFEST and removes the files that only the old one
// named. After an error the old one stands, unless the rename itself is in
// doubt: then the index refuses all work until it is opened again.
func (x *Index) publish(next manifest) error {
	b, err := next.encode()
	if err != nil {
		return err
	}
	const temp = manifestName + ".new"
	if err := x.disk.writeFile(temp, b); err != nil {
		return err
	}
	// The files that the MANIFEST names must be there before it is.
	if err := x.disk.sync(); err != nil {
		return err
	}
	if err := x.disk.rename(temp, manifestName); err != nil {
		return err
	}
	if err := x.disk.sync(); err != nil {
		x.broken = fmt.Errorf("key index must be opened again: %w", err)
		return x.broken
	}
	old := x.manifest
	x.manifest = next
	used := next.names()
	for _, name := range old.names() {
		if name != "" && !slices.Contains(used, name) {
			x.disk.remove(name)
		}
	}
	return nil
}

func writeFiles(d *disk, name string, t *fileTable) (fileRef, error) {
	b := binary.AppendUvarint(nil, uint64(t.next))
	b = binary.AppendUvarint(b, uint64(len(t.byID)))
	for f := range t.all() {
		var err error
		if b, err = appendFile(b, &f); err != nil {
			return fileRef{}, err
		}
	}
	ref := fileRef{Name: name, Bytes: int64(len(b)), CRC: crc32.Checksum(b, castagnoli)}
	return ref, d.writeFile(name, b)
}

func readFiles(d *disk, ref fileRef) (*fileTable, error) {
	b, err := os.ReadFile(d.path(ref.Name))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != ref.Bytes || crc32.Checksum(b, castagnoli) != ref.CRC {
		return nil, fmt.Errorf("%w: checksum of %s", errDamaged, ref.Name)
	}
	dec := &decoder{b: b}
	t := newFileTable(dec.uint32())
	for range dec.count(5) {
		t.add(dec.file())
	}
	if err := dec.end(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errDamaged, ref.Name, err)
	}
	return t, nil
}
