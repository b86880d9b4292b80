package e2e

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/activation/destinationtest"
)

const crmConfig = `
name: shop
dir: data
kafka: { embedded: true }
sources:
  shop-db:
    postgres: { url: "${env:SHOP_DB_URL}", tables: [public.customers, public.companies] }
sinks:
  crm:
    hubspot:
      url: ${env:CRM_URL}
      allow_private: true
      auth: { token: "${env:CRM_TOKEN}" }
      commit: { every: 200ms }
    streams:
      - { from: shop-db.public.companies, object: companies, match: crm_id, fields: { crm_id: code, domain: domain, name: name } }
      - from: shop-db.public.customers
        object: contacts
        operation: mirror
        match: email
        fields: { email: email, firstname: name }
        consent: marketing
        references: [ { type: "HUBSPOT_DEFINED:279", object: companies, from: company_id, to: shop-db.public.companies } ]
`

// Rows of two tables become contacts and companies; rows without consent do
// not; a second run sends nothing that it has sent.
func TestCustomersBecomeContacts(t *testing.T) {
	sim, err := destinationtest.New("hubspot", destinationtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	vendor := httptest.NewServer(sim)
	defer vendor.Close()
	configuration := strings.Replace(crmConfig, "${env:CRM_URL}", vendor.URL, 1)
	w := newWorld(t, configuration, `
		create table companies (id bigint primary key, code text, domain text, name text);
		create table customers (id bigint primary key, email text, name text, marketing boolean not null default true, company_id bigint default 7);
		insert into companies values (7, 'C7', 'acme.example', 'Acme');
		insert into customers select i, 'c' || i || '@acme.example', 'Name ' || i, i <> 5 from generate_series(1, 250) i`)
	w.env = append(w.env, "CRM_TOKEN="+destinationtest.Token)
	w.run(0, "validate")
	w.run(0, "run", "--until-caught-up")
	sim.Settle()
	if n := len(sim.Records("contacts")); n != 249 {
		t.Errorf("%d contacts, want 249: one has no consent", n)
	}
	if n := len(sim.Records("companies")); n != 1 {
		t.Errorf("%d companies, want 1", n)
	}
	company := sim.Records("companies")[0].ID
	for _, r := range sim.Records("contacts") {
		if !sim.Tied("contacts", r.ID, "companies", company) {
			t.Fatalf("contact %s is not tied to its company", r.ID)
		}
	}
	before, _ := sim.Requests()

	w.exec(`update customers set name = 'New', email = 'moved@acme.example' where id = 1;
		update customers set email = 'not an address' where id = 2;
		delete from customers where id = 3`)
	w.run(0, "run", "--until-caught-up")
	sim.Settle()
	seen := map[string]bool{}
	for _, r := range sim.Records("contacts") {
		seen[fmt.Sprint(r)] = true
	}
	all := fmt.Sprint(sim.Records("contacts"))
	if len(seen) != 248 || !strings.Contains(all, "moved@acme.example") || strings.Contains(all, "c1@acme.example") || strings.Contains(all, "c3@acme.example") {
		t.Errorf("%d contacts, want 248, the first one moved and the third one gone", len(seen))
	}
	if after, _ := sim.Requests(); after-before > 8 {
		t.Errorf("%d requests for three changed rows", after-before)
	}
	if out := w.run(0, "dlq", "ls"); !strings.Contains(out, "A20") || strings.Contains(out, "not an address") {
		t.Errorf("dead letters:\n%s", out)
	}
	w.exec(`update customers set email = 'two@acme.example' where id = 2`)
	w.run(0, "run", "--until-caught-up")
	sim.Settle()
	if all := fmt.Sprint(sim.Records("contacts")); !strings.Contains(all, "two@acme.example") {
		t.Error("the refused row has not healed")
	}
	if out := w.run(0, "dlq", "ls"); !strings.HasPrefix(out, "no dead letters\n1 record healed") {
		t.Errorf("a healed row is still on the list:\n%s", out)
	}
	if out := w.run(0, "dlq", "ls", "--healed"); !strings.Contains(out, "(healed)") {
		t.Errorf("--healed does not show it:\n%s", out)
	}
}
