package activation

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

// faults are the chances, in percent, of what may go wrong with a request or a
// record of it.
type faults struct {
	lost, delayed, down, throttled int // of a request
	short, shuffled                int
	retry                          int // of a record
	wholeBatch                     bool
}

// fake is a destination in memory. It reports what no destination may see.
type fake struct {
	t      testing.TB
	mu     sync.Mutex
	rnd    *rand.Rand
	faults faults

	records  map[string]*fakeRecord // by match value
	byID     map[string]*fakeRecord
	nextID   int
	inFlight map[string]bool
	version  map[string]int64 // by key: newest value of the field "v" that was applied
	requests int
	changes  int
	created  map[string]int // how often a match value was created
	poison   map[string]bool
	reply    func(delivery.Request) []delivery.Result // instead of everything else
	events   []string
	ops      map[delivery.Operation]int
	sent     map[string]int // how often a field was sent
	unread   bool
	late     sync.WaitGroup
	delay    time.Duration
}

type fakeRecord struct {
	id, match string
	fields    map[string]string
	refs      map[string]bool
}

func newFake(t testing.TB, seed uint64) *fake {
	return &fake{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), records: map[string]*fakeRecord{}, byID: map[string]*fakeRecord{}, inFlight: map[string]bool{},
		version: map[string]int64{}, created: map[string]int{}, poison: map[string]bool{}, ops: map[delivery.Operation]int{}, sent: map[string]int{}}
}

func (f *fake) chance(percent int) bool { return f.rnd.IntN(100) < percent }

