package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/record"
)

// maxPreview bounds the rows of preview; every rule runs on each of them alone.
const maxPreview = 200

// shownCell is how many characters of a cell a screen has.
const shownCell = 28

// preview is the result of preview.
type preview struct {
	Stream   string       `json:"stream"`
	From     string       `json:"from"` // source or topic
	Revealed bool         `json:"revealed"`
	Rows     []previewRow `json:"rows"`
}

// previewRow is one row on its way.
type previewRow struct {
	Steps []previewStep `json:"steps"`
}

// previewStep is a row behind one rule or phase.
type previewStep struct {
	Phase string            `json:"phase"`          // read, protect or the name of a sink
	Rule  string            `json:"rule,omitempty"` // hash(email); empty behind the last one
	Cells map[string]string `json:"cells,omitempty"`
	Note  string            `json:"note,omitempty"` // filtered, or why it was refused

	names []string
}

func (a *app) previewCommand() *cobra.Command {
	var rows int
	var reveal, each bool
	var only, from string
	cmd := &cobra.Command{
		Use:   "preview STREAM",
		Short: "Show what the rules make of some rows",
		Long: "preview reads rows of a stream from its source, runs the rules over them and shows what goes to Kafka and to each sink.\n" +
			"It changes nothing. A value is shown as far as it reaches Kafka: what a protect rule changes or removes is masked,\n" +
			"unless --reveal is given. The exit code is 1 if a rule cannot run.",
		Example: "  sluice preview shop-db.public.customers -n 2",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if rows < 1 || rows > maxPreview {
				return invalid(fmt.Errorf("-n: want 1 to %d rows", maxPreview))
			}
			if from != "source" && from != "topic" {
				return invalid(errors.New("--from: want source or topic"))
			}
			return a.preview(args[0], rows, reveal, each, only, from)
		},
	}
	f := cmd.Flags()
	f.IntVarP(&rows, "rows", "n", 5, "how many rows")
	f.BoolVar(&reveal, "reveal", false, "show values that never reach Kafka")
	f.BoolVar(&each, "rules", false, "show every row behind each rule, not only behind each phase")
	f.StringVar(&from, "from", "source", "source: its rows through all rules; topic: the newest rows there through those of the sinks")
	f.StringVar(&only, "sink", "", "show only this sink")
	return cmd
}

func (a *app) preview(ref string, n int, reveal, each bool, only, from string) error {
	f, err := a.load()
	if err != nil {
		return err
	}
	if err := checkAll(f); err != nil {
		return err
	}
	s, name, err := streamOf(f, ref)
	if err != nil {
		return err
	}
	if _, err := resolve(f); err != nil {
		return environment(err)
	}
	ctx, stop := untilTerminated()
	defer stop()
	ring, err := openKeys(ctx, f, keys.KeeperConfig{Start: 1})
	if err != nil {
		return environment(err)
	}
	clean := func(err error) error { return errors.New(redactor(f.SecretValues()).Replace(err.Error())) }
	p := previewer{c: chains{f: f, keys: ring.Current}, reveal: reveal, each: each, only: only}
	p.protect, p.sinks = phasesOf(f, s, name)
	result := preview{Rows: []previewRow{}}
	if from == "topic" {
		rows, err := topicRows(ctx, f, name, n)
		if err != nil {
			return environment(clean(err))
		}
		for _, b := range rows {
			row, err := p.topicRow(b)
			if err != nil {
				return err
			}
			result.Rows = append(result.Rows, row)
		}
	} else {
		batch, err := sample(ctx, f, s, name, n)
		if err != nil {
			return environment(clean(err))
		}
		last, err := readMappings(f.Local(f.Dir))
		if err != nil {
			return environment(err)
		}
		if last != nil && len(p.protect) > 0 && s.Columns == config.Hold {
			if seen := last.Protect[name.String()]; seen != nil && seen.In != nil {
				p.held = heldBack(batch.Schema, seen.In, p.protect, f)
			}
		}
		if result, err = p.rows(ctx, batch); err != nil {
			return err
		}
	}
	result.Stream, result.From, result.Revealed = name.String(), from, reveal
	a.result = result
	if !a.json {
		fmt.Fprint(a.stdout, asciiDots(plainText(result.text())))
	}
	return nil
}

// previewer runs rows through the rules, one by one.
type previewer struct {
	c            chains
	protect      config.Rules
	sinks        []sinkStream
	held         []string // columns that reach nothing
	reveal, each bool
	only         string
}

func (p *previewer) rows(ctx context.Context, b *record.Batch) (preview, error) {
	result := preview{Rows: []previewRow{}}
	refused := map[int]record.Reject{}
	for _, r := range b.Rejects {
		refused[r.Row] = r
	}
	for row := range b.Len() {
		if err := ctx.Err(); err != nil {
			return result, err
		}
		one, err := p.row(oneRow(b, row), refused[row])
		if err != nil {
			return result, err
		}
		result.Rows = append(result.Rows, one)
	}
	return result, nil
}

func (p *previewer) row(b *record.Batch, refused record.Reject) (previewRow, error) {
	out := previewRow{Steps: []previewStep{stepOf("read", "", b)}}
	if refused.Code != "" {
		out.Steps = append(out.Steps, previewStep{Phase: "protect", Note: "rejected: " + refused.Code + ": " + refused.Reason})
		p.mask(&out, nil)
		return out, nil
	}
	protected, err := p.phase(&out, "protect", p.protect, mappers.Protect, leave(b, p.held))
	if err != nil || protected == nil {
		p.mask(&out, nil)
		return out, err
	}
	public := stepOf("", "", protected).Cells
	for _, s := range p.sinks {
		if p.only != "" && s.sink.Name != p.only {
			continue
		}
		if _, err := p.phase(&out, s.sink.Name, s.stream.Shape, mappers.Shape, protected); err != nil {
			return out, err
		}
	}
	p.mask(&out, public)
	return out, nil
}

