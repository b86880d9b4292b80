// Package pgserver runs a private PostgreSQL server for the demo, the benchmarks and tests.
package pgserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// nobody is whom a server runs as that root starts: PostgreSQL refuses root.
const nobody = 65534

// Server is a private PostgreSQL server with wal_level=logical. Its
// superuser postgres needs no password: it listens on 127.0.0.1 only.
type Server struct {
	URL  string
	bin  string
	args []string
	dir  string
	as   *syscall.SysProcAttr
	cmd  *exec.Cmd
	done chan struct{} // closed when the server has ended
}

// Start makes a cluster below dir and starts its server on a free port of
// 127.0.0.1. bin holds initdb and postgres. Under root the server runs as
// nobody, who must be able to pass every folder above dir and bin. Extra
// settings are written "name=value".
func Start(ctx context.Context, bin, dir string, settings ...string) (*Server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var as *syscall.SysProcAttr
	if os.Getuid() == 0 {
		as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Setpgid: true}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			return nil, err
		}
	} else {
		as = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo: it stops the server itself
	}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "--auth=trust",
		"--encoding=UTF8", "--locale=C", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = as, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	args := []string{"-D", data, "-p", fmt.Sprint(port)}
	for _, setting := range append([]string{"listen_addresses=127.0.0.1", "unix_socket_directories=", "wal_level=logical",
		"max_replication_slots=10", "max_wal_senders=10", "max_connections=50", "shared_buffers=128MB",
		"max_wal_size=2GB", "log_min_messages=warning", "timezone=UTC"}, settings...) {
		args = append(args, "-c", setting)
	}
	p := &Server{URL: fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port),
		bin: bin, args: args, dir: dir, as: as}
	return p, p.start(ctx)
}

func (p *Server) start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(p.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(p.bin, "postgres"), p.args...)
	cmd.SysProcAttr, cmd.Dir, cmd.Stdout, cmd.Stderr = p.as, p.dir, log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	if err := p.ready(ctx); err != nil {
		p.Stop()
		return fmt.Errorf("postgres does not answer, see %s: %w", log.Name(), err)
	}
	return nil
}

// Kill ends the server with SIGKILL; its children follow. Restart brings it back.
func (p *Server) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Set changes settings, written "name=value", from the next Restart on.
func (p *Server) Set(settings ...string) {
	for _, setting := range settings {
		p.args = append(p.args, "-c", setting) // the last one counts
	}
}

// Restart starts a stopped or killed server on the same data and port. The
// backends of a killed one take a moment to see that it is gone; until then
// PostgreSQL refuses to start.
func (p *Server) Restart(ctx context.Context) error {
	var err error
	for range 30 {
		if err = p.start(ctx); err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
	return err
}

func (p *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, p.URL)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-p.done:
			return errors.New("the server ended")
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Pid returns the process id of the server.
func (p *Server) Pid() int { return p.cmd.Process.Pid }

// Stop ends the server at once but in order ("fast" shutdown). Calling it twice is fine.
func (p *Server) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.done
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
