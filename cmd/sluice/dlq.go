package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/topic"
)

// letter is a dead letter as people and programs see it.
type letter struct {
	ID        int64     `json:"id"`
	At        time.Time `json:"at"`
	Sink      string    `json:"sink,omitempty"`
	Source    string    `json:"source,omitempty"`
	Stream    string    `json:"stream"`
	Code      string    `json:"code"`
	Reason    string    `json:"reason"`
	Topic     string    `json:"topic,omitempty"`
	Partition int32     `json:"partition"` // -1: the record never reached its topic
	Offset    int64     `json:"offset"`
	Position  string    `json:"position,omitempty"`
	Healed    bool      `json:"healed,omitempty"`
	Key       string    `json:"key,omitempty"`   // only with --reveal
	Value     string    `json:"value,omitempty"` // only of show --reveal
}

// letters is the result of the dlq commands.
type letters struct {
	Total   int            `json:"total"`             // that match
	Codes   map[string]int `json:"codes"`             // how many of each reason
	Letters []letter       `json:"letters"`           // the newest of them
	Healed  int            `json:"healed,omitempty"`  // left out: a newer value of the key was delivered since
	Streams []string       `json:"streams,omitempty"` // that retry has read again
}

// choice is which dead letters a command is about.
type choice struct {
	stream, sink, code string
	since              time.Duration
	ids                []int64
	all                bool
	healed             bool // also those whose key has a newer value since
}

func (c *choice) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.stream, "stream", "", "only of this stream: source.schema.table")
	f.StringVar(&c.sink, "sink", "", "only those that this sink, or source, refused")
	f.StringVar(&c.code, "code", "", "only with this code, such as value_out_of_range")
	f.DurationVar(&c.since, "since", 0, "only of the last 1h, 30m, …")
}

// set reports whether anything narrows the choice.
func (c *choice) set() bool {
	return c.stream != "" || c.sink != "" || c.code != "" || c.since > 0 || len(c.ids) > 0 || c.all
}

func (c *choice) parse(args []string) error {
	for _, a := range args {
		id, err := strconv.ParseInt(a, 10, 64)
		if err != nil || id < 0 {
			return invalid(fmt.Errorf("%q is no id of a dead letter; sluice dlq ls shows them", a))
		}
		c.ids = append(c.ids, id)
	}
	if c.stream != "" {
		n, err := record.ParseStreamName(c.stream)
		if err != nil {
			return invalid(err)
		}
		c.stream = n.String()
	}
	return nil
}

func (c *choice) has(l *topic.Letter, now time.Time) bool {
	return (c.stream == "" || l.Stream.String() == c.stream) && (c.sink == "" || l.Sink == c.sink || l.Source == c.sink) &&
		(c.code == "" || l.Code == c.code) && (c.since == 0 || now.Sub(l.At) <= c.since) &&
		(len(c.ids) == 0 || slices.Contains(c.ids, l.ID))
}

func (a *app) dlqCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "Look at records that were refused, read them again, or take them off the list",
		Args:  cobra.NoArgs,
		RunE:  oneOf,
	}
	cmd.AddCommand(a.dlqListCommand(), a.dlqShowCommand(), a.dlqRetryCommand(), a.dlqDropCommand())
	return cmd
}

func (a *app) dlqListCommand() *cobra.Command {
	c := &choice{}
	var most int
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List dead letters, with how many there are for each reason",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if most < 0 {
				return invalid(errors.New("-n cannot be negative"))
			}
			found, err := a.letters(cmd.Context(), c, nil, nil)
			if err != nil {
				return err
			}
			found.Letters = found.Letters[max(0, len(found.Letters)-most):]
			a.result = found
			if !a.json {
				fmt.Fprint(a.stdout, plainText(found.text(time.Now())))
			}
			return nil
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&c.healed, "healed", false, "list those, too, whose records were delivered since with a newer value")
	cmd.Flags().IntVarP(&most, "most", "n", 20, "list the newest so many")
	return cmd
}

