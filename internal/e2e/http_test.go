package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
)

const ownAPI = `
name: shop
dir: data
kafka: { embedded: true }
sources:
  shop-db:
    postgres: { url: "${env:SHOP_DB_URL}", tables: [public.customers] }
sinks:
  own:
    http:
      allow_private: true
      commit: { every: 200ms }
SETTINGS
    streams:
      - { from: shop-db.public.customers, object: people, match: email, fields: { email: email, name: name } }
`

// receiver takes batches of records and refuses those whose name is bad.
type receiver struct {
	mu     sync.Mutex
	calls  int
	people map[string]string
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	var items []struct {
		Email  string
		Fields struct{ Name string }
	}
	if q.URL.Path != "/v1/people" || q.Header.Get("Webhook-Signature") == "" || json.NewDecoder(q.Body).Decode(&items) != nil {
		http.Error(w, "wrong request", http.StatusBadRequest)
		return
	}
	type row struct {
		Index int    `json:"index"`
		ID    string `json:"id,omitempty"`
		Code  string `json:"code,omitempty"`
	}
	var answer struct {
		Results []row `json:"results"`
		Errors  []row `json:"errors"`
	}
	for i, it := range items {
		if it.Fields.Name == "bad" {
			answer.Errors = append(answer.Errors, row{Index: i, Code: "BAD_NAME"})
			continue
		}
		r.people[it.Email] = it.Fields.Name
		answer.Results = append(answer.Results, row{Index: i, ID: "p" + it.Email})
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusMultiStatus)
	_ = json.NewEncoder(w).Encode(answer)
}

// An API of one's own takes batches that fail in part, all by its settings.
func TestOwnAPI(t *testing.T) {
	r := &receiver{people: map[string]string{}}
	server := httptest.NewServer(r)
	defer server.Close()
	indent := func(settings string) string {
		return strings.Replace(ownAPI, "SETTINGS", regexp.MustCompile(`(?m)^`).ReplaceAllString(strings.TrimSpace(settings), "      "), 1)
	}
	settings := `
url: "${env:OWN_URL}/v1/{object}"
driver: json_batch
item: {email: $match.value, fields: $fields}
batch: {items: 50, bytes: 1048576}
idempotency_header: Idempotency-Key
sign: ["${env:OWN_SECRET}"]
response:
  ok: [207]
  applied: {path: results, by: index, at: [index], id: id}
  rejected: {path: errors, by: index, at: [index], code: code}
classify:
  - {when: "status == 503", do: throttle, wait: 1m}
limits: [{name: account, requests: 50, per: 1s}]
`
	w := newWorld(t, indent(settings), `
		create table customers (id bigint primary key, email text, name text);
		insert into customers select i, 'c' || i || '@acme.example', case when i = 7 then 'bad' else 'Name ' || i end from generate_series(1, 120) i`)
	w.env = append(w.env, "OWN_URL="+server.URL, "OWN_SECRET=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	page, err := os.ReadFile("../../docs/destinations/http.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d examples in the page of the sink, want 2", len(blocks))
	}
	own := indent(settings)
	for _, b := range blocks {
		w.write("sluice.yaml", indent(b[1]))
		w.run(0, "validate")
	}
	for wrong, want := range map[string]string{
		strings.Replace(settings, "status == 503", "status = 503", 1): "sluice.yaml:11:7: sinks.own.http: ",
		strings.Replace(settings, "by: index", "bye: index", 1):       `unknown key; did you mean "by"?`,
		strings.Replace(settings, "$fields", "$field", 1):             "unknown variable $field",
	} {
		w.write("sluice.yaml", indent(wrong))
		if out := w.run(2, "validate"); !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	w.write("sluice.yaml", own)
	w.run(0, "run", "--until-caught-up")
	r.mu.Lock()
	people, calls := len(r.people), r.calls
	r.mu.Unlock()
	if people != 119 || calls > 10 {
		t.Errorf("%d records in %d requests, want 119 of 120 in batches of 50", people, calls)
	}
	if out := w.run(0, "dlq", "ls"); !strings.HasPrefix(out, "1 dead letter: 1 A20") || !strings.Contains(out, "BAD_NAME") {
		t.Errorf("dead letters:\n%s", out)
	}
}
