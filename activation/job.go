package activation

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
)

// Jobs is a Destination whose vendor takes many records of a backfill at once,
// works on them by itself and tells later what became of them.
type Jobs interface {
	// Bulk returns how many records, and bytes of them, a job takes.
	Bulk(object string, op delivery.Operation) (items, bytes int, ok bool)

	// Submit starts a job. It calls save with the vendor's id of the job before
	// it uploads, where the vendor allows that, and uploads nothing if save
	// fails. It returns results if all is decided at once and there is no job.
	Submit(ctx context.Context, r delivery.Request, save func(job string) error) ([]delivery.Result, error)

	// Poll asks for the results of a job, which are there once done is true.
	// The error delivery.ErrJobGone says that nothing of it was or will be
	// carried out once it is aborted.
	Poll(ctx context.Context, r delivery.Request, job string) (results []delivery.Result, done bool, err error)

	// Abort gives up a job that was not started; one that is gone is aborted.
	Abort(ctx context.Context, r delivery.Request, job string) error
}

// The points of a job at which a crash test may stop the process.
const (
	JobWritten   = "activation.job-written"   // in the state, the vendor knows nothing
	JobNamed     = "activation.job-named"     // the vendor has given an id, nothing is uploaded where it allows that
	JobSubmitted = "activation.job-submitted" // the vendor works on it
	JobDone      = "activation.job-done"      // its results are here, nothing is stored
	JobStored    = "activation.job-stored"    // its results are stored, it is still written down
)

// bulk is what a connection may hand to jobs of the vendor; no items = nothing.
type bulk struct {
	jobs         Jobs
	items, bytes int
}

// bulk returns what jobs of the destination take.
func (c *Connection) bulk() (b bulk) {
	if c.cfg.BulkAbove <= 0 || c.cfg.Operation != delivery.Upsert || len(c.cfg.References) > 0 {
		return b
	}
	jobs, ok := c.dest.(Jobs)
	if !ok {
		return b
	}
	items, bytes, ok := jobs.Bulk(c.cfg.Object, delivery.Upsert)
	if !ok || items < c.cfg.BulkAbove {
		return b
	}
	if bytes /= 2; bytes <= 0 { // the vendor's way to write a record is longer than ours
		bytes = 8 << 20
	}
	return bulk{jobs: jobs, items: items, bytes: bytes}
}

// openJob is a job that is written down.
type openJob struct {
	state.Job
	req     delivery.Request
	flights []*flight // nil if an earlier owner has started it
	left    int       // rows of it that were not read again yet
	running bool      // somebody asks for its results
	waiting []*entry  // of its keys
}

// loadJobs makes the jobs of earlier owners known: until their results are
// here nothing of their keys is sent. s.mu is held.
func (s *Sink) loadJobs(jobs []state.Job, parts []int32, marks map[int32]state.Mark) {
	for _, j := range jobs {
		ours := func(r state.JobRow) bool { return slices.Contains(parts, r.Part) }
		if !slices.ContainsFunc(j.Rows, ours) {
			continue
		}
		o := &openJob{Job: j, req: delivery.Request{Object: s.cfg.Object, Operation: delivery.Upsert, Lane: delivery.Backfill, Changes: make([]delivery.Change, len(j.Rows))}}
		for i := range j.Rows {
			o.req.Changes[i] = delivery.Change{Key: string(j.Rows[i].Key[:]), Match: delivery.Field{Name: s.cfg.Match.Name}}
			if r := j.Rows[i]; ours(r) && r.Offset >= marks[r.Part].Next { // others are settled
				s.locked[j.Rows[i].Key] = lock{o, i}
				o.left++
			}
		}
		s.jobs = append(s.jobs, o)
	}
}

// lock is a key's place in an open job.
type lock struct {
	job *openJob
	row int
}

