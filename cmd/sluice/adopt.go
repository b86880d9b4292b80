package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/activation"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/topic"
)

// delivered is one stream into a destination, for commands that look at it
// while no process delivers it.
type delivered struct {
	sink    *config.Sink
	stream  *config.Stream
	account *account
	conn    *activation.Connection
	state   *state.Connection
	rows    activation.Rows
	parts   []int32
	name    record.StreamName
	chain   func(*record.Schema) (topic.Chain, error)
}

// target names the object: crm.contacts.
func (d *delivered) target() string {
	return d.sink.Name + "." + d.stream.Settings.(*saasStream).Object
}

// activationSink returns the sink called name.
func activationSink(f *config.File, name string) (*config.Sink, error) {
	var known []string
	for _, s := range f.Sinks {
		if !isActivation(s) {
			continue
		}
		if s.Name == name {
			return s, nil
		}
		known = append(known, s.Name)
	}
	if len(known) == 0 {
		return nil, invalid(errors.New("the file has no sink that delivers to a SaaS or an API"))
	}
	return nil, invalid(fmt.Errorf("no sink %q that delivers to a SaaS or an API; there is %s", name, strings.Join(known, ", ")))
}

func isActivation(s *config.Sink) bool {
	switch s.Settings.(type) {
	case *saasSettings, *httpSettings:
		return true
	}
	return false
}

// eachDelivered opens the streams of sinks and calls do with each. The
// references of f are resolved; an error holds no secret.
func eachDelivered(ctx context.Context, f *config.File, sinks []*config.Sink, do func(context.Context, *delivered) error) error {
	if err := os.MkdirAll(activationDir(f), 0o700); err != nil {
		return environment(fmt.Errorf("make the folder of the activation state: %w", err))
	}
	if _, err := resolve(f); err != nil {
		return environment(err)
	}
	ring, err := openKeys(ctx, f, keys.KeeperConfig{Start: 1})
	if err != nil {
		return environment(err)
	}
	err = withKafka(ctx, f, func(k *topic.Kafka) error {
		p := &pipeline{file: f, kafka: k, board: &progress.Board{}, log: slog.New(slog.DiscardHandler),
			rules: chains{f: f, keys: ring.Current, people: &people{dir: f.Local(f.Dir), keys: ring.Current}}}
		for _, s := range sinks {
			if err := p.delivered(ctx, s, do); err != nil {
				return err
			}
		}
		return nil
	})
	var coded *failure
	switch {
	case err == nil:
		return nil
	case errors.As(err, &coded):
		return &failure{coded.code, errors.New(redactor(f.SecretValues()).Replace(err.Error()))}
	}
	return environment(errors.New(redactor(f.SecretValues()).Replace(err.Error())))
}

// delivered calls do with each stream of one sink.
func (p *pipeline) delivered(ctx context.Context, s *config.Sink, do func(context.Context, *delivered) error) (err error) {
	a := &account{}
	defer func() { err = errors.Join(err, a.close()) }()
	streams, err := p.openDelivered(ctx, a, s)
	if err != nil {
		return err
	}
	for _, d := range streams {
		if err := do(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// openDelivered opens an account, and returns the streams of its sink.
func (p *pipeline) openDelivered(ctx context.Context, a *account, s *config.Sink) ([]*delivered, error) {
	settings, own := accountOf(s)
	if err := errors.Join(a.remember(ctx, p, s, settings), a.reach(p, s, settings, own)); err != nil {
		return nil, fmt.Errorf("sink %s: %w", s.Name, err)
	}
	var out []*delivered
	for _, stream := range s.Streams {
		name, err := record.ParseStreamName(stream.From)
		if err != nil {
			return nil, err
		}
		d := &delivered{sink: s, stream: stream, account: a, name: name, chain: p.rules.shape(s.Name, stream.Shape)}
		if d.conn, err = a.connection(ctx, p, s, stream, settings); err != nil {
			return nil, fmt.Errorf("stream %s: %w", stream.From, err)
		}
		if d.state, err = a.store.Connection(ctx, s.Name+"/"+name.String()); err != nil {
			return nil, err
		}
		for part := range p.file.Topics.Partitions {
			d.parts = append(d.parts, int32(part))
		}
		d.rows = func(ctx context.Context, each func(*record.Batch) error) error {
			return p.kafka.Scan(ctx, name, d.chain, each)
		}
		out = append(out, d)
	}
	return out, nil
}

// adoption is the result of adopt for one stream.
type adoption struct {
	Stream string `json:"stream"`
	Target string `json:"target"`
	activation.Adopted
}

func (a *app) adoptCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "adopt SINK",
		Short: "Learn which records of a destination are equal to rows already, so that they are not sent",
		Long: "adopt reads, by the match field, the records of all rows on the topics of a sink that its state does not know yet.\n" +
			"Equal records count as delivered, of the others only what differs will be sent. It writes nothing to the\n" +
			"destination, and adopted records are never deleted. Load the topics first (sluice run --only SOURCE\n" +
			"--until-caught-up); no process may deliver the sink meanwhile.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, sinks, err := a.loadSink(args[0])
			if err != nil {
				return err
			}
			ctx, stop := untilTerminated()
			defer stop()
			result := []adoption{}
			err = eachDelivered(ctx, f, sinks, func(ctx context.Context, d *delivered) error {
				found, err := d.conn.Adopt(ctx, d.state, d.rows, d.parts)
				result = append(result, adoption{d.stream.From, d.target(), found})
				return err
			})
			a.result = result
			if err != nil {
				return err
			}
			if !a.json {
				for _, r := range result {
					fmt.Fprintf(a.stdout, "%s   %s asked for: %s equal, %s different, %s not there; %s known before\n", r.Target,
						count(int(r.Rows), "record"), grouped(r.Equal), grouped(r.Different), grouped(r.Missing), grouped(r.Known))
					if r.Taken+r.NoMatch > 0 {
						fmt.Fprintf(a.stdout, "      %s share a match value with another row, %s have none\n", grouped(r.Taken), grouped(r.NoMatch))
					}
				}
			}
			return nil
		},
	}
}

