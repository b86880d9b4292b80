package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/record"
)

// maxSample bounds the rows of Sample.
const maxSample = 1000

// Sample returns up to n rows of a table as a backfill would read them, for
// people to look at. It reads in a transaction of its own that changes nothing,
// and neither needs nor makes a slot or a publication. n may be 0: the batch
// then has only its schema.
func (s *Source) Sample(ctx context.Context, stream record.StreamName, n int) (*record.Batch, error) {
	if n < 0 || n > maxSample {
		return nil, fmt.Errorf("sample %s: want 0 to %d rows", stream, maxSample)
	}
	conn, err := s.control(ctx)
	if err != nil {
		return nil, err
	}
	defer closeSoon(ctx, conn)
	if _, err := conn.Exec(ctx, "BEGIN READ ONLY"); err != nil {
		return nil, wrap("sample "+stream.Local(), err)
	}
	found, err := loadTables(ctx, conn, []record.StreamName{stream})
	if err != nil {
		return nil, err
	}
	t := found[stream]
	if t == nil {
		return nil, &Error{Do: "sample " + stream.Local(), Err: errors.New("there is no such table; " + similar(ctx, conn, stream))}
	}
	srv, err := s.inspect(ctx, conn)
	if err != nil {
		return nil, err
	}
	pub, err := s.loadPublication(ctx, conn, srv.version, found)
	if err != nil {
		return nil, err
	}
	kinds, cols := &types{check: srv.check}, t.read(pub.generated)
	if err := kinds.load(ctx, conn, cols); err != nil {
		return nil, err
	}
	shape, err := kinds.shape(t.name, cols, t.key())
	if err != nil {
		return nil, &Error{Do: "sample " + stream.Local(), Err: err}
	}
	w := newWriter(shape)
	w.open()
	if n > 0 {
		if err := sampleRows(ctx, conn, t, w, n); err != nil {
			return nil, err
		}
	}
	return w.take(), nil
}

func sampleRows(ctx context.Context, conn *pgx.Conn, t *table, w *writer, n int) error {
	formats := make([]int16, len(w.shape.codecs))
	kinds := make([]byte, len(formats))
	cols := make([]column, len(formats))
	for i, c := range w.shape.codecs {
		cols[i].name, kinds[i] = c.field.Name, 't'
		if c.binary() {
			formats[i], kinds[i] = 1, 'b'
		}
	}
	var micros int64
	if err := conn.QueryRow(ctx, "SELECT (extract(epoch FROM now()) * 1000000)::bigint").Scan(&micros); err != nil {
		return wrap("sample "+t.name.Local(), err)
	}
	sql := fmt.Sprintf("SELECT %s FROM %s", quoteAll(cols), qualified(t.name))
	if t.filter != "" {
		sql += " WHERE (" + t.filter + ")"
	}
	rows := conn.PgConn().ExecParams(ctx, fmt.Sprintf("%s LIMIT %d", sql, n), nil, nil, nil, formats)
	for rows.NextRow() {
		if err := w.row(record.OpRead, record.Position{}, micros, kinds, rows.Values()); err != nil {
			_, _ = rows.Close()
			return &Error{Do: "sample " + t.name.Local(), Err: err}
		}
	}
	_, err := rows.Close()
	return wrap("sample "+t.name.Local(), err)
}
