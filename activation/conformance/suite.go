// Package conformance is the suite that every destination must pass against
// its own simulator.
package conformance

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/destinationtest"
)

// Destination is what the suite tries.
type Destination interface {
	Send(ctx context.Context, r delivery.Request) []delivery.Result
	Read(ctx context.Context, object, match string, values, fields []string) ([]delivery.Found, error)
	Describe(ctx context.Context, object string) (delivery.Object, error)
}

// Jobs is a Destination that hands many records to a job of the vendor.
type Jobs interface {
	Bulk(object string, op delivery.Operation) (items, bytes int, ok bool)
	Submit(ctx context.Context, r delivery.Request, save func(job string) error) ([]delivery.Result, error)
	Poll(ctx context.Context, r delivery.Request, job string) (results []delivery.Result, done bool, err error)
	Abort(ctx context.Context, r delivery.Request, job string) error
}

// Tokens keeps sealed tokens.
type Tokens interface {
	Lock(ctx context.Context, account string) (unlock func(), err error)
	Load(ctx context.Context, account string) ([]byte, error)
	Save(ctx context.Context, account string, sealed []byte) error
}

// Setup is what a scenario asks of a destination.
type Setup struct {
	URL     string // of the simulator
	Budget  delivery.Budget
	OAuth   bool   // log in with RefreshToken, any client and Tokens; otherwise with Token
	Tokens  Tokens // nil = in memory
	Token   string // in place of Token
	Timeout time.Duration
}

// Case is a destination with one of its objects.
type Case struct {
	Simulator string
	Object    string
	Match     string             // field that identifies a record
	Key       func(i int) string // its value for the i-th record, as text
	Seq       string             // field for a number
	Note      string             // field for a text
	Always    []delivery.Field   // what every new record needs
	Bad       delivery.Field     // a value that the vendor refuses for one record
	Batch     int                // records of a request
	OAuth     bool               // it can log in with a refresh token
	Rows      bool               // one refused record of a batch refuses no other
	Shuffles  bool               // the vendor promises no order of its answers
	Quota     string             // the quota that its headers tell of; empty = it tells of none
	Open      func(testing.TB, Setup) Destination
}

// Scenario is one thing that every destination must get right.
type Scenario struct {
	Number int
	Name   string
	Holds  string // what must hold
	run    func(*run)
}

// Scenarios are all of them, in order.
func Scenarios() []Scenario {
	return []Scenario{
		{1, "updates under all faults, worker killed", "last value of every key, no older after newer, no second create", (*run).everything},
		{2, "one poison record of 560", "559 applied, 1 rejected with its reason, few extra calls", (*run).poison},
		{3, "bad rows, shuffled rows, no rows in an answer", "exact outcomes; who is not named is unknown", (*run).rows},
		{4, "answer lost after the write", "unknown, then found by a read; one record", (*run).lost},
		{5, "an old request lands late", "the newest value stays", (*run).late},
		{6, "429 with seconds, with a date, without, daily", "throttled with the pause the vendor asks for; nobody rejected", (*run).throttled},
		{7, "quota shared with others", "every call asks the budget; the headers reach it", (*run).budgeted},
		{8, "401 in between, rotating refresh tokens, crash before they are kept", "one refresh, no lockout, nothing readable stored", (*run).login},
		{9, "a field was renamed", "a fault of the configuration, no rejects", (*run).renamed},
		{10, "job fails half way, restart while polling", "taken, refused and left add up; left are sent again; nothing twice", (*run).job},
		{11, "deletes", "the records named and no others; again is harmless", (*run).deletes},
		{12, "key changes", "one record, not two", (*run).rekeyed},
		{13, "one field changes", "only that field is written; clearing empties it", (*run).partial},
		{14, "backfill beside the stream", "its calls are charged to its own lane", (*run).lanes},
		{15, "search index runs behind", "no duplicates", (*run).lagging},
		{16, "another destination is down", "not slower; the dead one ends with its deadline", (*run).isolated},
	}
}

// run is a scenario under way.
type run struct {
	testing.TB
	c   Case
	s   *destinationtest.Simulator
	url string
	na  string // why the scenario does not apply
}

// Run runs every scenario and returns what became of each: "ok" or why it does
// not apply.
func Run(t *testing.T, c Case) []string {
	out := make([]string, len(Scenarios()))
	for i, sc := range Scenarios() {
		t.Run(fmt.Sprintf("%02d", sc.Number), func(t *testing.T) {
			r := &run{TB: t, c: c}
			r.start(destinationtest.Options{Requests: 1 << 30, Daily: 1 << 30})
			sc.run(r)
			out[i] = "ok"
			if r.na != "" {
				out[i] = r.na
			}
			if t.Failed() {
				out[i] = "FAILS"
			}
		})
	}
	return out
}

