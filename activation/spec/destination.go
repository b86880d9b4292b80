package spec

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

// Options say which account a destination speaks to, and how.
type Options struct {
	Account      string // name under which tokens are kept
	BaseURL      string // in place of the spec's
	AllowPrivate bool   // private, loopback and link-local addresses, and http:// to them
	Credentials  Credentials
	Budget       delivery.Budget // nil = no limit
	Tokens       TokenStore      // needed by oauth2_refresh
	Sign         []string        // secrets of the Standard Webhooks signature: whsec_ and base64
	Objects      []string        // the ones in use; the catalogue holds them
	Timeout      time.Duration   // of a call; 30 s unless said
	Poll         time.Duration   // between looks at a job; 2 s unless said
	TLS          *tls.Config     // nil = the system's roots
	Now          func() time.Time
}

// Destination delivers changes to one account. Its methods may be called by
// several goroutines.
type Destination struct {
	spec         *Spec
	account      string
	base         string
	allowPrivate bool
	headers      map[string]string
	budget       delivery.Budget
	login        login
	sign         *signer
	http         *http.Client
	wires        *transports
	objects      []string
	timeout      time.Duration
	poll         time.Duration
	now          func() time.Time
}

// Open prepares a destination. It makes no call.
func Open(s *Spec, o Options) (*Destination, error) {
	d := &Destination{spec: s, account: o.Account, base: o.BaseURL, allowPrivate: o.AllowPrivate, budget: o.Budget, objects: o.Objects,
		timeout: o.Timeout, poll: o.Poll, now: o.Now, headers: map[string]string{"Accept": "application/json", "User-Agent": "sluice"}}
	if d.base == "" {
		d.base = s.BaseURL
	}
	if d.account == "" {
		d.account = s.Name
	}
	if d.budget == nil {
		d.budget = unlimited{}
	}
	if d.timeout <= 0 {
		d.timeout = 30 * time.Second
	}
	if d.poll <= 0 {
		d.poll = 2 * time.Second
	}
	if d.now == nil {
		d.now = time.Now
	}
	if _, err := checkURL(d.base, d.allowPrivate); err != nil {
		return nil, fmt.Errorf("base_url: %w", err)
	}
	d.base = strings.TrimSuffix(d.base, "/")
	for k, v := range s.Headers {
		d.headers[k] = strings.ReplaceAll(v, "{version}", s.API.Version)
	}
	for _, name := range o.Objects {
		if s.Object(name) == nil {
			return nil, fmt.Errorf("%s has no object %q, known are %s", s.Name, name, strings.Join(s.objectNames(), ", "))
		}
	}
	var err error
	if len(o.Sign) > 0 {
		if d.sign, err = newSigner(o.Sign); err != nil {
			return nil, err
		}
	}
	d.wires = newTransports(d.allowPrivate, o.TLS, d.timeout)
	d.http = &http.Client{Transport: d.wires, CheckRedirect: sameOrigin}
	if d.login, err = newLogin(d, o.Credentials, o.Tokens); err != nil {
		return nil, err
	}
	return d, nil
}

// Close ends idle connections.
func (d *Destination) Close() error {
	d.wires.close()
	return nil
}

// Spec returns what the destination was opened with.
func (d *Destination) Spec() *Spec { return d.spec }

// Quotas returns what the vendor allows the account.
func (d *Destination) Quotas() []delivery.Quota { return d.spec.Quotas() }