// recall fills in what a job that an earlier owner has started must be asked
// with: the state holds no values, but the rows are read again. s.mu is held.
func (s *Sink) recall(it *item) {
	l, ok := s.locked[it.key]
	if !ok {
		return
	}
	r, c := &l.job.Rows[l.row], &l.job.req.Changes[l.row]
	if it.part == r.Part && it.offset == r.Offset && it.match != nil && c.Match.Value == nil {
		c.Match.Value = slices.Clone(it.match)
		l.job.left--
	}
}

// resumeJobs returns the jobs of earlier owners that can be asked for. A flush
// does not wait for rows that have not been read again yet: these are sent once
// more when they come, after the job. s.mu is held.
func (s *Sink) resumeJobs() (out []*batch) {
	for _, j := range s.jobs {
		if !j.running && (j.left == 0 || s.flushing) {
			j.running = true
			out = append(out, &batch{job: j})
		}
	}
	return out
}

// jobOf makes a batch a job. s.mu is held.
func (s *Sink) jobOf(b *batch) {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	j := &openJob{Job: state.Job{Name: hex.EncodeToString(id[:]), At: s.now()}, flights: b.flights, running: true,
		req: delivery.Request{Object: s.cfg.Object, Operation: b.op, Lane: b.lane, Changes: make([]delivery.Change, len(b.flights))}}
	for i, f := range b.flights {
		j.req.Changes[i] = f.change
		r := state.JobRow{Key: f.it.key, Match: f.it.matchID, Row: f.it.row, Part: f.it.part, Offset: f.it.offset, Pos: f.it.pos}
		for _, h := range f.hashes {
			r.Fields = r.Fields.Append(h.tag, h.hash)
		}
		j.Rows = append(j.Rows, r)
	}
	b.job = j
}

// deliverJob carries a job out, or asks for what became of one.
func (s *Sink) deliverJob(j *openJob) {
	var results []delivery.Result
	var err error
	if j.flights != nil {
		results, err = s.submit(j)
	}
	if results == nil && err == nil {
		results, err = s.await(j)
	}
	if err == nil {
		s.point(JobDone)
	}
	s.mu.Lock()
	if s.ctx.Err() != nil || err != nil && !errors.Is(err, delivery.ErrJobGone) {
		for _, f := range j.flights {
			s.back(f.e, f.it)
		}
		if s.ctx.Err() == nil {
			s.fail(err)
		}
		s.mu.Unlock()
		return // it stays written down: the next owner asks for it
	}
	s.settleJob(j, results)
	s.mu.Unlock()
	if err = s.save(s.ctx, nil); err == nil {
		s.point(JobStored)
		err = s.lease.CloseJob(s.ctx, j.Name)
	}
	if err != nil && s.ctx.Err() == nil {
		s.mu.Lock()
		s.fail(err)
		s.mu.Unlock()
	}
}

// submit starts a job. Without results and error it is to be waited for.
func (s *Sink) submit(j *openJob) ([]delivery.Result, error) {
	if err := s.lease.OpenJob(s.ctx, j.Job); err != nil {
		return nil, err
	}
	s.point(JobWritten)
	results, err := s.c.bulk().jobs.Submit(s.ctx, j.req, func(vendor string) error {
		j.Vendor = vendor
		err := s.lease.NameJob(s.ctx, j.Job, vendor)
		s.point(JobNamed)
		return err
	})
	s.point(JobSubmitted)
	if err == nil || s.ctx.Err() != nil {
		return results, err
	}
	var refused interface{ Result() delivery.Result }
	if errors.As(err, &refused) && j.Vendor == "" { // the vendor has said no
		return slices.Repeat([]delivery.Result{refused.Result()}, len(j.Rows)), nil
	}
	return nil, nil // whether it was started shows when it is asked for
}

