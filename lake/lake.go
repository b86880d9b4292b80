package lake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/apache/iceberg-go/catalog"
	"github.com/sluice-data/sluice/objects"
	"github.com/sluice-data/sluice/progress"
)

// The names of the places where a test may stop the process. A crash at each
// of them must lose nothing and double nothing (invariant 8).
const (
	BeforeData  = "lake.before-data"  // rows are in memory only
	AfterData   = "lake.after-data"   // data and delete files are stored, nothing refers to them
	AfterCommit = "lake.after-commit" // the snapshot is visible, the key index does not know it
	AfterIndex  = "lake.after-index"  // everything is done, the consumer does not know it
)

const defaultChunkBytes = 16 << 20

// Config is one lake: a catalog, a warehouse and a folder for local state.
type Config struct {
	Pipeline  string // begins the names of the table properties that hold the offsets
	Owner     string // the sink's name, for progress
	Catalog   CatalogConfig
	Warehouse string         // s3://bucket/prefix: where new tables go
	S3        objects.Config // the one store of all tables
	Dir       string         // local state: key indexes below <Dir>/index

	// ChunkBytes is how many bytes of rows one table holds in memory before
	// they are encoded to Parquet and stream to the store; 0 = 16 MiB. Inside
	// a chunk rows are folded by key and sorted.
	ChunkBytes int

	Board  *progress.Board // nil = nobody looks
	Logger *slog.Logger    // nil = slog.Default()

	Hook   func(point string) // called at the named points; nil = none
	Unsafe Unsafe             // all false; see there

	wrapCatalog func(catalog.Catalog) catalog.Catalog // for tests: lost replies and the like
}

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	var errs []error
	if c.Pipeline == "" {
		errs = append(errs, errors.New("lake: the pipeline has no name"))
	}
	if u, err := url.Parse(c.Warehouse); err != nil || u.Scheme != "s3" || u.Host == "" {
		errs = append(errs, fmt.Errorf("lake: warehouse %q: want s3://bucket/prefix", c.Warehouse))
	}
	if c.Dir == "" {
		errs = append(errs, errors.New("lake: no folder for local state"))
	}
	errs = append(errs, c.Catalog.Validate(), c.S3.Validate(), c.Unsafe.check())
	return errors.Join(errs...)
}

// Lake opens tables. Its methods may be called from several goroutines.
type Lake struct {
	cfg   Config
	log   *slog.Logger
	store *objects.Client
	fs    *fileIO
	cat   *lazyCatalog
	now   func() time.Time
	drop  func() // forgets the store of this lake in the library's registry
}

// Open checks c and returns a lake. It connects to nothing: the catalog and
// the store are reached, with patience, when a table is.
func Open(ctx context.Context, c Config) (*Lake, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.ChunkBytes <= 0 {
		c.ChunkBytes = defaultChunkBytes
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Board == nil {
		c.Board = &progress.Board{}
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the lake's folder: %w", err)
	}
	store, err := objects.New(ctx, c.S3)
	if err != nil {
		return nil, err
	}
	l := &Lake{cfg: c, log: c.Logger, store: store, fs: &fileIO{store: store}, now: time.Now}
	var props map[string]string
	props, l.drop = registerStore(store)
	props["warehouse"] = strings.TrimSuffix(c.Warehouse, "/")
	l.cat = &lazyCatalog{cfg: c.Catalog, props: props, wrap: c.wrapCatalog}
	return l, nil
}

// Close releases the catalog. Tables are closed by their users before.
// Closing twice is fine.
func (l *Lake) Close() error {
	l.drop()
	return l.cat.close()
}

// EnsureBucket creates the warehouse's bucket unless it is there.
func (l *Lake) EnsureBucket(ctx context.Context) error {
	u, err := url.Parse(l.cfg.Warehouse)
	if err != nil {
		return fmt.Errorf("lake: warehouse: %w", err)
	}
	return l.store.EnsureBucket(ctx, u.Host)
}

func (l *Lake) hook(point string) {
	if l.cfg.Hook != nil {
		l.cfg.Hook(point)
	}
}

// indexDir is the folder of a table's key index; pipeline and topic are part
// of it because two flows into one table know different keys.
func (l *Lake) indexDir(table, topic string) string {
	return filepath.Join(l.cfg.Dir, "index", url.PathEscape(table)+"@"+url.PathEscape(topic))
}
