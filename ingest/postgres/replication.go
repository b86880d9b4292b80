package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// readBytes is the read buffer of the log: one system call for many rows.
const readBytes = 256 << 10

// replication is a connection in copy-both mode. One goroutine calls next;
// status may be called by others.
type replication struct {
	conn net.Conn

	buf         []byte
	start, end  int // what is read and not yet given out
	given       int // bytes of the message given out last
	deadlineSet bool

	mu          sync.Mutex // of interrupted and the read deadline
	interrupted bool

	sending sync.Mutex
	out     []byte
}

// settings make the text form of values independent of the server's configuration.
var settings = map[string]string{
	"application_name":                    "sluice",
	"client_encoding":                     "UTF8",
	"TimeZone":                            "UTC",
	"DateStyle":                           "ISO, YMD",
	"IntervalStyle":                       "postgres",
	"extra_float_digits":                  "3",
	"bytea_output":                        "hex",
	"lc_monetary":                         "C",
	"search_path":                         "pg_catalog",
	"statement_timeout":                   "0",
	"idle_in_transaction_session_timeout": "0",
	"jit":                                 "off", // compiling costs more than it saves on plain reads
	"row_security":                        "off", // an error is better than rows that are silently missing
}

// config returns the connection settings of all our connections.
func (s *Source) config() *pgx.ConnConfig {
	cfg := s.conn.Copy()
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	for k, v := range settings {
		cfg.RuntimeParams[k] = v
	}
	return cfg
}

// control opens a connection for the catalog.
func (s *Source) control(ctx context.Context) (*pgx.Conn, error) {
	cfg := s.config()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	return conn, wrapConnect(&cfg.Config, err)
}

// connectReplication opens a connection in the mode of a walsender.
func (s *Source) connectReplication(ctx context.Context) (*pgconn.PgConn, error) {
	cfg := s.config()
	cfg.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, &cfg.Config)
	if err == nil {
		return conn, nil
	}
	wrapped := wrapConnect(&cfg.Config, err)
	var ours *Error
	if sqlState(err) == "42501" && errors.As(wrapped, &ours) {
		ours.Fix = fmt.Sprintf("as a superuser: ALTER ROLE %s REPLICATION", quote(cfg.User))
	}
	return nil, wrapped
}

// startReplication begins to read the slot behind lsn.
func (s *Source) startReplication(ctx context.Context, lsn uint64, binary bool) (*replication, error) {
	pc, err := s.connectReplication(ctx)
	if err != nil {
		return nil, err
	}
	hijacked, err := pc.Hijack()
	if err != nil {
		return nil, wrap("take over the replication connection", err)
	}
	r := &replication{conn: hijacked.Conn, buf: make([]byte, readBytes)}
	stop := context.AfterFunc(ctx, r.interrupt)
	defer stop()
	format := "false"
	if binary {
		format = "true"
	}
	query := fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL %s (proto_version '1', publication_names %s, binary '%s')",
		quote(s.cfg.Slot), formatLSN(lsn), literal(quote(s.cfg.Publication)), format)
	if err := r.send('Q', append([]byte(query), 0)); err != nil {
		r.close()
		return nil, wrap("start replication", err)
	}
	for {
		typ, payload, err := r.next(time.Time{})
		if err != nil {
			r.close()
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return nil, wrap(fmt.Sprintf("start replication from slot %s", s.cfg.Slot), err)
		}
		if typ == 'W' {
			return r, nil
		}
		if typ != 'N' && typ != 'S' {
			r.close()
			return nil, wrap("start replication", fmt.Errorf("unexpected answer %q of %d bytes", typ, len(payload)))
		}
	}
}

// errQuiet says that nothing came before the deadline.
var errQuiet = errors.New("nothing arrived")

// buffered reports whether next would return without waiting.
func (r *replication) buffered() bool {
	have := r.end - r.start - r.given
	if have < 5 {
		return false
	}
	at := r.start + r.given
	return have >= 1+int(binary.BigEndian.Uint32(r.buf[at+1:]))
}

// next returns the next message; payload lives until the next call. An error
// answer of the server becomes an error. A zero deadline waits for ever, a
// deadline that passes gives errQuiet and loses nothing.
func (r *replication) next(deadline time.Time) (typ byte, payload []byte, err error) {
	r.start += r.given
	r.given = 0
	if err := r.fill(5, deadline); err != nil {
		return 0, nil, err
	}
	size := 1 + int(int32(binary.BigEndian.Uint32(r.buf[r.start+1:])))
	if size < 5 {
		return 0, nil, errors.New("the server sent a message of negative length")
	}
	if err := r.fill(size, deadline); err != nil {
		return 0, nil, err
	}
	typ, payload = r.buf[r.start], r.buf[r.start+5:r.start+size]
	r.given = size
	if typ == 'E' {
		var e pgproto3.ErrorResponse
		if err := e.Decode(payload); err != nil {
			return 0, nil, err
		}
		return 0, nil, pgconn.ErrorResponseToPgError(&e)
	}
	return typ, payload, nil
}

// fill reads until n bytes are there.
func (r *replication) fill(n int, deadline time.Time) error {
	if r.end-r.start >= n {
		return nil
	}
	if r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	switch {
	case n > len(r.buf):
		bigger := make([]byte, n+readBytes)
		copy(bigger, r.buf[:r.end])
		r.buf = bigger
	case len(r.buf) > 4*readBytes && r.end < readBytes && n <= readBytes: // after a huge row
		r.buf = append(make([]byte, 0, readBytes), r.buf[:r.end]...)[:readBytes]
	}
	for r.end < n {
		r.setDeadline(deadline)
		got, err := r.conn.Read(r.buf[r.end:])
		r.end += got
		if err == nil || r.end >= n {
			continue
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return errQuiet
		}
		if errors.Is(err, io.EOF) {
			return errors.New("the server closed the connection")
		}
		return err
	}
	return nil
}

func (r *replication) setDeadline(t time.Time) {
	if t.IsZero() && !r.deadlineSet {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.interrupted {
		_ = r.conn.SetReadDeadline(t)
		r.deadlineSet = !t.IsZero()
	}
}

// interrupt ends a waiting next with errQuiet, now and in future.
func (r *replication) interrupt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.interrupted = true
	_ = r.conn.SetReadDeadline(time.Unix(1, 0))
}

func (r *replication) send(typ byte, payload []byte) error {
	r.sending.Lock()
	defer r.sending.Unlock()
	r.out = append(r.out[:0], typ)
	r.out = binary.BigEndian.AppendUint32(r.out, uint32(len(payload)+4))
	r.out = append(r.out, payload...)
	_ = r.conn.SetWriteDeadline(time.Now().Add(30 * time.Second))
	_, err := r.conn.Write(r.out)
	return err
}

// status tells the server that everything before lsn is safe. All three
// positions are set: a zero one would be taken for the first.
func (r *replication) status(lsn uint64, answer bool, now time.Time) error {
	b := make([]byte, 0, 34)
	b = append(b, 'r')
	for range 3 { // written, flushed, applied
		b = binary.BigEndian.AppendUint64(b, lsn)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(now.UnixMicro()-epochMicros))
	if answer {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return r.send('d', b)
}

// close ends the connection and waits a moment for the server to do the same,
// so that the slot is free for whoever comes next.
func (r *replication) close() {
	defer r.conn.Close()
	if r.send('c', nil) != nil || r.send('X', nil) != nil {
		return
	}
	_ = r.conn.SetReadDeadline(time.Now().Add(time.Second))
	for {
		if _, err := r.conn.Read(r.buf); err != nil {
			return
		}
	}
}
