package spec

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/sluice-data/sluice/activation/delivery"
)

// rounds is how often a refused batch is sent again without the records that
// the refusal named.
const rounds = 3

// envelope is what a body holds besides its records, at most.
const envelopeBytes = 512

func (b *batch) scope() *scope {
	return &scope{object: b.object, name: b.name, operation: b.op, version: b.d.spec.API.Version}
}

// renderItem writes the i-th record of a request.
func (b *batch) renderItem(s *scope, e *entry, i int) []byte {
	s.change, s.trace, s.reference = &e.change, i, nil
	if len(e.change.References) > 0 {
		s.reference = &e.change.References[0]
	}
	if b.action.item.empty() {
		return nil
	}
	return b.action.item.append(nil, s)
}

// parts splits the entries into requests that the vendor's limits allow. A
// record that is too large on its own is rejected.
func (b *batch) parts() []*batch {
	limit := b.action.Batch
	var out []*batch
	s, size := b.scope(), 0
	for _, e := range b.entries {
		n := len(b.renderItem(s, e, len(b.entries))) + 1
		if limit.Bytes > 0 && n+envelopeBytes > limit.Bytes {
			e.settle(delivery.Result{Outcome: delivery.Rejected, VendorCode: "TOO_LARGE",
				Message: fmt.Sprintf("the record is larger than the %d bytes of a request", limit.Bytes)})
			continue
		}
		last := len(out) - 1
		if last < 0 || limit.Items > 0 && len(out[last].entries) >= limit.Items || limit.Bytes > 0 && size+n+envelopeBytes > limit.Bytes {
			out, size = append(out, b.with(b.action, nil)), 0
			last++
		}
		out[last].entries, size = append(out[last].entries, e), size+n
	}
	return out
}

// sendBatches is the driver json_batch.
func (b *batch) sendBatches(ctx context.Context) {
	for _, part := range b.parts() {
		for round := 0; len(part.entries) > 0 && round < rounds; round++ {
			a := part.exchange(ctx)
			again := part.settleBatch(a)
			if round == rounds-1 {
				for _, e := range again {
					e.settle(delivery.Result{Outcome: delivery.Retry, Status: a.status, RequestID: a.request, Message: "not sent: other records of its batch were refused"})
				}
			}
			part.entries = again
		}
	}
}

// body renders the request.
func (b *batch) body() []byte {
	s := b.scope()
	for i, e := range b.entries {
		s.items = append(s.items, b.renderItem(s, e, i))
	}
	if b.action.body.empty() {
		return nil
	}
	return b.action.body.append(nil, s)
}

func (b *batch) exchange(ctx context.Context) *answer {
	s := b.scope()
	var ids []string
	for _, e := range b.entries {
		ids = append(ids, e.change.ID)
	}
	s.change = &b.entries[0].change
	if len(b.entries[0].change.References) > 0 {
		s.reference = &b.entries[0].change.References[0]
	}
	c := call{lane: b.lane, op: b.op, endpoint: b.action.Endpoint, method: b.action.Method, kind: b.d.mediaType(),
		url: expand(b.action.Path, s, ids), headers: b.action.Headers, body: b.body(), signID: b.identity()}
	if b.action.Idempotency != "" {
		c.headers = with(c.headers, b.action.Idempotency, b.identity())
	}
	return b.d.exchange(ctx, c)
}

// identity is the same for every attempt to deliver the same changes.
func (b *batch) identity() string {
	if len(b.entries) == 1 {
		return shortened(b.entries[0].change.Idempotency)
	}
	h := sha256.New()
	for _, e := range b.entries {
		fmt.Fprintf(h, "%d:%s", len(e.change.Idempotency), e.change.Idempotency)
	}
	return "batch_" + hex.EncodeToString(h.Sum(nil)[:16])
}

// shortened keeps a key within what vendors take.
func shortened(key string) string {
	if len(key) <= 128 && wellFormedID.MatchString(key) {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16])
}

