package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/mappers"
)

// keyReport is what list and verify say of one key. It has nothing of the key itself.
type keyReport struct {
	Key      string          `json:"key"`   // the reference, or the path of a ring
	Rules    []string        `json:"rules"` // where the file names it
	OK       bool            `json:"ok"`
	Error    string          `json:"error,omitempty"`
	Warnings []string        `json:"warnings,omitempty"`
	Versions []versionReport `json:"versions,omitempty"`
}

type versionReport struct {
	ID      string     `json:"id"`
	State   keys.State `json:"state"`
	Primary bool       `json:"primary"`
	Stable  bool       `json:"stable"`
	Bytes   int        `json:"bytes,omitempty"`
	Wrapped string     `json:"wrapped_by,omitempty"`
	Created *time.Time `json:"created,omitempty"`
}

func (a *app) keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "List, check, make and rotate the keys of rules; never shows a key",
		Long: "A key of a rule is a variable, a file, or a ring: a file with several versions of a key.\n" +
			"The primary version of a ring encrypts what is new; hash and aes-siv rules use its stable version,\n" +
			"because equal values must stay equal; every enabled version decrypts.\n" +
			"A running sluice notices a changed ring within seconds and uses it from the next batch on.",
		Args: cobra.NoArgs,
		RunE: oneOf,
	}
	cmd.AddCommand(a.keysListCommand(), a.keysVerifyCommand(), a.keysNewCommand(), a.keysRotateCommand(), a.keysRewrapCommand(),
		a.keysStateCommand("disable", "Make a version decrypt nothing any more", keys.Disabled),
		a.keysStateCommand("enable", "Let a disabled version decrypt again", keys.Enabled))
	return cmd
}

func (a *app) keysListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the keys that the rules name, with their versions",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.reportKeys()
			return err
		},
	}
}

func (a *app) keysVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Open every key that the rules name; exit code 3 if one cannot be had",
		Long: "verify reads every key, asks the key services to open what they have wrapped, checks that each version\n" +
			"belongs to its id, and that the key fits the rules that name it.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			reports, err := a.reportKeys()
			if err != nil {
				return err
			}
			bad := 0
			for _, r := range reports {
				if !r.OK {
					bad++
				}
			}
			if bad > 0 {
				return environment(fmt.Errorf("%s of %d cannot be used", count(bad, "key"), len(reports)))
			}
			return nil
		},
	}
}

// reportKeys looks at the keys of the file and shows them.
func (a *app) reportKeys() ([]keyReport, error) {
	f, err := a.load()
	if err != nil {
		return nil, err
	}
	ctx, stop := untilTerminated()
	defer stop()
	services := keys.NewServices(os.Getenv)
	reports := []keyReport{}
	for _, u := range keyUses(f) {
		s := keys.Open(ctx, []keys.Ref{u.ref}, f.Base(), services)
		r := keyReport{Key: u.ref.String(), Warnings: s.Warnings()}
		for _, rule := range u.rules {
			r.Rules = append(r.Rules, rule.Path)
		}
		err := s.Err(u.ref)
		if ring, ok := s.Ring(u.ref); ok {
			r.Versions = versionReports(ring)
			err = fits(u, ring)
		}
		for _, short := range s.Short() {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s has a key of fewer than %d bytes, which can be found by trying", short, keys.AdvisedBytes))
		}
		if r.OK = err == nil; err != nil {
			r.Error = err.Error()
		}
		reports = append(reports, r)
	}
	a.result = map[string]any{"keys": reports}
	if !a.json {
		fmt.Fprint(a.stdout, plainText(keysText(reports)))
	}
	return reports, ctx.Err()
}

// fits reports whether the keys of a ring have a length that its encrypt rules take.
func fits(u keyUse, ring *keys.Ring) error {
	for _, r := range u.rules {
		e, ok := r.Settings.(*mappers.Encrypt)
		if !ok || !strings.HasPrefix(e.Method, "aes") {
			continue
		}
		for _, v := range []keys.Version{ring.Primary(), ring.Stable()} {
			n := len(v.Value())
			if ok := map[string][]int{"aes-gcm": {32}, "aes-siv": {32, 48, 64}, "aes-cbc": {16, 24, 32}, "aes-ctr": {16, 24, 32}}[e.Method]; ok != nil && !slices.Contains(ok, n) {
				return fmt.Errorf("version %s has %d bytes; %s of %s wants one of %v", v.ID, n, e.Method, r.Path, ok)
			}
		}
	}
	return nil
}

