package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runFile is <dir>/run.json: who runs here and where it answers. It outlives
// its processes, so that ports stay the same; what it says of a process is
// true only while alive says so.
type runFile struct {
	Processes []process         `json:"processes"`
	Children  map[string]*child `json:"children,omitempty"` // "kafka" and "s3"
	Catalogs  map[string]int    `json:"catalogs,omitempty"` // ports of the served catalogs, by sink
	Instance  string            `json:"instance,omitempty"` // names this folder's members of consumer groups
	wishes
}

// process is one running sluice.
type process struct {
	PID     int       `json:"pid"`
	Started string    `json:"started"` // the system's start time of the pid: pids come back
	Since   time.Time `json:"since"`
	Config  string    `json:"config"`
	Roles   []string  `json:"roles"`                 // names of its sources and sinks
	Admin   string    `json:"admin"`                 // host:port
	Catalog string    `json:"catalog_uri,omitempty"` // of the first lake, for engines
}

// child is an embedded server in a process of its own.
type child struct {
	PID     int    `json:"pid"` // 0 = stopped
	Started string `json:"started,omitempty"`
	Port    int    `json:"port"` // on 127.0.0.1
}

// alive reports whether a pid is still the process that was started then.
func alive(pid int, started string) bool {
	return pid > 0 && started != "" && startTime(pid) == started
}

// startTime returns when the system says that pid was started, "" if there is
// none. It is only ever compared.
func startTime(pid int) string {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err == nil {
		// The name in parentheses may hold anything; the state follows it.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
			return ""
		}
		return fields[19]
	}
	if _, err := os.Stat("/proc/self/stat"); err == nil {
		return ""
	}
	out, err := exec.Command("ps", "-o", "lstart=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// lock takes the lock file at path; a process that dies gives it up.
func lock(path string, how int) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// editRun changes <dir>/run.json; only one process does so at a time.
func editRun(dir string, edit func(r *runFile) error) error {
	release, err := lock(filepath.Join(dir, "run.lock"), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer release()
	r, err := readRun(dir)
	if err != nil {
		return err
	}
	if err := edit(r); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write run.json: %w", err)
	}
	path := filepath.Join(dir, "run.json")
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write run.json: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write run.json: %w", err)
	}
	return nil
}

// readRun returns <dir>/run.json without the processes that are gone.
func readRun(dir string) (*runFile, error) {
	r := &runFile{Children: map[string]*child{}, Catalogs: map[string]int{}}
	text, err := os.ReadFile(filepath.Join(dir, "run.json"))
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read run.json: %w", err)
	}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read %s: %w; remove it when no sluice runs", filepath.Join(dir, "run.json"), err)
	}
	r.Processes = slices.DeleteFunc(r.Processes, func(p process) bool { return !alive(p.PID, p.Started) })
	return r, nil
}

// presence is the mark of a running sluice on its folder.
type presence struct {
	dir      string
	releases []func()
	shared   func()
}

// enter makes this process known in dir; each role may run once per folder,
// because indexes and state below it have one writer.
func enter(dir string, p process) (*presence, error) {
	locks := filepath.Join(dir, "locks")
	if err := os.MkdirAll(locks, 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	m := &presence{dir: dir}
	for _, role := range p.Roles {
		release, err := lock(filepath.Join(locks, role), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			m.release()
			return nil, fmt.Errorf("%s runs already%s; stop it first, or run other parts with --only", role, whoRuns(dir, role))
		}
		if err != nil {
			m.release()
			return nil, err
		}
		m.releases = append(m.releases, release)
	}
	err := editRun(dir, func(r *runFile) error {
		r.Processes = append(r.Processes, p)
		if r.Instance == "" {
			r.Instance = "sluice-" + randomHex(8)
		}
		return m.share()
	})
	if err != nil {
		m.release()
		return nil, err
	}
	return m, nil
}

// visit keeps the children of dir running until leave, for a command that only looks.
func visit(dir string) (*presence, error) {
	if err := os.MkdirAll(filepath.Join(dir, "locks"), 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	m := &presence{dir: dir}
	if err := editRun(dir, func(*runFile) error { return m.share() }); err != nil {
		return nil, err
	}
	return m, nil
}

// share says that this process uses the children. The caller is inside editRun.
func (m *presence) share() (err error) {
	m.shared, err = lock(filepath.Join(m.dir, "locks", "_children"), unix.LOCK_SH)
	return err
}

func whoRuns(dir, role string) string {
	r, err := readRun(dir)
	if err != nil {
		return ""
	}
	for _, p := range r.Processes {
		if slices.Contains(p.Roles, role) {
			return fmt.Sprintf(" in process %d", p.PID)
		}
	}
	return ""
}

// update changes what the run file says of this process.
func (m *presence) update(change func(r *runFile, p *process)) error {
	return editRun(m.dir, func(r *runFile) error {
		for i := range r.Processes {
			if r.Processes[i].PID == os.Getpid() {
				change(r, &r.Processes[i])
			}
		}
		return nil
	})
}

// leave removes this process from the run file. The last one to leave ends
// the children by end.
func (m *presence) leave(end func(r *runFile)) error {
	defer m.release()
	return editRun(m.dir, func(r *runFile) error {
		r.Processes = slices.DeleteFunc(r.Processes, func(p process) bool { return p.PID == os.Getpid() })
		m.shared()
		m.shared = nil
		release, err := lock(filepath.Join(m.dir, "locks", "_children"), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil // others still use them
		}
		if err != nil {
			return err
		}
		defer release()
		end(r)
		return nil
	})
}

func (m *presence) release() {
	for _, r := range m.releases {
		r()
	}
	m.releases = nil
	if m.shared != nil {
		m.shared()
		m.shared = nil
	}
}