func (a *app) dlqShowCommand() *cobra.Command {
	var reveal bool
	cmd := &cobra.Command{
		Use:   "show ID…",
		Short: "Show dead letters in full; the records' own values only with --reveal",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := &choice{healed: true}
			if err := c.parse(args); err != nil {
				return err
			}
			fill := func(l *topic.Letter, out *letter) {
				if reveal {
					out.Key, out.Value = readable(l.Key), readable(l.Value)
				}
			}
			found, err := a.letters(cmd.Context(), c, fill, nil)
			if err != nil {
				return err
			}
			a.result = found
			if !a.json {
				for _, l := range found.Letters {
					fmt.Fprint(a.stdout, plainText(l.text(reveal)))
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&reveal, "reveal", false, "show key and value of the records; they may hold personal data")
	return cmd
}

func (a *app) dlqRetryCommand() *cobra.Command {
	c := &choice{}
	cmd := &cobra.Command{
		Use:   "retry [ID…]",
		Short: "Have the source read the streams of these records again, and take them off the list",
		Long: "retry loads the streams of the chosen records anew, as sluice backfill does: the source has their newest\n" +
			"values, while the refused ones may be outdated. What is refused again comes back to the list.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.ready(args, "retry"); err != nil {
				return err
			}
			f, err := a.load()
			if err != nil {
				return err
			}
			var streams []string
			found, err := a.letters(cmd.Context(), c, nil, func(found *letters) error {
				for _, l := range found.Letters {
					if !slices.Contains(streams, l.Stream) {
						streams = append(streams, l.Stream)
					}
				}
				slices.Sort(streams)
				for _, s := range streams { // all of them are known before the first is read again
					if _, _, err := sourceOf(f, s); err != nil {
						return err
					}
				}
				for _, s := range streams {
					if _, err := askBackfill(cmd.Context(), f, s); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			found.Streams = streams
			return a.gone(found, "read again")
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&c.all, "all", false, "all that are on the list")
	return cmd
}

func (a *app) dlqDropCommand() *cobra.Command {
	c := &choice{}
	cmd := &cobra.Command{
		Use:   "drop [ID…]",
		Short: "Take dead letters off the list for good",
		RunE: func(cmd *cobra.Command, args []string) error {
			c.healed = true
			if err := c.ready(args, "drop"); err != nil {
				return err
			}
			found, err := a.letters(cmd.Context(), c, nil, func(*letters) error { return nil })
			if err != nil {
				return err
			}
			return a.gone(found, "dropped")
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&c.all, "all", false, "all that are on the list")
	return cmd
}

// ready refuses to take off the list what nobody has named.
func (c *choice) ready(args []string, verb string) error {
	if err := c.parse(args); err != nil {
		return err
	}
	if !c.set() {
		return invalid(fmt.Errorf("which ones? sluice dlq %s ID…, --stream, --sink, --code, --since or --all", verb))
	}
	return nil
}

func (a *app) gone(found *letters, how string) error {
	a.result = found
	if a.json {
		return nil
	}
	fmt.Fprintf(a.stdout, "%s %s\n", count(found.Total, "dead letter"), how)
	for _, s := range found.Streams {
		fmt.Fprintf(a.stdout, "%s is loaded anew; sluice status shows how far it is\n", s)
	}
	return nil
}

// letters reads the chosen dead letters. fill, if not nil, adds what is not
// for everybody. drop, if not nil, runs before all of them go off the list.
func (a *app) letters(ctx context.Context, c *choice, fill func(*topic.Letter, *letter), drop func(*letters) error) (*letters, error) {
	if err := c.parse(nil); err != nil {
		return nil, err
	}
	f, err := a.load()
	if err != nil {
		return nil, err
	}
	found := &letters{Codes: map[string]int{}, Letters: []letter{}}
	now := time.Now()
	err = withKafka(ctx, f, func(k *topic.Kafka) error {
		h := newHealer(ctx, f, k)
		defer h.close()
		err := k.Letters(ctx, func(l topic.Letter) error {
			if !c.has(&l, now) {
				return nil
			}
			healed := h.healed(ctx, &l)
			if healed && !c.healed {
				found.Healed++
				return nil
			}
			found.Total++
			found.Codes[l.Code]++
			out := letter{ID: l.ID, At: l.At, Sink: l.Sink, Source: l.Source, Stream: l.Stream.String(), Code: l.Code, Reason: l.Reason,
				Topic: l.Topic, Partition: l.Partition, Offset: l.Offset, Position: l.Position, Healed: healed}
			if fill != nil {
				fill(&l, &out)
			}
			found.Letters = append(found.Letters, out)
			return nil
		})
		if err != nil {
			return environment(err)
		}
		if found.Total < len(c.ids) {
			return invalid(fmt.Errorf("%d of the %d asked for are on the list; sluice dlq ls shows the ids", found.Total, len(c.ids)))
		}
		if drop == nil || found.Total == 0 {
			return nil
		}
		if err := drop(found); err != nil {
			return err
		}
		ids := make([]int64, len(found.Letters))
		for i := range ids {
			ids[i] = found.Letters[i].ID
		}
		if err := k.DropLetters(ctx, ids); err != nil {
			return environment(err)
		}
		return nil
	})
	return found, err
}

// withKafka calls do with the brokers of f; the embedded one is started for it
// if nobody runs it.
func withKafka(ctx context.Context, f *config.File, do func(*topic.Kafka) error) (err error) {
	if f.Kafka.SASL != nil { // nothing else of the file is needed here
		if _, err := resolve(f); err != nil {
			return environment(err)
		}
	}
	embedded, log := "", slog.New(slog.DiscardHandler)
	if f.Kafka.Embedded {
		mark, err := visit(f.Local(f.Dir))
		if err != nil {
			return environment(err)
		}
		servers := &children{dir: f.Local(f.Dir), log: log}
		defer func() { err = errors.Join(err, mark.leave(servers.endAll)) }()
		if embedded, err = servers.ensure(ctx, brokerChild); err != nil {
			return environment(err)
		}
	}
	c, err := kafkaConfig(f, embedded, log)
	if err != nil {
		return environment(err)
	}
	k, err := topic.Connect(ctx, c)
	if err != nil {
		return environment(err)
	}
	defer k.Close()
	return do(k)
}

// text lists letters for people: the first line says how many and why.
func (l *letters) text(now time.Time) string {
	healed := ""
	if l.Healed > 0 {
		healed = fmt.Sprintf("%s healed by newer values: sluice dlq ls --healed\n", count(l.Healed, "record"))
	}
	if l.Total == 0 {
		return "no dead letters\n" + healed
	}
	codes := make([]string, 0, len(l.Codes))
	for code := range l.Codes {
		codes = append(codes, code)
	}
	slices.SortFunc(codes, func(x, y string) int {
		if d := l.Codes[y] - l.Codes[x]; d != 0 {
			return d
		}
		return strings.Compare(x, y)
	})
	for i, code := range codes {
		codes[i] = fmt.Sprintf("%s %s", grouped(int64(l.Codes[code])), code)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", count(l.Total, "dead letter"), strings.Join(codes, ", "))
	rows := [][]string{{"  id", "age", "refused by", "stream", "code", "reason"}}
	for _, x := range l.Letters {
		reason := x.Reason
		if x.Healed {
			reason = "(healed) " + reason
		}
		rows = append(rows, []string{"  " + strconv.FormatInt(x.ID, 10), lasting(now.Sub(x.At)), x.Sink + x.Source, x.Stream, x.Code, reason})
	}
	b.WriteString(aligned(rows))
	if more := l.Total - len(l.Letters); more > 0 {
		fmt.Fprintf(&b, "and %s older ones: -n %d\n", grouped(int64(more)), l.Total)
	}
	return b.String() + healed
}

// text shows one letter in full.
func (l *letter) text(reveal bool) string {
	var b strings.Builder
	who := "sink " + l.Sink
	if l.Sink == "" {
		who = "source " + l.Source
	}
	fmt.Fprintf(&b, "%d   %s, refused by %s at %s\n  %s: %s\n", l.ID, l.Stream, who, l.At.Format(time.RFC3339), l.Code, l.Reason)
	if l.Partition >= 0 {
		fmt.Fprintf(&b, "  topic %s, partition %d, offset %d\n", l.Topic, l.Partition, l.Offset)
	} else {
		fmt.Fprintf(&b, "  it never reached its topic; position %s of the source\n", l.Position)
	}
	switch {
	case !reveal:
		b.WriteString("  key and value: --reveal\n")
	case l.Value == "":
		fmt.Fprintf(&b, "  key    %s\n  value  (not kept: the record never reached its topic)\n", l.Key)
	default:
		fmt.Fprintf(&b, "  key    %s\n  value  %s\n", l.Key, l.Value)
	}
	return b.String()
}

// readable returns text as it is, and what is none in quotes.
func readable(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return strconv.QuoteToASCII(string(b))
}
