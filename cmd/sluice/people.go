package main

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/record"
)

// people are the keys of the persons that rows are about: one file below the
// pipeline's folder for each key that wraps them.
type people struct {
	dir  string
	keys func() *keys.Snapshot

	mu   sync.Mutex
	open map[keys.Ref]*openPeople
}

// How long a rotation of a ring may be known to one process and not to another.
const (
	ringLag   = 10 * time.Second
	ringPause = 250 * time.Millisecond
)

type openPeople struct {
	*keys.Subjects
	ring *keys.Ring
}

// subjectsPath is the file of the persons' keys that ref wraps.
func subjectsPath(dir string, ref keys.Ref) string {
	return filepath.Join(dir, "subjects", hashOf(ref.String())+".keys")
}

// of returns the persons' keys that the newest ring of ref wraps.
func (p *people) of(ref keys.Ref) (*keys.Subjects, error) {
	snapshot := p.keys()
	ring, ok := snapshot.Ring(ref)
	if !ok {
		return nil, snapshot.Err(ref)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if o := p.open[ref]; o != nil && o.ring == ring {
		return o.Subjects, nil
	}
	s, err := keys.OpenSubjects(subjectsPath(p.dir, ref), ring)
	if err != nil {
		return nil, err
	}
	if p.open == nil {
		p.open = map[keys.Ref]*openPeople{}
	}
	p.open[ref] = &openPeople{s, ring}
	return s, nil
}

// SubjectKey returns the key of a person.
func (p *people) SubjectKey(ref keys.Ref, subject []byte) ([]byte, bool) {
	s, err := p.of(ref)
	if err != nil {
		return nil, false
	}
	return s.Key(subject)
}

// perRule is a rule with a key per person, and the column that names them.
type perRule struct {
	ref    keys.Ref
	column int
}

func perRules(rules config.Rules, s *record.Schema) []perRule {
	var per []perRule
	for _, r := range rules {
		if e, ok := r.Settings.(*mappers.Encrypt); ok && e.Per != "" && s.Index(e.Per) >= 0 {
			per = append(per, perRule{e.Key, s.Index(e.Per)})
		}
	}
	return per
}

// ensure makes keys for the persons of b that have none yet, before a rule
// asks for them: rules do no I/O.
func (p *people) ensure(per []perRule, b *record.Batch) error {
	if p == nil || len(per) == 0 {
		return nil
	}
	if _, control := b.Control(); control {
		return nil
	}
	for _, r := range per {
		s, err := p.of(r.ref)
		if err != nil {
			return err
		}
		seen := map[string]bool{}
		var subjects [][]byte
		for _, vectors := range [][]*record.Vector{b.After, b.Before} {
			if vectors == nil {
				continue
			}
			v := vectors[r.column]
			for row, state := range v.State {
				if state != record.Present {
					continue
				}
				text, ok := mappers.AppendCanonical(nil, &b.Schema.Fields[r.column], v, row)
				if ok && !seen[string(text)] {
					seen[string(text)] = true
					subjects = append(subjects, text)
				}
			}
		}
		// Another process may have seen a rotation of the ring before this one.
		for end := time.Now().Add(ringLag); ; time.Sleep(ringPause) {
			if err = s.Ensure(subjects); err == nil {
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("the keys of persons: %w", err)
			}
			if s, err = p.of(r.ref); err != nil {
				return err
			}
		}
	}
	return nil
}

// madeUp gives every person a key that nobody keeps, for preview, explain and test.
type madeUp struct{}

// SubjectKey returns a key made of the person's name.
func (madeUp) SubjectKey(ref keys.Ref, subject []byte) ([]byte, bool) {
	sum := sha256.Sum256([]byte("sluice test key " + ref.String() + " " + string(subject)))
	return sum[:], true
}