// loadSink reads the file and finds the sink of a command.
func (a *app) loadSink(name string) (*config.File, []*config.Sink, error) {
	f, err := a.load()
	if err != nil {
		return nil, nil, err
	}
	if err := checkAll(f); err != nil {
		return nil, nil, err
	}
	s, err := activationSink(f, name)
	return f, []*config.Sink{s}, err
}

// drift is the result of drift and reconcile for one stream.
type drift struct {
	Stream string `json:"stream"`
	Target string `json:"target"`
	activation.Drift
	Backfill string `json:"backfill,omitempty"` // what sends the values again
}

func (a *app) driftCommand() *cobra.Command {
	var reveal bool
	var most int
	cmd := &cobra.Command{
		Use:   "drift SINK",
		Short: "Say which delivered records somebody has changed in the destination by hand",
		Long: "drift reads every record that the sink has delivered and compares it with what the destination acknowledged.\n" +
			"The exit code is 1 if any differs. No process may deliver the sink meanwhile.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.drift(args[0], most, reveal, false) },
	}
	cmd.Flags().BoolVar(&reveal, "reveal", false, "show the records' ids in full")
	cmd.Flags().IntVarP(&most, "most", "n", 10, "list so many records of each stream")
	return cmd
}

func (a *app) reconcileCommand() *cobra.Command {
	var apply, reveal bool
	var most int
	cmd := &cobra.Command{
		Use:   "reconcile SINK",
		Short: "Send again what somebody has changed in the destination by hand",
		Long: "reconcile reports as drift does. With --apply the state forgets the values that differ, and the streams are\n" +
			"loaded anew by the next run: it sends these values and no others.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.drift(args[0], most, reveal, apply) },
	}
	cmd.Flags().BoolVar(&apply, "apply", false, "have the values sent again")
	cmd.Flags().BoolVar(&reveal, "reveal", false, "show the records' ids in full")
	cmd.Flags().IntVarP(&most, "most", "n", 10, "list so many records of each stream")
	return cmd
}

func (a *app) drift(sink string, most int, reveal, apply bool) error {
	if most < 0 {
		return invalid(errors.New("-n cannot be negative"))
	}
	f, sinks, err := a.loadSink(sink)
	if err != nil {
		return err
	}
	ctx, stop := untilTerminated()
	defer stop()
	result := []drift{}
	differ := int64(0)
	err = eachDelivered(ctx, f, sinks, func(ctx context.Context, d *delivered) error {
		found, err := d.conn.Drift(ctx, d.state, most, apply)
		if err != nil {
			return err
		}
		one := drift{Stream: d.stream.From, Target: d.target(), Drift: found}
		for i := range one.Records {
			if !reveal {
				one.Records[i].ID = masked(one.Records[i].ID)
			}
		}
		differ += found.Drifted + found.Missing
		result = append(result, one)
		return nil
	})
	if err != nil {
		return err
	}
	for i := range result {
		if r := &result[i]; apply && r.Drifted+r.Missing > 0 {
			w, err := askBackfill(ctx, f, r.Stream)
			if err != nil {
				return err
			}
			r.Backfill = w.Backfill
		}
	}
	a.result = result
	if !a.json {
		for i := range result {
			fmt.Fprint(a.stdout, asciiDots(plainText(result[i].text())))
		}
	}
	if differ > 0 && !apply {
		return &failure{exitFailure, fmt.Errorf("%s not as delivered; sluice reconcile %s --apply has them sent again", count(int(differ), "record"), sink)}
	}
	return nil
}

