package e2e

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/activation/destinationtest"
)

// crm is the configuration of customers in a HubSpot that is simulated here.
func crm(t *testing.T, edit ...string) (*destinationtest.Simulator, string) {
	t.Helper()
	sim, err := destinationtest.New("hubspot", destinationtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	vendor := httptest.NewServer(sim)
	t.Cleanup(vendor.Close)
	return sim, strings.NewReplacer(append(edit, "${env:CRM_URL}", vendor.URL, "${env:CRM_TOKEN}", "${env:SHOP_CRM}")...).Replace(crmConfig)
}

const crmTables = `
create table companies (id bigint primary key, code text, domain text, name text);
create table customers (id bigint primary key, email text, name text, vip boolean, marketing boolean not null default true, company_id bigint default 7);
insert into companies values (7, 'C7', 'acme.example', 'Acme');
insert into customers select i, 'c' || i || '@acme.example', 'Name ' || i, true from generate_series(1, 20) i;
`

// Mappings are compared with what the account has, before anything is sent.
func TestMappingsAreChecked(t *testing.T) {
	sim, configuration := crm(t, "fields: { email: email, firstname: name }",
		"fields: { email: email, fistname: name, hs_object_id: id, lastname: nobody }", "domain: domain, name: name", "domain: domain, name: name, seq: name")
	t.Setenv("SHOP_CRM", destinationtest.Token)
	w := newWorld(t, configuration, crmTables)
	w.run(0, "validate")
	for _, args := range [][]string{{"validate", "--online"}, {"run", "--until-caught-up"}} {
		out := w.run(2, args...)
		for _, want := range []string{`sluice.yaml:2`, `streams[1].fields.fistname: contacts has no field "fistname"; did you mean "firstname"?`, "hs_object_id is read-only"} {
			if !strings.Contains(out, want) {
				t.Errorf("sluice %v does not say %q\n%s", args, want, out)
			}
		}
		if args[0] == "validate" && (!strings.Contains(out, `has no field "nobody"`) || !strings.Contains(out, "seq is number, its values are text")) {
			t.Errorf("sluice %v says\n%s", args, out)
		}
	}
	sim.Settle()
	if n := len(sim.Records("contacts")) + len(sim.Records("companies")); n != 0 {
		t.Errorf("%d records were sent", n)
	}
	_, right := crm(t)
	w.write("sluice.yaml", right)
	if out := w.run(0, "validate", "--online"); !strings.Contains(out, "is valid") {
		t.Errorf("a right mapping: %s", out)
	}
}
