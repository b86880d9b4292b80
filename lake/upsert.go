package lake

import (
	"context"
	"slices"

	"github.com/sluice-data/sluice/lake/keyindex"
	"github.com/sluice-data/sluice/record"
)

// Where the newest op of a key is, besides an index into Table.held.
const (
	deleted int32 = -1 // nowhere: it was a delete
	inFile  int32 = -2 // in a file of this interval
	inTable int32 = -3 // in the table, as the key index says
)

// place is where the newest op of a key is.
type place struct {
	held int32  // held batch, deleted or inFile
	file int32  // number of the file, if inFile
	row  uint32 // in the batch or file
}

// filler is where a row gets the cells that the source did not send: from the
// row it replaces.
type filler struct {
	held int32 // held batch, inFile or inTable
	file int32
	row  uint32
}

// fold takes rows of an upsert table and keeps of each key the newest op only.
func (t *Table) fold(ctx context.Context, p *plan, b *record.Batch, rejects []record.Reject) ([]record.Reject, error) {
	if err := t.openIndex(ctx, p); err != nil {
		b.Release()
		return nil, err
	}
	part := t.part(b.Partition.Partition)
	h := heldBatch{b: b, live: make([]bool, b.Len()), hashes: make([]keyindex.Hash, b.Len())}
	out := map[int]bool{}
	for _, r := range rejects {
		out[r.Row] = true
	}
	var key []byte
	for i := range b.Len() {
		key = key[:0]
		for _, k := range p.keys {
			if b.After[k].State[i] != record.Present && !out[i] {
				out[i] = true
				rejects = append(rejects, record.Reject{Row: i, Code: "missing_key", Reason: p.schema.Fields[k].Name + ": a key column has no value"})
			}
			key = record.AppendCanonical(key, &p.schema.Fields[k], b.After[k], i)
		}
		h.hashes[i] = t.index.Hash(key)
	}
	known := t.knownRows(p, &h, out)
	stale := t.staleOf(b.Partition.Partition)
	me := int32(len(t.held))
	t.held = append(t.held, h)
	for i := range b.Len() {
		hash := h.hashes[i]
		if out[i] {
			// Later rows must not take cells from a row that is older than this one.
			stale.mark(p, b, i)
			continue
		}
		prior, ok := part.pending.get(hash)
		if b.Ops[i] == record.OpDelete {
			stale.clear(p, b, i)
			t.retire(prior, ok)
			part.pending.put(hash, place{held: deleted})
			continue
		}
		if !p.lacks(b, i) {
			stale.clear(p, b, i)
		} else if fill, found := fillFrom(prior, ok, known[i]); found && !stale.has(p, b, i) {
			if t.held[me].fills == nil {
				t.held[me].fills = map[int32]filler{}
			}
			t.held[me].fills[int32(i)] = fill
		} else {
			out[i] = true
			rejects = append(rejects, record.Reject{Row: i, Code: "missing_old_row",
				Reason: "the source did not send every column and the table has no row to take them from; read the row again with a backfill"})
			stale.mark(p, b, i)
			continue
		}
		t.retire(prior, ok)
		h.live[i] = true
		part.pending.put(hash, place{held: me, row: uint32(i)})
	}
	part.written += int64(b.Len() - len(out))
	t.heldSize += b.Bytes() + b.Len()*13 // with their hashes
	if t.heldSize >= t.lake.cfg.ChunkBytes {
		return sortRejects(rejects), t.spill(ctx)
	}
	return sortRejects(rejects), nil
}

func sortRejects(rejects []record.Reject) []record.Reject {
	slices.SortFunc(rejects, func(x, y record.Reject) int { return x.Row - y.Row })
	return rejects
}

// lacks reports whether the source did not send a column of row i.
func (p *plan) lacks(b *record.Batch, i int) bool {
	for _, v := range b.After {
		if v.State[i] == record.Unsent {
			return true
		}
	}
	return false
}

// knownRows looks up which rows with unsent cells have an old row in the table.
func (t *Table) knownRows(p *plan, h *heldBatch, out map[int]bool) map[int]bool {
	var rows []int
	var keys []keyindex.Hash
	for i := range h.b.Len() {
		if !out[i] && h.b.Ops[i] != record.OpDelete && p.lacks(h.b, i) {
			rows, keys = append(rows, i), append(keys, h.hashes[i])
		}
	}
	if len(rows) == 0 {
		return nil
	}
	where, found := make([]keyindex.Location, len(keys)), make([]bool, len(keys))
	t.index.Resolve(keys, where, found)
	part := h.b.Partition.Partition
	known := map[int]bool{}
	for i, row := range rows {
		known[row] = found[i] && !t.droppedFile(part, t.index.FilePath(where[i].File))
	}
	return known
}

// droppedFile reports whether a truncate or backfill of this interval takes the file away.
func (t *Table) droppedFile(partition int32, path string) bool {
	topic, o, ok := parseFileName(path)
	if !ok || topic != topicHash(t.cfg.Topic) || o.partition != partition {
		return false
	}
	for _, d := range t.part(partition).drops {
		if d.hits(o) {
			return true
		}
	}
	return false
}

// fillFrom says where the missing cells of a row are.
func fillFrom(prior place, pending, known bool) (filler, bool) {
	switch {
	case !pending:
		return filler{held: inTable}, known
	case prior.held == deleted:
		return filler{}, false
	}
	return filler(prior), true
}

// retire takes back the row that a newer op of its key replaces.
func (t *Table) retire(prior place, pending bool) {
	switch {
	case !pending || prior.held == deleted:
	case prior.held == inFile:
		t.all[prior.file].kill(prior.row)
	default:
		t.held[prior.held].live[prior.row] = false
	}
}

// discardHeld drops the held rows that d makes moot.
func (t *Table) discardHeld(d drop) {
	part := t.part(d.partition)
	for k := range t.held {
		h := &t.held[k]
		if h.b.Partition.Partition != d.partition {
			continue
		}
		for i := range h.b.Len() {
			if d.hits(originOf(h.b, i)) {
				if h.live == nil {
					h.live = allLive(h.b.Len())
				}
				h.live[i] = false
			}
		}
	}
	if t.appends() {
		return
	}
	part.pending.keep(func(p place) bool {
		return p.held >= 0 && !d.hits(originOf(t.held[p.held].b, int(p.row))) ||
			p.held == inFile && !d.hits(t.all[p.file].origin)
	})
}

func allLive(n int) []bool {
	live := make([]bool, n)
	for i := range live {
		live[i] = true
	}
	return live
}
