package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/topic"
)

// controlHeader must be on every request that changes something: a web page
// can make a browser send such a request here, but not with a header of its own.
const controlHeader = "Sluice-Control"

// takenWait is how long an answer waits for a source to begin.
const takenWait = 15 * time.Second

// backfiller is a source that can load one stream anew.
type backfiller interface {
	// Backfill may be called before and during Run; taken is called once the
	// request is durable in the checkpoint.
	Backfill(stream record.StreamName, taken func()) error
}

// wishes are what people want of a folder's streams, in its run.json: they
// outlive the process that they were told to.
type wishes struct {
	Backfills []string `json:"backfills,omitempty"` // streams to load anew
	Paused    []string `json:"paused,omitempty"`    // "sink stream"
}

func add(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

func remove(list []string, s string) []string {
	return slices.DeleteFunc(list, func(x string) bool { return x == s })
}

func pausedKey(sink, stream string) string { return sink + " " + stream }

// outcome is what one process has done about a wish.
type outcome struct {
	Sinks    []string `json:"sinks,omitempty"`    // whose stream was paused or resumed
	Backfill string   `json:"backfill,omitempty"` // "begins" or "waits"
}

// control carries out wishes inside a running process.
type control struct {
	dir   string
	board *progress.Board
	log   *slog.Logger

	mu      sync.Mutex
	sources map[string]backfiller
	sinks   map[string]*topic.Consumer
}

func newControl(dir string, board *progress.Board, log *slog.Logger) *control {
	return &control{dir: dir, board: board, log: log, sources: map[string]backfiller{}, sinks: map[string]*topic.Consumer{}}
}

// source makes a source known that is about to run, and tells it what was
// asked for meanwhile. The result forgets it.
func (c *control) source(name string, s any) (leave func(), err error) {
	b, ok := s.(backfiller)
	if c == nil || !ok {
		return func() {}, nil
	}
	c.mu.Lock()
	c.sources[name] = b
	c.mu.Unlock()
	r, err := readRun(c.dir)
	if err != nil {
		return nil, err
	}
	for _, text := range r.Backfills {
		stream, err := record.ParseStreamName(text)
		if err != nil || stream.Source != name {
			continue
		}
		if err := b.Backfill(stream, func() { c.taken(text) }); err != nil {
			c.log.Warn("a backfill was asked for that cannot be", "stream", text, "error", err)
			c.taken(text)
		}
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.sources, name)
	}, nil
}

// sink makes a consumer known before it runs, and pauses what is to stay paused.
func (c *control) sink(s *config.Sink, consumer *topic.Consumer) error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	c.sinks[s.Name] = consumer
	c.mu.Unlock()
	r, err := readRun(c.dir)
	if err != nil {
		return err
	}
	for _, stream := range s.Streams {
		if !slices.Contains(r.Paused, pausedKey(s.Name, stream.From)) {
			continue
		}
		name, err := record.ParseStreamName(stream.From)
		if err == nil {
			err = consumer.Pause(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// taken takes note that the source's own checkpoint holds the wish.
func (c *control) taken(stream string) {
	err := editRun(c.dir, func(r *runFile) error {
		r.Backfills = remove(r.Backfills, stream)
		return nil
	})
	if err != nil {
		c.log.Warn("a backfill that was begun stays asked for: the next start does it once more", "stream", stream, "error", err)
	}
}

// ServeHTTP answers POST /control/{verb}?stream=…&sink=….
func (c *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get(controlHeader) == "" {
		http.Error(w, "header "+controlHeader+" is missing", http.StatusForbidden)
		return
	}
	stream, err := record.ParseStreamName(r.URL.Query().Get("stream"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var out outcome
	switch sink := r.URL.Query().Get("sink"); r.PathValue("verb") {
	case "backfill":
		out.Backfill, err = c.backfill(r.Context(), stream)
	case "pause":
		out.Sinks = c.each(stream, sink, (*topic.Consumer).Pause)
	case "resume":
		out.Sinks = c.each(stream, sink, (*topic.Consumer).Resume)
		if sink == "" && c.parkedAtSource(stream) {
			out.Backfill, err = c.backfill(r.Context(), stream)
		}
	default:
		http.NotFound(w, r)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	c.log.Info("asked for", "verb", r.PathValue("verb"), "stream", stream.String(), "sinks", out.Sinks, "backfill", out.Backfill)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // the asker has gone away
}

// each calls do for the sinks of this process that have the stream.
func (c *control) each(stream record.StreamName, only string, do func(*topic.Consumer, record.StreamName) error) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name, consumer := range c.sinks {
		if (only == "" || only == name) && do(consumer, stream) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// parkedAtSource reports whether the source's side of a stream is parked: it
// has missed changes and needs a backfill to go on.
func (c *control) parkedAtSource(stream record.StreamName) bool {
	for _, row := range c.board.Rows(time.Now()) {
		if row.Side == progress.Source && row.Stream == stream.String() && row.State == progress.Parked {
			return true
		}
	}
	return false
}

func (c *control) backfill(ctx context.Context, stream record.StreamName) (string, error) {
	c.mu.Lock()
	source := c.sources[stream.Source]
	c.mu.Unlock()
	if source == nil {
		return "waits", nil // it is in the run file, where the source will find it
	}
	begun := make(chan struct{})
	var once sync.Once
	if err := source.Backfill(stream, func() {
		c.taken(stream.String())
		once.Do(func() { close(begun) })
	}); err != nil {
		return "", err
	}
	select {
	case <-begun:
		return "begins", nil
	case <-ctx.Done():
	case <-time.After(takenWait):
	}
	return "waits", nil
}

// ask sends a wish to a running process.
func (p *process) ask(ctx context.Context, verb, stream, sink string) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, takenWait+10*time.Second)
	defer cancel()
	var out outcome
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.Admin+"/control/"+verb, nil)
	if err != nil {
		return out, err
	}
	q := req.URL.Query()
	q.Set("stream", stream)
	if sink != "" {
		q.Set("sink", sink)
	}
	req.URL.RawQuery = q.Encode()
	req.Header.Set(controlHeader, "1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return out, fmt.Errorf("process %d runs but does not answer: %w", p.PID, err)
	}
	defer resp.Body.Close()
	body := http.MaxBytesReader(nil, resp.Body, 64<<10)
	if resp.StatusCode != http.StatusOK {
		var text strings.Builder
		_ = limitedText(&text, body)
		return out, fmt.Errorf("process %d: %s", p.PID, strings.TrimSpace(text.String()))
	}
	if err := json.NewDecoder(body).Decode(&out); err != nil {
		return out, fmt.Errorf("process %d: read the answer: %w", p.PID, err)
	}
	return out, nil
}

// folder returns where the run file of f is.
func folder(f *config.File) string { return filepath.Clean(f.Local(f.Dir)) }
