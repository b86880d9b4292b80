package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/vector/search"
)

// tokenVariable holds the token of an agent's user.
const tokenVariable = "SLUICE_MCP_TOKEN"

func (a *app) searchCommand() *cobra.Command {
	var sink, as, tenant, filter string
	var n int
	cmd := &cobra.Command{
		Use:   "search QUESTION",
		Short: "Find passages in the indexed documents, with citations",
		Long:  "Find passages in the indexed documents, with citations. Only what the user of --as may see is found; without it, what everybody may see.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			settings, redact, err := a.documents(sink)
			if err != nil {
				return err
			}
			q := search.Question{Text: strings.Join(args, " "), Results: n, Tenant: tenant, Filter: []byte(filter)}
			if as != "" {
				if q.As, err = search.Users(as); err != nil {
					return invalid(fmt.Errorf("--as: %w", err))
				}
			}
			ctx, stop := untilTerminated()
			defer stop()
			s, err := openSearch(ctx, settings)
			if err != nil {
				return environment(errors.New(redact(err.Error())))
			}
			defer s.Close()
			answer, err := s.Search(ctx, q)
			if err != nil {
				return errors.New(redact(err.Error()))
			}
			a.result = answer
			if !a.json {
				fmt.Fprint(a.stdout, plainText(answerText(answer)))
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&as, "as", "", "the user who asks")
	f.StringVar(&sink, "sink", "", "the sink whose documents are searched, if there are several")
	f.StringVar(&tenant, "tenant", "", "the tenant whose documents are searched")
	f.StringVar(&filter, "filter", "", "a JSON object that the metadata must contain")
	f.IntVarP(&n, "results", "n", 5, "passages at most")
	return cmd
}

func (a *app) mcpCommand() *cobra.Command {
	var sink, as, tenant string
	cmd := &cobra.Command{
		Use:   "mcp",
		Short: "Let an agent search and read the indexed documents (model context protocol on standard input and output, read-only)",
		Long: "Let an agent search and read the indexed documents, over the model context protocol on standard input and output. " +
			"The agent sees what its user sees: that of --as, or the one of the sink's callers whose token is in " + tokenVariable + "; without either, what everybody may see.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, redact, err := a.documents(sink)
			if err != nil {
				return err
			}
			if token := os.Getenv(tokenVariable); token != "" {
				if as != "" {
					return invalid(fmt.Errorf("either --as or %s", tokenVariable))
				}
				if as, err = settings.caller(token); err != nil {
					return invalid(err)
				}
			}
			srv := &search.Server{Tenant: tenant, Version: version}
			if as != "" {
				if srv.As, err = search.Users(as); err != nil {
					return invalid(fmt.Errorf("--as: %w", err))
				}
			}
			ctx, stop := untilTerminated()
			defer stop()
			if srv.Searcher, err = openSearch(ctx, settings); err != nil {
				return environment(errors.New(redact(err.Error())))
			}
			defer srv.Searcher.Close()
			if err := srv.Serve(ctx, cmd.InOrStdin(), a.stdout); err != nil && ctx.Err() == nil {
				return errors.New(redact(err.Error()))
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&as, "as", "", "the user whom the agent works for")
	f.StringVar(&sink, "sink", "", "the sink whose documents are searched, if there are several")
	f.StringVar(&tenant, "tenant", "", "the tenant whose documents are searched")
	return cmd
}

// documents returns the settings of the sink with documents that is meant, and what takes secrets out of a text.
func (a *app) documents(name string) (*pgvectorSettings, func(string) string, error) {
	f, err := a.load()
	if err != nil {
		return nil, nil, err
	}
	var found *config.Sink
	var names []string
	for _, s := range f.Sinks {
		if _, ok := s.Settings.(*pgvectorSettings); ok && (name == "" || s.Name == name) {
			found, names = s, append(names, s.Name)
		}
	}
	switch {
	case len(names) == 0 && name == "":
		return nil, nil, invalid(errors.New("the file has no sink with documents: add one of kind pgvector"))
	case len(names) == 0:
		return nil, nil, invalid(fmt.Errorf("no sink %s of kind pgvector", name))
	case len(names) > 1:
		return nil, nil, invalid(fmt.Errorf("choose one with --sink: %s", strings.Join(names, ", ")))
	}
	if _, err := resolve(f); err != nil {
		return nil, nil, environment(err)
	}
	return found.Settings.(*pgvectorSettings), redactor(f.SecretValues()).Replace, nil
}

// shownLines is how much of a passage a screen has.
const shownLines = 6

// answerText shows passages, each behind its citation.
func answerText(a *search.Answer) string {
	var b strings.Builder
	if len(a.Hits) == 0 {
		b.WriteString("nothing found among the documents that may be seen\n")
	}
	for i, h := range a.Hits {
		title := ""
		if h.Title != "" {
			title = h.Title + "   "
		}
		fmt.Fprintf(&b, "%d  %s[%s]\n", i+1, title, h.Citation())
		lines := strings.Split(strings.TrimSpace(h.Text), "\n")
		for n, l := range lines {
			if n == shownLines {
				b.WriteString("   …\n")
				break
			}
			if r := []rune(l); len(r) > 160 {
				l = string(r[:159]) + "…"
			}
			fmt.Fprintf(&b, "   %s\n", l)
		}
	}
	if a.Note != "" {
		fmt.Fprintf(&b, "note: %s\n", a.Note)
	}
	return b.String()
}
