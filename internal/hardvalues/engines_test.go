//go:build engines

package hardvalues

import (
	"context"
	"testing"
	"time"

	"github.com/sluice-data/sluice/internal/judge"
)

// TestEnginesReadHardValuesWithSpark holds what Spark reads against Postgres.
func TestEnginesReadHardValuesWithSpark(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	fl := startFlow(ctx, t)
	want, got := fl.prints(ctx, t, "spark")
	for i := range families {
		f := &families[i]
		wholeRows(t, f, "spark", want[i], got["spark"][i])
		if err := judge.Equal(want[i], got["spark"][i]); err == nil {
			t.Logf("%s: %d rows are equal", f.name, want[i].Rows)
		}
	}
}
