package topic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluice-data/sluice/record"
)

// schemaWait is how long a consumer waits for a schema. Its writer
// acknowledges it before the first record, so that a longer wait helps nobody.
const schemaWait = 30 * time.Second

// errNoSchema says that a record's schema is not on the schemas topic.
var errNoSchema = errors.New("its schema is not on the schemas topic")

// Schemas holds the schemas that the sources of the pipeline have published.
// It follows the schemas topic from its first use on.
type Schemas struct {
	k    *Kafka
	once sync.Once
	stop context.CancelFunc
	done chan struct{}

	mu    sync.Mutex
	known map[string]*record.Schema
	grown chan struct{} // closed and replaced when known has grown
}

func newSchemas(k *Kafka) *Schemas {
	return &Schemas{k: k, known: map[string]*record.Schema{}, grown: make(chan struct{})}
}

func schemaKey(stream record.StreamName, id string) string { return stream.String() + "@" + id }

// Get returns the schema of a stream, waiting for it until ctx ends.
func (s *Schemas) Get(ctx context.Context, stream record.StreamName, id string) (*record.Schema, error) {
	s.once.Do(s.start)
	for key := schemaKey(stream, id); ; {
		s.mu.Lock()
		got, grown := s.known[key], s.grown
		s.mu.Unlock()
		if got != nil {
			return got, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("schema %s: %w: %w", key, errNoSchema, ctx.Err())
		case <-s.done:
			return nil, fmt.Errorf("schema %s: %w: the connection is closed", key, errNoSchema)
		case <-grown:
		}
	}
}

// publish stores a schema before its first record.
func (s *Schemas) publish(ctx context.Context, schema *record.Schema) error {
	value, err := json.Marshal(schema)
	if err != nil {
		return fmt.Errorf("schema of %s: %w", schema.Stream, err)
	}
	r := &kgo.Record{Topic: s.k.cfg.Prefix + schemasSuffix, Key: []byte(schemaKey(schema.Stream, schema.ID)), Value: value}
	if err := s.k.produce(ctx, r); err != nil {
		return fmt.Errorf("publish the schema of %s: %w", schema.Stream, err)
	}
	return nil
}

func (s *Schemas) start() {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.mu.Lock()
	s.stop, s.done = stop, done
	s.mu.Unlock()
	go func() {
		defer close(done)
		s.follow(ctx)
	}()
}

func (s *Schemas) follow(ctx context.Context) {
	name := s.k.cfg.Prefix + schemasSuffix
	for ctx.Err() == nil {
		err := s.k.read(ctx, name, -1, s.learn)
		if ctx.Err() == nil {
			s.k.cfg.Logger.Warn("read the schemas topic again", "topic", name, "error", err)
			sleep(ctx, time.Second)
		}
	}
}

func (s *Schemas) learn(r *kgo.Record) {
	schema := new(record.Schema)
	_, id, ok := bytes.Cut(r.Key, []byte("@"))
	if err := json.Unmarshal(r.Value, schema); !ok || err != nil {
		s.k.cfg.Logger.Warn("a record of the schemas topic is no schema", "topic", r.Topic, "offset", r.Offset)
		return
	}
	schema.ID = string(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[string(r.Key)] = schema
	close(s.grown)
	s.grown = make(chan struct{})
}

func (s *Schemas) close() {
	s.once.Do(func() {}) // no start after the close
	s.mu.Lock()
	stop, done := s.stop, s.done
	s.mu.Unlock()
	if stop != nil {
		stop()
		<-done
	}
}
