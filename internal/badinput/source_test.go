package badinput

import (
	"flag"
	"net"
	"os"
	"strings"
	"testing"
)

// Exit codes as cmd/sluice documents them.
const (
	exitFailure     = 1
	exitInvalid     = 2
	exitEnvironment = 3
)

// TestMain lets more cases run side by side than there are processors.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// TestBadInput runs all cases side by side: they wait more than they work.
func TestBadInput(t *testing.T) {
	w := newWorld(t)
	for name, cases := range map[string]func(*testing.T, *world){
		"fragile": testFragile, "source": testSource, "parked": testParked, "slots": testSlots, "store": testStore, "rules": testRules, "process": testProcess, "disk": testDisk,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); cases(t, w) })
	}
}

// closedPort is an address of this machine where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// testSource is about a source that cannot be read at all.
func testSource(t *testing.T, w *world) {
	_, host, _ := strings.Cut(w.pg.URL, "@")
	host, _, _ = strings.Cut(host, "/")
	for _, c := range []struct {
		name  string
		url   func(p *pipe) string
		code  int
		wants []string
	}{
		{"refused", func(p *pipe) string { return strings.Replace(p.env["BAD_PG"], host, closedPort(t), 1) }, exitEnvironment,
			[]string{"connect to 127.0.0.1:", "connection refused", "check host and port of the url and that the server runs"}},
		{"password", func(p *pipe) string { return p.as("shop", "dsn/canary+3f9c-wrong") }, exitEnvironment,
			[]string{"connect to " + host, `password authentication failed for user "shop"`, "check user and password of the url"}},
		{"role", func(p *pipe) string { return p.as("nobody_such", dsnPassword) }, exitEnvironment,
			[]string{"connect to " + host, "nobody_such", "check user and password of the url"}},
		{"database", func(p *pipe) string { return strings.Replace(p.env["BAD_PG"], "/source_database?", "/nowhere?", 1) }, exitEnvironment,
			[]string{"connect to " + host, `database "nowhere" does not exist`, "check the database name of the url"}},
		{"no_replication", func(p *pipe) string { return p.as("plain", dsnPassword) }, exitEnvironment,
			[]string{"role plain may not replicate", `ALTER ROLE "plain" REPLICATION`}},
		{"scheme", func(*pipe) string { return "mysql://shop:dsn%2Fcanary%2B3f9c@localhost/shop" }, exitEnvironment,
			[]string{`scheme "mysql" is not postgres`, "postgres://user:password@host:5432/database"}},
	} {
		t.Run("source_"+c.name, func(t *testing.T) {
			t.Parallel()
			p := w.pipe(t, w.pg)
			good := p.env["BAD_PG"]
			p.env["BAD_PG"] = c.url(p)
			if p.env["BAD_PG"] == good {
				t.Fatal("the address was not changed")
			}
			out := p.fails(c.code, append([]string{"source db"}, c.wants...)...)
			if n := strings.Count(out, c.wants[len(c.wants)-1]); n > 8 {
				t.Errorf("the fix is repeated %d times", n)
			}
			if n := p.rows("orders"); n != -1 {
				t.Errorf("table orders exists, with %d rows", n)
			}
			p.env["BAD_PG"] = good // the repair is all that is needed
			if code, _ := p.run("--until-caught-up"); code != 0 {
				t.Errorf("after the repair: exit code %d", code)
			}
			p.delivered(rows)
		})
	}
}

// testParked is about one table that cannot be read: the other one goes on.
func testParked(t *testing.T, w *world) {
	for _, c := range []struct {
		name   string
		sql    string
		change []string
		url    func(p *pipe) string
		wants  []string
		repair string
	}{
		{name: "missing", sql: `ALTER TABLE orders RENAME TO ordres`,
			wants: []string{"db.public.orders", "the table does not exist", "public.ordres"}, repair: `ALTER TABLE ordres RENAME TO orders`},
		{name: "keyless", sql: `ALTER TABLE orders DROP CONSTRAINT orders_pkey`,
			wants:  []string{"db.public.orders", "it has no primary key", `ALTER TABLE "public"."orders" ADD PRIMARY KEY`},
			repair: `ALTER TABLE orders ADD PRIMARY KEY (id)`},
		{name: "select", url: func(p *pipe) string { return p.as("reader", dsnPassword) },
			sql:    `CREATE PUBLICATION bad_parked_select FOR TABLE customers, orders; GRANT SELECT ON customers TO reader`,
			wants:  []string{"db.public.orders", "role reader may not read it", `GRANT SELECT ON "public"."orders" TO "reader"`},
			repair: `GRANT SELECT ON orders TO reader`},
	} {
		t.Run("parked_"+c.name, func(t *testing.T) {
			t.Parallel()
			p := w.pipe(t, w.pg)
			exec1(t, p.db, c.sql)
			if c.url != nil {
				p.env["BAD_PG"] = c.url(p)
			}
			p.fails(exitFailure, c.wants...)
			p.holds("customers", rows)
			if n := p.rows("orders"); n > 0 {
				t.Errorf("the table that cannot be read has %d rows", n)
			}
			exec1(t, p.db, c.repair)
			if code, _ := p.run("--until-caught-up"); code != 0 {
				t.Errorf("after the repair: exit code %d", code)
			}
			p.delivered(rows)
		})
	}
}

