// Package gateway serves a local folder as an S3 endpoint on the loopback
// address, for people and tests that have no object store at hand.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
	"github.com/versity/versitygw/s3api"
)

// Limits of one gateway: it serves one sluice and a few readers.
const (
	maxConnections = 4096
	maxRequests    = 1024
	maxParts       = 10_000  // S3's own limit
	maxCopyBytes   = 5 << 30 // S3's own limit of one copy request
	maxFileActions = 64      // operations on the file system at once, so that threads stay bounded
	portAttempts   = 5       // a port that was free may be taken before the gateway binds it
)

// Config says what to serve and to whom.
type Config struct {
	Dir       string // holds buckets/ and, where the file system has no extended attributes, attributes/
	Port      int    // on 127.0.0.1; 0 = any free one
	Region    string // us-east-1 when empty
	AccessKey string // may do everything
	SecretKey string

	// ReaderAccess may list and get in every bucket and nothing else. Empty: no such account.
	ReaderAccess string
	ReaderSecret string

	// Ready is called once with "127.0.0.1:port" when the gateway answers.
	Ready func(addr string)
}

// Run serves until ctx ends, and returns nil then. It changes the working
// directory of the process and there can be one in a process: call it in a
// process of its own.
func Run(ctx context.Context, c Config) error {
	if err := c.check(); err != nil {
		return err
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return fmt.Errorf("gateway folder %s: %w", c.Dir, err)
	}
	c.Dir = dir
	for attempt := 1; ; attempt++ {
		started, err := c.serve(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // asked to stop: how it stopped is no failure
		case err == nil:
			return errors.New("gateway stopped by itself")
		case started || c.Port != 0 || attempt == portAttempts:
			return err
		}
	}
}

func (c *Config) check() error {
	switch {
	case c.Dir == "":
		return errors.New("gateway: no folder")
	case c.AccessKey == "" || c.SecretKey == "":
		return errors.New("gateway: no access key or secret key")
	case c.ReaderAccess != "" && (c.ReaderSecret == "" || c.ReaderAccess == c.AccessKey):
		return errors.New("gateway: the reader needs its own access key and a secret key")
	case c.Port < 0 || c.Port > 65535:
		return fmt.Errorf("gateway: port %d", c.Port)
	}
	return nil
}

// serve runs one gateway; started tells whether it ever listened.
func (c *Config) serve(ctx context.Context) (started bool, err error) {
	store, err := c.open()
	if err != nil {
		return false, err
	}
	port := c.Port
	if port == 0 {
		if port, err = freePort(); err != nil {
			return false, err
		}
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	region := c.Region
	if region == "" {
		region = "us-east-1"
	}
	var listening atomic.Bool
	root := auth.Account{Access: c.AccessKey, Secret: c.SecretKey, Role: auth.RoleAdmin}
	err = embedgw.RunVersityGW(ctx, store, &embedgw.Config{
		RootUserAccess:    c.AccessKey,
		RootUserSecret:    c.SecretKey,
		Region:            region,
		Ports:             []string{addr},
		MaxConnections:    maxConnections,
		MaxRequests:       maxRequests,
		MultipartMaxParts: maxParts,
		KeepAlive:         true,
		Quiet:             true,
		IAMService:        accounts{IAMService: auth.NewIAMServiceSingle(root), reader: c.reader()},
		S3Options: []s3api.Option{s3api.WithOnListen(func() {
			listening.Store(true)
			if c.Ready != nil {
				c.Ready(addr)
			}
		})},
	})
	if err != nil {
		err = fmt.Errorf("s3 gateway on %s: %w", addr, err)
	}
	return listening.Load(), err
}

// open returns the storage below Dir. Attributes of objects (ETag, checksums,
// type) are extended attributes where the file system has them.
func (c *Config) open() (backend.Backend, error) {
	buckets, attributes := filepath.Join(c.Dir, "buckets"), filepath.Join(c.Dir, "attributes")
	if err := os.MkdirAll(buckets, 0o700); err != nil {
		return nil, fmt.Errorf("gateway folder: %w", err)
	}
	opts := posix.PosixOpts{Concurrency: maxFileActions, CopyObjectThreshold: maxCopyBytes}
	opts.SetNewDirPerm(0o700)
	opts.SetNewFilePerm(0o600)
	var storer meta.MetadataStorer = meta.XattrMeta{}
	if err := (meta.XattrMeta{}).Test(buckets); err != nil {
		if err := os.MkdirAll(attributes, 0o700); err != nil {
			return nil, fmt.Errorf("gateway folder: %w", err)
		}
		sidecar, err := meta.NewSideCar(attributes)
		if err != nil {
			return nil, fmt.Errorf("gateway attributes in %s: %w", attributes, err)
		}
		storer, opts.SideCarDir = sidecar, attributes
	}
	store, err := posix.New(buckets, storer, opts)
	if err != nil {
		return nil, fmt.Errorf("gateway folder %s: %w", buckets, err)
	}
	if c.ReaderAccess == "" {
		return store, nil
	}
	return readable{Backend: store, reader: c.ReaderAccess}, nil
}

func (c *Config) reader() auth.Account {
	return auth.Account{Access: c.ReaderAccess, Secret: c.ReaderSecret, Role: auth.RoleUser}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
