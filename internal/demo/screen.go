package demo

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// screen writes lines that stay and, on a terminal, a few that change.
type screen struct {
	out    io.Writer
	lively bool
	mu     sync.Mutex
	open   int       // changing lines on the screen
	last   time.Time // of the last block without a terminal
}

// line writes a line that stays.
func (s *screen) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintf(s.out, format+"\n", args...)
}

// block shows what is going on right now: over itself on a terminal, else
// every few seconds, so that a log stays short.
func (s *screen) block(lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.lively && time.Since(s.last) < s.pace() {
		return
	}
	s.last = time.Now()
	s.clear()
	for _, l := range lines {
		fmt.Fprintln(s.out, l)
	}
	if s.lively {
		s.open = len(lines)
	}
}

// pace is how often progress is worth a block.
func (s *screen) pace() time.Duration {
	if s.lively {
		return time.Second
	}
	return 5 * time.Second
}

func (s *screen) clear() {
	if s.open > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.open)
		s.open = 0
	}
}

// bar draws how much of all is done.
func bar(done, all int64) string {
	const width = 10
	full := width
	if all > 0 {
		full = int(width * done / all)
	}
	return strings.Repeat("█", full) + strings.Repeat("─", width-full)
}

// seconds writes a duration as 2.1 s.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// grouped writes 41300 as 41,300.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// count writes "1 transaction" and "3 transactions".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return grouped(int64(n)) + " " + what + "s"
}
