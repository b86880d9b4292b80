package topic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
		if !sleep(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
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
