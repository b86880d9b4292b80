package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-data/sluice/record"
)

// describe takes in what the log says about a table before its first change.
func (f *follower) describe(ctx context.Context, m relationMessage, raw []byte) error {
	name := record.StreamName{Source: f.ss.s.cfg.Name, Namespace: m.namespace, Name: m.name}
	st := f.streams[name]
	for other, o := range f.streams {
		if o.t.oid == m.oid && other != name {
			f.park(o, fmt.Errorf("the table was renamed to %s; name it so in tables, or rename it back", name.Local()))
		}
	}
	if st != nil && st.t.oid != m.oid {
		f.park(st, errors.New("another table has taken the name; a restart loads it"))
	}
	rel := f.relations[m.oid]
	if rel == nil {
		rel = &relation{}
		f.relations[m.oid] = rel
	}
	if st == nil || st.parked {
		rel.st = nil
		return nil
	}
	if rel.raw == string(raw) && m.identity != 'f' {
		return nil
	}
	rel.raw, rel.identity = string(raw), m.identity
	shape, err := f.shape(ctx, name, m)
	if err != nil {
		return err
	}
	if shape == nil {
		f.park(st, errors.New("a column of its key is not published"))
		rel.st = nil
		return nil
	}
	if f.binary && !shape.binary {
		return errWantsText
	}
	old := m.identity == 'f'
	if rel.w != nil && rel.st == st && rel.w.shape.schema.ID == shape.schema.ID && rel.w.old == old {
		return nil
	}
	if rel.w != nil && rel.st != nil {
		if err := f.publish(ctx, rel); err != nil { // rows before the change keep their schema
			return err
		}
		f.ss.s.log.Info("schema changed", "stream", name.String(), "schema", shape.schema.ID)
	}
	rel.st, rel.w = st, newWriter(shape)
	rel.w.old = old
	return nil
}

// shape makes the schema of a table as the log has it; nil if its key is incomplete.
func (f *follower) shape(ctx context.Context, name record.StreamName, m relationMessage) (*shape, error) {
	f.ss.catalog.Lock()
	defer f.ss.catalog.Unlock()
	cols := make([]column, len(m.columns))
	var flagged []string
	for i, c := range m.columns {
		cols[i] = c.column
		if c.identity {
			flagged = append(flagged, c.name)
		}
	}
	if err := f.kinds.load(ctx, f.ss.conn, cols); err != nil {
		return nil, err
	}
	found, err := loadTables(ctx, f.ss.conn, []record.StreamName{name})
	if err != nil {
		return nil, err
	}
	t := found[name]
	if t == nil || t.oid != m.oid {
		t = f.streams[name].t // renamed or dropped since: what was known must do
	}
	var key []string
	switch m.identity {
	case 'f':
		key = t.primary
	case 'd':
		key = order(flagged, t.primary)
	case 'i':
		key = order(flagged, t.index)
	}
	s, err := f.kinds.shape(name, cols, key)
	if err != nil {
		return nil, nil
	}
	return s, nil
}

// order puts the columns that the log names as identity into the order of the
// index, unless the catalog is already ahead and has another index.
func order(flagged, index []string) []string {
	if len(flagged) != len(index) {
		return flagged
	}
	for _, c := range index {
		if !slices.Contains(flagged, c) {
			return flagged
		}
	}
	return index
}

// change handles an insert, update or delete.
func (f *follower) change(ctx context.Context, b []byte) error {
	seq := 2 * f.index
	f.index++ // counted for every row of the transaction: the same on every delivery
	if len(b) < 5 {
		return errors.New("read a row message of pgoutput: it is cut short")
	}
	rel := f.relations[binary.BigEndian.Uint32(b[1:])]
	if rel == nil {
		return errors.New("read a row message of pgoutput: its table was not described")
	}
	if rel.st == nil || rel.st.parked || f.lsn < rel.st.from {
		return nil
	}
	if err := parseRow(b[0], b[1:], &f.row); err != nil {
		return err
	}
	if n := len(rel.w.shape.codecs); len(f.row.new) != n && b[0] != 'D' || f.row.oldKind != 0 && len(f.row.old) != n {
		return fmt.Errorf("read a row message of pgoutput: %d columns instead of %d", max(len(f.row.new), len(f.row.old)), n)
	}
	pos := record.Position{Epoch: rel.st.epoch, LSN: f.lsn, Seq: seq}
	if err := f.write(ctx, b[0], rel, pos); err != nil {
		if ctx.Err() != nil {
			return err
		}
		var server *Error // of reselect: the database, not the stream
		if errors.As(err, &server) {
			return err
		}
		rel.w.take() // it may be uneven now, and nobody may see it
		f.park(rel.st, err)
		return nil
	}
	if rel.w.batch == nil {
		return nil
	}
	if rel.w.batch.Len() >= f.ss.s.cfg.BatchRows || rel.w.bytes >= f.ss.s.cfg.BatchBytes {
		return f.publish(ctx, rel)
	}
	if !rel.waiting {
		rel.waiting = true
		f.waiting = append(f.waiting, rel)
		if f.since.IsZero() {
			f.since = time.Now()
		}
	}
	return nil
}

