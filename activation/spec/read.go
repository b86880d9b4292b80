package spec

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-data/sluice/activation/delivery"
)

// refusal is an answer to a read that says no.
type refusal struct {
	result delivery.Result
}

func (r *refusal) Error() string {
	return fmt.Sprintf("status %d %s %s", r.result.Status, r.result.VendorCode, r.result.Message)
}

// Outcome says what the refusal of a read means for whoever asked: Throttled,
// Auth, Config, Retry or Rejected.
func (r *refusal) Outcome() delivery.Outcome { return r.result.Outcome }

// Result is what the vendor has said to the call.
func (r *refusal) Result() delivery.Result { return r.result }

// lookup returns how records are found by match, or nil.
func (o *Object) lookup(match string) *Lookup {
	for _, l := range o.Lookups {
		for _, m := range l.Match {
			if prefix, star := strings.CutSuffix(m, "*"); m == match || star && strings.HasPrefix(match, prefix) && match != "id" {
				return l
			}
		}
	}
	return nil
}

// Read returns the records of object whose field match has one of values, with
// the fields that are asked for; match "id" finds them by the destination's id.
// A record that is not there is not in the result, which is in no order.
func (d *Destination) Read(ctx context.Context, object, match string, values, fields []string) ([]delivery.Found, error) {
	return d.read(ctx, delivery.Stream, object, match, values, fields)
}

func (d *Destination) read(ctx context.Context, lane delivery.Lane, name, match string, values, fields []string) ([]delivery.Found, error) {
	o := d.spec.Object(name)
	if o == nil {
		return nil, fmt.Errorf("read %s: %s has no such object", name, d.spec.Name)
	}
	l := o.lookup(match)
	if l == nil {
		return nil, fmt.Errorf("read %s by %s from %s: %w", name, match, d.spec.Name, delivery.ErrUnreadable)
	}
	var found []delivery.Found
	for part := range slices.Chunk(values, l.Items) {
		some, err := d.readPart(ctx, lane, o, l, name, match, part, fields)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		found = append(found, some...)
	}
	return found, nil
}

func (d *Destination) readPart(ctx context.Context, lane delivery.Lane, o *Object, l *Lookup, name, match string, values, fields []string) ([]delivery.Found, error) {
	s := &scope{object: o, name: name, version: d.spec.API.Version, fields: fields}
	for _, v := range values {
		s.change = &delivery.Change{Match: delivery.Field{Name: match, Value: appendText(nil, v)}, ID: v}
		if !l.item.empty() {
			s.items = append(s.items, l.item.append(nil, s))
		}
	}
	s.values = quoted(values, l.Quote)
	if !slices.Contains(s.fields, match) && match != "id" {
		s.fields = append(slices.Clone(s.fields), match)
	}
	if l.Quote == "soql" && !slices.Contains(s.fields, l.ID) {
		s.fields = append(slices.Clone(s.fields), l.ID) // a query names all it wants
	}
	c := call{lane: lane, endpoint: l.Endpoint, method: l.Method, kind: d.mediaType(), url: expand(l.Path, s, values)}
	if !l.body.empty() {
		c.body = l.body.append(nil, s)
	}
	a := d.exchange(ctx, c)
	switch {
	case a.auth:
		return nil, &refusal{delivery.Result{Outcome: delivery.Auth, Message: a.err.Error()}}
	case a.err != nil:
		return nil, a.err
	case slices.Contains(l.Missing, a.status):
		return nil, nil
	case !slices.Contains(l.OK, a.status):
		v := d.spec.judge(a, 0)
		r := d.result(a, v, 0, []*delivery.Change{s.change})
		if r.Outcome == delivery.Unknown {
			r.Outcome = delivery.Retry
		}
		return nil, &refusal{r}
	case a.doc == nil:
		return nil, fmt.Errorf("the answer cannot be read")
	}
	rows := []any{a.doc}
	if l.List != "" {
		list, ok := find(a.doc, strings.TrimPrefix(l.List, "$"), "").([]any)
		if !ok {
			return nil, fmt.Errorf("the answer has no list of records")
		}
		rows = list
	}
	var found []delivery.Found
	for _, row := range rows {
		id := text(find(row, l.ID, ""))
		if id == "" {
			continue
		}
		f := delivery.Found{ID: id, Match: id}
		if match != "id" {
			f.Match = text(find(row, l.At, match))
			if len(values) == 1 && f.Match == "" {
				f.Match = values[0]
			}
		}
		f.Fields = pick(o, find(row, l.Fields, ""), fields)
		found = append(found, f)
	}
	return found, nil
}

// pick returns the fields that are asked for, as JSON; what a record lacks is
// an explicit null.
func pick(o *Object, row any, fields []string) []delivery.Field {
	out := make([]delivery.Field, 0, len(fields))
	for _, name := range fields {
		var v any
		if object, ok := row.(map[string]any); ok {
			if v, ok = object[name]; !ok && o.Nested {
				v = find(row, name, "")
			}
		}
		b, err := json.Marshal(v)
		if err != nil {
			continue // decoded JSON can always be written again
		}
		out = append(out, delivery.Field{Name: name, Value: b})
	}
	return out
}

// quoted writes values for a query.
func quoted(values []string, style string) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v
		switch style {
		case "soql":
			out[i] = "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(v) + "'"
		case "json":
			out[i] = string(appendText(nil, v))
		case "stripe":
			out[i] = "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
		}
	}
	return strings.Join(out, ",")
}
