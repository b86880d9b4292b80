package lake

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/catalog/rest"
	sqlcatalog "github.com/apache/iceberg-go/catalog/sql"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"
	_ "modernc.org/sqlite"             // database/sql driver "sqlite"
)

// CatalogName is the catalog_name of our rows in a SQL catalog.
const CatalogName = "sluice"

// CatalogConfig names one catalog: SQL or REST.
type CatalogConfig struct {
	// SQL is sqlite:PATH or postgres://…; the tables of the catalog are
	// created on first use.
	SQL string

	// REST is the address of an Iceberg REST catalog, with how to get in.
	REST REST
}

// REST is an Iceberg REST catalog.
type REST struct {
	URI        string
	Warehouse  string // as the catalog calls it; empty = its default
	Prefix     string
	Credential string // OAuth2 client credentials, id:secret
	AuthURI    string // token endpoint if it is not the catalog's own
	Scope      string
	Token      string // a bearer token instead of credentials; it is never renewed
}

// Validate reports what is wrong with c, without its secrets.
func (c CatalogConfig) Validate() error {
	switch {
	case c.SQL == "" && c.REST.URI == "":
		return errors.New("lake: no catalog: give sql: sqlite:PATH, sql: postgres://… or rest: {uri}")
	case c.SQL != "" && c.REST.URI != "":
		return errors.New("lake: two catalogs: give sql or rest")
	case c.SQL != "":
		_, _, err := c.sql()
		return err
	}
	if u, err := url.Parse(c.REST.URI); err != nil || u.Host == "" {
		return errors.New("lake: catalog rest: uri: want http(s)://host/…")
	}
	return nil
}

// sql returns the driver and data source of a SQL catalog.
func (c CatalogConfig) sql() (driver, dsn string, err error) {
	if path, ok := strings.CutPrefix(c.SQL, "sqlite:"); ok && path != "" {
		u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: strings.TrimPrefix(path, "//")}).EscapedPath(),
			RawQuery: "_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&_pragma=synchronous(FULL)"}
		return "sqlite", u.String(), nil
	}
	if strings.HasPrefix(c.SQL, "postgres://") || strings.HasPrefix(c.SQL, "postgresql://") {
		return "pgx", c.SQL, nil
	}
	return "", "", errors.New("lake: catalog sql: want sqlite:PATH or postgres://…")
}

// lazyCatalog opens the catalog when it is first needed: it may be down while
// sluice starts.
type lazyCatalog struct {
	cfg   CatalogConfig
	props map[string]string
	wrap  func(catalog.Catalog) catalog.Catalog

	mu     sync.Mutex
	db     *sql.DB
	cat    catalog.Catalog
	closed bool
}

func (l *lazyCatalog) get(ctx context.Context) (catalog.Catalog, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.New("the lake is closed")
	}
	if l.cat != nil {
		return l.cat, nil
	}
	cat, err := l.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the catalog: %w", redact(err, l.cfg.SQL))
	}
	if l.wrap != nil {
		cat = l.wrap(cat)
	}
	l.cat = &fenced{Catalog: cat, local: l.cfg.SQL != ""}
	return l.cat, nil
}

func (l *lazyCatalog) open(ctx context.Context) (catalog.Catalog, error) {
	if l.cfg.SQL == "" {
		return l.openREST(ctx)
	}
	driver, dsn, err := l.cfg.sql()
	if err != nil {
		return nil, err
	}
	dialect := sqlcatalog.Postgres
	if driver == "sqlite" {
		dialect = sqlcatalog.SQLite
		path := strings.TrimPrefix(strings.TrimPrefix(l.cfg.SQL, "sqlite:"), "//")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, err
	}
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	cat, err := sqlcatalog.NewCatalog(CatalogName, db, dialect, l.props)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	l.db = db
	return cat, nil
}

func (l *lazyCatalog) openREST(ctx context.Context) (catalog.Catalog, error) {
	c := l.cfg.REST
	opts := []rest.Option{rest.WithAdditionalProps(l.props)}
	if c.Warehouse != "" {
		opts = append(opts, rest.WithWarehouseLocation(c.Warehouse))
	}
	if c.Prefix != "" {
		opts = append(opts, rest.WithPrefix(c.Prefix))
	}
	if c.Credential != "" {
		opts = append(opts, rest.WithCredential(c.Credential))
	}
	if c.AuthURI != "" {
		u, err := url.Parse(c.AuthURI)
		if err != nil {
			return nil, errors.New("auth_uri is not an address")
		}
		opts = append(opts, rest.WithAuthURI(u))
	}
	if c.Scope != "" {
		opts = append(opts, rest.WithScope(c.Scope))
	}
	if c.Token != "" {
		opts = append(opts, rest.WithOAuthToken(c.Token))
	}
	return rest.NewCatalog(ctx, CatalogName, c.URI, opts...)
}

func (l *lazyCatalog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.db != nil {
		return l.db.Close()
	}
	return nil
}

// redact keeps a data source with its password out of error texts (invariant 7).
func redact(err error, dsn string) error {
	u, perr := url.Parse(dsn)
	if perr != nil || u.User == nil {
		return err
	}
	password, _ := u.User.Password()
	if password == "" || !strings.Contains(err.Error(), password) {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), password, "…"))
}

// fenced corrects what the library does at a commit.
type fenced struct {
	catalog.Catalog
	local bool // requirements are checked by the client, not by a server
}

// CommitTable commits and reports every refusal as table.ErrCommitFailed.
func (f *fenced) CommitTable(ctx context.Context, id table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	if f.local {
		// The library returns a plain error for a stale base and then treats
		// the transaction as one of unknown outcome.
		cur, err := f.Catalog.LoadTable(ctx, id)
		if err != nil {
			return nil, "", err
		}
		for _, r := range reqs {
			if err := r.Validate(cur.Metadata()); err != nil {
				return nil, "", fmt.Errorf("%w: %w", table.ErrCommitFailed, err)
			}
		}
	}
	meta, location, err := f.Catalog.CommitTable(ctx, id, reqs, updates)
	if err != nil {
		return nil, "", err
	}
	// A round trip cuts the pointers that keep the metadata of every earlier
	// commit in memory.
	b, err := json.Marshal(meta)
	if err == nil {
		meta, err = table.ParseMetadataBytes(b)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read back the committed metadata: %w", err)
	}
	return meta, location, nil
}

// loadTable returns the table as it is now; catalog.ErrNoSuchTable if there is none.
func (l *Lake) loadTable(ctx context.Context, id table.Identifier) (*table.Table, error) {
	cat, err := l.cat.get(ctx)
	if err != nil {
		return nil, err
	}
	t, err := cat.LoadTable(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("load table %s: %w", strings.Join(id, "."), err)
	}
	return l.handle(t.Metadata(), t.MetadataLocation(), id, cat), nil
}

// handle makes a table whose commits go through our catalog and whose files
// through our store.
func (l *Lake) handle(meta table.Metadata, location string, id table.Identifier, cat catalog.Catalog) *table.Table {
	return table.New(id, meta, location, l.fs.open, cat)
}

func (f *fileIO) open(ctx context.Context) (iceio.IO, error) {
	return &fileIO{store: f.store, ctx: ctx}, nil
}

var _ catalog.Catalog = (*fenced)(nil)
