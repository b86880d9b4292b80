package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/lake"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/record"
)

// sixRules are typical rules for orders_wide.
var sixRules = []mappers.Rule{
	{Hash: &mappers.Hash{Field: "email", Key: keys.Ref{Scheme: keys.Env, Name: "BENCH"}}},
	{Mask: &mappers.Mask{Field: "ship_name", KeepFirst: 1}},
	{Drop: &mappers.Drop{Fields: []string{"channel"}}},
	{Rename: map[string]string{"status": "state"}},
	{Filter: &mappers.Filter{Where: "quantity > 0 and currency <> 'XXX'"}},
	{Truncate: &mappers.Truncate{Field: "created_at", To: "hour"}},
}

// benchKeys is the key of the bench rules.
type benchKeys struct{}

func (benchKeys) Key(keys.Ref) ([]byte, bool) {
	return []byte("0123456789abcdef0123456789abcdef"), true
}

func (k benchKeys) Ring(r keys.Ref) (*keys.Ring, bool) {
	key, ok := k.Key(r)
	return keys.Single(key), ok
}

// mapped returns an input whose records are what the rules make of those of in.
func (in *input) mapped(c *mappers.Chain) (*input, error) {
	out := &input{schema: c.Out(), enc: record.NewEncoder(c.Out(), record.Origin{Connector: "postgresql", Name: "bench.stages", Database: "postgres"}),
		decode: record.NewDecoder(c.Out())}
	err := in.each(func(b *record.Batch) error {
		m, _, rejects, err := c.Apply(b)
		if err != nil || len(rejects) > 0 || m == nil {
			return fmt.Errorf("the rules refuse %d rows: %w", len(rejects), err)
		}
		for i := range m.Len() {
			out.values = append(out.values, out.enc.AppendValue(nil, m, i))
		}
		m.Release()
		return nil
	})
	in.next = [partitions]int64{}
	return out, err
}

// compareRules writes the same rows to two tables in turn: from records that
// the rules have made before, and with the rules on the way. It prints the
// medians of the CPU of both: a busy machine slows single passes down.
func (in *input) compareRules(ctx context.Context, l *lake.Lake, table string) error {
	chain, err := mappers.Compile(sixRules, in.schema, benchKeys{}, mappers.Shape)
	if err != nil {
		return err
	}
	plain, err := in.mapped(chain)
	if err != nil {
		return err
	}
	through := func(b *record.Batch) (*record.Batch, error) {
		m, _, rejects, err := chain.Apply(b)
		if err == nil && len(rejects) > 0 {
			err = fmt.Errorf("%d rows are refused", len(rejects))
		}
		return m, err
	}
	passes := []*pass{{in: plain, name: "mapped"}, {in: in, name: "rules", change: through}}
	for _, p := range passes {
		if err := p.open(ctx, l, chain.Out()); err != nil {
			return err
		}
		defer func() { _ = p.table.Close() }()
		if err := p.run(ctx); err != nil { // warm
			return err
		}
		p.cpu = nil
	}
	for began := cpu(); cpu()-began < 4*atLeast; {
		for _, p := range passes {
			if err := p.run(ctx); err != nil {
				return err
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"stage": "six rules", "table": table, "rows": len(in.values),
		"passes": len(passes[0].cpu), "mapped_cpu_s": median(passes[0].cpu), "rules_cpu_s": median(passes[1].cpu),
		"ratio": median(passes[0].cpu) / median(passes[1].cpu)})
}

func median(d []time.Duration) float64 {
	slices.Sort(d)
	return d[len(d)/2].Seconds()
}

// pass is one way from records to a table.
type pass struct {
	name   string
	in     *input
	change func(*record.Batch) (*record.Batch, error)
	table  *lake.Table
	marks  map[int32]record.Mark
	cpu    []time.Duration
}

func (p *pass) open(ctx context.Context, l *lake.Lake, out *record.Schema) error {
	var err error
	if p.table, err = l.Table(lake.TableConfig{Stream: out.Stream, Topic: "stages-" + p.name, Table: "bench." + p.name, Mode: lake.Append}); err != nil {
		return err
	}
	p.marks, err = p.table.Load(ctx, []int32{0, 1, 2, 3})
	return err
}

func (p *pass) run(ctx context.Context) error {
	began := cpu()
	err := p.in.each(func(b *record.Batch) error {
		part := b.Partition.Partition
		if p.change != nil {
			var err error
			if b, err = p.change(b); err != nil {
				return err
			}
		}
		if _, err := p.table.Write(ctx, b); err != nil {
			return err
		}
		m := p.marks[part]
		m.Next, m.Last, m.TopicID, m.Cluster = p.in.next[part], record.Position{Epoch: 1, LSN: 1}, "stages", "stages"
		p.marks[part] = m
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := p.table.Flush(ctx, p.marks); err != nil {
		return err
	}
	p.cpu = append(p.cpu, cpu()-began)
	return nil
}
