package spec_test

import (
	"net/http/httptest"
	"testing"

	"github.com/sluice-data/sluice/activation/conformance"
	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/destinationtest"
)

// References are tied after their record; one that cannot be tied fails its
// own record, with the others tied.
func TestReferences(t *testing.T) {
	for _, vendor := range []string{"hubspot", "intercom"} {
		t.Run(vendor, func(t *testing.T) {
			s, err := destinationtest.New(vendor, destinationtest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(s)
			defer server.Close()
			d := opener(vendor, "contacts")(t, conformance.Setup{URL: server.URL})
			company := s.Create("companies", map[string]string{"name": "Example"})
			match := map[string]string{"hubspot": "email", "intercom": "external_id"}[vendor]
			change := func(key, to string, remove bool) delivery.Change {
				return delivery.Change{Key: key, Idempotency: key, Match: delivery.Field{Name: match, Value: []byte(`"` + key + `"`)},
					References: []delivery.Reference{{Type: "HUBSPOT_DEFINED:1", Object: "companies", ID: to, Remove: remove}}}
			}
			send := func(changes ...delivery.Change) []delivery.Result {
				var out []delivery.Result
				if vendor == "hubspot" {
					return d.Send(t.Context(), delivery.Request{Object: "contacts", Operation: delivery.Upsert, Changes: changes})
				}
				for i := range changes {
					out = append(out, d.Send(t.Context(), delivery.Request{Object: "contacts", Operation: delivery.Upsert, Changes: changes[i : i+1]})...)
				}
				return out
			}
			results := send(change("a@example.com", company, false), change("b@example.com", "404404", false), change("c@example.com", company, false))
			for i, want := range []bool{true, false, true} {
				r := results[i]
				if tied := s.Tied("contacts", r.ID, "companies", company); tied != want || (r.Outcome == delivery.Applied) != want || r.ID == "" {
					t.Errorf("record %d: tied %v, %+v", i, tied, r)
				}
			}
			gone := change("a@example.com", company, true)
			gone.ID, gone.Idempotency = results[0].ID, "gone"
			if r := send(gone)[0]; r.Outcome != delivery.Applied || s.Tied("contacts", r.ID, "companies", company) {
				t.Errorf("untied: %+v", r)
			}
		})
	}
}

// In Salesforce a reference is a field.
func TestReferenceField(t *testing.T) {
	s, err := destinationtest.New("salesforce", destinationtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	defer server.Close()
	d := opener("salesforce", "Contact")(t, conformance.Setup{URL: server.URL})
	account := s.Create("Account", map[string]string{"Name": "Example", "Ext__c": "A1"})
	r := d.Send(t.Context(), delivery.Request{Object: "Contact", Operation: delivery.Upsert, Changes: []delivery.Change{{Key: "1", Match: delivery.Field{Name: "Ext__c", Value: []byte(`"1"`)},
		Fields: []delivery.Field{{Name: "LastName", Value: []byte(`"X"`)}}, References: []delivery.Reference{{Type: "AccountId", Object: "Account", ID: account}}}}})[0]
	if rec := s.Records("Contact"); r.Outcome != delivery.Applied || len(rec) != 1 || rec[0].Fields["AccountId"] != account {
		t.Errorf("%+v, %v", r, rec)
	}
}

// What other packages can rely on: the vendor's insert and update say skip
// where they do not apply.
func TestInsertAndUpdate(t *testing.T) {
	for _, c := range cases() {
		if c.Simulator == "http" || c.Simulator == "stripe" { // a receiver decides; customers are never the same
			continue
		}
		t.Run(c.Simulator, func(t *testing.T) {
			s, err := destinationtest.New(c.Simulator, destinationtest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(s)
			defer server.Close()
			d := c.Open(t, conformance.Setup{URL: server.URL})
			change := delivery.Change{Key: "0", Idempotency: "0", Match: delivery.Field{Name: c.Match, Value: []byte(`"` + c.Key(0) + `"`)},
				Fields: append([]delivery.Field{{Name: c.Seq, Value: []byte("1")}}, c.Always...)}
			send := func(op delivery.Operation) delivery.Result {
				return d.Send(t.Context(), delivery.Request{Object: c.Object, Operation: op, Changes: []delivery.Change{change}})[0]
			}
			if r := send(delivery.Update); r.Outcome != delivery.Skipped {
				t.Errorf("update of none: %+v", r)
			}
			if r := send(delivery.Insert); r.Outcome != delivery.Applied || !r.Created || r.ID == "" {
				t.Errorf("insert: %+v", r)
			}
			if r := send(delivery.Insert); r.Outcome != delivery.Skipped {
				t.Errorf("second insert: %+v", r)
			}
			if r := send(delivery.Update); r.Outcome != delivery.Applied || r.ID == "" {
				t.Errorf("update: %+v", r)
			}
			if n := len(s.Records(c.Object)); n != 1 {
				t.Errorf("%d records", n)
			}
			o, err := d.Describe(t.Context(), c.Object)
			if err != nil || len(o.Properties) < 5 || len(o.Match) == 0 {
				t.Errorf("describe: %+v, %v", o, err)
			}
		})
	}
}
