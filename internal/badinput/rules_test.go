package badinput

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// testRules is about rules, their keys and records that do not decode.
func testRules(t *testing.T, w *world) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, path string) error
		wants []string
	}{
		{"key_missing", func(_ *testing.T, path string) error { return os.Remove(path) },
			[]string{"sluice.yaml:", "sources.db.protect.public.customers[0].hash.key", "keys/email", "no file "}},
		{"key_unreadable", func(_ *testing.T, path string) error { // a mode would not keep root out
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Mkdir(path, 0o700)
		}, []string{"sluice.yaml:", "sources.db.protect.public.customers[0].hash.key", "keys/email", "is not a regular file"}},
		{"key_empty", func(_ *testing.T, path string) error { return os.Truncate(path, 0) },
			[]string{"sluice.yaml:", "sources.db.protect.public.customers[0].hash.key", "keys/email", "empty"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := w.pipe(t, w.pg)
			if err := c.spoil(t, filepath.Join(p.dir, "keys", "email")); err != nil {
				t.Fatal(err)
			}
			p.fails(exitEnvironment, c.wants...)
			if p.read("data/run.json") != "" || p.slots() != 0 {
				t.Error("something was changed")
			}
		})
	}
	t.Run("rule_column", func(t *testing.T) {
		t.Parallel()
		p := w.pipe(t, w.pg)
		p.change("field: email", "field: e_mail")
		p.fails(exitFailure, "db.public.customers is parked", "sluice.yaml:", "sources.db.protect.public.customers[0].hash.field", "e_mail", `did you mean email?`)
		p.holds("orders", rows)
		if n := p.rows("customers"); n > 0 {
			t.Errorf("the parked stream has %d rows", n)
		}
		if n := len(p.topic("rule_column.db.public.customers", 0)); n > 0 {
			t.Errorf("the topic of the parked stream has %d records", n)
		}
		p.change("field: e_mail", "field: email")
		if code, _ := p.run("--until-caught-up"); code != 0 {
			t.Errorf("after the repair: exit code %d", code)
		}
		p.delivered(rows)
	})
	t.Run("undecodable", func(t *testing.T) {
		t.Parallel()
		p := w.pipe(t, w.pg)
		p.start()
		p.delivered(rows)
		p.produce("undecodable.db.public.orders", "{\"this is\": no record", "{}", "\x00\x01\x02")
		p.insert(rows+1, rows+5)
		p.delivered(rows + 5)
		p.waitFor("sink db.public.orders", "three rejected", func(s stream) bool { return s.Rejected == 3 && s.State == "streaming" })
		letters := p.topic("undecodable._dlq", 3)
		if len(letters) != 3 || string(letters[2].Value) != "\x00\x01\x02" {
			t.Fatalf("%d dead letters", len(letters))
		}
		for _, l := range letters {
			h := map[string]string{}
			for _, x := range l.Headers {
				h[x.Key] = string(x.Value)
			}
			if h["sluice.dlq.code"] != "undecodable" || h["sluice.dlq.reason"] == "" || h["sluice.dlq.stream"] != "db.public.orders" || h["sluice.dlq.offset"] == "" {
				t.Errorf("headers of a dead letter: %q", h)
			}
		}
		if code, _ := p.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if code, _ := p.run("--until-caught-up"); code != 0 { // it is no reason to fail for ever
			t.Errorf("next run: exit code %d", code)
		}
		if n := len(p.topic("undecodable._dlq", 3)); n != 3 {
			t.Errorf("%d dead letters after the next run", n)
		}
	})
}

// slots counts the replication slots of the case.
func (p *pipe) slots() (n int) {
	p.t.Helper()
	if err := p.db.QueryRow(p.t.Context(), `SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1`, "bad_"+p.name).Scan(&n); err != nil {
		p.t.Fatal(err)
	}
	return n
}

func (p *pipe) produce(topic string, values ...string) {
	p.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.w.broker), kgo.DisableClientMetrics())
	if err != nil {
		p.t.Fatal(err)
	}
	defer cl.Close()
	for _, v := range values {
		if err := cl.ProduceSync(p.t.Context(), &kgo.Record{Topic: topic, Value: []byte(v)}).FirstErr(); err != nil {
			p.t.Fatal(err)
		}
	}
}

// topic returns the records of a topic, at least n unless it does not have them.
func (p *pipe) topic(name string, n int) []*kgo.Record {
	p.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.w.broker), kgo.DisableClientMetrics(), kgo.ConsumeTopics(name))
	if err != nil {
		p.t.Fatal(err)
	}
	defer cl.Close()
	var all []*kgo.Record
	for quiet := 0; quiet < 3 && (n == 0 || len(all) < n || quiet < 1); quiet++ {
		ctx, cancel := contextFor(p.t)
		fetches := cl.PollFetches(ctx)
		cancel()
		if found := fetches.Records(); len(found) > 0 {
			all, quiet = append(all, found...), -1
		}
	}
	for _, r := range all {
		p.checkSecrets("topic "+name, strings.ToValidUTF8(string(r.Key)+string(r.Value), ""))
	}
	return all
}
