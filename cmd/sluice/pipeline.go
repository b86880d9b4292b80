package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/ingest"
	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/topic"
)

const (
	// A source that fails this often in a row ends a run that is to end by itself.
	catchUpAttempts = 5

	// After this long without a sign of life a process loses its partitions to
	// the others. Losing them too early costs a rebalance and nothing else: the
	// sinks' own marks decide.
	session = 10 * time.Second

	publisherPause = time.Second // before a Publisher that lost a record is replaced
)

// pipeline is the running part of a file. Its roles, the sources and sinks,
// fail alone: one that ends never stops another (invariant 10).
type pipeline struct {
	file          *config.File
	only          map[string]bool
	untilCaughtUp bool
	drain         time.Duration // for the last flush of a sink
	board         *progress.Board
	log           *slog.Logger
	kafka         *topic.Kafka
	rules         chains
	s3            string // address of the embedded store
	hook          func(point string)
	control       *control // nil = nobody can ask for anything

	instance  string         // of this folder; each role runs once in it, so names of members are made of both
	ports     map[string]int // of the catalogs of the last run, by sink
	catalogs  map[string]*catalogServer
	closers   []func() error
	consumers []*topic.Consumer
	behind    map[*topic.Consumer]bool // they read what other sinks publish
	accounts  budgets                  // of SaaS accounts
}

// open prepares the sinks: what is wrong with them shows before anything runs.
func (p *pipeline) open(ctx context.Context) error {
	for _, s := range p.file.Sinks {
		if !p.only[s.Name] {
			continue
		}
		if err := p.openSink(ctx, s); err != nil {
			return fmt.Errorf("sink %s: %w", s.Name, err)
		}
	}
	return nil
}

// openSink prepares one sink and its consumer.
func (p *pipeline) openSink(ctx context.Context, s *config.Sink) error {
	kind, err := sinkKindOf(s)
	if err != nil {
		return err
	}
	opened, err := kind.open(ctx, p, s)
	if opened.close != nil {
		p.closers = append(p.closers, opened.close)
	}
	if err != nil {
		return err
	}
	if opened.catalog != nil {
		p.catalogs[s.Name] = opened.catalog
	}
	c := topic.ConsumerConfig{Name: s.Name, Every: opened.every, Bytes: opened.bytes, Rows: opened.rows,
		Drain: p.drain, Session: session, Instance: p.instance + "." + s.Name, Board: p.board, Logger: p.log}
	for i, stream := range s.Streams {
		name, err := record.ParseStreamName(stream.From)
		if err != nil {
			return err
		}
		c.Streams = append(c.Streams, topic.Stream{Name: name, Chain: p.rules.shape(s.Name, stream.Shape),
			Open: func(ctx context.Context) (topic.Sink, error) {
				sink, err := opened.streams[i](ctx)
				if err != nil {
					return nil, err // no typed nil: it would look like a sink
				}
				return hookedSink(sink, p.hook), nil
			}})
	}
	consumer, err := p.kafka.Consume(ctx, c)
	if err != nil {
		return err
	}
	p.consumers = append(p.consumers, consumer)
	if p.behind == nil {
		p.behind = map[*topic.Consumer]bool{}
	}
	p.behind[consumer] = slices.ContainsFunc(s.Streams, func(stream *config.Stream) bool {
		return slices.ContainsFunc(p.file.Sinks, func(other *config.Sink) bool { return other.Name == stream.Source })
	})
	return p.control.sink(s, consumer)
}