// await asks for the results of a job until they are there. The error
// delivery.ErrJobGone says that nothing of it counts.
func (s *Sink) await(j *openJob) ([]delivery.Result, error) {
	jobs, able := s.c.dest.(Jobs)
	if j.Vendor == "" || !able {
		// Nobody knows whether it was started, nor its id: nothing of its keys is
		// sent while it may be carried out.
		if err := s.sleep(j.At.Add(s.cfg.JobBlind).Sub(s.now())); err != nil {
			return nil, err
		}
		return nil, delivery.ErrJobGone
	}
	var failing time.Time
	for {
		results, done, err := jobs.Poll(s.ctx, j.req, j.Vendor)
		if errors.Is(err, delivery.ErrJobGone) {
			if err = jobs.Abort(s.ctx, j.req, j.Vendor); err == nil { // an open one must not be started by anybody any more
				return nil, delivery.ErrJobGone
			}
		}
		switch {
		case done && err == nil:
			return results, nil
		case err == nil:
			failing = time.Time{}
		case failing.IsZero():
			failing = s.now()
		case s.now().Sub(failing) >= s.cfg.Patience:
			return nil, fmt.Errorf("%s: job: %w", s.cfg.Name, err)
		}
		if err := s.sleep(s.cfg.JobPoll); err != nil {
			return nil, err
		}
	}
}

// sleep waits, but not beyond the end of the sink.
func (s *Sink) sleep(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.ctx.Done():
		return s.ctx.Err()
	case <-timer.C:
		return nil
	}
}

// settleFlights settles the results of a job that this sink has started. What
// is to be sent again comes back at one time, for the next job. s.mu is held.
func (s *Sink) settleFlights(j *openJob, results []delivery.Result) {
	wait := s.backoff(1)
	if results == nil {
		results = slices.Repeat([]delivery.Result{{Outcome: delivery.Retry, Status: 404}}, len(j.flights))
	}
	refused := slices.ContainsFunc(results, func(r delivery.Result) bool { return r.Outcome == delivery.Rejected })
	for i, f := range j.flights {
		r := results[i]
		switch {
		case r.Outcome == delivery.Rejected && r.WholeBatch:
			f.it.lane = delivery.Stream // small requests find the culprit
			s.back(f.e, f.it)
		case r.Outcome == delivery.Retry && j.Vendor == "" && refused:
			s.back(f.e, f.it) // not sent, because of others: no attempt
		case r.Outcome == delivery.Retry:
			r.RetryAfter = wait
			s.settleOne(f, r)
		default:
			s.settleOne(f, r)
		}
	}
	s.poke()
}

// settleJob settles the results of a job, none if nothing of it counts. s.mu is held.
func (s *Sink) settleJob(j *openJob, results []delivery.Result) {
	if j.flights != nil {
		s.settleFlights(j, results)
		return
	}
	for i := range j.Rows {
		r := &j.Rows[i]
		delete(s.locked, r.Key)
		if e := s.keys[r.Key]; e != nil && i < len(results) && (results[i].Outcome == delivery.Applied || results[i].Outcome == delivery.Unchanged) {
			// What its rows are, which wait, is found by comparing them with this.
			k := &e.known
			if k.Gone {
				k.Gone, k.Owned, k.ID, k.Fields = false, false, "", nil
			}
			k.Row, k.Match, k.Owned, e.exists, e.doubt = r.Row, r.Match, k.Owned || results[i].Created, true, false
			if results[i].ID != "" {
				k.ID = results[i].ID
			}
			r.Fields.Each(func(tag uint32, hash uint64) { k.Fields = k.Fields.With(tag, hash) })
			k.Pos, k.Part, k.Offset, k.Outcome, k.Code = r.Pos, r.Part, r.Offset, results[i].Outcome, ""
			s.soil(e)
		}
	}
	s.jobs = slices.DeleteFunc(s.jobs, func(o *openJob) bool { return o == j })
	for _, e := range j.waiting {
		if !e.idle() && e.flight == nil {
			s.push(e)
		}
	}
	j.waiting = nil
}