// write appends the change in f.row to the batch of rel.
func (f *follower) write(ctx context.Context, typ byte, rel *relation, pos record.Position) error {
	w, m := rel.w, &f.row
	var old []cell
	if m.oldKind == 'O' {
		old = m.old
	}
	switch typ {
	case 'I':
		err := w.tuple(record.OpInsert, pos, f.micros, m.new)
		w.before(nil)
		return err
	case 'D':
		err := w.remove(pos, f.micros, m.old)
		w.before(old)
		return err
	}
	moved := false
	if m.oldKind != 0 {
		moved = f.fill(w.shape)
	}
	if !moved {
		err := w.tuple(record.OpUpdate, pos, f.micros, m.new)
		w.before(old)
		return err
	}
	err := w.remove(pos, f.micros, m.old)
	w.before(old)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(m.new, func(c cell) bool { return c.kind == 'u' }) {
		if there, err := f.reselect(ctx, rel); err != nil || !there {
			return err
		}
	}
	pos.Seq++
	err = w.tuple(record.OpInsert, pos, f.micros, m.new)
	w.before(nil)
	return err
}

// fill completes the new row from the old one and reports whether the key has changed.
func (f *follower) fill(s *shape) (moved bool) {
	m := &f.row
	for i := range m.new {
		key := s.codecs[i].field.Key > 0
		if m.new[i].kind == 'u' && (key || m.oldKind == 'O') {
			m.new[i] = m.old[i]
			continue
		}
		if key && (m.new[i].kind != m.old[i].kind || !bytes.Equal(m.new[i].data, m.old[i].data)) {
			moved = true
		}
	}
	return moved
}

// reselect reads the cells that a key change did not send: under its new key no
// sink has an old value to keep. It reports whether the row is still there; if
// not, a later change of the log says where it went.
func (f *follower) reselect(ctx context.Context, rel *relation) (there bool, err error) {
	f.ss.catalog.Lock()
	defer f.ss.catalog.Unlock()
	s, m := rel.w.shape, &f.row
	var want []int
	var cols []column
	var formats []int16
	for i, c := range m.new {
		if c.kind != 'u' {
			continue
		}
		want, cols = append(want, i), append(cols, column{name: s.codecs[i].field.Name})
		if s.codecs[i].binary() {
			formats = append(formats, 1)
		} else {
			formats = append(formats, 0)
		}
	}
	var where []string
	var params [][]byte
	var paramFormats []int16
	for i, k := range s.keys {
		where = append(where, fmt.Sprintf("%s = $%d", quote(s.codecs[k].field.Name), i+1))
		params = append(params, m.new[k].data)
		paramFormats = append(paramFormats, map[byte]int16{'t': 0, 'b': 1}[m.new[k].kind])
	}
	sql := fmt.Sprintf("SELECT v.visible, r.* FROM (%s) v LEFT JOIN (SELECT true, %s FROM %s WHERE %s) r ON true",
		visibleSQL(f.xid), quoteAll(cols), qualified(rel.st.t.name), strings.Join(where, " AND "))
	formats = append([]int16{0, 0}, formats...)
	result := f.ss.conn.PgConn().ExecParams(ctx, sql, params, nil, paramFormats, formats).Read()
	// The log shows a commit a moment before other transactions see its rows,
	// with a synchronous standby even long before.
	for pause := time.Millisecond; result.Err == nil && len(result.Rows) > 0 && string(result.Rows[0][0]) != "t"; pause = min(2*pause, 200*time.Millisecond) {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(pause):
		}
		result = f.ss.conn.PgConn().ExecParams(ctx, sql, params, nil, paramFormats, formats).Read()
	}
	if result.Err != nil {
		switch sqlState(result.Err) {
		case "42P01": // the table is gone
			return false, nil
		case "42703": // a column is gone: its cells stay unsent
			return true, nil
		}
		return false, wrap("read a row of "+rel.st.t.name.Local()+" whose key has changed", result.Err)
	}
	if len(result.Rows) == 0 || result.Rows[0][1] == nil {
		return false, nil
	}
	for j, i := range want {
		c := cell{kind: 'n', data: result.Rows[0][2+j]}
		if c.data != nil {
			c.kind = 't'
			if formats[2+j] == 1 {
				c.kind = 'b'
			}
		}
		m.new[i] = c
	}
	return true, nil
}

// visibleSQL asks whether the statement sees what transaction xid has done. The
// log gives a transaction's id without its epoch: the nearest one is meant.
func visibleSQL(xid uint32) string {
	return fmt.Sprintf(`SELECT pg_visible_in_snapshot((m + (%d - m %% 4294967296 + 6442450944) %% 4294967296 - 2147483648)::text::xid8, now) AS visible
		FROM (SELECT now, pg_snapshot_xmax(now)::text::bigint AS m FROM (SELECT pg_current_snapshot() AS now) s) x`, xid)
}

// truncate empties streams at their position.
func (f *follower) truncate(ctx context.Context, b []byte) error {
	seq := 2 * f.index
	f.index++
	if err := parseTruncate(b, &f.cut); err != nil {
		return err
	}
	for _, oid := range f.cut.relations {
		rel := f.relations[oid]
		if rel == nil || rel.st == nil || rel.st.parked || f.lsn < rel.st.from {
			continue
		}
		if err := f.publish(ctx, rel); err != nil {
			return err
		}
		if rel.st.parked {
			continue
		}
		pos := record.Position{Epoch: rel.st.epoch, LSN: f.lsn, Seq: seq}
		err := f.ss.out.Publish(ctx, record.NewControl(rel.w.shape.schema, record.OpTruncate, pos, f.micros))
		if err := f.sent(ctx, rel.st, f.micros, err); err != nil {
			return err
		}
	}
	return nil
}
