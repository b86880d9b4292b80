package spec_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/activation/spec"
)

// what tells, for people, what a verdict leads to.
var what = map[string]string{"applied": "counts as done", "retry": "tried again later, with growing pauses", "throttle": "the account pauses; no attempt is counted",
	"throttle_daily": "the account pauses until the vendor's next day", "auth": "the token is renewed once; refused again, the connection pauses",
	"config": "the connection pauses: nothing is rejected, somebody has to mend it", "reject": "the record goes to the dead letters; a newer value is tried again",
	"reject_batch": "a batch is split until the culprit is found, which is rejected", "skip": "skipped and counted",
	"exists": "an insert is skipped; an upsert goes on with the record that is there", "missing": "a delete is done; an update is skipped",
	"unknown": "read back before anything else is sent"}

// The page of a destination is written from its spec.
func TestPages(t *testing.T) {
	for _, name := range spec.Names() {
		s, err := spec.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".md", page(t, s))
	}
}

func page(t *testing.T, s *spec.Spec) string {
	t.Helper()
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("# %s\n\nWritten from `activation/spec/%s.yaml` by `go test ./activation/spec -update`. API version %s, compared with the vendor's documents %s.\n", s.Label, s.Name, s.API.Version, s.API.Verified)
	if s.API.Sunset != "" {
		p("The vendor serves this version until %s; sluice warns from half a year before.\n", s.API.Sunset)
	}
	p("\n## What it needs\n\n| login | settings |\n|---|---|\n")
	for _, l := range s.Auth {
		p("| `%s` | %s |\n", l.Type, map[string]string{"bearer": "`token`", "header": "`token`", "basic": "`user`, `password`", "oauth2_refresh": "`client_id`, `client_secret`, `refresh_token`; a rotated token is kept, sealed, before it is used",
			"oauth2_client": "`client_id`, `client_secret`", "jwt_bearer": "`client_id`, `user`, `private_key` (PEM)"}[l.Type])
	}
	p("\nScopes:")
	for i, scope := range s.Scopes {
		if i > 0 {
			p(",")
		}
		p(" %s", scope)
	}
	p(".\n\n## Objects\n\n| object | found by | operations | records of a call | of a job |\n|---|---|---|---|---|\n")
	names := slices.SortedFunc(maps.Keys(s.Objects), func(a, b string) int {
		return cmp.Compare(strings.ReplaceAll(a, "*", "~"), strings.ReplaceAll(b, "*", "~"))
	})
	for _, n := range names {
		o := s.Objects[n]
		ops := slices.Sorted(maps.Keys(o.Operations))
		items, job := 1, "–"
		for _, op := range ops {
			for _, a := range o.Operations[op] {
				items = max(items, a.Batch.Items)
			}
		}
		for _, a := range o.Bulk {
			job = fmt.Sprintf("%d", a.Batch.Items)
		}
		match := strings.ReplaceAll(strings.Join(o.Match, ", "), "*", "any unique field")
		if s.Name == "stripe" {
			match = strings.ReplaceAll(match, "metadata.any unique field", "metadata.…")
		}
		label := "`" + n + "`"
		if n == "*" {
			label = "any other (" + strings.ToLower(o.Label) + ")"
		}
		p("| %s | %s | %s | %d | %s |\n", label, match, strings.Join(ops, ", "), items, job)
	}
	p("\n## Quotas\n\nThe whole account shares them; sluice takes the share that its settings say.\n\n| quota | calls | in |\n|---|---|---|\n")
	for _, w := range s.Limits.Windows {
		p("| %s | %d | %s |\n", w.Name, w.Requests, w.Per)
	}
	p("\n## What is done on an answer\n\nThe first line that fits counts, then what the status usually means: 2xx is correlated record by record, and who is not named is read back; " +
		"408, 423, 425, 477 and 5xx are tried again; 401 renews the token once; 403 and redirects pause the connection; 400, 413 and 422 refuse the batch.\n\n| answer | why | then |\n|---|---|---|\n")
	for _, r := range s.Classify {
		p("| `%s` | %s | %s |\n", strings.ReplaceAll(r.When, "|", "\\|"), r.Note, verdictText(t, r.Do))
	}
	if len(s.Rows) > 0 {
		p("\nOne record refused, others taken:\n\n| refusal | why | then |\n|---|---|---|\n")
		for _, r := range s.Rows {
			p("| `%s` | %s | %s |\n", strings.ReplaceAll(r.When, "|", "\\|"), r.Note, verdictText(t, r.Do))
		}
		p("| any other | | %s |\n", what["reject"])
	}
	p("\n## Good to know\n\n")
	for _, n := range s.Notes {
		p("- %s\n", n)
	}
	p("\nTry it: `sluice simulate %s --faults all` ([more](README.md)). What it was tried with: [conformance](conformance.md).\n", s.Name)
	return b.String()
}

func verdictText(t *testing.T, do string) string {
	t.Helper()
	if what[do] == "" {
		t.Fatalf("no words for %q", do)
	}
	return what[do]
}
