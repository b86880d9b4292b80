package state

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/record"
)

// Rows of one statement: more save little and cost memory.
const (
	readRows  = 256
	writeRows = 100
)

// rows returns how many rows a statement writes. A round trip to Postgres is
// worth many; SQLite has none, and keeps a journal of its own for a statement
// of several rows.
func (s *Store) rows() int {
	if s.postgres {
		return writeRows
	}
	return 1
}

const (
	flagOwned = 1 << iota
	flagGone
)

// Connection is the state of one connection. Its methods may be called from
// several goroutines.
type Connection struct {
	s      *Store
	id     int64
	name   string
	secret []byte
}

// Lease is the right of one owner to write partitions of a connection. Its
// methods may be called from several goroutines.
type Lease struct {
	*Connection
	owner string

	mu   sync.Mutex
	held map[int32]int64 // epoch of each partition that is ours
}

// Lease returns a lease that holds nothing yet. No two have the same owner.
func (c *Connection) Lease(owner string) *Lease {
	return &Lease{Connection: c, owner: owner, held: map[int32]int64{}}
}

// Secret returns the key of the connection's hashes.
func (c *Connection) Secret() []byte { return slices.Clone(c.secret) }

// Taken is what a new owner of partitions finds.
type Taken struct {
	Marks map[int32]Mark // a partition without one is absent

	// Sent is the highest offset of each partition of which something may have
	// been sent: no record up to it may be sent before all of them are known, or
	// an older value of a key could follow a newer one.
	Sent map[int32]int64

	// Wait is how long requests of an earlier owner, which has not released the
	// partitions, may still have effect: nothing may be sent before.
	Wait time.Duration
}

