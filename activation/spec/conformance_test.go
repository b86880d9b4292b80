package spec_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-data/sluice/activation/conformance"
	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/destinationtest"
	"github.com/sluice-data/sluice/activation/spec"
)

var update = flag.Bool("update", false, "write the generated pages of docs/destinations")

// ownAPI is what a user writes for an API of their own.
const ownAPI = `
url: https://api.example.com/
driver: json_batch
batch: {items: 100, bytes: 1048576}
idempotency_header: Idempotency-Key
response:
  ok: [200, 207]
  applied: {path: results, by: index, at: [index], id: id}
  rejected: {path: errors, by: index, at: [index], code: code, message: message}
classify:
  - {when: "status == 429", do: throttle, wait: 3s}
rows:
  - {when: "code == 'unknown'", do: config}
limit_headers:
  - {quota: account, remaining: X-RateLimit-Remaining, limit: X-RateLimit-Limit, per: 1s}
lookup: {match: [key], path: "/find?key={value}", id: id, at: key, missing: [404]}
objects:
  contacts: [{name: key}, {name: seq, type: number}, {name: note}, {name: email}]
`

func specOf(t testing.TB, name string) *spec.Spec {
	t.Helper()
	if name != "http" {
		s, err := spec.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	var own spec.HTTP
	if err := yaml.Unmarshal([]byte(ownAPI), &own); err != nil {
		t.Fatal(err)
	}
	s, err := own.Spec()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// opener opens the destination called name against a simulator.
func opener(name, object string) func(testing.TB, conformance.Setup) conformance.Destination {
	return func(t testing.TB, u conformance.Setup) conformance.Destination {
		token := u.Token
		if token == "" {
			token = destinationtest.Token
		}
		o := spec.Options{Account: "test", BaseURL: u.URL, AllowPrivate: true, Credentials: spec.Credentials{Token: token}, Budget: u.Budget,
			Objects: []string{object}, Timeout: u.Timeout}
		if u.OAuth {
			o.Credentials = spec.Credentials{ClientID: "client", ClientSecret: "secret", RefreshToken: destinationtest.RefreshToken}
			o.Tokens = u.Tokens
			if name == "http" {
				o.Credentials.TokenURL = "/oauth/token"
			}
		}
		d, err := spec.Open(specOf(t, name), o)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
}

func cases() []conformance.Case {
	mail := func(i int) string { return fmt.Sprintf("user%d@example.com", i) }
	key := func(i int) string { return fmt.Sprintf("key-%d", i) }
	text := func(name, v string) delivery.Field { return delivery.Field{Name: name, Value: []byte(`"` + v + `"`)} }
	all := []conformance.Case{
		{Simulator: "hubspot", Object: "contacts", Match: "email", Key: mail, Seq: "seq", Note: "note", Bad: text("birthday", "the day before"), Batch: 100,
			OAuth: true, Rows: true, Shuffles: true, Quota: "account"},
		{Simulator: "salesforce", Object: "Contact", Match: "Ext__c", Key: key, Seq: "Seq__c", Note: "Note__c", Always: []delivery.Field{text("LastName", "Example")},
			Bad: text("Email", "no-address-at-all"), Batch: 200, OAuth: true, Rows: true, Quota: "daily"},
		{Simulator: "klaviyo", Object: "profiles", Match: "email", Key: mail, Seq: "properties.seq", Note: "title", Bad: text("phone_number", "call-me-maybe"), Batch: 1, Quota: "minute"},
		{Simulator: "intercom", Object: "contacts", Match: "external_id", Key: key, Seq: "custom_attributes.seq", Note: "custom_attributes.note",
			Bad: text("email", "no-address-at-all"), Batch: 1, OAuth: true, Quota: "account"},
		{Simulator: "stripe", Object: "customers", Match: "email", Key: mail, Seq: "metadata.seq", Note: "description", Bad: text("phone", strings.Repeat("123456789 ", 3)), Batch: 1},
		{Simulator: "http", Object: "contacts", Match: "key", Key: key, Seq: "seq", Note: "note", Bad: text("email", "no-address-at-all"), Batch: 100,
			OAuth: true, Rows: true, Shuffles: true, Quota: "account"},
	}
	for i := range all {
		all[i].Open = opener(all[i].Simulator, all[i].Object)
	}
	return all
}

// Every destination passes every scenario against its simulator, and the page
// says so.
func TestConformance(t *testing.T) {
	outcomes, names := map[string][]string{}, []string{}
	for _, c := range cases() {
		names = append(names, c.Simulator)
		t.Run(c.Simulator, func(t *testing.T) { outcomes[c.Simulator] = conformance.Run(t, c) })
	}
	if t.Failed() {
		return
	}
	for _, n := range names {
		if len(outcomes[n]) == 0 || slices.Contains(outcomes[n], "") {
			return // -run picked a part: there is no page of that
		}
	}
	page := "# What every destination was tried with\n\nWritten by `go test ./activation/spec -run Conformance -update`; each destination ran against its simulator.\n\n" +
		conformance.Table(names, outcomes)
	golden(t, "conformance.md", page)
}

// golden compares a generated page with the one in the tree.
func golden(t *testing.T, name, page string) {
	t.Helper()
	path := filepath.Join("..", "..", "docs", "destinations", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != page {
		t.Errorf("%s is out of date: go test ./activation/spec -update", path)
	}
}
