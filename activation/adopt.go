package activation

import (
	"context"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/record"
)

// readAtOnce is how many records are read from a destination together.
const readAtOnce = 100

// Adopted counts what Adopt found, by the rows of the stream.
type Adopted struct {
	Rows      int64 `json:"rows"`      // of which the destination was asked
	Equal     int64 `json:"equal"`     // their records have every value: nothing will be sent
	Different int64 `json:"different"` // their records lack some values, and only these will be sent
	Missing   int64 `json:"missing"`   // they have no record
	Known     int64 `json:"known"`     // the state has known them before
	Taken     int64 `json:"taken"`     // another row has their match value
	NoMatch   int64 `json:"no_match"`  // they have no match value
}

// Adopt asks the destination for the records of rows that the state does not
// know, and remembers what they have: an equal one is unchanged from then on,
// of a different one only the differing fields are sent. Nothing is written to
// the destination, and an adopted record is not ours to delete.
func (c *Connection) Adopt(ctx context.Context, st *state.Connection, rows Rows, parts []int32) (out Adopted, err error) {
	if c.cfg.Operation == delivery.Append || c.cfg.Match.Name == "" {
		return out, errors.New(c.cfg.Name + ": events have no records that could be adopted")
	}
	lease, release, err := c.exclusive(ctx, st, parts)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, release()) }()
	a := &adopter{c: c, st: st, lease: lease, taken: map[state.Key]bool{}}
	err = c.newest(ctx, rows, a.take)
	if err == nil {
		err = a.ask(ctx)
	}
	return a.Adopted, err
}

// adopter is one Adopt under way.
type adopter struct {
	Adopted
	c     *Connection
	st    *state.Connection
	lease *state.Lease
	wait  []*item // of which the destination is to be asked
	h     *hasher
	taken map[state.Key]bool // match values
}

// take collects the rows that the state does not know.
func (a *adopter) take(m *mapping, b *record.Batch, rows []int, keys []state.Key) error {
	ctx := context.Background() // of a local read
	known := map[state.Key]bool{}
	if err := a.st.Get(ctx, keys, func(e state.Entry) { known[e.Key] = !e.Gone }); err != nil {
		return err
	}
	a.h = m.h
	for i, row := range rows {
		switch {
		case b.Ops[row] == record.OpDelete || !m.allowed(b, row):
			continue
		case known[keys[i]]:
			a.Known++
			continue
		}
		full := m.encode(b, row)
		refs := m.references(b, row)
		it := m.item(b, row, keys[i], refs)
		if full {
			it.row = m.rowHash(refs)
		}
		switch {
		case it.match == nil:
			a.NoMatch++
			continue
		case a.taken[it.matchID]:
			a.Taken++
			continue
		}
		a.taken[it.matchID] = true
		a.wait = append(a.wait, it)
		if len(a.wait) >= readAtOnce {
			if err := a.ask(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// ask reads the records of the collected rows and stores what they have.
func (a *adopter) ask(ctx context.Context) error {
	if len(a.wait) == 0 {
		return nil
	}
	var matches []state.Key
	for _, it := range a.wait {
		matches = append(matches, it.matchID)
	}
	owned := map[state.Key]bool{}
	if err := a.st.Owners(ctx, matches, func(e state.Entry) { owned[e.Match] = !e.Gone }); err != nil {
		return err
	}
	var values []string
	for _, it := range a.wait {
		values = append(values, plain(it.match))
	}
	cfg := &a.c.cfg
	found, err := a.c.dest.Read(ctx, cfg.Object, cfg.Match.Name, values, fieldNames(cfg))
	if err != nil {
		return err
	}
	var entries []state.Entry
	for i, it := range a.wait {
		a.Rows++
		at := slices.IndexFunc(found, func(f delivery.Found) bool { return strings.EqualFold(f.Match, values[i]) })
		switch {
		case owned[it.matchID]:
			a.Taken++
		case at < 0:
			a.Missing++
		default:
			entries = append(entries, a.entry(it, &found[at]))
		}
	}
	a.wait = a.wait[:0]
	return a.lease.Write(ctx, entries, nil)
}

// entry is what the state remembers of a record that was found. Of one that
// differs the row counts as not yet delivered: its place is just before it.
func (a *adopter) entry(it *item, f *delivery.Found) state.Entry {
	cfg := &a.c.cfg
	e := state.Entry{Key: it.key, Match: it.matchID, ID: f.ID, Part: it.part, Offset: it.offset - 1, Outcome: delivery.Unchanged}
	equal := len(it.refs) == 0 && it.row != 0
	for i, cl := range it.cells {
		name := cfg.Fields[i].Name
		if cl.state == absent {
			continue
		}
		if !sameValue(cl, f.Fields, name) {
			equal = false
			continue
		}
		e.Fields = e.Fields.Append(tagOf(name), a.h.word(ofField, append(append([]byte(name), 0, cl.state), cl.value...)))
	}
	if equal {
		e.Row, e.Offset, e.Pos = it.row, it.offset, it.pos
		a.Equal++
	} else {
		a.Different++
	}
	return e
}

func fieldNames(cfg *Config) []string {
	names := make([]string, len(cfg.Fields))
	for i := range cfg.Fields {
		names[i] = cfg.Fields[i].Name
	}
	return names
}

// sameValue reports whether a record has a value, in whatever spelling.
func sameValue(want cell, have []delivery.Field, name string) bool {
	w, g := plain(want.value), valueOf(have, name)
	if want.state == cleared || w == "null" {
		w = ""
	}
	if w == g {
		return true
	}
	if len(w) <= maxNumber && len(g) <= maxNumber {
		a, ok := decimal(w)
		b, ok2 := decimal(g)
		if ok && ok2 {
			return a.Cmp(b) == 0
		}
	}
	s, ok := moment(w)
	t, ok2 := moment(g)
	return ok && ok2 && s.Equal(t)
}

// maxNumber bounds the text that is read as a number: an exponent could make it large.
const maxNumber = 40

// valueOf returns the text of a field of a record; empty if it has none.
func valueOf(fields []delivery.Field, name string) string {
	i := slices.IndexFunc(fields, func(x delivery.Field) bool { return x.Name == name })
	if i < 0 || string(fields[i].Value) == "null" || !json.Valid(fields[i].Value) {
		return ""
	}
	return plain(fields[i].Value)
}

// moment reads a time in one of the spellings that vendors answer with.
func moment(s string) (time.Time, bool) {
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04:05.999999999-0700", time.DateOnly} {
		if t, err := time.Parse(form, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// decimal reads a plain decimal number: no fraction, no exponent.
func decimal(s string) (*big.Rat, bool) {
	if strings.ContainsAny(s, "/eEpPxXoObB_") {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}
