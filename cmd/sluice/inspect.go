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

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/lake"
	"github.com/sluice-data/sluice/progress"
)

// shownSnapshots is how many of the newest snapshots a screen has.
const shownSnapshots = 5

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect TABLE",
		Short: "Show what a table of the lake holds, and how far its offsets are",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := a.load()
			if err != nil {
				return err
			}
			sink, err := sinkOf(f, args[0])
			if err != nil {
				return err
			}
			if _, err := resolve(f); err != nil {
				return environment(err)
			}
			ctx, stop := untilTerminated()
			defer stop()
			in, err := inspect(ctx, f, sink, args[0])
			if err != nil {
				return environment(errors.New(redactor(f.SecretValues()).Replace(err.Error())))
			}
			a.result = in
			if !a.json {
				fmt.Fprint(a.stdout, plainText(inspectionText(in, time.Now())))
			}
			return nil
		},
	}
}

// sinkOf returns the lake that writes the table.
func sinkOf(f *config.File, table string) (*config.Sink, error) {
	var known []string
	for _, s := range f.Sinks {
		for _, stream := range s.Streams {
			if t, ok := stream.Settings.(*icebergStream); ok {
				if t.Table == table {
					return s, nil
				}
				known = append(known, t.Table)
			}
		}
	}
	return nil, invalid(fmt.Errorf("no sink writes table %s; there are %s", table, strings.Join(known, ", ")))
}

// inspect reads the state of a table; the embedded S3 is started for it if nobody runs it.
func inspect(ctx context.Context, f *config.File, s *config.Sink, table string) (in lake.Inspection, err error) {
	dir, s3 := f.Local(f.Dir), ""
	log := slog.New(slog.DiscardHandler)
	if settings, ok := s.Settings.(*icebergSettings); ok && settings.S3.Embedded {
		var mark *presence
		if mark, err = visit(dir); err != nil {
			return in, err
		}
		servers := &children{dir: dir, log: log}
		defer func() { err = errors.Join(err, mark.leave(servers.endAll)) }()
		if s3, err = servers.ensure(ctx, s3Child); err != nil {
			return in, err
		}
	}
	c, err := lakeConfig(f, s, s3, &progress.Board{}, log, nil)
	if err != nil {
		return in, err
	}
	l, err := lake.Open(ctx, c)
	if err != nil {
		return in, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return l.Inspect(ctx, table)
}

// inspectionText shows a table: what it holds first.
func inspectionText(in lake.Inspection, now time.Time) string {
	var b strings.Builder
	held := grouped(in.Rows) + " rows"
	if in.Rows < 0 {
		held = "rows not counted, equality deletes"
	}
	fmt.Fprintf(&b, "%s   %s · %s · %s · %s\n", in.Table, held, count(in.DataFiles, "data file")+" of "+config.Bytes(in.DataBytes).Round(),
		count(in.DeleteFiles, "delete file"), count(len(in.Snapshots), "snapshot"))
	fmt.Fprintf(&b, "format v%d at %s\n", in.Format, in.Location)
	if len(in.Partition) > 0 {
		fmt.Fprintf(&b, "partitioned by %s\n", strings.Join(in.Partition, ", "))
	}
	rows := [][]string{{"  column", "type", ""}}
	for _, c := range in.Columns {
		what := ""
		if c.Key {
			what = "key"
		}
		rows = append(rows, []string{"  " + c.Name, c.Type, what})
	}
	b.WriteString(aligned(rows))
	rows = [][]string{{"  snapshot", "age", "operation"}}
	for i := len(in.Snapshots) - 1; i >= max(0, len(in.Snapshots)-shownSnapshots); i-- {
		s := in.Snapshots[i]
		rows = append(rows, []string{"  " + strconv.FormatInt(s.ID, 10), lasting(now.Sub(s.At)), s.Operation})
	}
	b.WriteString(aligned(rows))
	rows = [][]string{{"  offsets of", "next", "read", "delivered", "filtered", "superseded", "duplicate", "rejected"}}
	var partitions []string
	for p := range in.Marks {
		partitions = append(partitions, p)
	}
	slices.Sort(partitions)
	for _, p := range partitions {
		m := in.Marks[p]
		if m.Error != "" {
			rows = append(rows, []string{"  " + p, m.Error})
			continue
		}
		row := []string{"  " + p}
		for _, n := range []int64{m.Next, m.Counts.Read, m.Counts.Delivered, m.Counts.Filtered, m.Counts.Superseded, m.Counts.Duplicate, m.Counts.Rejected} {
			row = append(row, grouped(n))
		}
		rows = append(rows, row)
	}
	b.WriteString(aligned(rows, 1, 2, 3, 4, 5, 6, 7))
	return b.String()
}
