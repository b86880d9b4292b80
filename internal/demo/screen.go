package demo

import (
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
)

// screen writes lines that stay and, on a terminal, one line that changes.
type screen struct {
	out    io.Writer
	lively bool
	mu     sync.Mutex
	open   bool // the changing line is on the screen
}

// line writes a line that stays.
func (s *screen) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintf(s.out, format+"\n", args...)
}

// status shows what is going on right now: over itself on a terminal, else as
// a line of its own, which the caller paces by every.
func (s *screen) status(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.lively {
		return
	}
	s.clear()
	fmt.Fprintf(s.out, format, args...)
	s.open = true
}

// every is how often the changing line may change.
func (s *screen) every() time.Duration {
	if s.lively {
		return 500 * time.Millisecond
	}
	return 5 * time.Second
}

func (s *screen) clear() {
	if s.open {
		fmt.Fprint(s.out, "\r\x1b[K")
		s.open = false
	}
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
