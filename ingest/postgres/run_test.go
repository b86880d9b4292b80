package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

const itemsSQL = `CREATE TABLE items (id bigint PRIMARY KEY, n int, note text)`

// items reads the table as the database has it, in the form of folded.
func items(t *testing.T, conn *pgx.Conn) map[string][]string {
	t.Helper()
	rows, err := conn.Query(context.Background(), `SELECT id::text, coalesce(n::text, '<null>'), coalesce(note, '<null>') FROM items`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	out := map[string][]string{}
	for rows.Next() {
		cells := make([]string, 3)
		if err := rows.Scan(&cells[0], &cells[1], &cells[2]); err != nil {
			t.Fatal(err)
		}
		out[cells[0]+"|"] = cells
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	return out
}

func sameItems(t *testing.T, conn *pgx.Conn, r *recorder) {
	t.Helper()
	want, got := items(t, conn), r.folded(t, "public.items")
	if !maps.EqualFunc(want, got, slices.Equal[[]string]) {
		t.Fatalf("the folded stream has %d rows and differs from the table's %d", len(got), len(want))
	}
}

func TestBackfillThenStreamUnderConcurrentWrites(t *testing.T) {
	url, conn := database(t)
	run(t, conn, itemsSQL)
	run(t, conn, `INSERT INTO items SELECT i, i % 7, repeat('x', 50) FROM generate_series(1, 20000) i`)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 3 {
		c := dial(t, url)
		writers.Go(func() { writeItems(t, c, uint64(w), stop) })
	}
	out := newRecorder()
	r := start(t, source(t, url, nil, "public.items"), out)
	eventually(t, "changes are streamed", func() bool {
		n := 0
		for _, e := range out.rows("public.items") {
			if e.op != record.OpRead {
				n++
			}
		}
		return n > 2000
	})
	close(stop)
	writers.Wait()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	catchUp(t, url, out, "public.items")
	sameItems(t, conn, out)
	positionsRise(t, out, "public.items")
}

// writeItems makes random transactions until stop.
func writeItems(t *testing.T, c *pgx.Conn, seed uint64, stop chan struct{}) {
	random := rand.New(rand.NewPCG(seed, 1))
	for {
		select {
		case <-stop:
			return
		default:
		}
		var sql strings.Builder
		for range 1 + random.IntN(20) {
			id := random.IntN(30000)
			switch random.IntN(5) {
			case 0:
				fmt.Fprintf(&sql, "DELETE FROM items WHERE id = %d;", id)
			case 1:
				fmt.Fprintf(&sql, "UPDATE items SET id = %d WHERE id = %d AND NOT EXISTS (SELECT FROM items WHERE id = %[1]d);", 100000+random.IntN(1000000), id)
			case 2:
				fmt.Fprintf(&sql, "INSERT INTO items VALUES (%d, 0, 'new') ON CONFLICT DO NOTHING;", id)
			default:
				fmt.Fprintf(&sql, "UPDATE items SET n = %d WHERE id = %d;", random.IntN(1000), id)
			}
		}
		if _, err := c.Exec(context.Background(), "BEGIN;"+sql.String()+"COMMIT"); err != nil {
			// Writers may run into each other; that is no failure of the source.
			_, _ = c.Exec(context.Background(), "ROLLBACK")
		}
	}
}

// positionsRise checks the order of first deliveries, and that repeated ones are the same rows.
func positionsRise(t *testing.T, r *recorder, stream string) {
	t.Helper()
	seen := map[record.Position]string{}
	var last record.Position
	for _, e := range r.rows(stream) {
		if e.op == record.OpRead {
			continue
		}
		text := fmt.Sprint(e.op, e.cells)
		if old, ok := seen[e.pos]; ok && old != text {
			t.Fatalf("position %s stands for two changes", e.pos)
		} else if !ok && e.pos.Compare(last) <= 0 {
			t.Fatalf("position %s after %s", e.pos, last)
		} else if !ok {
			last = e.pos
		}
		seen[e.pos] = text
	}
}

func TestCrashAtEveryStage(t *testing.T) {
	url, conn := database(t)
	run(t, conn, itemsSQL)
	run(t, conn, `INSERT INTO items SELECT i, i % 7, 'x' FROM generate_series(1, 5000) i`)
	out := newRecorder()
	var epochs []uint64
	for stage := range 14 {
		// Crash at the stage-th publish, or after it at the first saved checkpoint.
		calls := 0
		out.refuse = func(b *record.Batch) error {
			if calls++; calls > stage/2 {
				out.gone = true
				return errGone{}
			}
			return nil
		}
		if stage%2 == 1 {
			out.refuse = nil
			out.onSave = func(n int) { out.gone = n > stage/2 }
		}
		s := source(t, url, func(c *Config) { c.BatchRows = 1000; c.UntilCaughtUp = true }, "public.items")
		r := start(t, s, out)
		run(t, conn, `UPDATE items SET n = $1 WHERE id % 10 = $1`, stage%10)
		run(t, conn, `DELETE FROM items WHERE id = $1`, 100+stage)
		r.wait() // an error, or nil where it came through
		var st state
		if data := out.checkpoints[checkpointKey]; data != nil {
			if err := json.Unmarshal(data, &st); err != nil {
				t.Fatal(err)
			}
			if s := st.Streams["public.items"]; s != nil {
				epochs = append(epochs, s.Epoch)
			}
		}
		out = out.again()
	}
	catchUp(t, url, out, "public.items")
	sameItems(t, conn, out)
	if !slices.IsSorted(epochs) || len(slices.Compact(slices.Clone(epochs))) < 3 {
		t.Fatalf("epochs %v do not grow with interrupted backfills", epochs)
	}
	begins := map[uint64]bool{}
	for _, e := range out.all() {
		if e.op == record.OpBackfillBegin {
			begins[e.pos.Epoch] = true
		} else if !begins[e.pos.Epoch] {
			t.Fatalf("%v stands before the begin of its epoch", e)
		}
	}
}

// streams waits until all tables are loaded.
func streams(t *testing.T, s *Source) {
	t.Helper()
	eventually(t, "it streams", func() bool {
		for _, name := range s.tables {
			if state, _ := s.progress(name).State(); state != progress.Streaming {
				return false
			}
		}
		return true
	})
}

func confirmed(t *testing.T, conn *pgx.Conn, s *Source) uint64 {
	t.Helper()
	v, err := parseLSN(query[string](t, conn, `SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1`, s.cfg.Slot))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func logEnd(t *testing.T, conn *pgx.Conn) uint64 {
	t.Helper()
	v, err := parseLSN(query[string](t, conn, `SELECT pg_current_wal_lsn()::text`))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOnlyWhatTheBrokersHoldIsAcknowledged(t *testing.T) {
	url, conn := database(t)
	run(t, conn, itemsSQL)
	out := newRecorder()
	s := source(t, url, nil, "public.items")
	start(t, s, out)
	run(t, conn, `INSERT INTO items VALUES (1, 1, 'a')`)
	eventually(t, "the first row arrives", func() bool { return len(out.rows("public.items")) == 1 })
	first := logEnd(t, conn)
	eventually(t, "and is acknowledged", func() bool { return confirmed(t, conn, s) >= first })

	out.hold(true)
	run(t, conn, `INSERT INTO items VALUES (2, 2, 'b')`)
	second := logEnd(t, conn)
	eventually(t, "the second row is published", func() bool { return len(out.rows("public.items")) == 2 })
	saves := func() int { out.mu.Lock(); defer out.mu.Unlock(); return out.saves }
	run(t, conn, `SELECT pg_sleep(2.5)`) // several status updates
	if got := confirmed(t, conn, s); got >= second {
		t.Fatalf("the slot is at %s although the brokers hold nothing from %s on", formatLSN(got), formatLSN(second))
	}
	if saves() == 0 {
		t.Fatal("no checkpoint")
	}
	out.hold(false)
	eventually(t, "it is acknowledged after all", func() bool { return confirmed(t, conn, s) >= second })
}

func TestIdleDatabaseIsAcknowledged(t *testing.T) {
	url, conn := database(t)
	run(t, conn, itemsSQL+`; CREATE TABLE other (x text)`)
	out := newRecorder()
	s := source(t, url, nil, "public.items")
	start(t, s, out)
	streams(t, s)
	for range 3 {
		run(t, conn, `INSERT INTO other SELECT repeat('y', 1000) FROM generate_series(1, 2000)`)
	}
	end := logEnd(t, conn)
	eventually(t, "log of unpublished tables is given free", func() bool { return confirmed(t, conn, s) >= end })
}

func TestUnsentCellsKeyChangesAndTruncate(t *testing.T) {
	url, conn := database(t)
	run(t, conn, `CREATE TABLE docs (id int PRIMARY KEY, n int, body text, more text);
		ALTER TABLE docs ALTER body SET STORAGE EXTERNAL, ALTER more SET STORAGE EXTERNAL;
		CREATE TABLE whole (id int PRIMARY KEY, n int, body text); ALTER TABLE whole REPLICA IDENTITY FULL;
		ALTER TABLE whole ALTER body SET STORAGE EXTERNAL`)
	out := newRecorder()
	s := source(t, url, nil, "public.docs", "public.whole")
	r := start(t, s, out)
	streams(t, s)
	big := strings.Repeat("b", 10000)
	run(t, conn, `INSERT INTO docs VALUES (1, 1, $1, $1)`, big)
	run(t, conn, `UPDATE docs SET n = 2`)
	run(t, conn, `UPDATE docs SET id = 5, more = 'm'`)
	run(t, conn, `DELETE FROM docs`)
	run(t, conn, `INSERT INTO docs VALUES (7, 1, $1, NULL)`, big)
	run(t, conn, `BEGIN; UPDATE docs SET id = 8; UPDATE docs SET id = 9; DELETE FROM docs WHERE id = 9; COMMIT`)
	run(t, conn, `INSERT INTO whole VALUES (1, 1, $1)`, big)
	run(t, conn, `UPDATE whole SET n = 2`)
	run(t, conn, `UPDATE whole SET id = 3`)
	run(t, conn, `DELETE FROM whole`)
	run(t, conn, `TRUNCATE docs, whole`)
	eventually(t, "the truncate arrives", func() bool {
		n := 0
		for _, e := range out.all() {
			if e.op == record.OpTruncate {
				n++
			}
		}
		return n == 2
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	short := func(e event) string {
		var cells []string
		for _, c := range e.cells {
			cells = append(cells, strings.ReplaceAll(c, big, "BIG"))
		}
		text := fmt.Sprintf("%s %v", e.op, cells)
		if e.before != nil {
			text += strings.ReplaceAll(fmt.Sprint(" ", e.before), big, "BIG")
		}
		return text
	}
	want := map[string][]string{
		"public.docs": {
			"insert [1 1 BIG BIG]", "update [1 2 <unsent> <unsent>]",
			"delete [1 <unsent> <unsent> <unsent>]", "insert [5 2 BIG m]",
			"delete [5 <unsent> <unsent> <unsent>]", "insert [7 1 BIG <null>]",
			"delete [7 <unsent> <unsent> <unsent>]", // the row is gone: no insert of 8
			"delete [8 <unsent> <unsent> <unsent>]",
			"delete [9 <unsent> <unsent> <unsent>]"},
		"public.whole": {
			"insert [1 1 BIG] [<unsent> <unsent> <unsent>]", "update [1 2 BIG] [1 1 BIG]",
			"delete [1 <unsent> <unsent>] [1 2 BIG]", "insert [3 2 BIG] [<unsent> <unsent> <unsent>]",
			"delete [3 <unsent> <unsent>] [3 2 BIG]"},
	}
	// The re-read of 5 races with its delete: it may be gone when it is looked for.
	for stream, lines := range want {
		var got []string
		for _, e := range out.rows(stream) {
			got = append(got, short(e))
		}
		if !slices.Equal(got, lines) {
			without := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return strings.HasPrefix(l, "insert [5 ") })
			if !slices.Equal(got, without) {
				t.Errorf("%s:\n%s\nwant\n%s", stream, strings.Join(got, "\n"), strings.Join(lines, "\n"))
			}
		}
	}
	for _, e := range out.rows("public.docs") {
		if e.op == record.OpInsert && e.cells[0] == "5" && e.pos.Seq%2 != 1 {
			t.Errorf("the insert half of a key change has position %s", e.pos)
		}
	}
}

func TestSchemaChangesAtTheirPosition(t *testing.T) {
	url, conn := database(t)
	run(t, conn, itemsSQL)
	out := newRecorder()
	s := source(t, url, nil, "public.items")
	start(t, s, out)
	streams(t, s)
	run(t, conn, `INSERT INTO items VALUES (1, 1, 'a')`)
	run(t, conn, `ALTER TABLE items ADD extra numeric(10,2) DEFAULT 1.5`)
	run(t, conn, `INSERT INTO items VALUES (2, 2, 'b', 2.25)`)
	run(t, conn, `ALTER TABLE items DROP note`)
	run(t, conn, `INSERT INTO items VALUES (3, 3, 3.75)`)
	run(t, conn, `ALTER TABLE items ADD span interval`) // text format from here on
	run(t, conn, `INSERT INTO items VALUES (4, 4, 4.75, '1 day 02:03')`)
	eventually(t, "all rows arrive", func() bool { return out.folded(t, "public.items")["4|"] != nil })
	want := map[string]string{"1|": "[1 1 a]", "2|": "[2 2 b 0:e1]", "3|": "[3 3 0:177]", "4|": "[4 4 0:1db 1 day 02:03:00]"}
	for key, text := range want {
		if got := fmt.Sprint(out.folded(t, "public.items")[key]); got != text {
			t.Errorf("row %s: %s, want %s", key, got, text)
		}
	}
}

func TestSeveralTablesShareATransaction(t *testing.T) {
	url, conn := database(t)
	run(t, conn, `CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY)`)
	out := newRecorder()
	s := source(t, url, nil, "public.a", "public.b")
	r := start(t, s, out)
	streams(t, s)
	run(t, conn, `BEGIN; INSERT INTO a VALUES (1); INSERT INTO c VALUES (1); INSERT INTO b VALUES (1); INSERT INTO a VALUES (2); COMMIT`)
	eventually(t, "all arrive", func() bool { return len(out.rows("public.a")) == 2 && len(out.rows("public.b")) == 1 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	a, b := out.rows("public.a"), out.rows("public.b")
	if a[0].pos.LSN != b[0].pos.LSN || a[0].pos.Seq >= b[0].pos.Seq || b[0].pos.Seq >= a[1].pos.Seq {
		t.Errorf("positions %s %s %s", a[0].pos, b[0].pos, a[1].pos)
	}
	// A table that is added later is loaded while the others go on.
	run(t, conn, `INSERT INTO a VALUES (3); INSERT INTO c VALUES (2)`)
	catchUp(t, url, out, "public.a", "public.b", "public.c")
	if n := len(out.folded(t, "public.c")); n != 2 {
		t.Errorf("c has %d rows", n)
	}
	if n := len(out.folded(t, "public.a")); n != 3 {
		t.Errorf("a has %d rows", n)
	}
	begins := 0
	for _, e := range out.all() {
		if e.op == record.OpBackfillBegin && e.stream != "public.c" {
			begins++
		}
	}
	if begins != 2 {
		t.Errorf("a and b were loaded %d times", begins)
	}
}

// A commit is in the log before others see what it did; a synchronous standby
// that is away makes the moment last.
func TestKeyChangeThatIsNotVisibleYet(t *testing.T) {
	url, conn := database(t)
	run(t, conn, `CREATE TABLE docs (id int PRIMARY KEY, n int, body text); ALTER TABLE docs ALTER body SET STORAGE EXTERNAL`)
	big := strings.Repeat("b", 10000)
	run(t, conn, `INSERT INTO docs VALUES (1, 1, $1)`, big)
	out := newRecorder()
	s := source(t, url, nil, "public.docs")
	start(t, s, out)
	streams(t, s)
	other, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	run(t, conn, `SET synchronous_commit = off`)
	run(t, conn, `ALTER SYSTEM SET synchronous_standby_names = 'nobody'`)
	defer run(t, conn, `SELECT pg_reload_conf()`)
	defer run(t, conn, `ALTER SYSTEM RESET synchronous_standby_names`)
	run(t, conn, `SELECT pg_reload_conf()`)
	eventually(t, "the server waits for a standby", func() bool {
		var names string
		return conn.QueryRow(t.Context(), `SHOW synchronous_standby_names`).Scan(&names) == nil && names == "nobody"
	})
	committed := make(chan error, 1)
	go func() {
		_, err := other.Exec(context.Background(), `UPDATE docs SET id = 5`)
		committed <- err
	}()
	eventually(t, "the source looks for the row", func() bool {
		var looks bool
		err := conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%pg_visible_in_snapshot%' AND pid <> pg_backend_pid())`).Scan(&looks)
		return err == nil && looks
	})
	run(t, conn, `ALTER SYSTEM RESET synchronous_standby_names`)
	run(t, conn, `SELECT pg_reload_conf()`)
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	eventually(t, "the row arrives under its new key with all cells", func() bool {
		for _, e := range out.rows("public.docs") {
			if e.op == record.OpInsert && e.cells[0] == "5" && e.cells[2] == big {
				return true
			}
		}
		return false
	})
}
