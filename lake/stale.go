package lake

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/sluice-data/sluice/record"
)

// maxStaleKeys bounds the property that holds the stale keys of a partition.
const maxStaleKeys = 4096

// allStale is the property's value when the keys are too many to name.
const allStale = "*"

// staleKey names a key. Unlike a hash of the key index it means the same to
// every process that writes the table.
type staleKey [9]byte

// staleKeys are the keys of one partition whose newest change was rejected:
// their row in the table is not the last one, so that no cells may be taken
// from it until a whole row has come. They are kept in a property of the
// table, written in the same commit as the offset of the rejected record.
type staleKeys struct {
	all    bool // conservative: too many, or not readable
	keys   map[staleKey]bool
	stored string // the property as the table has it
}

func readStaleKeys(text string) *staleKeys {
	s := &staleKeys{keys: map[staleKey]bool{}, stored: text}
	if text == "" {
		return s
	}
	for word := range strings.SplitSeq(text, ",") {
		b, err := base64.RawURLEncoding.DecodeString(word)
		if err != nil || len(b) != len(staleKey{}) || len(s.keys) > maxStaleKeys {
			return &staleKeys{all: true, keys: map[staleKey]bool{}, stored: text}
		}
		s.keys[staleKey(b)] = true
	}
	return s
}

// text spells the keys as the property holds them.
func (s *staleKeys) text() string {
	if s.all {
		return allStale
	}
	words := make([]string, 0, len(s.keys))
	for k := range s.keys {
		words = append(words, base64.RawURLEncoding.EncodeToString(k[:]))
	}
	slices.Sort(words)
	return strings.Join(words, ",")
}

// staleProperty names the property of one partition.
func (t *Table) staleProperty(partition int32) string {
	return stalePrefix + strings.TrimPrefix(t.markKey(partition), "sluice.")
}

const stalePrefix = "sluice.stale-keys."

// staleOf returns the stale keys of one partition.
func (t *Table) staleOf(partition int32) *staleKeys {
	s := t.stale[partition]
	if s == nil {
		s = readStaleKeys("")
		t.stale[partition] = s
	}
	return s
}

// mark remembers that the newest change of a row's key was rejected.
func (s *staleKeys) mark(p *plan, b *record.Batch, row int) {
	if s.all {
		return
	}
	s.keys[keyOf(p, b, row)] = true
	if len(s.keys) > maxStaleKeys {
		s.all = true
		clear(s.keys)
	}
}

// clear forgets a row's key: the row is whole.
func (s *staleKeys) clear(p *plan, b *record.Batch, row int) {
	if len(s.keys) > 0 {
		delete(s.keys, keyOf(p, b, row))
	}
}

// has reports whether no cells may be taken from older rows of a row's key.
func (s *staleKeys) has(p *plan, b *record.Batch, row int) bool {
	return s.all || len(s.keys) > 0 && s.keys[keyOf(p, b, row)]
}

// reset forgets every key: older rows are gone.
func (s *staleKeys) reset() {
	s.all = false
	clear(s.keys)
}

func keyOf(p *plan, b *record.Batch, row int) staleKey {
	var key []byte
	for _, k := range p.keys {
		key = record.AppendCanonical(key, &p.schema.Fields[k], b.After[k], row)
	}
	sum := sha256.Sum256(key)
	return staleKey(sum[:len(staleKey{})])
}

// staleTexts returns the properties of stale keys that a commit has to change.
func (t *Table) staleTexts() map[string]string {
	out := map[string]string{}
	for n, s := range t.stale {
		if text := s.text(); text != s.stored {
			out[t.staleProperty(n)] = text
		}
	}
	return out
}

// staleStored takes the stale keys as stored.
func (t *Table) staleStored() {
	for _, s := range t.stale {
		s.stored = s.text()
	}
}
