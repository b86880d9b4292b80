package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/record"
)

// wish is the result of backfill, pause and resume.
type wish struct {
	Verb     string   `json:"-"`
	Stream   string   `json:"stream"`
	Sinks    []string `json:"sinks,omitempty"`    // that carry it and were told, or will be
	Running  bool     `json:"running"`            // somebody was there to be told
	Backfill string   `json:"backfill,omitempty"` // begins, waits or recorded
}

func (a *app) backfillCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backfill STREAM",
		Short: "Load one stream anew, such as shop-db.public.orders",
		Long: "backfill has the source read all rows of one stream again, under a new epoch: sinks let go of what\n" +
			"earlier backfills delivered, so that rows which are gone in the source are gone in tables that follow\n" +
			"it. Other streams go on meanwhile. Without a running source the next run does it.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := a.load()
			if err != nil {
				return err
			}
			w, err := askBackfill(cmd.Context(), f, args[0])
			return a.wished(w, err)
		},
	}
}

func (a *app) pauseCommand() *cobra.Command {
	var sink string
	cmd := &cobra.Command{
		Use:   "pause STREAM",
		Short: "Stop one stream in the sinks after what is buffered is written; its topic keeps growing",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := a.load()
			if err != nil {
				return err
			}
			w, err := askSinks(cmd.Context(), f, "pause", args[0], sink)
			return a.wished(w, err)
		},
	}
	cmd.Flags().StringVar(&sink, "sink", "", "only in this sink")
	return cmd
}

func (a *app) resumeCommand() *cobra.Command {
	var sink string
	cmd := &cobra.Command{
		Use:   "resume STREAM",
		Short: "Start a paused or parked stream again; one that is parked in its source is loaded anew",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := a.load()
			if err != nil {
				return err
			}
			w, err := askSinks(cmd.Context(), f, "resume", args[0], sink)
			return a.wished(w, err)
		},
	}
	cmd.Flags().StringVar(&sink, "sink", "", "only in this sink")
	return cmd
}

// wished ends one of these commands.
func (a *app) wished(w *wish, err error) error {
	if err != nil {
		return err
	}
	a.result = w
	if a.json {
		return nil
	}
	for _, line := range w.lines() {
		fmt.Fprintln(a.stdout, line)
	}
	return nil
}

// lines says what happens, for people.
func (w *wish) lines() []string {
	var lines []string
	if len(w.Sinks) > 0 {
		line := fmt.Sprintf("%s %s in %s", w.Stream, w.Verb+"d", strings.Join(w.Sinks, ", "))
		if !w.Running {
			line += "; nothing runs now, the next run begins so"
		}
		lines = append(lines, line)
	}
	switch w.Backfill {
	case "begins":
		lines = append(lines, w.Stream+" is being loaded anew; sluice status shows how far it is")
	case "waits":
		lines = append(lines, w.Stream+" will be loaded anew once its source has finished what it is at")
	case "recorded":
		lines = append(lines, w.Stream+" will be loaded anew by the next run of its source")
	}
	return lines
}

// sourceOf returns the source of a stream that the file names.
func sourceOf(f *config.File, stream string) (*config.Source, record.StreamName, error) {
	name, err := record.ParseStreamName(stream)
	if err != nil {
		return nil, name, invalid(err)
	}
	var known []string
	for _, s := range f.Sources {
		for _, local := range s.Streams {
			known = append(known, s.Name+"."+local)
			if s.Name == name.Source && local == name.Local() {
				return s, name, nil
			}
		}
	}
	return nil, name, invalid(fmt.Errorf("no stream %q; there are %s", stream, strings.Join(known, ", ")))
}

// askBackfill writes the wish down, so that it outlives whoever is told, and
// tells the process that runs the source.
func askBackfill(ctx context.Context, f *config.File, stream string) (*wish, error) {
	s, name, err := sourceOf(f, stream)
	if err != nil {
		return nil, err
	}
	if kind, err := sourceKindOf(s); err != nil || !kind.backfills {
		return nil, invalid(errors.Join(err, fmt.Errorf("a source of kind %s cannot load one stream anew", s.Kind)))
	}
	w := &wish{Stream: name.String(), Backfill: "recorded"}
	r, err := edited(f, func(r *runFile) { r.Backfills = add(r.Backfills, w.Stream) })
	if err != nil {
		return nil, err
	}
	for _, p := range r.Processes {
		if !slices.Contains(p.Roles, s.Name) {
			continue
		}
		out, err := p.ask(orBackground(ctx), "backfill", w.Stream, "")
		if err != nil {
			return nil, environment(err)
		}
		w.Running, w.Backfill = true, out.Backfill
	}
	return w, nil
}

// askSinks pauses or resumes a stream in the sinks that carry it.
func askSinks(ctx context.Context, f *config.File, verb, stream, only string) (*wish, error) {
	_, name, err := sourceOf(f, stream)
	if err != nil {
		return nil, err
	}
	w := &wish{Verb: verb, Stream: name.String()}
	for _, s := range f.Sinks {
		for _, st := range s.Streams {
			if n, err := record.ParseStreamName(st.From); err == nil && n == name && (only == "" || only == s.Name) {
				w.Sinks = append(w.Sinks, s.Name)
			}
		}
	}
	if len(w.Sinks) == 0 {
		return nil, invalid(fmt.Errorf("no sink%s carries %s", strings.TrimRight(" "+only, " "), w.Stream))
	}
	r, err := edited(f, func(r *runFile) {
		for _, sink := range w.Sinks {
			if verb == "pause" {
				r.Paused = add(r.Paused, pausedKey(sink, w.Stream))
			} else {
				r.Paused = remove(r.Paused, pausedKey(sink, w.Stream))
			}
		}
	})
	if err != nil {
		return nil, err
	}
	for _, p := range r.Processes {
		out, err := p.ask(orBackground(ctx), verb, w.Stream, only)
		if err != nil {
			return nil, environment(err)
		}
		w.Running = true
		if out.Backfill != "" {
			w.Backfill = out.Backfill
		}
	}
	return w, nil
}

// edited changes the wishes in the run file and returns it as it then is.
func edited(f *config.File, change func(r *runFile)) (*runFile, error) {
	dir := folder(f)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, environment(fmt.Errorf("make the folder of the pipeline: %w", err))
	}
	if err := editRun(dir, func(r *runFile) error { change(r); return nil }); err != nil {
		return nil, environment(err)
	}
	r, err := readRun(dir)
	if err != nil {
		return nil, environment(err)
	}
	return r, nil
}

func orBackground(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// limitedText copies a short answer.
func limitedText(to io.Writer, from io.Reader) error {
	_, err := io.Copy(to, io.LimitReader(from, 4<<10))
	return err
}
