package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/activation/destinationtest"
)

// Records that a destination has already are not sent again; what somebody
// changes there by hand is found and mended.
func TestAdoptDriftReconcile(t *testing.T) {
	sim, configuration := crm(t, `
        references: [ { type: "HUBSPOT_DEFINED:279", object: companies, from: company_id, to: shop-db.public.companies } ]`, "")
	t.Setenv("SHOP_CRM", destinationtest.Token)
	for i := 1; i <= 13; i++ {
		name := fmt.Sprintf("Name %d", i)
		if i > 10 {
			name = "Other"
		}
		sim.Create("contacts", map[string]string{"email": fmt.Sprintf("c%d@acme.example", i), "firstname": name})
	}
	w := newWorld(t, configuration, crmTables)
	w.run(0, "run", "--only", "shop-db", "--until-caught-up")
	says := func(out string, want ...string) {
		t.Helper()
		for _, s := range want {
			if !strings.Contains(out, s) {
				t.Errorf("no %q in\n%s", s, out)
			}
		}
		if strings.Contains(out, "acme.example") || strings.Contains(out, "Name 1") {
			t.Errorf("a value is in clear:\n%s", out)
		}
	}
	says(w.run(0, "plan", "--dry-run"), "crm.contacts   next run: 20 creates, 0 updates", "% of a day's quota")
	if n := len(sim.Journal()); n != 13 {
		t.Fatalf("%d writes, want the 13 of before", n)
	}
	says(w.run(0, "adopt", "crm"), "crm.contacts   20 records asked for: 10 equal, 3 different, 7 not there", "crm.companies   1 record asked for: 0 equal")
	says(w.run(0, "plan", "--dry-run", "-n", "9"), "crm.contacts   next run: 7 creates, 3 updates, 0 deletes, 10 unchanged", "firstname: ")
	w.run(0, "run", "--until-caught-up")
	sim.Settle()
	if n := len(sim.Journal()); n != 13+7+3+1 {
		t.Errorf("%d writes, want 24: 13 of before, 7 new contacts, 3 that differed, 1 company", n)
	}
	if out := w.run(0, "drift", "crm"); !strings.Contains(out, "crm.contacts   20 records checked: 0 drifted, 0 missing") {
		t.Errorf("drift says\n%s", out)
	}

	vendor := configuration[strings.Index(configuration, "http://"):]
	vendor = vendor[:strings.IndexByte(vendor, '\n')]
	byHand := func(method, id, body string) {
		t.Helper()
		r, err := http.NewRequestWithContext(w.ctx, method, vendor+"/crm/v3/objects/contacts/"+id, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+destinationtest.Token)
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if answer.StatusCode >= 300 {
			t.Fatalf("%s by hand: %s", method, answer.Status)
		}
	}
	records := sim.Records("contacts")
	byHand(http.MethodPatch, records[3].ID, `{"properties":{"firstname":"by hand"}}`)
	byHand(http.MethodDelete, records[5].ID, "")
	out := w.run(1, "drift", "crm")
	says(out, "crm.contacts   20 records checked: 1 drifted, 1 missing", "field firstname differs in 1 record", "missing\n", "sluice reconcile crm --apply")
	if strings.Contains(out, records[3].ID) {
		t.Errorf("an id is in clear:\n%s", out)
	}
	if out := w.run(1, "drift", "crm", "--reveal"); !strings.Contains(out, records[3].ID) {
		t.Errorf("--reveal hides an id:\n%s", out)
	}
	says(w.run(0, "reconcile", "crm", "--apply"), "is loaded anew by the next run")
	before := len(sim.Journal())
	w.run(0, "run", "--until-caught-up")
	sim.Settle()
	if n := len(sim.Journal()) - before; n != 2 {
		t.Errorf("%d writes, want the 2 that differed", n)
	}
	if all := fmt.Sprint(sim.Records("contacts")); strings.Contains(all, "by hand") || !strings.Contains(all, records[5].Fields["email"]) {
		t.Error("what was changed by hand is not mended")
	}
	w.run(0, "drift", "crm")
	w.run(2, "drift", "lake")
}
