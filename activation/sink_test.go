package activation

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/record"
)

func TestOnlyChangedFieldsAreSent(t *testing.T) {
	w := newWorld(t, contacts(), newFake(t, 1))
	w.deliver(customer(1, 1), customer(2, 1))
	w.deliver(update(1, 2), update(2, 1))
	if w.fake.sent["v"] != 3 || w.fake.sent["note"] != 2 || w.fake.changes != 3 {
		t.Errorf("sent %v in %d changes; want v three times, note twice, 3 changes", w.fake.sent, w.fake.changes)
	}
	w.want(state.Outcomes{Applied: 3, Unchanged: 1})
	if r := w.fake.records["c1@x.io"]; r == nil || r.fields["v"] != "2" {
		t.Errorf("record is %+v", r)
	}
}

func TestWaitingRowsOfAKeyAreFolded(t *testing.T) {
	cfg := contacts()
	cfg.Linger = time.Hour // until the flush
	w := newWorld(t, cfg, newFake(t, 1))
	partial := update(1, 9)
	partial.note = "?" // what it leaves out comes from the row that it takes the place of
	first := customer(1, 1)
	first.note = "kept"
	w.deliver(first, update(2, 1), partial)
	w.want(state.Outcomes{Applied: 2, Superseded: 1})
	if r := w.fake.records["c1@x.io"]; r.fields["v"] != "9" || r.fields["note"] != `"kept"` {
		t.Errorf("record is %+v", r.fields)
	}
}

func TestPoisonRowsAreFoundByHalving(t *testing.T) {
	f := newFake(t, 1)
	f.faults.wholeBatch = true
	f.poison["333"] = true
	cfg := contacts()
	cfg.Linger = time.Hour
	w := newWorld(t, cfg, f)
	var rows []row
	for id := range int64(560) {
		rows = append(rows, customer(id, id))
	}
	w.deliver(rows...)
	w.want(state.Outcomes{Applied: 559, Rejected: 1})
	if limit := 6 + 2*7; f.requests > limit {
		t.Errorf("%d requests for one poison row in 560, want ≤ %d", f.requests, limit)
	}
	if c := w.letterCodes(); c["A20"] != 1 || len(c) != 1 {
		t.Errorf("letters %v", c)
	}
	// A newer value heals the key.
	w.deliver(update(333, 1000))
	if r := f.records["c333@x.io"]; r == nil || r.fields["v"] != "1000" {
		t.Errorf("the rejected key did not heal: %+v", r)
	}
	w.want(state.Outcomes{Applied: 560, Rejected: 1})
}

func TestARowThatLacksWhatWasRefusedIsRefused(t *testing.T) {
	f := newFake(t, 1)
	f.poison["5"] = true
	w := newWorld(t, contacts(), f)
	w.deliver(customer(1, 1))
	bad := update(1, 5)
	bad.note = "changed with it"
	w.deliver(bad)
	partial := update(1, 6)
	partial.note = "?" // the destination has "n": only a full row can tell
	w.deliver(partial)
	if c := w.letterCodes(); c["A20"] != 1 || c["A05"] != 1 {
		t.Errorf("letters %v, want one A20 and one A05", c)
	}
	full := update(1, 7)
	full.note = "changed with it"
	w.deliver(full)
	if r := f.records["c1@x.io"]; r.fields["v"] != "7" || r.fields["note"] != `"changed with it"` {
		t.Errorf("record is %v", r.fields)
	}
}

func TestAMatchValueThatChangesKeepsItsRecord(t *testing.T) {
	w := newWorld(t, contacts(), newFake(t, 1))
	w.deliver(customer(1, 1))
	moved := update(1, 2)
	moved.email = "new@x.io"
	w.deliver(moved)
	if len(w.fake.records) != 1 || w.fake.records["new@x.io"] == nil || w.fake.records["new@x.io"].id != "id1" {
		t.Errorf("records %+v, want the one record under its new match value", w.fake.records)
	}
	// Another row may take the old value now.
	other := customer(2, 1)
	other.email = "c1@x.io"
	w.deliver(other)
	w.want(state.Outcomes{Applied: 3})
}

