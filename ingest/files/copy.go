package files

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/sluice-data/sluice/ingest/files/root"
	"github.com/sluice-data/sluice/objects"
)

var errNoRows = sql.ErrNoRows

// querier is what reads: the state or one transaction of it.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// stagingPrefix holds uploads whose content hash, and so their key, is not known yet.
const stagingPrefix = ".partial/"

func (st *Store) claim(key string) objects.Claim {
	return objects.Claim{Bucket: st.Bucket, Key: st.Prefix + key}
}

// ours reports whether an object is a copy of ours, which ends with its file.
func (ss *session) ours(object string) bool {
	st := ss.s.cfg.Store
	return st != nil && strings.HasPrefix(object, st.claim("").String())
}

// key returns where a body belongs.
func (st *Store) key(path string, sha []byte) string {
	if !st.ByHash {
		return path
	}
	name := hex.EncodeToString(sha)
	return "sha256/" + name[:2] + "/" + name
}

// meta travels with each copy.
func meta(l *listing, sha []byte) map[string]string {
	m := map[string]string{"source-etag": hex.EncodeToString([]byte(l.ETag))}
	if sha != nil {
		m["sha256"] = hex.EncodeToString(sha)
	}
	return m
}

// copyBody streams a body to the store: no byte of it touches a local disk. A
// body of more than one part is resumed after a crash where its last part ended.
func (ss *session) copyBody(ctx context.Context, l *listing) (body, error) {
	st := ss.s.cfg.Store
	u, err := ss.resume(ctx, l)
	if err != nil {
		return body{}, err
	}
	if u == nil {
		return body{}, root.ErrChanged
	}
	r, err := ss.root.Open(ctx, l.Entry, u.sum.size)
	if err != nil {
		return body{}, err
	}
	defer func() { _ = r.Close() }()
	src := &contextReader{ctx, r}
	if u.up == nil {
		first := make([]byte, 0, min(max(l.Size, 0), int64(u.partBytes))+bytes.MinRead)
		buf := bytes.NewBuffer(first)
		n, err := io.Copy(buf, io.LimitReader(src, int64(u.partBytes)))
		if err != nil {
			return body{}, err
		}
		if n < int64(u.partBytes) {
			return ss.storeSmall(ctx, l, buf.Bytes())
		}
		if u.up, err = st.Client.BeginUpload(ctx, st.Bucket, u.key, meta(l, nil)); err != nil {
			return body{}, storeError(err)
		}
		if err := ss.part(ctx, u, buf.Bytes()); err != nil {
			return body{}, err
		}
	}
	if err := ss.parts(ctx, u, src); err != nil {
		if errors.Is(err, root.ErrChanged) {
			err = errors.Join(err, ss.drop(context.WithoutCancel(ctx), u))
		}
		return body{}, err
	}
	if l.Size >= 0 && u.sum.size != l.Size {
		return body{}, errors.Join(root.ErrChanged, ss.drop(ctx, u))
	}
	return ss.finish(ctx, l, u)
}

// storeSmall stores a body of less than one part.
func (ss *session) storeSmall(ctx context.Context, l *listing, b []byte) (body, error) {
	if l.Size >= 0 && l.Size != int64(len(b)) {
		return body{}, root.ErrChanged
	}
	st := ss.s.cfg.Store
	sum := sha256.Sum256(b)
	to := st.claim(st.key(l.Path, sum[:]))
	etag, err := st.Client.Store(ctx, to.Bucket, to.Key, b, meta(l, sum[:]))
	if err != nil {
		return body{}, storeError(err)
	}
	return body{size: int64(len(b)), sha: sum[:], mime: sniff(b), object: to.String(), objectETag: etag}, nil
}

// upload is a copy under way.
type upload struct {
	path, etag string
	key        string // of the object; below stagingPrefix where the hash decides
	up         *objects.Upload
	sum        *digest
	partBytes  int
}

// resume returns the upload of this version of a file, a new one if there is none.
func (ss *session) resume(ctx context.Context, l *listing) (*upload, error) {
	st := ss.s.cfg.Store
	u := &upload{path: l.Path, etag: l.ETag, sum: newDigest(), partBytes: objects.PartBytesFor(l.Size)}
	u.key = st.claim(l.Path).Key
	if st.ByHash {
		name := sha256.Sum256([]byte(ss.cp.State + "\x00" + l.Path))
		u.key = st.claim(stagingPrefix + hex.EncodeToString(name[:])).Key
	}
	var etag, key, parts string
	var saved []byte
	err := ss.st.db.QueryRowContext(ctx, `SELECT etag, key, parts, hash FROM upload WHERE path = ?`, l.Path).Scan(&etag, &key, &parts, &saved)
	if errors.Is(err, errNoRows) {
		return u, nil
	}
	if err != nil {
		return nil, stateError(err)
	}
	var state objects.UploadState
	if err := json.Unmarshal([]byte(parts), &state); err != nil {
		return nil, stateError(err)
	}
	again, done, err := st.Client.ResumeUpload(ctx, st.Bucket, key, state)
	switch {
	case err != nil && !errors.Is(err, objects.ErrNotFound):
		return nil, storeError(err)
	case err != nil, done != "":
		return u, nil // begin anew; a completed one is replaced by the same bytes
	}
	u.up = again
	known := etag == l.ETag && key == u.key && again.State().Size() == state.Size()
	if h, ok := u.sum.Hash.(encoding.BinaryUnmarshaler); !known || !ok || h.UnmarshalBinary(saved) != nil {
		if err := ss.drop(ctx, u); err != nil {
			return nil, err
		}
		u.up, u.sum = nil, newDigest()
		return u, nil
	}
	u.sum.size = state.Size()
	return u, nil
}

