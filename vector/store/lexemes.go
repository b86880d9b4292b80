package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Bounds of a text's words. Postgres keeps no more places of a lexeme, and no higher ones.
const (
	maxPlaces = 255
	maxPlace  = 16383
)

// lexiconBytes is about what the known words may take in memory: some hundred thousand words.
const lexiconBytes = 16 << 20

// lexicon knows which lexemes the words of a language have, as Postgres says: to_tsvector takes a text apart in a
// third of a millisecond, more than all else that a chunk costs, and most words have been seen before.
type lexicon struct {
	mu    sync.Mutex
	known map[string][]string // empty: the word is too common to be looked for
	bytes int
}

// wordByte reports whether c belongs to a word: an ASCII letter or digit, or a part of any other sign. Postgres
// decides about those. The search function takes questions apart by the same rule.
func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80
}

// words calls f with each word of text.
func words(text string, f func(string)) {
	for i := 0; i < len(text); i++ {
		from := i
		for i < len(text) && wordByte(text[i]) {
			i++
		}
		if i > from {
			f(text[from:i])
		}
	}
}

// tsvectors returns the texts as Postgres spells a tsvector.
func (s *Store) tsvectors(ctx context.Context, tx pgx.Tx, texts []string) ([]string, error) {
	all := make(map[string][]string)
	for _, t := range texts {
		words(t, func(w string) { all[w] = nil })
	}
	if err := s.lexemes(ctx, tx, all); err != nil {
		return nil, err
	}
	out := make([]string, len(texts))
	places := map[string][]int{}
	var b []byte
	for i, t := range texts {
		clear(places)
		at := 0
		words(t, func(w string) {
			at++
			for _, l := range all[w] {
				if p := places[l]; len(p) < maxPlaces && (len(p) == 0 || p[len(p)-1] < maxPlace) {
					places[l] = append(p, min(at, maxPlace))
				}
			}
		})
		b = b[:0]
		for l, p := range places {
			b = append(b, '\'')
			for k := range len(l) {
				if l[k] == '\'' || l[k] == '\\' {
					b = append(b, l[k])
				}
				b = append(b, l[k])
			}
			b = append(b, '\'')
			for k, at := range p {
				b = append(b, ":,"[min(k, 1)])
				b = strconv.AppendInt(b, int64(at), 10)
			}
			b = append(b, ' ')
		}
		out[i] = string(b)
	}
	return out, nil
}

// lexemes fills in the lexemes of words, asking Postgres for those that are new.
func (s *Store) lexemes(ctx context.Context, tx pgx.Tx, all map[string][]string) error {
	var missing []string
	s.lexicon.mu.Lock()
	for w := range all {
		if l, ok := s.lexicon.known[w]; ok {
			all[w] = l
		} else {
			missing = append(missing, w)
		}
	}
	s.lexicon.mu.Unlock()
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	rows, err := tx.Query(ctx, `select n, tsvector_to_array(to_tsvector($1::text::regconfig, w)) from unnest($2::text[]) with ordinality u (w, n)`, s.cfg.Language, missing)
	if err != nil {
		return fmt.Errorf("take %d words apart: %w", len(missing), err)
	}
	var n int
	var l []string
	if _, err := pgx.ForEachRow(rows, []any{&n, &l}, func() error {
		w := strings.Clone(missing[n-1]) // not the whole text that it is a part of
		all[w] = slices.Clone(l)
		s.lexicon.mu.Lock()
		defer s.lexicon.mu.Unlock()
		// Invariant 9: the oldest go at once where there are too many; most texts bring them back.
		size := 2*len(w) + 100
		if s.lexicon.bytes += size; s.lexicon.known == nil || s.lexicon.bytes > lexiconBytes {
			s.lexicon.known, s.lexicon.bytes = map[string][]string{}, size
		}
		s.lexicon.known[w] = all[w]
		return nil
	}); err != nil {
		return fmt.Errorf("take %d words apart: %w", len(missing), err)
	}
	return nil
}