// start puts a fresh simulator in place.
func (r *run) start(o destinationtest.Options) {
	r.Helper()
	s, err := destinationtest.New(r.c.Simulator, o)
	if err != nil {
		r.Fatal(err)
	}
	server := httptest.NewServer(s)
	server.Config.ErrorLog = nil
	r.Cleanup(func() { s.Settle(); server.Close() })
	r.s, r.url = s, server.URL
}

func (r *run) open(s Setup) Destination {
	r.Helper()
	if s.URL == "" {
		s.URL = r.url
	}
	d := r.c.Open(r, s)
	if closer, ok := d.(interface{ Close() error }); ok {
		r.Cleanup(func() { _ = closer.Close() }) // idle connections only
	}
	return d
}

// change is the i-th record with a sequence number.
func (r *run) change(i, seq int) delivery.Change {
	return delivery.Change{Key: strconv.Itoa(i), Match: delivery.Field{Name: r.c.Match, Value: quote(r.c.Key(i))},
		Fields:      append([]delivery.Field{{Name: r.c.Seq, Value: []byte(strconv.Itoa(seq))}}, r.c.Always...),
		Idempotency: fmt.Sprintf("%d-%d", i, seq)}
}

func (r *run) changes(from, to, seq int) []delivery.Change {
	var out []delivery.Change
	for i := from; i < to; i++ {
		out = append(out, r.change(i, seq))
	}
	return out
}

func quote(s string) []byte { return []byte(strconv.Quote(s)) }

// send sends changes in requests of the size the destination takes.
func (r *run) send(d Destination, op delivery.Operation, changes []delivery.Change) []delivery.Result {
	r.Helper()
	var out []delivery.Result
	for part := range slices.Chunk(changes, r.c.Batch) {
		results := d.Send(r.Context(), delivery.Request{Object: r.c.Object, Operation: op, Changes: part})
		if len(results) != len(part) {
			r.Fatalf("%d results for %d changes", len(results), len(part))
		}
		out = append(out, results...)
	}
	return out
}

// all demands an outcome of every result.
func (r *run) all(results []delivery.Result, want ...delivery.Outcome) {
	r.Helper()
	for i, got := range results {
		if !slices.Contains(want, got.Outcome) {
			r.Fatalf("record %d of %d is %s (%d %s %s), want %v", i, len(results), got.Outcome, got.Status, got.VendorCode, got.Message, want)
		}
	}
}

// state demands that the simulator holds exactly these: index → seq.
func (r *run) state(want map[int]int) {
	r.Helper()
	r.s.Settle()
	byKey := map[string]int{}
	for i := range want {
		byKey[r.c.Key(i)] = i
	}
	seen := map[int]bool{}
	for _, rec := range r.s.Records(r.c.Object) {
		i, ok := byKey[rec.Fields[r.c.Match]]
		switch {
		case !ok:
			r.Fatalf("a record nobody asked for: %v", rec.Fields)
		case seen[i]:
			r.Fatalf("record %d is there twice", i)
		case rec.Fields[r.c.Seq] != strconv.Itoa(want[i]):
			r.Fatalf("record %d has %s, want %d", i, rec.Fields[r.c.Seq], want[i])
		}
		seen[i] = true
	}
	if len(seen) != len(want) {
		r.Fatalf("%d records, want %d", len(seen), len(want))
	}
	r.ordered()
}

// ordered demands of the journal: per key no older value after a newer one and
// one create.
func (r *run) ordered() {
	r.Helper()
	last, creates := map[string]float64{}, map[string]int{}
	for _, w := range r.s.Journal() {
		key := w.Object + "/" + w.Fields[r.c.Match]
		if w.Op == "create" {
			if creates[key]++; creates[key] > 1 {
				r.Fatalf("%s was created twice", key)
			}
		}
		n, err := strconv.ParseFloat(w.Fields[r.c.Seq], 64)
		if err != nil {
			continue
		}
		if n < last[key] {
			r.Fatalf("%s went from %v back to %v", key, last[key], n)
		}
		last[key] = n
	}
}

// ledger is a budget that allows everything and remembers what it was told.
type ledger struct {
	mu      sync.Mutex
	waits   map[delivery.Lane]int
	answers []delivery.Answer
}

func (l *ledger) Wait(ctx context.Context, lane delivery.Lane, _ string, cost int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waits == nil {
		l.waits = map[delivery.Lane]int{}
	}
	l.waits[lane] += cost
	return ctx.Err()
}

func (l *ledger) Observe(a delivery.Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers = append(l.answers, a)
}

func (l *ledger) seen() (waits map[delivery.Lane]int, answers []delivery.Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waits, slices.Clone(l.answers)
}
