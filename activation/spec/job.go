package spec

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

// ErrJobGone is delivery.ErrJobGone.
var ErrJobGone = delivery.ErrJobGone

// Bulk returns how many changes, and bytes of them, a job for the operation
// takes; ok is false if the vendor has none.
func (d *Destination) Bulk(object string, op delivery.Operation) (items, bytes int, ok bool) {
	o := d.spec.Object(object)
	if o == nil || o.bulk[op] == nil {
		return 0, 0, false
	}
	limit := o.bulk[op].Batch
	return limit.Items, limit.Bytes, true
}

// Submit hands the changes of r to a job. save is called with the job's id as
// soon as the vendor has given one and before anything is uploaded where the
// vendor allows that; after a crash Poll goes on with the saved id. Results are
// given if everything is decided at once and there is no job. With an error
// nothing is known to have been started; what save was given is to be aborted.
func (d *Destination) Submit(ctx context.Context, r delivery.Request, save func(job string) error) ([]delivery.Result, error) {
	b, results, err := d.bulk(r)
	if err != nil {
		return nil, err
	}
	if len(b.entries) == 0 {
		return results, nil
	}
	if b.action.Driver == "job_json" {
		return b.submitJSON(ctx, results, save)
	}
	return nil, b.submitCSV(ctx, save)
}

// bulk prepares the batch of a job.
func (d *Destination) bulk(r delivery.Request) (*batch, []delivery.Result, error) {
	o := d.spec.Object(r.Object)
	if o == nil || o.bulk[r.Operation] == nil {
		return nil, nil, fmt.Errorf("%s has no job to %s %s", d.spec.Name, r.Operation, r.Object)
	}
	results := make([]delivery.Result, len(r.Changes))
	b := &batch{d: d, object: o, name: r.Object, op: r.Operation, lane: r.Lane, action: o.bulk[r.Operation]}
	for i := range r.Changes {
		b.entries = append(b.entries, &entry{change: r.Changes[i], result: &results[i], action: b.action})
	}
	b.withReferenceFields()
	return b, results, nil
}

// step makes one call of a job.
func (b *batch) step(ctx context.Context, s *Step, job string, body []byte) *answer {
	sc := b.scope()
	sc.job = job
	if len(b.entries) > 0 {
		sc.change = &b.entries[0].change
	}
	c := call{lane: b.lane, op: b.op, endpoint: s.Endpoint, method: s.Method, kind: s.Type, url: expand(s.Path, sc, nil), headers: b.action.Headers, body: body, limit: maxResults}
	if c.kind == "" {
		c.kind = b.d.mediaType()
	}
	if c.kind == "text/csv" || s.Method == "GET" {
		c.headers = with(c.headers, "Accept", "*/*")
	}
	if body == nil && !s.body.empty() {
		c.body = s.body.append(nil, sc)
	}
	return b.d.exchange(ctx, c)
}

// stepError says what the answer to a step means; nil if it went well.
func (b *batch) stepError(what string, a *answer) error {
	switch {
	case a.auth:
		return fmt.Errorf("%s: %w", what, &refusal{delivery.Result{Outcome: delivery.Auth, Message: a.err.Error()}})
	case a.err != nil:
		return fmt.Errorf("%s: %w", what, a.err)
	case a.status >= 200 && a.status < 300:
		return nil
	}
	r := b.d.result(a, b.d.spec.judge(a, b.op), b.op, b.changes())
	if a.status == 404 {
		return fmt.Errorf("%s: %w", what, ErrJobGone)
	}
	return fmt.Errorf("%s: %w", what, &refusal{r})
}

// submitCSV is the first half of the driver job_csv.
func (b *batch) submitCSV(ctx context.Context, save func(string) error) error {
	j := b.action.Job
	a := b.step(ctx, j.Create, "", nil)
	if err := b.stepError("create job", a); err != nil {
		return err
	}
	id := text(find(a.doc, j.ID, ""))
	if !wellFormedID.MatchString(id) {
		return errors.New("create job: the answer names no job")
	}
	// From here on a crash finds the job: it is aborted or polled, never
	// uploaded a second time.
	if err := save(id); err != nil {
		return fmt.Errorf("save job: %w", err)
	}
	if err := b.stepError("upload to job", b.step(ctx, j.Upload, id, b.csv())); err != nil {
		return err
	}
	a = b.step(ctx, j.Close, id, nil)
	if a.err != nil && a.sent {
		return nil // whether it was started shows in the first poll
	}
	return b.stepError("start job", a)
}

