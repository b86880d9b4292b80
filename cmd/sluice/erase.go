package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/mappers"
)

// erased is the result of erase.
type erased struct {
	Keys []erasedKey `json:"keys"`
}

type erasedKey struct {
	Key    string `json:"key"`
	Erased bool   `json:"erased"` // false: there was none
	Live   int    `json:"persons_with_a_key"`
	Gone   int    `json:"persons_erased"`
}

func (a *app) eraseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "erase SUBJECT",
		Short: "Destroy the key of a person, and with it all that rules with per: have encrypted about them",
		Long: "erase destroys the key of one person. What encrypt rules with per: have written about them, into topics, tables,\n" +
			"dead letters and every copy, cannot be opened any more, by anybody. It cannot be taken back.\n" +
			"SUBJECT is the value of the field that per: names, as text.\n\n" +
			"What it does not reach: values that no rule with per: covers, copies of the key file in backups, disks that keep\n" +
			"overwritten blocks, and whoever has opened a value before. Delete the person at the source first: rows that come\n" +
			"later are refused to the dead letters, without their values.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := a.load()
			if err != nil {
				return err
			}
			ctx, stop := untilTerminated()
			defer stop()
			r, err := erase(ctx, f, args[0])
			a.result = r
			if err != nil {
				return err
			}
			found := false
			for _, k := range r.Keys {
				found = found || k.Erased
				if !a.json && k.Erased {
					fmt.Fprintf(a.stdout, "erased the key that %s wraps; %s are left\n", k.Key, count(k.Live, "person"))
				}
			}
			if !found {
				return fmt.Errorf("nobody of this name has a key; is it spelt as in the field that per: names?")
			}
			return nil
		},
	}
}

func erase(ctx context.Context, f *config.File, who string) (erased, error) {
	r := erased{Keys: []erasedKey{}}
	var refs []keys.Ref
	for _, u := range keyUses(f) {
		if slices.ContainsFunc(u.rules, func(r config.Rule) bool { e, ok := r.Settings.(*mappers.Encrypt); return ok && e.Per != "" }) {
			refs = append(refs, u.ref)
		}
	}
	if len(refs) == 0 {
		return r, invalid(fmt.Errorf("no rule of %s has per:, so nobody has a key of their own", f.Path()))
	}
	snapshot := keys.Open(ctx, refs, f.Base(), keys.NewServices(os.Getenv))
	p := &people{dir: f.Local(f.Dir), keys: func() *keys.Snapshot { return snapshot }}
	for _, ref := range refs {
		s, err := p.of(ref)
		if err != nil {
			return r, environment(err)
		}
		k := erasedKey{Key: ref.String()}
		if k.Erased, err = s.Erase([]byte(who)); err != nil {
			return r, environment(err)
		}
		k.Live, k.Gone = s.Len()
		r.Keys = append(r.Keys, k)
	}
	return r, nil
}
