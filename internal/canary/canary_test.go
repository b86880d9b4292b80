package canary

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// TestNothingGetsOut runs a pipeline with every kind of protect rule through
// crashes, refused records, changed tables and wrong files, and then looks for
// the protected values in everything that it has left behind.
func TestNothingGetsOut(t *testing.T) {
	w := newWorld(t)
	w.write("sluice.yaml", w.file(""))
	for _, table := range tables {
		w.sql(table.create(w.plant) + table.insert(w.plant, 40, nil))
	}
	w.wrongFiles()
	w.run(0, "validate")
	w.ask()
	w.crashes()
	w.refusals()
	w.evolution()
	w.ask()
	w.renamed()

	for sink, data := range map[string][]byte{"pgvector": w.vectors(), "the CRM": w.simulator(), "the model": w.model.bytes()} {
		if !strings.Contains(string(data), "[redacted]") {
			t.Errorf("%s has got nothing", sink)
		}
	}
	for _, h := range w.scan() {
		t.Error(h)
	}
	s := w.plant.scan
	t.Logf("%d values in %d MB, of these opened: %v", s.Planted(), s.Bytes()>>20, s.Opened())
	for _, kind := range []string{"parquet", "avro", "sqlite", "snappy batch"} {
		if s.Opened()[kind] == 0 {
			t.Errorf("no %s was looked into", kind)
		}
	}
}

// TestTheScannerIsAwake leaves one rule out: its values must be found in the
// topic, in the lake, in pgvector and in the CRM.
func TestTheScannerIsAwake(t *testing.T) {
	w := newWorld(t)
	w.write("sluice.yaml", w.file("email"))
	people := *tables[0]
	people.next = 0
	for _, table := range tables {
		w.sql(table.create(w.plant))
	}
	w.sql(people.insert(w.plant, 3, nil))
	w.run(0, "run", "--until-caught-up")
	found := map[string]bool{}
	for _, h := range w.scan() {
		if !strings.HasPrefix(h.Place, "people.email") {
			t.Error(h)
		}
		found[h.Where] = true
	}
	all := fmt.Sprint(found)
	for _, want := range []string{"snappy batch", ".parquet › columns", "avro", "pgvector", "requests to the CRM", "the CRM", "requests to the model"} {
		if !strings.Contains(all, want) {
			t.Errorf("no hit in %s: %s", want, all)
		}
	}
}

// wrongFiles runs files whose rules cannot run: nothing may start or pass.
func (w *world) wrongFiles() {
	right := w.file("")
	for i, wrong := range []string{
		strings.Replace(right, w.keys+"/hmac", w.keys+"/nothing", 1),
		strings.Replace(right, "${file:"+w.keys+"/hmac}", "${env:SHORT_KEY}", 1),
		strings.Replace(right, "field: sha,", "field: shaa,", 1),
		strings.Replace(right, "fields: [ssn]", "fields: [code]", 1),
		strings.Replace(right, "method: aes-siv", "method: aes-gcm", 1),
		strings.Replace(right, "field: account, key", "field: account, kee", 1),
		strings.Replace(right, "kind: date", "kind: phone", 1) + "  x: y\n",
	} {
		name := fmt.Sprintf("wrong%d.yaml", i)
		w.write(name, wrong)
		w.run(-1, "validate", "-c", name)
		if out := w.run(-1, "run", "--until-caught-up", "-c", name); strings.Contains(out, "caught up after") {
			w.t.Errorf("%s runs:\n%s", name, out)
		}
		if i < 2 {
			w.run(-1, "preview", "db.public.people", "-c", name)
			w.run(-1, "keys", "verify", "-c", name, "--json")
		}
	}
}

// ask runs every command that shows something.
func (w *world) ask() {
	for i, args := range [][]string{
		{"preview", "db.public.people", "--rules"}, {"preview", "db.public.clients", "-n", "40", "--json"}, {"preview", "db.public.visits", "--from", "topic"},
		{"explain", "db.public.people"}, {"explain", "db.public.visits", "--offline", "--json"}, {"plan"}, {"keys", "list"}, {"status"}, {"status", "--json"},
		{"inspect", "shop.people", "--json"}, {"search", "lead customer", "--json"},
	} {
		if out := w.run(-1, args...); i == 0 && !strings.Contains(out, "[redacted]") {
			w.t.Errorf("sluice %q says\n%s", args, out)
		}
	}
}

