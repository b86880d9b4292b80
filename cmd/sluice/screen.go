package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-data/sluice/progress"
)

const (
	redrawEvery = 500 * time.Millisecond
	logEvery    = 10 * time.Second
)

// screen shows the progress of a run: a block of lines that is drawn anew on a
// terminal, a log line per stream now and then elsewhere. Log lines written
// through it appear above the block.
type screen struct {
	out   io.Writer
	live  bool // a terminal
	plain bool // no colours, no signs beyond ASCII

	mu    sync.Mutex
	lines int // of the block on the screen
	last  map[string]seen
}

// seen is what a stream had at the last drawing.
type seen struct {
	delivered int64
	at        time.Time
	rate      float64
}

func newScreen(out io.Writer, quiet bool) *screen {
	s := &screen{out: out, last: map[string]seen{}, plain: os.Getenv("NO_COLOR") != ""}
	s.live = !quiet && isTerminal(out) && os.Getenv("TERM") != "dumb"
	return s
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), termios)
	return err == nil
}

// Write puts a log line above the block.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	return s.out.Write(p)
}

func (s *screen) erase() {
	if s.lines > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.lines)
		s.lines = 0
	}
}

// show draws until ctx ends and leaves nothing behind on a terminal: the
// summary follows.
func (s *screen) show(ctx context.Context, board *progress.Board, log *slog.Logger) {
	every := logEvery
	if s.live {
		every = redrawEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.mu.Lock()
			s.erase()
			s.mu.Unlock()
			return
		case now := <-tick.C:
			if s.live {
				s.draw(board.Rows(now), now)
			} else {
				s.log(board.Rows(now), now, log)
			}
		}
	}
}

// rate returns delivered rows per second since the last call, smoothed.
func (s *screen) rate(r progress.Row, now time.Time) (perSecond float64, moved bool) {
	key := string(r.Side) + r.Owner + "\x00" + r.Stream
	before, known := s.last[key]
	after := seen{r.Delivered, now, 0}
	if passed := now.Sub(before.at).Seconds(); known && passed > 0 {
		after.rate = float64(r.Delivered-before.delivered) / passed
		if s.live {
			after.rate = (after.rate + 2*before.rate) / 3
		}
	}
	s.last[key] = after
	return after.rate, !known || r.Delivered != before.delivered
}

func (s *screen) draw(rows []progress.Row, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.block(rows, now)
	s.erase()
	fmt.Fprint(s.out, text)
	s.lines = strings.Count(text, "\n")
}

// block is one line per stream.
func (s *screen) block(rows []progress.Row, now time.Time) string {
	var cells [][]string
	for _, r := range rows {
		rate, _ := s.rate(r, now)
		c := []string{string(r.Side), r.Owner, r.Stream, string(r.State), grouped(r.Delivered), share(r), fmt.Sprintf("%s rows/s", grouped(int64(rate))),
			"behind " + lasting(seconds(r.Behind))}
		switch {
		case r.Note != "":
			c = append(c, r.Note)
		case r.LastCommit != "":
			c = append(c, fmt.Sprintf("%s, %s ago", s.ascii(commitName(r.LastCommit)), lasting(seconds(r.CommitAge))))
		}
		cells = append(cells, c)
	}
	lines := splitLines(aligned(cells, 4, 5, 6))
	for i := range lines {
		lines[i] = s.fit(lines[i])
		if i < len(rows) && !s.plain && (rows[i].State == progress.Parked || rows[i].State == progress.Failed) {
			lines[i] = "\x1b[31m" + lines[i] + "\x1b[0m"
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// share is how much of a backfill is done.
func share(r progress.Row) string {
	if r.Total <= 0 || r.State != progress.Backfilling {
		return ""
	}
	return fmt.Sprintf("%d %%", min(100, 100*r.Read/r.Total))
}

func (s *screen) ascii(text string) string {
	if s.plain {
		return strings.ReplaceAll(text, "…", "..")
	}
	return text
}

// fit cuts a line at the width of the terminal: a wrapped line would break the block.
func (s *screen) fit(line string) string {
	f, ok := s.out.(*os.File)
	if !ok {
		return line
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if r := []rune(line); err == nil && size.Col > 0 && len(r) > int(size.Col) {
		return string(r[:size.Col])
	}
	return line
}

// log writes a line per stream that has moved.
func (s *screen) log(rows []progress.Row, now time.Time, log *slog.Logger) {
	for _, r := range rows {
		s.mu.Lock()
		rate, moved := s.rate(r, now)
		s.mu.Unlock()
		if !moved {
			continue
		}
		args := []any{"side", r.Side, "name", r.Owner, "stream", r.Stream, "state", r.State, "rows", r.Delivered,
			"rows_per_second", int64(rate), "behind_seconds", r.Behind}
		if r.LastCommit != "" {
			args = append(args, "last_commit", r.LastCommit)
		}
		log.Info("progress", args...)
	}
}
