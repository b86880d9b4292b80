package spec

import (
	"testing"
	"time"
)

// Every destination that comes with the program must load: templates,
// expressions and patterns are compiled then.
func TestEveryDestinationLoads(t *testing.T) {
	if len(Names()) == 0 {
		t.Fatal("no destinations are embedded")
	}
	for _, name := range Names() {
		s, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		if s.Name != name {
			t.Errorf("%s.yaml is called %q", name, s.Name)
		}
		if w := s.Warnings(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)); len(w) > 0 {
			t.Errorf("%s: %s", name, w)
		}
	}
}
