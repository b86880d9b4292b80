package chaos

import (
	"context"
	"time"
)

// wait pauses for ms milliseconds and reports whether ctx is still alive.
func wait(ctx context.Context, ms int) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Duration(ms) * time.Millisecond):
		return true
	}
}
