package e2e

import (
	"strings"
	"testing"

	"github.com/sluice-data/sluice/activation/destinationtest"
)

const outcomesLake = `
  lake:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/shop
      s3: { embedded: true }
      commit: { every: 1s }
    streams:
      - { from: crm.outcomes, table: crm.outcomes, mode: append }
`

// The outcomes of the records of a sink are a stream, which the lake lands in
// the same run.
func TestOutcomesLand(t *testing.T) {
	_, configuration := crm(t)
	t.Setenv("SHOP_CRM", destinationtest.Token)
	w := newWorld(t, configuration+outcomesLake, crmTables)
	w.run(0, "validate")
	w.run(0, "run", "--until-caught-up")
	if out := w.run(0, "inspect", "crm.outcomes"); !strings.HasPrefix(out, "crm.outcomes   21 rows") {
		t.Errorf("want an outcome of each of 20 contacts and 1 company:\n%s", out)
	}
	for from, want := range map[string]string{
		"crm.outcome":   `no stream "crm.outcome"; sink crm publishes crm.outcomes`,
		"lake.outcomes": "sink lake publishes no stream",
	} {
		w.write("sluice.yaml", configuration+strings.Replace(outcomesLake, "from: crm.outcomes", "from: "+from, 1))
		if out := w.run(2, "validate"); !strings.Contains(out, want) {
			t.Errorf("from: %s: no %q in\n%s", from, want, out)
		}
	}
	w.write("sluice.yaml", strings.Replace(configuration, "from: shop-db.public.companies", "from: crm.outcomes", 1))
	if out := w.run(2, "validate"); !strings.Contains(out, "publishes outcomes itself") {
		t.Errorf("a sink that reads itself:\n%s", out)
	}
}
