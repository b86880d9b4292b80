package topic

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/sluice-data/sluice/record"
)

const (
	// retentionLook is how often a consumer compares its marks with what the
	// brokers are about to remove.
	retentionLook = 30 * time.Second

	// A record that has used up this part of its time is about to be removed.
	retentionNear = 0.8
)

// watchRetention warns of streams whose sink is so far behind that the brokers
// will soon remove, or have removed, what it has not read. It looks at paused
// and parked streams too: they would find out last.
func (c *Consumer) watchRetention(ctx context.Context) {
	for sleep(ctx, c.retentionLook) {
		look, cancel := context.WithTimeout(ctx, retentionLook)
		if err := c.lookAtRetention(look, time.Now()); err != nil && ctx.Err() == nil {
			c.cfg.Logger.Debug("look at what the brokers keep", "group", c.group, "error", err)
		}
		cancel()
	}
}

func (c *Consumer) lookAtRetention(ctx context.Context, now time.Time) error {
	there, err := c.k.describe(ctx, c.names...)
	if err != nil {
		return err
	}
	for _, name := range c.names {
		if _, ok := there[name]; !ok {
			continue
		}
		keeps, err := c.k.keeps(ctx, name)
		if err != nil {
			return err
		}
		starts, ends, err := c.k.bounds(ctx, name)
		if err != nil {
			return err
		}
		near := kadm.ListedOffsets{}
		if keeps > 0 {
			age := time.Duration(retentionNear * float64(keeps))
			if near, err = c.k.adm.ListOffsetsAfterMilli(ctx, now.Add(-age).UnixMilli(), name); err != nil {
				return err
			}
		}
		l := c.lanes[name]
		text := l.endangered(starts, near, ends, keeps)
		l.post(func(context.Context) { l.warn(text) })
	}
	return nil
}

// keeps returns how long the brokers keep the records of a topic; 0 = for good.
func (k *Kafka) keeps(ctx context.Context, topic string) (time.Duration, error) {
	configs, err := k.adm.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return 0, err
	}
	for _, rc := range configs {
		if rc.Err != nil {
			return 0, rc.Err
		}
		for _, kv := range rc.Configs {
			if kv.Key == "retention.ms" {
				if ms, err := strconv.ParseInt(kv.MaybeValue(), 10, 64); err == nil && ms > 0 {
					return time.Duration(ms) * time.Millisecond, nil
				}
			}
		}
	}
	return 0, nil
}

// endangered says which partition of the lane is about to lose records, or has
// lost them; "" if none.
func (l *lane) endangered(starts, near, ends kadm.ListedOffsets, keeps time.Duration) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, next := range l.durable {
		if !l.ours[p] {
			continue
		}
		start, _ := starts.Lookup(l.topic, p)
		end, _ := ends.Lookup(l.topic, p)
		soon, known := near.Lookup(l.topic, p)
		switch {
		case next < start.Offset:
			return fmt.Sprintf("records before offset %d of partition %d are gone, the sink has come to %d: %s", start.Offset, p, next, l.backfillCommand())
		case known && next < soon.Offset && next < end.Offset:
			return fmt.Sprintf("falls behind: the oldest unread records of partition %d are removed within %s; raise topics.retention or speed the sink up",
				p, (keeps - time.Duration(retentionNear*float64(keeps))).Round(time.Second))
		}
	}
	return ""
}

// warn shows text beside whatever else the stream has to say; "" ends it.
func (l *lane) warn(text string) {
	if text == l.warning {
		return
	}
	if l.warning = text; text != "" {
		l.c.cfg.Logger.Warn("records that the sink has not read are in danger", "sink", l.c.cfg.Name, "stream", l.stream.Name.String(), "reason", text)
	}
	l.show(l.shown, l.note)
}

// Retention says how long data topics of an embedded broker keep records.
type Retention struct {
	Age   time.Duration                  // records are kept at least so long …
	Sinks map[string][]record.StreamName // … and until each of these sinks has them, by name with its streams
}

// Retain removes old records until ctx ends, in place of the broker's own
// retention, which knows no sinks. A sink that has not begun yet counts: it
// still needs everything. Only the cap of the embedded broker's folder goes
// before it.
func (k *Kafka) Retain(ctx context.Context, r Retention) {
	for sleep(ctx, retentionEvery) {
		if err := k.retain(ctx, r, time.Now()); err != nil && ctx.Err() == nil {
			k.cfg.Logger.Warn("remove old records", "error", err)
		}
	}
}

func (k *Kafka) retain(ctx context.Context, r Retention, now time.Time) error {
	topics, err := k.dataTopics(ctx)
	if err != nil || len(topics) == 0 {
		return err
	}
	forever := "-1"
	if _, err := k.adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &forever}}, topics...); err != nil {
		return err
	}
	cut, err := k.adm.ListOffsetsAfterMilli(ctx, now.Add(-r.Age).UnixMilli(), topics...)
	if err != nil {
		return err
	}
	starts, err := k.adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		return err
	}
	needed := map[string][]kadm.OffsetResponses{} // by topic
	for sink, streams := range r.Sinks {
		offsets, err := k.adm.FetchOffsets(ctx, k.cfg.Prefix+"."+sink)
		if err != nil {
			offsets = nil // no such group yet: it needs everything
		}
		for _, s := range streams {
			if name, err := TopicName(k.cfg.Prefix, s); err == nil {
				needed[name] = append(needed[name], offsets)
			}
		}
	}
	gone := kadm.Offsets{}
	cut.Each(func(o kadm.ListedOffset) {
		start, ok := starts.Lookup(o.Topic, o.Partition)
		at := o.Offset
		for _, group := range needed[o.Topic] {
			done, ok := group.Lookup(o.Topic, o.Partition)
			if !ok || done.Err != nil || done.At < 0 {
				return
			}
			at = min(at, done.At)
		}
		if ok && o.Err == nil && at > start.Offset {
			gone.Add(kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: at, LeaderEpoch: -1})
		}
	})
	if len(gone) == 0 {
		return nil
	}
	_, err = k.adm.DeleteRecords(ctx, gone)
	return err
}

// dataTopics are the pipeline's topics with rows.
func (k *Kafka) dataTopics(ctx context.Context) ([]string, error) {
	all, err := k.adm.ListTopics(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, t := range all.Sorted() {
		if t.Err == nil && strings.HasPrefix(t.Topic, k.cfg.Prefix+".") && !isOwn(t.Topic) {
			names = append(names, t.Topic)
		}
	}
	return names, nil
}
