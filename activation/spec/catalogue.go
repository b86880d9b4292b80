package spec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

// Catalogue is what an account was found to hold: its objects and fields.
type Catalogue struct {
	Destination string            `json:"destination"`
	Version     string            `json:"version"` // of the API
	At          time.Time         `json:"at"`
	Objects     []delivery.Object `json:"objects"`
}

// Catalogue returns the catalogue in the file path if it is younger than age
// and speaks of all objects in use; otherwise it asks the vendor and replaces
// the file. If the vendor cannot be asked an older one is returned together
// with the error.
func (d *Destination) Catalogue(ctx context.Context, path string, age time.Duration) (*Catalogue, error) {
	old := readCatalogue(path)
	if old != nil && (old.Destination != d.spec.Name || old.Version != d.spec.API.Version) {
		old = nil
	}
	if old != nil && d.now().Sub(old.At) < age && old.covers(d.objects) {
		return old, nil
	}
	objects, err := d.Objects(ctx)
	if err != nil {
		return old, err
	}
	fresh := &Catalogue{Destination: d.spec.Name, Version: d.spec.API.Version, At: d.now().UTC(), Objects: objects}
	b, err := json.MarshalIndent(fresh, "", " ")
	if err != nil {
		return fresh, fmt.Errorf("write catalogue: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "catalogue-*")
	if err != nil {
		return fresh, fmt.Errorf("write catalogue: %w", err)
	}
	defer os.Remove(tmp.Name()) // gone already if all went well
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fresh, fmt.Errorf("write catalogue: %w", err)
	}
	return fresh, nil
}

// readCatalogue returns nil for what cannot be read: it is asked for again.
func readCatalogue(path string) *Catalogue {
	b, err := os.ReadFile(path)
	if err != nil || len(b) > 64<<20 {
		return nil
	}
	c := &Catalogue{}
	if json.Unmarshal(b, c) != nil {
		return nil
	}
	return c
}

func (c *Catalogue) covers(objects []string) bool {
	for _, name := range objects {
		if c.Object(name) == nil {
			return false
		}
	}
	return true
}

// Object returns the object called name, or nil.
func (c *Catalogue) Object(name string) *delivery.Object {
	for i := range c.Objects {
		if c.Objects[i].Name == name {
			return &c.Objects[i]
		}
	}
	return nil
}

// Mapping is what a stream wants of an object.
type Mapping struct {
	Object    string
	Operation delivery.Operation
	Match     string // empty = by id, or an event
	Fields    []Want // that are written
}

// Want is one field that a mapping writes.
type Want struct {
	Name string
	Type string // of its values, as in delivery.Property; empty = not known
	Text string // of a constant, the value
}

// Flaw is what is wrong with one part of a mapping, and what would be right.
type Flaw struct {
	Part  string // object, operation, match or field
	Field string // of Part field: its name
	Says  string
}

// Check says what is wrong with a mapping; nil if it can work.
func (c *Catalogue) Check(m Mapping) []Flaw {
	o := c.Object(m.Object)
	if o == nil {
		var names []string
		for i := range c.Objects {
			names = append(names, c.Objects[i].Name)
		}
		return []Flaw{{Part: "object", Says: fmt.Sprintf("%s has no object %q, known are %s", c.Destination, m.Object, strings.Join(names, ", "))}}
	}
	var flaws []Flaw
	if !slices.Contains(o.Operations, m.Operation) {
		flaws = append(flaws, Flaw{Part: "operation", Says: fmt.Sprintf("%s cannot %s %s, only %v", c.Destination, m.Operation, m.Object, o.Operations)})
	}
	if m.Match != "" && !slices.ContainsFunc(o.Match, func(s string) bool { return covers(s, m.Match) }) {
		flaws = append(flaws, Flaw{Part: "match", Says: c.noMatch(o, m.Match)})
	}
	for _, w := range m.Fields {
		if says := unfit(o, w); says != "" {
			flaws = append(flaws, Flaw{Part: "field", Field: w.Name, Says: says})
		}
	}
	if m.Operation == delivery.Insert || m.Operation == delivery.Upsert {
		for i := range o.Properties {
			p := &o.Properties[i]
			if p.Required && p.Name != m.Match && !slices.ContainsFunc(m.Fields, func(w Want) bool { return w.Name == p.Name }) {
				flaws = append(flaws, Flaw{Part: "fields", Says: fmt.Sprintf("field %s.%s is required for new records", m.Object, p.Name)})
			}
		}
	}
	return flaws
}

// noMatch says why records cannot be found by a field.
func (c *Catalogue) noMatch(o *delivery.Object, name string) string {
	if property(o, name) == nil {
		return fmt.Sprintf("%s has no field %q%s", o.Name, name, near(o, name))
	}
	return fmt.Sprintf("%s.%s is not unique: %s identifies %s by %s", o.Name, name, c.Destination, o.Name, strings.Join(o.Match, ", "))
}

// unfit says why a field cannot be written; empty if it can.
func unfit(o *delivery.Object, w Want) string {
	p := property(o, w.Name)
	switch {
	case p == nil:
		return fmt.Sprintf("%s has no field %q%s", o.Name, w.Name, near(o, w.Name))
	case p.ReadOnly:
		return fmt.Sprintf("field %s.%s is read-only", o.Name, w.Name)
	case w.Text != "" && len(p.Values) > 0 && !slices.Contains(p.Values, w.Text):
		return fmt.Sprintf("field %s.%s takes one of %s", o.Name, w.Name, strings.Join(p.Values[:min(len(p.Values), 20)], ", "))
	case w.Type != "" && !takes(p.Type, w.Type):
		return fmt.Sprintf("field %s.%s is %s, its values are %s; shape them by a rule of the stream", o.Name, w.Name, p.Type, w.Type)
	}
	return ""
}

// takes reports whether values of a type may fit a property of another one. A
// vendor parses what it can from texts and numbers; what is refused here never fits.
func takes(property, value string) bool {
	switch property {
	case "number":
		return value == "number"
	case "bool":
		return value == "bool" || value == "text"
	case "date", "datetime":
		return value != "bool" && value != "json"
	case "enum", "text":
		return value != "json"
	}
	return true
}

// covers reports whether a declared name, which may end in *, is that of name.
func covers(declared, name string) bool {
	prefix, open := strings.CutSuffix(declared, "*")
	return declared == name || open && strings.HasPrefix(name, prefix) && len(name) > len(prefix)
}

func property(o *delivery.Object, name string) *delivery.Property {
	for i := range o.Properties {
		if covers(o.Properties[i].Name, name) {
			return &o.Properties[i]
		}
	}
	return nil
}

// near proposes the field that name was probably meant to be.
func near(o *delivery.Object, name string) string {
	plain := func(s string) string {
		return strings.ToLower(strings.NewReplacer("_", "", "-", "", ".", "").Replace(s))
	}
	best, least := "", 3
	for i := range o.Properties {
		p := o.Properties[i].Name
		a, b := plain(p), plain(name)
		if a == b || strings.TrimSuffix(a, "c") == b || len(b) > 3 && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a) && len(a) > 3) {
			best = p
			break
		}
		if d := edits(a, b); d < least && 2*d < len(b) {
			best, least = p, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// edits returns how many letters must be put in, taken out or replaced.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := last
			if a[i] != b[j] {
				change++
			}
			last = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
