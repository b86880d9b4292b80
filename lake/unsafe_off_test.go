//go:build !sluicetest

package lake

import (
	"strings"
	"testing"

	"github.com/sluice-data/sluice/objects"
)

func TestSafetyCannotBeSwitchedOff(t *testing.T) {
	c := Config{Pipeline: "p", Warehouse: "s3://b/w", Dir: t.TempDir(), Catalog: CatalogConfig{SQL: "sqlite:x.db"},
		S3: objects.Config{Endpoint: endpoint}, Unsafe: Unsafe{NoPin: true}}
	if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "sluicetest") {
		t.Errorf("got %v", err)
	}
}
