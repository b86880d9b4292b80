package ruletools

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const file = `name: shop
kafka: { embedded: true }
topics: { partitions: 1 }
sources:
  shop-db:
    postgres: { url: "${env:SHOP_DB_URL}", tables: [public.customers, public.orders] }
    protect:
      public.customers:
        - hash: { field: email, key: "${ring:keys/r}" }
        - encrypt: { field: name, key: "${ring:keys/r}" }
        - encrypt: { field: note, key: "${ring:keys/r}", per: id }
        - drop: { fields: [phone] }
sinks:
  lake:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/shop
      s3: { embedded: true }
      commit: { every: 200ms }
    streams:
      - { from: shop-db.public.customers, table: shop.customers, shape: [ { rename: { country: land } } ] }
      - { from: shop-db.public.orders, table: shop.orders }
`

const (
	mail = "anna.canary@example.com"
	name = "Anna Canary"
)

const tables = `CREATE TABLE customers (id bigint PRIMARY KEY, email text, name text, phone text, country text, note text DEFAULT 'Canary note');
	CREATE TABLE orders (id bigint PRIMARY KEY, total numeric(10,2));
	INSERT INTO customers VALUES (1, '` + mail + `', '` + name + `', '+49 171 5550123', 'DE');
	INSERT INTO orders VALUES (1, 12.50), (2, 3)`

// TestTools goes through the life of a rule: looked at, run, its key rotated,
// its values opened again, and changed.
func TestTools(t *testing.T) {
	t.Parallel()
	w := newWorld(t, file)
	w.sql(tables)
	w.must(0, []string{"keys", "new", "keys/r"}, `key: "${ring:keys/r}"`)
	w.must(3, []string{"keys", "new", "keys/r"}, "there already")
	w.must(0, []string{"keys", "verify"}, "1 key", "primary, stable", "sources.shop-db.protect.public.customers[0].hash")

	seen := w.must(0, []string{"preview", "shop-db.public.customers", "-n", "2"}, "read", "an•••@ex•••.com", "DE", "(dropped)", "hash(email)", "lake")
	for _, secret := range []string{mail, name, "5550123"} {
		if strings.Contains(seen, secret) {
			t.Errorf("preview shows %s:\n%s", secret, seen)
		}
	}
	w.must(0, []string{"preview", "shop-db.public.customers", "--reveal", "--rules"}, mail, name, "drop(phone)")
	w.must(2, []string{"preview", "shop-db.public.customer"}, "no stream", "shop-db.public.customers")
	w.must(0, []string{"explain", "shop-db.public.customers"}, "6 columns, columns from the source", "phone is gone", "email: its values",
		"topic      shop.shop-db.public.customers", "country is gone; + land text", "→ shop.customers")
	w.must(3, []string{"explain", "shop-db.public.customers", "--offline"}, "no run has written down")
	w.must(0, []string{"plan"}, "has not run here yet")

	stop := w.start()
	s := w.until("the first load", func(s state) bool { return s.find("sink", "shop-db.public.customers").Delivered == 1 })
	first := w.topic(s.Processes[0].Endpoints.Kafka, "shop.shop-db.public.customers", 1)[0]
	seen = w.must(0, []string{"preview", "shop-db.public.customers", "--from", "topic"}, "topic", "lake", "rename(country)", "sl1.xgcm.")
	if strings.Contains(seen, mail) {
		t.Errorf("the topic has the mail:\n%s", seen)
	}
	var e struct {
		Protect struct{ Version string }
		Sinks   []struct{ Version string }
	}
	w.result(&e, "explain", "shop-db.public.customers")
	if e.Protect.Version == "" || !strings.Contains(first, `"mapping":"`+e.Protect.Version+`"`) {
		t.Errorf("record %s has not version %s", first, e.Protect.Version)
	}
	if strings.Contains(first, mail) || strings.Contains(first, name) || strings.Contains(first, "5550123") {
		t.Errorf("the topic has %s", first)
	}

	w.must(0, []string{"keys", "rotate", "keys/r"}, "rotated")
	var reports struct {
		Versions []struct {
			ID              string
			Primary, Stable bool
		}
	}
	w.result(&reports, "keys", "rotate", "keys/r")
	newest := reports.Versions[len(reports.Versions)-1].ID
	var rotated string
	for id := 2; !strings.Contains(rotated, newest); id++ {
		if id > 200 {
			t.Fatal("the new primary is not used")
		}
		w.sql("INSERT INTO customers SELECT coalesce(max(id), 0) + 1, '" + mail + "', '" + name + "', 'x', 'FR' FROM customers")
		values := w.topic(s.Processes[0].Endpoints.Kafka, "shop.shop-db.public.customers", id)
		rotated = values[id-1]
	}
	if hashed := field(t, rotated, "email"); hashed != field(t, first, "email") {
		t.Error("a rotation changed a hash")
	}
	if log := stop(); strings.Contains(log, mail) || !strings.Contains(log, "a key was replaced") {
		t.Errorf("log:\n%s", log)
	}

	// Whoever holds the ring opens what every version has made.
	lines := after(t, first) + "\n" + after(t, rotated) + "\n"
	code, out, errs := w.sluice(lines, "decrypt", "--stream", "shop-db.public.customers", "--field", "name")
	if code != 0 || strings.Count(out, `"name":"`+name+`"`) != 2 {
		t.Errorf("decrypt: %d\n%s%s", code, out, errs)
	}
	code, out, errs = w.sluice(field(t, first, "name")+"\nnonsense\n", "decrypt", "--key", "${ring:keys/r}", "--domain", "shop-db.public.customers.name")
	if code != 1 || !strings.Contains(out, name) || !strings.Contains(errs, "line 2: no ciphertext") {
		t.Errorf("decrypt: %d\n%s%s", code, out, errs)
	}
	if code, out, _ = w.sluice(field(t, first, "name"), "decrypt", "--key", "${ring:keys/r}", "--domain", "shop-db.public.customers.phone"); code != 1 || strings.Contains(out, name) {
		t.Errorf("another place opens: %d\n%s", code, out)
	}
	w.forget(t, first, rotated)
	w.change(t)
}

