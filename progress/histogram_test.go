package progress

import (
	"fmt"
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	var h Histogram
	for _, s := range []float64{-1, 0.05, 0.06, 2, 5000} {
		h.Observe(s)
	}
	d := h.distribution()
	if d.Count != 5 || d.Sum < 5002 || d.Buckets[0] != 2 || d.Buckets[1] != 3 || d.Buckets[len(Bounds)-1] != 4 {
		t.Errorf("%+v", d)
	}
}

func TestReasonsAreBounded(t *testing.T) {
	var b Board
	s := b.Stream(Sink, "lake", "x")
	for i := range 100 {
		s.Refused(fmt.Sprint("code", i), 2)
	}
	r := b.Rows(time.Now())[0]
	if len(r.Reasons) != maxReasons+1 || r.Reasons["code0"] != 2 || r.Reasons["other"] != 2*(100-maxReasons) {
		t.Errorf("%v", r.Reasons)
	}
}
