package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/ingest"
	"github.com/sluice-data/sluice/ingest/postgres"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/objects"
	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/topic"
)

// summary is the result of run.
type summary struct {
	Name    string         `json:"name"`
	Seconds float64        `json:"seconds"`
	Streams []progress.Row `json:"streams"`
	endpoints
}

func (a *app) runCommand() *cobra.Command {
	r := &runner{app: a}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Carry changes until it is stopped, or until everything has arrived",
		Long: "run reads the sources and feeds the sinks of the configuration file until it is stopped.\n" +
			"The first SIGINT or SIGTERM writes what is buffered and ends; the second one ends at once.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return r.run() },
	}
	cmd.Flags().StringVar(&r.only, "only", "", "names of the sources and sinks to run, with commas between them")
	cmd.Flags().BoolVar(&r.untilCaughtUp, "until-caught-up", false, "end when everything that was there at the start has arrived")
	cmd.Flags().DurationVar(&r.drain, "drain", 30*time.Second, "time to write what is buffered after a signal")
	return cmd
}

// runner is one run of a file.
type runner struct {
	*app
	only          string
	untilCaughtUp bool
	drain         time.Duration

	file    *config.File
	dir     string
	roles   []string
	since   time.Time
	board   progress.Board
	log     *slog.Logger
	replace *strings.Replacer // secrets

	mu        sync.Mutex
	state     string
	endpoints endpoints
}

// memoryLimit is what the collector works towards: it runs more often before
// the process grows beyond it (invariant 9). GOMEMLIMIT overrides it.
const memoryLimit = 256 << 20

func (r *runner) run() error {
	r.since, r.state = time.Now(), "starting"
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	var err error
	if r.file, err = r.load(); err != nil {
		return err
	}
	if err := checkAll(r.file); err != nil {
		return err
	}
	only, err := selected(r.file, r.only)
	if err != nil {
		return err
	}
	r.roles = slices.Sorted(maps.Keys(only))
	ring, screen, err := r.secrets()
	if err != nil {
		return err
	}
	r.dir = r.file.Local(r.file.Dir)
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return environment(fmt.Errorf("make the folder of the pipeline: %w", err))
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// From the first signal on the system's own handling is back: the second one ends the process.
	context.AfterFunc(ctx, func() {
		stop()
		r.set("draining")
		r.log.Info("stopping: writing what is buffered", "at_most", r.drain)
	})
	err = r.inside(ctx, only, ring, screen)
	if err != nil {
		// Invariant 7: an error may quote the address that a library was given.
		if clean := r.replace.Replace(err.Error()); clean != err.Error() {
			err = &failure{exitCode(err), errors.New(clean)}
		}
	}
	r.finish(err)
	return err
}

// secrets resolves the references of the file and sets up the log, which must
// not hold them.
func (r *runner) secrets() (*keys.Keeper, *screen, error) {
	warnings, err := resolve(r.file)
	if err != nil {
		return nil, nil, environment(err)
	}
	ring, err := openKeys(context.Background(), r.file, keys.KeeperConfig{Changed: r.keyChanged})
	if err != nil {
		return nil, nil, environment(err)
	}
	current := ring.Current()
	screen := newScreen(r.stderr, r.json)
	r.replace = redactor(r.file.SecretValues())
	if r.log, err = r.logger(screen, r.file.SecretValues()); err != nil {
		return nil, nil, err
	}
	for _, w := range append(warnings, current.Warnings()...) {
		r.log.Warn(w)
	}
	for _, ref := range current.Short() {
		r.log.Warn("a short key can be found by trying; use at least 16 bytes", "key", ref.String(), "fix", "openssl rand -hex 32")
	}
	for _, ref := range current.Refs() {
		if err := current.Err(ref); err != nil {
			r.log.Error("a key is not available; the streams that need it are parked", "key", ref.String(), "error", err)
		}
	}
	return ring, screen, nil
}

// keyChanged tells what happened to a key while its streams run.
func (r *runner) keyChanged(c keys.Change) {
	switch {
	case c.Err == nil:
		r.log.Info("a key was replaced; it is used from the next batch on", "key", c.Ref.String(), "primary", c.Primary)
	case c.Kept:
		r.log.Warn("a key cannot be confirmed; the one in memory is used for now", "key", c.Ref.String(), "error", c.Err)
	default:
		r.log.Error("a key is gone; the streams that need it are parked", "key", c.Ref.String(), "error", c.Err)
	}
}

