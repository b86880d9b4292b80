package topic

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// commits passes the sink's marks on to the group. They are for lag tools and
// for the other members' CatchUp; nobody starts from them (invariant 2).
type commits struct {
	mu   sync.Mutex
	want map[string]map[int32]kgo.EpochOffset
	done map[string]map[int32]int64
}

// note asks for a commit, which never goes back.
func (c *commits) note(topic string, part int32, next int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done[topic][part] >= next {
		return
	}
	if c.want == nil {
		c.want = map[string]map[int32]kgo.EpochOffset{}
	}
	if c.want[topic] == nil {
		c.want[topic] = map[int32]kgo.EpochOffset{}
	}
	c.want[topic][part] = kgo.EpochOffset{Epoch: -1, Offset: next}
}

// forget drops what is asked for partitions that are another member's now.
func (c *commits) forget(parts map[string][]int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, ps := range parts {
		for _, p := range ps {
			delete(c.want[topic], p)
			delete(c.done[topic], p)
		}
	}
}

func (c *commits) run(ctx context.Context, of *Consumer) {
	for sleep(ctx, time.Second) {
		c.send(ctx, of)
	}
}

// last commits what is left, for a moment at most.
func (c *commits) last(of *Consumer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(of.work), 2*time.Second)
	defer cancel()
	c.send(ctx, of)
}

// send commits what is asked; what fails is asked again with the next flush.
func (c *commits) send(ctx context.Context, of *Consumer) {
	c.mu.Lock()
	want := c.want
	c.want = nil
	c.mu.Unlock()
	if len(want) == 0 {
		return
	}
	of.grp.CommitOffsetsSync(ctx, want, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
		if err != nil {
			of.cfg.Logger.Debug("offsets not committed to the group", "group", of.group, "error", err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.done == nil {
			c.done = map[string]map[int32]int64{}
		}
		for topic, ps := range want {
			if c.done[topic] == nil {
				c.done[topic] = map[int32]int64{}
			}
			for p, o := range ps {
				c.done[topic][p] = max(c.done[topic][p], o.Offset)
			}
		}
	})
}