// parts sends the rest of a body, reading one part while another is sent.
func (ss *session) parts(ctx context.Context, u *upload, src io.Reader) error {
	type filled struct {
		b   []byte
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready, free := make(chan filled), make(chan []byte, 2)
	free <- make([]byte, u.partBytes)
	free <- make([]byte, u.partBytes)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			var buf []byte
			select {
			case buf = <-free:
			case <-ctx.Done():
				return
			}
			n, err := io.ReadFull(src, buf[:u.partBytes])
			select {
			case ready <- filled{buf[:n], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() { cancel(); <-done }()
	for {
		var f filled
		select {
		case f = <-ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		ended := errors.Is(f.err, io.EOF) || errors.Is(f.err, io.ErrUnexpectedEOF)
		if f.err != nil && !ended {
			return f.err
		}
		if len(f.b) > 0 {
			if err := ss.part(ctx, u, f.b); err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
		free <- f.b[:cap(f.b)]
	}
}

// part sends one part and remembers it.
func (ss *session) part(ctx context.Context, u *upload, b []byte) error {
	if err := u.up.Put(ctx, b); err != nil {
		return storeError(err)
	}
	_, _ = u.sum.Write(b)
	h, ok := u.sum.Hash.(encoding.BinaryMarshaler)
	if !ok {
		return nil
	}
	saved, err := h.MarshalBinary()
	if err != nil {
		return err
	}
	parts, err := json.Marshal(u.up.State())
	if err != nil {
		return err
	}
	if err := ss.st.exec(ctx, `INSERT OR REPLACE INTO upload VALUES (?,?,?,?,?)`, u.path, u.etag, u.key, string(parts), saved); err != nil {
		return err
	}
	return ss.s.at("part")
}

// finish makes a copy visible under its final key.
func (ss *session) finish(ctx context.Context, l *listing, u *upload) (body, error) {
	st := ss.s.cfg.Store
	etag, err := u.up.Complete(ctx)
	if err != nil {
		return body{}, storeError(err)
	}
	if err := ss.s.at("completed"); err != nil {
		return body{}, err
	}
	sha := u.sum.Sum(nil)
	at := objects.Claim{Bucket: st.Bucket, Key: u.key}
	if st.ByHash {
		to := st.claim(st.key(l.Path, sha))
		if etag, err = st.Client.Copy(ctx, at, etag, u.sum.size, to, meta(l, sha)); err != nil {
			return body{}, storeError(err)
		}
		if _, err := st.Client.Delete(ctx, at.Bucket, at.Key); err != nil {
			return body{}, storeError(err)
		}
		at = to
	}
	if err := ss.st.exec(ctx, `DELETE FROM upload WHERE path = ?`, l.Path); err != nil {
		return body{}, err
	}
	return body{size: u.sum.size, sha: sha, mime: sniff(u.sum.head), object: at.String(), objectETag: etag}, nil
}

// drop ends an upload whose file has become another one.
func (ss *session) drop(ctx context.Context, u *upload) error {
	if u.up != nil {
		if err := u.up.Abort(ctx); err != nil {
			return storeError(err)
		}
	}
	return ss.st.exec(ctx, `DELETE FROM upload WHERE path = ?`, u.path)
}

// emptyTrash removes copies that no file has any more, once the brokers hold
// the records that say so.
func (ss *session) emptyTrash(ctx context.Context) error {
	st := ss.s.cfg.Store
	for st != nil {
		rows, err := ss.st.db.QueryContext(ctx, `SELECT object FROM trash LIMIT 500`)
		if err != nil {
			return stateError(err)
		}
		var list, keys []string
		for rows.Next() {
			var object string
			if err := rows.Scan(&object); err != nil {
				_ = rows.Close()
				return stateError(err)
			}
			list = append(list, object)
			if c, err := objects.ParseClaim(object); err == nil && c.Bucket == st.Bucket && ss.ours(object) {
				keys = append(keys, c.Key)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(list) == 0 {
			return stateError(err)
		}
		if len(keys) > 0 {
			if _, err := st.Client.Delete(ctx, st.Bucket, keys...); err != nil {
				return storeError(err)
			}
		}
		if err := ss.st.tx(ctx, func(tx txn) error {
			for _, object := range list {
				if _, err := tx.ExecContext(ctx, `DELETE FROM trash WHERE object = ?`, object); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
