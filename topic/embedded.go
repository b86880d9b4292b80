package topic

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// EmbeddedConfig says how the embedded broker runs. Zero values are defaults.
type EmbeddedConfig struct {
	Dir      string            // its data; made if missing
	Port     int               // on 127.0.0.1; 0 = a free one
	MaxBytes int64             // cap of Dir; default 4 GiB: a restart reads it all
	Ready    func(addr string) // called once the broker serves
	Logger   *slog.Logger
}

// retentionEvery is how often old records are removed. The broker's own ticker
// does not run after a restart.
const retentionEvery = 30 * time.Second

// RunEmbedded serves Kafka on 127.0.0.1 until ctx ends: one node, every batch
// synced to disk, no transactions. It is for one machine: nothing is replicated.
func RunEmbedded(ctx context.Context, cfg EmbeddedConfig) error {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 4 << 30
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("embedded broker: %w", err)
	}
	id, err := clusterID(filepath.Join(cfg.Dir, "cluster-id"))
	if err != nil {
		return fmt.Errorf("embedded broker: %w", err)
	}
	data := filepath.Join(cfg.Dir, "log")
	disk := &diskGuard{failed: make(chan error, 1)}
	cluster, err := kfake.NewCluster(
		kfake.WithLogger(disk),
		kfake.NumBrokers(1),
		kfake.Ports(cfg.Port),
		kfake.ClusterID(id),
		kfake.DataDir(data),
		kfake.SyncWrites(),
		kfake.ListenFn(listenLoopback),
	)
	if err != nil {
		return fmt.Errorf("embedded broker on port %d with data in %s: %w", cfg.Port, cfg.Dir, err)
	}
	addr := cluster.ListenAddrs()[0]
	cfg.Logger.Info("embedded broker: single node, not for production", "addr", addr, "dir", cfg.Dir)
	cluster.ApplyRetention()
	if cfg.Ready != nil {
		cfg.Ready(addr)
	}
	tick := time.NewTicker(retentionEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			cluster.Close()
			return nil
		case err := <-disk.failed:
			// Not closed: the broker stands still where it could not write.
			return fmt.Errorf("embedded broker: %w: free space on the disk of %s: it starts again by itself", err, cfg.Dir)
		case <-tick.C:
		}
		cluster.ApplyRetention()
		if err := capSize(ctx, cfg, data, addr); err != nil && ctx.Err() == nil {
			cfg.Logger.Error("embedded broker: keep the log below its cap", "error", err)
		}
	}
}

// diskGuard stops the broker at the first write that fails. It would refuse
// that batch and could take a later, smaller one of the same partition: to a
// sink that goes by positions the refused rows would look like duplicates.
type diskGuard struct{ failed chan error }

// Logf is called on the broker's only goroutine, before anybody is answered.
func (g *diskGuard) Logf(level kfake.LogLevel, format string, args ...any) {
	if level > kfake.LogLevelWarn || !strings.HasPrefix(format, "persist ") {
		return
	}
	select {
	case g.failed <- fmt.Errorf(format, args...):
	default:
	}
	select {} // nothing after a failed write may happen; the process ends
}

// listenLoopback refuses every address but 127.0.0.1: the broker asks nobody who they are.
func listenLoopback(network, address string) (net.Listener, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return net.Listen(network, net.JoinHostPort("127.0.0.1", port))
}

// clusterID returns the id kept in a file, made on the first start: sinks know
// by it that a log was thrown away.
func clusterID(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	id := "sluice-" + rand.Text()
	return id, os.WriteFile(path, []byte(id+"\n"), 0o600)
}

// capSize makes room when the log is above its cap: it removes what every
// consumer group of a topic has done with, however young. If there is nothing
// of the kind the oldest half of every data topic goes: the sinks that have not
// read it park and need a backfill, instead of everything standing still on a
// full disk.
func capSize(ctx context.Context, cfg EmbeddedConfig, data, addr string) error {
	size, err := dirSize(data)
	if err != nil || size <= cfg.MaxBytes {
		return err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx)
	if err != nil {
		return err
	}
	ends, err := adm.ListEndOffsets(ctx)
	if err != nil {
		return err
	}
	if done := doneWith(ctx, adm, starts); len(done) > 0 {
		cfg.Logger.Warn("embedded broker: the log is above its cap; what all sinks have read goes", "bytes", size, "cap", cfg.MaxBytes)
		_, err := adm.DeleteRecords(ctx, done)
		return err
	}
	cut := kadm.Offsets{}
	ends.Each(func(end kadm.ListedOffset) {
		start, ok := starts.Lookup(end.Topic, end.Partition)
		if ok && !isOwn(end.Topic) && end.Offset > start.Offset {
			cut.Add(kadm.Offset{Topic: end.Topic, Partition: end.Partition, At: start.Offset + (end.Offset-start.Offset+1)/2, LeaderEpoch: -1})
		}
	})
	cfg.Logger.Error("embedded broker: the log is above its cap; the oldest half of every topic goes", "bytes", size, "cap", cfg.MaxBytes)
	if _, err := adm.DeleteRecords(ctx, cut); err != nil {
		return err
	}
	return nil
}

// doneWith returns up to where all groups that read a partition have come, for
// the partitions where that frees something.
func doneWith(ctx context.Context, adm *kadm.Client, starts kadm.ListedOffsets) kadm.Offsets {
	groups, err := adm.ListGroups(ctx)
	if err != nil {
		return nil
	}
	least := map[string]map[int32]int64{}
	for _, r := range adm.FetchManyOffsets(ctx, groups.Groups()...) {
		if r.Err != nil {
			return nil
		}
		r.Fetched.Each(func(o kadm.OffsetResponse) {
			if o.At < 0 || isOwn(o.Topic) {
				return
			}
			if least[o.Topic] == nil {
				least[o.Topic] = map[int32]int64{}
			}
			if at, ok := least[o.Topic][o.Partition]; !ok || o.At < at {
				least[o.Topic][o.Partition] = o.At
			}
		})
	}
	done := kadm.Offsets{}
	for topic, ps := range least {
		for p, at := range ps {
			if start, ok := starts.Lookup(topic, p); ok && at > start.Offset {
				done.Add(kadm.Offset{Topic: topic, Partition: p, At: at, LeaderEpoch: -1})
			}
		}
	}
	return done
}

func dirSize(dir string) (int64, error) {
	var n int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // trimmed while we look
			}
			return err
		}
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n, err
}
