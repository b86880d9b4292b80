package topic

import (
	"context"
	"maps"
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

// send commits what is asked. What fails, because the group is changing, is
// asked again a second later: there may be no other flush.
func (c *commits) send(ctx context.Context, of *Consumer) {
	c.mu.Lock()
	ask := map[string]map[int32]kgo.EpochOffset{}
	for topic, ps := range c.want {
		if len(ps) > 0 {
			ask[topic] = maps.Clone(ps)
		}
	}
	c.mu.Unlock()
	if len(ask) == 0 {
		return
	}
	of.grp.CommitOffsetsSync(ctx, ask, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if err != nil || resp == nil {
			of.cfg.Logger.Debug("offsets not committed to the group", "group", of.group, "error", err)
			return
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if o, ok := ask[t.Topic][p.Partition]; ok && p.ErrorCode == 0 {
					c.committed(t.Topic, p.Partition, o)
				}
			}
		}
	})
}

// committed takes note that the group has an offset.
func (c *commits) committed(topic string, part int32, o kgo.EpochOffset) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = map[string]map[int32]int64{}
	}
	if c.done[topic] == nil {
		c.done[topic] = map[int32]int64{}
	}
	c.done[topic][part] = max(c.done[topic][part], o.Offset)
	if c.want[topic][part] == o {
		delete(c.want[topic], part)
	}
}
