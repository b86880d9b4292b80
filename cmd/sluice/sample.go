package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// sampler is a source whose rows can be looked at without running it.
type sampler interface {
	// Sample returns up to n rows of a stream; with n = 0 only their schema.
	Sample(ctx context.Context, stream record.StreamName, n int) (*record.Batch, error)
}

// streamOf returns the source of a stream of f, and its name.
func streamOf(f *config.File, ref string) (*config.Source, record.StreamName, error) {
	name, err := record.ParseStreamName(ref)
	var known []string
	for _, s := range f.Sources {
		for _, local := range s.Streams {
			known = append(known, s.Name+"."+local)
		}
		if err == nil && s.Name == name.Source && (slices.Contains(s.Streams, name.Local()) || len(s.Streams) == 0) {
			return s, name, nil
		}
	}
	return nil, name, invalid(fmt.Errorf("no stream %s; there are %s", ref, strings.Join(known, ", ")))
}

// sample reads rows of a stream from its source. The references of f are resolved.
func sample(ctx context.Context, f *config.File, s *config.Source, name record.StreamName, n int) (*record.Batch, error) {
	p := &pipeline{file: f, board: &progress.Board{}, log: slog.New(slog.DiscardHandler)}
	for _, k := range sourceKinds() {
		if k.Name != s.Kind {
			continue
		}
		source, _, err := k.open(p, s)
		if err != nil {
			return nil, err
		}
		from, ok := source.(sampler)
		if !ok {
			return nil, fmt.Errorf("a source of kind %s shows no rows before it runs", s.Kind)
		}
		return from.Sample(ctx, name, n)
	}
	return nil, errors.New("no source of kind " + s.Kind)
}

// phasesOf returns the rules that rows of a stream go through: those of its
// source, then those of each sink that reads it.
func phasesOf(f *config.File, s *config.Source, name record.StreamName) (protect config.Rules, sinks []sinkStream) {
	protect = protectRules(s, name.Local())
	for _, sink := range f.Sinks {
		for _, stream := range sink.Streams {
			if stream.Source == name.Source && stream.Local == name.Local() {
				sinks = append(sinks, sinkStream{sink, stream})
			}
		}
	}
	return protect, sinks
}

type sinkStream struct {
	sink   *config.Sink
	stream *config.Stream
}

// target returns what the sink writes the stream to, "" if its kind does not say.
func (s sinkStream) target() string {
	for _, k := range sinkKinds() {
		if k.Name == s.sink.Kind && k.Target != nil {
			return k.Target(s.stream.Settings)
		}
	}
	return ""
}

// oneRow copies a row of b into a batch of its own.
func oneRow(b *record.Batch, row int) *record.Batch {
	one := record.NewBatch(b.Schema, nil)
	one.Ops, one.Pos, one.Time = append(one.Ops, b.Ops[row]), append(one.Pos, b.Pos[row]), append(one.Time, b.Time[row])
	for i := range b.Schema.Fields {
		one.After[i].AppendFrom(b.After[i], row, b.Schema.Fields[i].Kind.Width())
	}
	return one
}
