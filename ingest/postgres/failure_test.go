package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

func TestURLsAreRefusedWithoutRepeatingThem(t *testing.T) {
	for _, url := range []string{"", "mysql://u:hunter2@h/db", "postgres://u:hunter2@h:port/db", "postgres://u:hunter2@h/db?sslmode=what", "://hunter2"} {
		_, err := New(Config{Name: "s", URL: url, Tables: []string{"public.t"}})
		var e *Error
		if err == nil || !errors.As(err, &e) || !e.Permanent() || e.Fix == "" || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Name: "s", URL: "postgres://h/db", Tables: []string{"public.t"}}
	for want, change := range map[string]func(*Config){
		"a name is missing":         func(c *Config) { c.Name = "" },
		"tables is empty":           func(c *Config) { c.Tables = nil },
		"want schema.table":         func(c *Config) { c.Tables = []string{"t"} },
		"listed twice":              func(c *Config) { c.Tables = []string{"public.t", "public.t"} },
		"at most 63 of a-z":         func(c *Config) { c.Slot = "Bad-Slot" },
		`publication "` + "ppppppp": func(c *Config) { c.Publication = strings.Repeat("p", 64) },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if got := DefaultSlot("Shop-DB.1"); got != "sluice_shop_db_1" {
		t.Error(got)
	}
}

func TestConnectionErrorsNameTheFix(t *testing.T) {
	url, conn := database(t)
	run(t, conn, itemsSQL)
	cases := map[string]struct{ url, want string }{
		"closed port":   {strings.Replace(url, fmt.Sprint(conn.Config().Port), "1", 1), "check host and port"},
		"unknown host":  {strings.Replace(url, "127.0.0.1", "no-such-host.invalid", 1), "check the host"},
		"wrong user":    {strings.Replace(url, "postgres@", "stranger:hunter2@", 1), "check the user"},
		"wrong base":    {strings.Replace(url, "?", "x?", 1), "check the database name"},
		"with password": {strings.Replace(url, "postgres@127.0.0.1", "u:hunter2@no-such-host.invalid", 1), "check the host"},
	}
	for name, c := range cases {
		err := source(t, c.url, nil, "public.items").Run(context.Background(), newRecorder())
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func permanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

func TestPreflightNamesTheSQL(t *testing.T) {
	url, conn := database(t)
	run(t, conn, `CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE nokey (x int); CREATE TABLE nothing (id int PRIMARY KEY);
		ALTER TABLE nothing REPLICA IDENTITY NOTHING; CREATE VIEW v AS SELECT 1; CREATE UNLOGGED TABLE fast (id int PRIMARY KEY);
		CREATE TABLE "Quoted.Name" (id int PRIMARY KEY); CREATE TABLE nokeyfull (x int); ALTER TABLE nokeyfull REPLICA IDENTITY FULL`)
	s := source(t, url, nil, "public.ordrs", "public.nokey", "public.nothing", "public.v", "public.fast", "public.orders", `public."Quoted.Name"`, "public.nokeyfull")
	findings, err := s.Check(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"public.ordrs":   "did you mean public.orders?",
		"public.nokey":   `ALTER TABLE "public"."nokey" ADD PRIMARY KEY`,
		"public.nothing": `REPLICA IDENTITY DEFAULT`,
		"public.v":       "name the tables it is made of",
		"public.fast":    `ALTER TABLE "public"."fast" SET LOGGED`,
	}
	for _, f := range findings {
		fix, ok := want[f.Table]
		if !ok || !f.Fatal || !strings.Contains(f.Fix, fix) {
			t.Errorf("unexpected: %+v", f)
		}
		delete(want, f.Table)
	}
	for table := range want {
		t.Errorf("nothing about %s", table)
	}
}

func TestPrivilegesAreNamed(t *testing.T) {
	url, conn := database(t)
	run(t, conn, itemsSQL+`; DO $$ BEGIN CREATE ROLE weak LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
	weak := strings.Replace(url, "postgres@", "weak@", 1)
	s := source(t, weak, nil, "public.items")
	wants := func(fix string) {
		t.Helper()
		err := s.Run(context.Background(), newRecorder())
		if err == nil || !permanent(err) || !strings.Contains(err.Error(), fix) {
			t.Errorf("%v, want %s", err, fix)
		}
	}
	wants(`ALTER ROLE "weak" REPLICATION`)
	run(t, conn, `ALTER ROLE weak REPLICATION`)
	defer run(t, conn, `ALTER ROLE weak NOREPLICATION`)
	wants(`GRANT SELECT ON "public"."items" TO "weak"`)
	run(t, conn, `GRANT SELECT ON items TO weak`)
	wants(`CREATE PUBLICATION "` + s.cfg.Publication + `" FOR TABLE ONLY "public"."items"`)
	run(t, conn, `CREATE TABLE more (id int PRIMARY KEY); GRANT SELECT ON more TO weak`)
	both := source(t, weak, nil, "public.items", "public.more")
	if err := both.Run(context.Background(), newRecorder()); err == nil || strings.Count(err.Error(), `FOR TABLE ONLY "public"."items", ONLY "public"."more"`) != 2 {
		t.Errorf("one statement for both tables: %v", err)
	}
	run(t, conn, fmt.Sprintf(`CREATE PUBLICATION %s`, s.cfg.Publication))
	wants(`ALTER PUBLICATION "` + s.cfg.Publication + `" ADD TABLE ONLY "public"."items"`)
	run(t, conn, fmt.Sprintf(`ALTER PUBLICATION %s ADD TABLE items; INSERT INTO items VALUES (1)`, s.cfg.Publication))
	out := newRecorder()
	catchUp(t, weak, out, "public.items")
	sameItems(t, conn, out)
	run(t, conn, `ALTER TABLE items ENABLE ROW LEVEL SECURITY`)
	wants(`ALTER ROLE "weak" BYPASSRLS`)
	run(t, conn, `DROP OWNED BY weak`)
}

func TestWalLevelAndSlotsAreNamed(t *testing.T) {
	dir, err := tempDir()
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	srv, err := startServer(filepath.Join(dir, "pg"), "wal_level=replica", "max_replication_slots=1")
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Stop()
	url, conn := newDatabase(t, srv.URL)
	run(t, conn, itemsSQL)
	err = source(t, url, nil, "public.items").Run(context.Background(), newRecorder())
	if err == nil || !permanent(err) || !strings.Contains(err.Error(), "ALTER SYSTEM SET wal_level = logical") ||
		!strings.Contains(err.Error(), "ALTER SYSTEM SET max_replication_slots = ") {
		t.Error(err)
	}
}

func TestMissingTableParksOnlyItself(t *testing.T) {
	url, conn := database(t)
	run(t, conn, itemsSQL+`; INSERT INTO items VALUES (1, 1, 'a')`)
	out := newRecorder()
	s := source(t, url, func(c *Config) { c.UntilCaughtUp = true }, "public.itmes", "public.items")
	if err := start(t, s, out).wait(); err != nil {
		t.Fatal(err)
	}
	sameItems(t, conn, out)
	if state, note := s.progress(s.tables[0]).State(); state != progress.Parked || !strings.Contains(note, "did you mean public.items?") {
		t.Error(state, note)
	}
	if state, _ := s.progress(s.tables[1]).State(); state != progress.Done {
		t.Error(state)
	}
}

func TestParkedStreamIsLoadedAgain(t *testing.T) {
	url, conn := database(t)
	run(t, conn, itemsSQL+`; CREATE TABLE other (id int PRIMARY KEY); INSERT INTO items VALUES (1, 1, 'a'); INSERT INTO other VALUES (1)`)
	out := newRecorder()
	s := source(t, url, nil, "public.items", "public.other")
	r := start(t, s, out)
	streams(t, s)
	out.mu.Lock()
	out.refuse = func(b *record.Batch) error {
		if b.Schema.Stream.Name == "items" {
			return errors.New("rule 1 cannot run")
		}
		return nil
	}
	out.mu.Unlock()
	run(t, conn, `INSERT INTO items VALUES (2, 2, 'b'); INSERT INTO other VALUES (2)`)
	eventually(t, "items is parked and other goes on", func() bool {
		state, note := s.progress(s.tables[0]).State()
		return state == progress.Parked && strings.Contains(note, "rule 1 cannot run") && len(out.rows("public.other")) == 2
	})
	run(t, conn, `INSERT INTO items VALUES (3, 3, 'c'); INSERT INTO other VALUES (3)`)
	end := logEnd(t, conn)
	eventually(t, "the slot goes on", func() bool { return confirmed(t, conn, s) >= end })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	out = out.again()
	catchUp(t, url, out, "public.items", "public.other")
	sameItems(t, conn, out)
	begins := map[string]int{}
	for _, e := range out.all() {
		if e.op == record.OpBackfillBegin {
			begins[e.stream]++
		}
	}
	if begins["public.items"] != 2 || begins["public.other"] != 1 {
		t.Error(begins)
	}
}

func TestLostPlacesInTheLogLoadAgain(t *testing.T) {
	cases := map[string]func(t *testing.T, conn *pgx.Conn, s *Source){
		"slot dropped": func(t *testing.T, conn *pgx.Conn, s *Source) {
			run(t, conn, `SELECT pg_drop_replication_slot($1)`, s.cfg.Slot)
		},
		"slot moved by somebody": func(t *testing.T, conn *pgx.Conn, s *Source) {
			run(t, conn, `SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())`, s.cfg.Slot)
		},
		"publication made anew": func(t *testing.T, conn *pgx.Conn, s *Source) {
			run(t, conn, fmt.Sprintf(`DROP PUBLICATION %[1]s; DELETE FROM items WHERE id = 1; CREATE PUBLICATION %[1]s FOR TABLE items`, s.cfg.Publication))
		},
		"publication dropped": func(t *testing.T, conn *pgx.Conn, s *Source) {
			run(t, conn, fmt.Sprintf(`DROP PUBLICATION %s`, s.cfg.Publication))
		},
		"table taken out and back": func(t *testing.T, conn *pgx.Conn, s *Source) {
			run(t, conn, fmt.Sprintf(`ALTER PUBLICATION %s DROP TABLE items`, s.cfg.Publication))
			run(t, conn, `DELETE FROM items WHERE id = 1`)
			run(t, conn, fmt.Sprintf(`ALTER PUBLICATION %s ADD TABLE items`, s.cfg.Publication))
		},
		"table replaced": func(t *testing.T, conn *pgx.Conn, _ *Source) {
			run(t, conn, `ALTER TABLE items RENAME TO old; CREATE TABLE items (LIKE old INCLUDING ALL); INSERT INTO items VALUES (9, 9, 'z')`)
		},
	}
	for name, lose := range cases {
		t.Run(name, func(t *testing.T) {
			url, conn := database(t)
			run(t, conn, itemsSQL+`; INSERT INTO items VALUES (1, 1, 'a'), (2, 2, 'b')`)
			out := newRecorder()
			catchUp(t, url, out, "public.items")
			run(t, conn, `INSERT INTO items VALUES (3, 3, 'c')`)
			lose(t, conn, source(t, url, nil, "public.items"))
			run(t, conn, `INSERT INTO items VALUES (4, 4, 'd')`)
			catchUp(t, url, out, "public.items")
			sameItems(t, conn, out)
			begins := 0
			for _, e := range out.all() {
				if e.op == record.OpBackfillBegin {
					begins++
				}
			}
			if begins != 2 {
				t.Errorf("loaded %d times", begins)
			}
		})
	}
}

func TestDroppedPublicationStopsWithTheFix(t *testing.T) {
	url, conn := database(t)
	run(t, conn, itemsSQL)
	out := newRecorder()
	s := source(t, url, nil, "public.items")
	s.watchEvery = 200 * time.Millisecond
	r := start(t, s, out)
	streams(t, s)
	run(t, conn, fmt.Sprintf(`DROP PUBLICATION %s`, s.cfg.Publication))
	run(t, conn, `INSERT INTO items VALUES (1, 1, 'lost')`)
	err := r.wait()
	if err == nil || !permanent(err) || !strings.Contains(err.Error(), "CREATE PUBLICATION") {
		t.Fatal(err)
	}
	out = out.again()
	catchUp(t, url, out, "public.items")
	sameItems(t, conn, out)
}

func TestBusySlotIsTriedAgain(t *testing.T) {
	url, conn := database(t)
	run(t, conn, itemsSQL)
	out := newRecorder()
	s := source(t, url, nil, "public.items")
	start(t, s, out)
	streams(t, s)
	err := source(t, url, nil, "public.items").Run(context.Background(), newRecorder())
	if err == nil || permanent(err) || !strings.Contains(err.Error(), "tried again") {
		t.Error(err)
	}
}

func TestInvalidatedSlotLoadsAgain(t *testing.T) {
	dir, err := tempDir()
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	srv, err := startServer(filepath.Join(dir, "pg"), "max_slot_wal_keep_size=1MB", "max_wal_size=32MB", "wal_keep_size=0")
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Stop()
	url, conn := newDatabase(t, srv.URL)
	run(t, conn, itemsSQL+`; INSERT INTO items VALUES (1, 1, 'a'); CREATE TABLE noise (x text)`)
	out := newRecorder()
	catchUp(t, url, out, "public.items")
	eventually(t, "the slot is lost", func() bool {
		run(t, conn, `INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 20000)`)
		run(t, conn, `SELECT pg_switch_wal()`)
		run(t, conn, `CHECKPOINT`)
		return query[bool](t, conn, `SELECT wal_status = 'lost' FROM pg_replication_slots`)
	})
	run(t, conn, `DELETE FROM items; INSERT INTO items VALUES (2, 2, 'b')`)
	catchUp(t, url, out, "public.items")
	sameItems(t, conn, out)
}

func TestPartitionsFiltersAndGeneratedColumns(t *testing.T) {
	url, conn := database(t)
	run(t, conn, `CREATE TABLE items (id bigint PRIMARY KEY, n int, note text) PARTITION BY RANGE (id);
		CREATE TABLE items_1 PARTITION OF items FOR VALUES FROM (0) TO (100);
		CREATE TABLE items_2 PARTITION OF items FOR VALUES FROM (100) TO (1000);
		INSERT INTO items SELECT i, i, 'p' FROM generate_series(1, 200) i;
		CREATE TABLE gen (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
		INSERT INTO gen VALUES (1, 1)`)
	out := newRecorder()
	catchUp(t, url, out, "public.items", "public.gen")
	run(t, conn, `UPDATE items SET id = 250 WHERE id = 99; DELETE FROM items WHERE id = 150; INSERT INTO items VALUES (300, 3, 'q'); INSERT INTO gen VALUES (2, 2)`)
	catchUp(t, url, out, "public.items", "public.gen")
	sameItems(t, conn, out)
	rows := out.rows("public.gen")
	if len(rows) != 2 || rows[0].schema.ID != rows[1].schema.ID {
		t.Errorf("%v", rows)
	}
}

func TestPublicationWithFilterAndColumns(t *testing.T) {
	url, conn := database(t)
	if query[int](t, conn, `SELECT current_setting('server_version_num')::int`) < 150000 {
		return // publications have no filters there
	}
	run(t, conn, itemsSQL+`; INSERT INTO items VALUES (1, 1, 'a'), (2, 2, 'b')`)
	s := source(t, url, nil, "public.items")
	run(t, conn, fmt.Sprintf(`CREATE PUBLICATION %s FOR TABLE items (id, n) WHERE (id < 2 OR id > 10)`, s.cfg.Publication))
	out := newRecorder()
	catchUp(t, url, out, "public.items")
	run(t, conn, `INSERT INTO items VALUES (3, 3, 'c'), (11, 4, 'd')`)
	catchUp(t, url, out, "public.items")
	if got := fmt.Sprint(out.folded(t, "public.items")); got != "map[11|:[11 4] 1|:[1 1]]" {
		t.Error(got)
	}
}

func TestInsertsOfTablesWithoutKey(t *testing.T) {
	url, conn := database(t)
	run(t, conn, `CREATE TABLE logs (x int); INSERT INTO logs VALUES (1), (1)`)
	s := source(t, url, nil, "public.logs")
	run(t, conn, fmt.Sprintf(`CREATE PUBLICATION %s FOR TABLE logs WITH (publish = 'insert')`, s.cfg.Publication))
	out := newRecorder()
	catchUp(t, url, out, "public.logs")
	run(t, conn, `INSERT INTO logs VALUES (2); UPDATE logs SET x = 3; DELETE FROM logs`)
	catchUp(t, url, out, "public.logs")
	rows := out.rows("public.logs")
	if len(rows) != 3 || len(rows[2].schema.Keys()) != 0 || rows[2].cells[0] != "2" {
		t.Error(rows)
	}
}
