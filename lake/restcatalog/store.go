package restcatalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// store reads the tables of an Iceberg SQL catalog.
type store struct {
	db      *sql.DB
	catalog string
}

// namespace is the name of a namespace in its parts.
type namespace []string

func (n namespace) String() string { return strings.Join(n, ".") }

// within says whether n is parent or below it.
func (n namespace) within(parent namespace) bool {
	return len(n) >= len(parent) && slices.Equal(n[:len(parent)], parent)
}

// parseNamespace reads a namespace from a path or query: parts are joined by
// the unit separator.
func parseNamespace(s string) namespace { return strings.Split(s, "\x1f") }

// Namespaces are stored with dots between their parts, or, when a part has a
// dot of its own, as JSON after this marker.
const encodedNamespace = "__iceberg_namespace_v1__:"

func (n namespace) key() string {
	plain := n.String()
	if strings.Count(plain, ".") == len(n)-1 && !strings.Contains(plain, encodedNamespace) {
		return plain
	}
	b, err := json.Marshal([]string(n))
	if err != nil {
		return plain
	}
	return encodedNamespace + string(b)
}

func namespaceOfKey(key string) namespace {
	if encoded, ok := strings.CutPrefix(key, encodedNamespace); ok {
		var n namespace
		if json.Unmarshal([]byte(encoded), &n) == nil && len(n) > 0 {
			return n
		}
	}
	return strings.Split(key, ".")
}

// namespaces returns those that have tables or properties.
func (s store) namespaces(ctx context.Context) ([]namespace, error) {
	var list []namespace
	err := s.query(ctx, func(row map[string]string) {
		list = append(list, namespaceOfKey(row["namespace"]))
	}, `SELECT table_namespace AS namespace FROM iceberg_tables WHERE catalog_name = $1
		UNION SELECT namespace FROM iceberg_namespace_properties WHERE catalog_name = $1 ORDER BY 1`, s.catalog)
	return list, err
}

func (s store) properties(ctx context.Context, n namespace) (map[string]string, error) {
	m := map[string]string{}
	err := s.query(ctx, func(row map[string]string) {
		// "exists" is only a placeholder for a namespace without properties.
		if key := row["property_key"]; key != "exists" {
			m[key] = row["property_value"]
		}
	}, `SELECT property_key, property_value FROM iceberg_namespace_properties
		WHERE catalog_name = $1 AND namespace = $2`, s.catalog, n.key())
	return m, err
}

func (s store) tables(ctx context.Context, n namespace) ([]string, error) {
	var names []string
	err := s.query(ctx, func(row map[string]string) {
		if isTable(row) {
			names = append(names, row["table_name"])
		}
	}, `SELECT * FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2 ORDER BY table_name`, s.catalog, n.key())
	return names, err
}

// location returns the metadata file of a table.
func (s store) location(ctx context.Context, n namespace, table string) (string, error) {
	location := ""
	err := s.query(ctx, func(row map[string]string) {
		if isTable(row) {
			location = row["metadata_location"]
		}
	}, `SELECT * FROM iceberg_tables WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3`, s.catalog, n.key(), table)
	if err == nil && location == "" {
		err = notFound("NoSuchTableException", "no table "+n.String()+"."+table)
	}
	return location, err
}

// isTable tells tables from views. Older catalogs have no column for it.
func isTable(row map[string]string) bool {
	return row["iceberg_type"] == "" || row["iceberg_type"] == "TABLE"
}

// query gives each row to f, by column name; NULL is "".
func (s store) query(ctx context.Context, f func(row map[string]string), text string, args ...any) error {
	rows, err := s.db.QueryContext(ctx, text, args...)
	if err == nil {
		defer func() { _ = rows.Close() }()
		err = each(rows, f)
	}
	if err != nil {
		return fmt.Errorf("read catalog %s: %w", s.catalog, err)
	}
	return nil
}

func each(rows *sql.Rows, f func(row map[string]string)) error {
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	values := make([]sql.NullString, len(columns))
	into := make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		row := map[string]string{}
		for i, name := range columns {
			row[name] = values[i].String
		}
		f(row)
	}
	return rows.Err()
}
