package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	iceio "github.com/apache/iceberg-go/io"
	"github.com/sluice-data/sluice/objects"
)

// storeProperty names the store of a lake in its catalog's properties: the
// library finds file systems by URL scheme only, one registry for the process.
const storeProperty = "sluice.store"

// stores are the clients of the lakes that are open in this process.
var stores struct {
	sync.Mutex
	registered bool
	next       int
	byID       map[string]*objects.Client
}

// registerStore makes store the file system of s3:// paths for catalogs with
// the returned properties, until drop.
func registerStore(store *objects.Client) (props map[string]string, drop func()) {
	stores.Lock()
	defer stores.Unlock()
	if !stores.registered {
		stores.byID = map[string]*objects.Client{}
		for _, scheme := range []string{"s3", "s3a"} {
			iceio.Unregister(scheme)
			iceio.Register(scheme, openStore)
		}
		stores.registered = true
	}
	stores.next++
	id := strconv.Itoa(stores.next)
	stores.byID[id] = store
	return map[string]string{storeProperty: id}, func() {
		stores.Lock()
		defer stores.Unlock()
		delete(stores.byID, id)
	}
}

func openStore(ctx context.Context, _ *url.URL, props map[string]string) (iceio.IO, error) {
	stores.Lock()
	defer stores.Unlock()
	if c := stores.byID[props[storeProperty]]; c != nil {
		return &fileIO{store: c, ctx: ctx}, nil
	}
	return nil, errors.New("open the object store: the lake of this catalog is closed")
}

// fileIO is the library's view of an object store.
type fileIO struct {
	store *objects.Client
	ctx   context.Context // of the call that asked for the file system; the library's interface has none
}

var (
	_ iceio.WriteFileIO     = (*fileIO)(nil)
	_ iceio.ReadFileIO      = (*fileIO)(nil)
	_ iceio.ListableIO      = (*fileIO)(nil)
	_ iceio.BulkRemovableIO = (*fileIO)(nil)
)

func (f *fileIO) context() context.Context {
	if f.ctx == nil {
		return context.Background()
	}
	return f.ctx
}

// split cuts s3://bucket/key.
func split(name string) (bucket, key string, err error) {
	_, rest, ok := strings.Cut(name, "://")
	bucket, key, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || bucket == "" || key == "" {
		return "", "", &fs.PathError{Op: "open", Path: name, Err: errors.New("want s3://bucket/key")}
	}
	return bucket, key, nil
}

func (f *fileIO) Open(name string) (iceio.File, error) {
	bucket, key, err := split(name)
	if err != nil {
		return nil, err
	}
	return &objectFile{Reader: f.store.Open(f.context(), bucket, key), name: name}, nil
}

func (f *fileIO) ReadFile(name string) ([]byte, error) {
	bucket, key, err := split(name)
	if err != nil {
		return nil, err
	}
	return f.store.Get(f.context(), bucket, key)
}

func (f *fileIO) Create(name string) (iceio.FileWriter, error) {
	bucket, key, err := split(name)
	if err != nil {
		return nil, err
	}
	return f.store.Create(f.context(), bucket, key), nil
}

func (f *fileIO) WriteFile(name string, p []byte) error {
	bucket, key, err := split(name)
	if err != nil {
		return err
	}
	return f.store.Put(f.context(), bucket, key, p)
}

func (f *fileIO) Remove(name string) error {
	_, err := f.DeleteFiles(f.context(), []string{name})
	return err
}

func (f *fileIO) DeleteFiles(ctx context.Context, names []string) ([]string, error) {
	byBucket := map[string][]string{}
	for _, n := range names {
		bucket, key, err := split(n)
		if err != nil {
			return nil, err
		}
		byBucket[bucket] = append(byBucket[bucket], key)
	}
	var deleted []string
	var errs []error
	for bucket, keys := range byBucket {
		gone, err := f.store.Delete(ctx, bucket, keys...)
		errs = append(errs, err)
		for _, k := range gone {
			deleted = append(deleted, "s3://"+bucket+"/"+k)
		}
	}
	return deleted, errors.Join(errs...)
}

func (f *fileIO) WalkDir(root string, fn fs.WalkDirFunc) error {
	bucket, key, err := split(strings.TrimSuffix(root, "/") + "/")
	if err != nil {
		return err
	}
	for o, err := range f.store.List(f.context(), bucket, key) {
		if err != nil {
			return fmt.Errorf("walk %s: %w", root, err)
		}
		err := fn("s3://"+bucket+"/"+o.Key, objectInfo{o}, nil)
		if errors.Is(err, fs.SkipAll) {
			return nil
		}
		if err != nil && !errors.Is(err, fs.SkipDir) {
			return err
		}
	}
	return nil
}

// objectFile is an open object.
type objectFile struct {
	*objects.Reader
	name string
}

func (f *objectFile) Stat() (fs.FileInfo, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	return objectInfo{objects.Object{Key: f.name, Size: size}}, nil
}

// objectInfo describes an object as a file; there are no folders.
type objectInfo struct{ o objects.Object }

func (i objectInfo) Name() string               { return path.Base(i.o.Key) }
func (i objectInfo) Size() int64                { return i.o.Size }
func (i objectInfo) Mode() fs.FileMode          { return 0o444 }
func (i objectInfo) ModTime() time.Time         { return i.o.Modified }
func (i objectInfo) IsDir() bool                { return false }
func (i objectInfo) Sys() any                   { return nil }
func (i objectInfo) Type() fs.FileMode          { return 0 }
func (i objectInfo) Info() (fs.FileInfo, error) { return i, nil }

var _ io.ReaderAt = (*objectFile)(nil)