func (s *Spec) objectNames() []string {
	var names []string
	for name := range s.Objects {
		if name != "*" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// unlimited is the budget of one that nobody limits.
type unlimited struct{}

func (unlimited) Wait(ctx context.Context, _ delivery.Lane, _ string, _ int) error { return ctx.Err() }
func (unlimited) Observe(delivery.Answer)                                          {}

// resolve makes the address of a call. A whole address comes from the spec,
// from the user, or from the vendor: the latter only inside the base's origin.
func (d *Destination) resolve(path, base string) (string, error) {
	if base == "" {
		base = d.base
	}
	if strings.HasPrefix(path, "/") || path == "" {
		return strings.TrimSuffix(base, "/") + path, nil
	}
	u, err := checkURL(path, d.allowPrivate)
	if err != nil {
		return "", fmt.Errorf("address: %w", err)
	}
	return u.String(), nil
}

// Send delivers the changes of r and returns one result for each, in order.
// What cannot be said to have happened is Unknown. A change that nothing can
// be done with has its reason; Send itself does not fail.
func (d *Destination) Send(ctx context.Context, r delivery.Request) []delivery.Result {
	results := make([]delivery.Result, len(r.Changes))
	object := d.spec.Object(r.Object)
	if object == nil || len(object.operations[r.Operation]) == 0 {
		for i := range results {
			results[i] = delivery.Result{Outcome: delivery.Config, VendorCode: "UNSUPPORTED",
				Message: fmt.Sprintf("%s cannot %s %s", d.spec.Name, r.Operation, r.Object)}
		}
		return results
	}
	b := &batch{d: d, object: object, name: r.Object, op: r.Operation, lane: r.Lane}
	for i := range r.Changes {
		b.entries = append(b.entries, &entry{change: r.Changes[i], result: &results[i]})
	}
	b.withReferenceFields()
	b.choose(ctx)
	for _, group := range b.grouped() {
		group.send(ctx)
	}
	b.associate(ctx)
	return results
}

// entry is a change on its way.
type entry struct {
	change delivery.Change // a copy: looking up fills in its ID
	result *delivery.Result
	action *Action
	done   bool // the result is final
}

func (e *entry) settle(r delivery.Result) { *e.result, e.done = r, true }

// batch is a group of changes that share object and operation, and below
// choose their action.
type batch struct {
	d       *Destination
	object  *Object
	name    string
	op      delivery.Operation
	lane    delivery.Lane
	action  *Action
	entries []*entry
}

func (b *batch) with(action *Action, entries []*entry) *batch {
	c := *b
	c.action, c.entries = action, entries
	return &c
}

func (b *batch) changes() []*delivery.Change {
	out := make([]*delivery.Change, len(b.entries))
	for i, e := range b.entries {
		out[i] = &e.change
	}
	return out
}

// withReferenceFields turns references into fields where the vendor has them so.
func (b *batch) withReferenceFields() {
	if b.object.References == nil || !b.object.References.Field {
		return
	}
	for _, e := range b.entries {
		if len(e.change.References) == 0 {
			continue
		}
		e.change.Fields = slices.Clone(e.change.Fields)
		for _, r := range e.change.References {
			f := delivery.Field{Name: r.Type, Value: appendText(nil, r.ID)}
			if r.Remove {
				f = delivery.Field{Name: r.Type, Clear: true}
			}
			e.change.Fields = append(e.change.Fields, f)
		}
		e.change.References = nil
	}
}

// choose picks for every change the first way that is possible with what is
// known of it, and looks up what must be known.
func (b *batch) choose(ctx context.Context) {
	var lookup []*entry
	for _, e := range b.entries {
		e.action = b.object.way(b.op, &e.change)
		switch {
		case e.action == nil:
			e.settle(delivery.Result{Outcome: delivery.Rejected, VendorCode: "NO_IDENTITY",
				Message: "neither the record's id nor a matching field is known"})
		case e.action.Find && e.change.ID == "":
			lookup = append(lookup, e)
		}
	}
	b.find(ctx, lookup)
}

// way returns the first action that c has everything for.
func (o *Object) way(op delivery.Operation, c *delivery.Change) *Action {
	for _, a := range o.operations[op] {
		switch {
		case a.Needs == "id" && c.ID != "", a.Needs == "":
			return a
		case a.Needs == "match" && c.Match.Name != "" && len(c.Match.Value) > 0 && string(c.Match.Value) != "null" && string(c.Match.Value) != `""`:
			return a
		case a.Find && a.Needs == "id" && c.Match.Name != "":
			return a
		}
	}
	return nil
}

// find learns the ids of entries by their match.
func (b *batch) find(ctx context.Context, entries []*entry) {
	byMatch := map[string][]*entry{}
	for _, e := range entries {
		byMatch[e.change.Match.Name] = append(byMatch[e.change.Match.Name], e)
	}
	for name, group := range byMatch {
		values := make([]string, len(group))
		for i, e := range group {
			values[i] = scalarText(e.change.Match.Value)
		}
		found, err := b.d.read(ctx, b.lane, b.name, name, values, []string{name})
		if err != nil {
			r := failed(err)
			for _, e := range group {
				e.settle(r)
			}
			continue
		}
		ids := make(map[string]string, len(found))
		for _, f := range found {
			ids[b.object.folded(f.Match)] = f.ID
		}
		lagging := b.object.lookup(name).Lagging
		for i, e := range group {
			id, ok := ids[b.object.folded(values[i])]
			switch {
			case ok:
				e.change.ID = id
				e.action = b.object.way(b.op, &e.change)
			case b.op == delivery.Upsert: // the way that was chosen creates
			case b.op == delivery.Delete || b.op == delivery.Archive:
				e.settle(delivery.Result{Outcome: delivery.Unchanged, VendorCode: "NOT_FOUND", Message: "there is no such record"})
			case lagging:
				e.settle(delivery.Result{Outcome: delivery.Retry, VendorCode: "NOT_FOUND", Message: "not found in an index that runs behind"})
			default:
				e.settle(delivery.Result{Outcome: delivery.Skipped, VendorCode: "NOT_FOUND", Message: "there is no such record"})
			}
		}
	}
}

// failed says what a read that got no answer means for a write that was not
// begun.
func failed(err error) delivery.Result {
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		return refused.result
	case errors.Is(err, errCredentials):
		return delivery.Result{Outcome: delivery.Auth, Message: err.Error()}
	}
	return delivery.Result{Outcome: delivery.Retry, Message: err.Error()}
}

func (o *Object) folded(s string) string {
	if o.Fold {
		return strings.ToLower(s)
	}
	return s
}

// grouped splits the open entries by action, in the order of their changes,
// and so that no batch holds two records that the vendor would call the same.
func (b *batch) grouped() []*batch {
	var groups []*batch
	taken := map[*batch]map[string]bool{}
next:
	for _, e := range b.entries {
		if e.done {
			continue
		}
		identity := "match " + b.object.folded(scalarText(e.change.Match.Value))
		if e.action.Needs == "id" {
			identity = "id " + e.change.ID
		}
		for _, g := range groups {
			if g.action != e.action || e.action.Batch.Unique && taken[g][identity] {
				continue
			}
			g.entries, taken[g][identity] = append(g.entries, e), true
			continue next
		}
		g := b.with(e.action, []*entry{e})
		groups, taken[g] = append(groups, g), map[string]bool{identity: true}
	}
	return groups
}

// send carries the entries out by the action's driver.
func (b *batch) send(ctx context.Context) {
	switch b.action.Driver {
	case "json_batch":
		b.sendBatches(ctx)
	case "json_single", "form":
		for _, e := range b.entries {
			b.sendSingle(ctx, e)
		}
	default:
		b.runJob(ctx)
	}
}