func (d *drift) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s   %s checked: %s drifted, %s missing\n", d.Target, count(int(d.Checked), "record"), grouped(d.Drifted), grouped(d.Missing))
	for _, name := range slices.Sorted(maps.Keys(d.Fields)) {
		fmt.Fprintf(&b, "  field %s differs in %s\n", name, count(int(d.Fields[name]), "record"))
	}
	for _, r := range d.Records {
		what := "missing"
		if !r.Missing {
			what = strings.Join(r.Fields, ", ")
		}
		fmt.Fprintf(&b, "    %s  %s\n", r.ID, what)
	}
	if d.Backfill != "" {
		fmt.Fprintf(&b, "  %s is loaded anew by the next run, which sends these values again\n", d.Stream)
	}
	return b.String()
}

// sending is what plan says of one stream of a SaaS sink.
type sending struct {
	Stream string `json:"stream"`
	Target string `json:"target"`
	activation.Plan
	Calls         int64   `json:"calls"`          // of the next run
	BackfillCalls int64   `json:"backfill_calls"` // of a backfill
	PerDay        float64 `json:"quota_per_day"`  // calls; 0 = the spec declares none
}

// dryRun says what the SaaS sinks of a file would send.
func dryRun(f *config.File, n int, reveal bool) ([]sending, error) {
	var sinks []*config.Sink
	for _, s := range f.Sinks {
		if isActivation(s) {
			sinks = append(sinks, s)
		}
	}
	result := []sending{}
	if len(sinks) == 0 {
		return result, nil
	}
	ctx, stop := untilTerminated()
	defer stop()
	err := eachDelivered(ctx, f, sinks, func(ctx context.Context, d *delivered) error {
		p, err := d.conn.Plan(ctx, d.state, d.rows, n)
		if err != nil {
			return err
		}
		s := sending{Stream: d.stream.From, Target: d.target(), Plan: p, Calls: p.Next.Calls(d.conn.Batch()), BackfillCalls: p.Backfill.Calls(d.conn.Batch())}
		for _, q := range d.account.dest.Quotas() {
			if day := float64(q.Requests) * float64(24*time.Hour) / float64(q.Window); s.PerDay == 0 || day < s.PerDay {
				s.PerDay = day
			}
		}
		if !reveal {
			s.mask()
		}
		result = append(result, s)
		return nil
	})
	return result, err
}

// mask hides the values of the samples.
func (s *sending) mask() {
	for i := range s.Samples {
		d := &s.Samples[i]
		d.Match = masked(d.Match)
		for j := range d.Fields {
			d.Fields[j].Old, d.Fields[j].New = masked(d.Fields[j].Old), masked(d.Fields[j].New)
		}
	}
}

func (s *sending) text() string {
	var b strings.Builder
	part := func(calls int64) string {
		if s.PerDay == 0 {
			return fmt.Sprintf("~%s", count(int(calls), "call"))
		}
		return fmt.Sprintf("~%s = %.2g %% of a day's quota", count(int(calls), "call"), 100*float64(calls)/s.PerDay)
	}
	work := func(w activation.Work) string {
		return fmt.Sprintf("%s, %s, %s, %s unchanged, %s skipped, %s rejected", count(int(w.Creates), "create"), count(int(w.Updates), "update"),
			count(int(w.Deletes), "delete"), grouped(w.Unchanged), grouped(w.Skipped), grouped(w.Rejected))
	}
	fmt.Fprintf(&b, "%s   next run: %s   %s\n", s.Target, work(s.Next), part(s.Calls))
	if w := s.Backfill; w.Creates+w.Updates+w.Deletes > 0 {
		fmt.Fprintf(&b, "      delivered before with another mapping: %s   %s\n      fix: sluice backfill %s\n", work(w), part(s.BackfillCalls), s.Stream)
	}
	for _, d := range s.Samples {
		what := "update"
		if d.Create {
			what = "create"
		}
		fmt.Fprintf(&b, "      %s %s\n", what, shortened(d.Match))
		for _, x := range d.Fields {
			fmt.Fprintf(&b, "        %s: %s → %s\n", x.Name, orNone(shortened(x.Old)), orNone(shortened(x.New)))
		}
	}
	return b.String()
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}