func TestTwoRowsOnOneMatchValue(t *testing.T) {
	for _, policy := range []Conflict{RejectSecond, LatestWins} {
		for _, together := range []bool{false, true} {
			t.Run(fmt.Sprint(policy, together), func(t *testing.T) {
				cfg := contacts()
				cfg.Conflict = policy
				w := newWorld(t, cfg, newFake(t, 1))
				first, second := customer(1, 1), customer(2, 5)
				second.email = first.email
				if together {
					w.deliver(first, second)
				} else {
					w.deliver(first)
					w.deliver(second)
				}
				v := w.fake.records[first.email].fields["v"]
				if policy == RejectSecond {
					w.want(state.Outcomes{Applied: 1, Rejected: 1})
					if v != "1" || w.letterCodes()["A03"] != 1 {
						t.Errorf("the second row was written, or has no letter: %v", w.letterCodes())
					}
				} else {
					w.want(state.Outcomes{Applied: 2})
					if v != "5" {
						t.Errorf("v is %s, want the latest", v)
					}
				}
				if len(w.fake.records) != 1 || w.fake.created[first.email] != 1 {
					t.Errorf("created %v", w.fake.created)
				}
			})
		}
	}
}

func TestMirrorRemovesOnlyWhatWeCreated(t *testing.T) {
	cfg := contacts()
	cfg.OnDelete = DeleteRecord
	f := newFake(t, 1)
	f.apply(delivery.Upsert, &delivery.Change{Match: delivery.Field{Name: "email", Value: []byte(`"c1@x.io"`)}}) // somebody else's
	w := newWorld(t, cfg, f)
	w.deliver(customer(1, 1), customer(2, 1))
	w.deliver(row{op: record.OpDelete, id: 1}, row{op: record.OpDelete, id: 2}, row{op: record.OpDelete, id: 3})
	w.want(state.Outcomes{Applied: 3, Skipped: 2})
	if len(f.records) != 1 || f.records["c1@x.io"] == nil {
		t.Errorf("records %v, want only the foreign one", f.records)
	}
	w.deliver(customer(2, 4)) // it comes back
	w.want(state.Outcomes{Applied: 4, Skipped: 2})
	if f.records["c2@x.io"] == nil {
		t.Error("the row that came back has no record")
	}
}

func TestDeleteGuardLetsNothingPass(t *testing.T) {
	cfg := contacts()
	cfg.OnDelete = ArchiveRecord
	cfg.Guards.DeleteRows = 10
	w := newWorld(t, cfg, newFake(t, 1))
	var rows, deletes []row
	for id := range int64(100) {
		rows = append(rows, customer(id, 1))
		if id < 60 {
			deletes = append(deletes, row{op: record.OpDelete, id: id})
		}
	}
	w.deliver(rows...)
	w.write(deletes...)
	var stop *StopError
	if err := w.tryFlush(); !errors.As(err, &stop) || stop.Code != CodeDeleteGuard || stop.Park() == "" {
		t.Fatalf("flush: %v, want the delete guard", err)
	}
	if len(w.fake.records) != 100 {
		t.Errorf("%d records are left of 100", len(w.fake.records))
	}
	_ = w.s.Close()
	w.sink() // somebody has looked and resumed the stream
	if w.marks[0].Next != 100 {
		t.Fatalf("mark %+v", w.marks[0])
	}
	w.deliver(deletes...)
	if len(w.fake.records) != 40 {
		t.Errorf("%d records are left, want 40", len(w.fake.records))
	}
}

func TestRejectGuardStopsBeforeEverythingIsRejected(t *testing.T) {
	f := newFake(t, 1)
	cfg := contacts()
	cfg.Guards.RejectRows = 50
	cfg.Concurrency = 1
	w := newWorld(t, cfg, f)
	f.reply = func(req delivery.Request) []delivery.Result {
		out := make([]delivery.Result, len(req.Changes))
		for i := range out {
			out[i] = delivery.Result{Outcome: delivery.Rejected, Status: 400, VendorCode: "NO_SUCH_PROPERTY"}
		}
		return out
	}
	var rows []row
	for id := range int64(5000) {
		rows = append(rows, customer(id, 1))
	}
	w.write(rows...)
	var stop *StopError
	if err := w.tryFlush(); !errors.As(err, &stop) || stop.Code != CodeRejectGuard {
		t.Fatalf("flush: %v, want the reject guard", err)
	}
	if f.changes > 300 || w.letterCodes()["A20"] > 300 {
		t.Errorf("%d changes were sent, %v letters, before the guard stopped", f.changes, w.letterCodes())
	}
	f.mu.Lock()
	f.reply = nil
	f.mu.Unlock()
	_ = w.s.Close()
	w.sink()
	w.deliver(rows...)
	w.want(state.Outcomes{Applied: 5000})
}

