package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/record"
)

// Effects of a change, from the lightest to the heaviest.
const (
	effectInPlace = "in place" // holds from the next batch on; what is written already keeps the old value
	effectReplay  = "replay"   // what is written already changes only when its topic is read again
	effectReread  = "re-read"  // what is written already changes only when the source is read again
	effectBlocked = "blocked"  // cannot be done to a pipeline that has run
)

// planned is the result of plan.
type planned struct {
	ID      string   `json:"id"`
	Last    bool     `json:"last_run"` // there is one to compare with
	Changes []change `json:"changes"`
	Blocked int      `json:"blocked"`

	Sends []sending `json:"sends,omitempty"` // of --dry-run
}

// change is what becomes of one stream, or of one stream in one sink.
type change struct {
	What   string   `json:"what"` // shop-db.public.customers, lake/shop-db.public.orders, topics.partitions
	Did    []string `json:"did"`  // + mask(phone)
	Effect string   `json:"effect"`
	Says   string   `json:"says"`
	Fix    string   `json:"fix,omitempty"` // a command that makes what is written already equal
}

func (a *app) planCommand() *cobra.Command {
	var expect string
	var dry, reveal bool
	var most int
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Say what a changed configuration file would do to the pipeline",
		Long: "plan compares the file with what the running or the last pipeline wrote down, and says of each stream whether the\n" +
			"change holds from the next batch on, needs its topic to be read again, or needs the source to be read again.\n" +
			"With --dry-run it also compares the rows on the topics with what SaaS sinks have delivered, and counts what they\n" +
			"would create, update and delete; it reads the old values of the first records and sends nothing.\n" +
			"It changes nothing. The exit code is 2 if a change cannot be done, or if --expect names another plan.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			f, err := a.load()
			if err != nil {
				return err
			}
			if err := checkAll(f); err != nil {
				return err
			}
			p, err := plan(f)
			if err != nil {
				return err
			}
			if most < 0 || most > maxPreview {
				return invalid(fmt.Errorf("-n: want 0 to %d records", maxPreview))
			}
			a.result = p
			if !a.json {
				fmt.Fprint(a.stdout, plainText(p.text(f)))
			}
			if dry {
				if p.Sends, err = dryRun(f, most, reveal); err != nil {
					return err
				}
				for i := range p.Sends {
					if !a.json {
						fmt.Fprint(a.stdout, asciiDots(plainText(p.Sends[i].text())))
					}
				}
			}
			switch {
			case expect != "" && expect != p.ID:
				return invalid(fmt.Errorf("this is plan %s and not %s: the file, its keys or the pipeline have changed since", p.ID, expect))
			case p.Blocked > 0:
				return invalid(fmt.Errorf("%s cannot be done", count(p.Blocked, "change")))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "count what SaaS sinks would send")
	cmd.Flags().IntVarP(&most, "records", "n", 3, "of --dry-run: show the first so many records of each stream")
	cmd.Flags().BoolVar(&reveal, "reveal", false, "of --dry-run: show values in full")
	cmd.Flags().StringVar(&expect, "expect", "", "the id that the plan must have")
	return cmd
}

func plan(f *config.File) (*planned, error) {
	last, err := readMappings(f.Local(f.Dir))
	if err != nil {
		return nil, environment(err)
	}
	ctx, stop := untilTerminated()
	defer stop()
	var refs []keys.Ref
	for _, u := range keyUses(f) {
		refs = append(refs, u.ref)
	}
	ring := keys.Open(ctx, refs, f.Base(), keys.NewServices(os.Getenv))
	for _, ref := range refs {
		if err := ring.Err(ref); err != nil {
			return nil, environment(fmt.Errorf("whether its values change cannot be said: %w", err))
		}
	}
	now := mappingsOf(f, ring)
	p := &planned{Last: last != nil, Changes: []change{}}
	if last == nil {
		last = &mappings{Name: f.Name}
	}
	if last.Name != now.Name {
		p.Changes = append(p.Changes, change{What: "name", Did: []string{fmt.Sprintf("~ %s → %s", last.Name, now.Name)}, Effect: effectReread,
			Says: "a new pipeline: new topics, groups and offsets, and every stream is loaded again; those of the old name stay"})
	} else if p.Last {
		p.topics(last, now)
		p.streams(last, now)
		p.sinks(last, now)
	}
	for _, c := range p.Changes {
		if c.Effect == effectBlocked {
			p.Blocked++
		}
	}
	p.ID, err = planID(last, now)
	return p, err
}

