package record

import (
	"strings"
	"testing"
)

// TestMapping: the source block names the rules, and no reader minds.
func TestMapping(t *testing.T) {
	s := (&Schema{Stream: StreamName{Source: "a", Namespace: "b", Name: "c"}, Fields: []Field{{Name: "id", Kind: Int64, Key: 1}}}).Seal()
	plain := s.ID
	s.Mapping = "p0123456789ab"
	if s.Seal().ID != plain {
		t.Error("the rules are part of the ID")
	}
	b := NewBatch(s, nil)
	b.Ops, b.Pos, b.Time = []Op{OpInsert, OpInsert}, []Position{{1, 2, 3}, {1, 2, 4}}, []int64{5, 5}
	b.After[0].AppendInt64(7)
	b.After[0].AppendInt64(8)
	e := NewEncoder(s, Origin{Connector: "postgresql", Name: "x.a", Database: "d"})
	var heads HeadReader
	for row := range 2 {
		v := e.AppendValue(nil, b, row)
		if !strings.Contains(string(v), `"mapping":"p0123456789ab","schema_id":"`+s.ID+`"`) {
			t.Fatalf("%s", v)
		}
		h, err := heads.Read(v)
		if err != nil || h.SchemaID != s.ID || h.Pos != b.Pos[row] {
			t.Errorf("row %d: %+v, %v", row, h, err)
		}
		if _, _, ok := heads.fast(v); !ok {
			t.Error("it is read slowly")
		}
	}
}
