package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/record"
)

// table is what the catalog says about one table of the configuration.
type table struct {
	name      record.StreamName
	oid       uint32
	kind      byte // relkind: r table, p partitioned table
	identity  byte // relreplident: d default, i index, f full, n nothing
	mayRead   bool
	owned     bool // by the user or a role of theirs
	security  bool // row-level security would hide rows
	unlogged  bool
	generated []string // stored generated columns
	virtual   []string // virtual generated columns
	primary   []string // primary key in key order
	index     []string // columns of the replica identity's index
	columns   []column // without generated ones
	rows      int64    // estimate

	// Filled from the publication, where the table is in it:
	published bool
	pubRow    uint32 // oid of pg_publication_rel: another one means that the table was taken out meanwhile; 0 = all tables
	filter    string // row filter
	only      []string
}

// key returns the columns that identify a row in the log: those of the index
// that is the replica identity, otherwise the primary key.
func (t *table) key() []string {
	if t.identity == 'i' && len(t.index) > 0 {
		return t.index
	}
	if t.identity == 'n' {
		return nil // changes arrive without an old key, so only inserts can
	}
	return t.primary
}

// read returns the columns that the publication sends, in the order of the log.
func (t *table) read(withGenerated bool) []column {
	var cols []column
	for _, c := range t.columns {
		if !withGenerated && slices.Contains(t.generated, c.name) || t.only != nil && !slices.Contains(t.only, c.name) {
			continue
		}
		cols = append(cols, c)
	}
	return cols
}

const tableQuery = `
SELECT n.nspname::text, c.relname::text, c.oid, c.relkind::text, c.relreplident::text,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
       pg_has_role(c.relowner, 'USAGE'), row_security_active(c.oid), c.relpersistence <> 'p',
       (SELECT coalesce(sum(greatest(p.reltuples, 0)), 0)::bigint FROM pg_class p
         WHERE p.oid = c.oid AND c.relkind <> 'p' OR p.oid IN (SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf)),
       ARRAY(SELECT a.attname::text FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(num, pos)
              JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.num
              WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND k.pos <= i.indnkeyatts ORDER BY k.pos),
       ARRAY(SELECT a.attname::text FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(num, pos)
              JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.num
              WHERE i.indrelid = c.oid AND i.indisreplident AND k.pos <= i.indnkeyatts ORDER BY k.pos)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest($1::text[], $2::text[]))`

// loadTables reads the tables named names that exist.
func loadTables(ctx context.Context, conn *pgx.Conn, names []record.StreamName) (map[record.StreamName]*table, error) {
	var schemas, relations []string
	for _, n := range names {
		schemas, relations = append(schemas, n.Namespace), append(relations, n.Name)
	}
	rows, err := conn.Query(ctx, tableQuery, schemas, relations)
	if err != nil {
		return nil, wrap("read pg_class", err)
	}
	defer rows.Close()
	found := map[record.StreamName]*table{}
	for rows.Next() {
		t := &table{}
		var kind, identity string
		if err := rows.Scan(&t.name.Namespace, &t.name.Name, &t.oid, &kind, &identity, &t.mayRead, &t.owned, &t.security,
			&t.unlogged, &t.rows, &t.primary, &t.index); err != nil {
			return nil, wrap("read pg_class", err)
		}
		t.name.Source = names[0].Source
		t.kind, t.identity = kind[0], identity[0]
		found[t.name] = t
	}
	if err := rows.Err(); err != nil {
		return nil, wrap("read pg_class", err)
	}
	return found, loadColumns(ctx, conn, found)
}