// planID names a change: another file or another last run has another id.
func planID(last, now *mappings) (string, error) {
	var texts []string
	for _, m := range []*mappings{last, now} {
		bare := mappings{Name: m.Name, Topics: m.Topics, Protect: map[string]*mapping{}, Shape: map[string]*mapping{}}
		for k, v := range m.Protect {
			bare.Protect[k] = &mapping{Version: v.Version}
		}
		for k, v := range m.Shape {
			bare.Shape[k] = &mapping{Version: v.Version, Settings: v.Settings}
		}
		text, err := json.Marshal(bare)
		if err != nil {
			return "", fmt.Errorf("name the plan: %w", err)
		}
		texts = append(texts, string(text))
	}
	return hashOf(texts...), nil
}

func (p *planned) topics(last, now *mappings) {
	for _, name := range sortedNames(last.Topics, now.Topics) {
		was, is := plainJSON(last.Topics[name]), plainJSON(now.Topics[name])
		if was == is {
			continue
		}
		c := change{What: "topics." + name, Did: []string{fmt.Sprintf("~ %s → %s", was, is)}, Effect: effectInPlace, Says: "is for new topics; those that exist keep theirs"}
		if name == "partitions" || name == "format" {
			c.Effect, c.Says = effectBlocked, "topics that exist keep theirs: records of a key would change their partition or form"
			c.Fix = "give the pipeline another name, or set it back"
		}
		p.Changes = append(p.Changes, c)
	}
}

// streams compares the protect rules.
func (p *planned) streams(last, now *mappings) {
	for _, name := range sortedNames(last.Protect, now.Protect) {
		was, is := last.Protect[name], now.Protect[name]
		switch {
		case was == nil:
			p.Changes = append(p.Changes, change{What: name, Did: []string{"+ stream"}, Effect: effectInPlace, Says: "is loaded at the next start"})
		case is == nil:
			p.Changes = append(p.Changes, change{What: name, Did: []string{"- stream"}, Effect: effectInPlace,
				Says: "is read no more; its topic and tables stay as they are"})
		case was.Version != is.Version:
			p.Changes = append(p.Changes, protectChange(name, was, is))
		}
	}
}

func protectChange(name string, was, is *mapping) change {
	did, touched := ruleDiff("protect", was.Rules, is.Rules)
	c := change{What: name, Did: did, Effect: effectInPlace, Fix: "sluice backfill " + name,
		Says: "holds from the next batch on; rows already written keep the old value, and Kafka has it until its retention is over"}
	if key := keyField(was.In, touched); key != "" {
		c.Effect = effectReread
		c.Says = fmt.Sprintf("changes the key field %s: rows already written are not found by later changes any more; the stream must be loaded again", key)
	}
	return c
}

// keyField returns a key field that a changed rule speaks of; "" if none does.
func keyField(s *record.Schema, touched []string) string {
	if s == nil {
		return ""
	}
	for _, i := range s.Keys() {
		// A pattern is asked as a rule would be.
		if mappers.Named([]mappers.Rule{{Drop: &mappers.Drop{Fields: touched}}}, s.Fields[i].Name) {
			return s.Fields[i].Name
		}
	}
	return ""
}

// sinks compares shape rules and settings of streams.
func (p *planned) sinks(last, now *mappings) {
	for _, name := range sortedNames(last.Shape, now.Shape) {
		was, is := last.Shape[name], now.Shape[name]
		switch {
		case was == nil:
			p.Changes = append(p.Changes, change{What: name, Did: []string{"+ stream"}, Effect: effectInPlace,
				Says: "is filled from its topic at the next start; what retention has deleted there is missing until a backfill"})
			continue
		case is == nil:
			p.Changes = append(p.Changes, change{What: name, Did: []string{"- stream"}, Effect: effectInPlace, Says: "is written no more; what is there stays"})
			continue
		}
		if was.Version != is.Version {
			did, _ := ruleDiff("shape", was.Rules, is.Rules)
			_, stream, _ := strings.Cut(name, "/")
			p.Changes = append(p.Changes, change{What: name, Did: did, Effect: effectReplay, Fix: "sluice backfill " + stream,
				Says: "holds from the next batch on; rows already written keep the old value until the stream is loaded again"})
		}
		p.settings(name, was.Settings, is.Settings)
	}
}

