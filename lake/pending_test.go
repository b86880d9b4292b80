package lake

import (
	"encoding/binary"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-data/sluice/lake/keyindex"
)

func TestPendingOpsAreAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := map[keyindex.Hash]place{}
		var ops pendingOps
		key := func() keyindex.Hash {
			var h keyindex.Hash
			// Few different starts, so that keys collide and probing wraps around.
			binary.LittleEndian.PutUint64(h[:8], rapid.SampledFrom([]uint64{0, 1, 1023, 1<<20 - 1}).Draw(t, "start"))
			binary.LittleEndian.PutUint32(h[8:], uint32(rapid.IntRange(1, 2000).Draw(t, "rest")))
			return h
		}
		for range rapid.IntRange(1, 50).Draw(t, "rounds") {
			for range rapid.IntRange(0, 100).Draw(t, "puts") {
				h, p := key(), place{held: int32(rapid.IntRange(-2, 5).Draw(t, "held"))}
				model[h] = p
				ops.put(h, p)
			}
			if rapid.IntRange(0, 9).Draw(t, "keep") == 0 {
				want := func(p place) bool { return p.held > 0 }
				ops.keep(want)
				maps.DeleteFunc(model, func(_ keyindex.Hash, p place) bool { return !want(p) })
			}
			h := key()
			got, ok := ops.get(h)
			if want, there := model[h]; ok != there || ok && got != want {
				t.Fatalf("get: %v %v, want %v %v", got, ok, want, there)
			}
		}
		if got := maps.Collect(ops.all()); !maps.Equal(got, model) || ops.len() != len(model) {
			t.Fatalf("%d keys, want %d", len(got), len(model))
		}
	})
}
