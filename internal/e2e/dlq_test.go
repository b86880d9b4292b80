package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

const hardConfiguration = `name: shop
dir: data
kafka: { embedded: true }
sources:
  db:
    postgres: { url: "${env:SHOP_DB_URL}", tables: [public.visits] }
sinks:
  lake:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/shop
      s3: { embedded: true }
      commit: { every: 1s }
    streams:
      - { from: db.public.visits, table: shop.visits }
`

// TestDeadLetters follows a refused record: listed without its values, shown
// on request, read again after it was repaired, and gone.
func TestDeadLetters(t *testing.T) {
	w := newWorld(t, hardConfiguration, `CREATE TABLE visits (id int PRIMARY KEY, at timestamptz, note text);
INSERT INTO visits VALUES (1, '2026-01-01', 'fine'), (2, 'infinity', 'canary-note'), (3, '-infinity', 'canary-note')`)
	w.run(0, "run", "--until-caught-up")
	list := w.run(0, "dlq", "ls")
	if !strings.HasPrefix(list, "2 dead letters: 2 value_out_of_range") || strings.Contains(list, "canary") {
		t.Fatalf("the list is\n%s", list)
	}
	letters := func(args ...string) (ids []int64) {
		t.Helper()
		var answer struct {
			Result struct {
				Letters []struct {
					ID  int64  `json:"id"`
					Key string `json:"key"`
				} `json:"letters"`
			} `json:"result"`
		}
		if err := json.Unmarshal([]byte(w.run(0, append([]string{"--json", "dlq"}, args...)...)), &answer); err != nil {
			t.Fatal(err)
		}
		for _, l := range answer.Result.Letters {
			if l.Key != "" {
				t.Errorf("the list has a key: %q", l.Key)
			}
			ids = append(ids, l.ID)
		}
		return ids
	}
	ids := letters("ls", "--sink", "lake", "--code", "value_out_of_range", "--since", "1h")
	if len(ids) != 2 || len(letters("ls", "--stream", "db.public.other")) != 0 {
		t.Fatalf("ids %v", ids)
	}
	if out := w.run(0, "dlq", "show", "0"); strings.Contains(out, "canary") || !strings.Contains(out, "--reveal") {
		t.Errorf("show prints\n%s", out)
	}
	if out := w.run(0, "dlq", "show", "0", "--reveal"); !strings.Contains(out, "canary-note") {
		t.Errorf("show --reveal prints\n%s", out)
	}
	for _, wrong := range [][]string{{"drop"}, {"drop", "99"}, {"show", "x"}, {"retry"}, {"ls", "--stream", "a.b.c.d"}} {
		w.run(2, append([]string{"dlq"}, wrong...)...)
	}
	w.run(0, "dlq", "drop", "0")
	w.exec(`UPDATE visits SET at = '2026-01-02'`)
	if out := w.run(0, "dlq", "retry", "--all"); !strings.HasPrefix(out, "1 dead letter read again") {
		t.Errorf("retry says\n%s", out)
	}
	w.run(0, "run", "--until-caught-up")
	if out := w.run(0, "dlq", "ls"); out != "no dead letters\n" {
		t.Errorf("afterwards there are\n%s", out)
	}
	if out := w.run(0, "inspect", "shop.visits"); !strings.HasPrefix(out, "shop.visits   3 rows") {
		t.Errorf("the table is\n%s", out)
	}
}
