package spec

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-data/sluice/activation/delivery"
)

// epochs is how often a saved answer of a broken attempt is left behind by a
// new idempotency key.
const epochs = 3

// sendSingle is the drivers json_single and form: one record per call.
func (b *batch) sendSingle(ctx context.Context, e *entry) {
	one := b.with(b.action, []*entry{e})
	for epoch := range epochs {
		a := one.exchangeSingle(ctx, epoch)
		if a.err == nil && a.status >= 500 && b.action.Replayed != "" && a.header.Get(b.action.Replayed) == "true" {
			// The vendor repeats the answer of an attempt that broke. Whether
			// that one created the record shows in a read, not in the answer.
			if one.adopt(ctx, e) || e.done {
				return
			}
			continue
		}
		one.settleSingle(ctx, a, e)
		return
	}
	e.settle(delivery.Result{Outcome: delivery.Unknown, Message: "the vendor repeats the answer of a broken attempt"})
}

// exchangeSingle makes the call for the only entry.
func (b *batch) exchangeSingle(ctx context.Context, epoch int) *answer {
	e := b.entries[0]
	s := b.scope()
	s.change = &e.change
	if len(e.change.References) > 0 {
		s.reference = &e.change.References[0]
	}
	s.items = [][]byte{b.renderItem(s, e, 0)}
	c := call{lane: b.lane, op: b.op, endpoint: b.action.Endpoint, method: b.action.Method, kind: b.d.mediaType(),
		url: expand(b.action.Path, s, []string{e.change.ID}), headers: b.action.Headers, signID: b.identity()}
	switch {
	case b.action.Driver == "form" && s.items[0] != nil:
		c.kind, c.body = "application/x-www-form-urlencoded", formBody(s.items[0])
	case !b.action.body.empty():
		c.body = b.action.body.append(nil, s)
	case s.items[0] != nil:
		c.body = s.items[0]
	}
	if limit := b.action.Batch.Bytes; limit > 0 && len(c.body) > limit {
		return &answer{status: 413, doc: map[string]any{"code": "TOO_LARGE", "message": fmt.Sprintf("the record is larger than the %d bytes of a request", limit)}}
	}
	if b.action.Idempotency != "" {
		key := b.identity()
		if b.action.Replayed != "" {
			// The vendor refuses one key for two calls: an update that follows
			// a create has its own.
			sum := sha256.Sum256([]byte(c.url))
			key += "-" + hex.EncodeToString(sum[:4]) + "-" + strconv.Itoa(epoch)
		}
		c.headers = with(c.headers, b.action.Idempotency, key)
	}
	return b.d.exchange(ctx, c)
}

// settleSingle turns the answer into the entry's result.
func (b *batch) settleSingle(ctx context.Context, a *answer, e *entry) {
	r := &b.action.Response
	if a.err != nil {
		b.lost(a)
		return
	}
	if slices.Contains(r.OK, a.status) {
		out := delivery.Result{Outcome: delivery.Applied, Status: a.status, RequestID: a.request, ID: e.change.ID}
		if r.ID != "" {
			if id := text(find(a.doc, r.ID, "")); id != "" {
				out.ID = id
			} else if a.doc == nil {
				out.Outcome, out.Message = delivery.Unknown, "the answer cannot be read"
			} else {
				out.Outcome, out.Message = delivery.Unknown, "the answer does not name the record"
			}
		}
		switch {
		case r.created != nil:
			out.Created = r.created.holds(&facts{status: a.status, operation: b.op.String(), body: a.doc})
		case r.Created != "":
			out.Created = text(find(a.doc, r.Created, "")) == "true"
		}
		e.settle(out)
		return
	}
	if v := b.d.spec.judge(a, b.op); v.do == "exists" && b.op != delivery.Insert && r.Conflict != nil {
		if m := r.Conflict.pattern; m != nil && e.change.ID == "" {
			if found := m.FindStringSubmatch(text(find(a.doc, r.Conflict.ID, ""))); found != nil && wellFormedID.MatchString(found[1]) {
				e.change.ID = found[1]
			}
		}
		if b.adopt(ctx, e) || e.done {
			return
		}
		code, message := b.d.reason(a, b.changes())
		// It exists, yet no index shows it so far: a create would be a duplicate.
		e.settle(delivery.Result{Outcome: delivery.Retry, Status: a.status, RequestID: a.request, VendorCode: code, Message: message})
		return
	}
	b.settleAll(a)
}

