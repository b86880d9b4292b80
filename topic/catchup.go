package topic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// CatchUp takes the ends of the topics as they are now and returns once the
// sink's own marks have reached them. A parked, paused or failing stream is an
// error. Run must be running. A partition of another process counts by what
// that one has committed to the group after its flush.
func (c *Consumer) CatchUp(ctx context.Context) error {
	targets, err := c.targets(ctx)
	if err != nil {
		return fmt.Errorf("catch up with %s: %w", c.group, err)
	}
	for name, t := range targets {
		c.lanes[name].setTarget(t)
		c.lanes[name].wake()
	}
	var others kadm.OffsetResponses
	say := time.Now().Add(catchUpPatience)
	for next := time.Now(); ; {
		behind, foreign, err := c.behind(targets, others)
		if err != nil {
			return fmt.Errorf("catch up: %w", err)
		}
		if !behind {
			return nil
		}
		if foreign && time.Now().After(next) {
			if got, err := c.k.adm.FetchOffsets(ctx, c.group); err == nil {
				others = got
			}
			next = time.Now().Add(time.Second)
		}
		if time.Now().After(say) {
			c.cfg.Logger.Info("not caught up yet", "sink", c.cfg.Name, "waits_for", c.waitsFor(targets, others))
			say = time.Now().Add(2 * catchUpPatience)
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// catchUpPatience is after how long CatchUp says what it waits for.
const catchUpPatience = 5 * time.Second

// waitsFor names the partitions that have not reached their targets, at most a few.
func (c *Consumer) waitsFor(targets map[string]map[int32]int64, others kadm.OffsetResponses) string {
	var lines []string
	for _, name := range c.names {
		l := c.lanes[name]
		l.mu.Lock()
		for _, n := range slices.Sorted(maps.Keys(targets[name])) {
			want, at, whose := targets[name][n], l.durable[n], ""
			if o, ok := others.Lookup(name, n); ok && !l.ours[n] {
				at, whose = o.At, ", with another process"
			} else if !l.ours[n] {
				whose = ", not assigned yet"
			}
			if at < want {
				lines = append(lines, fmt.Sprintf("%s partition %d at offset %d of %d%s", l.stream.Name, n, max(at, 0), want, whose))
			}
		}
		l.mu.Unlock()
	}
	const most = 5
	if len(lines) > most {
		lines = append(lines[:most], fmt.Sprintf("and %d more", len(lines)-most))
	}
	return strings.Join(lines, "; ")
}

// targets returns the ends of the topics' partitions that are not empty.
func (c *Consumer) targets(ctx context.Context) (map[string]map[int32]int64, error) {
	there, err := c.k.describe(ctx, c.names...)
	if err != nil || len(there) == 0 {
		return nil, err // a topic that does not exist holds nothing
	}
	starts, ends, err := c.k.bounds(ctx, slices.Collect(maps.Keys(there))...)
	if err != nil {
		return nil, err
	}
	targets := map[string]map[int32]int64{}
	for name := range there {
		t := map[int32]int64{}
		for n, end := range ends[name] {
			if start, _ := starts.Lookup(name, n); end.Offset > start.Offset {
				t[n] = end.Offset
			}
		}
		targets[name] = t
	}
	return targets, nil
}

// behind reports whether a target is not reached, and whether one of these is
// a partition of another process, whose commits are others.
func (c *Consumer) behind(targets map[string]map[int32]int64, others kadm.OffsetResponses) (behind, foreign bool, err error) {
	c.mu.Lock()
	assigned := c.assigned
	c.mu.Unlock()
	for name, l := range c.lanes {
		l.mu.Lock()
		for n, want := range targets[name] {
			if l.durable[n] >= want {
				continue
			}
			if !l.ours[n] && assigned {
				foreign = true
				if o, ok := others.Lookup(name, n); ok && o.At >= want {
					continue
				}
			}
			behind = true
		}
		err = errors.Join(err, l.trouble)
		l.mu.Unlock()
	}
	return behind, foreign, err
}
