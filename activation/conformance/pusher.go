package conformance

import (
	"context"
	"math/rand/v2"
	"strconv"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/destinationtest"
)

// pusher does by the outcomes what an engine has to: the least one that
// converges. It remembers what was acknowledged, and forgets it when killed.
type pusher struct {
	r   *run
	d   Destination
	ids map[int]string
	ack map[int]int
}

func (r *run) pusher(d Destination) *pusher {
	return &pusher{r: r, d: d, ids: map[int]string{}, ack: map[int]int{}}
}

// push delivers want until all of it is acknowledged or ctx ends.
func (p *pusher) push(ctx context.Context, want map[int]int) {
	p.r.Helper()
	for round := 0; ; round++ {
		var open []int
		for i := range len(want) {
			if p.ack[i] < want[i] {
				open = append(open, i)
			}
		}
		if len(open) == 0 || ctx.Err() != nil {
			return
		}
		if round > 500 {
			p.r.Fatalf("%d records are open after %d rounds", len(open), round)
		}
		for len(open) > 0 && ctx.Err() == nil {
			n := min(p.r.c.Batch, len(open))
			p.deliver(ctx, open[:n], want)
			open = open[n:]
		}
	}
}

func (p *pusher) deliver(ctx context.Context, keys []int, want map[int]int) {
	p.r.Helper()
	request := delivery.Request{Object: p.r.c.Object, Operation: delivery.Upsert}
	for _, i := range keys {
		c := p.r.change(i, want[i])
		c.ID = p.ids[i]
		request.Changes = append(request.Changes, c)
	}
	results := p.d.Send(ctx, request)
	var unknown []int
	for n, i := range keys {
		switch res := results[n]; {
		case res.Outcome == delivery.Applied || res.Outcome == delivery.Unchanged:
			p.ack[i] = want[i]
			if res.ID != "" {
				p.ids[i] = res.ID
			}
		case res.Outcome == delivery.Unknown:
			unknown = append(unknown, i)
		case res.Outcome == delivery.Retry, res.Outcome == delivery.Throttled:
		default:
			p.r.Fatalf("record %d is %s: %d %s %s", i, res.Outcome, res.Status, res.VendorCode, res.Message)
		}
	}
	if len(unknown) > 0 {
		p.r.s.Settle() // an engine waits until the lost request can no longer land
		p.readBack(ctx, unknown)
	}
}

// readBack learns what became of records that nobody answered for.
func (p *pusher) readBack(ctx context.Context, keys []int) {
	values, at := make([]string, len(keys)), map[string]int{}
	for n, i := range keys {
		values[n] = p.r.c.Key(i)
		at[values[n]] = i
	}
	found, err := p.d.Read(ctx, p.r.c.Object, p.r.c.Match, values, []string{p.r.c.Seq})
	if err != nil {
		return // asked again with the next attempt
	}
	for _, f := range found {
		i, ok := at[f.Match]
		if !ok || len(f.Fields) == 0 {
			continue
		}
		p.ids[i] = f.ID
		text := string(f.Fields[0].Value)
		if unquoted, err := strconv.Unquote(text); err == nil {
			text = unquoted
		}
		if seq, err := strconv.ParseFloat(text, 64); err == nil {
			p.ack[i] = max(p.ack[i], int(seq))
		}
	}
}

// everything is scenario 1.
func (r *run) everything() {
	keys, rounds, kills := 200, 6, 20
	if r.c.Batch > 1 {
		keys = 1000
	}
	if long() {
		keys, rounds, kills = 10_000, 10, 200
	}
	faults := destinationtest.AllFaults(7)
	faults.Unauthorized = 0 // the login has a scenario of its own
	faults.Delay = 5e6
	r.s.SetFaults(faults)
	random := rand.New(rand.NewPCG(1, 2))
	want := map[int]int{}
	p := r.pusher(r.open(Setup{}))
	for round := range rounds {
		for i := range keys {
			if round == 0 || random.IntN(3) == 0 {
				want[i] = round + 1
			}
		}
		for range kills / rounds {
			ctx, kill := context.WithCancel(r.Context())
			r.killAfter(1+random.IntN(8), kill)
			p.push(ctx, want)
			kill()
			r.s.Settle()
			old := p
			p = r.pusher(r.open(Setup{}))
			for i, seq := range old.ack { // what it had written down survives
				if random.IntN(2) == 0 {
					p.ack[i], p.ids[i] = seq, old.ids[i]
				}
			}
		}
		r.killAfter(0, nil)
		p.push(r.Context(), want)
	}
	r.state(want)
}

// killAfter ends the worker's context in the middle of its n-th call from now.
func (r *run) killAfter(n int, kill func()) {
	r.s.AtCall(n, kill)
}
