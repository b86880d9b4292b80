package main

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/lake"
	"github.com/sluice-data/sluice/lake/restcatalog"
	"github.com/sluice-data/sluice/objects"
)

// catalogServer serves the SQL catalog of one sink to engines, read-only.
type catalogServer struct {
	addr   string
	server *http.Server
	db     *sql.DB
}

// serveCatalog serves the SQL catalog of c on listen; port 0 means the port of
// the last run if it is free, so that engines stay attached.
func serveCatalog(ctx context.Context, f *config.File, s *icebergSettings, c lake.Config, lastPort int) (*catalogServer, error) {
	store, err := objects.New(ctx, c.S3)
	if err != nil {
		return nil, err
	}
	db, err := openCatalogDB(c.Catalog.SQL)
	if err != nil {
		return nil, err
	}
	rc := restcatalog.Config{DB: db, Catalog: lake.CatalogName, Warehouse: c.Warehouse, Logger: c.Logger,
		ReadMetadata: func(ctx context.Context, location string) ([]byte, error) { return readObject(ctx, store, location) },
		S3:           restcatalog.S3{Endpoint: c.S3.Endpoint, Region: c.S3.Region, PathStyle: c.S3.PathStyle}}
	if s.S3.Embedded {
		k, err := embeddedKeys(f.Local(f.Dir))
		if err != nil {
			return nil, err
		}
		rc.S3.AccessKey, rc.S3.SecretKey = k.ReaderAccess, k.ReaderSecret
	}
	l, err := listenLoopback(s.Catalog.Listen, lastPort)
	if err != nil {
		return nil, fmt.Errorf("catalog.listen: %w", err)
	}
	cs := &catalogServer{addr: "http://" + l.Addr().String(), db: db,
		server: &http.Server{Handler: localOnly(restcatalog.New(rc)), ReadHeaderTimeout: 5 * time.Second}}
	go func() { _ = cs.server.Serve(l) }() // until close
	return cs, nil
}

func (c *catalogServer) close() error {
	err := c.server.Close()
	if dbErr := c.db.Close(); err == nil {
		err = dbErr
	}
	return err
}

func (c *catalogServer) port() int {
	u, err := url.Parse(c.addr)
	if err != nil {
		return 0
	}
	port, _ := strconv.Atoi(u.Port())
	return port
}

// openCatalogDB opens the database of a SQL catalog for reading. The drivers
// are those that the lake has.
func openCatalogDB(address string) (*sql.DB, error) {
	driver, dsn := "pgx", address
	if path, ok := strings.CutPrefix(address, "sqlite:"); ok {
		u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: "_pragma=busy_timeout(10000)&_pragma=query_only(true)"}
		driver, dsn = "sqlite", u.String()
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, fmt.Errorf("open the catalog for reading: %w", err)
	}
	return db, nil
}

// readObject returns the object at s3://bucket/key.
func readObject(ctx context.Context, store *objects.Client, location string) ([]byte, error) {
	rest, ok := strings.CutPrefix(location, "s3://")
	bucket, key, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 {
		return nil, fmt.Errorf("metadata location %s: want s3://bucket/key", location)
	}
	return store.Get(ctx, bucket, key)
}

// listenLoopback listens on addr; port 0 takes last if that is free.
func listenLoopback(addr string, last int) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("%q: want 127.0.0.1:port", addr)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("%q: only loopback addresses, as nobody has to log in", addr)
	}
	if port == "0" && last > 0 {
		if l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(last))); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", addr)
}
