package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// A backfill reads tables as they were at one log address: a temporary slot
// exports a snapshot, all readers see the database through it, and the log is
// followed from that address on. It is not resumed: one that was interrupted
// begins anew with a higher epoch, which supersedes what the earlier one sent.

// chunkPages are the pages one query reads at most: 64 MiB.
const chunkPages = 8192

// load is one table in a backfill.
type load struct {
	t      *table
	shape  *shape
	epoch  uint64
	left   atomic.Int32 // chunks to read
	parked atomic.Bool
	from   []heap
}

// heap is one file of rows: the table, or a partition of it.
type heap struct {
	sql   string // quoted name
	pages int64
}

// chunk is a range of pages.
type chunk struct {
	l        *load
	heap     string
	low, end int64 // end < 0: up to the last page
}

type backfill struct {
	ss    *session
	at    uint64 // the log address of the snapshot
	time  int64  // its time, µs since 1970
	loads []*load

	mu     sync.Mutex
	chunks []chunk
}

func (ss *session) backfill(ctx context.Context, tables []*table) error {
	s := ss.s
	for _, t := range tables {
		s.progress(t.name).Set(progress.Backfilling, "waits for open transactions to end")
	}
	exporter, err := s.connectReplication(ctx)
	if err != nil {
		return err
	}
	closeExporter := sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = exporter.Close(ctx)
	})
	defer closeExporter()
	at, snapshot, err := s.exportSnapshot(ctx, exporter, ss.srv.version)
	if err != nil {
		return err
	}
	readers := make([]*pgx.Conn, s.cfg.Readers)
	defer func() {
		for _, r := range readers {
			if r != nil {
				closeSoon(ctx, r)
			}
		}
	}()
	for i := range readers {
		if readers[i], err = s.snapshotReader(ctx, snapshot); err != nil {
			return err
		}
	}
	b := &backfill{ss: ss, at: at}
	if err := b.plan(ctx, readers[0], tables); err != nil {
		return err
	}
	closeExporter() // the readers have the snapshot, and nobody needs the temporary slot's log
	if err := b.begin(ctx); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, r := range readers {
		g.Go(func() error { return b.readChunks(gctx, r.PgConn()) })
	}
	return g.Wait()
}

func closeSoon(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// exportSnapshot makes a temporary slot and returns where in the log its snapshot is.
func (s *Source) exportSnapshot(ctx context.Context, conn *pgconn.PgConn, version int) (at uint64, snapshot string, err error) {
	option := "(SNAPSHOT 'export')"
	if version < 150000 {
		option = "EXPORT_SNAPSHOT"
	}
	name := s.cfg.Slot[:min(len(s.cfg.Slot), 50)] + fmt.Sprintf("_%d", conn.PID())
	results, err := conn.Exec(ctx, fmt.Sprintf("CREATE_REPLICATION_SLOT %s TEMPORARY LOGICAL pgoutput %s", quote(name), option)).ReadAll()
	if err != nil {
		return 0, "", wrap("create a temporary slot for the backfill", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 3 {
		return 0, "", errors.New("create a temporary slot for the backfill: unexpected answer")
	}
	row := results[0].Rows[0]
	at, err = parseLSN(string(row[1]))
	return at, string(row[2]), err
}

// snapshotReader opens a connection that sees the database as it was.
func (s *Source) snapshotReader(ctx context.Context, snapshot string) (*pgx.Conn, error) {
	conn, err := s.control(ctx)
	if err != nil {
		return nil, err
	}
	for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "SET TRANSACTION SNAPSHOT " + literal(snapshot)} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			closeSoon(ctx, conn)
			return nil, wrap("open the snapshot of the backfill", err)
		}
	}
	return conn, nil
}

