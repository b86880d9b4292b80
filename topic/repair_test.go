package topic

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
)

// TestBackfillMakesGoodForLostRecords: a stream that is parked because the log
// has lost records goes on by itself once a backfill of a newer epoch is on the
// topic, from where that begins; an older one does not do.
func TestBackfillMakesGoodForLostRecords(t *testing.T) {
	onBrokers(t, func(t *testing.T, k *Kafka) {
		orders, st := testSchema("orders"), newStore()
		p := newPublisher(t, k)
		publish(t, p, orders, inserts(5, 0, 100)...)
		s := consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
		catchUp(t, s)
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		before, marks := st.snapshot()
		publish(t, p, orders, inserts(5, 100, 200)...)
		topic, _ := TopicName(k.cfg.Prefix, orders.Stream)
		cut := kadm.Offsets{}
		for n, m := range marks {
			cut.Add(kadm.Offset{Topic: topic, Partition: n, At: m.Next + 1, LeaderEpoch: -1})
		}
		if _, err := k.adm.DeleteRecords(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
		publish(t, p, orders, change{op: record.OpBackfillBegin, pos: record.Position{Epoch: 4, LSN: 1}})
		s = consume(t, k, ConsumerConfig{}, Stream{Name: orders.Stream, Open: st.open})
		isParked(t, s, "orders", "sluice backfill db.public.orders")
		until(t, "it has looked for a backfill in vain", func() bool {
			l := s.c.lanes[topic]
			seen := make(chan bool)
			l.post(func(ctx context.Context) {
				l.lost.next = l.lost.next.Add(-2 * repairEvery)
				l.tryRepair(ctx)
				seen <- l.halted && len(l.lost.scanned) > 0
			})
			return <-seen
		})

		loaded := []change{{op: record.OpBackfillBegin, pos: record.Position{Epoch: 6, LSN: 300}}}
		publish(t, p, orders, loaded...)
		for i := range int64(50) {
			loaded = append(loaded, change{record.OpRead, record.Position{Epoch: 6, LSN: 300}, i, "loaded"})
		}
		publish(t, p, orders, loaded[1:]...)
		publish(t, p, orders, change{op: record.OpBackfillEnd, pos: record.Position{Epoch: 6, LSN: 300}})
		until(t, "the stream goes on by itself", func() bool { state, _ := stateOf(s, "orders"); return state != progress.Parked })
		catchUp(t, s)
		rows, _ := st.snapshot()
		if st.broken != nil {
			t.Fatal(st.broken)
		}
		for _, r := range rows[len(before):] {
			if r.pos.Epoch != 6 {
				t.Errorf("a row of epoch %d was delivered after records had gone", r.pos.Epoch)
			}
		}
		if got := dataRows(rows) - dataRows(before); got != 50 {
			t.Errorf("%d rows of the backfill", got)
		}
	})
}
