package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-data/sluice/ingest/files/root"
	"github.com/sluice-data/sluice/record"
)

const (
	listChunk   = 1000    // entries per transaction
	pageRows    = 256     // changes looked at together
	batchBytes  = 4 << 20 // of bodies in one batch
	settleRows  = 4000    // published rows that a crash may make us look at again
	raceTime    = 2 * time.Second
	alwaysFine  = 10 // missing files that never look suspicious
	maxMetadata = 64 << 10
)

// pass looks at the place once, publishes what has changed and settles it.
func (ss *session) pass(ctx context.Context) error {
	ss.began, ss.missed, ss.skipped = ss.s.now().UnixMicro(), 0, map[string]int{}
	for _, q := range []string{`DELETE FROM listed`, `DELETE FROM removed`, `DELETE FROM gone`} {
		if err := ss.st.exec(ctx, q); err != nil {
			return err
		}
	}
	full, token, err := ss.look(ctx)
	if err != nil {
		return err
	}
	if err := ss.s.at("listed"); err != nil {
		return err
	}
	if err := ss.findGone(ctx, full); err != nil {
		return err
	}
	if !ss.loading {
		ss.lsn++ // stored with the first change
	}
	ss.seq = 0
	if err := ss.changed(ctx); err != nil {
		return err
	}
	if err := ss.gone(ctx); err != nil {
		return err
	}
	if err := ss.groups(ctx); err != nil {
		return err
	}
	if ss.seq == 0 && !ss.loading {
		ss.lsn--
	}
	if err := ss.complete(ctx); err != nil {
		return err
	}
	if ss.missed > 0 {
		return nil // the token must not pass them
	}
	if err := ss.st.remember(ctx, "token", token); err != nil || !full {
		return err
	}
	return ss.st.remember(ctx, "swept", ss.began)
}

// look fills the tables listed and removed. full says that what is not listed is gone.
func (ss *session) look(ctx context.Context) (full bool, token string, err error) {
	f, follows := ss.root.(Follower)
	if !follows {
		return true, "", ss.list(ctx, ss.root.List(ctx))
	}
	if token, err = ss.st.text(ctx, "token"); err != nil {
		return false, "", err
	}
	swept, err := ss.st.number(ctx, "swept")
	if err != nil {
		return false, "", err
	}
	if !ss.loading && token != "" && ss.began-swept < ss.s.cfg.Sweep.Microseconds() && !ss.s.cfg.UntilCaughtUp {
		changed, gone, next, relist, err := f.Changes(ctx, token)
		switch {
		case errors.Is(err, root.ErrExpired), err == nil && relist:
		case err != nil:
			return false, "", err
		default:
			if ok, err := ss.follow(ctx, changed, gone); err != nil || ok {
				return false, next, err
			}
		}
	}
	// What changes while the listing runs comes again with the next changes.
	if token, err = f.Token(ctx); err != nil {
		return false, "", err
	}
	return true, token, ss.list(ctx, ss.root.List(ctx))
}

// follow fills listed and removed from changes. It reports false, and undoes
// that, if a change takes the path of a file that nothing was said about: then
// only a full listing can tell which is which.
func (ss *session) follow(ctx context.Context, changed []root.Entry, gone []string) (bool, error) {
	err := errors.Join(ss.remove(ctx, gone), ss.list(ctx, func(yield func(root.Entry, error) bool) {
		for _, e := range changed {
			if !yield(e, nil) {
				return
			}
		}
	}))
	if err != nil {
		return false, err
	}
	clash, err := ss.st.count(ctx, `SELECT count(*) FROM listed l JOIN file f ON f.path = l.path WHERE f.live AND f.id <> l.id
		AND f.id NOT IN (SELECT id FROM removed) AND f.id NOT IN (SELECT id FROM listed)`)
	if err != nil || clash == 0 {
		return err == nil, err
	}
	return false, errors.Join(ss.st.exec(ctx, `DELETE FROM listed`), ss.st.exec(ctx, `DELETE FROM removed`))
}

