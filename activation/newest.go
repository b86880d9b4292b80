package activation

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/record"
)

// Rows passes all records of the stream to each, those of a partition in
// order. It may be called again; a batch is valid only during the call.
type Rows func(ctx context.Context, each func(*record.Batch) error) error

// place is where the newest record of a key is.
type place struct {
	part   int32
	offset int64
	epoch  uint64
}

// newest calls each with the newest row of every key of rows, in batches of
// one partition: rows are the indexes into b. The rows that a backfill did not
// find any more are left out. It keeps 50 bytes or so a key.
func (c *Connection) newest(ctx context.Context, rows Rows, each func(m *mapping, b *record.Batch, rows []int, keys []state.Key) error) error {
	at := map[state.Key]place{}
	from := map[int32]uint64{}   // epoch of the last backfill that has ended
	cleared := map[int32]int64{} // offset of the last truncate
	maps := map[string]*mapping{}
	mapping := func(b *record.Batch) (m *mapping, err error) {
		if m = maps[b.Schema.ID]; m == nil {
			if m, err = compile(&c.cfg, b.Schema, c.st.Secret()); err == nil {
				maps[b.Schema.ID] = m
			}
		}
		return m, err
	}
	err := rows(ctx, func(b *record.Batch) error {
		p := b.Partition.Partition
		switch op, control := b.Control(); {
		case control && op == record.OpBackfillEnd:
			from[p] = max(from[p], b.Pos[0].Epoch)
			return nil
		case control && op == record.OpTruncate:
			cleared[p] = b.Offsets[0]
			return nil
		case control:
			return nil
		}
		m, err := mapping(b)
		if err != nil {
			return err
		}
		for row := range b.Len() {
			if k, ok := m.key(b, row); ok {
				at[k] = place{p, b.Offsets[row], b.Pos[row].Epoch}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return rows(ctx, func(b *record.Batch) error {
		if _, control := b.Control(); control {
			return nil
		}
		m, err := mapping(b)
		if err != nil {
			return err
		}
		var chosen []int
		var keys []state.Key
		p := b.Partition.Partition
		end, truncated := cleared[p]
		for row := range b.Len() {
			k, ok := m.key(b, row)
			if w := at[k]; !ok || w.part != p || w.offset != b.Offsets[row] || w.epoch < from[p] || truncated && w.offset < end {
				continue
			}
			chosen, keys = append(chosen, row), append(keys, k)
		}
		if len(chosen) == 0 {
			return nil
		}
		return each(m, b, chosen, keys)
	})
}

// Healed reports whether a newer record of the key of b's first row has been
// delivered, or was skipped for a reason.
func (c *Connection) Healed(ctx context.Context, st *state.Connection, b *record.Batch) (healed bool, err error) {
	m, err := compile(&c.cfg, b.Schema, c.st.Secret())
	if err != nil || b.Len() == 0 || len(b.Offsets) == 0 {
		return false, err
	}
	k, ok := m.key(b, 0)
	if !ok || c.cfg.Operation == delivery.Append {
		return false, nil
	}
	err = st.Get(ctx, []state.Key{k}, func(e state.Entry) {
		settled := e.Outcome == delivery.Applied || e.Outcome == delivery.Unchanged || e.Outcome == delivery.Skipped
		healed = settled && e.Part == b.Partition.Partition && e.Offset > b.Offsets[0]
	})
	return healed, err
}

// exclusive makes us the only writer of the connection's partitions, or says
// who is in the way. Call release afterwards.
func (c *Connection) exclusive(ctx context.Context, st *state.Connection, parts []int32) (lease *state.Lease, release func() error, err error) {
	busy, err := st.Busy(ctx)
	if err != nil {
		return nil, nil, err
	}
	if busy > 0 {
		return nil, nil, &BusyError{Connection: c.cfg.Name, For: busy}
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	lease = st.Lease(hex.EncodeToString(id[:]))
	if _, err := lease.Acquire(ctx, parts, leaseOfPeople); err != nil {
		return nil, nil, err
	}
	return lease, func() error { return lease.Release(context.WithoutCancel(ctx)) }, nil
}

// leaseOfPeople is how long a command that was killed keeps others waiting. One
// that takes longer is fenced by whoever comes then.
const leaseOfPeople = 30 * time.Second

// BusyError says that a process delivers the stream now.
type BusyError struct {
	Connection string
	For        time.Duration // its lease, unless it is renewed
}

// Error names the connection and what to do.
func (e *BusyError) Error() string {
	return fmt.Sprintf("%s: a process delivers this stream now; stop it, or if it was killed wait %d s", e.Connection, int(math.Ceil(e.For.Seconds())))
}
