// Package sftp reads the files below a folder of an SFTP server.
package sftp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/sluice-data/sluice/ingest/files/root"
)

const (
	dialTimeout = 15 * time.Second
	maxDepth    = 256 // of folders
	readBytes   = 1 << 20
)

// Config says where the server is and how to log in.
type Config struct {
	Address    string // host:port
	User       string
	Password   string
	Key        []byte // private key in PEM; tried before the password
	Passphrase string // of Key
	KnownHosts string // path of the file that lists the server's key
	Dir        string // folder on the server
}

// Server is the root of a folder of a server.
type Server struct {
	cfg  Config
	ssh  *ssh.Client
	sftp *sftp.Client
	root string // without links
	stop func() bool
}

// Open logs in. The key of the server must be known. ctx bounds the whole use
// of the server.
func Open(ctx context.Context, cfg Config) (*Server, error) {
	check, err := knownhosts.New(cfg.KnownHosts)
	if err != nil {
		return nil, fmt.Errorf("sftp known_hosts: %w; write the server's key there: ssh-keyscan -p PORT HOST", err)
	}
	c := &ssh.ClientConfig{User: cfg.User, HostKeyCallback: check, Timeout: dialTimeout}
	if len(cfg.Key) > 0 {
		signer, err := parseKey(cfg)
		if err != nil {
			return nil, err
		}
		c.Auth = append(c.Auth, ssh.PublicKeys(signer))
	}
	if cfg.Password != "" {
		c.Auth = append(c.Auth, ssh.Password(cfg.Password))
	}
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to sftp %s: %w", cfg.Address, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	s := &Server{cfg: cfg, stop: stop}
	if err := s.login(conn, c); err != nil {
		stop()
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

func parseKey(cfg Config) (ssh.Signer, error) {
	var signer ssh.Signer
	var err error
	if cfg.Passphrase != "" {
		signer, err = ssh.ParsePrivateKeyWithPassphrase(cfg.Key, []byte(cfg.Passphrase))
	} else {
		signer, err = ssh.ParsePrivateKey(cfg.Key)
	}
	if err != nil {
		return nil, errors.New("sftp key: no private key in PEM, or its passphrase is wrong")
	}
	return signer, nil
}

func (s *Server) login(conn net.Conn, c *ssh.ClientConfig) error {
	_ = conn.SetDeadline(time.Now().Add(dialTimeout))
	sc, channels, requests, err := ssh.NewClientConn(conn, s.cfg.Address, c)
	if err != nil {
		var key *knownhosts.KeyError
		if errors.As(err, &key) {
			return fmt.Errorf("sftp %s: its key is not the one of known_hosts; check who answers there", s.cfg.Address)
		}
		return fmt.Errorf("log in at sftp %s: %w", s.cfg.Address, err)
	}
	_ = conn.SetDeadline(time.Time{})
	s.ssh = ssh.NewClient(sc, channels, requests)
	if s.sftp, err = sftp.NewClient(s.ssh, sftp.UseConcurrentReads(true)); err != nil {
		_ = s.ssh.Close()
		return fmt.Errorf("begin sftp with %s: %w", s.cfg.Address, err)
	}
	if s.root, err = s.sftp.RealPath(first(s.cfg.Dir, ".")); err != nil {
		_ = s.sftp.Close()
		_ = s.ssh.Close()
		return fmt.Errorf("sftp folder: %w", cause(err))
	}
	return nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Close logs out.
func (s *Server) Close() error {
	s.stop()
	_ = s.sftp.Close()
	_ = s.ssh.Close()
	return nil
}

// List yields every file below the folder.
func (s *Server) List(ctx context.Context) iter.Seq2[root.Entry, error] {
	return func(yield func(root.Entry, error) bool) {
		if err := s.walk(ctx, "", 0, yield); err != nil && !errors.Is(err, errStop) {
			yield(root.Entry{}, err)
		}
	}
}

var errStop = errors.New("stop")

func (s *Server) walk(ctx context.Context, dir string, depth int, yield func(root.Entry, error) bool) error {
	if depth > maxDepth {
		return errors.New("list sftp folder: more than 256 levels deep")
	}
	items, err := s.sftp.ReadDirContext(ctx, path.Join(s.root, dir))
	if depth > 0 && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list sftp folder: %w", cause(err))
	}
	for _, fi := range items {
		name := fi.Name()
		if name == "." || name == ".." {
			continue
		}
		p := path.Join(dir, name)
		if strings.Contains(name, "/") || root.CheckPath(p) != nil {
			if !yield(root.Entry{Path: root.Printable(dir + "/" + name), Skip: root.BadName}, nil) {
				return errStop
			}
			continue
		}
		if fi.IsDir() {
			if err := s.walk(ctx, p, depth+1, yield); err != nil {
				return err
			}
			continue
		}
		if !yield(s.entry(p, fi), nil) {
			return errStop
		}
	}
	return nil
}

// link: whether a link stays inside the root cannot be asked of all servers.
var link = &root.Reason{Code: "symlink", Text: "a symbolic link on an SFTP server is not followed"}

func (s *Server) entry(p string, fi fs.FileInfo) root.Entry {
	e := root.Entry{Path: p}
	if fi.Mode()&fs.ModeSymlink != 0 {
		e.Skip = link
		return e
	}
	if !fi.Mode().IsRegular() {
		e.Skip = root.Special
		return e
	}
	e.ETag, e.Weak, e.Size, e.Modified = etag(fi), true, fi.Size(), fi.ModTime()
	e.URI = (&url.URL{Scheme: "sftp", Host: s.cfg.Address, Path: path.Join(s.root, p)}).String()
	return e
}

// plain makes sure that no part of p has become a link since it was listed.
func (s *Server) plain(p string) error {
	for i, ch := range p + "/" {
		if ch != '/' {
			continue
		}
		fi, err := s.sftp.Lstat(path.Join(s.root, p[:i]))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return root.ErrChanged
		case errors.Is(err, fs.ErrPermission):
			return root.Forbidden
		case err != nil:
			return fmt.Errorf("look at an sftp file: %w", cause(err))
		case fi.Mode()&fs.ModeSymlink != 0:
			return link
		}
	}
	return nil
}

func etag(fi fs.FileInfo) string {
	return fmt.Sprintf("%x-%x", fi.ModTime().Unix(), fi.Size())
}

// Open reads the listed version of a file from offset on.
func (s *Server) Open(_ context.Context, e root.Entry, offset int64) (io.ReadCloser, error) {
	if err := s.plain(e.Path); err != nil {
		return nil, err
	}
	f, err := s.sftp.Open(path.Join(s.root, e.Path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, root.ErrChanged
	case errors.Is(err, fs.ErrPermission):
		return nil, root.Forbidden
	case err != nil:
		return nil, fmt.Errorf("open sftp file: %w", cause(err))
	}
	fi, err := f.Stat()
	if err == nil && etag(fi) != e.ETag {
		err = root.ErrChanged
	}
	if err == nil {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, cause(err)
	}
	return &body{file: f, r: bufio.NewReaderSize(f, readBytes), etag: e.ETag}, nil
}

// body reads ahead, many packets at once, and tells at the end whether the
// file was written to meanwhile.
type body struct {
	file *sftp.File
	r    *bufio.Reader
	etag string
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if errors.Is(err, io.EOF) {
		if fi, statErr := b.file.Stat(); statErr == nil && etag(fi) != b.etag {
			return n, root.ErrChanged
		}
	} else if err != nil {
		err = fmt.Errorf("read sftp file: %w", cause(err))
	}
	return n, err
}

func (b *body) Close() error { return b.file.Close() }

// cause drops the path of an error: it is the key of a row (invariant 7).
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