// csv writes the changes as a table: a cell that is empty leaves the field as
// it is, the spec's null empties it.
func (b *batch) csv() []byte {
	var names []string
	seen := map[string]bool{}
	add := func(name string) {
		if name != "" && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	byID := b.action.Needs == "id"
	if byID {
		add("Id")
	}
	for _, e := range b.entries {
		if !byID {
			add(e.change.Match.Name)
		}
		for i := range e.change.Fields {
			add(e.change.Fields[i].Name)
		}
	}
	at := make(map[string]int, len(names))
	for i, n := range names {
		at[n] = i
	}
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	_ = w.Write(names) // a buffer takes everything
	row := make([]string, len(names))
	for _, e := range b.entries {
		clear(row)
		if byID {
			row[0] = e.change.ID
		} else if e.change.Match.Name != "" {
			row[at[e.change.Match.Name]] = scalarText(e.change.Match.Value)
		}
		for i := range e.change.Fields {
			f := &e.change.Fields[i]
			v := joinedText(f.Value, b.object.Join)
			if f.Clear || string(f.Value) == "null" || v == "" {
				v = b.action.Job.Null
			}
			row[at[f.Name]] = v
		}
		_ = w.Write(row)
	}
	w.Flush()
	return out.Bytes()
}

// submitJSON is the first half of the driver job_json. The vendor checks the
// records at once and refuses all for one: the culprits it names are taken out
// and the rest is sent again.
func (b *batch) submitJSON(ctx context.Context, results []delivery.Result, save func(string) error) ([]delivery.Result, error) {
	j := b.action.Job
	b.entries = slices.DeleteFunc(slices.Clone(b.entries), func(e *entry) bool {
		if limit := b.action.Batch.Bytes; limit > 0 && len(b.renderItem(b.scope(), e, 0))+envelopeBytes > limit {
			e.settle(delivery.Result{Outcome: delivery.Rejected, VendorCode: "TOO_LARGE", Message: "the record is larger than a job"})
		}
		return e.done
	})
	if len(b.entries) == 0 {
		return results, nil
	}
	s := b.scope()
	for i, e := range b.entries {
		s.items = append(s.items, b.renderItem(s, e, i))
	}
	a := b.step(ctx, j.Create, "", j.Create.body.append(nil, s))
	if refused := b.action.Response.Refused; a.err == nil && refused != nil && slices.Contains(refused.Status, a.status) {
		// Which of the changes a job holds must follow from the request alone:
		// a refused one ends here, the caller sends the others anew.
		again := b.settleBatch(a)
		for _, e := range again {
			e.settle(delivery.Result{Outcome: delivery.Retry, Status: a.status, RequestID: a.request, Message: "not sent: other records of its batch were refused"})
		}
		return results, nil
	}
	if err := b.stepError("create job", a); err != nil {
		return nil, err
	}
	id := text(find(a.doc, j.ID, ""))
	if !wellFormedID.MatchString(id) {
		return nil, errors.New("create job: the answer names no job")
	}
	if err := save(id); err != nil {
		return nil, fmt.Errorf("save job: %w", err)
	}
	return nil, nil
}

// Poll looks at a job once. done is false while the vendor works on it. r is
// what Submit was given; it may be read again from where the caller keeps it.
// ErrJobGone means that nothing of the job counts.
func (d *Destination) Poll(ctx context.Context, r delivery.Request, job string) (results []delivery.Result, done bool, err error) {
	b, results, err := d.bulk(r)
	if err != nil {
		return nil, false, err
	}
	j := b.action.Job
	a := b.step(ctx, j.Poll, job, nil)
	if err := b.stepError("poll job", a); err != nil {
		return nil, false, err
	}
	state := text(find(a.doc, j.State, ""))
	failedHalfWay := slices.Contains(j.Failed, state)
	switch {
	case slices.Contains(j.Open, state):
		return nil, false, fmt.Errorf("poll job: state %s: %w", cleanCode(state), ErrJobGone)
	case !slices.Contains(j.Done, state) && !failedHalfWay:
		return nil, false, nil
	case b.action.Driver == "job_csv":
		err = b.resultsCSV(ctx, job)
	default:
		err = b.resultsJSON(ctx, a, job)
	}
	if err != nil {
		return nil, false, err
	}
	for _, e := range b.entries {
		if !e.done { // in none of the lists
			e.settle(delivery.Result{Message: "the job's results do not name the record"})
		}
	}
	return results, true, nil
}

// Abort gives up a job that was not started; a job that is gone is aborted.
func (d *Destination) Abort(ctx context.Context, r delivery.Request, job string) error {
	b, _, err := d.bulk(r)
	if err != nil || b.action.Job.Abort == nil {
		return err
	}
	err = b.stepError("abort job", b.step(ctx, b.action.Job.Abort, job, nil))
	if errors.Is(err, ErrJobGone) {
		return nil
	}
	return err
}

// resultsCSV reads the three files of a finished job: taken, refused and not
// worked on.
func (b *batch) resultsCSV(ctx context.Context, job string) error {
	res := b.action.Job.Results
	byKey := make(map[string][]*entry, len(b.entries))
	for _, e := range b.entries {
		k := b.rowKey(e)
		byKey[k] = append(byKey[k], e)
	}
	lists := []struct {
		step *Step
		make func(row map[string]string, e *entry) delivery.Result
	}{
		{res.Applied, func(row map[string]string, e *entry) delivery.Result {
			return delivery.Result{Outcome: delivery.Applied, Status: 200, ID: b.knownID(e, row[res.ID]), Created: row[res.Created] == "true"}
		}},
		{res.Rejected, func(row map[string]string, e *entry) delivery.Result {
			code, message, _ := strings.Cut(row[res.Error], ":")
			code = cleanCode(code)
			v := b.d.spec.judgeRow(200, b.op, code, message, nil)
			return delivery.Result{Outcome: v.outcome(b.op), Status: 200, VendorCode: code, RetryAfter: v.wait,
				Message: scrub(message, []*delivery.Change{&e.change})}
		}},
		{res.Unprocessed, func(map[string]string, *entry) delivery.Result {
			return delivery.Result{Outcome: delivery.Retry, Status: 200, VendorCode: "UNPROCESSED", Message: "the job ended before it came to the record"}
		}},
	}
	for _, l := range lists {
		a := b.step(ctx, l.step, job, nil)
		if err := b.stepError("read results of job", a); err != nil {
			return err
		}
		if err := b.readCSV(a.body, func(row map[string]string) {
			key := b.rowKeyOf(row)
			group := byKey[key]
			if len(group) == 0 {
				return
			}
			e := group[0]
			byKey[key] = group[1:]
			e.settle(l.make(row, e))
		}); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) rowKey(e *entry) string {
	if b.action.Needs == "id" {
		return "id " + e.change.ID
	}
	return e.change.Match.Name + " " + b.object.folded(scalarText(e.change.Match.Value))
}

func (b *batch) rowKeyOf(row map[string]string) string {
	if b.action.Needs == "id" {
		if id := row["Id"]; id != "" {
			return "id " + id
		}
		return "id " + row[b.action.Job.Results.ID]
	}
	name := b.entries[0].change.Match.Name
	return name + " " + b.object.folded(row[name])
}

// readCSV calls row for every line below the header. A table that ends within
// a line is an error: it was cut off.
func (b *batch) readCSV(body []byte, row func(map[string]string)) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	r := csv.NewReader(bytes.NewReader(body))
	names, err := r.Read()
	if err != nil {
		return fmt.Errorf("read results of job: header: %w", err)
	}
	m := make(map[string]string, len(names))
	for line := 2; ; line++ {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read results of job: line %d is no table row", line) // the reader's error holds no value, its column would not help
		}
		clear(m)
		for i := range cells {
			m[names[i]] = cells[i]
		}
		row(m)
	}
}