// testSlots is about what others do to the publication and the slot.
func testSlots(t *testing.T, w *world) {
	t.Run("publication_dropped", func(t *testing.T) {
		t.Parallel()
		p := w.pipe(t, w.pg)
		p.start()
		p.delivered(rows)
		exec1(t, p.db, `DROP PUBLICATION bad_publication_dropped`)
		p.insert(rows+1, rows+5)
		code, out := p.exit()
		if code != exitEnvironment {
			t.Errorf("exit code %d", code)
		}
		says(t, out, "source db", "read publication bad_publication_dropped", "it was dropped, changes since are lost", "a restart makes it again")
		if code, _ := p.run("--until-caught-up"); code != 0 {
			t.Errorf("after the restart: exit code %d", code)
		}
		p.holds("customers", rows+5)
	})
	t.Run("slot_dropped", func(t *testing.T) {
		t.Parallel()
		p := w.pipe(t, w.pg)
		p.start()
		p.delivered(rows)
		until(t, "drop the slot", func() bool {
			_, err := p.db.Exec(t.Context(), `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'bad_slot_dropped' AND active`)
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.db.Exec(t.Context(), `SELECT pg_drop_replication_slot('bad_slot_dropped')`)
			return err == nil
		})
		p.insert(rows+1, rows+5)
		p.holds("customers", rows+5)
		p.stop()
		says(t, p.out.text(), "changes were missed: every table is loaded again", "the replication slot is gone")
	})
	t.Run("slot_busy", func(t *testing.T) {
		t.Parallel()
		p := w.pipe(t, w.pg)
		p.start()
		p.delivered(rows)
		other := *p
		other.dir, other.cmd = t.TempDir(), nil
		other.write("keys/email", hmacKey)
		other.text = strings.ReplaceAll(p.text, "name: slot_busy", "name: slot_busy_too")
		other.start()
		other.noted("source db.public.orders", "bad_slot_busy", "another process reads this source", "it is tried again")
		if code, _ := other.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		p.insert(rows+1, rows+5)
		p.delivered(rows + 5)
	})
}

// testFragile shares the server that is stopped, step by step.
func testFragile(t *testing.T, w *world) {
	t.Run("wal_level", func(t *testing.T) {
		p := w.pipe(t, w.fragile)
		p.fails(exitEnvironment, "source db", "wal_level is replica", "ALTER SYSTEM SET wal_level = logical; then restart the server")
	})
	w.fragile.Stop()
	w.fragile.Set("wal_level=logical")
	if err := w.fragile.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Run("slot_lost", func(t *testing.T) {
		p := w.pipe(t, w.fragile)
		if code, _ := p.run("--until-caught-up"); code != 0 {
			t.Fatalf("exit code %d", code)
		}
		p.insert(rows+1, rows+5)
		exec1(t, p.db, `ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'`)
		exec1(t, p.db, `SELECT pg_reload_conf()`)
		for range 4 { // more segments than may be kept
			exec1(t, p.db, `SELECT pg_logical_emit_message(false, 'x', 'x')`)
			exec1(t, p.db, `SELECT pg_switch_wal()`)
		}
		until(t, "the slot is lost", func() bool {
			exec1(t, p.db, `CHECKPOINT`)
			var state string
			if err := p.db.QueryRow(t.Context(), `SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'bad_slot_lost'`).Scan(&state); err != nil {
				t.Fatal(err)
			}
			return state == "lost"
		})
		exec1(t, p.db, `ALTER SYSTEM RESET max_slot_wal_keep_size`)
		exec1(t, p.db, `SELECT pg_reload_conf()`)
		code, out := p.run("--until-caught-up")
		if code != 0 {
			t.Errorf("exit code %d", code)
		}
		says(t, out, "changes were missed: every table is loaded again", "max_slot_wal_keep_size")
		p.holds("customers", rows+5)
	})
	t.Run("stopped", func(t *testing.T) { testStopped(t, w) })
}

// testStopped stops a server under a pipeline that reads it and one that keeps its catalog there.
func testStopped(t *testing.T, w *world) {
	source, catalog := w.pipeNamed(t, w.fragile, "stopped_source"), w.pipeNamed(t, w.pg, "stopped_catalog")
	exec1(t, connect(t, w.fragile.URL), `CREATE DATABASE catalog OWNER shop`)
	catalog.env["CATALOG"] = strings.Replace(source.env["BAD_PG"], "/stopped_source?", "/catalog?", 1)
	catalog.change(`"sqlite:data/catalog.db"`, `"${env:CATALOG}"`)
	source.start()
	catalog.start()
	source.delivered(rows)
	catalog.delivered(rows)
	w.fragile.Stop()
	source.noted("source db.public.orders", "starts again after", "connect to 127.0.0.1:", "check host and port of the url and that the server runs")
	catalog.insert(rows+1, rows+5)
	catalog.noted("sink db.public.orders", "attempt", "catalog")
	if err := w.fragile.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	source.db = connect(t, source.url)
	source.insert(rows+1, rows+5)
	source.delivered(rows + 5)
	catalog.delivered(rows + 5)
	for _, p := range []*pipe{source, catalog} {
		p.waitFor("sink db.public.orders", "no note", func(s stream) bool { return s.Note == "" })
		if code, _ := p.stop(); code != 0 {
			t.Errorf("%s: exit code %d", p.name, code)
		}
	}
}
