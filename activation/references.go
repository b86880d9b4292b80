package activation

import (
	"context"
	"encoding/json"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/record"
)

// references reads the references of some rows and looks up the records that
// they name. It returns nil if the connection has none.
func (s *Sink) references(ctx context.Context, m *mapping, b *record.Batch, from, to int) ([][]refCell, error) {
	if len(m.refs) == 0 {
		return nil, nil
	}
	refs := make([][]refCell, to-from)
	ptrs := make([][]*refCell, len(m.refs))
	for i := range refs {
		if b.Ops[from+i] == record.OpDelete {
			continue
		}
		refs[i] = m.references(b, from+i)
		for j := range refs[i] {
			ptrs[j] = append(ptrs[j], &refs[i][j])
		}
	}
	for j := range m.refs {
		if err := lookUp(ctx, s.cfg.References[j].To, ptrs[j]); err != nil {
			return nil, err
		}
	}
	return refs, nil
}

// lookUp finds the destination's ids of the records that refs name.
func lookUp(ctx context.Context, to Keys, refs []*refCell) error {
	ids := map[state.Key]string{}
	var ask []state.Key
	for _, r := range refs {
		for _, k := range []state.Key{r.key, r.old} {
			if _, asked := ids[k]; !asked && k != (state.Key{}) {
				ids[k] = ""
				ask = append(ask, k)
			}
		}
	}
	err := to.Get(ctx, ask, func(e state.Entry) {
		if !e.Gone {
			ids[e.Key] = e.ID
		}
	})
	for _, r := range refs {
		r.id, r.oldID = ids[r.key], ids[r.old]
	}
	return err
}

// resolveReferences reports whether it may be sent: the records that it refers
// to are there, or it does not wait for them. s.mu is held.
func (s *Sink) resolveReferences(e *entry, it *item, now time.Time) bool {
	missing := false
	for i := range it.refs {
		r, cfg := &it.refs[i], &s.cfg.References[i]
		if r.state != present || r.id != "" || cfg.Missing == OmitReference {
			continue
		}
		if !e.waits.IsZero() { // it was looked up before, when the row came
			if err := lookUp(s.ctx, cfg.To, []*refCell{r}); err != nil {
				s.fail(err)
				return false
			}
		}
		missing = missing || r.id == ""
	}
	if !missing {
		e.waits = time.Time{}
		return true
	}
	if e.waits.IsZero() {
		e.waits = now
	}
	if now.Sub(e.waits) >= s.cfg.ReferenceWait {
		s.drop(e, e.pop(), delivery.Result{Outcome: delivery.Rejected}, CodeReferenceMissing)
		return false
	}
	s.later(e, min(waitRefAgain, s.cfg.ReferenceWait))
	return false
}

// changeReferences adds the references that have changed to a change, and
// reports whether there are any. s.mu is held.
func (s *Sink) changeReferences(f *flight, c *delivery.Change, it *item, known state.Hashes) (changed bool) {
	for i := range it.refs {
		r, cfg := &it.refs[i], &s.cfg.References[i]
		if r.state == absent || r.state == present && r.id == "" {
			continue // not sent by the source, or left out: the next change tries again
		}
		tag := tagOf("\x00" + cfg.Type)
		id, _ := json.Marshal(r.id) // of a string: never fails
		hash := s.h.word(ofField, append(append([]byte(cfg.Type), 0, r.state), id...))
		old, have := known.Lookup(tag)
		if have && old == hash && !f.e.doubt || !have && r.state == cleared {
			continue
		}
		changed = true
		f.hashes = append(f.hashes, fieldHash{tag, hash})
		if r.oldID != "" && r.oldID != r.id && have {
			c.References = append(c.References, delivery.Reference{Type: cfg.Type, Object: cfg.Object, ID: r.oldID, Remove: true})
		}
		if r.state == present {
			c.References = append(c.References, delivery.Reference{Type: cfg.Type, Object: cfg.Object, ID: r.id})
		}
	}
	return changed
}
