package activation

import (
	"context"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/destinationtest"
	"github.com/sluice-data/sluice/activation/spec"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/record"
)

// counted is a destination whose calls are counted; looks at jobs wait for the gate.
type counted struct {
	*spec.Destination
	mu                sync.Mutex
	sent, jobs, polls int
	gate              chan struct{}
	looked            chan struct{} // closed at the first look
	once              sync.Once
}

func (c *counted) Send(ctx context.Context, r delivery.Request) []delivery.Result {
	c.mu.Lock()
	c.sent += len(r.Changes)
	c.mu.Unlock()
	return c.Destination.Send(ctx, r)
}

func (c *counted) Submit(ctx context.Context, r delivery.Request, save func(string) error) ([]delivery.Result, error) {
	c.mu.Lock()
	c.jobs++
	c.mu.Unlock()
	return c.Destination.Submit(ctx, r, save)
}

func (c *counted) Poll(ctx context.Context, r delivery.Request, job string) ([]delivery.Result, bool, error) {
	c.once.Do(func() { close(c.looked) })
	select {
	case <-c.gate:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	c.mu.Lock()
	c.polls++
	c.mu.Unlock()
	return c.Destination.Poll(ctx, r, job)
}

func (c *counted) tally() (sent, jobs int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent, c.jobs
}

// jobWorld is a world whose destination is a vendor with jobs.
func jobWorld(t *testing.T, vendor string, f destinationtest.Faults) (*world, *counted, *destinationtest.Simulator) {
	sim, err := destinationtest.New(vendor, destinationtest.Options{Requests: 1 << 30, Daily: 1 << 30, Faults: f})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(sim)
	t.Cleanup(func() { sim.Settle(); server.Close() })
	d, err := openVendor(vendor, server.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg := vendorObjects[vendor].config()
	cfg.BulkAbove, cfg.JobPoll, cfg.JobBlind, cfg.Ambiguous = 50, time.Millisecond, 300*time.Millisecond, 600*time.Millisecond
	w := &world{t: t, cfg: cfg, fake: newFake(t, 1), address: "sqlite:" + filepath.Join(t.TempDir(), "state.db"), marks: map[int32]record.Mark{}}
	dest := &counted{Destination: d, gate: make(chan struct{}), looked: make(chan struct{})}
	w.dest = dest
	w.open()
	t.Cleanup(w.close)
	return w, dest, sim
}

// noJobs waits until no job is written down: one is struck out after its keys
// are settled.
func (w *world) noJobs() {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		left, err := w.s.lease.Jobs(context.Background())
		if err == nil && len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d jobs are written down, error %v", len(left), err)
		}
	}
}

// loaded are the rows of a backfill.
func loaded(n, v int64) (rows []row) {
	for id := range n {
		r := customer(id, v)
		r.op = record.OpRead
		rows = append(rows, r)
	}
	return rows
}

