package badinput

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

// unlimited takes a limit on files away.
const unlimited = math.MaxUint64

// testDisk is about local folders that take no more.
func testDisk(t *testing.T, w *world) {
	t.Run("broker_full", func(t *testing.T) {
		t.Parallel()
		p := w.pipe(t, w.pg)
		p.change(`{ brokers: ["`+w.broker+`"] }`, "{ embedded: true }")
		p.start()
		p.delivered(rows)
		var r struct {
			Children map[string]struct{ PID int }
		}
		if err := json.Unmarshal([]byte(p.read("data/run.json")), &r); err != nil || r.Children["kafka"].PID == 0 {
			t.Fatalf("run.json: %v", err)
		}
		limitFiles(t, r.Children["kafka"].PID, 16<<10)
		p.insert(rows+1, rows+2000)
		// It ends rather than to take a batch behind one that it has refused; the
		// next one has no limit.
		until(t, "the log says what to do", func() bool {
			out := p.out.text()
			return strings.Contains(out, "embedded server is gone, starting it again") && strings.Contains(out, "free space on the disk of")
		})
		p.delivered(rows + 2000)
		if code, _ := p.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if code, _ := p.run("--until-caught-up"); code != 0 {
			t.Errorf("next run: exit code %d", code)
		}
		p.delivered(rows + 2000)
	})
	t.Run("index_full", func(t *testing.T) {
		t.Parallel()
		p := w.pipe(t, w.pg)
		exec1(t, connect(t, w.pg.URL), `CREATE DATABASE index_full_catalog OWNER shop`)
		p.env["CATALOG"] = strings.Replace(p.env["BAD_PG"], "/index_full?", "/index_full_catalog?", 1)
		p.change(`"sqlite:data/catalog.db"`, `"${env:CATALOG}"`)
		p.start()
		p.delivered(rows)
		limitFiles(t, p.cmd.Process.Pid, 1<<10)
		p.insert(rows+1, rows+2000)
		p.noted("sink db.public.customers", "key index", "index_full.customers", "file too large", "free disk space")
		p.holds("orders", rows+2000) // a table without an index goes on
		limitFiles(t, p.cmd.Process.Pid, unlimited)
		p.holds("customers", rows+2000)
		p.waitFor("sink db.public.customers", "no note", func(s stream) bool { return s.Note == "" })
		exec1(t, p.db, `DELETE FROM customers WHERE id % 2 = 0`) // the index knows where all rows are
		until(t, "rows are deleted", func() bool { return p.rows("customers") == (rows+2000)/2 })
		if code, _ := p.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
}
