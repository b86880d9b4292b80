package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-data/sluice/ingest/files/root"
	"github.com/sluice-data/sluice/record"
)

// change is a file as it is to be published, and as it was.
type change struct {
	known
	old  *known // nil = new
	body []byte // of an inline body that is sent
	text string // of a reason
}

// emit writes the changes down and publishes them.
func (ss *session) emit(ctx context.Context, batch []change) error {
	if len(batch) == 0 {
		return nil
	}
	n := len(batch)
	batch, err := ss.journal(ctx, batch)
	if err != nil {
		return err
	}
	if err := ss.s.at("journaled"); err != nil {
		return err
	}
	if err := ss.send(ctx, batch); err != nil {
		return err
	}
	if err := ss.s.at("published"); err != nil {
		return err
	}
	if ss.unsettled += n; ss.unsettled < settleRows {
		return nil
	}
	return ss.settle(ctx)
}

// journal gives the changes their positions and makes them durable as pending.
// A new file with the content of one that is gone is that file under another
// name: the two records follow each other.
func (ss *session) journal(ctx context.Context, batch []change) ([]change, error) {
	var all []change
	err := ss.st.tx(ctx, func(tx txn) error {
		all = all[:0]
		if _, err := tx.ExecContext(ctx, putMeta, "lsn", ss.lsn); err != nil {
			return err
		}
		for _, c := range batch {
			ss.seq += 2
			moved, err := ss.renamed(ctx, tx, &c)
			if err != nil {
				return err
			}
			if moved != nil {
				d := ss.deletion(*moved)
				if all, err = ss.put(ctx, tx, all, d, 0); err != nil {
					return err
				}
				c.moved = moved.path
				if _, err := tx.ExecContext(ctx, `DELETE FROM gone WHERE path = ?`, moved.path); err != nil {
					return err
				}
			}
			if all, err = ss.put(ctx, tx, all, c, 1); err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}

// put stores one change; half tells the two records of a rename apart.
func (ss *session) put(ctx context.Context, tx txn, all []change, c change, half int64) ([]change, error) {
	c.epoch, c.lsn, c.seq, c.pending = ss.cp.Epoch, ss.lsn, ss.seq+half, true
	if ss.loading {
		c.seq = 0 // the rows of a backfill share their position
	}
	if c.old != nil && c.old.object != "" && c.old.object != c.object && ss.ours(c.old.object) {
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO trash VALUES (?)`, c.old.object); err != nil {
			return nil, err
		}
	}
	if c.op == record.OpDelete && c.old.object != "" && ss.ours(c.old.object) {
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO trash VALUES (?)`, c.old.object); err != nil {
			return nil, err
		}
		c.object = "" // a row that is gone keeps nothing alive
	}
	if _, err := tx.ExecContext(ctx, putKnown, c.values()...); err != nil {
		return nil, err
	}
	if c.what == 0 {
		return all, nil // forgotten, or seen again without a difference
	}
	return append(all, c), nil
}

// renamed returns the file that c was before, nil if it is a new one.
func (ss *session) renamed(ctx context.Context, tx txn, c *change) (*known, error) {
	if ss.noGone || ss.loading || c.old != nil && c.old.live || !c.live || c.what&whatFile == 0 {
		return nil, nil
	}
	query, args := "", []any{ss.cp.Epoch, c.size}
	switch {
	case c.id != "" && c.size == 0:
		query, args = `f.id = ?`, append(args, c.id)
	case c.size == 0:
		return nil, nil // all empty files are alike
	case c.sha != nil:
		query, args = `f.sha = ?`, append(args, c.sha)
	default:
		query, args = `f.sha IS NULL AND f.etag = ?`, append(args, c.etag)
	}
	var k known
	err := tx.QueryRowContext(ctx, `SELECT `+knownColumns+` FROM file f WHERE f.live AND f.epoch = ? AND f.size = ? AND `+query+
		` AND f.path IN (SELECT path FROM gone) ORDER BY f.id = ? DESC, f.path LIMIT 1`, append(args, c.id)...).Scan(k.fields()...)
	if err != nil {
		if errors.Is(err, errNoRows) {
			err = nil
		}
		return nil, err
	}
	return &k, nil
}

// send publishes changes that have their positions.
func (ss *session) send(ctx context.Context, batch []change) error {
	files, permissions := record.NewBatch(ss.s.schemas[filesStream], nil), record.NewBatch(ss.s.schemas[permissionsStream], nil)
	for i := range batch {
		c := &batch[i]
		if c.what&(whatFile|whatReject) != 0 {
			ss.appendFile(files, c)
		}
		if c.what&whatPermission != 0 && ss.s.cfg.Permissions {
			ss.appendRow(permissions, c.op, c.position())
			permissions.After[0].AppendData([]byte(c.path))
			appendText(permissions.After[1], c.acl, c.op == record.OpDelete)
		}
	}
	if err := ss.publish(ctx, filesStream, files); err != nil {
		return err
	}
	return ss.publish(ctx, permissionsStream, permissions)
}

func (ss *session) appendRow(b *record.Batch, op record.Op, pos record.Position) {
	b.Ops, b.Pos, b.Time = append(b.Ops, op), append(b.Pos, pos), append(b.Time, ss.began)
}

// appendFile adds the record of one file.
func (ss *session) appendFile(b *record.Batch, c *change) {
	op := c.op
	reject := c.what&whatReject != 0
	if reject {
		b.Rejects = append(b.Rejects, record.Reject{Row: b.Len(), Code: c.reason, Reason: c.text})
		op = record.OpUpdate
	}
	ss.appendRow(b, op, c.position())
	b.After[0].AppendData([]byte(c.path))
	none := reject || op == record.OpDelete
	light := none || c.what&whatLight != 0
	col := 1
	text := func(s string, unsent bool) { appendText(b.After[col], s, unsent); col++ }
	number := func(n int64, missing bool) {
		switch {
		case none:
			b.After[col].AppendMissing(record.Unsent, 8)
		case missing:
			b.After[col].AppendMissing(record.Null, 8)
		default:
			b.After[col].AppendInt64(n)
		}
		col++
	}
	text(c.etag, none)
	number(c.size, c.size < 0)
	number(c.modified, c.modified == 0)
	text(c.mime, none)
	appendBytes(b.After[col], c.sha, c.sha != nil, none)
	col++
	text(c.title, none)
	text(c.uri, none)
	appendBytes(b.After[col], c.body, c.inline, light)
	col++
	text(c.object, light)
	text(c.objectETag, light)
	text(withMoved(c.metadata, c.moved), none)
	text(c.acl, none)
}

// withMoved adds the path that a renamed file had before to its metadata.
func withMoved(metadata, moved string) string {
	if moved == "" {
		return metadata
	}
	from, _ := json.Marshal(moved)
	if rest := strings.TrimSpace(strings.TrimPrefix(metadata, "{")); metadata != "" && rest != "}" {
		return `{"renamed_from":` + string(from) + `,` + rest
	}
	return `{"renamed_from":` + string(from) + `}`
}

// appendText appends s; an empty text is null.
func appendText(v *record.Vector, s string, unsent bool) {
	appendBytes(v, []byte(s), s != "", unsent)
}

func appendBytes(v *record.Vector, b []byte, present, unsent bool) {
	switch {
	case unsent:
		v.AppendMissing(record.Unsent, 0)
	case !present:
		v.AppendMissing(record.Null, 0)
	default:
		v.AppendData(b)
	}
}

// recover publishes again what the last process may not have. A record that
// can be made as it was keeps its position: where it arrived, it is a
// duplicate. A file that has another content by now is left to the next pass.
func (ss *session) recover(ctx context.Context) error {
	lsn, seq := int64(-1), int64(-1)
	for {
		page, err := ss.st.queryKnown(ctx, `WHERE pending AND (lsn, seq) > (?, ?) ORDER BY lsn, seq LIMIT ?`, lsn, seq, 16)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			break
		}
		var batch []change
		for i := range page {
			c := change{known: page[i]}
			lsn, seq = c.lsn, c.seq
			again, err := ss.again(ctx, &c)
			if err != nil {
				return err
			}
			if again && c.what != 0 {
				batch = append(batch, c)
			}
		}
		if err := ss.send(ctx, batch); err != nil {
			return err
		}
		ss.unsettled += len(page)
	}
	if err := ss.recoverGroups(ctx); err != nil || ss.unsettled == 0 {
		return err
	}
	if err := ss.s.at("recovered"); err != nil {
		return err
	}
	return ss.settle(ctx)
}

// again readies c for the position it had; false if that cannot be.
func (ss *session) again(ctx context.Context, c *change) (bool, error) {
	if c.what&whatReject != 0 {
		c.text = "the file was not read; it is looked at again at the next pass"
		return true, nil
	}
	if c.what&whatFile == 0 || c.what&whatLight != 0 || c.op == record.OpDelete || !c.inline {
		return true, nil
	}
	b, err := ss.readInline(ctx, c.entry())
	if err == nil && string(b.sha) == string(c.sha) {
		c.body = b.inline
		return true, nil
	}
	if err != nil && !errors.Is(err, root.ErrChanged) && !errors.Is(err, root.ErrUnreadable) {
		return false, err
	}
	// An etag that no file has: the next pass sees a change, or that it is gone.
	return false, ss.st.exec(ctx, `UPDATE file SET etag = '', sha = NULL, racy = 1 WHERE path = ?`, c.path)
}

// entry returns what Open needs to read k again.
func (k *known) entry() root.Entry {
	return root.Entry{Path: k.path, ID: k.id, ETag: k.etag, Size: k.size, MIME: k.mime, Ref: k.ref, Object: k.origin}
}

// groups publishes the groups that were made, changed or dropped.
func (ss *session) groups(ctx context.Context) error {
	if !ss.s.cfg.Permissions {
		return nil
	}
	list := ss.s.cfg.Groups
	if g, ok := ss.root.(Grouper); ok {
		more, err := g.Groups(ctx)
		if err != nil {
			return fmt.Errorf("list the groups: %w", err)
		}
		list = append(list[:len(list):len(list)], more...)
	}
	said, err := ss.st.number(ctx, "groups")
	if err != nil {
		return err
	}
	all := ss.began-said > groupsAgain.Microseconds()
	var changes []group
	err = ss.st.tx(ctx, func(tx txn) error {
		old, err := readGroups(ctx, tx, "")
		if err != nil {
			return err
		}
		changes = ss.groupChanges(old, list, all)
		for i := range changes {
			g := &changes[i]
			ss.seq += 2
			g.epoch, g.lsn, g.seq, g.pending = ss.cp.Epoch, ss.lsn, ss.seq, true
			if ss.loading {
				g.seq = 0
			}
			if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO member VALUES (?,?,?,?,?,?,?,?)`, g.name, g.members, g.live,
				g.epoch, g.lsn, g.seq, g.op, g.pending); err != nil {
				return err
			}
		}
		if len(changes) > 0 {
			_, err = tx.ExecContext(ctx, putMeta, "lsn", ss.lsn)
		}
		if all && err == nil {
			_, err = tx.ExecContext(ctx, putMeta, "groups", ss.began)
		}
		return err
	})
	if err != nil || len(changes) == 0 {
		return err
	}
	ss.unsettled += len(changes)
	return ss.sendGroups(ctx, changes)
}

// group is one group as it was published last.
type group struct {
	name, members   string // members: a JSON array
	live            bool
	epoch, lsn, seq int64
	op              record.Op
	pending         bool
}

// groupsAgain is the time after which unchanged groups are said again: sinks
// do not believe groups that they have not heard of for long.
const groupsAgain = time.Hour

func (ss *session) groupChanges(old []group, list []root.Group, all bool) []group {
	before, now := map[string]group{}, map[string]bool{}
	for _, g := range old {
		before[g.name] = g
	}
	var changes []group
	for _, g := range list {
		if now[g.Name] || g.Name == "" {
			continue
		}
		now[g.Name] = true
		members, _ := json.Marshal(root.ACL{Allow: g.Members}.Normal().Allow)
		b, known := before[g.Name]
		op := record.OpInsert
		switch {
		case known && b.live && b.members == string(members) && !all:
			continue
		case ss.loading:
			op = record.OpRead
		case known:
			op = record.OpUpdate
		}
		changes = append(changes, group{name: g.Name, members: string(members), live: true, op: op})
	}
	for _, g := range old {
		if g.live && !now[g.name] {
			g.live, g.op = false, record.OpDelete
			changes = append(changes, g)
		}
	}
	return changes
}

func readGroups(ctx context.Context, q querier, where string) ([]group, error) {
	rows, err := q.QueryContext(ctx, `SELECT name, members, live, epoch, lsn, seq, op, pending FROM member `+where)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var list []group
	for rows.Next() {
		var g group
		if err := rows.Scan(&g.name, &g.members, &g.live, &g.epoch, &g.lsn, &g.seq, &g.op, &g.pending); err != nil {
			return nil, err
		}
		list = append(list, g)
	}
	return list, rows.Err()
}

func (ss *session) sendGroups(ctx context.Context, list []group) error {
	b := record.NewBatch(ss.s.schemas[groupsStream], nil)
	for _, g := range list {
		ss.appendRow(b, g.op, record.Position{Epoch: uint64(g.epoch), LSN: uint64(g.lsn), Seq: uint64(g.seq)})
		b.After[0].AppendData([]byte(g.name))
		appendText(b.After[1], g.members, g.op == record.OpDelete)
	}
	return ss.publish(ctx, groupsStream, b)
}

func (ss *session) recoverGroups(ctx context.Context) error {
	list, err := readGroups(ctx, ss.st.db, `WHERE pending ORDER BY lsn, seq`)
	if err != nil || len(list) == 0 {
		return stateError(err)
	}
	ss.unsettled += len(list)
	return ss.sendGroups(ctx, list)
}
