package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sync/atomic"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/record"
)

// keyRefs returns the keys that the settings of a rule name.
func keyRefs(settings any) []keys.Ref {
	v := reflect.Indirect(reflect.ValueOf(settings))
	if v.Kind() != reflect.Struct {
		return nil
	}
	var refs []keys.Ref
	for i := range v.NumField() {
		if !v.Type().Field(i).IsExported() {
			continue
		}
		if ref, ok := v.Field(i).Interface().(keys.Ref); ok && !ref.IsZero() {
			refs = append(refs, ref)
		}
	}
	return refs
}

// keyUse is a key of the file and the rules that name it.
type keyUse struct {
	ref   keys.Ref
	rules []config.Rule
}

// keyUses lists the keys that the rules of f name, in its order.
func keyUses(f *config.File) []keyUse {
	var uses []keyUse
	for _, rules := range allRules(f) {
		for _, r := range rules {
			for _, ref := range keyRefs(r.Settings) {
				i := slices.IndexFunc(uses, func(u keyUse) bool { return u.ref == ref })
				if i < 0 {
					i, uses = len(uses), append(uses, keyUse{ref: ref})
				}
				uses[i].rules = append(uses[i].rules, r)
			}
		}
	}
	return uses
}

// openKeys reads the keys that the rules of f name. What is wrong with them on
// this machine is an error; a key service that does not answer only parks the
// streams that need it.
func openKeys(ctx context.Context, f *config.File, c keys.KeeperConfig) (*keys.Keeper, error) {
	uses := keyUses(f)
	for _, u := range uses {
		c.Refs = append(c.Refs, u.ref)
	}
	c.BaseDir = f.Base()
	if c.Services == nil {
		c.Services = keys.NewServices(os.Getenv)
	}
	k, err := keys.OpenKeeper(ctx, c)
	if err != nil {
		return nil, err
	}
	var problems config.Problems
	for _, u := range uses {
		err := k.Current().Err(u.ref)
		var service *keys.ServiceError
		if err == nil || errors.As(err, &service) {
			continue
		}
		for _, r := range u.rules {
			problems = append(problems, f.Problem(r.Path+".key", err.Error()))
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return k, nil
}

// liveChain is a chain that follows its keys: it is compiled again when they
// change, between two batches.
type liveChain struct {
	keys    func() *keys.Snapshot
	people  *people
	per     []perRule
	compile func(*keys.Snapshot) (*keyedChain, error)
	newest  atomic.Pointer[keyedChain]
}

// keyedChain is a chain with the keys of one moment.
type keyedChain struct {
	*mappers.Chain
	ring *keys.Snapshot
	out  *record.Schema // Chain.Out with the version of the rules
}

// live compiles rules for a schema; nil without rules. key is where the
// mapping file has them.
func (c chains) live(key string, rules config.Rules, schema *record.Schema, p mappers.Phase) (*liveChain, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	l := &liveChain{keys: c.keys, people: c.people, per: perRules(rules, schema), compile: func(ring *keys.Snapshot) (*keyedChain, error) {
		chain, err := c.compile(rules, schema, ring, p)
		if err != nil {
			return nil, err
		}
		version, out := mappingOf(rules, ring, p).Version, *chain.Out()
		if out.Mapping = version; p == mappers.Shape && schema.Mapping != "" {
			out.Mapping = schema.Mapping + "+" + version
		}
		c.file.learn(key, p, version, schema, &out)
		return &keyedChain{chain, ring, &out}, nil
	}}
	chain, err := l.compile(c.keys())
	if err != nil {
		return nil, err
	}
	l.newest.Store(chain)
	return l, nil
}

// Apply runs the rules with the newest keys. Invariant 6: without a key it is
// an error, and the stream stops.
func (l *liveChain) Apply(b *record.Batch) (out *record.Batch, filtered int, rejects []record.Reject, err error) {
	c := l.newest.Load()
	if ring := l.keys(); ring != c.ring {
		newer, err := l.compile(ring)
		if err != nil {
			return nil, 0, nil, err
		}
		if newer.out.ID != c.out.ID {
			return nil, 0, nil, fmt.Errorf("the rules of %s give another schema with the new keys", newer.In().Stream)
		}
		c = newer
		l.newest.Store(c)
	}
	if err := l.people.ensure(l.per, b); err != nil {
		return nil, 0, nil, err
	}
	out, filtered, rejects, err = c.Chain.Apply(b)
	if out != nil && out != b { // a batch that passes as it is keeps its schema too
		out.Schema = c.out
	}
	return out, filtered, rejects, err
}