func (ss *session) remove(ctx context.Context, ids []string) error {
	return ss.st.tx(ctx, func(tx txn) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO removed VALUES (?)`, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// list writes the entries that the patterns choose to the table listed.
func (ss *session) list(ctx context.Context, entries iter.Seq2[root.Entry, error]) error {
	chunk := make([]root.Entry, 0, listChunk)
	flush := func() error {
		defer func() { chunk = chunk[:0] }()
		return ss.st.tx(ctx, func(tx txn) error {
			insert, err := tx.PrepareContext(ctx, `INSERT OR REPLACE INTO listed VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`)
			if err != nil {
				return err
			}
			defer func() { _ = insert.Close() }()
			for i := range chunk {
				if _, err := insert.ExecContext(ctx, ss.listedValues(&chunk[i])...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for e, err := range entries {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if bad := root.CheckPath(e.Path); bad != nil && e.Skip == nil {
			e.Path, e.Skip = root.Printable(e.Path), bad
		}
		if len(ss.s.cfg.Include) > 0 && !matchAny(ss.s.cfg.Include, e.Path) || matchAny(ss.s.cfg.Exclude, e.Path) {
			continue
		}
		if chunk = append(chunk, e); len(chunk) == listChunk {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// listedValues returns e as a row of the table listed.
func (ss *session) listedValues(e *root.Entry) []any {
	reason, text := "", ""
	if e.Skip != nil {
		reason, text = e.Skip.Code, e.Skip.Text
		ss.skipped[reason]++
	}
	acl := ""
	if a := ss.acl(e); a != nil {
		b, _ := json.Marshal(a.Normal())
		acl = string(b)
	}
	if len(e.Metadata) > maxMetadata || !strings.HasPrefix(e.Metadata, "{") || !json.Valid([]byte(e.Metadata)) {
		e.Metadata = ""
	}
	modified := int64(0)
	if !e.Modified.IsZero() {
		modified = e.Modified.UnixMicro()
	}
	clean := func(s string) string { return strings.ToValidUTF8(s, "�") }
	return []any{e.Path, e.ID, e.ETag, e.Size, modified, clean(e.MIME), clean(e.Title), clean(e.URI), e.Metadata, clean(acl), e.Ref,
		e.Object, e.SHA256, e.Weak, reason, text}
}

// acl returns who may see e: what its place says, else the first rule that fits.
func (ss *session) acl(e *root.Entry) *root.ACL {
	if e.ACL != nil {
		return e.ACL
	}
	for i := range ss.s.cfg.Rules {
		if r := &ss.s.cfg.Rules[i]; r.Glob.Match(e.Path) {
			return &r.ACL
		}
	}
	return nil
}

// findGone fills the table gone and refuses a listing that lacks suspiciously
// much: an unmounted disk or a lost grant must not empty the sinks.
func (ss *session) findGone(ctx context.Context, full bool) error {
	query := `INSERT INTO gone SELECT f.path FROM file f WHERE f.path NOT IN (SELECT path FROM listed)`
	if !full {
		query += ` AND f.id <> '' AND (f.id IN (SELECT id FROM removed) OR f.id IN (SELECT id FROM listed))`
	}
	if err := ss.st.exec(ctx, query); err != nil {
		return err
	}
	gone, err := ss.st.count(ctx, `SELECT count(*) FROM gone`)
	ss.noGone = gone == 0
	if err != nil || !full || gone == 0 {
		return err
	}
	known, err := ss.st.count(ctx, `SELECT count(*) FROM file`)
	if err != nil {
		return err
	}
	share := ss.s.cfg.MaxGone
	if share < 1 && (gone >= alwaysFine && float64(gone) > share*float64(known) || gone > 1 && gone == known) {
		return fmt.Errorf("list the files: %d of %d known files are missing, which looks like a place that is away: nothing was deleted; "+
			"if they are really gone, set max_gone to 1 for one run", gone, known)
	}
	return nil
}

// listing is one row of the table listed.
type listing struct {
	root.Entry
	acl      string
	modified int64
}

// changed publishes what is new or another version than before.
func (ss *session) changed(ctx context.Context) error {
	var batch []change
	size, after := 0, ""
	for {
		var calm []string
		page, err := ss.page(ctx, after)
		if err != nil {
			return err
		}
		for window := range slices.Chunk(page, 4*ss.s.cfg.Workers) {
			loaded, err := ss.loadAll(ctx, window)
			if err != nil {
				return err
			}
			for i := range loaded {
				c := loaded[i]
				if c.what == 0 {
					if c.old != nil && c.old.racy && !c.racy {
						calm = append(calm, c.path)
					}
					continue
				}
				batch = append(batch, c)
				if size += len(c.body); len(batch) >= listChunk || size >= batchBytes {
					if err := ss.emit(ctx, batch); err != nil {
						return err
					}
					batch, size = nil, 0
				}
			}
		}
		if err := ss.calm(ctx, calm); err != nil {
			return err
		}
		if len(page) < pageRows {
			return ss.emit(ctx, batch)
		}
		after = page[len(page)-1].Path
	}
}

// calm notes that files which had been read right after a write are as they were read.
func (ss *session) calm(ctx context.Context, paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	return ss.st.tx(ctx, func(tx txn) error {
		for _, p := range paths {
			if _, err := tx.ExecContext(ctx, `UPDATE file SET racy = 0 WHERE path = ? AND NOT pending`, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// page returns the next listed files that differ from what was published.
func (ss *session) page(ctx context.Context, after string) ([]listing, error) {
	rows, err := ss.st.db.QueryContext(ctx, `
		SELECT l.path, l.id, l.etag, l.size, l.modified, l.mime, l.title, l.uri, l.metadata, l.acl, l.ref, l.origin, l.sha, l.weak, l.reason, l.text
		FROM listed l LEFT JOIN file f ON f.path = l.path
		WHERE l.path > ? AND (f.path IS NULL OR f.epoch <> ? OR f.live = 0 AND f.reason = '' OR f.etag <> l.etag OR f.racy OR f.id <> l.id
			OR f.acl <> l.acl OR f.title <> l.title OR f.uri <> l.uri OR f.metadata <> l.metadata OR f.origin <> l.origin
			OR f.reason <> l.reason OR l.size >= 0 AND f.size <> l.size OR f.modified <> l.modified)
		ORDER BY l.path LIMIT ?`, after, ss.cp.Epoch, pageRows)
	if err != nil {
		return nil, stateError(err)
	}
	defer func() { _ = rows.Close() }()
	var page []listing
	for rows.Next() {
		var l listing
		var reason, text string
		if err := rows.Scan(&l.Path, &l.ID, &l.ETag, &l.Size, &l.modified, &l.MIME, &l.Title, &l.URI, &l.Metadata, &l.acl, &l.Ref,
			&l.Object, &l.SHA256, &l.Weak, &reason, &text); err != nil {
			return nil, stateError(err)
		}
		if l.modified != 0 {
			l.Modified = time.UnixMicro(l.modified)
		}
		if reason != "" {
			l.Skip = &root.Reason{Code: reason, Text: text}
		}
		page = append(page, l)
	}
	return page, stateError(rows.Err())
}

// loadAll reads a few files side by side.
func (ss *session) loadAll(ctx context.Context, window []listing) ([]change, error) {
	changes := make([]change, len(window))
	missed := make([]bool, len(window))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(ss.s.cfg.Workers)
	for i := range window {
		g.Go(func() error {
			old, err := ss.st.queryKnown(gctx, "WHERE path = ?", window[i].Path)
			if err != nil {
				return err
			}
			var f *known
			if len(old) == 1 {
				f = &old[0]
			}
			changes[i], err = ss.load(gctx, &window[i], f)
			if errors.Is(err, root.ErrChanged) {
				missed[i], err = true, nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i := range window {
		if missed[i] {
			ss.missed++
			changes[i] = change{}
		}
	}
	return changes, nil
}

// gone publishes the deletes of files that are not listed any more.
func (ss *session) gone(ctx context.Context) error {
	after := ""
	for {
		page, err := ss.st.queryKnown(ctx, `WHERE path IN (SELECT path FROM gone) AND path > ? ORDER BY path LIMIT ?`, after, pageRows)
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1].path
		batch := make([]change, 0, len(page))
		for _, k := range page {
			batch = append(batch, ss.deletion(k))
		}
		if err := ss.emit(ctx, batch); err != nil {
			return err
		}
	}
}

// deletion is the end of k. A file that only an earlier epoch has published is
// forgotten without a record.
func (ss *session) deletion(k known) change {
	c := change{known: k, old: &k}
	c.op, c.what, c.reason, c.moved = record.OpDelete, 0, "", ""
	if k.live && k.epoch == ss.cp.Epoch {
		c.what = whatFile | whatPermission
	}
	c.live = false
	return c
}

// note says what a pass has left out, by reason; the files themselves are on
// the dead letters.
func (ss *session) note() string {
	var parts []string
	for code, n := range ss.skipped {
		parts = append(parts, fmt.Sprintf("%d %s", n, code))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		return ""
	}
	return "not read: " + strings.Join(parts, ", ")
}
