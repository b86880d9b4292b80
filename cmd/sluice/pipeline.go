package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/ingest"
	"github.com/sluice-data/sluice/lake"
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

	instance  string         // of this folder; each role runs once in it, so names of members are made of both
	ports     map[string]int // of the catalogs of the last run, by sink
	catalogs  map[string]*catalogServer
	lakes     []*lake.Lake
	consumers []*topic.Consumer
}

// open prepares the sinks: what is wrong with them shows before anything runs.
func (p *pipeline) open(ctx context.Context) error {
	for _, s := range p.file.Sinks {
		if !p.only[s.Name] {
			continue
		}
		if err := p.openLake(ctx, s); err != nil {
			return fmt.Errorf("sink %s: %w", s.Name, err)
		}
	}
	return nil
}

func (p *pipeline) openLake(ctx context.Context, s *config.Sink) error {
	c, err := lakeConfig(p.file, s, p.s3, p.board, p.log, p.hook)
	if err != nil {
		return err
	}
	l, err := lake.Open(ctx, c)
	if err != nil {
		return err
	}
	p.lakes = append(p.lakes, l)
	settings := s.Settings.(*icebergSettings)
	if settings.S3.Embedded {
		if err := l.EnsureBucket(ctx); err != nil {
			return err
		}
	}
	if c.Catalog.SQL != "" {
		served, err := serveCatalog(ctx, p.file, settings, c, p.ports[s.Name])
		if err != nil {
			return err
		}
		p.catalogs[s.Name] = served
	}
	cc := topic.ConsumerConfig{Name: s.Name, Every: settings.Commit.Every, Bytes: int(settings.Commit.Bytes),
		Drain: p.drain, Session: session, Instance: p.instance + "." + s.Name, Board: p.board, Logger: p.log}
	for _, stream := range s.Streams {
		t, err := tableConfig(p.file, stream)
		if err != nil {
			return err
		}
		cc.Streams = append(cc.Streams, topic.Stream{Name: t.Stream, Chain: p.rules.shape(stream.Shape),
			Open: func(context.Context) (topic.Sink, error) {
				table, err := l.Table(t)
				if err != nil {
					return nil, err
				}
				return hookedSink(table, p.hook), nil
			}})
	}
	consumer, err := p.kafka.Consume(ctx, cc)
	if err != nil {
		return err
	}
	p.consumers = append(p.consumers, consumer)
	return nil
}

// tableConfig returns how a stream of a sink goes into its table.
func tableConfig(f *config.File, s *config.Stream) (lake.TableConfig, error) {
	settings, ok := s.Settings.(*icebergStream)
	if !ok {
		return lake.TableConfig{}, fmt.Errorf("stream %s is of no lake", s.From)
	}
	name, err := record.ParseStreamName(s.From)
	if err != nil {
		return lake.TableConfig{}, err
	}
	topicName, err := topic.TopicName(f.Name, name)
	if err != nil {
		return lake.TableConfig{}, err
	}
	return lake.TableConfig{Stream: name, Topic: topicName, Table: settings.Table, Mode: settings.Mode, PartitionBy: settings.PartitionBy,
		SortBy: settings.SortBy, TargetFileBytes: int64(settings.FileBytes), ZstdLevel: settings.ZstdLevel}, nil
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

// catchUp waits until everything on the topics is in the sinks.
func (p *pipeline) catchUp(ctx context.Context) error {
	var errs errorList
	var wait sync.WaitGroup
	for _, c := range p.consumers {
		wait.Go(func() {
			if err := c.CatchUp(ctx); err != nil && ctx.Err() == nil {
				errs.add(err)
			}
		})
	}
	wait.Wait()
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
	source, origin, err := newSource(p.file, s, p.untilCaughtUp, p.board, p.log)
	if err != nil {
		return err
	}
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
	for _, s := range p.catalogs {
		errs = append(errs, s.close())
	}
	for _, l := range p.lakes {
		errs = append(errs, l.Close())
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

// databaseOf returns the database that an address names, "" if it names none.
func databaseOf(address string) string {
	if strings.Contains(address, "://") {
		u, err := url.Parse(address)
		if err != nil {
			return ""
		}
		return strings.TrimPrefix(u.Path, "/")
	}
	for _, word := range strings.Fields(address) {
		if name, ok := strings.CutPrefix(word, "dbname="); ok {
			return strings.Trim(name, "'")
		}
	}
	return ""
}