func versionReports(ring *keys.Ring) []versionReport {
	var list []versionReport
	for _, v := range ring.Versions() {
		r := versionReport{ID: v.ID, State: v.State, Primary: v.ID == ring.Primary().ID, Stable: v.ID == ring.Stable().ID,
			Bytes: len(v.Value()), Wrapped: v.Wrap.String()}
		if !v.Created.IsZero() {
			created := v.Created
			r.Created = &created
		}
		list = append(list, r)
	}
	return list
}

func keysText(reports []keyReport) string {
	var b strings.Builder
	bad := 0
	for _, r := range reports {
		if !r.OK {
			bad++
		}
	}
	fmt.Fprintf(&b, "%s", count(len(reports), "key"))
	if bad > 0 {
		fmt.Fprintf(&b, " · %d cannot be used", bad)
	}
	b.WriteString("\n")
	for _, r := range reports {
		fmt.Fprintf(&b, "%s   %s\n", r.Key, strings.Join(r.Rules, ", "))
		if r.Error != "" {
			fmt.Fprintf(&b, "  FAIL  %s\n", r.Error)
		}
		for _, w := range r.Warnings {
			fmt.Fprintf(&b, "  warn  %s\n", w)
		}
		b.WriteString(versionsText(r.Versions))
	}
	return b.String()
}

func versionsText(versions []versionReport) string {
	var rows [][]string
	for _, v := range versions {
		use := []string{string(v.State)}
		if v.Primary {
			use = append(use, "primary")
		}
		if v.Stable {
			use = append(use, "stable")
		}
		created, wrapped := "", "not wrapped"
		if v.Created != nil {
			created = v.Created.Format(time.DateOnly)
		}
		if v.Wrapped != "" {
			wrapped = "wrapped by " + v.Wrapped
		}
		rows = append(rows, []string{"  " + v.ID, strings.Join(use, ", "), fmt.Sprintf("%d bytes", v.Bytes), wrapped, created})
	}
	return aligned(rows)
}

func (a *app) keysNewCommand() *cobra.Command {
	var wrap string
	cmd := &cobra.Command{
		Use:   "new PATH",
		Short: "Make a ring with one random key",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			w, err := keys.ParseWrap(wrap)
			if err != nil {
				return invalid(fmt.Errorf("--wrap: %w", err))
			}
			ctx, stop := untilTerminated()
			defer stop()
			ring, err := keys.NewRing(ctx, time.Now(), w, keys.NewServices(os.Getenv))
			if err == nil {
				err = keys.CreateRing(args[0], ring)
			}
			if err != nil {
				return environment(err)
			}
			a.showRing(args[0], ring, "made "+args[0]+"; write it into a rule as key: \""+a.reference(args[0], w).String()+"\"")
			return nil
		},
	}
	cmd.Flags().StringVar(&wrap, "wrap", "", "who wraps its keys: aws-kms:KEY or vault:MOUNT/KEY; without it the file is the secret")
	return cmd
}

// reference returns how a rule names the ring at path.
func (a *app) reference(path string, w keys.Wrap) keys.Ref {
	r := keys.Ref{Scheme: keys.RingFile, Name: path}
	if !w.IsZero() {
		r.Scheme = w.By
	}
	abs, err1 := filepath.Abs(path)
	base, err2 := filepath.Abs(filepath.Dir(a.configPath))
	if rel, err := filepath.Rel(base, abs); errors.Join(err1, err2, err) == nil && !strings.HasPrefix(rel, "..") {
		r.Name = filepath.ToSlash(rel)
	}
	return r
}

