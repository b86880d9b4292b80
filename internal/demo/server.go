package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/internal/pgserver"
)

// folderPrefix begins the names of folders outside the demo's own.
const folderPrefix = "/var/tmp/sluice-demo-"

// database is what the demo makes on a server that is there already.
const database = "sluice_demo"

// server is the Postgres of the demo: a private one, or a database of its own on a given one.
type server struct {
	url      string
	what     string // postgres 18.4 on 127.0.0.1:54817
	private  *pgserver.Server
	admin    string // address of a given server
	database string
	folder   string // of a private server that cannot live in the demo's folder
}

func startServer(ctx context.Context, given, bin, dir string) (*server, error) {
	s := &server{admin: given}
	switch {
	case given != "":
		if err := s.create(ctx); err != nil {
			return nil, err
		}
	default:
		if bin == "" {
			bin = installed()
		}
		if bin == "" {
			return nil, errors.New("no PostgreSQL: run make demo, which gets one, or set DEMO_POSTGRES_URL")
		}
		folder := filepath.Join(dir, "postgres")
		if os.Getuid() == 0 && !open(dir) {
			// The server leaves root behind, and could not reach a folder that is root's alone.
			var err error
			if folder, err = os.MkdirTemp(filepath.Split(folderPrefix + "*")); err != nil {
				return nil, err
			}
			s.folder = folder
		}
		var err error
		if s.private, err = pgserver.Start(ctx, bin, folder); err != nil {
			return nil, err
		}
		s.url = s.private.URL
	}
	if err := s.describe(ctx); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// open reports whether others may pass every folder above and including dir.
func open(dir string) bool {
	path, err := filepath.Abs(dir)
	for err == nil {
		info, statErr := os.Stat(path)
		if statErr != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if path == filepath.Dir(path) {
			return true
		}
		path = filepath.Dir(path)
	}
	return false
}

// installed looks for a server in the usual places, newest first.
func installed() string {
	var found []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin"} {
		dirs, _ := filepath.Glob(pattern) // the pattern is well formed
		for _, dir := range dirs {
			if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
				found = append(found, dir)
			}
		}
	}
	slices.Sort(found)
	if len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

// create makes the demo's database anew on the given server.
func (s *server) create(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.admin)
	if err != nil {
		return fmt.Errorf("connect to DEMO_POSTGRES_URL: %w", err)
	}
	defer conn.Close(ctx)
	var level string
	if err := conn.QueryRow(ctx, "SHOW wal_level").Scan(&level); err != nil {
		return fmt.Errorf("wal_level: %w", err)
	}
	if level != "logical" {
		return fmt.Errorf("the server has wal_level=%s: ALTER SYSTEM SET wal_level = logical, and restart it", level)
	}
	if err := s.drop(ctx, conn); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+database); err != nil {
		return fmt.Errorf("make database %s: %w", database, err)
	}
	u, err := url.Parse(s.admin)
	if err != nil {
		return errors.New("DEMO_POSTGRES_URL is not an address postgres://…")
	}
	u.Path = "/" + database
	s.url, s.database = u.String(), database
	return nil
}

// drop removes the database of a demo, with the slot that holds it.
func (s *server) drop(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1 AND NOT active", database); err != nil {
		return fmt.Errorf("drop the slot of database %s: %w", database, err)
	}
	if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+database+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop database %s: %w", database, err)
	}
	return nil
}

func (s *server) describe(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer conn.Close(ctx)
	var version string
	if err := conn.QueryRow(ctx, "SHOW server_version").Scan(&version); err != nil {
		return fmt.Errorf("version of Postgres: %w", err)
	}
	version, _, _ = strings.Cut(version, " ")
	s.what = fmt.Sprintf("postgres %s on %s:%d", version, conn.Config().Host, conn.Config().Port)
	return nil
}

// pid is the private server's process, 0 without one.
func (s *server) pid() int {
	if s.private == nil {
		return 0
	}
	return s.private.Pid()
}

func (s *server) stop() {
	if s.private != nil {
		s.private.Stop()
		if s.folder != "" {
			_ = os.RemoveAll(s.folder) // a folder of ours below /var/tmp
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.admin)
	if err != nil {
		return // the server is gone, and the database with it
	}
	defer conn.Close(ctx)
	_ = s.drop(ctx, conn)
}

// running is what a demo with --keep left up.
type running struct {
	Sluice    int    `json:"sluice"`
	Simulator int    `json:"simulator,omitempty"`
	Postgres  int    `json:"postgres,omitempty"`
	Folder    string `json:"folder,omitempty"` // of Postgres, where it is not in the demo's
	Database  string `json:"database,omitempty"`
	URL       string `json:"url,omitempty"`
}

func writeRunning(dir string, r running) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "running.json"), text, 0o600)
}

// Stop ends what a demo with --keep left up in dir; nothing there is fine.
func Stop(dir string, out io.Writer) error {
	path := filepath.Join(dir, "running.json")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(out, "no demo runs in", dir)
		return nil
	}
	var r running
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	end(r.Sluice, syscall.SIGTERM, "sluice")
	end(r.Simulator, syscall.SIGTERM, "simulate hubspot")
	if r.Postgres > 0 {
		end(r.Postgres, syscall.SIGINT, "postgres")
		if strings.HasPrefix(r.Folder, folderPrefix) {
			_ = os.RemoveAll(r.Folder) // what is left of a stopped server
		}
	} else if r.URL != "" {
		(&server{admin: r.URL}).stop()
	}
	fmt.Fprintln(out, "stopped the demo in", dir)
	return os.Remove(path)
}

// end signals a process of ours and waits until it is gone. A pid that
// belongs to another program by now is left alone.
func end(pid int, sig syscall.Signal, program string) {
	for deadline := time.Now().Add(40 * time.Second); pid > 0 && ours(pid, program); time.Sleep(100 * time.Millisecond) {
		if sig != 0 {
			_ = syscall.Kill(pid, sig)
			sig = 0
		}
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			return
		}
	}
}

func ours(pid int, program string) bool {
	out, err := exec.Command("ps", "-o", "stat=,args=", "-p", fmt.Sprint(pid)).Output()
	return err == nil && !strings.HasPrefix(string(out), "Z") && strings.Contains(string(out), program)
}
