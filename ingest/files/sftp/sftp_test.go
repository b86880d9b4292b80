package sftp

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/sluice-data/sluice/ingest/files/root"
)

// serve is an SFTP server on the files of this machine; it returns its address
// and the path of a known_hosts file with its key.
func serve(t *testing.T) (addr, known string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &ssh.ServerConfig{PasswordCallback: func(c ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
		if c.User() == "reader" && string(p) == "pa55word" {
			return nil, nil
		}
		return nil, errors.New("no")
	}}
	cfg.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go session(conn, cfg)
		}
	}()
	known = filepath.Join(t.TempDir(), "known_hosts")
	line := knownhosts.Line([]string{l.Addr().String()}, signer.PublicKey())
	if err := os.WriteFile(known, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String(), known
}

func session(conn net.Conn, cfg *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, cfg)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		ch, reqs, err := c.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range reqs {
				_ = r.Reply(r.Type == "subsystem", nil)
			}
		}()
		go func() {
			if s, err := sftp.NewServer(ch, sftp.ReadOnly()); err == nil {
				_ = s.Serve()
			}
			_ = ch.Close()
		}()
	}
}

func open(t *testing.T, dir string) *Server {
	t.Helper()
	addr, known := serve(t)
	s, err := Open(t.Context(), Config{Address: addr, User: "reader", Password: "pa55word", KnownHosts: known, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, s *Server) map[string]root.Entry {
	t.Helper()
	got := map[string]root.Entry{}
	for e, err := range s.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got[e.Path] = e
	}
	return got
}

func TestListAndOpen(t *testing.T) {
	dir := t.TempDir()
	big := strings.Repeat("0123456789abcdef", 200_000)
	write(t, filepath.Join(dir, "root/a.txt"), "text")
	write(t, filepath.Join(dir, "root/sub/big.bin"), big)
	write(t, filepath.Join(dir, "secret.txt"), "secret")
	for name, to := range map[string]string{"out": "../secret.txt", "in": "a.txt", "folder": "sub", "none": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(dir, "root", name)); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, filepath.Join(dir, "root"))
	got := list(t, s)
	for path, want := range map[string]*root.Reason{"a.txt": nil, "sub/big.bin": nil, "in": link, "out": link, "folder": link, "none": link} {
		if e, ok := got[path]; !ok || e.Skip != want {
			t.Errorf("%s: %+v, listed %v", path, e.Skip, ok)
		}
	}
	if len(got) != 6 {
		t.Errorf("%d entries", len(got))
	}
	for _, offset := range []int64{0, 1_000_001} {
		r, err := s.Open(t.Context(), got["sub/big.bin"], offset)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || string(b) != big[offset:] {
			t.Fatalf("from %d: %d bytes, %v", offset, len(b), err)
		}
		_ = r.Close()
	}
	write(t, filepath.Join(dir, "root/a.txt"), "longer text")
	if _, err := s.Open(t.Context(), got["a.txt"], 0); !errors.Is(err, root.ErrChanged) {
		t.Errorf("want ErrChanged, got %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "root/sub/big.bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../secret.txt", filepath.Join(dir, "root/sub/big.bin")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), got["sub/big.bin"], 0); !errors.Is(err, root.ErrUnreadable) {
		t.Errorf("a file that became a link out of the root: %v", err)
	}
}

func TestLogin(t *testing.T) {
	addr, known := serve(t)
	_, otherKnown := serve(t)
	b, err := os.ReadFile(otherKnown)
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b))
	wrong := filepath.Join(t.TempDir(), "known_hosts")
	write(t, wrong, knownhosts.Normalize(addr)+" "+fields[1]+" "+fields[2]+"\n")
	for _, c := range []struct{ password, known, want string }{
		{"wrong-pa55", known, "log in"}, {"pa55word", wrong, "known_hosts"}, {"pa55word", otherKnown, "known_hosts"},
		{"pa55word", filepath.Join(t.TempDir(), "none"), "ssh-keyscan"},
	} {
		s, err := Open(context.Background(), Config{Address: addr, User: "reader", Password: c.password, KnownHosts: c.known})
		if err == nil {
			_ = s.Close()
			t.Errorf("logged in with %+v", c)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), c.password) {
			t.Errorf("%v: want %s and no password", err, c.want)
		}
	}
}

func TestListingEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.txt"), "a")
	s := open(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var errs []error
	for _, err := range s.List(ctx) {
		errs = append(errs, err)
	}
	if !slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, context.Canceled) }) {
		t.Errorf("listing after the end: %v", errs)
	}
}
