package activation

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"hash/fnv"
	"strconv"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/record"
)

// hasher makes the keyed hashes of a connection. It is not safe for concurrent use.
type hasher struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

func newHasher(secret []byte) *hasher { return &hasher{mac: hmac.New(sha256.New, secret)} }

// What a hash is of: equal bytes of different kinds have different hashes.
const (
	ofKey   = 'k'
	ofMatch = 'm'
	ofRow   = 'r'
	ofField = 'f'
)

func (h *hasher) hash(of byte, b []byte) []byte {
	h.mac.Reset()
	h.sum[0] = of
	h.mac.Write(h.sum[:1])
	h.mac.Write(b)
	return h.mac.Sum(h.sum[:0])
}

func (h *hasher) key(of byte, b []byte) state.Key { return state.Key(h.hash(of, b)[:16]) }

// word is a hash of 64 bits, never 0.
func (h *hasher) word(of byte, b []byte) uint64 {
	return max(binary.LittleEndian.Uint64(h.hash(of, b)), 1)
}

// cell is the value of one mapped field of a row.
type cell struct {
	state byte   // of the constants below
	value []byte // JSON
}

const (
	absent  = 'a' // the source did not send it, or its null leaves the field alone
	present = 'v'
	cleared = 'c'
)

// item is one mapped row that waits for its delivery.
type item struct {
	key     state.Key
	part    int32
	offset  int64
	pos     record.Position
	lane    delivery.Lane
	remove  bool // the record is to go
	sweep   bool // no row asked for it: a backfill did not find it
	match   []byte
	matchID state.Key // hash of match
	old     []byte    // match value before the change, where the source gives it
	cells   []cell
	refs    []refCell
	row     uint64 // hash of the whole mapped row; 0 if a cell was not sent
	partial bool   // a cell was not sent by the source
	loose   bool   // an event of a stream without a key: there is nothing to remember
	unasked bool   // the state was not yet asked who has the match value
	owner   *entry
	bytes   int
}

// refCell is one reference of a row.
type refCell struct {
	state byte      // absent, present, cleared
	key   state.Key // of the other row
	old   state.Key // of the one before, where the source gives it
	id    string    // the destination's id of the other record, empty while unknown
	oldID string
}

// mapping maps rows of one schema. It is not safe for concurrent use.
type mapping struct {
	cfg     *Config
	schema  *record.Schema
	keys    []int
	match   int
	columns []int // of each field, -1 = constant
	tags    []uint32
	refs    []int
	refTags []uint32
	refHash []*hasher // of the connections that are referred to
	consent int
	h       *hasher
	buf     []byte // of the row being mapped
	ends    []int
	scratch []byte
}

func tagOf(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}

// compile prepares cfg for rows of schema. It reports fields that are not there.
func compile(cfg *Config, schema *record.Schema, secret []byte) (*mapping, error) {
	m := &mapping{cfg: cfg, schema: schema, keys: schema.Keys(), match: -1, consent: -1, h: newHasher(secret)}
	find := func(from, what string) (int, error) {
		i := schema.Index(from)
		if i < 0 {
			return i, fmt.Errorf("map %s: %s: the stream has no field %s", schema.Stream, what, from)
		}
		return i, nil
	}
	var err error
	if cfg.Match.From != "" {
		if m.match, err = find(cfg.Match.From, "match"); err != nil {
			return nil, err
		}
	}
	if cfg.Consent.Field != "" {
		if m.consent, err = find(cfg.Consent.Field, "consent"); err != nil {
			return nil, err
		}
		if k := schema.Fields[m.consent].Kind; k != record.Bool {
			return nil, fmt.Errorf("map %s: consent field %s is %s, want bool", schema.Stream, cfg.Consent.Field, k)
		}
	}
	for _, f := range cfg.Fields {
		i := -1
		if f.From != "" {
			if i, err = find(f.From, "field "+f.Name); err != nil {
				return nil, err
			}
		}
		m.columns, m.tags = append(m.columns, i), append(m.tags, tagOf(f.Name))
	}
	for _, r := range cfg.References {
		i, err := find(r.From, "reference "+r.Type)
		if err != nil {
			return nil, err
		}
		m.refs, m.refTags = append(m.refs, i), append(m.refTags, tagOf("\x00"+r.Type))
		m.refHash = append(m.refHash, newHasher(r.To.Secret()))
	}
	if len(m.keys) == 0 && m.match < 0 && cfg.Operation != delivery.Append {
		return nil, fmt.Errorf("map %s: the stream has no key", schema.Stream)
	}
	return m, nil
}

// key returns the identity of a row; false if it has none.
func (m *mapping) key(b *record.Batch, row int) (state.Key, bool) {
	m.scratch = m.scratch[:0]
	switch {
	case len(m.keys) > 0:
		m.scratch = record.CanonicalKey(m.scratch, b, row)
	case m.cfg.Operation == delivery.Append: // every event is its own
		m.scratch = binary.LittleEndian.AppendUint32(m.scratch, uint32(b.Partition.Partition))
		m.scratch = binary.LittleEndian.AppendUint64(m.scratch, uint64(b.Offsets[row]))
	default:
		v := b.After[m.match]
		if b.Ops[row] == record.OpDelete && b.Before != nil && b.Before[m.match].State[row] == record.Present {
			v = b.Before[m.match]
		}
		if v.State[row] != record.Present {
			return state.Key{}, false
		}
		m.scratch = record.AppendCanonical(m.scratch, &m.schema.Fields[m.match], v, row)
	}
	return m.h.key(ofKey, m.scratch), true
}