// resultsJSON reads the failures of a finished job. What is not among them was
// taken only if the job's own counts say so.
func (b *batch) resultsJSON(ctx context.Context, state *answer, job string) error {
	res := b.action.Job.Results
	step := *res.Rejected
	refused := 0
	for pages := 0; pages < 1000; pages++ {
		a := b.step(ctx, &step, job, nil)
		if err := b.stepError("read failures of job", a); err != nil {
			return err
		}
		if a.doc == nil {
			return errors.New("read failures of job: the answer cannot be read")
		}
		for i, m := range b.mark(a, res.Rows) {
			if m.named > 0 && !b.entries[i].done {
				b.entries[i].settle(b.refusedRow(a, res.Rows, m, b.entries[i]))
				refused++
			}
		}
		next := text(find(a.doc, res.Next, ""))
		if res.Next == "" || next == "" {
			break
		}
		if !strings.HasPrefix(next, b.d.base) {
			return errors.New("read failures of job: the next page is at another host")
		}
		step.Path = strings.NewReplacer("{", "%7B", "}", "%7D").Replace(strings.TrimPrefix(next, b.d.base))
	}
	total, ok1 := number(find(state.doc, res.Total, ""))
	completed, ok2 := number(find(state.doc, res.Completed, ""))
	failed, ok3 := number(find(state.doc, res.Failed, ""))
	allTold := ok1 && ok2 && ok3 && total == len(b.entries) && completed == total-failed && failed == refused
	for _, e := range b.entries {
		switch {
		case e.done:
		case allTold:
			e.settle(delivery.Result{Outcome: delivery.Applied, Status: state.status, ID: e.change.ID})
		default:
			e.settle(delivery.Result{Status: state.status, Message: fmt.Sprintf("the job counts %d of %d records as taken and names %d of %d failures", completed, len(b.entries), refused, failed)})
		}
	}
	return nil
}

// runJob is a job as part of Send: submitted and waited for. If ctx ends in
// between nobody knows what becomes of its records.
func (b *batch) runJob(ctx context.Context) {
	r := delivery.Request{Object: b.name, Operation: b.op, Lane: b.lane}
	for _, e := range b.entries {
		r.Changes = append(r.Changes, e.change)
	}
	job := ""
	results, err := b.d.Submit(ctx, r, func(id string) error { job = id; return nil })
	for done := results != nil; err == nil && !done; {
		if results, done, err = b.d.Poll(ctx, r, job); err != nil || done {
			break
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(b.d.poll):
		}
	}
	for i, e := range b.entries {
		if err == nil {
			e.settle(results[i])
			continue
		}
		out := failed(err)
		if job != "" && !errors.Is(err, ErrJobGone) {
			out = delivery.Result{Message: err.Error()}
		}
		e.settle(out)
	}
}