// forget erases one of two persons.
func (w *world) forget(t *testing.T, first, other string) {
	open := func(value string) (int, string) {
		code, out, errs := w.sluice(after(t, value)+"\n", "decrypt", "--stream", "shop-db.public.customers", "--field", "note")
		return code, out + errs
	}
	for _, v := range []string{first, other} {
		if code, out := open(v); code != 0 || !strings.Contains(out, `"note":"Canary note"`) {
			t.Errorf("decrypt: %d\n%s", code, out)
		}
	}
	w.must(1, []string{"erase", "1000000"}, "nobody of this name has a key")
	w.must(0, []string{"erase", "1"}, "erased the key that ${ring:keys/r} wraps")
	w.must(1, []string{"erase", "1"}, "nobody of this name")
	if code, out := open(first); code != 1 || strings.Contains(out, "Canary") || !strings.Contains(out, "has no key any more") {
		t.Errorf("an erased person's value: %d\n%s", code, out)
	}
	if code, out := open(other); code != 0 || !strings.Contains(out, "Canary note") {
		t.Errorf("another person's value: %d\n%s", code, out)
	}
	// The person comes back at the source: refused, and never in clear.
	w.sql("UPDATE customers SET note = 'Canary again' WHERE id = 1")
	w.must(0, []string{"run", "--until-caught-up"}, "caught up")
	_, out, errs := w.sluice("", "dlq", "ls")
	if !strings.Contains(out, "subject_without_key") || strings.Contains(out+errs, "Canary") {
		t.Errorf("dead letters:\n%s%s", out, errs)
	}
}

