package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/topic"
)

// healer finds the dead letters whose records a SaaS sink has since delivered
// with a newer value. What it cannot find out is not healed.
type healer struct {
	p        *pipeline
	accounts []*account
	streams  map[string]*delivered // by sink/stream
	asked    int
}

// healerAsks bounds the letters that one command looks up, each with a read of
// its topic: whoever has more of them has another problem.
const healerAsks = 500

// newHealer opens the states of the SaaS sinks of f. A file whose references
// cannot be resolved here has no healer, nor has one that has not run here.
func newHealer(ctx context.Context, f *config.File, k *topic.Kafka) *healer {
	h := &healer{streams: map[string]*delivered{}}
	var sinks []*config.Sink
	for _, s := range f.Sinks {
		if isActivation(s) {
			sinks = append(sinks, s)
		}
	}
	if _, err := os.Stat(activationDir(f)); err != nil || len(sinks) == 0 {
		return h
	}
	if _, err := resolve(f); err != nil {
		return h
	}
	ring, err := openKeys(ctx, f, keys.KeeperConfig{Start: 1})
	if err != nil {
		return h
	}
	h.p = &pipeline{file: f, kafka: k, board: &progress.Board{}, log: slog.New(slog.DiscardHandler),
		rules: chains{f: f, keys: ring.Current, people: &people{dir: f.Local(f.Dir), keys: ring.Current}}}
	for _, s := range sinks {
		a := &account{}
		h.accounts = append(h.accounts, a)
		streams, err := h.p.openDelivered(ctx, a, s)
		if err != nil {
			continue
		}
		for _, d := range streams {
			h.streams[s.Name+"/"+d.name.String()] = d
		}
	}
	return h
}

// healed reports whether a newer record of the letter's key was delivered.
func (h *healer) healed(ctx context.Context, l *topic.Letter) bool {
	d := h.streams[l.Sink+"/"+l.Stream.String()]
	if d == nil || l.Partition < 0 || h.asked >= healerAsks {
		return false
	}
	h.asked++
	b, err := h.p.kafka.Reread(ctx, l, d.chain)
	if err != nil || b == nil {
		return false
	}
	healed, err := d.conn.Healed(ctx, d.state, b)
	return err == nil && healed
}

func (h *healer) close() {
	for _, a := range h.accounts {
		_ = a.close() // they were only read
	}
}