// plan reads the tables' definitions as the snapshot has them and cuts them into chunks.
func (b *backfill) plan(ctx context.Context, conn *pgx.Conn, tables []*table) error {
	s := b.ss.s
	var names []record.StreamName
	var locks []string
	for _, t := range tables {
		names, locks = append(names, t.name), append(locks, qualified(t.name))
	}
	// A table that is rewritten now looks empty to older snapshots: the lock keeps
	// that from happening, and moved below tells whether it was too late.
	if _, err := conn.Exec(ctx, "LOCK TABLE "+strings.Join(locks, ", ")+" IN ACCESS SHARE MODE"); err != nil {
		return wrap("lock the tables of the backfill against a rewrite", err)
	}
	if err := conn.QueryRow(ctx, "SELECT (extract(epoch FROM now()) * 1000000)::bigint").Scan(&b.time); err != nil {
		return wrap("read the time of the snapshot", err)
	}
	found, err := loadTables(ctx, conn, names)
	if err != nil {
		return err
	}
	if _, err := s.loadPublication(ctx, conn, b.ss.srv.version, found); err != nil {
		return err
	}
	kinds := &types{check: b.ss.srv.check}
	for _, old := range tables {
		t := found[old.name]
		if t == nil || t.oid != old.oid {
			return &Error{Do: "backfill " + old.name.Local(), Err: errors.New("the table was replaced a moment ago")}
		}
		l, err := b.prepare(ctx, conn, kinds, t)
		if err != nil {
			return err
		}
		if l != nil {
			b.loads = append(b.loads, l)
		}
	}
	return nil
}

// prepare readies one table; nil if it had to be parked.
func (b *backfill) prepare(ctx context.Context, conn *pgx.Conn, kinds *types, t *table) (*load, error) {
	cols := t.read(b.ss.pub.generated)
	if err := kinds.load(ctx, conn, cols); err != nil {
		return nil, err
	}
	shape, err := kinds.shape(t.name, cols, t.key())
	if err != nil {
		b.ss.park(t.name, err)
		return nil, nil
	}
	l := &load{t: t, shape: shape}
	rows, err := conn.Query(ctx, `SELECT n.nspname::text, c.relname::text, pg_relation_size(c.oid) / current_setting('block_size')::int,
			c.relfilenode = pg_relation_filenode(c.oid)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_partition_tree($1) WHERE isleaf))`, t.oid)
	if err != nil {
		return nil, wrap("measure "+t.name.Local(), err)
	}
	defer rows.Close()
	for rows.Next() {
		var name record.StreamName
		var h heap
		var same bool
		if err := rows.Scan(&name.Namespace, &name.Name, &h.pages, &same); err != nil {
			return nil, wrap("measure "+t.name.Local(), err)
		}
		if !same {
			return nil, &Error{Do: "backfill " + t.name.Local(), Err: errors.New("the table was rewritten a moment ago")}
		}
		h.sql = qualified(name)
		l.from = append(l.from, h)
	}
	return l, wrap("measure "+t.name.Local(), rows.Err())
}

// begin opens the epochs: saved before the first record, announced before the first row.
func (b *backfill) begin(ctx context.Context) error {
	for _, l := range b.loads {
		l.epoch = b.ss.cp.begin(l.t.name.Local(), l.t, b.at)
	}
	if _, err := b.ss.cp.save(ctx); err != nil {
		return err
	}
	for _, l := range b.loads {
		p := b.ss.s.progress(l.t.name)
		p.Set(progress.Backfilling, "")
		p.Total.Store(l.t.rows)
		p.SetPosition(formatLSN(b.at))
		b.ss.s.log.Info("backfill begins", "stream", l.t.name.String(), "epoch", l.epoch, "rows", l.t.rows)
		if err := b.send(ctx, l, record.NewControl(l.shape.schema, record.OpBackfillBegin, b.position(l), b.time)); err != nil {
			return err
		}
		b.cut(l)
		if l.left.Load() == 0 {
			if err := b.finish(ctx, l); err != nil {
				return err
			}
		}
	}
	return nil
}

// cut makes the chunks of a table: enough for all readers to share a small one.
func (b *backfill) cut(l *load) {
	var total int64
	for _, h := range l.from {
		total += h.pages
	}
	size := min(max(total/int64(4*b.ss.s.cfg.Readers), 256), chunkPages)
	for _, h := range l.from {
		for low := int64(0); low < max(h.pages, 1); low += size {
			c := chunk{l: l, heap: h.sql, low: low, end: low + size}
			if c.end >= h.pages {
				c.end = -1
			}
			b.chunks = append(b.chunks, c)
			l.left.Add(1)
		}
	}
}

func (b *backfill) position(l *load) record.Position {
	return record.Position{Epoch: l.epoch, LSN: b.at}
}

