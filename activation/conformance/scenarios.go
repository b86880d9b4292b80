package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/destinationtest"
)

// long reports whether the long proofs are asked for.
func long() bool { return os.Getenv("SLUICE_LONG") != "" }

// bad is the i-th record with a value that the vendor refuses.
func (r *run) bad(i int) delivery.Change {
	c := r.change(i, 1)
	for n := range c.Fields {
		if c.Fields[n].Name == r.c.Bad.Name {
			c.Fields[n] = r.c.Bad
			return c
		}
	}
	c.Fields = append(c.Fields, r.c.Bad)
	return c
}

// poison is scenario 2.
func (r *run) poison() {
	d := r.open(Setup{})
	changes := r.changes(0, 560, 1)
	changes[321] = r.bad(321)
	results := r.bisect(d, changes)
	want := map[int]int{}
	for i, res := range results {
		if i == 321 {
			r.all(results[i:i+1], delivery.Rejected)
			if res.VendorCode == "" || res.Status == 0 {
				r.Errorf("the reject has no reason: %+v", res)
			}
			if strings.Contains(res.Message, strings.Trim(string(r.c.Bad.Value), `"`)) {
				r.Errorf("the reject names the value: %s", res.Message)
			}
			continue
		}
		r.all(results[i:i+1], delivery.Applied)
		want[i] = 1
	}
	r.state(want)
	calls, _ := r.s.Requests()
	if limit := r.calls(560) + 14; calls > limit {
		r.Errorf("%d calls, want at most %d", calls, limit)
	}
}

// calls is how many requests n records take, with a lookup for each where the
// vendor has no upsert.
func (r *run) calls(n int) int {
	calls := (n + r.c.Batch - 1) / r.c.Batch
	if r.c.Simulator == "stripe" {
		calls *= 2
	}
	return calls
}

// bisect sends changes and splits what is refused as a whole.
func (r *run) bisect(d Destination, changes []delivery.Change) []delivery.Result {
	results := r.send(d, delivery.Upsert, changes)
	for from := 0; from < len(results); {
		to := min(from+r.c.Batch, len(results))
		if results[from].WholeBatch && to-from > 1 {
			mid := (from + to) / 2
			copy(results[from:mid], r.bisect(d, changes[from:mid]))
			copy(results[mid:to], r.bisect(d, changes[mid:to]))
		}
		from = to
	}
	return results
}

// rows is scenario 3.
func (r *run) rows() {
	if r.c.Batch == 1 {
		r.s.Inject("truncated")
		r.all(r.send(r.open(Setup{}), delivery.Upsert, r.changes(0, 1, 1)), delivery.Unknown)
		return
	}
	d := r.open(Setup{})
	r.s.Inject("shuffled")
	changes := r.changes(0, r.c.Batch, 1)
	for i := range changes {
		if i%7 == 3 {
			changes[i] = r.bad(i)
		}
	}
	results := r.send(d, delivery.Upsert, changes)
	ids := map[string]bool{}
	for i, res := range results {
		want := delivery.Applied
		if i%7 == 3 {
			want = delivery.Rejected
		}
		r.all(results[i:i+1], want)
		if want == delivery.Applied && (res.ID == "" || ids[res.ID]) {
			r.Fatalf("record %d has the id %q", i, res.ID)
		}
		ids[res.ID] = true
	}
	for _, rec := range r.s.Records(r.c.Object) {
		if !ids[rec.ID] && !ids[rec.Fields[r.c.Match]] {
			r.Fatalf("the id of a record was given to nobody")
		}
	}
	for _, fault := range []string{"empty", "truncated"} {
		if fault == "empty" && !r.c.Shuffles {
			continue // its answers are a list by order: there is no empty one
		}
		r.s.Inject(fault)
		r.all(r.send(d, delivery.Upsert, r.changes(0, r.c.Batch, 2)), delivery.Unknown)
	}
}

// lost is scenario 4.
func (r *run) lost() {
	d := r.open(Setup{})
	r.s.Inject("lost")
	r.all(r.send(d, delivery.Upsert, r.changes(0, 1, 5)), delivery.Unknown)
	p := r.pusher(d)
	p.readBack(r.Context(), []int{0})
	if p.ack[0] != 5 || p.ids[0] == "" {
		r.Fatalf("a read does not find what was written: seq %d, id %q", p.ack[0], p.ids[0])
	}
	p.push(r.Context(), map[int]int{0: 6})
	r.state(map[int]int{0: 6})
}

