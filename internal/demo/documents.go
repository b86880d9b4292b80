package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-data/sluice/docs"
	"github.com/sluice-data/sluice/progress"
)

// The questions of the demo, and the pages that answer them.
const (
	question     = "What happens when a protect rule cannot run?"
	questionPage = "rules.md"
	secret       = "Which passphrase opens the safe of the warehouse?"
	secretPage   = "team/warehouse.md"
	member       = "anna" // of the group that may see the secret page
)

// team is a folder whose files only its group may see.
var team = map[string]string{
	".sluice-acl.yaml": "allow: [\"group:warehouse\"]\n",
	"warehouse.md": "# Warehouse\n\n## Opening\nThe gate opens at six. Deliveries come to ramp two.\n\n" +
		"## The safe\nThe passphrase of the safe is \"seven green herons\". It changes in spring.\n",
}

// Documents is how the part of the demo about documents went.
type Documents struct {
	Indexed   int    `json:"indexed"`              // documents
	Answer    string `json:"answer"`               // where the first passage is, as a citation
	Answered  bool   `json:"answered"`             // the page that was meant is among the first
	Allowed   bool   `json:"allowed"`              // a member of the group found the secret page
	Hidden    bool   `json:"hidden"`               // others did not
	RevokedMS int64  `json:"revoked_ms,omitempty"` // from the change of the permission until the member found it no more
	Skipped   string `json:"skipped,omitempty"`    // why there was no such part
}

func (d *Documents) ok() bool {
	return d.Skipped != "" || d.Indexed > 0 && d.Answered && d.Allowed && d.Hidden && d.RevokedMS > 0
}

// documentsConfig is what the file of the demo has about documents.
const (
	documentsSource = `  handbook:
    files:
      path: handbook
      every: 1s
      permissions: true
      groups: [ { name: "group:warehouse", members: ["user:anna"] } ]
      acl: [ { glob: "**", allow: [public] } ]
`
	documentsSink = `  index:
    pgvector: { url: "${env:SHOP_DB_URL}", commit: { every: 500ms } }
    streams:
      - { from: handbook.files }
      - { from: handbook.groups, holds: groups }
`
)

// writeDocuments makes the folder: this project's own pages, and one for few.
func (d *demo) writeDocuments() error {
	root := filepath.Join(d.Dir, "handbook")
	d.pages = 0
	err := fs.WalkDir(docs.Pages, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := fs.ReadFile(docs.Pages, path)
		if err != nil {
			return err
		}
		d.pages++
		return writeBelow(root, path, string(text))
	})
	for name, text := range team {
		if err == nil {
			err = writeBelow(root, "team/"+name, text)
		}
	}
	d.pages++ // the secret page; the list of who may see it is none
	return err
}

func writeBelow(root, path, text string) error {
	path = filepath.Join(root, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// documents waits until the folder is indexed, asks, takes a permission away
// and asks again.
func (d *demo) documents(ctx context.Context, report *Report) error {
	r := &Documents{Skipped: d.noVectors}
	report.Documents = r
	if r.Skipped != "" {
		d.screen.line("documents    left out: %s", r.Skipped)
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, loadLimit, errors.New("the documents take too long"))
	defer cancel()
	for {
		status, err := d.sluice.status(ctx)
		if err != nil {
			return err
		}
		if status.trouble != "" {
			return errors.New(status.trouble)
		}
		if r.Indexed = int(status.row(progress.Sink, "index", "handbook.files").Delivered); r.Indexed >= d.pages {
			break
		}
		if err := d.sluice.pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	hits, err := d.search(ctx, question, "")
	if err != nil {
		return err
	}
	if len(hits) > 0 {
		r.Answer = hits[0].citation()
	}
	r.Answered = slices.ContainsFunc(hits, func(h hit) bool { return h.ID == questionPage })
	d.screen.line("documents    %s indexed · %q → %s", count(r.Indexed, "page"), question, r.Answer)
	if r.Allowed, err = d.finds(ctx, member); err != nil {
		return err
	}
	seen, err := d.finds(ctx, "bob")
	if err != nil {
		return err
	}
	r.Hidden = !seen
	began := time.Now()
	if err := writeBelow(filepath.Join(d.Dir, "handbook", "team"), ".sluice-acl.yaml", "allow: [\"user:carol\"]\n"); err != nil {
		return err
	}
	for {
		seen, err := d.finds(ctx, member)
		if err != nil {
			return err
		}
		if !seen {
			r.RevokedMS = time.Since(began).Milliseconds()
			break
		}
		if err := d.sluice.pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	d.screen.line("permissions  a page for few: %s finds it %s, bob finds it %s; taken away, %s finds it no more after %s",
		member, yesNo(r.Allowed), yesNo(!r.Hidden), member, seconds(time.Duration(r.RevokedMS)*time.Millisecond))
	return nil
}

// finds reports whether the user finds the secret page.
func (d *demo) finds(ctx context.Context, user string) (bool, error) {
	hits, err := d.search(ctx, secret, user)
	for _, h := range hits {
		if h.ID == secretPage {
			return true, err
		}
	}
	return false, err
}

// hit is a passage that search has found.
type hit struct {
	ID      string   `json:"id"`
	Heading []string `json:"heading"`
	Start   int      `json:"start"`
	End     int      `json:"end"`
}

func (h *hit) citation() string {
	return fmt.Sprintf("%s, bytes %d–%d", strings.Join(append([]string{h.ID}, h.Heading...), " › "), h.Start, h.End)
}

// search asks as a user would, with the command; no user is everybody.
func (d *demo) search(ctx context.Context, text, user string) ([]hit, error) {
	args := []string{"search", text, "-c", d.configPath(), "--json"}
	if user != "" {
		args = append(args, "--as", user)
	}
	cmd := exec.CommandContext(ctx, d.Binary, args...)
	cmd.Env = append(os.Environ(), "SHOP_DB_URL="+d.server.url, "HUBSPOT_TOKEN="+d.simulator.token)
	out, err := cmd.Output()
	var answer struct {
		Result struct {
			Hits []hit `json:"hits"`
		} `json:"result"`
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if bad := json.Unmarshal(out, &answer); bad != nil && err == nil {
		err = bad
	}
	if err != nil {
		return nil, fmt.Errorf("sluice search: %w %s", err, answer.Error.Message)
	}
	return answer.Result.Hits, nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
