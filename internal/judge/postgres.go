package judge

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// column says how one column of a query is read.
type column struct {
	name, kind string
	oid        uint32 // of the value, or of the elements of an array
	array      bool
	format     int16 // 1 = binary
}

// Postgres returns the fingerprint of the rows of query. The connection's time
// zone and date style play no part: values travel in their binary form.
func Postgres(ctx context.Context, url, query string) (Print, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return Print{}, fmt.Errorf("connect to Postgres: %w", err)
	}
	defer conn.Close(ctx)
	stmt, err := conn.PgConn().Prepare(ctx, "fingerprint", query, nil)
	if err != nil {
		return Print{}, fmt.Errorf("prepare the query to fingerprint: %w", err)
	}
	columns, err := describe(ctx, conn, stmt.Fields)
	if err != nil {
		return Print{}, err
	}
	// order[i] is the place in the result of the i-th column by name.
	order := make([]int, len(columns))
	formats := make([]int16, len(columns))
	for i := range columns {
		order[i], formats[i] = i, columns[i].format
	}
	slices.SortFunc(order, func(i, j int) int {
		if columns[i].name < columns[j].name {
			return -1
		}
		return 1
	})
	var names, kinds []string
	for _, i := range order {
		names, kinds = append(names, columns[i].name), append(kinds, columns[i].kind)
	}
	sum := newSummer(names, kinds)
	rows := conn.PgConn().ExecPrepared(ctx, "fingerprint", nil, nil, formats)
	var text []byte
	for rows.NextRow() {
		values := rows.Values()
		for i, at := range order {
			if values[at] == nil {
				sum.value(i, nil)
				continue
			}
			if text, err = columns[at].canonical(text[:0], values[at]); err != nil {
				return Print{}, fmt.Errorf("column %s: %w", columns[at].name, err)
			}
			sum.value(i, text)
		}
		sum.endRow()
	}
	if _, err := rows.Close(); err != nil {
		return Print{}, fmt.Errorf("read the rows to fingerprint: %w", err)
	}
	return sum.print(), nil
}

// canonical appends the text of a value; the result is never nil.
func (c *column) canonical(dst, value []byte) ([]byte, error) {
	if dst == nil {
		dst = make([]byte, 0, 64)
	}
	switch {
	case c.array:
		return appendArray(dst, c.oid, value)
	case c.format == 0:
		return append(dst, value...), nil
	}
	return canonical(dst, c.oid, value)
}

// describe finds out about types that the table of kinds does not know:
// arrays of something, enums, and what is read as text.
func describe(ctx context.Context, conn *pgx.Conn, fields []pgconn.FieldDescription) ([]column, error) {
	columns := make([]column, len(fields))
	for i, f := range fields {
		c := column{name: f.Name, oid: f.DataTypeOID, kind: "text"}
		if kind, ok := kinds[c.oid]; ok {
			c.kind, c.format = kind, 1
			columns[i] = c
			continue
		}
		var category, elemType string
		var elem uint32
		err := conn.QueryRow(ctx, `SELECT t.typcategory::text, t.typelem, coalesce(e.typtype::text, '')
			FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem WHERE t.oid = $1`, c.oid).Scan(&category, &elem, &elemType)
		if err != nil {
			return nil, fmt.Errorf("type of column %s: %w", c.name, err)
		}
		if _, known := kinds[elem]; category == "A" && (known || elemType == "e") {
			c.array, c.oid, c.format, c.kind = true, elem, 1, "text[]"
			if known {
				c.kind = kinds[elem] + "[]"
			}
		}
		columns[i] = c
	}
	return columns, nil
}
