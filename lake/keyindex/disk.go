package keyindex

import (
	"os"
	"path/filepath"
	"strings"
)

// disk is the folder of an index. All that can meet a full disk goes through
// it, so that tests can make any one operation fail.
type disk struct {
	dir      string
	fault    func(op, name string) error
	volatile bool // syncs do nothing
}

func (d *disk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *disk) check(op, name string) error {
	if d.fault == nil {
		return nil
	}
	return d.fault(op, name)
}

func (d *disk) create(name string) (*diskFile, error) {
	if err := d.check("create", name); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.path(name), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return &diskFile{disk: d, name: name, f: f}, nil
}

func (d *disk) rename(from, to string) error {
	if err := d.check("rename", to); err != nil {
		return err
	}
	return os.Rename(d.path(from), d.path(to))
}

// sync makes created and renamed names durable.
func (d *disk) sync() error {
	if err := d.check("syncdir", d.dir); err != nil || d.volatile {
		return err
	}
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// remove forgets a file; one that stays is removed by the next Open.
func (d *disk) remove(name string) {
	if d.check("remove", name) == nil {
		_ = os.Remove(d.path(name))
	}
}

// own lists the files of an index, whether a MANIFEST names them or not.
func (d *disk) own() ([]string, error) {
	list, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range list {
		name := e.Name()
		if strings.HasPrefix(name, "run-") || strings.HasPrefix(name, "files-") ||
			strings.HasPrefix(name, "log-") || strings.HasPrefix(name, manifestName) {
			names = append(names, name)
		}
	}
	return names, nil
}

type diskFile struct {
	disk *disk
	name string
	f    *os.File
}

func (f *diskFile) writeAt(b []byte, off int64) error {
	if err := f.disk.check("write", f.name); err != nil {
		// A full disk may take a part of it.
		_, _ = f.f.WriteAt(b[:len(b)/2], off)
		return err
	}
	_, err := f.f.WriteAt(b, off)
	return err
}

func (f *diskFile) sync() error {
	if err := f.disk.check("sync", f.name); err != nil || f.disk.volatile {
		return err
	}
	return f.f.Sync()
}

// discard closes and removes a file that will not be used.
func (f *diskFile) discard() {
	f.f.Close()
	f.disk.remove(f.name)
}

// writeFile makes a small file and its content durable.
func (d *disk) writeFile(name string, b []byte) error {
	f, err := d.create(name)
	if err != nil {
		return err
	}
	err = f.writeAt(b, 0)
	if err == nil {
		err = f.sync()
	}
	if err != nil {
		f.discard()
		return err
	}
	return f.f.Close()
}