// leave returns b without the columns that are held back: they reach neither
// Kafka nor, unmasked, the screen.
func leave(b *record.Batch, held []string) *record.Batch {
	if len(held) == 0 {
		return b
	}
	left := record.NewBatch(without(b.Schema, held), nil)
	left.Ops, left.Pos, left.Time, left.After = b.Ops, b.Pos, b.Time, nil
	for i := range b.Schema.Fields {
		if !slices.Contains(held, b.Schema.Fields[i].Name) {
			left.After = append(left.After, b.After[i])
		}
	}
	return left
}

// phase runs the rules of one phase over a row; nil if none is left.
func (p *previewer) phase(out *previewRow, name string, rules config.Rules, phase mappers.Phase, b *record.Batch) (*record.Batch, error) {
	steps, err := p.c.steps(rules, b.Schema, phase)
	if err != nil {
		return nil, err
	}
	result := oneRow(b, 0)
	for i, chain := range steps {
		last := i == len(steps)-1
		if !last && !p.each {
			continue
		}
		made, filtered, rejects, err := chain.Apply(oneRow(b, 0))
		if err != nil {
			return nil, err
		}
		rule := ""
		if p.each {
			rule = ruleTextOf(rules[i], p.c.keys()).Text
		}
		switch {
		case filtered > 0:
			out.Steps = append(out.Steps, previewStep{Phase: name, Rule: rule, Note: "filtered"})
			return nil, nil
		case len(rejects) > 0:
			out.Steps = append(out.Steps, previewStep{Phase: name, Rule: rule, Note: "rejected: " + rejects[0].Code + ": " + rejects[0].Reason})
			return nil, nil
		}
		result = oneRow(made, 0)
		if !last || p.each {
			out.Steps = append(out.Steps, stepOf(name, rule, result))
		}
	}
	if !p.each || len(steps) == 0 {
		step := stepOf(name, "", result)
		var did []string
		for _, r := range rules {
			did = append(did, ruleTextOf(r, p.c.keys()).Text)
		}
		step.Rule = strings.Join(did, " · ")
		out.Steps = append(out.Steps, step)
	}
	return result, nil
}

func stepOf(phase, rule string, b *record.Batch) previewStep {
	s := previewStep{Phase: phase, Rule: rule, Cells: map[string]string{}}
	for i := range b.Schema.Fields {
		f := &b.Schema.Fields[i]
		s.names = append(s.names, f.Name)
		s.Cells[f.Name] = unquoted(string(record.AppendJSON(nil, f, b.After[i], 0)))
	}
	return s
}

// mask hides every value that does not reach Kafka as it is. Behind the
// protect rules nothing is hidden: a shape rule sees no more than Kafka has.
func (p *previewer) mask(r *previewRow, public map[string]string) {
	if p.reveal {
		return
	}
	lastProtect := 0
	for i, s := range r.Steps {
		if s.Phase == "protect" {
			lastProtect = i
		}
	}
	for i := range r.Steps {
		if public != nil && i >= lastProtect && r.Steps[i].Phase != "read" {
			continue
		}
		for name, cell := range r.Steps[i].Cells {
			if seen, ok := public[name]; !ok || seen != cell {
				r.Steps[i].Cells[name] = masked(cell)
			}
		}
	}
}

// masked keeps the look of a value: an•••@ex•••.com.
func masked(cell string) string {
	if cell == "null" || cell == "" {
		return cell
	}
	if local, host, ok := strings.Cut(cell, "@"); ok && strings.Contains(host, ".") && !strings.ContainsAny(cell, " {[") {
		return head(local, 2) + "•••@" + head(host, 2) + "•••" + host[strings.LastIndexByte(host, '.'):]
	}
	if utf8.RuneCountInString(cell) < 8 {
		return "•••"
	}
	return head(cell, 2) + "•••"
}

// head returns at most n characters and never more than a third of s.
func head(s string, n int) string {
	r := []rune(s)
	return string(r[:min(n, len(r)/3)])
}

// text shows each row in lines of one column per field.
func (p preview) text() string {
	var names []string
	known := map[string]bool{}
	for _, r := range p.Rows {
		for _, s := range r.Steps {
			for _, n := range s.names {
				if !known[n] {
					known[n] = true
					names = append(names, n)
				}
			}
		}
	}
	rows := [][]string{append([]string{" "}, names...)}
	for i, r := range p.Rows {
		if i > 0 {
			rows = append(rows, []string{""})
		}
		for _, s := range r.Steps {
			line := []string{"  " + s.Phase}
			if s.Note != "" {
				rows = append(rows, append(line, s.Note))
				continue
			}
			had := map[string]bool{}
			for _, n := range r.Steps[0].names {
				had[n] = true
			}
			for _, n := range names {
				cell, ok := s.Cells[n]
				if !ok && had[n] {
					cell = "(dropped)"
				}
				line = append(line, shortened(cell))
			}
			rows = append(rows, append(line, s.Rule))
		}
	}
	return fmt.Sprintf("%s   %s\n", p.Stream, count(len(p.Rows), "row")) + aligned(rows)
}

func shortened(cell string) string {
	cell = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f { // a value must not steer the terminal
			return '?'
		}
		return r
	}, cell)
	if r := []rune(cell); len(r) > shownCell {
		return string(r[:shownCell-1]) + "…"
	}
	return cell
}

// asciiDots is plainText for the dots of a masked value.
func asciiDots(s string) string {
	if plainText("…") != "…" {
		return strings.ReplaceAll(s, "•", "*")
	}
	return s
}
