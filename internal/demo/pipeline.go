package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// startLimit is how long sluice and its embedded servers may take to answer.
const startLimit = 60 * time.Second

// endpoints are the addresses that the running sluice names.
type endpoints struct {
	Admin   string `json:"admin"`
	Kafka   string `json:"kafka"`
	S3      string `json:"s3"`
	Catalog string `json:"catalog"`
}

// pipeline is the running sluice: the same binary as a process of its own.
type pipeline struct {
	dir       string
	cmd       *exec.Cmd
	done      chan struct{} // closed when the process has ended
	admin     string
	endpoints endpoints
	client    http.Client
}

// startPipeline runs "sluice run" on the configuration in dir and returns when it says it is ready.
func startPipeline(ctx context.Context, binary, dir, databaseURL, crmToken string) (*pipeline, error) {
	log, err := os.Create(filepath.Join(dir, "sluice.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(binary, "run", "-c", filepath.Join(dir, "sluice.yaml"))
	cmd.Env = append(os.Environ(), "SHOP_DB_URL="+databaseURL, "HUBSPOT_TOKEN="+crmToken)
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own: it outlives the demo with --keep, and Ctrl-C is the demo's to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start sluice: %w", err)
	}
	p := &pipeline{dir: dir, cmd: cmd, done: make(chan struct{}), client: http.Client{Timeout: 5 * time.Second}}
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errors.New("sluice does not come up"))
	defer cancel()
	for p.endpoints.Catalog == "" || p.endpoints.S3 == "" || p.endpoints.Kafka == "" {
		if err := p.pause(ctx, 50*time.Millisecond); err != nil {
			p.stop()
			return nil, err
		}
		p.find(ctx)
	}
	return p, nil
}

func (p *pipeline) pid() int { return p.cmd.Process.Pid }

// find asks where the running sluice answers; run.json in its folder names the admin port.
func (p *pipeline) find(ctx context.Context) {
	var run struct {
		Processes []struct {
			PID   int    `json:"pid"`
			Admin string `json:"admin"`
		} `json:"processes"`
	}
	text, err := os.ReadFile(filepath.Join(p.dir, "data", "run.json"))
	if err != nil || json.Unmarshal(text, &run) != nil {
		return
	}
	for _, proc := range run.Processes {
		if proc.PID == p.pid() && proc.Admin != "" {
			p.admin = "http://" + proc.Admin
			if s, err := p.status(ctx); err == nil {
				p.endpoints = s.Endpoints
			}
		}
	}
}

// pause waits, and fails when sluice has ended or time is up.
func (p *pipeline) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-p.done:
		return fmt.Errorf("sluice ended: %s; its log: %s", p.lastLine(), filepath.Join(p.dir, "sluice.log"))
	case <-ctx.Done():
		return fmt.Errorf("%w; the log of sluice: %s", context.Cause(ctx), filepath.Join(p.dir, "sluice.log"))
	case <-time.After(d):
		return nil
	}
}

func (p *pipeline) lastLine() string {
	text, _ := os.ReadFile(filepath.Join(p.dir, "sluice.log"))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// stop asks sluice to drain, and ends it by force when it does not.
func (p *pipeline) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(40 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// status is what the admin port says.
type status struct {
	Endpoints endpoints      `json:"endpoints"`
	Streams   []progress.Row `json:"streams"`
	trouble   string         // why a stream stopped, "" if none did
}

func (p *pipeline) status(ctx context.Context) (*status, error) {
	s := &status{}
	if err := p.get(ctx, p.admin+"/status", s); err != nil {
		return nil, fmt.Errorf("status of sluice: %w", err)
	}
	for _, r := range s.Streams {
		if r.State == progress.Parked || r.State == progress.Failed {
			s.trouble = fmt.Sprintf("%s %s is %s: %s; the log of sluice: %s", r.Owner, r.Stream, r.State, r.Note, filepath.Join(p.dir, "sluice.log"))
		}
	}
	return s, nil
}

// row returns the stream of one sink or source.
func (s *status) row(side progress.Side, owner, stream string) progress.Row {
	for _, r := range s.Streams {
		if r.Side == side && r.Owner == owner && (r.Stream == stream || strings.HasSuffix(r.Stream, "."+stream)) {
			return r
		}
	}
	return progress.Row{}
}

func (p *pipeline) get(ctx context.Context, url string, into any) error {
	return getJSON(ctx, &p.client, url, into)
}

func getJSON(ctx context.Context, client *http.Client, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		_, _ = io.Copy(io.Discard, resp.Body)
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// tableState is one table as a reader of the catalog sees it.
type tableState struct {
	snapshots   int
	files       int
	deleteFiles int
	records     int64 // rows in data files, deleted ones included
	columns     []string
	applied     uint64 // log address that every partition of the topic has reached
}

// table loads a table from the catalog.
func (p *pipeline) table(ctx context.Context, name string) (tableState, error) {
	var answer struct {
		Metadata struct {
			Properties map[string]string `json:"properties"`
			Current    int64             `json:"current-snapshot-id"`
			Schema     int               `json:"current-schema-id"`
			Schemas    []struct {
				ID     int `json:"schema-id"`
				Fields []struct {
					Name string `json:"name"`
				} `json:"fields"`
			} `json:"schemas"`
			Snapshots []struct {
				ID      int64             `json:"snapshot-id"`
				Summary map[string]string `json:"summary"`
			} `json:"snapshots"`
		} `json:"metadata"`
	}
	var state tableState
	if err := p.get(ctx, p.endpoints.Catalog+"/v1/namespaces/shop/tables/"+name, &answer); err != nil {
		if strings.Contains(err.Error(), "404") {
			return state, nil // not made yet
		}
		return state, fmt.Errorf("load table shop.%s: %w", name, err)
	}
	m := answer.Metadata
	state.snapshots = len(m.Snapshots)
	for _, s := range m.Snapshots {
		if s.ID == m.Current {
			state.files = number(s.Summary["total-data-files"])
			state.deleteFiles = number(s.Summary["total-delete-files"])
			state.records = int64(number(s.Summary["total-records"]))
		}
	}
	for _, s := range m.Schemas {
		if s.ID == m.Schema {
			for _, f := range s.Fields {
				state.columns = append(state.columns, f.Name)
			}
		}
	}
	first := true
	for key, text := range m.Properties {
		if !strings.HasPrefix(key, "sluice.shop.") {
			continue
		}
		var mark record.Mark
		if err := json.Unmarshal([]byte(text), &mark); err != nil {
			return state, fmt.Errorf("property %s of shop.%s: %w", key, name, err)
		}
		if first || mark.Last.LSN < state.applied {
			state.applied = mark.Last.LSN
		}
		first = false
	}
	return state, nil
}

func number(s string) int {
	n, _ := strconv.Atoi(s) // absent: 0
	return n
}

func withScheme(addr string) string {
	if addr == "" || strings.Contains(addr, "://") {
		return addr
	}
	return "http://" + addr
}
