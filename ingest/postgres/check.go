package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/record"
)

// oldest is the first version with ctid ranges and binary pgoutput.
const oldest = 140000

// server is what preflight learns of the server.
type server struct {
	version   int
	findings  []Finding
	check     bool // text may not be UTF-8
	mayCreate bool // publications in this database
	user      string
	wanted    []*table // of the configuration, those that exist
}

// want remembers which of the tables exist: one statement of a fix names them all.
func (srv *server) want(names []record.StreamName, tables map[record.StreamName]*table) {
	srv.wanted = nil
	for _, n := range names {
		if t := tables[n]; t != nil {
			srv.wanted = append(srv.wanted, t)
		}
	}
}

func (s *Source) check(ctx context.Context) ([]Finding, error) {
	conn, err := s.control(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	srv, err := s.inspect(ctx, conn)
	if err != nil {
		return nil, err
	}
	findings := srv.findings
	if srv.version < oldest {
		return findings, nil
	}
	tables, err := loadTables(ctx, conn, s.tables)
	if err != nil {
		return nil, err
	}
	pub, err := s.loadPublication(ctx, conn, srv.version, tables)
	if err != nil {
		return nil, err
	}
	findings = append(findings, s.inspectPublication(pub)...)
	srv.want(s.tables, tables)
	for _, name := range s.tables {
		findings = append(findings, s.inspectTable(ctx, conn, srv, name, tables[name], pub)...)
	}
	return findings, nil
}

const serverQuery = `
SELECT current_setting('server_version_num')::int, current_setting('wal_level'), current_setting('server_encoding'), current_user::text,
       r.rolsuper OR r.rolreplication OR EXISTS (SELECT FROM pg_roles p WHERE p.rolname IN ('rds_replication', 'cloudsqlreplica')
         AND pg_has_role(r.oid, p.oid, 'MEMBER')),
       has_database_privilege(current_database(), 'CREATE'), pg_is_in_recovery(),
       current_setting('max_replication_slots')::int, (SELECT count(*)::int FROM pg_replication_slots),
       EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1),
       current_setting('max_wal_senders')::int
FROM pg_roles r WHERE r.rolname = current_user`

// inspect asks for what concerns the whole server.
func (s *Source) inspect(ctx context.Context, conn *pgx.Conn) (*server, error) {
	srv := &server{}
	var wal, encoding string
	var replicates, recovering, exists bool
	var slots, used, senders int
	err := conn.QueryRow(ctx, serverQuery, s.cfg.Slot).Scan(&srv.version, &wal, &encoding, &srv.user, &replicates, &srv.mayCreate,
		&recovering, &slots, &used, &exists, &senders)
	if err != nil {
		return nil, wrap("inspect the server", err)
	}
	srv.check = encoding == "SQL_ASCII"
	bad := func(problem, fix string) {
		srv.findings = append(srv.findings, Finding{Problem: problem, Fix: fix, Fatal: true})
	}
	if srv.version < oldest {
		bad(fmt.Sprintf("the server is PostgreSQL %d; 14 or later is needed", srv.version/10000), "upgrade the server")
	}
	if wal != "logical" {
		bad("wal_level is "+wal, "ALTER SYSTEM SET wal_level = logical; then restart the server")
	}
	if !replicates {
		bad(fmt.Sprintf("role %s may not replicate", srv.user),
			fmt.Sprintf("as a superuser: ALTER ROLE %s REPLICATION; on Amazon RDS: GRANT rds_replication TO %[1]s", quote(srv.user)))
	}
	if recovering {
		bad("the server is a standby; publications and snapshots need the primary", "use the primary's address in the url")
	}
	if senders == 0 {
		bad("max_wal_senders is 0", "ALTER SYSTEM SET max_wal_senders = 10; then restart the server")
	}
	need := 1 // the temporary one of a backfill
	if !exists {
		need++
	}
	if slots-used < need {
		srv.findings = append(srv.findings, Finding{Fatal: !exists,
			Problem: fmt.Sprintf("all replication slots are taken (max_replication_slots is %d) and %d more are needed", slots, need),
			Fix: fmt.Sprintf("ALTER SYSTEM SET max_replication_slots = %d; then restart the server; or drop a slot that nobody uses: "+
				"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active AND slot_name = '…'", used+need+2)})
	}
	return srv, nil
}

// inspectPublication looks for changes that a publication keeps back.
func (s *Source) inspectPublication(p publication) []Finding {
	if p.oid == 0 {
		return nil
	}
	var kept []string
	for _, op := range []struct {
		sent bool
		name string
	}{{p.insert, "insert"}, {p.update, "update"}, {p.delete, "delete"}, {p.truncate, "truncate"}} {
		if !op.sent {
			kept = append(kept, op.name)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return []Finding{{Problem: fmt.Sprintf("publication %s does not send %s", s.cfg.Publication, strings.Join(kept, ", ")),
		Fix: fmt.Sprintf("ALTER PUBLICATION %s SET (publish = 'insert, update, delete, truncate')", quote(s.cfg.Publication))}}
}

// inspectTable says what stands in the way of reading one table. t is nil if it does not exist.
func (s *Source) inspectTable(ctx context.Context, conn *pgx.Conn, srv *server, name record.StreamName, t *table, pub publication) []Finding {
	fatal := func(problem, fix string) []Finding {
		return []Finding{{Table: name.Local(), Problem: problem, Fix: fix, Fatal: true}}
	}
	sql := qualified(name)
	switch {
	case t == nil:
		fix := similar(ctx, conn, name)
		if fix == "" {
			fix = "check tables in the configuration, and the database of the url"
		}
		return fatal("the table does not exist", fix)
	case t.kind != 'r' && t.kind != 'p':
		return fatal("it is not a table (a view, a foreign table or an index)", "name the tables it is made of")
	case t.unlogged:
		return fatal("it is unlogged or temporary, so its changes are not in the log", fmt.Sprintf("ALTER TABLE %s SET LOGGED", sql))
	case !t.mayRead:
		return fatal(fmt.Sprintf("role %s may not read it", srv.user),
			fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON %s TO %[2]s", quote(name.Namespace), quote(srv.user), sql))
	case t.security:
		return fatal(fmt.Sprintf("row-level security hides rows of it from role %s", srv.user), fmt.Sprintf("as a superuser: ALTER ROLE %s BYPASSRLS", quote(srv.user)))
	}
	if f := s.inspectIdentity(srv, t, pub, sql); f != nil {
		return fatal(f.Problem, f.Fix)
	}
	return s.inspectPublished(srv, t, pub, fatal)
}

// inspectIdentity keeps the application's own updates from failing because of us.
func (s *Source) inspectIdentity(srv *server, t *table, pub publication, sql string) *Finding {
	if pub.oid != 0 && !pub.update && !pub.delete {
		return nil
	}
	none := t.identity == 'd' && len(t.primary) == 0 || t.identity == 'n' || t.identity == 'i' && len(t.index) == 0
	switch {
	case none:
		why := "it has no primary key"
		if t.identity != 'd' {
			why = "its REPLICA IDENTITY is NOTHING"
		}
		return &Finding{Problem: why + ": once published, the application's own UPDATE and DELETE on it would fail",
			Fix: fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (…), ALTER TABLE %[1]s REPLICA IDENTITY %[2]s; or publish inserts only: CREATE PUBLICATION %[3]s FOR TABLE %[1]s WITH (publish = 'insert')",
				sql, map[bool]string{true: "FULL", false: "DEFAULT"}[len(t.primary) == 0], quote(s.cfg.Publication))}
	case srv.version >= 180000 && t.identity == 'f' && len(t.virtual) > 0:
		return &Finding{Problem: "REPLICA IDENTITY FULL with a virtual generated column: once published, the application's own UPDATE and DELETE on it would fail",
			Fix: fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY DEFAULT", sql)}
	case srv.version >= 180000 && t.identity == 'f' && len(t.generated) > 0 && pub.oid != 0 && !pub.generated:
		return &Finding{Problem: "REPLICA IDENTITY FULL with a generated column that the publication does not send: the application's own UPDATE and DELETE on it fail",
			Fix: fmt.Sprintf("ALTER PUBLICATION %s SET (publish_generated_columns = stored)", quote(s.cfg.Publication))}
	}
	return nil
}

// inspectPublished asks whether the publication has the table or may get it.
func (s *Source) inspectPublished(srv *server, t *table, pub publication, fatal func(problem, fix string) []Finding) []Finding {
	switch {
	case pub.oid == 0 && (!srv.mayCreate || !t.owned):
		return fatal(fmt.Sprintf("publication %s does not exist and role %s may not create it", s.cfg.Publication, srv.user),
			"as the tables' owner: "+s.createSQL(srv, srv.wanted))
	case pub.oid == 0:
	case t.kind == 'p' && !pub.viaRoot:
		return fatal(fmt.Sprintf("it is partitioned and publication %s names its partitions instead", s.cfg.Publication),
			fmt.Sprintf("ALTER PUBLICATION %s SET (publish_via_partition_root = true)", quote(s.cfg.Publication)))
	case !t.published && (!pub.owned || !t.owned):
		return fatal(fmt.Sprintf("publication %s does not have it and role %s may not add it", s.cfg.Publication, srv.user),
			"as the owner of both: "+s.addSQL([]*table{t}))
	}
	return nil
}

// createSQL makes the publication for tables.
func (s *Source) createSQL(srv *server, tables []*table) string {
	options := "publish_via_partition_root = true"
	if srv.version >= 180000 {
		options += ", publish_generated_columns = stored"
	}
	return fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s WITH (%s)", quote(s.cfg.Publication), list(tables), options)
}

func (s *Source) addSQL(tables []*table) string {
	return fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", quote(s.cfg.Publication), list(tables))
}

func list(tables []*table) string {
	names := make([]string, len(tables))
	for i, t := range tables {
		if names[i] = qualified(t.name); t.kind == 'r' {
			names[i] = "ONLY " + names[i]
		}
	}
	return strings.Join(names, ", ")
}

// fatalError makes one error of the findings that stop the whole source.
func fatalError(findings []Finding) error {
	var errs []error
	for _, f := range findings {
		if f.Fatal {
			do := "read the database"
			if f.Table != "" {
				do = "read table " + f.Table
			}
			errs = append(errs, &Error{Do: do, Err: errors.New(f.Problem), Fix: f.Fix, Bad: true})
		}
	}
	return errors.Join(errs...)
}

// slot is a row of pg_replication_slots.
type slot struct {
	exists, active, lost bool
	confirmed            uint64
}

func (s *Source) loadSlot(ctx context.Context, conn *pgx.Conn) (slot, error) {
	var sl slot
	var plugin, database, confirmed, status string
	var current string
	err := conn.QueryRow(ctx, `SELECT coalesce(plugin::text, ''), coalesce(database::text, ''), active, coalesce(confirmed_flush_lsn::text, '0/0'),
		coalesce(wal_status, ''), current_database()::text FROM pg_replication_slots WHERE slot_name = $1`, s.cfg.Slot).
		Scan(&plugin, &database, &sl.active, &confirmed, &status, &current)
	if errors.Is(err, pgx.ErrNoRows) {
		return slot{}, nil
	}
	if err != nil {
		return sl, wrap("read pg_replication_slots", err)
	}
	if plugin != "pgoutput" || database != current {
		return sl, &Error{Do: "use replication slot " + s.cfg.Slot, Bad: true,
			Err: fmt.Errorf("it is of plugin %s and database %s", strconv.Quote(plugin), strconv.Quote(database)),
			Fix: "give the source another slot: name, or drop it: SELECT pg_drop_replication_slot(" + literal(s.cfg.Slot) + ")"}
	}
	sl.exists, sl.lost = true, status == "lost"
	sl.confirmed, err = parseLSN(confirmed)
	return sl, err
}
