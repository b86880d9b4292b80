package topic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ensured remembers the topics that are known to be as declared.
type ensured struct {
	mu   sync.Mutex
	done map[string]int // partitions
}

// declared is how a topic has to look.
type declared struct {
	name       string
	partitions int
	configs    map[string]string
}

// ensureOwn makes sure of the pipeline's own topics.
func (k *Kafka) ensureOwn(ctx context.Context) error {
	compacted := map[string]string{"cleanup.policy": "compact", "max.message.bytes": strconv.Itoa(maxMessageBytes)}
	kept := map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": strconv.Itoa(maxMessageBytes + 1<<20)}
	for _, d := range []declared{
		{k.cfg.Prefix + schemasSuffix, 1, compacted},
		{k.cfg.Prefix + checkpointsSuffix, 1, compacted},
		{k.cfg.Prefix + deadSuffix, 1, kept},
		{k.cfg.Prefix + eventsSuffix, 1, kept},
	} {
		if err := k.ensure(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// ensureData makes sure of a topic with rows. Such topics are never
// compacted: a record may lack the cells that its source did not send.
func (k *Kafka) ensureData(ctx context.Context, name string, partitions int) error {
	configs := map[string]string{"cleanup.policy": "delete"}
	maps.Copy(configs, k.cfg.TopicConfigs)
	configs["max.message.bytes"] = strconv.Itoa(maxMessageBytes)
	if strings.Contains(configs["cleanup.policy"], "compact") {
		return fmt.Errorf("create topic %s: cleanup.policy must not be compact: a record may lack unchanged cells; remove it from topics.configs", name)
	}
	return k.ensure(ctx, declared{name, partitions, configs})
}

// ensure creates topic d or checks that the existing one has the same partitions.
func (k *Kafka) ensure(ctx context.Context, d declared) error {
	k.topics.mu.Lock()
	defer k.topics.mu.Unlock()
	if k.topics.done[d.name] == d.partitions {
		return nil
	}
	have, err := k.partitions(ctx, d.name)
	if err != nil {
		return fmt.Errorf("look up topic %s: %w", d.name, err)
	}
	if have == 0 {
		configs := make(map[string]*string, len(d.configs))
		for key, v := range d.configs {
			configs[key] = &v
		}
		_, err := k.adm.CreateTopic(ctx, int32(d.partitions), int16(k.cfg.Replication), configs, d.name)
		switch {
		case errors.Is(err, kerr.TopicAlreadyExists): // another process was faster
			if have, err = k.partitions(ctx, d.name); err != nil {
				return fmt.Errorf("look up topic %s: %w", d.name, err)
			}
		case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
			return fmt.Errorf("create topic %s: %w: let the user create it, or create it with %d partitions", d.name, err, d.partitions)
		case err != nil:
			return fmt.Errorf("create topic %s: %w", d.name, err)
		default:
			have = d.partitions
		}
	}
	// The partition of a key must never change: its records would overtake each other.
	if have != d.partitions {
		return fmt.Errorf("topic %s has %d partitions and the configuration wants %d: set topics.partitions to %d, or use another pipeline name for a new backfill", d.name, have, d.partitions, have)
	}
	if k.topics.done == nil {
		k.topics.done = map[string]int{}
	}
	k.topics.done[d.name] = d.partitions
	return nil
}

// partitions returns the number of partitions of a topic, 0 if it does not exist.
func (k *Kafka) partitions(ctx context.Context, name string) (int, error) {
	t, err := k.describe(ctx, name)
	if err != nil {
		return 0, err
	}
	return t[name].partitions, nil
}

// described is a topic as it is now.
type described struct {
	id         string
	partitions int
}

// describe returns those of the named topics that exist. It asks the brokers:
// the client's own view may be a moment old and miss a new topic.
func (k *Kafka) describe(ctx context.Context, names ...string) (map[string]described, error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, k.cl)
	if err != nil {
		return nil, err
	}
	all := make(map[string]described, len(names))
	for i := range resp.Topics {
		t := &resp.Topics[i]
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
		case err != nil:
			return nil, err
		case t.Topic != nil:
			all[*t.Topic] = described{kadm.TopicID(t.TopicID).String(), len(t.Partitions)}
		}
	}
	return all, nil
}

// bounds returns the first and the end offsets of topics that exist. A client
// that has not heard of one yet, or whose leader is moving, asks again.
func (k *Kafka) bounds(ctx context.Context, names ...string) (starts, ends kadm.ListedOffsets, err error) {
	for {
		var err1, err2 error
		starts, err1 = k.adm.ListStartOffsets(ctx, names...)
		ends, err2 = k.adm.ListCommittedOffsets(ctx, names...)
		if err1 == nil && err2 == nil {
			err1, err2 = starts.Error(), ends.Error()
		}
		if err = errors.Join(err1, err2); err == nil {
			return starts, ends, nil
		}
		if !kerr.IsRetriable(err1) && !kerr.IsRetriable(err2) || !sleep(ctx, 50*time.Millisecond) {
			return nil, nil, err
		}
	}
}