// inside runs with the marks of this process on its folder.
func (r *runner) inside(ctx context.Context, only map[string]bool, ring *keys.Keeper, screen *screen) (err error) {
	admin, err := startAdmin(r.file.Admin.Listen, r.report, &r.board)
	if err != nil {
		return err
	}
	defer admin.stop()
	r.at(func(e *endpoints) { e.Admin = admin.addr })
	mark, err := enter(r.dir, process{PID: os.Getpid(), Started: startTime(os.Getpid()), Since: r.since,
		Config: r.file.Path(), Roles: r.roles, Admin: admin.addr})
	if err != nil {
		return environment(err)
	}
	servers := &children{dir: r.dir, log: r.log}
	defer func() {
		if leaving := mark.leave(servers.endAll); leaving != nil {
			err = errors.Join(err, leaving)
		}
	}()
	background, stopBackground := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer stopBackground()
	watch := func(k childKind) (string, error) {
		addr, err := servers.ensure(ctx, k)
		if err != nil {
			return "", environment(err)
		}
		wait.Go(func() {
			if err := servers.watch(background, k); err != nil {
				r.log.Error("embedded server is not watched any more", "server", k.name, "error", err)
			}
		})
		return addr, nil
	}
	last, err := readRun(r.dir)
	if err != nil {
		return environment(err)
	}
	file, err := openMappings(r.dir, r.file, ring.Current(), only, r.log)
	if err != nil {
		return environment(err)
	}
	p := &pipeline{file: r.file, only: only, untilCaughtUp: r.untilCaughtUp, drain: r.drain * 2 / 3, board: &r.board, log: r.log,
		rules: chains{f: r.file, keys: ring.Current, file: file, people: &people{dir: r.dir, keys: ring.Current}}, hook: killer(), instance: last.Instance, ports: last.Catalogs, catalogs: map[string]*catalogServer{}}
	p.control = newControl(r.dir, &r.board, r.log)
	admin.control.Store(p.control)
	if err := r.connect(ctx, p, watch); err != nil {
		return r.interrupted(ctx, err)
	}
	defer p.kafka.Close()
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.open(ctx); err != nil {
		var problems config.Problems
		if errors.As(err, &problems) {
			return invalid(problems)
		}
		return r.interrupted(ctx, environment(err))
	}
	if err := mark.update(func(file *runFile, me *process) { r.announce(p, file, me) }); err != nil {
		return environment(err)
	}
	admin.ready.Store(true)
	r.set("running")
	r.log.Info("running", "roles", strings.Join(r.roles, ","), "admin", "http://"+admin.addr, "kafka", r.endpoints.Kafka, "s3", r.endpoints.S3, "catalog", r.endpoints.Catalog)
	wait.Go(func() { ring.Run(background) })
	wait.Go(func() { screen.show(background, &r.board, r.log) })
	return r.bounded(ctx, p)
}

// announce writes down where engines find the catalogs.
func (r *runner) announce(p *pipeline, file *runFile, me *process) {
	for _, s := range r.file.Sinks {
		c := p.catalogs[s.Name]
		if c == nil {
			continue
		}
		file.Catalogs[s.Name] = c.port()
		if me.Catalog == "" {
			me.Catalog = c.addr
		}
	}
	r.at(func(e *endpoints) { e.Catalog = me.Catalog })
}

// connect starts the embedded servers that the file asks for and reaches the brokers.
func (r *runner) connect(ctx context.Context, p *pipeline, watch func(childKind) (string, error)) error {
	broker := ""
	var err error
	if r.file.Kafka.Embedded {
		if broker, err = watch(brokerChild); err != nil {
			return err
		}
	}
	if p.needsS3() {
		if p.s3, err = watch(s3Child); err != nil {
			return err
		}
	}
	c, err := kafkaConfig(r.file, broker, r.log)
	if err != nil {
		return environment(err)
	}
	if p.kafka, err = topic.Connect(ctx, c); err != nil {
		return environment(err)
	}
	r.at(func(e *endpoints) { e.Kafka, e.S3 = strings.Join(c.Brokers, ","), p.s3 })
	return nil
}

// bounded runs p; after ctx has ended it gives it the drain time to end.
func (r *runner) bounded(ctx context.Context, p *pipeline) error {
	done := make(chan error, 1)
	go func() { done <- p.run(ctx) }()
	select {
	case err := <-done:
		return classify(err)
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return classify(err)
	case <-time.After(r.drain):
		return fmt.Errorf("not everything was written in %s after the signal; nothing is lost: the next run goes on from the last commit", r.drain)
	}
}

// classify tells surroundings that refuse or are away from something that
// broke. The chain ends here: a rule that does not fit its stream shows when
// others already run, and is not reported as a refused file.
func classify(err error) error {
	if err == nil {
		return nil
	}
	code := exitFailure
	var database *postgres.Error
	var store *objects.Error
	if errors.As(err, &database) || errors.As(err, &store) || ingest.Permanent(err) {
		code = exitEnvironment
	}
	return &failure{code, errors.New(err.Error())}
}

// interrupted hides what a signal during the start has caused.
func (r *runner) interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (r *runner) set(state string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = state
}

func (r *runner) at(change func(e *endpoints)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.endpoints)
}

// report is what status gets.
func (r *runner) report() report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return report{Name: r.file.Name, PID: os.Getpid(), Since: r.since, State: r.state, Roles: r.roles,
		Endpoints: r.endpoints, Streams: r.board.Rows(time.Now())}
}

// finish says what was done.
func (r *runner) finish(err error) {
	s := summary{Name: r.file.Name, Seconds: time.Since(r.since).Seconds(), Streams: r.board.Rows(time.Now()), endpoints: r.endpoints}
	r.result = s
	if r.json || len(s.Streams) == 0 {
		return
	}
	how := "stopped"
	if r.untilCaughtUp && err == nil {
		how = "caught up"
	} else if err != nil {
		how = "ended with errors"
	}
	_, _ = io.WriteString(r.stdout, plainText(fmt.Sprintf("%s   %s after %s\n%s", s.Name, how, lasting(time.Since(r.since)), streamTable(s.Streams))))
}
