package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-data/sluice/internal/judge"
)

// pipeline is one configuration and the sluice process that runs it.
type pipeline struct {
	binary, dir string
	cmd         *exec.Cmd
	done        chan struct{}
	log         *lockedBuffer
}

const configText = `name: chaos
dir: data
kafka: { embedded: true }
topics: { partitions: 3 }
sources:
  db:
    postgres: { url: "${env:CHAOS_PG}", tables: [public.acct, public.item, public.cased] }
sinks:
  lake:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/chaos
      s3: { embedded: true }
      commit: { every: 300ms, bytes: 4MiB }
    streams:
      - { from: db.public.acct, table: chaos.acct, mode: upsert }
      - { from: db.public.item, table: chaos.item, mode: upsert }
      - { from: db.public.cased, table: chaos.cased, mode: upsert }
  log:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/chaos
      s3: { embedded: true }
      commit: { every: 500ms, bytes: 4MiB }
    streams:
      - { from: db.public.acct, table: chaos.acct_log, mode: append }
`

// tables are the upserted tables as the lake must have them, by their name
// there: of columns that differ in capitals only, later ones have another name.
var tables = map[string]string{
	"acct":  `SELECT * FROM acct`,
	"item":  `SELECT * FROM item`,
	"cased": `SELECT id, note, "Note" AS "Note__2", "NOTE" AS "NOTE__3" FROM cased`,
}

func newPipeline(binary, dir string) (*pipeline, error) {
	p := &pipeline{binary: binary, dir: dir, log: &lockedBuffer{}}
	return p, os.WriteFile(p.config(), []byte(configText), 0o600)
}

func (p *pipeline) config() string { return filepath.Join(p.dir, "sluice.yaml") }

// start runs sluice; kill names the point where it kills itself, "" nowhere.
func (p *pipeline) start(pg, kill string, more ...string) error {
	cmd := exec.Command(p.binary, append([]string{"run", "-c", p.config()}, more...)...)
	cmd.Env = append(os.Environ(), "CHAOS_PG="+pg, "SLUICE_KILL="+kill)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	return nil
}

// kill ends sluice with SIGKILL, if it still runs.
func (p *pipeline) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// exited waits for sluice to end by itself and returns its exit code.
func (p *pipeline) exited(timeout time.Duration) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(timeout):
		return -1, errors.New("sluice is still running")
	}
}

// children are the embedded servers as run.json lists them.
func (p *pipeline) children() map[string]int {
	var run struct {
		Children map[string]struct {
			PID int `json:"pid"`
		} `json:"children"`
	}
	b, err := os.ReadFile(filepath.Join(p.dir, "data", "run.json"))
	if err != nil || json.Unmarshal(b, &run) != nil {
		return nil
	}
	pids := map[string]int{}
	for name, c := range run.Children {
		if c.PID > 0 {
			pids[name] = c.PID
		}
	}
	return pids
}

// stopChildren ends embedded servers that a killed sluice has left behind.
func (p *pipeline) stopChildren() {
	for _, pid := range p.children() {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
}

// status asks the running sluice.
func (p *pipeline) status(ctx context.Context) (status, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, p.binary, "status", "-c", p.config(), "--json")
	cmd.Stdout = &out
	err := cmd.Run()
	var s struct {
		Result struct {
			Processes []status `json:"processes"`
		} `json:"result"`
	}
	if jsonErr := json.Unmarshal(out.Bytes(), &s); jsonErr != nil {
		return status{}, fmt.Errorf("status: %w, %w", err, jsonErr)
	}
	for _, p := range s.Result.Processes {
		if p.Endpoints.Catalog != "" {
			return p, nil
		}
	}
	return status{}, errors.New("no process with a catalog")
}

type status struct {
	Endpoints struct {
		S3      string `json:"s3"`
		Catalog string `json:"catalog"`
	} `json:"endpoints"`
	Streams []struct {
		Side   string `json:"side"`
		Owner  string `json:"name"`
		Stream string `json:"stream"`
		State  string `json:"state"`
		Note   string `json:"note"`
		Read   int64  `json:"read"`
	} `json:"streams"`
}

// catalog is where the judges find the tables of a running sluice.
func (p *pipeline) catalog(ctx context.Context) (judge.Catalog, error) {
	s, err := p.status(ctx)
	if err != nil {
		return judge.Catalog{}, err
	}
	access, secret, err := p.readerKeys()
	if err != nil {
		return judge.Catalog{}, err
	}
	return judge.Catalog{URI: s.Endpoints.Catalog, Endpoint: "http://" + s.Endpoints.S3, AccessKey: access, SecretKey: secret}, nil
}

// lockedBuffer keeps the end of what a process prints.
type lockedBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	if n := len(l.b) - 64<<10; n > 0 {
		l.b = append(l.b[:0], l.b[n:]...)
	}
	return len(p), nil
}

func (l *lockedBuffer) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b[max(0, len(l.b)-n):])
}