func (a *app) keysRotateCommand() *cobra.Command {
	var stable bool
	cmd := &cobra.Command{
		Use:   "rotate PATH",
		Short: "Give a ring a new primary version",
		Long: "rotate adds a random key to a ring and makes it the primary: aes-gcm rules encrypt with it from the next batch on,\n" +
			"and what older versions have encrypted stays readable. Hash and aes-siv rules go on with the stable version;\n" +
			"--stable moves that one too. Then every value they make changes, and the streams must be loaded again.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			said := "rotated " + args[0] + "; a running sluice uses the new primary from the next batch on"
			if stable {
				said = "rotated " + args[0] + " with its stable version: what hash and aes-siv rules give changes;\n" +
					"sluice plan says which streams must be loaded again"
			}
			return a.changeRing(args[0], said, func(ctx context.Context, r *keys.Ring, s keys.Services) (*keys.Ring, error) {
				return r.Rotate(ctx, time.Now(), stable, s)
			})
		},
	}
	cmd.Flags().BoolVar(&stable, "stable", false, "move the stable version too, which changes what hash and aes-siv rules give")
	return cmd
}

func (a *app) keysRewrapCommand() *cobra.Command {
	var wrap string
	cmd := &cobra.Command{
		Use:   "rewrap PATH",
		Short: "Wrap the keys of a ring anew, or for somebody else",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var w keys.Wrap
			if wrap != "none" {
				var err error
				if w, err = keys.ParseWrap(wrap); err != nil || w.IsZero() {
					return invalid(errors.New("--wrap: want aws-kms:KEY, vault:MOUNT/KEY or none"))
				}
			}
			return a.changeRing(args[0], "rewrapped "+args[0]+"; ids and keys are the same", func(ctx context.Context, r *keys.Ring, s keys.Services) (*keys.Ring, error) {
				return r.Rewrap(ctx, w, s)
			})
		},
	}
	cmd.Flags().StringVar(&wrap, "wrap", "", "who wraps its keys: aws-kms:KEY, vault:MOUNT/KEY, or none, which makes the file the secret")
	return cmd
}

func (a *app) keysStateCommand(name, short string, state keys.State) *cobra.Command {
	return &cobra.Command{
		Use:   name + " PATH ID",
		Short: short,
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.changeRing(args[0], name+"d version "+args[1]+" of "+args[0], func(_ context.Context, r *keys.Ring, _ keys.Services) (*keys.Ring, error) {
				return r.SetState(args[1], state)
			})
		},
	}
}

func (a *app) changeRing(path, said string, change func(context.Context, *keys.Ring, keys.Services) (*keys.Ring, error)) error {
	ctx, stop := untilTerminated()
	defer stop()
	services := keys.NewServices(os.Getenv)
	ring, err := keys.UpdateRing(ctx, path, services, func(r *keys.Ring) (*keys.Ring, error) { return change(ctx, r, services) })
	if err != nil {
		return environment(err)
	}
	a.showRing(path, ring, said)
	return nil
}

func (a *app) showRing(path string, ring *keys.Ring, said string) {
	r := keyReport{Key: path, Rules: []string{}, OK: true, Versions: versionReports(ring)}
	a.result = r
	if !a.json {
		fmt.Fprint(a.stdout, plainText(said+"\n"+versionsText(r.Versions)))
	}
}

// encryptRule returns the encrypt rule of a field of a stream, with the phase's rules.
func encryptRule(f *config.File, stream, field string) (*mappers.Encrypt, error) {
	var found []*mappers.Encrypt
	look := func(rules config.Rules) {
		for _, r := range rules {
			if e, ok := r.Settings.(*mappers.Encrypt); ok && (e.Field == field || e.Field+e.Suffix == field) {
				found = append(found, e)
			}
		}
	}
	known := false
	for _, s := range f.Sources {
		for _, p := range s.Protect {
			if s.Name+"."+p.Stream == stream {
				known = true
				look(p.Rules)
			}
		}
	}
	for _, s := range f.Sinks {
		for _, st := range s.Streams {
			if st.Source+"."+st.Local == stream {
				known = true
				look(st.Shape)
			}
		}
	}
	switch {
	case !known:
		return nil, fmt.Errorf("--stream: no stream %s has rules", stream)
	case len(found) == 0:
		return nil, fmt.Errorf("no encrypt rule of %s has the field %s; name the key with --key and the place with --domain", stream, field)
	case len(found) > 1:
		return nil, fmt.Errorf("several encrypt rules of %s have the field %s; name the key with --key and the place with --domain", stream, field)
	}
	return found[0], nil
}