// Acquire makes the owner the only writer of parts for ttl. From then on every
// write of an earlier owner is refused (invariant 11).
func (c *Lease) Acquire(ctx context.Context, parts []int32, ttl time.Duration) (Taken, error) {
	var wait time.Duration
	marks, sent := map[int32]Mark{}, map[int32]int64{}
	epochs := map[int32]int64{}
	err := c.s.tx(ctx, func(tx *sql.Tx) error {
		for _, p := range slices.Sorted(slices.Values(parts)) {
			var left, epoch int64
			high := int64(-1)
			var before, text string
			err := tx.QueryRowContext(ctx, c.s.query(`SELECT epoch, owner, until - now(), mark, sent FROM activation_part WHERE conn = ? AND part = ?`+c.lock()),
				c.id, p).Scan(&epoch, &before, &left, &text, &high)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			if before != "" && before != c.owner && left > 0 {
				wait = max(wait, time.Duration(left)*time.Microsecond)
			}
			if text != "" {
				var m Mark
				if err := json.Unmarshal([]byte(text), &m); err != nil {
					return fmt.Errorf("mark of partition %d: %w", p, err)
				}
				marks[p] = m
			}
			epochs[p], sent[p] = epoch+1, high
			if _, err := tx.ExecContext(ctx, c.s.query(`INSERT INTO activation_part (conn, part, epoch, owner, until, mark, sent) VALUES (?, ?, ?, ?, now() + ?, ?, -1)
				ON CONFLICT (conn, part) DO UPDATE SET epoch = excluded.epoch, owner = excluded.owner, until = excluded.until`),
				c.id, p, epoch+1, c.owner, (wait + ttl).Microseconds(), text); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return Taken{}, fmt.Errorf("take over partitions of %s: %w", c.name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, e := range epochs {
		c.held[p] = e
	}
	return Taken{Marks: marks, Sent: sent, Wait: wait}, nil
}

// Announce notes, before it happens, that records up to the given offsets may
// be sent.
func (c *Lease) Announce(ctx context.Context, offsets map[int32]int64) error {
	need := make(map[int32]Mark, len(offsets))
	for p := range offsets {
		need[p] = Mark{}
	}
	err := c.s.tx(ctx, func(tx *sql.Tx) error {
		if err := c.fence(ctx, tx, nil, need, nil); err != nil {
			return err
		}
		for p, offset := range offsets {
			if _, err := tx.ExecContext(ctx, c.s.query(`UPDATE activation_part SET sent = ? WHERE conn = ? AND part = ?`), offset, c.id, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("announce requests of %s: %w", c.name, err)
	}
	return nil
}

// lock makes a read of Postgres hold the rows; a transaction on SQLite holds everything.
func (c *Connection) lock() string {
	if c.s.postgres {
		return " FOR UPDATE"
	}
	return ""
}

// Renew prolongs what is held by ttl. An error that is record.ErrFenced says
// that another process has taken a partition over.
func (c *Lease) Renew(ctx context.Context, ttl time.Duration) error {
	return c.write(ctx, nil, nil, &ttl)
}

// Release gives partitions up: nothing of ours is under way any more, so that
// the next owner need not wait. Without parts it gives up all.
func (c *Lease) Release(ctx context.Context, parts ...int32) error {
	c.mu.Lock()
	if len(parts) == 0 {
		for p := range c.held {
			parts = append(parts, p)
		}
	}
	epochs := map[int32]int64{}
	for _, p := range parts {
		if e, ok := c.held[p]; ok {
			epochs[p] = e
			delete(c.held, p)
		}
	}
	c.mu.Unlock()
	for p, e := range epochs {
		if _, err := c.s.writer.ExecContext(ctx, c.s.query(`UPDATE activation_part SET owner = '', until = 0 WHERE conn = ? AND part = ? AND epoch = ? AND owner = ?`),
			c.id, p, e, c.owner); err != nil {
			return fmt.Errorf("release partitions of %s: %w", c.name, err)
		}
	}
	return nil
}

// Marks returns the marks of all partitions, whoever holds them.
func (c *Connection) Marks(ctx context.Context) (map[int32]Mark, error) {
	rows, err := c.s.db.QueryContext(ctx, c.s.query(`SELECT part, mark FROM activation_part WHERE conn = ?`), c.id)
	if err != nil {
		return nil, fmt.Errorf("marks of %s: %w", c.name, err)
	}
	defer rows.Close()
	marks := map[int32]Mark{}
	for rows.Next() {
		var p int32
		var text string
		if err := rows.Scan(&p, &text); err != nil {
			return nil, fmt.Errorf("marks of %s: %w", c.name, err)
		}
		if text == "" {
			continue
		}
		var m Mark
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			return nil, fmt.Errorf("mark of partition %d of %s: %w", p, c.name, err)
		}
		marks[p] = m
	}
	return marks, rows.Err()
}

const columns = `key, match, id, flags, row, fields, part, offs, epoch, lsn, seq, outcome, code, attempts, quarantine`

// Get calls found with what is known of each of keys, in any order. The entry
// is the callee's.
func (c *Connection) Get(ctx context.Context, keys []Key, found func(Entry)) error {
	for chunk := range slices.Chunk(keys, readRows) {
		if err := c.read(ctx, ` WHERE conn = ? AND key IN `, chunk, found); err != nil {
			return fmt.Errorf("read %d keys of %s: %w", len(chunk), c.name, err)
		}
	}
	return nil
}

// Owners calls found with the entry that owns each of the match values.
func (c *Connection) Owners(ctx context.Context, matches []Key, found func(Entry)) error {
	for chunk := range slices.Chunk(matches, readRows) {
		if err := c.read(ctx, c.s.byMatch(), chunk, found); err != nil {
			return fmt.Errorf("read %d match values of %s: %w", len(chunk), c.name, err)
		}
	}
	return nil
}

// byMatch is the condition on match values.
func (s *Store) byMatch() string {
	if s.postgres {
		return ` WHERE conn = ? AND match IN `
	}
	// SQLite does not choose this index by itself, it would read every key of
	// the connection.
	return ` INDEXED BY activation_key_match WHERE conn = ? AND match IS NOT NULL AND match IN `
}

// read reads the entries of one chunk. The statement has room for few sizes of
// chunks, so that it is prepared once; the last key fills what is left.
func (c *Connection) read(ctx context.Context, where string, keys []Key, found func(Entry)) error {
	size := 1
	for size < len(keys) {
		size *= 4
	}
	args := make([]any, 0, size+1)
	args = append(args, c.id)
	for i := range size {
		args = append(args, keys[min(i, len(keys)-1)][:])
	}
	st, err := c.s.prepared(ctx, c.s.db, `SELECT `+columns+` FROM activation_key`+where+`(?`+strings.Repeat(`,?`, size-1)+`)`)
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	return each(rows, found)
}

// each reads the entries of rows and closes them.
func each(rows *sql.Rows, found func(Entry)) error {
	defer rows.Close()
	var key, match, fields sql.RawBytes
	var flags, row, epoch, lsn, seq, outcome, quarantine int64
	for rows.Next() {
		var e Entry
		if err := rows.Scan(&key, &match, &e.ID, &flags, &row, &fields, &e.Part, &e.Offset, &epoch, &lsn, &seq, &outcome, &e.Code, &e.Attempts, &quarantine); err != nil {
			return err
		}
		copy(e.Key[:], key)
		copy(e.Match[:], match)
		e.Fields = slices.Clone(Hashes(fields))
		e.Owned, e.Gone = flags&flagOwned != 0, flags&flagGone != 0
		e.Row, e.Pos = uint64(row), record.Position{Epoch: uint64(epoch), LSN: uint64(lsn), Seq: uint64(seq)}
		e.Outcome, e.Quarantine = delivery.Outcome(outcome), fromMicro(quarantine)
		found(e)
	}
	return rows.Err()
}

// Write stores entries, each key once and in an order of its own, and the marks of the partitions whose records are all
// settled by them, in one transaction. An error that is record.ErrFenced says
// that another process has taken over a partition: nothing was stored.
func (c *Lease) Write(ctx context.Context, entries []Entry, marks map[int32]Mark) error {
	return c.write(ctx, entries, marks, nil)
}

func (c *Lease) write(ctx context.Context, entries []Entry, marks map[int32]Mark, ttl *time.Duration) error {
	full, err := c.upserts(ctx, len(entries))
	if err != nil {
		return fmt.Errorf("write %d keys of %s: %w", len(entries), c.name, err)
	}
	// In the order of their keys the rows of a page are written one after another.
	slices.SortFunc(entries, func(a, b Entry) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	err = c.s.tx(ctx, func(tx *sql.Tx) error {
		if err := c.fence(ctx, tx, entries, marks, ttl); err != nil {
			return err
		}
		for chunk := range slices.Chunk(entries, c.s.rows()) {
			if err := c.upsert(ctx, tx, full, chunk); err != nil {
				return err
			}
		}
		for p, m := range marks {
			text, err := json.Marshal(m)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, c.s.query(`UPDATE activation_part SET mark = ? WHERE conn = ? AND part = ?`), string(text), c.id, p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write %d keys of %s: %w", len(entries), c.name, err)
	}
	return nil
}

// fence makes sure, for the rest of the transaction, that the partitions are
// ours (invariant 11).
func (c *Lease) fence(ctx context.Context, tx *sql.Tx, entries []Entry, marks map[int32]Mark, ttl *time.Duration) error {
	want := map[int32]int64{}
	c.mu.Lock()
	for p, e := range c.held {
		want[p] = e
	}
	c.mu.Unlock()
	need := map[int32]bool{}
	for i := range entries {
		need[entries[i].Part] = true
	}
	for p := range marks {
		need[p] = true
	}
	if ttl != nil {
		for p := range want {
			need[p] = true
		}
	}
	parts := make([]int32, 0, len(need))
	for p := range need {
		parts = append(parts, p)
	}
	slices.Sort(parts) // two writers lock in the same order
	for _, p := range parts {
		epoch, held := want[p]
		var now int64
		err := tx.QueryRowContext(ctx, c.s.query(`SELECT epoch FROM activation_part WHERE conn = ? AND part = ?`+c.lock()), c.id, p).Scan(&now)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if !held || epoch != now {
			return fmt.Errorf("partition %d: %w", p, record.ErrFenced)
		}
		if ttl != nil {
			if _, err := tx.ExecContext(ctx, c.s.query(`UPDATE activation_part SET until = now() + ? WHERE conn = ? AND part = ?`), ttl.Microseconds(), c.id, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// upserts are the prepared statements of whole chunks: one that may change
// match values, and one that leaves them alone.
type upserts struct{ any, sameMatch *sql.Stmt }

// upserts prepares what n entries need, before the transaction that has the
// writer's connection.
func (c *Connection) upserts(ctx context.Context, n int) (u upserts, err error) {
	if n < c.s.rows() {
		return u, nil
	}
	if u.any, err = c.s.prepared(ctx, c.s.writer, upsertOf(c.s.rows(), false)); err == nil {
		u.sameMatch, err = c.s.prepared(ctx, c.s.writer, upsertOf(c.s.rows(), true))
	}
	return u, err
}

// upsertOf returns the statement that stores n entries. A statement that does
// not name the match value spares SQLite the rewriting of its index.
func upsertOf(n int, sameMatch bool) string {
	const row = `(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`
	match := `match = excluded.match, `
	if sameMatch {
		match = ``
	}
	return `INSERT INTO activation_key (conn, ` + columns + `) VALUES ` + row + strings.Repeat(`,`+row, n-1) +
		` ON CONFLICT (conn, key) DO UPDATE SET ` + match + `id = excluded.id, flags = excluded.flags, row = excluded.row,
		fields = excluded.fields, part = excluded.part, offs = excluded.offs, epoch = excluded.epoch, lsn = excluded.lsn, seq = excluded.seq,
		outcome = excluded.outcome, code = excluded.code, attempts = excluded.attempts, quarantine = excluded.quarantine`
}

// upsert stores a chunk of entries with one statement.
func (c *Connection) upsert(ctx context.Context, tx *sql.Tx, full upserts, chunk []Entry) error {
	args := make([]any, 0, 16*len(chunk))
	for i := range chunk {
		e := &chunk[i]
		flags := int64(0)
		if e.Owned {
			flags |= flagOwned
		}
		if e.Gone {
			flags |= flagGone
		}
		var match any
		if e.Match != (Key{}) {
			match = e.Match[:]
		}
		fields := []byte(e.Fields)
		if fields == nil {
			fields = []byte{}
		}
		args = append(args, c.id, e.Key[:], match, e.ID, flags, int64(e.Row), fields, int64(e.Part), e.Offset,
			int64(e.Pos.Epoch), int64(e.Pos.LSN), int64(e.Pos.Seq), int64(e.Outcome), e.Code, int64(e.Attempts), unixMicro(e.Quarantine))
	}
	if len(chunk) < c.s.rows() {
		_, err := tx.ExecContext(ctx, c.s.query(upsertOf(len(chunk), false)), args...)
		return err
	}
	st := full.any
	if !slices.ContainsFunc(chunk, func(e Entry) bool { return !e.SameMatch }) {
		st = full.sameMatch
	}
	_, err := tx.StmtContext(ctx, st).ExecContext(ctx, args...)
	return err
}

// Known returns how many records the destination has by what it acknowledged.
func (c *Connection) Known(ctx context.Context) (n int64, err error) {
	err = c.s.db.QueryRowContext(ctx, c.s.query(`SELECT count(*) FROM activation_key WHERE conn = ? AND flags IN (0, 1) AND (length(fields) > 0 OR match IS NOT NULL)`), c.id).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count the keys of %s: %w", c.name, err)
	}
	return n, nil
}

// Older calls found with up to limit entries of a partition, in the order of
// their keys and after the given one, that the destination has and that no
// record of epoch or later has touched: rows that a new backfill did not find.
func (c *Connection) Older(ctx context.Context, part int32, epoch uint64, after Key, limit int, found func(Entry)) error {
	rows, err := c.s.db.QueryContext(ctx, c.s.query(`SELECT `+columns+` FROM activation_key
		WHERE conn = ? AND key > ? AND part = ? AND epoch < ? AND flags IN (0, 1) ORDER BY key LIMIT ?`), c.id, after[:], part, int64(epoch), limit)
	if err == nil {
		err = each(rows, found)
	}
	if err != nil {
		return fmt.Errorf("read the keys of %s: %w", c.name, err)
	}
	return nil
}

// All calls found with up to limit entries in the order of their keys, after
// the given one.
func (c *Connection) All(ctx context.Context, after Key, limit int, found func(Entry)) error {
	rows, err := c.s.db.QueryContext(ctx, c.s.query(`SELECT `+columns+` FROM activation_key WHERE conn = ? AND key > ? ORDER BY key LIMIT ?`),
		c.id, after[:], limit)
	if err == nil {
		err = each(rows, found)
	}
	if err != nil {
		return fmt.Errorf("read the keys of %s: %w", c.name, err)
	}
	return nil
}
