package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/topic"
)

// topicTime bounds a look at a topic.
const topicTime = 30 * time.Second

// topicRows reads the newest rows of a stream from its topic; the embedded
// broker is started for it if nobody runs it.
func topicRows(ctx context.Context, f *config.File, name record.StreamName, n int) (rows []*record.Batch, err error) {
	dir, broker, log := f.Local(f.Dir), "", slog.New(slog.DiscardHandler)
	last, err := readMappings(dir)
	if err != nil {
		return nil, err
	}
	if last == nil {
		return nil, errors.New("the pipeline has not run here yet, so there is no topic")
	}
	ctx, cancel := context.WithTimeout(ctx, topicTime)
	defer cancel()
	if f.Kafka.Embedded {
		mark, err := visit(dir)
		if err != nil {
			return nil, err
		}
		servers := &children{dir: dir, log: log}
		defer func() { err = errors.Join(err, mark.leave(servers.endAll)) }()
		if broker, err = servers.ensure(ctx, brokerChild); err != nil {
			return nil, err
		}
	}
	c, err := kafkaConfig(f, broker, log)
	if err != nil {
		return nil, err
	}
	k, err := topic.Connect(ctx, c)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	return k.Sample(ctx, name, n)
}

// topicRow runs a row of the topic through the rules of the sinks. Nothing is
// masked: whoever may read Kafka has all of it.
func (p *previewer) topicRow(b *record.Batch) (previewRow, error) {
	out := previewRow{Steps: []previewStep{stepOf("topic", "", b)}}
	for _, s := range p.sinks {
		if p.only != "" && s.sink.Name != p.only {
			continue
		}
		if _, err := p.phase(&out, s.sink.Name, s.stream.Shape, mappers.Shape, b); err != nil {
			return out, fmt.Errorf("sink %s: %w", s.sink.Name, err)
		}
	}
	return out, nil
}