func with(headers map[string]string, name, value string) map[string]string {
	out := make(map[string]string, len(headers)+1)
	for k, v := range headers {
		out[k] = v
	}
	out[name] = value
	return out
}

func (d *Destination) mediaType() string {
	if kind := d.headers["Content-Type"]; kind != "" {
		return kind
	}
	return "application/json"
}

// settleBatch turns the answer to a batch into results, and returns the
// entries that are to be sent again because others were at fault.
func (b *batch) settleBatch(a *answer) []*entry {
	r := &b.action.Response
	switch {
	case a.err != nil:
		b.lost(a)
	case slices.Contains(r.OK, a.status):
		b.correlate(a)
	case r.Refused != nil && slices.Contains(r.Refused.Status, a.status):
		marks := b.mark(a, r.Refused)
		again := []*entry{}
		named := 0
		for i, e := range b.entries {
			if marks[i].named == 0 {
				again = append(again, e)
				continue
			}
			named++
			e.settle(b.refusedRow(a, r.Refused, marks[i], e))
		}
		if named > 0 {
			return again
		}
		b.settleAll(a)
	default:
		b.settleAll(a)
	}
	return nil
}

// lost settles what got no whole answer: if the request may have arrived,
// nobody knows what became of it.
func (b *batch) lost(a *answer) {
	r := delivery.Result{Outcome: delivery.Retry, Status: a.status, Message: a.err.Error(), RequestID: a.request}
	if a.sent {
		r.Outcome = delivery.Unknown
	}
	if a.auth {
		r.Outcome = delivery.Auth
	}
	for _, e := range b.entries {
		e.settle(r)
	}
}

// settleAll gives every entry the verdict about the whole answer.
func (b *batch) settleAll(a *answer) {
	v := b.d.spec.judge(a, b.op)
	r := b.d.result(a, v, b.op, b.changes())
	switch {
	case v.do == "reject_batch" && len(b.entries) > 1:
		r.WholeBatch = true
	case v.do == "missing" && len(b.entries) > 1, v.do == "missing" && b.action.Needs != "id":
		r.Outcome = delivery.Config // the object or the path is missing, not a record
	case v.do == "exists" && len(b.entries) > 1:
		r.Outcome, r.WholeBatch = delivery.Rejected, true
	}
	if r.Outcome == delivery.Retry && a.status >= 500 && !b.action.Idempotent {
		r.Outcome = delivery.Unknown // it may have been carried out before it broke
	}
	for _, e := range b.entries {
		e.settle(r)
	}
}

// result describes an answer as a whole.
func (d *Destination) result(a *answer, v verdict, op delivery.Operation, changes []*delivery.Change) delivery.Result {
	r := delivery.Result{Outcome: v.outcome(op), Status: a.status, RequestID: a.request, RetryAfter: v.wait}
	r.VendorCode, r.Message = d.reason(a, changes)
	if v.do == "throttle_daily" && r.RetryAfter == 0 {
		r.RetryAfter = untilMidnight(d.now())
	}
	return r
}

// reasons are where vendors put the code and the words of a refusal.
var reasons = [...]struct{ code, message string }{
	{"category", "message"}, {"errorCode", "message"}, {"error.code", "error.message"}, {"error.type", "error.message"},
	{"errors.0.code", "errors.0.detail"}, {"errors.0.code", "errors.0.message"}, {"0.errorCode", "0.message"},
	{"code", "message"}, {"error", "error_description"}, {"status", "message"},
}

// reason returns the vendor's code and words of a refusal.
func (d *Destination) reason(a *answer, changes []*delivery.Change) (code, message string) {
	for _, at := range reasons {
		c, m := cleanCode(text(find(a.doc, at.code, ""))), text(find(a.doc, at.message, ""))
		if code == "" && c != "" {
			code = c
		}
		if message == "" {
			message = m
		}
		if c != "" && m != "" {
			return c, scrub(m, changes)
		}
	}
	if code == "" {
		code = fmt.Sprintf("HTTP_%d", a.status)
	}
	return code, scrub(message, changes)
}
