package spec

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-data/sluice/activation/delivery"
)

// Describe asks the vendor for the fields of an object.
func (d *Destination) Describe(ctx context.Context, object string) (delivery.Object, error) {
	o := d.spec.Object(object)
	if o == nil {
		return delivery.Object{}, fmt.Errorf("%s has no object %q, known are %s", d.spec.Name, object, strings.Join(d.spec.objectNames(), ", "))
	}
	out, err := d.describe(ctx, object, o)
	if err != nil {
		return out, fmt.Errorf("describe %s: %w", object, err)
	}
	return out, nil
}

// Objects describes the objects in use, or those that the spec names if none
// is said to be in use.
func (d *Destination) Objects(ctx context.Context) ([]delivery.Object, error) {
	names := d.objects
	if len(names) == 0 {
		names = d.spec.objectNames()
	}
	out := make([]delivery.Object, 0, len(names))
	for _, name := range names {
		o, err := d.Describe(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

func (d *Destination) describe(ctx context.Context, name string, o *Object) (delivery.Object, error) {
	out := delivery.Object{Name: name, Label: o.Label, Readable: len(o.Lookups) > 0}
	if out.Label == "" {
		out.Label = name
	}
	for op, actions := range o.operations {
		out.Operations = append(out.Operations, op)
		if limit := actions[len(actions)-1].Batch; out.BatchItems == 0 || limit.Items < out.BatchItems {
			out.BatchItems, out.BatchBytes = max(limit.Items, 1), limit.Bytes
		}
	}
	slices.Sort(out.Operations)
	for _, p := range o.Properties {
		out.Properties = append(out.Properties, delivery.Property(p))
	}
	for _, m := range o.Match {
		if m != "*" || o.Discover == nil { // nobody says which are unique
			out.Match = append(out.Match, m)
		}
	}
	if o.Discover == nil {
		return out, nil
	}
	s := &scope{object: o, name: name, version: d.spec.API.Version}
	a := d.exchange(ctx, call{endpoint: "describe", method: "GET", url: expand(o.Discover.Path, s, nil)})
	if a.err != nil {
		return out, a.err
	}
	if a.status != 200 {
		return out, &refusal{d.result(a, d.spec.judge(a, 0), 0, nil)}
	}
	list, ok := find(a.doc, o.Discover.List, "").([]any)
	if !ok {
		return out, fmt.Errorf("the answer has no list of fields")
	}
	for _, row := range list {
		p, unique := o.Discover.property(row)
		if p.Name == "" || slices.ContainsFunc(out.Properties, func(q delivery.Property) bool { return q.Name == p.Name }) {
			continue
		}
		out.Properties = append(out.Properties, p)
		if unique && slices.Contains(o.Match, "*") && !slices.Contains(out.Match, p.Name) {
			out.Match = append(out.Match, p.Name)
		}
	}
	return out, nil
}

// property reads one field of the vendor's list.
func (v *Discover) property(row any) (p delivery.Property, unique bool) {
	f := &facts{item: row}
	p = delivery.Property{Name: text(find(row, v.Name, "")), Type: v.Types[text(find(row, v.Type, ""))]}
	if v.prefix != nil && p.Name != "" {
		p.Name = v.prefix.text(f) + p.Name
	}
	if p.Type == "" {
		p.Type = "text"
	}
	for _, at := range v.Unique {
		unique = unique || text(find(row, at, "")) == "true"
	}
	for _, at := range v.ReadOnly {
		path, negated := strings.CutPrefix(at, "!")
		p.ReadOnly = p.ReadOnly || (text(find(row, path, "")) == "true") != negated
	}
	p.Required = v.required != nil && v.required.holds(f)
	p.MaxBytes, _ = number(find(row, v.MaxBytes, "")) // not said is 0
	if v.Values != "" {
		values, _ := find(row, v.Values, "").([]any) // no list is none
		for _, one := range values {
			if s := text(find(one, v.Value, "")); s != "" {
				p.Values = append(p.Values, s)
			}
		}
	}
	if p.Type != "enum" {
		p.Values = nil
	}
	return p, unique
}