// run runs all roles until ctx ends, or until all have caught up. What it
// returns joins what went wrong in them.
func (p *pipeline) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var errs errorList
	var sources, sinks sync.WaitGroup
	reads, failed := 0, make(chan struct{}, len(p.file.Sources))
	for _, s := range p.file.Sources {
		if !p.only[s.Name] {
			continue
		}
		reads++
		sources.Go(func() {
			if err := p.runSource(ctx, s); err != nil {
				p.log.Error("source ended", "source", s.Name, "error", err)
				errs.add(err)
				failed <- struct{}{}
			}
		})
	}
	for _, c := range p.consumers {
		sinks.Go(func() {
			if err := c.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				p.log.Error("sink ended", "error", err)
				errs.add(err)
			}
		})
	}
	if p.file.Kafka.Embedded {
		sinks.Go(func() { p.kafka.Retain(ctx, p.retention()) })
	}
	if p.untilCaughtUp {
		sources.Wait()
		errs.add(p.catchUp(ctx))
		if ctx.Err() != nil {
			errs.add(errors.New("stopped before everything had arrived"))
		}
		cancel()
	} else if reads > 0 {
		// Without any source left nobody would notice: better to end with the reason.
		go func() {
			for range reads {
				select {
				case <-failed:
				case <-ctx.Done():
					return
				}
			}
			cancel()
		}()
	}
	sources.Wait()
	sinks.Wait()
	return errs.join()
}

// retention says what the embedded broker keeps: everything that a sink of the
// file still needs, whichever process runs it.
func (p *pipeline) retention() topic.Retention {
	r := topic.Retention{Age: p.file.Topics.Retention, Sinks: map[string][]record.StreamName{}}
	for _, s := range p.file.Sinks {
		for _, stream := range s.Streams {
			if name, err := record.ParseStreamName(stream.From); err == nil {
				r.Sinks[s.Name] = append(r.Sinks[s.Name], name)
			}
		}
	}
	return r
}

// catchUp waits until everything on the topics is in the sinks; those that
// read what other sinks publish come after these.
func (p *pipeline) catchUp(ctx context.Context) error {
	var errs errorList
	for _, behind := range []bool{false, true} {
		var wait sync.WaitGroup
		for _, c := range p.consumers {
			if p.behind[c] != behind {
				continue
			}
			wait.Go(func() {
				if err := c.CatchUp(ctx); err != nil && ctx.Err() == nil {
					errs.add(err)
				}
			})
		}
		wait.Wait()
	}
	return errs.join()
}

// runSource runs one source. A Publisher that lost a record is replaced, and
// the source starts again from its checkpoint.
func (p *pipeline) runSource(ctx context.Context, s *config.Source) error {
	for {
		err := p.publish(ctx, s)
		var lost *topic.LostError
		if ctx.Err() != nil || !errors.As(err, &lost) {
			return err
		}
		p.log.Warn("source starts again from its checkpoint", "source", s.Name, "error", err)
		for _, row := range p.board.Rows(time.Now()) {
			if row.Side == progress.Source && row.Owner == s.Name && row.State != progress.Parked {
				p.board.Stream(progress.Source, s.Name, row.Stream).Set(progress.Starting, err.Error())
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(publisherPause):
		}
	}
}

func (p *pipeline) publish(ctx context.Context, s *config.Source) error {
	kind, err := sourceKindOf(s)
	if err != nil {
		return err
	}
	source, origin, err := kind.open(p, s)
	if err != nil {
		return err
	}
	leave, err := p.control.source(s.Name, source)
	if err != nil {
		return err
	}
	defer leave()
	out, err := p.kafka.Publisher(s.Name, origin, p.board)
	if err != nil {
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	defer out.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with this function
		select {
		case <-out.Failed():
			cancel()
		case <-ctx.Done():
		}
	}()
	c := ingest.Config{Name: s.Name, Source: source, Output: hookedOutput(out, p.hook), Protect: p.rules.protect(s),
		NewColumns: p.rules.newColumns(s), Reject: out.Reject, Board: p.board, Logger: p.log}
	if p.untilCaughtUp {
		c.Retry.Attempts = catchUpAttempts
	}
	err = ingest.Run(ctx, c)
	if lost := out.Err(); lost != nil {
		return lost
	}
	return err
}

// close releases what open opened.
func (p *pipeline) close() error {
	var errs []error
	for _, c := range slices.Backward(p.closers) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// errorList collects errors of several goroutines.
type errorList struct {
	mu   sync.Mutex
	errs []error
}

func (l *errorList) add(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.errs = append(l.errs, err)
	}
}

func (l *errorList) join() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}