func (f *fake) Send(ctx context.Context, req delivery.Request) []delivery.Result {
	f.mu.Lock()
	f.requests++
	f.changes += len(req.Changes)
	f.ops[req.Operation] += len(req.Changes)
	for _, c := range req.Changes {
		if f.inFlight[c.Key] {
			f.t.Errorf("two requests of one key at a time, or one twice in a request")
		}
		f.inFlight[c.Key] = true
		for _, x := range c.Fields {
			f.sent[x.Name]++
		}
	}
	pause := time.Duration(f.rnd.IntN(2000)) * time.Microsecond
	if f.reply != nil || f.faults == (faults{}) {
		pause = f.delay
	}
	f.mu.Unlock()
	if pause > 0 {
		time.Sleep(pause) // other requests overtake this one
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range req.Changes {
		delete(f.inFlight, c.Key)
	}
	if f.reply != nil {
		return f.reply(req)
	}
	return f.answer(ctx, req)
}

func (f *fake) answer(ctx context.Context, req delivery.Request) []delivery.Result {
	results := make([]delivery.Result, len(req.Changes))
	all := func(r delivery.Result) []delivery.Result {
		for i := range results {
			results[i] = r
		}
		return results
	}
	switch {
	case ctx.Err() != nil:
		return all(delivery.Result{})
	case f.chance(f.faults.throttled):
		return all(delivery.Result{Outcome: delivery.Throttled, Status: 429, RetryAfter: time.Millisecond})
	case f.chance(f.faults.down):
		return all(delivery.Result{Outcome: delivery.Retry, Status: 503})
	case f.chance(f.faults.delayed): // applied after the caller has given up
		changes := append([]delivery.Change(nil), req.Changes...)
		f.late.Go(func() {
			time.Sleep(5 * time.Millisecond)
			f.mu.Lock()
			defer f.mu.Unlock()
			for i := range changes {
				f.apply(req.Operation, &changes[i])
			}
		})
		return all(delivery.Result{})
	}
	if f.faults.wholeBatch {
		for _, c := range req.Changes {
			if f.poisoned(&c) {
				return all(delivery.Result{Outcome: delivery.Rejected, Status: 400, WholeBatch: len(req.Changes) > 1, VendorCode: "VALIDATION", Message: "one of the inputs"})
			}
		}
	}
	for i := range req.Changes {
		c := &req.Changes[i]
		if f.chance(f.faults.retry) {
			results[i] = delivery.Result{Outcome: delivery.Retry, Status: 423}
			continue
		}
		results[i] = f.apply(req.Operation, c)
	}
	switch {
	case f.chance(f.faults.lost):
		return all(delivery.Result{})
	case f.chance(f.faults.short):
		return results[:f.rnd.IntN(len(results))]
	}
	return results
}

func (f *fake) poisoned(c *delivery.Change) bool {
	for _, x := range c.Fields {
		if x.Name == "v" && f.poison[string(x.Value)] {
			return true
		}
	}
	return false
}

// apply applies one change. The field "v", where there is one, must rise.
func (f *fake) apply(op delivery.Operation, c *delivery.Change) delivery.Result {
	if f.poisoned(c) {
		return delivery.Result{Outcome: delivery.Rejected, Status: 400, VendorCode: "INVALID", Message: "v is not valid", RequestID: "r1"}
	}
	if op == delivery.Append {
		f.events = append(f.events, c.Idempotency)
		return delivery.Result{Outcome: delivery.Applied, Status: 200}
	}
	r := f.byID[c.ID]
	if r == nil && c.Match.Name != "" {
		r = f.records[plain(c.Match.Value)]
	}
	switch {
	case op == delivery.Delete || op == delivery.Archive:
		if r == nil {
			return delivery.Result{Outcome: delivery.Skipped, Status: 404}
		}
		delete(f.records, r.match)
		delete(f.byID, r.id)
		return delivery.Result{Outcome: delivery.Applied, Status: 204}
	case r == nil && op == delivery.Update:
		return delivery.Result{Outcome: delivery.Skipped, Status: 404}
	case r != nil && op == delivery.Insert:
		return delivery.Result{Outcome: delivery.Skipped, Status: 409}
	}
	created := r == nil
	if created {
		f.nextID++
		r = &fakeRecord{id: "id" + strconv.Itoa(f.nextID), match: plain(c.Match.Value), fields: map[string]string{}, refs: map[string]bool{}}
		f.records[r.match], f.byID[r.id] = r, r
		f.created[r.match]++
	}
	for _, x := range c.Fields {
		if x.Name == "email" {
			delete(f.records, r.match)
			r.match = plain(x.Value)
			f.records[r.match] = r
			continue
		}
		if x.Name == "v" {
			v, _ := strconv.ParseInt(string(x.Value), 10, 64)
			if v < f.version[c.Key] {
				f.t.Errorf("an older value came after a newer one")
			}
			f.version[c.Key] = v
		}
		r.fields[x.Name] = string(x.Value)
	}
	for _, x := range c.References {
		if x.Remove {
			delete(r.refs, x.ID)
		} else {
			r.refs[x.ID] = true
		}
	}
	return delivery.Result{Outcome: delivery.Applied, Status: 200, ID: r.id, Created: created}
}

func (f *fake) Read(_ context.Context, _, _ string, values, fields []string) ([]delivery.Found, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unread {
		return nil, ErrUnreadable
	}
	var out []delivery.Found
	for _, v := range values {
		r := f.records[v]
		if r == nil {
			continue
		}
		x := delivery.Found{Match: v, ID: r.id}
		for _, name := range fields {
			if value, ok := r.fields[name]; ok {
				text, _ := json.Marshal(plain([]byte(value))) // as a destination of texts has it
				x.Fields = append(x.Fields, delivery.Field{Name: name, Value: text})
			}
		}
		out = append(out, x)
	}
	return out, nil
}

func (f *fake) Describe(context.Context, string) (delivery.Object, error) {
	return delivery.Object{Name: "contacts", Match: []string{"email"}, BatchItems: 100, Readable: !f.unread}, nil
}

func (f *fake) String() string {
	return fmt.Sprintf("%d records, %d requests, %d changes", len(f.records), f.requests, f.changes)
}