// allowed reports whether a row has consent; a row whose consent was not sent
// has changed something else.
func (m *mapping) allowed(b *record.Batch, row int) bool {
	if m.consent < 0 {
		return true
	}
	v := b.After[m.consent]
	return v.State[row] == record.Unsent || v.State[row] == record.Present && v.Fixed[row] != 0
}

// encode maps a row into m.buf: of the match value and of each field a byte of
// state and the value, which ends where m.ends says. It reports whether the
// source sent all of it.
func (m *mapping) encode(b *record.Batch, row int) (full bool) {
	m.buf, m.ends, full = m.buf[:0], m.ends[:0], true
	if m.match >= 0 {
		full = m.encodeCell(b.After[m.match], m.match, row, OmitNull)
	}
	for i := range m.cfg.Fields {
		f := &m.cfg.Fields[i]
		if m.columns[i] < 0 {
			m.buf = append(append(m.buf, present), f.Constant...)
			m.ends = append(m.ends, len(m.buf))
			continue
		}
		full = m.encodeCell(b.After[m.columns[i]], m.columns[i], row, f.Nulls) && full
	}
	return full
}

func (m *mapping) encodeCell(v *record.Vector, column, row int, nulls Nulls) (sent bool) {
	switch s := v.State[row]; {
	case s == record.Present:
		m.buf = appendValue(append(m.buf, present), &m.schema.Fields[column], v, row)
	case s == record.Null && nulls == SendNull:
		m.buf = append(append(m.buf, present), "null"...)
	case s == record.Null && nulls == ClearNull:
		m.buf = append(m.buf, cleared)
	default:
		m.buf = append(m.buf, absent)
	}
	m.ends = append(m.ends, len(m.buf))
	return v.State[row] != record.Unsent
}

// appendValue appends a value as JSON. Decimals become numbers, with all their
// digits; JSON stays what it is.
func appendValue(dst []byte, f *record.Field, v *record.Vector, row int) []byte {
	switch f.Kind {
	case record.JSON:
		return append(dst, v.Value(row)...)
	case record.Decimal:
		hi, lo := v.DecimalAt(row)
		return record.AppendDecimal(dst, hi, lo, f.Scale)
	case record.DecimalText:
		if t := v.Value(row); json.Valid(t) {
			return append(dst, t...)
		}
	}
	return record.AppendJSON(dst, f, v, row)
}

// rowHash is the hash of what encode has made. The lengths are part of it, so
// that no two rows are spelled the same; so is the mapping.
func (m *mapping) rowHash(refs []refCell) uint64 {
	m.scratch = append(m.scratch[:0], m.buf...)
	for _, e := range m.ends {
		m.scratch = binary.LittleEndian.AppendUint32(m.scratch, uint32(e))
	}
	for _, t := range m.tags {
		m.scratch = binary.LittleEndian.AppendUint32(m.scratch, t)
	}
	for i, r := range refs {
		m.scratch = binary.LittleEndian.AppendUint32(m.scratch, m.refTags[i])
		m.scratch = append(append(m.scratch, r.state), r.key[:]...)
	}
	return m.h.word(ofRow, m.scratch)
}

// item makes what encode has made into an item of its own memory.
func (m *mapping) item(b *record.Batch, row int, key state.Key, refs []refCell) *item {
	it := m.blank(b, row, key)
	it.refs, it.loose = refs, len(m.keys) == 0 && m.cfg.Operation == delivery.Append
	data := bytes.Clone(m.buf)
	start := 0
	it.cells = make([]cell, 0, len(m.columns))
	for i, end := range m.ends {
		c := cell{state: data[start], value: data[start+1 : end : end]}
		start = end
		if i == 0 && m.match >= 0 {
			if c.state == present {
				it.match, it.matchID = c.value, m.h.key(ofMatch, c.value)
			}
			continue
		}
		it.cells = append(it.cells, c)
	}
	if m.match >= 0 && b.Before != nil && b.Before[m.match].State[row] == record.Present {
		it.old = appendValue(nil, &m.schema.Fields[m.match], b.Before[m.match], row)
	}
	it.bytes = len(data) + 32*len(it.cells) + 200
	return it
}

// blank is an item without fields: of a delete.
func (m *mapping) blank(b *record.Batch, row int, key state.Key) *item {
	it := &item{key: key, part: b.Partition.Partition, pos: b.Pos[row], bytes: 200}
	if row < len(b.Offsets) {
		it.offset = b.Offsets[row]
	}
	if b.Ops[row] == record.OpRead {
		it.lane = delivery.Backfill
	}
	return it
}

// references returns the references of a row, not yet resolved.
func (m *mapping) references(b *record.Batch, row int) []refCell {
	if len(m.refs) == 0 {
		return nil
	}
	refs := make([]refCell, len(m.refs))
	for i, column := range m.refs {
		f, v, r := &m.schema.Fields[column], b.After[column], &refs[i]
		switch v.State[row] {
		case record.Present:
			r.state, r.key = present, m.refHash[i].key(ofKey, record.AppendCanonical(nil, f, v, row))
		case record.Null:
			r.state = cleared
		default:
			r.state = absent
		}
		if b.Before != nil && b.Before[column].State[row] == record.Present {
			r.old = m.refHash[i].key(ofKey, record.AppendCanonical(nil, f, b.Before[column], row))
		}
	}
	return refs
}

// idempotency names the delivery of one version of a record.
func (m *hasher) idempotency(it *item, op delivery.Operation) string {
	b := append([]byte{byte(op)}, it.key[:]...)
	b = append(b, it.pos.String()...)
	b = strconv.AppendInt(append(b, '/'), int64(it.part), 10)
	b = strconv.AppendInt(append(b, '/'), it.offset, 10)
	k := m.key('i', b)
	return k.String()
}
