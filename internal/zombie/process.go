package zombie

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sluice-data/sluice/internal/judge"
)

// Pipeline is a configuration that several processes run.
type Pipeline struct {
	Name     string // of the pipeline, its slot and the namespace of its tables
	Kafka    string // host:port
	Database string // address of the source
	Tables   string // with commas between them: public.acct
	Sinks    []Sink
}

// text is the file of one process; only its folder differs.
const text = `name: ${NAME}
dir: data
kafka: { brokers: ["${KAFKA}"] }
topics: { partitions: 4 }
sources:
  db:
    postgres: { url: "${env:ZOMBIE_DATABASE}", tables: [${TABLES}], slot: ${NAME} }
sinks:
`

const sinkText = `  ${SINK}:
    iceberg:
      catalog: { sql: "${env:ZOMBIE_CATALOG}" }
      warehouse: s3://lake/${NAME}
      s3: { endpoint: "${S3}", region: us-east-1, access_key: "${env:ZOMBIE_ACCESS}", secret_key: "${env:ZOMBIE_SECRET}", path_style: true }
      commit: { every: 300ms, bytes: 4MiB }
    streams:
`

// Sink is one sink of a pipeline: its streams go into tables of the pipeline's namespace.
type Sink struct {
	Name    string
	Mode    string
	Streams map[string]string // public.acct → acct
}

// Process is one sluice, running or ended.
type Process struct {
	Name string
	w    *World
	dir  string
	env  []string
	cmd  *exec.Cmd
	done chan struct{}
	log  *tail
}

// Prepare writes the configuration of a process; sluice is not started yet.
func (w *World) Prepare(t *testing.T, p Pipeline, name string) *Process {
	t.Helper()
	r := &Process{Name: name, w: w, dir: filepath.Join(w.dir, p.Name, name), log: new(tail)}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fill := func(text string, more ...string) {
		b.WriteString(strings.NewReplacer(append([]string{"${NAME}", p.Name, "${KAFKA}", p.Kafka, "${TABLES}", p.Tables,
			"${S3}", w.s3.Endpoint}, more...)...).Replace(text))
	}
	fill(text)
	for _, s := range p.Sinks {
		fill(sinkText, "${SINK}", s.Name)
		for stream, table := range s.Streams {
			fill("      - { from: db.${STREAM}, table: ${NAME}.${TABLE}, mode: ${MODE} }\n", "${STREAM}", stream, "${TABLE}", table, "${MODE}", s.Mode)
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, "sluice.yaml"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r.env = append(os.Environ(), "ZOMBIE_DATABASE="+p.Database, "ZOMBIE_CATALOG="+w.catalog,
		"ZOMBIE_ACCESS="+w.s3.AccessKey, "ZOMBIE_SECRET="+w.s3.SecretKey)
	t.Cleanup(r.kill)
	return r
}

// Run starts sluice run with arguments; each env is NAME=value.
func (r *Process) Run(t *testing.T, env []string, args ...string) {
	t.Helper()
	cmd := exec.Command(r.w.binary, append([]string{"run", "-c", filepath.Join(r.dir, "sluice.yaml")}, args...)...)
	cmd.Env = append(r.env, env...)
	cmd.Stdout, cmd.Stderr = r.log, r.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	r.cmd, r.done = cmd, done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
}

// kill ends the process if it runs.
func (r *Process) kill() {
	if r.cmd != nil {
		_ = r.cmd.Process.Kill()
		<-r.done
	}
}

// Kill ends the process with SIGKILL.
func (r *Process) Kill() { r.kill() }

// Killed waits for the process to be ended by a SIGKILL of its own.
func (r *Process) Killed(ctx context.Context, t *testing.T) {
	t.Helper()
	r.ended(ctx, t, "kills itself")
	if s := r.cmd.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGKILL {
		t.Fatalf("%s ended otherwise: %s\n%s", r.Name, r.cmd.ProcessState, r.Log())
	}
}

// Succeeded waits for the process to end and be content.
func (r *Process) Succeeded(ctx context.Context, t *testing.T) {
	t.Helper()
	r.ended(ctx, t, "ends")
	if !r.cmd.ProcessState.Success() {
		t.Fatalf("%s: %s\n%s", r.Name, r.cmd.ProcessState, r.Log())
	}
}

func (r *Process) ended(ctx context.Context, t *testing.T, how string) {
	t.Helper()
	Until(ctx, t, r.Name+" "+how, r.Log, func() bool {
		select {
		case <-r.done:
			return true
		default:
			return false
		}
	})
}

// Stop ends the process in order.
func (r *Process) Stop(ctx context.Context, t *testing.T) {
	t.Helper()
	r.signal(t, syscall.SIGTERM)
	r.Succeeded(ctx, t)
}

// Pause stops the process where it is.
func (r *Process) Pause(t *testing.T) { t.Helper(); r.signal(t, syscall.SIGSTOP) }

// Resume lets a stopped process go on.
func (r *Process) Resume(t *testing.T) { t.Helper(); r.signal(t, syscall.SIGCONT) }

func (r *Process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s: %v\n%s", r.Name, err, r.Log())
	}
}

// Stopped waits until the process has stopped itself.
func (r *Process) Stopped(ctx context.Context, t *testing.T) {
	t.Helper()
	Until(ctx, t, r.Name+" stops itself", r.Log, func() bool {
		out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(r.cmd.Process.Pid)).Output()
		return err == nil && strings.HasPrefix(strings.TrimSpace(string(out)), "T")
	})
}

// Logged waits until the process has logged a line with words.
func (r *Process) Logged(ctx context.Context, t *testing.T, words string) {
	t.Helper()
	Until(ctx, t, r.Name+" logs: "+words, r.Log, func() bool { return strings.Contains(r.log.String(), words) })
}

// Log returns the end of what the process has printed.
func (r *Process) Log() string {
	s := r.log.String()
	return s[max(0, len(s)-6000):]
}

// Catalog waits until the process serves the tables and returns how to read them.
func (r *Process) Catalog(ctx context.Context, t *testing.T) judge.Catalog {
	t.Helper()
	var run struct {
		Processes []struct {
			PID     int    `json:"pid"`
			Catalog string `json:"catalog_uri"`
		} `json:"processes"`
	}
	uri := ""
	Until(ctx, t, r.Name+" serves its tables", r.Log, func() bool {
		if readJSON(filepath.Join(r.dir, "data", "run.json"), &run) != nil {
			return false
		}
		for _, p := range run.Processes {
			if p.PID == r.cmd.Process.Pid {
				uri = p.Catalog
			}
		}
		return uri != ""
	})
	return r.w.judgeAt(uri)
}

// tail keeps the last MiB of what a process prints.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	if n := len(l.b) - 1<<20; n > 0 {
		l.b = append(l.b[:0], l.b[n:]...)
	}
	return len(p), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

// Streaming waits until all tables that the process reads are past their first load.
func (r *Process) Streaming(ctx context.Context, t *testing.T) {
	t.Helper()
	Until(ctx, t, r.Name+" follows the log", r.Log, func() bool {
		out, err := exec.CommandContext(ctx, r.w.binary, "status", "-c", filepath.Join(r.dir, "sluice.yaml"), "--json").Output()
		var s struct {
			Result struct {
				Streams []struct{ Side, State string }
			}
		}
		if err != nil || json.Unmarshal(out, &s) != nil {
			return false
		}
		sources := 0
		for _, stream := range s.Result.Streams {
			if stream.Side != "source" {
				continue
			}
			if sources++; stream.State != "streaming" {
				return false
			}
		}
		return sources > 0
	})
}
