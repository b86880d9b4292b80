package topic

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// LoadCheckpoint returns what SaveCheckpoint stored last under key, nil if
// nothing. It reads the whole checkpoints topic: a call at the start only.
func (p *Publisher) LoadCheckpoint(ctx context.Context, key string) ([]byte, error) {
	topic, want := p.k.cfg.Prefix+checkpointsSuffix, p.checkpointKey(key)
	end, err := p.k.end(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("load checkpoint %s: %w", want, err)
	}
	var data []byte
	err = p.k.read(ctx, topic, end, func(r *kgo.Record) {
		if string(r.Key) == want {
			data = r.Value
		}
	})
	if err != nil {
		return nil, fmt.Errorf("load checkpoint %s: %w", want, err)
	}
	return data, nil
}

// SaveCheckpoint stores data durably beside the records before it returns.
// Which of two checkpoints is newer is for the source to tell, by its epoch.
func (p *Publisher) SaveCheckpoint(ctx context.Context, key string, data []byte) error {
	r := &kgo.Record{Topic: p.k.cfg.Prefix + checkpointsSuffix, Key: []byte(p.checkpointKey(key)), Value: data}
	if err := p.k.produce(ctx, r); err != nil {
		return fmt.Errorf("save checkpoint %s: %w", r.Key, err)
	}
	return nil
}

func (p *Publisher) checkpointKey(key string) string { return p.source + "/" + key }