func TestAuthAndConfigStopTheConnection(t *testing.T) {
	for outcome, code := range map[delivery.Outcome]Code{delivery.Auth: CodeAuth, delivery.Config: CodeConfig} {
		f := newFake(t, 1)
		w := newWorld(t, contacts(), f)
		f.reply = func(req delivery.Request) []delivery.Result {
			return []delivery.Result{{Outcome: outcome, Status: 401, Message: "expired"}}
		}
		w.write(customer(1, 1))
		var stop *StopError
		if err := w.tryFlush(); !errors.As(err, &stop) || stop.Code != code || !strings.Contains(err.Error(), "expired") {
			t.Errorf("flush: %v, want %s", err, code)
		}
		if f.requests != 1 {
			t.Errorf("%d requests, want 1", f.requests)
		}
	}
}

func TestConsent(t *testing.T) {
	for _, remove := range []bool{false, true} {
		cfg := contacts()
		cfg.Consent = Consent{Field: "consent", Delete: remove}
		if remove {
			cfg.OnDelete = DeleteRecord
		}
		w := newWorld(t, cfg, newFake(t, 1))
		no := customer(2, 1)
		no.consent = false
		w.deliver(customer(1, 1), no)
		lost := update(1, 2)
		lost.consent = false
		w.deliver(lost)
		if _, there := w.fake.records["c1@x.io"]; there == remove || w.fake.records["c2@x.io"] != nil {
			t.Errorf("delete %v: records %v", remove, w.fake.records)
		}
		if remove {
			w.want(state.Outcomes{Applied: 2, Skipped: 1})
		} else {
			w.want(state.Outcomes{Applied: 1, Skipped: 2})
		}
	}
}

func TestNulls(t *testing.T) {
	for nulls, want := range map[Nulls]string{OmitNull: `"n"`, SendNull: "null", ClearNull: ""} {
		cfg := contacts()
		cfg.Fields[1].Nulls = nulls
		w := newWorld(t, cfg, newFake(t, 1))
		null := update(1, 2)
		null.note = ""
		w.deliver(customer(1, 1))
		w.deliver(null)
		if got := w.fake.records["c1@x.io"].fields["note"]; got != want {
			t.Errorf("policy %d: note is %s, want %s", nulls, got, want)
		}
	}
}

func TestARowWithoutMatchValueIsRejectedAtOnce(t *testing.T) {
	w := newWorld(t, contacts(), newFake(t, 1))
	bad := customer(1, 1)
	bad.email = ""
	rejects := w.deliver(bad, customer(2, 1))
	if len(rejects) != 1 || rejects[0].Row != 0 || rejects[0].Code != "A01" {
		t.Errorf("rejects %+v", rejects)
	}
	w.want(state.Outcomes{Applied: 1, Rejected: 1})
}

func TestABackfillDoesNotUndoTheStream(t *testing.T) {
	w := newWorld(t, contacts(), newFake(t, 1))
	old := customer(1, 3)
	old.op, old.epoch, old.lsn = record.OpRead, 1, 5
	newer := update(1, 4)
	newer.epoch, newer.lsn = 1, 9
	w.deliver(newer)
	w.deliver(old)
	w.want(state.Outcomes{Applied: 1, Superseded: 1})
	if v := w.fake.records["c1@x.io"].fields["v"]; v != "4" {
		t.Errorf("v is %s", v)
	}
}