// change plans changes of the file.
func (w *world) change(t *testing.T) {
	w.must(0, []string{"plan"}, "nothing changes for shop", "nothing blocked")
	w.must(0, []string{"explain", "shop-db.public.customers", "--offline"}, "columns from the last run")
	w.write(strings.Replace(file, "drop: { fields: [phone] }", "mask: { field: phone, kind: phone }", 1))
	var p struct {
		ID      string
		Changes []struct{ What, Effect, Fix string }
	}
	w.result(&p, "plan")
	if len(p.Changes) != 1 || p.Changes[0].What != "shop-db.public.customers" || p.Changes[0].Effect != "in place" || p.Changes[0].Fix != "sluice backfill shop-db.public.customers" {
		t.Errorf("plan: %+v", p)
	}
	w.must(0, []string{"plan", "--expect", p.ID}, "protect - drop(phone), protect + mask(phone)", "rows already written keep the old value")
	w.must(2, []string{"plan", "--expect", "00"}, "have changed since")
	w.write(strings.Replace(file, "- drop: { fields: [phone] }", "- drop: { fields: [phone] }\n        - hash: { field: id, key: \"${ring:keys/r}\" }", 1))
	w.must(0, []string{"plan"}, "re-read", "the key field id")
	w.write(strings.Replace(file, "partitions: 1", "partitions: 2", 1))
	w.must(2, []string{"plan"}, "topics.partitions", "1 blocked")
	w.write(strings.Replace(file, "country: land", "country: nation", 1))
	w.must(0, []string{"plan"}, "lake/shop-db.public.customers", "replay")
	w.write(file)
	w.must(0, []string{"keys", "rotate", "--stable", "keys/r"}, "hash and aes-siv rules give changes")
	w.must(0, []string{"plan"}, "protect ~ hash(email)")
}

// TestFailClosed: without its key a stream is parked and nothing of it reaches
// Kafka; the other stream goes on, and the exit code says so.
func TestFailClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.ReplaceAll(file, "${ring:keys/r}", "${vault:keys/v}"))
	w.sql(tables)
	service, addr := startVault(t)
	w.env = append(w.env, "VAULT_ADDR="+addr, "VAULT_TOKEN=token")
	w.must(0, []string{"keys", "new", "keys/v", "--wrap", "vault:transit/k"}, `"${vault:keys/v}"`, "wrapped by vault:transit/k")
	text, err := os.ReadFile(filepath.Join(w.dir, "keys", "v"))
	if err != nil || strings.Contains(string(text), "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY") {
		t.Errorf("the ring's file: %v\n%s", err, text)
	}
	service.away.Store(true)
	w.must(3, []string{"keys", "verify"}, "is away", "sealed")
	w.must(1, []string{"run", "--until-caught-up"}, "shop-db.public.customers is parked", "vault:transit/k", "sealed")

	stop := w.start()
	s := w.until("a parked stream beside one that goes on", func(s state) bool {
		return s.find("source", "shop-db.public.customers").State == "parked" && s.find("sink", "shop-db.public.orders").Delivered == 2
	})
	if note := s.find("source", "shop-db.public.customers").Note; !strings.Contains(note, "sealed") {
		t.Errorf("note %q", note)
	}
	if values := w.topic(s.Processes[0].Endpoints.Kafka, "shop.shop-db.public.customers", 0); len(values) > 0 {
		t.Errorf("the topic of the parked stream has %q", values)
	}
	resp, err := http.Get("http://" + s.Processes[0].Endpoints.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(metrics), `state="parked"`) {
		t.Errorf("metrics: %v\n%s", err, metrics)
	}
	if log := stop(); !strings.Contains(log, "stream parked") || !strings.Contains(log, "the streams that need it are parked") || strings.Contains(log, mail) {
		t.Errorf("log:\n%s", log)
	}

	service.away.Store(false)
	w.must(0, []string{"keys", "verify"})
	w.must(0, []string{"run", "--until-caught-up"}, "caught up")
	var in struct {
		Rows int64 `json:"rows"`
	}
	w.result(&in, "inspect", "shop.customers")
	if in.Rows != 1 {
		t.Errorf("after the repair the table has %d rows", in.Rows)
	}
}

func after(t *testing.T, value string) string {
	t.Helper()
	var e struct{ After json.RawMessage }
	if err := json.Unmarshal([]byte(value), &e); err != nil {
		t.Fatal(err)
	}
	return string(e.After)
}

func field(t *testing.T, value, name string) string {
	t.Helper()
	var row map[string]any
	if err := json.Unmarshal([]byte(after(t, value)), &row); err != nil {
		t.Fatal(err)
	}
	text, _ := row[name].(string)
	return text
}
