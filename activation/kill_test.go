package activation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-data/sluice/activation/destinationtest"
	"github.com/sluice-data/sluice/activation/spec"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/record"
)

// workerVariable holds the task of a child process; see work.
const workerVariable = "SLUICE_ACTIVATION_WORKER"

// TestMain makes a child process of this binary a worker.
func TestMain(m *testing.M) {
	if text := os.Getenv(workerVariable); text != "" {
		if err := work(context.Background(), []byte(text)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// task is what a worker does: deliver a log up to its end, from the marks that
// the state has.
type task struct {
	Vendor, URL, State string
	Seed               uint64
	Keys               int64
	Rows               int  // of the log
	Known              int  // rows of the log that a worker before may have read: they come before a flush is due
	Jobs               bool // the log is a backfill, which goes by jobs
	KillAt             int  // point at which the worker ends itself by SIGKILL; 0 = never
}

// vendorObject is one object of a vendor as the workers deliver to it.
type vendorObject struct {
	object, match, value, note string
	constants                  []Field
	onDelete                   OnDelete
}

var vendorObjects = map[string]vendorObject{
	"hubspot":    {"contacts", "email", "seq", "note", nil, ArchiveRecord},
	"salesforce": {"Contact", "Ext__c", "Seq__c", "Note__c", []Field{{Name: "LastName", Constant: []byte(`"Example"`)}}, DeleteRecord},
	"klaviyo":    {"profiles", "email", "properties.seq", "title", nil, IgnoreDelete},
}

func (o vendorObject) config() Config {
	cfg := contacts()
	cfg.Name, cfg.Object, cfg.OnDelete, cfg.Match.Name = "crm."+o.object, o.object, o.onDelete, o.match
	cfg.Fields = append([]Field{{Name: o.value, From: "v"}, {Name: o.note, From: "note"}}, o.constants...)
	cfg.Guards = Guards{DeleteRatio: 1, RejectRatio: 1, ShrinkRatio: 1}
	cfg.OwnMatch = o.object == "Contact"
	cfg.BatchItems, cfg.Ambiguous, cfg.RetryMax = 10, 200*time.Millisecond, 20*time.Millisecond
	return cfg
}

// openVendor opens the destination of a vendor against its simulator.
func openVendor(vendor, url string) (*spec.Destination, error) {
	s, err := spec.Load(vendor)
	if err != nil {
		return nil, err
	}
	return spec.Open(s, spec.Options{Account: "test", BaseURL: url, AllowPrivate: true, Credentials: spec.Credentials{Token: destinationtest.Token},
		Objects: []string{vendorObjects[vendor].object}, Timeout: 5 * time.Second})
}

// killLog is the log of two partitions that all workers of a seed see: the
// first n changes are the same however long it is.
func killLog(t *task) [2][]row {
	rnd := rand.New(rand.NewPCG(t.Seed, 1))
	remove := vendorObjects[t.Vendor].onDelete != IgnoreDelete && !t.Jobs
	var log [2][]row
	there := map[int64]bool{}
	for v := int64(1); v <= int64(t.Rows); v++ {
		id := rnd.Int64N(t.Keys)
		r := update(id, v)
		r.lsn, r.note = uint64(v), fmt.Sprint("note", rnd.IntN(4))
		if gone := rnd.IntN(10) == 0; gone && remove && there[id] {
			r = row{op: record.OpDelete, id: id, lsn: uint64(v), oldMail: r.email}
		}
		if t.Jobs {
			r.op = record.OpRead
		}
		there[id] = r.op != record.OpDelete
		log[id%2] = append(log[id%2], r)
	}
	return log
}

// work delivers the log of a task. It may be killed at any instruction.
func work(ctx context.Context, text []byte) error {
	var t task
	if err := json.Unmarshal(text, &t); err != nil {
		return err
	}
	dest, err := openVendor(t.Vendor, t.URL)
	if err != nil {
		return err
	}
	store, err := state.Open(ctx, "sqlite:"+t.State)
	if err != nil {
		return err
	}
	defer store.Close()
	cfg := vendorObjects[t.Vendor].config()
	if t.Jobs {
		cfg.BulkAbove, cfg.JobPoll, cfg.JobBlind = 5, 5*time.Millisecond, 300*time.Millisecond
	}
	st, err := store.Connection(ctx, cfg.Name)
	if err != nil {
		return err
	}
	var passed atomic.Int64
	tell := func(_ context.Context, letters []Letter) error {
		for _, l := range letters {
			fmt.Fprintln(os.Stderr, "refused:", l.Partition, l.Offset, l.Code, l.Reason)
		}
		return nil
	}
	c, err := New(cfg, dest, st, Options{Bury: tell, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Hook: func(string) {
		if passed.Add(1) == int64(t.KillAt) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}})
	if err != nil {
		return err
	}
	s, err := c.Sink(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	marks, err := s.Load(ctx, []int32{0, 1})
	if err != nil {
		return err
	}
	return feed(ctx, s, &t, marks)
}

// feed writes the log from the marks on, and flushes now and then.
func feed(ctx context.Context, s *Sink, t *task, marks map[int32]record.Mark) error {
	log := killLog(t)
	before := *t
	before.Rows = t.Known
	known := killLog(&before)
	rnd := rand.New(rand.NewPCG(t.Seed, uint64(t.Rows)))
	for {
		left := [2]int{len(log[0]) - int(marks[0].Next), len(log[1]) - int(marks[1].Next)}
		if left[0]+left[1] > 0 {
			p := int32(rnd.IntN(2))
			if left[p] == 0 {
				p = 1 - p
			}
			m := marks[p]
			n := int64(min(1+rnd.IntN(40), left[p]))
			rejects, err := s.Write(ctx, batchOf(p, m.Next, log[p][m.Next:m.Next+n]...))
			if err != nil {
				return err
			}
			m.Next, m.Counts.Read, m.Counts.Rejected = m.Next+n, m.Counts.Read+n, m.Counts.Rejected+int64(len(rejects))
			marks[p] = m
		}
		end := marks[0].Next == int64(len(log[0])) && marks[1].Next == int64(len(log[1]))
		if !end && (rnd.IntN(4) > 0 || int(marks[0].Next) < len(known[0]) || int(marks[1].Next) < len(known[1])) {
			continue
		}
		flushed, err := s.Flush(ctx, marks)
		if err != nil {
			return err
		}
		for p, m := range flushed {
			if !m.Counts.Balanced() { // Invariant 5
				return fmt.Errorf("partition %d: records are unaccounted for: %+v", p, m.Counts)
			}
			marks[p] = m
		}
		if end {
			return nil
		}
	}
}

// TestSIGKILL delivers a log to the simulators of vendors that lose answers,
// apply requests late and fail, by processes that are killed: half of them at a
// point of the engine, half of them while the vendor answers a request. In the
// end every record has the last value of its key, none was made twice, no older
// value came after a newer one, and every row has exactly one outcome.
//
// SLUICE_ACTIVATION_KILLS says how often (15; make it 200).
func TestSIGKILL(t *testing.T) {
	kills := number("SLUICE_ACTIVATION_KILLS", 15)
	runs := []task{{Vendor: "hubspot"}, {Vendor: "salesforce"}, {Vendor: "klaviyo"}, {Vendor: "salesforce", Jobs: true}}
	for i, run := range runs {
		name := run.Vendor
		if run.Jobs {
			name += " jobs"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKillRun(t, run, uint64(number("SLUICE_ACTIVATION_SEED", 1)))
			share := kills / len(runs)
			if i < kills%len(runs) {
				share++
			}
			for life := 1; k.killed < share; life++ {
				if life > 4*share+10 {
					t.Fatalf("%d kills of %d lives, want %d", k.killed, life, share)
				}
				k.life(true)
			}
			for range 20 { // a life may end with an error of a vendor that fails
				if k.life(false) {
					k.check()
					return
				}
			}
			t.Fatal("20 workers in a row did not come to the end")
		})
	}
}

// killRun is the world that workers are killed in.
type killRun struct {
	*testing.T
	task   task
	sim    *destinationtest.Simulator
	rnd    *rand.Rand
	killed int

	mu    sync.Mutex
	calls int // until the worker is killed while the vendor works; 0 = never
	child *os.Process
}

func newKillRun(t *testing.T, todo task, seed uint64) *killRun {
	sim, err := destinationtest.New(todo.Vendor, destinationtest.Options{Requests: 1 << 30, Daily: 1 << 30,
		Faults: destinationtest.Faults{Seed: seed, Lost: 0.04, Delayed: 0.03, Broken: 0.03, Truncated: 0.03, Shuffled: 0.3, Delay: 20 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	k := &killRun{T: t, sim: sim, rnd: rand.New(rand.NewPCG(seed, 2))}
	server := httptest.NewServer(k)
	t.Cleanup(func() { sim.Settle(); server.Close() })
	k.task = todo
	k.task.URL, k.task.State, k.task.Seed, k.task.Keys = server.URL, filepath.Join(t.TempDir(), "state.db"), seed, 40
	return k
}

// ServeHTTP is the vendor. The worker whose turn it is ends before the answer.
func (k *killRun) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	k.calls--
	if k.calls == 0 && k.child != nil {
		_ = k.child.Kill() // the request is carried out all the same
	}
	k.mu.Unlock()
	k.sim.ServeHTTP(w, r)
}

// life lets one worker work. It reports whether the worker came to the end.
func (k *killRun) life(kill bool) bool {
	k.Helper()
	if k.task.Known = k.task.Rows; kill {
		k.task.Rows += 60 + k.rnd.IntN(60)
	}
	k.task.KillAt = 0
	calls := 0
	switch {
	case kill && k.rnd.IntN(2) == 0:
		k.task.KillAt = 1 + k.rnd.IntN(25)
	case kill:
		calls = 1 + k.rnd.IntN(12)
	}
	text, err := json.Marshal(k.task)
	if err != nil {
		k.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerVariable+"="+string(text))
	var told bytes.Buffer
	cmd.Stderr = &told
	k.mu.Lock()
	k.calls = calls
	err = cmd.Start()
	k.child = cmd.Process
	k.mu.Unlock()
	if err != nil {
		k.Fatal(err)
	}
	err = cmd.Wait()
	k.mu.Lock()
	k.calls, k.child = 0, nil
	k.mu.Unlock()
	if told.Len() > 0 {
		k.Logf("worker: %v: %s", err, &told)
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return true
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		k.killed++
	}
	return false
}

// check compares what the vendor has, and how it came to that, with the log.
func (k *killRun) check() {
	k.sim.Settle()
	o := vendorObjects[k.task.Vendor]
	want := map[string]row{}
	log := killLog(&k.task)
	for _, part := range log {
		for _, r := range part {
			mail := fmt.Sprintf("c%d@x.io", r.id)
			if want[mail] = r; r.op == record.OpDelete {
				delete(want, mail)
			}
		}
	}
	ghosts := 0
	for _, r := range k.sim.Records(o.object) {
		w, ok := want[r.Fields[o.match]]
		delete(want, r.Fields[o.match])
		switch {
		case !ok:
			ghosts++
		case r.Fields[o.value] != strconv.FormatInt(w.v, 10) || r.Fields[o.note] != w.note:
			k.Errorf("%s has %s %s, want %d %s", r.Fields[o.match], r.Fields[o.value], r.Fields[o.note], w.v, w.note)
		}
	}
	for mail := range want {
		k.Errorf("%s is missing", mail)
	}
	k.checkJournal(o)
	store, err := state.Open(k.Context(), "sqlite:"+k.task.State)
	if err != nil {
		k.Fatal(err)
	}
	defer store.Close()
	st, err := store.Connection(k.Context(), "crm."+o.object)
	if err != nil {
		k.Fatal(err)
	}
	marks, err := st.Marks(k.Context())
	if err != nil {
		k.Fatal(err)
	}
	var sum state.Outcomes
	for p, m := range marks {
		if m.Outcomes.Total() != int64(len(log[p])) || m.Counts.Read != int64(len(log[p])) { // Invariant 5
			k.Errorf("partition %d has %d rows, its outcomes are %+v", p, len(log[p]), m.Outcomes)
		}
		sum.Add(m.Outcomes)
	}
	calls, _ := k.sim.Requests()
	k.Logf("%d kills, %d rows, %d calls, %d changes at the vendor, outcomes %+v, %d records of deleted rows left", k.killed, k.task.Rows, calls, len(k.sim.Journal()), sum, ghosts)
}

// checkJournal demands that values only rise, and that no record is made while
// there is one with its match value.
func (k *killRun) checkJournal(o vendorObject) {
	newest, there := map[string]int{}, map[string]bool{}
	for _, w := range k.sim.Journal() {
		match := w.Fields[o.match]
		switch w.Op {
		case "create":
			if there[match] {
				k.Errorf("%s was created twice", match)
			}
			there[match] = true
		case "delete":
			there[match] = false
			continue
		}
		v, err := strconv.Atoi(w.Fields[o.value])
		if err != nil || v < newest[match] {
			k.Errorf("%s went from %d back to %s", match, newest[match], w.Fields[o.value])
		}
		newest[match] = v
	}
}

var _ Destination = (*spec.Destination)(nil)
