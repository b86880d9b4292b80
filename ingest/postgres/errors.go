package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Error is what went wrong with the database and how to repair it. It never
// holds a password or a row value.
type Error struct {
	Do  string // operation and object: connect to db:5432
	Err error
	Fix string // may be empty
	Bad bool   // waiting does not help
}

// Error returns operation, cause and fix.
func (e *Error) Error() string {
	msg := e.Do
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	if e.Fix != "" {
		msg += "; " + e.Fix
	}
	return msg
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Permanent reports whether somebody must repair something first.
func (e *Error) Permanent() bool { return e.Bad }

// parseURL reads a connection URL without repeating it in an error.
func parseURL(raw string) (*pgx.ConnConfig, error) {
	if raw == "" {
		return nil, &Error{Do: "read the connection URL", Err: errors.New("it is empty"), Bad: true,
			Fix: "set url: postgres://user:password@host:5432/database"}
	}
	conn, err := pgx.ParseConfig(raw)
	if err != nil {
		reason := "it is not a valid connection URL"
		if u, uerr := url.Parse(raw); uerr == nil && u.Scheme != "" && u.Scheme != "postgres" && u.Scheme != "postgresql" {
			reason = fmt.Sprintf("scheme %q is not postgres", u.Scheme)
		}
		return nil, &Error{Do: "read the connection URL", Err: errors.New(reason), Bad: true,
			Fix: "write postgres://user:password@host:5432/database, with signs in the password percent-encoded"}
	}
	return conn, nil
}

// sqlState returns the SQLSTATE of err, empty if it is not an answer of the server.
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// fixes says for a SQLSTATE what to do and whether waiting helps.
var fixes = map[string]struct {
	fix string
	bad bool
}{
	"28P01": {"check user and password of the url", true},
	"28000": {"check the user of the url and pg_hba.conf", true},
	"3D000": {"check the database name of the url", true},
	"42501": {"", true},
	"53300": {"raise max_connections or max_wal_senders and restart the server", false},
	"53400": {"raise max_replication_slots and restart the server, or drop a slot that nobody uses: SELECT pg_drop_replication_slot('…')", true},
	"57P03": {"", false},
	"55006": {"another process reads it; it is tried again", false},
}

// wrap names the operation and adds what is known about the cause. The message
// of the server is kept, its detail (which may hold row values) is not.
func wrap(do string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var ours *Error
	if errors.As(err, &ours) {
		return err
	}
	e := &Error{Do: do, Err: err}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		known := fixes[pg.Code]
		e.Err, e.Fix, e.Bad = serverError{pg}, known.fix, known.bad
	}
	return e
}

// serverError prints an answer of the server without its detail.
type serverError struct{ *pgconn.PgError }

func (e serverError) Error() string { return fmt.Sprintf("%s (SQLSTATE %s)", e.Message, e.Code) }
func (e serverError) Unwrap() error { return e.PgError }

// wrapConnect is wrap for a connection that could not be made: the driver's
// own text would repeat user and database, the address is enough.
func wrapConnect(conn *pgconn.Config, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	do := fmt.Sprintf("connect to %s", net.JoinHostPort(conn.Host, fmt.Sprint(conn.Port)))
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return wrap(do, pg)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return &Error{Do: do, Err: fmt.Errorf("host %s not found", dns.Name), Fix: "check the host of the url"}
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return &Error{Do: do, Err: op.Err, Fix: "check host and port of the url and that the server runs"}
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return &Error{Do: do, Err: errors.New("no answer in time"), Fix: "check host and port of the url and the firewall"}
	}
	text := err.Error()
	if i := strings.LastIndex(text, "): "); i >= 0 { // the driver's own "failed to connect to `user=… database=…`: host (addr): cause"
		text = text[i+3:]
	}
	if conn.Password != "" {
		text = strings.ReplaceAll(text, conn.Password, "…")
	}
	return &Error{Do: do, Err: errors.New(text), Fix: "check the url"}
}

// lost reports whether err is of the Output as a whole, not of one stream.
func lost(err error) bool {
	var l interface{ Lost() bool }
	return errors.As(err, &l) && l.Lost()
}