// crashes changes rows while the pipeline is killed again and again, from the
// backfill on.
func (w *world) crashes() {
	end := w.start()
	w.until("the first rows", func(rows []row) bool { return delivered(rows, "lake") > 0 })
	end(syscall.SIGKILL)
	for _, sink := range []string{"docs", "crm", "lake"} {
		end = w.start()
		before := int64(-1)
		for _, table := range tables {
			w.sql(table.changes(w.plant))
		}
		w.until("rows of "+sink, func(rows []row) bool {
			n := delivered(rows, sink)
			if before < 0 {
				before = n
			}
			return n > before
		})
		end(syscall.SIGKILL)
	}
}

// refusals has records refused by the rules, by the lake and by the CRM.
func (w *world) refusals() {
	end := w.start()
	for _, table := range tables {
		place := table.name + ".mobile, refused"
		w.sql(table.insert(w.plant, 1, map[string]string{"mobile": "'call me " + w.plant.word(place) + "'"}) +
			table.insert(w.plant, 1, map[string]string{"at": "'infinity'"}) + table.insert(w.plant, 1, map[string]string{"stage": "'no such stage'"}) +
			table.update(w.plant, 6, "email", "dossier") +
			fmt.Sprintf("UPDATE %s SET mobile = 'call %s' WHERE id = 6; UPDATE %s SET at = '-infinity', name = '%s' WHERE id = 8;\n",
				table.name, w.plant.word(place), table.name, w.plant.word(table.name+".name, update")))
	}
	w.sql("TRUNCATE visits;\n" + tables[2].insert(w.plant, 4, nil))
	w.until("refused records", func(rows []row) bool {
		refused := map[string]int64{}
		for _, r := range rows {
			refused[r.Name] += r.Rejected
		}
		return refused["db"] >= 4 && refused["lake"] >= 4 && refused["crm"] >= 1
	})
	list := w.run(0, "dlq", "ls", "-n", "100")
	for _, code := range []string{"value_not_canonical", "value_out_of_range", "A20"} {
		if !strings.Contains(list, code) {
			w.t.Errorf("no dead letter %s:\n%s", code, list)
		}
	}
	ids := []string{"0", "1", "2", "3", "4", "5", "6", "7", "8"}
	w.run(0, append([]string{"dlq", "show"}, ids...)...)
	w.run(0, append([]string{"dlq", "show", "--reveal", "--json"}, ids...)...) // what is revealed is protected as well
	w.ask()
	w.run(0, "dlq", "retry", "--all")
	end(syscall.SIGKILL)
}

// evolution adds columns: two that rules have waited for, and one of which
// nobody has said anything. Then it renames a protected one, which parks its stream.
func (w *world) evolution() {
	end := w.start()
	for _, t := range tables {
		var b strings.Builder
		for _, name := range []string{"old_secret", "passport", "surprise"} {
			fmt.Fprintf(&b, "ALTER TABLE %s ADD COLUMN %s text DEFAULT '%s';\n", t.name, name, w.plant.word(t.name+"."+name+", default"))
		}
		more := map[string]string{}
		for _, name := range []string{"old_secret", "passport", "surprise"} {
			more[name] = "'" + w.plant.word(t.name+"."+name+", insert") + "'"
		}
		b.WriteString(t.insert(w.plant, 2, more) + t.update(w.plant, 10, "old_secret", "passport", "surprise") + t.update(w.plant, 11, "surprise", "nick"))
		w.sql(b.String())
	}
	w.until("the new columns", func(rows []row) bool { return delivered(rows, "lake") > 0 })
	end(syscall.SIGKILL)
}

// renamed gives a protected column another name: the rule that cannot run any
// more parks its stream, and the new name passes nothing.
func (w *world) renamed() {
	w.run(0, "run", "--until-caught-up")
	if out := w.run(0, "explain", "db.public.people"); !strings.Contains(out, "surprise") {
		w.t.Errorf("surprise is not held back:\n%s", out)
	}
	people := tables[0]
	w.sql("ALTER TABLE people RENAME COLUMN sha TO hash;\n" + fmt.Sprintf("UPDATE people SET hash = '%s', stage = 'customer' WHERE id > 9;\n", w.plant.word("people.hash, update")))
	if out := w.run(1, "run", "--until-caught-up"); !strings.Contains(out, "people is parked") {
		w.t.Errorf("%s is not parked:\n%s", people.name, out)
	}
}