// settings compares what a sink is told about a stream.
func (p *planned) settings(name string, was, is map[string]any) {
	for _, key := range sortedNames(was, is) {
		before, after := plainJSON(was[key]), plainJSON(is[key])
		if before == after {
			continue
		}
		c := change{What: name, Did: []string{fmt.Sprintf("~ %s: %s → %s", key, before, after)}, Effect: effectInPlace, Says: "holds from the next batch on"}
		switch key {
		case "partition_by", "sort_by":
			c.Says = "is for new tables; the table that exists keeps its own"
		case "table":
			c.Effect, c.Says = effectReplay, "another table: it is filled from the topic as far as that goes back; the old one stays as it is"
			_, stream, _ := strings.Cut(name, "/")
			c.Fix = "sluice backfill " + stream
		case "mode":
			c.Effect, c.Says = effectReread, "rows already written are of the other mode; drop the table and load the stream again"
			_, stream, _ := strings.Cut(name, "/")
			c.Fix = "sluice backfill " + stream
		}
		p.Changes = append(p.Changes, c)
	}
}

// ruleDiff lists the rules that came, went and changed, and the fields they name.
func ruleDiff(phase string, was, is []ruleText) (did, touched []string) {
	has := func(list []ruleText, same func(ruleText) bool) bool { return slices.ContainsFunc(list, same) }
	for _, r := range was {
		switch {
		case has(is, func(o ruleText) bool { return o.Hash == r.Hash }):
		case has(is, func(o ruleText) bool { return o.Text == r.Text }):
			did, touched = append(did, phase+" ~ "+r.Text), append(touched, r.Fields...)
		default:
			did, touched = append(did, phase+" - "+r.Text), append(touched, r.Fields...)
		}
	}
	for _, r := range is {
		if !has(was, func(o ruleText) bool { return o.Hash == r.Hash || o.Text == r.Text }) {
			did, touched = append(did, phase+" + "+r.Text), append(touched, r.Fields...)
		}
	}
	if len(did) == 0 {
		did = []string{phase + " ~ the order of the rules"}
	}
	return did, touched
}

// sortedNames returns the keys of both maps.
func sortedNames[V any](a, b map[string]V) []string {
	var names []string
	for _, m := range []map[string]V{a, b} {
		for n := range m {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	return names
}

// plainJSON spells a setting as mappings.json does, whatever its Go type is.
func plainJSON(v any) string {
	if v == nil {
		return "none"
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	var back any
	if json.Unmarshal(text, &back) != nil {
		return string(text)
	}
	text, err = json.Marshal(back)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

func (p *planned) text(f *config.File) string {
	var b strings.Builder
	switch {
	case !p.Last:
		fmt.Fprintf(&b, "%s has not run here yet: everything is new, and every stream is loaded at the first start\n", f.Name)
	case len(p.Changes) == 0:
		fmt.Fprintf(&b, "nothing changes for %s\n", f.Name)
	default:
		var rows [][]string
		for _, c := range p.Changes {
			rows = append(rows, []string{"  " + c.What, strings.Join(c.Did, ", "), c.Effect})
			rows = append(rows, []string{"", "", "", c.Says})
			if c.Fix != "" {
				rows = append(rows, []string{"", "", "", "fix: " + c.Fix})
			}
		}
		b.WriteString(planRows(rows))
	}
	blocked := "nothing blocked"
	if p.Blocked > 0 {
		blocked = fmt.Sprintf("%d blocked", p.Blocked)
	}
	fmt.Fprintf(&b, "plan %s · %s", p.ID, blocked)
	if len(p.Changes) > 0 && p.Blocked == 0 {
		b.WriteString(" · the next start does it: sluice run -c " + f.Path())
	}
	return b.String() + "\n"
}

// planRows aligns the first columns; what a change means stands below it.
func planRows(rows [][]string) string {
	var b strings.Builder
	var heads [][]string
	for _, r := range rows {
		if len(r) == 3 {
			heads = append(heads, r)
		}
	}
	lines := splitLines(aligned(heads))
	at := 0
	for _, r := range rows {
		if len(r) == 3 {
			b.WriteString(lines[at] + "\n")
			at++
		} else {
			b.WriteString("      " + r[3] + "\n")
		}
	}
	return b.String()
}
