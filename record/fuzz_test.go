package record

import (
	"testing"
)

// FuzzDecode feeds arbitrary records: the decoder never panics, leaves the
// batch whole, and what it accepted survives a round trip.
func FuzzDecode(f *testing.F) {
	hard := hardBatch()
	s := hard.Schema
	for _, m := range encodeAll(hard) {
		f.Add(m.key, m.value, []byte(nil))
	}
	for _, op := range []Op{OpTruncate, OpBackfillBegin, OpBackfillEnd} {
		m := encodeAll(NewControl(s, op, Position{3, 0xff, 1}, 1_700_000_000_000_000))[0]
		f.Add(m.key, m.value, []byte(nil))
	}
	f.Add([]byte(`{"id":1}`), []byte(`{"op":"d","before":{"id":1,"txt":"x"}}`), []byte(nil))
	f.Add([]byte(`{"id":1}`), []byte(` { "after" : {"i\u0064":1,"texts":[ "a" , null]} , "op":"u", "source":{"pos":"1/a/3","ts_ms":4}}`), []byte(`["txt"]`))
	good := encodeAll(hard)[0]
	f.Fuzz(func(t *testing.T, key, value, unsent []byte) {
		d, b := NewDecoder(s), NewBatch(s, nil)
		if err := d.Append(b, good.key, good.value, nil); err != nil {
			t.Fatal(err)
		}
		if err := d.Append(b, key, value, unsent); err != nil {
			if b.Len() != 1 || b.Before != nil {
				t.Fatalf("%d rows after an error", b.Len())
			}
			requireConsistent(t, b)
			b.Reset()
			if d.Append(b, key, value, unsent) != nil {
				return
			}
		} else {
			// As a first record the value is read the general way: both must agree.
			if _, err := ReadHead(value); err != nil {
				t.Fatalf("the head reader refuses what the decoder read: %v", err)
			}
			fresh := NewBatch(s, nil)
			if err := NewDecoder(s).Append(fresh, key, value, unsent); err != nil {
				t.Fatalf("refused as a first record: %v", err)
			}
			if diff := sameRow(fresh, 0, b, 1); diff != "" {
				t.Fatalf("read differently as a first record: %s", diff)
			}
			b = fresh
		}
		requireConsistent(t, b)
		again := NewBatch(s, nil)
		for _, m := range encodeAll(b) {
			if err := d.Append(again, m.key, m.value, m.unsent); err != nil {
				t.Fatalf("%v\n%s", err, m.value)
			}
		}
		requireSame(t, b, again)
	})
}
