package topic

import (
	"slices"
	"testing"

	"github.com/sluice-data/sluice/record"
)

func TestLettersAreListedOnceAndDropped(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		s := testSchema("orders")
		p := newPublisher(t, k)
		rows := inserts(1, 1, 4)
		for i := range rows { // of a backfill: they share their position
			rows[i].op, rows[i].pos = record.OpRead, record.Position{Epoch: 1, LSN: 7}
		}
		b := batch(s, rows...)
		rejects := []record.Reject{{Row: 0, Code: "bad", Reason: "note: too long"}, {Row: 2, Code: "worse", Reason: "note: not UTF-8"}}
		for range 2 { // a source that was killed says it again
			if err := p.Reject(t.Context(), b, rejects); err != nil {
				t.Fatal(err)
			}
		}
		list := func() (letters []Letter) {
			if err := k.Letters(t.Context(), func(l Letter) error {
				l.Key = slices.Clone(l.Key)
				letters = append(letters, l)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			return letters
		}
		got := list()
		if len(got) != 2 || got[0].Code != "bad" || got[1].Reason != "note: not UTF-8" || got[0].Stream != s.Stream ||
			got[0].Source != "db" || got[0].Offset != -1 || string(got[1].Key) != `{"id":3}` || got[0].At.IsZero() {
			t.Fatalf("letters %+v", got)
		}
		if err := k.DropLetters(t.Context(), []int64{got[0].ID}); err != nil {
			t.Fatal(err)
		}
		if left := list(); len(left) != 1 || left[0].ID != got[1].ID {
			t.Fatalf("after the drop: %+v", left)
		}
	})
}
