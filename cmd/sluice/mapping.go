package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/record"
)

// mapping is what <dir>/mappings.json says of the rules of one stream in one
// phase: what plan compares a changed file with.
type mapping struct {
	Version  string         `json:"version"` // as it is in records and snapshots; empty without rules
	Rules    []ruleText     `json:"rules,omitempty"`
	Settings map[string]any `json:"settings,omitempty"` // of the stream in its sink
	In       *record.Schema `json:"in,omitempty"`       // of the newest rows, before the rules
	Out      *record.Schema `json:"out,omitempty"`      // behind them
	At       time.Time      `json:"at"`
}

// ruleText is a rule for people, with the hash of all its settings.
type ruleText struct {
	Text   string   `json:"text"` // hash(email)
	Fields []string `json:"fields,omitempty"`
	Hash   string   `json:"hash"`
}

// mappings is the content of mappings.json. Keys of Protect are streams, those
// of Shape sink/stream.
type mappings struct {
	Name    string              `json:"name"`
	Topics  map[string]any      `json:"topics"`
	Protect map[string]*mapping `json:"protect"`
	Shape   map[string]*mapping `json:"shape"`
}

// settingsOf returns the settings that are not empty, by the names of the
// file, so that a setting that is added to sluice later changes no hash.
func settingsOf(settings any) map[string]any {
	v := reflect.Indirect(reflect.ValueOf(settings))
	out := map[string]any{}
	if v.Kind() == reflect.Map {
		for _, k := range v.MapKeys() {
			out[k.String()] = v.MapIndex(k).Interface()
		}
		return out
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if f.IsExported() && name != "" && name != "-" && !v.Field(i).IsZero() {
			out[name] = v.Field(i).Interface()
		}
	}
	return out
}

// ruleTextOf describes a rule. A key counts by its id: a ring that moves to
// another file gives the same values, and a new stable version gives others.
func ruleTextOf(r config.Rule, ring *keys.Snapshot) ruleText {
	settings := settingsOf(r.Settings)
	for name, v := range settings {
		if ref, ok := v.(keys.Ref); ok {
			id := "missing"
			if got, ok := ring.Ring(ref); ok {
				id = got.Stable().ID
			}
			settings[name] = "key " + id
		}
	}
	text, err := json.Marshal(settings)
	if err != nil {
		text = fmt.Append(nil, settings) // the settings are plain values; a new kind that is not still has its hash
	}
	t := ruleText{Hash: hashOf(r.Kind, string(text))}
	if m, ok := mappers.RuleOf(r.Settings); ok {
		t.Fields = m.Names()
	}
	t.Text = r.Kind + "(" + strings.Join(t.Fields, ", ") + ")"
	if where, ok := settings["where"].(string); ok {
		t.Text = r.Kind + "(" + where + ")"
	}
	return t
}

func hashOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// mappingOf describes the rules of one stream in one phase.
func mappingOf(rules config.Rules, ring *keys.Snapshot, p mappers.Phase) *mapping {
	m := &mapping{At: time.Now().UTC().Truncate(time.Second)}
	var hashes []string
	for _, r := range rules {
		t := ruleTextOf(r, ring)
		m.Rules, hashes = append(m.Rules, t), append(hashes, t.Hash)
	}
	if len(hashes) > 0 {
		m.Version = p.String()[:1] + hashOf(hashes...)
	}
	return m
}

// mappingsOf describes everything that a change of f may concern.
func mappingsOf(f *config.File, ring *keys.Snapshot) *mappings {
	m := &mappings{Name: f.Name, Topics: settingsOf(&f.Topics), Protect: map[string]*mapping{}, Shape: map[string]*mapping{}}
	for _, s := range f.Sources {
		for _, local := range s.Streams {
			m.Protect[s.Name+"."+local] = mappingOf(protectRules(s, local), ring, mappers.Protect)
		}
		for _, p := range s.Protect {
			m.Protect[s.Name+"."+p.Stream] = mappingOf(p.Rules, ring, mappers.Protect)
		}
	}
	for _, s := range f.Sinks {
		for _, stream := range s.Streams {
			one := mappingOf(stream.Shape, ring, mappers.Shape)
			if stream.Settings != nil {
				one.Settings = settingsOf(stream.Settings)
			}
			m.Shape[s.Name+"/"+stream.Source+"."+stream.Local] = one
		}
	}
	return m
}

