package activation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/record"
)

// Drift is how the records of a destination differ from what it acknowledged.
type Drift struct {
	Checked int64            `json:"checked"`
	Drifted int64            `json:"drifted"` // some fields have another value
	Missing int64            `json:"missing"` // the record is not there any more
	Fields  map[string]int64 `json:"fields"`  // how many records differ in a field
	Records []Drifted        `json:"records"` // the first of them
}

// Drifted is one record that differs.
type Drifted struct {
	ID      string   `json:"id"` // the destination's
	Missing bool     `json:"missing,omitempty"`
	Fields  []string `json:"fields,omitempty"`
}

// Drift reads the records that the connection has delivered and reports what
// somebody else has changed, with the first n of them. With forget the state
// forgets the values that are not there any more: the next backfill of the
// stream sends them again.
func (c *Connection) Drift(ctx context.Context, st *state.Connection, n int, forget bool) (out Drift, err error) {
	out = Drift{Fields: map[string]int64{}, Records: []Drifted{}}
	busy, err := st.Busy(ctx)
	if err != nil {
		return out, err
	}
	if busy > 0 {
		return out, &BusyError{Connection: c.cfg.Name, For: busy}
	}
	var lease *state.Lease
	if forget {
		marks, err := st.Marks(ctx)
		if err != nil {
			return out, err
		}
		var release func() error
		if lease, release, err = c.exclusive(ctx, st, slices.Sorted(maps.Keys(marks))); err != nil {
			return out, err
		}
		defer func() { err = errors.Join(err, release()) }()
	}
	h := newHasher(st.Secret())
	var after state.Key
	for got := readAtOnce; got == readAtOnce; {
		var page []state.Entry
		if err := st.All(ctx, after, readAtOnce, func(e state.Entry) { page = append(page, e) }); err != nil {
			return out, err
		}
		if got = len(page); got == 0 {
			break
		}
		after = page[got-1].Key
		changed, err := c.drifted(ctx, h, page, &out, n)
		if err != nil {
			return out, err
		}
		if lease != nil && len(changed) > 0 {
			if err := lease.Write(ctx, changed, nil); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

// drifted compares some records, and returns what the state has to forget.
func (c *Connection) drifted(ctx context.Context, h *hasher, page []state.Entry, out *Drift, n int) (changed []state.Entry, err error) {
	var ids []string
	page = slices.DeleteFunc(page, func(e state.Entry) bool { return e.Gone || e.ID == "" || e.Fields.Len() == 0 })
	for _, e := range page {
		ids = append(ids, e.ID)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	found, err := c.dest.Read(ctx, c.cfg.Object, "id", ids, fieldNames(&c.cfg))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.cfg.Name, err)
	}
	byID := map[string]*delivery.Found{}
	for i := range found {
		byID[found[i].ID] = &found[i]
	}
	for _, e := range page {
		out.Checked++
		f := byID[e.ID]
		one := Drifted{ID: e.ID, Missing: f == nil}
		if f == nil {
			out.Missing++
			e.Gone, e.Fields, e.Row, e.Match, e.ID = true, nil, 0, state.Key{}, ""
		} else {
			for _, field := range c.cfg.Fields {
				tag := tagOf(field.Name)
				if hash, sent := e.Fields.Lookup(tag); sent && !c.holdsHash(h, field.Name, hash, f.Fields) {
					one.Fields = append(one.Fields, field.Name)
					e.Fields, e.Row = e.Fields.Without(tag), 0
					out.Fields[field.Name]++
				}
			}
			if len(one.Fields) == 0 {
				continue
			}
			out.Drifted++
		}
		if len(out.Records) < n {
			out.Records = append(out.Records, one)
		}
		changed = append(changed, e)
	}
	return changed, nil
}

// holdsHash reports whether a hash is that of the value that a record has, in
// one of the spellings in which we may have sent it.
func (c *Connection) holdsHash(h *hasher, name string, hash uint64, have []delivery.Field) bool {
	for _, s := range spellings(valueOf(have, name)) {
		if h.word(ofField, append(append([]byte(name), 0, s.state), s.value...)) == hash {
			return true
		}
	}
	return false
}

// maxDigits is how many decimal places a spelling has at most.
const maxDigits = 10

// spellings returns the cells that a destination could answer with text.
func spellings(text string) []cell {
	value := func(s string) cell { return cell{present, []byte(s)} }
	quoted := func(s string) cell { return value(string(quote(s))) }
	if text == "" {
		return []cell{{state: cleared}, value("null"), quoted("")}
	}
	out := []cell{quoted(text), value(text)}
	if len(text) <= maxNumber {
		if r, ok := decimal(text); ok {
			for digits := range maxDigits {
				s := r.FloatString(digits)
				if same, ok := decimal(s); ok && same.Cmp(r) == 0 {
					out = append(out, value(s), quoted(s))
				}
			}
			if f, err := strconv.ParseFloat(text, 64); err == nil {
				out = append(out, value(strconv.FormatFloat(f, 'g', -1, 64)), value(strconv.FormatFloat(f, 'e', -1, 64)))
			}
		}
	}
	if t, ok := moment(text); ok {
		for _, form := range []string{"2006-01-02T15:04:05.000000", "2006-01-02T15:04:05", "2006-01-02T15:04:05.999999"} {
			s := t.UTC().Format(form)
			out = append(out, quoted(s), quoted(s+"Z"))
		}
		out = append(out, quoted(t.UTC().Format(time.DateOnly)))
	}
	return out
}

// quote spells a text as rows do.
func quote(s string) []byte {
	f := record.Field{Kind: record.Text}
	v := record.NewVector(&f)
	v.AppendData([]byte(s))
	return record.AppendJSON(nil, &f, v, 0)
}