// send publishes a batch and parks its stream if that fails for good.
func (b *backfill) send(ctx context.Context, l *load, batch *record.Batch) error {
	err := b.ss.out.Publish(ctx, batch)
	if err == nil || ctx.Err() != nil || lost(err) {
		return err
	}
	return b.park(ctx, l, err)
}

func (b *backfill) park(ctx context.Context, l *load, err error) error {
	if l.parked.Swap(true) {
		return nil
	}
	b.ss.park(l.t.name, err)
	_, serr := b.ss.cp.save(ctx)
	return serr
}

func (b *backfill) next() (chunk, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.chunks) == 0 {
		return chunk{}, false
	}
	c := b.chunks[0]
	b.chunks = b.chunks[1:]
	return c, true
}

// readChunks is the work of one reader.
func (b *backfill) readChunks(ctx context.Context, conn *pgconn.PgConn) error {
	var l *load
	var w *writer
	for {
		c, ok := b.next()
		if !ok {
			return nil
		}
		if c.l != l {
			l, w = c.l, newWriter(c.l.shape.clone())
		}
		if !l.parked.Load() {
			if err := b.readChunk(ctx, conn, c, w); err != nil {
				return err
			}
		}
		if l.left.Add(-1) == 0 && !l.parked.Load() {
			if err := b.finish(ctx, l); err != nil {
				return err
			}
		}
	}
}

// readChunk reads the rows of c straight from the wire into batches.
func (b *backfill) readChunk(ctx context.Context, conn *pgconn.PgConn, c chunk, w *writer) error {
	formats := make([]int16, len(w.shape.codecs))
	kinds := make([]byte, len(formats))
	cols := make([]column, len(formats))
	for i, codec := range w.shape.codecs {
		cols[i].name, kinds[i] = codec.field.Name, 't'
		if codec.binary() {
			formats[i], kinds[i] = 1, 'b'
		}
	}
	sql := fmt.Sprintf("SELECT %s FROM ONLY %s WHERE ctid >= '(%d,0)'::tid", quoteAll(cols), c.heap, c.low)
	if c.end >= 0 {
		sql += fmt.Sprintf(" AND ctid < '(%d,0)'::tid", c.end)
	}
	if c.l.t.filter != "" {
		sql += " AND (" + c.l.t.filter + ")"
	}
	rows := conn.ExecParams(ctx, sql, nil, nil, nil, formats)
	pos := b.position(c.l)
	for rows.NextRow() {
		if err := w.row(record.OpRead, pos, b.time, kinds, rows.Values()); err != nil {
			_, _ = rows.Close()
			return b.park(ctx, c.l, err)
		}
		if w.batch.Len() >= b.ss.s.cfg.BatchRows || w.bytes >= b.ss.s.cfg.BatchBytes {
			if err := b.send(ctx, c.l, w.take()); err != nil || c.l.parked.Load() {
				_, _ = rows.Close()
				return err
			}
		}
	}
	if _, err := rows.Close(); err != nil {
		return wrap("read "+c.l.t.name.Local(), err)
	}
	if w.batch != nil && w.batch.Len() > 0 {
		return b.send(ctx, c.l, w.take())
	}
	return nil
}

// finish closes the epoch's backfill once all its rows are on the brokers.
func (b *backfill) finish(ctx context.Context, l *load) error {
	if err := b.ss.alive(ctx); err != nil {
		return err
	}
	if err := b.ss.out.Flush(ctx); err != nil {
		return err
	}
	if err := b.send(ctx, l, record.NewControl(l.shape.schema, record.OpBackfillEnd, b.position(l), b.time)); err != nil || l.parked.Load() {
		return err
	}
	if err := b.ss.out.Flush(ctx); err != nil {
		return err
	}
	b.ss.cp.set(l.t.name.Local(), streaming, "")
	if _, err := b.ss.cp.save(ctx); err != nil {
		return err
	}
	b.ss.s.progress(l.t.name).Set(progress.Streaming, "")
	b.ss.s.log.Info("backfill complete", "stream", l.t.name.String(), "epoch", l.epoch)
	return nil
}

// alive makes sure that the lock of the source is still ours.
func (ss *session) alive(ctx context.Context) error {
	ss.catalog.Lock()
	defer ss.catalog.Unlock()
	_, err := ss.conn.Exec(ctx, "SELECT 1")
	return wrap("keep the lock of the source", err)
}