// late is scenario 5.
func (r *run) late() {
	d := r.open(Setup{})
	p := r.pusher(d)
	p.push(r.Context(), map[int]int{0: 1})
	r.s.Inject("delayed")
	p.push(r.Context(), map[int]int{0: 2}) // waits until the old one has landed
	p.push(r.Context(), map[int]int{0: 3})
	r.state(map[int]int{0: 3})
}

// throttled is scenario 6.
func (r *run) throttled() {
	l := &ledger{}
	d := r.open(Setup{Budget: l})
	for _, fault := range []string{"throttle", "throttle_date", "daily"} {
		r.s.Inject(fault)
		results := r.send(d, delivery.Upsert, r.changes(0, 1, 1))
		r.all(results, delivery.Throttled)
		_, answers := l.seen()
		if a := answers[len(answers)-1]; results[0].RetryAfter <= 0 && fault != "throttle_date" || !throttledIn(answers) {
			r.Errorf("%s: the budget was told %+v, the result says %v", fault, a, results[0].RetryAfter)
		}
	}
	f := destinationtest.Faults{NoRetryAfter: true}
	r.s.SetFaults(f)
	r.s.Inject("throttle")
	r.all(r.send(d, delivery.Upsert, r.changes(0, 1, 1)), delivery.Throttled)
	r.all(r.send(d, delivery.Upsert, r.changes(0, 1, 1)), delivery.Applied)
	r.state(map[int]int{0: 1})
}

func throttledIn(answers []delivery.Answer) bool {
	for _, a := range answers {
		if a.Throttled {
			return true
		}
	}
	return false
}

// budgeted is scenario 7.
func (r *run) budgeted() {
	r.start(destinationtest.Options{Requests: 1000, Daily: 5000})
	l := &ledger{}
	d := r.open(Setup{Budget: l})
	r.all(r.send(d, delivery.Upsert, r.changes(0, 3*r.c.Batch, 1)), delivery.Applied)
	waits, answers := l.seen()
	calls, _ := r.s.Requests()
	if waits[delivery.Stream] != calls {
		r.Errorf("%d calls were made, the budget was asked for %d", calls, waits[delivery.Stream])
	}
	if r.c.Quota == "" {
		return
	}
	for _, a := range answers {
		if a.Quota == r.c.Quota && a.Remaining > 0 && a.Limit > 0 && a.Reset > 0 {
			return
		}
	}
	r.Errorf("no answer told the budget what is left of %s: %+v", r.c.Quota, answers)
}

// memory is a place for tokens that can break between a refresh and its being
// kept.
type memory struct {
	mu    sync.Mutex
	turn  sync.Mutex
	saved []byte
	fail  bool
}

func (m *memory) Lock(context.Context, string) (func(), error) {
	m.turn.Lock()
	return m.turn.Unlock, nil
}

func (m *memory) Load(context.Context, string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saved, nil
}

func (m *memory) Save(_ context.Context, _ string, sealed []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail {
		return errors.New("the disk is gone")
	}
	m.saved = sealed
	return nil
}

// login is scenario 8.
func (r *run) login() {
	r.all(r.send(r.open(Setup{Token: "wrong"}), delivery.Upsert, r.changes(0, 2, 1)), delivery.Auth)
	if !r.c.OAuth {
		return
	}
	keep := &memory{fail: true}
	first := r.open(Setup{OAuth: true, Tokens: keep})
	r.all(r.send(first, delivery.Upsert, r.changes(0, 1, 1)), delivery.Retry) // refreshed, not kept: not used
	keep.fail = false
	second := r.open(Setup{OAuth: true, Tokens: keep}) // as after a crash
	third := r.open(Setup{OAuth: true, Tokens: keep})  // another process
	r.all(r.send(second, delivery.Upsert, r.changes(0, 1, 1)), delivery.Applied)
	given, _ := r.s.Logins()
	r.s.ForgetTokens()
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			d := second
			if n%2 == 1 {
				d = third
			}
			for _, res := range d.Send(r.Context(), delivery.Request{Object: r.c.Object, Operation: delivery.Upsert, Changes: r.changes(n, n+1, 1)}) {
				if res.Outcome != delivery.Applied {
					r.Errorf("after a 401: %s %s %s", res.Outcome, res.VendorCode, res.Message)
				}
			}
		})
	}
	all.Wait()
	now, replayed := r.s.Logins()
	if now-given != 1 || replayed != 0 {
		r.Errorf("%d refreshes for one lost token, %d old refresh tokens used", now-given, replayed)
	}
	for _, secret := range []string{"access-", "refresh-"} {
		if bytes.Contains(keep.saved, []byte(secret)) {
			r.Error("tokens are kept in clear")
		}
	}
}