func TestABackfillSweepsWhatItDidNotFind(t *testing.T) {
	cfg := contacts()
	cfg.OnDelete = DeleteRecord
	w := newWorld(t, cfg, newFake(t, 1))
	w.deliver(customer(1, 1), customer(2, 1), customer(3, 1))
	read := func(id, v int64) row {
		r := customer(id, v)
		r.op, r.epoch, r.lsn = record.OpRead, 2, 50
		return r
	}
	w.deliver(read(1, 1), read(3, 7)) // one unchanged, one changed
	end := record.NewControl(customers, record.OpBackfillEnd, record.Position{Epoch: 2, LSN: 50}, 0)
	end.Partition.Partition = 0
	end.Offsets = []int64{w.marks[0].Next}
	if _, err := w.s.Write(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	w.flush()
	if len(w.fake.records) != 2 || w.fake.records["c2@x.io"] != nil {
		t.Errorf("records %v, want 1 and 3", w.fake.records)
	}
	w.want(state.Outcomes{Applied: 4, Unchanged: 1})
}

func TestEventsKeepTheirOrderAndNumber(t *testing.T) {
	cfg := contacts()
	cfg.Operation = delivery.Append
	w := newWorld(t, cfg, newFake(t, 1))
	var rows []row
	for i := range int64(40) {
		rows = append(rows, update(i%3, i))
	}
	w.deliver(rows...)
	w.want(state.Outcomes{Applied: 40})
	if len(w.fake.events) != 40 {
		t.Errorf("%d events, want 40", len(w.fake.events))
	}
}

func TestReferencesWaitAndMove(t *testing.T) {
	f := newFake(t, 1)
	companies := contacts()
	companies.Name, companies.Object, companies.References = "crm.companies", "companies", nil
	cw := newWorld(t, companies, f)
	to, err := cw.store.Connection(t.Context(), companies.Name)
	if err != nil {
		t.Fatal(err)
	}
	cfg := contacts()
	cfg.References = []Reference{{Type: "works_at", Object: "companies", From: "company", To: to}}
	cfg.ReferenceWait = 5 * time.Second
	w := newWorld(t, cfg, f)
	employee := customer(1, 1)
	employee.email, employee.company = "e@x.io", 70
	w.write(employee)
	cw.deliver(customer(70, 1), customer(71, 1)) // the contact waits for its company
	w.flush()
	id := f.records["c70@x.io"].id
	if refs := f.records["e@x.io"].refs; len(refs) != 1 || !refs[id] {
		t.Errorf("references %v, want %s", refs, id)
	}
	moved := employee
	moved.op, moved.company, moved.lsn = record.OpUpdate, 71, 0
	w.deliver(moved)
	if refs := f.records["e@x.io"].refs; !refs[f.records["c71@x.io"].id] {
		t.Errorf("references %v after the move", refs)
	}
	w.c.cfg.ReferenceWait = 10 * time.Millisecond
	lost := customer(2, 1)
	lost.company = 999
	w.deliver(lost)
	if w.letterCodes()["A04"] != 1 {
		t.Errorf("letters %v, want one A04", w.letterCodes())
	}
}

func TestAnotherProcessFences(t *testing.T) {
	w := newWorld(t, contacts(), newFake(t, 1))
	w.deliver(customer(1, 1))
	w.write(customer(2, 1))
	other, err := w.c.Sink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Load(t.Context(), []int32{0}); err != nil {
		t.Fatal(err)
	}
	if err := w.tryFlush(); !errors.Is(err, record.ErrFenced) {
		t.Errorf("flush of the earlier owner: %v", err)
	}
}

func TestEventsOfTheLogHoldNoValue(t *testing.T) {
	f := newFake(t, 1)
	f.poison["770077007"] = true
	w := newWorld(t, contacts(), f)
	w.deliver(customer(1, 770077007), customer(2, 1))
	if len(w.events) != 2 {
		t.Fatalf("%d events, want 2", len(w.events))
	}
	for _, e := range w.events {
		if s := fmt.Sprintf("%+v", e); strings.Contains(s, "x.io") || strings.Contains(s, "770077007") {
			t.Errorf("event holds a value: %s", s)
		}
		if e.Outcome == delivery.Rejected && (e.Code != CodeRefused || e.VendorCode != "INVALID" || e.RequestID != "r1") {
			t.Errorf("event %+v", e)
		}
	}
}