// protectRules returns the protect rules of one stream of s.
func protectRules(s *config.Source, local string) config.Rules {
	for _, p := range s.Protect {
		if p.Stream == local {
			return p.Rules
		}
	}
	return nil
}

// mappingFile keeps <dir>/mappings.json while a pipeline runs.
type mappingFile struct {
	path string
	log  *slog.Logger
	mu   sync.Mutex
	m    *mappings
}

func mappingPath(dir string) string { return filepath.Join(dir, "mappings.json") }

// readMappings returns what the last run wrote down; nil if none did.
func readMappings(dir string) (*mappings, error) {
	text, err := os.ReadFile(mappingPath(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what the last run wrote down: %w", err)
	}
	m := &mappings{}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("read %s: %w; remove it: the next run writes it again", mappingPath(dir), err)
	}
	return m, nil
}

// openMappings writes down what the roles of this run do. What other processes
// of the folder do stays as it is.
func openMappings(dir string, f *config.File, ring *keys.Snapshot, only map[string]bool, log *slog.Logger) (*mappingFile, error) {
	now := mappingsOf(f, ring)
	last, err := readMappings(dir)
	if err != nil {
		return nil, err
	}
	if last != nil && last.Name == now.Name {
		keep := func(now, last map[string]*mapping, owner func(key string) string) {
			for key, m := range last {
				switch {
				case !only[owner(key)]:
					now[key] = m
				case now[key] != nil && now[key].Version == m.Version: // the schemas are still true
					now[key].In, now[key].Out = m.In, m.Out
				}
			}
		}
		keep(now.Protect, last.Protect, func(key string) string { n, _ := record.ParseStreamName(key); return n.Source })
		keep(now.Shape, last.Shape, func(key string) string { sink, _, _ := strings.Cut(key, "/"); return sink })
	}
	file := &mappingFile{path: mappingPath(dir), log: log, m: now}
	return file, file.save()
}

// learn writes down the schemas of the newest rows. That it cannot is no
// reason to stop them: only plan and explain know less.
func (f *mappingFile) learn(key string, p mappers.Phase, version string, in, out *record.Schema) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.m.Shape
	if p == mappers.Protect {
		all = f.m.Protect
	}
	m := all[key]
	if m == nil {
		m = &mapping{}
		all[key] = m
	}
	m.Version, m.In, m.Out, m.At = version, in, out, time.Now().UTC().Truncate(time.Second)
	if err := f.save(); err != nil {
		f.log.Warn("plan and explain will not know the newest schema", "stream", key, "error", err)
	}
}

func (f *mappingFile) save() error {
	text, err := json.MarshalIndent(f.m, "", "  ")
	if err != nil {
		return fmt.Errorf("write down the rules: %w", err)
	}
	if err := os.WriteFile(f.path+".new", append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write down the rules: %w", err)
	}
	if err := os.Rename(f.path+".new", f.path); err != nil {
		return fmt.Errorf("write down the rules: %w", err)
	}
	return nil
}

// steps compiles the rules one more at a time; the schema behind rule i is
// Out of element i.
func (c chains) steps(rules config.Rules, schema *record.Schema, p mappers.Phase) ([]*mappers.Chain, error) {
	var steps []*mappers.Chain
	for i := range rules {
		chain, err := c.compile(slices.Clone(rules[:i+1]), schema, c.keys(), p)
		if err != nil {
			return nil, err
		}
		steps = append(steps, chain)
	}
	return steps, nil
}