// renamed is scenario 9.
func (r *run) renamed() {
	d := r.open(Setup{})
	r.all(r.send(d, delivery.Upsert, r.changes(0, 1, 1)), delivery.Applied)
	r.s.DropField(r.c.Object, r.c.Seq)
	for _, res := range r.send(d, delivery.Upsert, r.changes(0, 2*r.c.Batch, 2)) {
		if res.Outcome != delivery.Config {
			r.Fatalf("%s %d %s %s, want config", res.Outcome, res.Status, res.VendorCode, res.Message)
		}
	}
}

// job is scenario 10.
func (r *run) job() {
	d := r.open(Setup{})
	jobs, ok := d.(Jobs)
	if ok {
		_, _, ok = jobs.Bulk(r.c.Object, delivery.Upsert)
	}
	if !ok {
		r.na = "no jobs"
		return
	}
	request := delivery.Request{Object: r.c.Object, Operation: delivery.Upsert, Lane: delivery.Backfill, Changes: r.changes(0, 400, 1)}
	if r.c.Simulator == "salesforce" { // others refuse bad records before there is a job
		request.Changes[7] = r.bad(7)
	}
	r.s.SetFaults(destinationtest.Faults{JobFails: 1})
	job := ""
	if _, err := jobs.Submit(r.Context(), request, func(id string) error { job = id; return errors.New("killed") }); err == nil {
		r.Fatal("a job that is not written down goes on")
	}
	if err := jobs.Abort(r.Context(), request, job); err != nil { // what the crash left open
		r.Fatal(err)
	}
	if r.c.Simulator == "salesforce" && len(r.s.Journal()) > 0 {
		r.Fatal("records were written before the job was written down")
	}
	if _, err := jobs.Submit(r.Context(), request, func(id string) error { job = id; return nil }); err != nil {
		r.Fatal(err)
	}
	if _, done, err := jobs.Poll(r.Context(), request, job); done || err != nil {
		r.Fatalf("the first look: done %v, %v", done, err)
	}
	again := r.open(Setup{}).(Jobs) // as after a restart: the job's id and the request are all there is
	var results []delivery.Result
	for looks, done := 0, false; !done; looks++ {
		var err error
		if results, done, err = again.Poll(r.Context(), request, job); err != nil || looks > 10 {
			r.Fatalf("poll: %v after %d looks", err, looks)
		}
	}
	counts := map[delivery.Outcome]int{}
	var left []delivery.Change
	for i, res := range results {
		counts[res.Outcome]++
		if res.Outcome == delivery.Retry {
			left = append(left, request.Changes[i])
		}
	}
	if r.c.Simulator == "salesforce" {
		if counts[delivery.Applied] != 199 || counts[delivery.Rejected] != 1 || counts[delivery.Retry] != 200 {
			r.Fatalf("outcomes %v", counts)
		}
		r.s.SetFaults(destinationtest.Faults{})
		r.all(r.send(d, delivery.Upsert, left), delivery.Applied)
	} else if counts[delivery.Applied] != 400 {
		r.Fatalf("outcomes %v", counts)
	}
	want := map[int]int{}
	for i := range 400 {
		if r.c.Simulator != "salesforce" || i != 7 {
			want[i] = 1
		}
	}
	r.state(want)
	for _, w := range r.s.Journal() {
		if w.Op != "create" && r.c.Simulator == "salesforce" {
			r.Fatalf("%s was written twice", w.ID)
		}
	}
}

// deletes is scenario 11.
func (r *run) deletes() {
	d := r.open(Setup{})
	results := r.send(d, delivery.Upsert, r.changes(0, 10, 1))
	r.all(results, delivery.Applied)
	byMatch := r.changes(0, 4, 0)
	byID := r.changes(4, 6, 0)
	for i := range byID {
		byID[i].ID = results[4+i].ID
	}
	gone := append(byMatch, byID...)
	for i := range gone {
		gone[i].Fields = nil
	}
	r.all(r.send(d, delivery.Delete, gone), delivery.Applied)
	want := map[int]int{6: 1, 7: 1, 8: 1, 9: 1}
	r.state(want)
	for i := range gone {
		gone[i].Idempotency += "again"
	}
	r.all(r.send(d, delivery.Delete, gone), delivery.Applied, delivery.Unchanged)
	r.state(want)
}

// rekeyed is scenario 12.
func (r *run) rekeyed() {
	d := r.open(Setup{})
	results := r.send(d, delivery.Upsert, r.changes(0, 2, 1))
	r.all(results, delivery.Applied)
	c := r.change(5, 2)
	c.ID = results[0].ID
	r.all(r.send(d, delivery.Upsert, []delivery.Change{c}), delivery.Applied)
	r.state(map[int]int{5: 2, 1: 1})
}