// adopt goes on with the update of a record that exists: false if none is
// found.
func (b *batch) adopt(ctx context.Context, e *entry) bool {
	if e.change.ID == "" {
		l := b.object.lookup(e.change.Match.Name)
		if l == nil {
			return false
		}
		value := scalarText(e.change.Match.Value)
		found, err := b.d.read(ctx, b.lane, b.name, e.change.Match.Name, []string{value}, []string{e.change.Match.Name})
		if err != nil {
			e.settle(failed(err))
			return false
		}
		if len(found) == 0 {
			return false
		}
		e.change.ID = found[0].ID
	}
	update := b.object.way(b.op, &e.change)
	if update == nil || update == b.action {
		return false
	}
	b.with(update, []*entry{e}).sendSingle(ctx, e)
	return true
}

// formBody writes a JSON object as a form: a.b becomes a[b], a list a[0].
func formBody(item []byte) []byte {
	form := url.Values{}
	flatten(form, "", decode(item))
	return []byte(form.Encode())
}

func flatten(form url.Values, name string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, kid := range v {
			at := k
			if name != "" {
				at = name + "[" + k + "]"
			}
			flatten(form, at, kid)
		}
	case []any:
		for i, kid := range v {
			flatten(form, name+"["+strconv.Itoa(i)+"]", kid)
		}
	case nil:
		form.Set(name, "")
	case json.Number:
		form.Set(name, v.String())
	case string:
		form.Set(name, v)
	case bool:
		form.Set(name, strconv.FormatBool(v))
	}
}

// associate ties the records of applied changes to others. The record is
// there already: only the tie can still fail, and then all is sent again.
func (b *batch) associate(ctx context.Context) {
	refs := b.object.References
	if refs == nil || refs.Field {
		return
	}
	type kind struct {
		action *Action
		object string
	}
	groups, order := map[kind]*batch{}, []kind{}
	owners := map[*entry]*entry{}
	for _, e := range b.entries {
		if o := e.result.Outcome; o != delivery.Applied && o != delivery.Unchanged || b.op == delivery.Delete || b.op == delivery.Archive {
			continue
		}
		for _, r := range e.change.References {
			k := kind{refs.Add, r.Object}
			switch {
			case r.Remove:
				k.action = refs.Remove
			case r.Type == "" && refs.Plain != nil:
				k.action = refs.Plain
			}
			if k.action == nil {
				e.settle(delivery.Result{Outcome: delivery.Config, VendorCode: "UNSUPPORTED", Message: "no such reference"})
				continue
			}
			if groups[k] == nil {
				groups[k], order = b.with(k.action, nil), append(order, k)
			}
			tie := &entry{change: delivery.Change{Key: e.change.Key, ID: e.result.ID, Idempotency: e.change.Idempotency, References: []delivery.Reference{r},
				Match: delivery.Field{Name: "reference", Value: appendText(nil, e.result.ID+">"+r.ID)}}, result: &delivery.Result{}}
			owners[tie] = e
			groups[k].entries = append(groups[k].entries, tie)
		}
	}
	for _, k := range order {
		ties := groups[k].entries
		g := groups[k]
		if k.action.Driver == "json_batch" {
			g.sendBatches(ctx)
			for _, tie := range ties {
				if tie.result.WholeBatch { // one of them is wrong: which, shows one by one
					b.with(k.action, []*entry{tie}).sendBatches(ctx)
				}
			}
		} else {
			for _, tie := range ties {
				g.sendSingle(ctx, tie)
			}
		}
		for _, tie := range ties {
			owner, r := owners[tie], *tie.result
			if r.Outcome == delivery.Applied || r.Outcome == delivery.Unchanged {
				continue
			}
			if r.Outcome == delivery.Unknown {
				r.Outcome = delivery.Retry // tying twice is the same as once
			}
			r.ID, r.Created, r.WholeBatch = owner.result.ID, owner.result.Created, false
			r.Message = strings.TrimSpace("reference: " + r.Message)
			owner.settle(r)
		}
	}
}