func loadColumns(ctx context.Context, conn *pgx.Conn, tables map[record.StreamName]*table) error {
	byOID := map[uint32]*table{}
	var oids []uint32
	for _, t := range tables {
		byOID[t.oid] = t
		oids = append(oids, t.oid)
	}
	rows, err := conn.Query(ctx, `SELECT attrelid, attname::text, atttypid, atttypmod, attgenerated::text FROM pg_attribute
		WHERE attrelid = ANY($1) AND attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum`, oids)
	if err != nil {
		return wrap("read pg_attribute", err)
	}
	defer rows.Close()
	for rows.Next() {
		var oid uint32
		var c column
		var generated string
		if err := rows.Scan(&oid, &c.name, &c.typ, &c.typmod, &generated); err != nil {
			return wrap("read pg_attribute", err)
		}
		t := byOID[oid]
		switch generated {
		case "v":
			t.virtual = append(t.virtual, c.name)
			continue
		case "s":
			t.generated = append(t.generated, c.name)
		}
		t.columns = append(t.columns, c)
	}
	return wrap("read pg_attribute", rows.Err())
}

// publication is what the catalog says about the publication; oid 0 = it does not exist.
type publication struct {
	oid                              uint32
	owned                            bool
	insert, update, delete, truncate bool
	viaRoot, allTables               bool
	generated                        bool // sends stored generated columns (PostgreSQL 18)
}

func (s *Source) loadPublication(ctx context.Context, conn *pgx.Conn, version int, tables map[record.StreamName]*table) (publication, error) {
	var p publication
	generated := "false"
	if version >= 180000 {
		generated = "pubgencols = 's'"
	}
	err := conn.QueryRow(ctx, `SELECT oid, pg_has_role(pubowner, 'USAGE'), pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, puballtables, `+
		generated+` FROM pg_publication WHERE pubname = $1`, s.cfg.Publication).
		Scan(&p.oid, &p.owned, &p.insert, &p.update, &p.delete, &p.truncate, &p.viaRoot, &p.allTables, &p.generated)
	if errors.Is(err, pgx.ErrNoRows) {
		return publication{}, nil
	}
	if err != nil {
		return p, wrap("read pg_publication", err)
	}
	detail := "NULL::text[], NULL::text"
	if version >= 150000 {
		detail = "p.attnames::text[], p.rowfilter"
	}
	rows, err := conn.Query(ctx, `SELECT p.schemaname::text, p.tablename::text, `+detail+`, coalesce(r.oid, 0)
		FROM pg_publication_tables p
		LEFT JOIN pg_namespace n ON n.nspname = p.schemaname
		LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
		LEFT JOIN pg_publication_rel r ON r.prpubid = $2 AND r.prrelid = c.oid
		WHERE p.pubname = $1`, s.cfg.Publication, p.oid)
	if err != nil {
		return p, wrap("read pg_publication_tables", err)
	}
	defer rows.Close()
	for rows.Next() {
		name := record.StreamName{Source: s.cfg.Name}
		var only []string
		var filter *string
		var row uint32
		if err := rows.Scan(&name.Namespace, &name.Name, &only, &filter, &row); err != nil {
			return p, wrap("read pg_publication_tables", err)
		}
		t := tables[name]
		if t == nil {
			continue
		}
		t.published, t.pubRow, t.only, t.filter = true, row, only, ""
		if filter != nil {
			t.filter = *filter
		}
	}
	return p, wrap("read pg_publication_tables", rows.Err())
}

// quote writes a name as SQL wants it.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// literal writes a string as SQL wants it.
func literal(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }

func qualified(n record.StreamName) string { return quote(n.Namespace) + "." + quote(n.Name) }

func quoteAll(cols []column) string {
	var b strings.Builder
	for i, c := range cols {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(c.name))
	}
	return b.String()
}

// similar returns the names of tables that name may have meant.
func similar(ctx context.Context, conn *pgx.Conn, name record.StreamName) string {
	rows, err := conn.Query(ctx, `SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')`)
	if err != nil {
		return ""
	}
	defer rows.Close()
	best, least := "", 1+max(2, len(name.Name)/3)
	for rows.Next() {
		var n record.StreamName
		if rows.Scan(&n.Namespace, &n.Name) != nil {
			return ""
		}
		d := distance(strings.ToLower(n.Name), strings.ToLower(name.Name))
		if n.Namespace != name.Namespace {
			d++
		}
		if d < least {
			n.Source = "x"
			best, least = n.Local(), d
		}
	}
	if rows.Err() != nil || best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %s?", best)
}

// distance counts the edits from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
