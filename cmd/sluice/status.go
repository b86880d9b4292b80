package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/progress"
)

// status is the result of the status command.
type status struct {
	Name      string            `json:"name"`
	Running   bool              `json:"running"`
	Processes []report          `json:"processes"`
	Streams   []progress.Row    `json:"streams"` // of all processes
	Children  map[string]*child `json:"children,omitempty"`
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what a running sluice does, stream by stream",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := a.load()
			if err != nil {
				return err
			}
			s, err := readStatus(cmd.Context(), f.Name, f.Local(f.Dir))
			if err != nil {
				return err
			}
			a.result = s
			if !a.json {
				fmt.Fprint(a.stdout, s.text(time.Now()))
			}
			return nil
		},
	}
}

// readStatus asks the processes that run below dir.
func readStatus(ctx context.Context, name, dir string) (*status, error) {
	s := &status{Name: name, Processes: []report{}, Streams: []progress.Row{}}
	r, err := readRun(dir)
	if err != nil {
		return nil, environment(err)
	}
	for key, ch := range r.Children {
		if !alive(ch.PID, ch.Started) {
			delete(r.Children, key)
		}
	}
	s.Children = r.Children
	for _, p := range r.Processes {
		answer, err := askAdmin(ctx, p)
		if err != nil {
			return nil, environment(fmt.Errorf("process %d runs but does not answer on %s: %w", p.PID, p.Admin, err))
		}
		s.Running = true
		s.Processes = append(s.Processes, *answer)
		s.Streams = append(s.Streams, answer.Streams...)
	}
	return s, nil
}

func askAdmin(ctx context.Context, p process) (*report, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Admin+"/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, errors.Unwrap(err) // without the address, which the caller has
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", resp.Status)
	}
	r := &report{}
	if err := json.NewDecoder(resp.Body).Decode(r); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return r, nil
}

// text writes s for people: the first line answers the question.
func (s *status) text(now time.Time) string {
	if !s.Running {
		text := s.Name + " is not running\n"
		for key, ch := range s.Children {
			text += fmt.Sprintf("embedded %s still runs (process %d, 127.0.0.1:%d); the next run goes on with it\n", key, ch.PID, ch.Port)
		}
		return text
	}
	var b strings.Builder
	since, state, parked := s.Processes[0].Since, s.Processes[0].State, 0
	for _, p := range s.Processes {
		if p.Since.Before(since) {
			since = p.Since
		}
	}
	for _, r := range s.Streams {
		if r.State == progress.Parked || r.State == progress.Failed {
			parked++
		}
	}
	fmt.Fprintf(&b, "%s   %s %s · %s", s.Name, state, lasting(now.Sub(since)), count(len(s.Streams), "stream"))
	if parked > 0 {
		fmt.Fprintf(&b, " · %d parked", parked)
	}
	b.WriteString("\n" + streamTable(s.Streams))
	for _, p := range s.Processes {
		fmt.Fprintf(&b, "process %d: admin http://%s", p.PID, p.Endpoints.Admin)
		for _, e := range [][2]string{{"kafka", p.Endpoints.Kafka}, {"s3", p.Endpoints.S3}, {"catalog", p.Endpoints.Catalog}} {
			if e[1] != "" {
				fmt.Fprintf(&b, " · %s %s", e[0], e[1])
			}
		}
		b.WriteString("\n")
	}
	return plainText(b.String())
}

// plainText replaces signs beyond ASCII where the terminal may not have them.
func plainText(s string) string {
	for _, key := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(key); v != "" {
			if strings.Contains(strings.ToLower(v), "utf") {
				return s
			}
			break
		}
	}
	return strings.NewReplacer(" · ", " | ", "…", "..").Replace(s)
}

// streamTable lists sources, then sinks.
func streamTable(streams []progress.Row) string {
	var text string
	for _, side := range []progress.Side{progress.Source, progress.Sink} {
		head := []string{"  source", "stream", "state", "behind", "read", "rejected", "note"}
		if side == progress.Sink {
			head = []string{"  sink", "stream", "state", "behind", "delivered", "filtered", "rejected", "last commit"}
		}
		rows := [][]string{head}
		for _, r := range streams {
			if r.Side != side {
				continue
			}
			row := []string{"  " + r.Owner, r.Stream, string(r.State), lasting(seconds(r.Behind)), grouped(r.Read), grouped(r.Rejected), r.Note}
			if side == progress.Sink {
				last := r.Note
				if last == "" && r.LastCommit != "" {
					last = fmt.Sprintf("%s, %s ago", commitName(r.LastCommit), lasting(seconds(r.CommitAge)))
				}
				row = []string{"  " + r.Owner, r.Stream, string(r.State), lasting(seconds(r.Behind)), grouped(r.Delivered), grouped(r.Filtered), grouped(r.Rejected), last}
			}
			rows = append(rows, row)
		}
		if len(rows) > 1 {
			right := []int{3, 4, 5}
			if side == progress.Sink {
				right = append(right, 6)
			}
			text += aligned(rows, right...)
		}
	}
	return text
}
