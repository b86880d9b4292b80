package destinationtest

import (
	"maps"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

// Record is a record that a simulator holds.
type Record struct {
	ID       string
	Fields   map[string]string // as text; a nested field has dots in its name
	Created  time.Time
	Updated  time.Time
	Archived bool
}

// Write is a change that a simulator carried out.
type Write struct {
	N      int // from 1
	Call   int // number of the request
	At     time.Time
	Object string
	Op     string // create, update, delete
	ID     string
	Fields map[string]string // the record's after the change
}

// table is an object: its fields and records.
type table struct {
	name    string
	label   string
	fields  map[string]*delivery.Property
	open    []string // prefixes below which every field is welcome
	unique  []string // fields of which no two records have the same value
	fold    bool
	records map[string]*Record
	order   []string
	by      map[string]map[string]string // unique field → value → id
}

func (s *Simulator) table(name string, unique []string, fields ...delivery.Property) *table {
	t := &table{name: name, label: name, fields: map[string]*delivery.Property{}, unique: unique, records: map[string]*Record{}, by: map[string]map[string]string{}}
	for i := range fields {
		f := fields[i]
		if f.Type == "" {
			f.Type = "text"
		}
		t.fields[f.Name] = &f
	}
	for _, u := range unique {
		t.by[u] = map[string]string{}
	}
	s.tables[name] = t
	return t
}

func (t *table) norm(v string) string {
	if t.fold {
		return strings.ToLower(strings.TrimSpace(v))
	}
	return v
}

// find returns the living record whose unique field has the value, or nil.
func (t *table) find(field, value string) *Record {
	if value == "" {
		return nil
	}
	if index, ok := t.by[field]; ok {
		return t.records[index[t.norm(value)]]
	}
	for i := len(t.order) - 1; i >= 0; i-- {
		if r := t.records[t.order[i]]; r != nil && !r.Archived && t.norm(r.Fields[field]) == t.norm(value) {
			return r
		}
	}
	return nil
}

// get returns the living record with the id, or nil.
func (t *table) get(id string) *Record {
	if r := t.records[id]; r != nil && !r.Archived {
		return r
	}
	return nil
}

// searchable reports whether the search index has come to r.
func (s *Simulator) searchable(r *Record) bool { return s.o.Now().Sub(r.Created) >= s.o.Lag }

// conflict returns the record, other than id, that has a unique value already.
func (t *table) conflict(id string, fields map[string]string) (field string, other *Record) {
	for _, u := range t.unique {
		if v, ok := fields[u]; ok && v != "" {
			if r := t.find(u, v); r != nil && r.ID != id {
				return u, r
			}
		}
	}
	return "", nil
}

// put creates or changes a record; an empty value removes the field.
func (s *Simulator) put(t *table, id string, fields map[string]string) *Record {
	now, op := s.o.Now(), "update"
	r := t.records[id]
	if r == nil {
		op = "create"
		r = &Record{ID: id, Fields: map[string]string{}, Created: now}
		t.records[id] = r
		t.order = append(t.order, id)
	}
	for k, v := range fields {
		if index, ok := t.by[k]; ok {
			if old := t.norm(r.Fields[k]); index[old] == id {
				delete(index, old)
			}
			if v != "" {
				index[t.norm(v)] = id
			}
		}
		if v == "" {
			delete(r.Fields, k)
		} else {
			r.Fields[k] = v
		}
	}
	r.Updated = now
	s.write(t, op, r)
	return r
}

// remove archives a record.
func (s *Simulator) remove(t *table, r *Record) {
	for _, u := range t.unique {
		if v := t.norm(r.Fields[u]); v != "" && t.by[u][v] == r.ID {
			delete(t.by[u], v)
		}
	}
	r.Archived = true
	s.write(t, "delete", r)
}

func (s *Simulator) write(t *table, op string, r *Record) {
	s.journal = append(s.journal, Write{N: len(s.journal) + 1, Call: s.requests, At: s.o.Now(), Object: t.name, Op: op, ID: r.ID, Fields: maps.Clone(r.Fields)})
}

func (s *Simulator) newID(prefix string) string {
	s.ids++
	return prefix + strconv.Itoa(10000+s.ids)
}

// property returns the declaration of a field, or nil.
func (t *table) property(name string) *delivery.Property {
	if p := t.fields[name]; p != nil {
		return p
	}
	for _, prefix := range t.open {
		if strings.HasPrefix(name, prefix) && len(name) > len(prefix) {
			return &delivery.Property{Name: name, Type: "json"}
		}
	}
	return nil
}

// check says what is wrong with a value: unknown, read_only, type, enum,
// email, length; empty if it is right.
func (t *table) check(name, v string) string {
	p := t.property(name)
	switch {
	case p == nil:
		return "unknown"
	case p.ReadOnly:
		return "read_only"
	case v == "":
		return ""
	case p.MaxBytes > 0 && len(v) > p.MaxBytes:
		return "length"
	}
	ok := true
	switch p.Type {
	case "number":
		_, err := strconv.ParseFloat(v, 64)
		ok = err == nil
	case "bool":
		ok = v == "true" || v == "false"
	case "date":
		_, err := time.Parse(time.DateOnly, v)
		ok = err == nil
	case "datetime":
		_, err := time.Parse(time.RFC3339Nano, v)
		_, millis := strconv.ParseInt(v, 10, 64)
		ok = err == nil || millis == nil
	case "enum":
		if !slices.Contains(p.Values, v) {
			return "enum"
		}
	}
	if !ok {
		return "type"
	}
	if strings.EqualFold(name, "email") {
		if a, err := mail.ParseAddress(v); err != nil || a.Address != v || !strings.Contains(v, ".") {
			return "email"
		}
	}
	return ""
}

// flat turns nested fields into ones with dots.
func flat(prefix string, m map[string]any, out map[string]string) map[string]string {
	for k, v := range m {
		if kid, ok := v.(map[string]any); ok {
			flat(prefix+k+".", kid, out)
			continue
		}
		out[prefix+k] = str(v)
	}
	return out
}

// tree turns fields with dots into nested ones.
func tree(fields map[string]string) map[string]any {
	out := map[string]any{}
	for _, k := range sortedKeys(fields) {
		at, parts := out, strings.Split(k, ".")
		for _, p := range parts[:len(parts)-1] {
			kid, ok := at[p].(map[string]any)
			if !ok {
				kid = map[string]any{}
				at[p] = kid
			}
			at = kid
		}
		at[parts[len(parts)-1]] = fields[k]
	}
	return out
}

// Records returns the living records of an object, oldest first.
func (s *Simulator) Records(object string) []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Record
	t := s.tables[object]
	if t == nil {
		return nil
	}
	for _, id := range t.order {
		if r := t.records[id]; !r.Archived {
			c := *r
			c.Fields = maps.Clone(r.Fields)
			out = append(out, c)
		}
	}
	return out
}

// Journal returns every change that was carried out, in order.
func (s *Simulator) Journal() []Write {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.journal)
}

// Create puts a record into an object by hand, as an employee of the account
// would, and returns its id.
func (s *Simulator) Create(object string, fields map[string]string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tables[object]
	if t == nil {
		return ""
	}
	prefix := ""
	switch s.Name {
	case "stripe":
		prefix = "cus_"
	case "salesforce":
		return s.put(t, s.model.(*salesforce).newID(t), fields).ID
	}
	return s.put(t, s.newID(prefix), fields).ID
}

// DropField removes a field of an object, as somebody who renames it would.
func (s *Simulator) DropField(object, field string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tables[object]; t != nil {
		delete(t.fields, field)
		t.open = nil
	}
}