// partial is scenario 13.
func (r *run) partial() {
	d := r.open(Setup{})
	c := r.change(0, 1)
	c.Fields = append(c.Fields, delivery.Field{Name: r.c.Note, Value: quote("first")})
	results := r.send(d, delivery.Upsert, []delivery.Change{c})
	r.all(results, delivery.Applied)
	next := r.change(0, 2)
	next.ID = results[0].ID
	next.Fields = next.Fields[:1]
	r.all(r.send(d, delivery.Upsert, []delivery.Change{next}), delivery.Applied)
	if rec := r.s.Records(r.c.Object); len(rec) != 1 || rec[0].Fields[r.c.Note] != "first" || rec[0].Fields[r.c.Seq] != "2" {
		r.Fatalf("one field was sent, the record is %v", rec)
	}
	empty := next
	empty.Fields, empty.Idempotency = []delivery.Field{{Name: r.c.Note, Clear: true}}, "clear"
	r.all(r.send(d, delivery.Upsert, []delivery.Change{empty}), delivery.Applied)
	if rec := r.s.Records(r.c.Object); len(rec) != 1 || rec[0].Fields[r.c.Note] != "" {
		r.Fatalf("the field is not empty: %v", rec)
	}
}

// lanes is scenario 14.
func (r *run) lanes() {
	l := &ledger{}
	d := r.open(Setup{Budget: l})
	results := d.Send(r.Context(), delivery.Request{Object: r.c.Object, Operation: delivery.Upsert, Lane: delivery.Backfill, Changes: r.changes(0, 1, 1)})
	r.all(results, delivery.Applied)
	waits, _ := l.seen()
	if waits[delivery.Stream] != 0 || waits[delivery.Backfill] == 0 {
		r.Errorf("calls per lane: %v", waits)
	}
}

// lagging is scenario 15.
func (r *run) lagging() {
	now, mu := time.Now(), sync.Mutex{}
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	r.start(destinationtest.Options{Requests: 1 << 30, Daily: 1 << 30, Lag: 10 * time.Second, Now: clock})
	d := r.open(Setup{})
	r.all(r.send(d, delivery.Upsert, r.changes(0, 3, 1)), delivery.Applied)
	for range 2 { // without the ids, as after a loss of state
		r.all(r.send(d, delivery.Upsert, r.changes(0, 3, 2)), delivery.Applied, delivery.Retry)
	}
	mu.Lock()
	now = now.Add(time.Minute)
	mu.Unlock()
	r.all(r.send(d, delivery.Upsert, r.changes(0, 3, 3)), delivery.Applied)
	r.state(map[int]int{0: 3, 1: 3, 2: 3})
}

// isolated is scenario 16.
func (r *run) isolated() {
	hang := make(chan struct{})
	dead := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		select {
		case <-hang:
		case <-q.Context().Done():
		}
	}))
	r.Cleanup(func() { close(hang); dead.Close() })
	broken, healthy := r.open(Setup{URL: dead.URL, Timeout: time.Minute}), r.open(Setup{})
	ctx, cancel := context.WithCancel(r.Context())
	ended := make(chan []delivery.Result, 1)
	go func() {
		ended <- broken.Send(ctx, delivery.Request{Object: r.c.Object, Operation: delivery.Upsert, Changes: r.changes(0, 1, 1)})
	}()
	r.all(r.send(healthy, delivery.Upsert, r.changes(0, 2*r.c.Batch, 1)), delivery.Applied)
	cancel()
	select {
	case results := <-ended:
		r.all(results, delivery.Unknown, delivery.Retry) // a lookup that was cut off has written nothing
	case <-time.After(10 * time.Second):
		r.Error("a call outlives its deadline")
	}
}

// Table writes what became of the scenarios as a table of Markdown: one column
// for every destination, in the order of names.
func Table(names []string, outcomes map[string][]string) string {
	var b strings.Builder
	b.WriteString("| # | scenario | must hold |")
	for _, n := range names {
		fmt.Fprintf(&b, " %s |", n)
	}
	b.WriteString("\n|---|---|---|" + strings.Repeat("---|", len(names)) + "\n")
	for i, sc := range Scenarios() {
		fmt.Fprintf(&b, "| %d | %s | %s |", sc.Number, sc.Name, sc.Holds)
		for _, n := range names {
			fmt.Fprintf(&b, " %s |", outcomes[n][i])
		}
		b.WriteString("\n")
	}
	return b.String()
}