// holdsRows demands of the vendor the value of every key, and that each was
// written so often.
func holdsRows(t *testing.T, sim *destinationtest.Simulator, vendor string, want map[int64]int64, writes int) {
	t.Helper()
	sim.Settle()
	o := vendorObjects[vendor]
	got := map[string]string{}
	for _, r := range sim.Records(o.object) {
		got[r.Fields[o.match]] = r.Fields[o.value]
	}
	if len(got) != len(want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
	for id, v := range want {
		if mail := fmt.Sprintf("c%d@x.io", id); got[mail] != strconv.FormatInt(v, 10) {
			t.Errorf("%s has %q, want %d", mail, got[mail], v)
		}
	}
	if n := len(sim.Journal()); n != writes {
		t.Errorf("the vendor has written %d times, want %d", n, writes)
	}
}

func valuesOf(n, v int64) map[int64]int64 {
	want := map[int64]int64{}
	for id := range n {
		want[id] = v
	}
	return want
}

func TestBackfillGoesByAJob(t *testing.T) {
	for _, vendor := range []string{"salesforce", "klaviyo"} {
		t.Run(vendor, func(t *testing.T) {
			w, dest, sim := jobWorld(t, vendor, destinationtest.Faults{})
			close(dest.gate)
			w.deliver(loaded(400, 1)...)
			if sent, jobs := dest.tally(); sent != 0 || jobs != 1 {
				t.Errorf("%d records sent and %d jobs, want one job", sent, jobs)
			}
			w.want(state.Outcomes{Applied: 400})
			holdsRows(t, sim, vendor, valuesOf(400, 1), 400)
			w.deliver(loaded(400, 1)...)
			w.want(state.Outcomes{Applied: 400, Unchanged: 400})
			w.deliver(loaded(20, 2)...) // too few
			if sent, jobs := dest.tally(); sent != 20 || jobs != 1 {
				t.Errorf("%d records sent and %d jobs, want 20 and no second one", sent, jobs)
			}
			w.noJobs()
		})
	}
}

func TestRowsThatAJobLeavesAreSentAgain(t *testing.T) {
	w, dest, sim := jobWorld(t, "salesforce", destinationtest.Faults{Seed: 1, JobFails: 1})
	close(dest.gate)
	w.deliver(loaded(400, 1)...)
	w.want(state.Outcomes{Applied: 400})
	holdsRows(t, sim, "salesforce", valuesOf(400, 1), 400)
}

func TestTheStreamWaitsForTheJobOfItsKey(t *testing.T) {
	for _, vendor := range []string{"salesforce", "klaviyo"} {
		t.Run(vendor, func(t *testing.T) {
			w, dest, sim := jobWorld(t, vendor, destinationtest.Faults{})
			w.write(loaded(100, 1)...)
			flushed := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				_, err := w.s.Flush(ctx, w.marks)
				flushed <- err
			}()
			<-dest.looked // the job is under way
			if _, err := w.s.Write(t.Context(), batchOf(0, 100, row{op: record.OpUpdate, id: 7, email: "c7@x.io", v: 9, note: "n", consent: true, lsn: 200})); err != nil {
				t.Fatal(err)
			}
			w.s.mu.Lock()
			early := w.s.keys[w.key(7)].flight.op != delivery.Upsert || len(w.s.keys[w.key(7)].pending) != 1
			w.s.mu.Unlock()
			if sent, _ := dest.tally(); sent != 0 || early {
				t.Errorf("a newer value of a key in the job does not wait")
			}
			close(dest.gate)
			if err := <-flushed; err != nil {
				t.Fatal(err)
			}
			want := valuesOf(100, 1)
			want[7] = 9
			holdsRows(t, sim, vendor, want, 101)
		})
	}
}

// key returns the key of a customer.
func (w *world) key(id int64) state.Key {
	m, err := w.s.mapping(customers)
	if err != nil {
		w.t.Fatal(err)
	}
	k, _ := m.key(batchOf(0, 0, customer(id, 1)), 0)
	return k
}

// A crash at any point of a job: the next owner asks what became of it, and
// nothing that it took is uploaded a second time.
func TestAJobSurvivesACrash(t *testing.T) {
	for _, vendor := range []string{"salesforce", "klaviyo"} {
		for _, point := range []string{JobWritten, JobNamed, JobSubmitted, JobDone, JobStored} {
			t.Run(vendor+" "+point, func(t *testing.T) {
				t.Parallel()
				w, dest, sim := jobWorld(t, vendor, destinationtest.Faults{})
				close(dest.gate)
				died := make(chan struct{})
				var once sync.Once
				w.hook = func(at string) {
					if at == point {
						once.Do(func() {
							w.s.mu.Lock()
							w.s.fail(record.ErrFenced) // nothing is stored or sent any more
							w.s.closed = true
							w.s.mu.Unlock()
							close(died)
						})
					}
				}
				w.close()
				w.open()
				rows := loaded(100, 1)
				w.write(rows...)
				if err := w.tryFlush(); err == nil && point != JobStored {
					t.Fatal("the flush of a process that has died")
				} else if err == nil {
					rows = nil // it was quicker
				}
				<-died
				w.s.done.Wait()
				w.sink()
				newer := customer(7, 9)
				newer.op = record.OpUpdate
				for i := range rows {
					rows[i].lsn = 0
				}
				w.write(append(rows, newer)...)
				w.flush()
				want := valuesOf(100, 1)
				want[7] = 9
				writes := 101
				if vendor == "salesforce" && (point == JobWritten || point == JobNamed) || point == JobWritten {
					writes = 100 // nothing was uploaded: the newer value took the place of the older
				}
				holdsRows(t, sim, vendor, want, writes)
				if o := w.outcomes(); o.Total() != 101 || o.Applied+o.Unchanged+o.Superseded != 101 {
					t.Errorf("outcomes %+v are not those of 101 rows", o)
				}
				w.noJobs()
			})
		}
	}
}
