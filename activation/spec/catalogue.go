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
	Match     string   // empty = by id, or an event
	Fields    []string // that are written
}

// Check says what is wrong with a mapping, each with what is right; nil if it
// can work.
func (c *Catalogue) Check(m Mapping) []error {
	o := c.Object(m.Object)
	if o == nil {
		var names []string
		for i := range c.Objects {
			names = append(names, c.Objects[i].Name)
		}
		return []error{fmt.Errorf("%s has no object %q, known are %s", c.Destination, m.Object, strings.Join(names, ", "))}
	}
	var errs []error
	if !slices.Contains(o.Operations, m.Operation) {
		errs = append(errs, fmt.Errorf("%s cannot %s %s, only %v", c.Destination, m.Operation, m.Object, o.Operations))
	}
	if m.Match != "" && !slices.ContainsFunc(o.Match, func(s string) bool { return covers(s, m.Match) }) {
		errs = append(errs, fmt.Errorf("%s identifies %s by %s, not by %q", c.Destination, m.Object, strings.Join(o.Match, ", "), m.Match))
	}
	for _, name := range m.Fields {
		p := property(o, name)
		switch {
		case p == nil:
			errs = append(errs, fmt.Errorf("%s has no field %q%s", m.Object, name, near(o, name)))
		case p.ReadOnly:
			errs = append(errs, fmt.Errorf("field %s.%s is read-only", m.Object, name))
		}
	}
	if m.Operation == delivery.Insert || m.Operation == delivery.Upsert {
		for i := range o.Properties {
			if p := &o.Properties[i]; p.Required && p.Name != m.Match && !slices.Contains(m.Fields, p.Name) {
				errs = append(errs, fmt.Errorf("field %s.%s is required for new records", m.Object, p.Name))
			}
		}
	}
	return errs
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
	for i := range o.Properties {
		p := o.Properties[i].Name
		a, b := plain(p), plain(name)
		if a == b || strings.TrimSuffix(a, "c") == b || len(b) > 3 && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a) && len(a) > 3) {
			return fmt.Sprintf("; did you mean %q?", p)
		}
	}
	return ""
}
