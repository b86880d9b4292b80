package e2e

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

const searchConfig = `
name: help
dir: data
kafka: { embedded: true }
sources:
  shop-db:
    postgres: { url: "${env:SHOP_DB_URL}", tables: [public.tickets] }
sinks:
  docs:
    pgvector:
      url: "${env:SHOP_DB_URL}"
      commit: { every: 200ms }
      callers: [ { user: anna, token: "${env:ANNA_TOKEN}" } ]
    streams:
      - { from: shop-db.public.tickets, document: { title: subject, text: [subject, body], metadata: [status], acl: readers } }
`

// Rows of a table become documents; a user finds what the rows permit, and an
// agent no more than its user.
func TestTicketsAreFoundByThoseWhoMay(t *testing.T) {
	w := newWorld(t, searchConfig, `create table tickets (id bigint primary key, subject text, body text, status text, readers jsonb);
		insert into tickets values (1, 'Pump leaks', 'The pump of line three leaks oil near the seal.', 'open', '["public"]'),
			(2, 'Salary question', 'Anna asks about the pump allowance in her salary.', 'open', '["user:anna"]'),
			(3, 'No readers', 'A pump that nobody may read about.', 'open', null)`)
	w.env = append(w.env, "ANNA_TOKEN=t0ken-of-anna")
	w.run(0, "validate")
	w.run(0, "run", "--until-caught-up")

	if out := w.run(0, "search", "leaking", "pump"); !strings.Contains(out, "1  Pump leaks   [1, bytes 0–") || strings.Contains(out, "Salary") || strings.Contains(out, "nobody") {
		t.Errorf("everybody sees:\n%s", out)
	}
	if out := w.run(0, "search", "pump", "--as", "anna", "--json"); !strings.Contains(out, "Salary") || strings.Contains(out, "nobody") {
		t.Errorf("anna sees:\n%s", out)
	}
	w.run(2, "search", "pump", "--as", "group:staff")

	ask := func(env ...string) string {
		cmd := exec.CommandContext(w.ctx, w.sluice, "mcp")
		cmd.Dir, cmd.Env = w.dir, append(w.env, env...)
		cmd.Stdin = strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}` + "\n" +
			`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"search","arguments":{"query":"pump"}}}` + "\n")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
			if !json.Valid([]byte(line)) {
				t.Errorf("%q is no message", line)
			}
		}
		return string(out)
	}
	if out := ask(); !strings.Contains(out, "leaks oil") || strings.Contains(out, "Salary") {
		t.Errorf("an agent of nobody sees: %s", out)
	}
	if out := ask("SLUICE_MCP_TOKEN=t0ken-of-anna"); !strings.Contains(out, "Salary") {
		t.Errorf("anna's agent sees: %s", out)
	}

	w.exec(`update tickets set readers = '["user:bob"]' where id = 2; delete from tickets where id = 1`)
	w.run(0, "run", "--until-caught-up")
	if out := w.run(0, "search", "pump", "--as", "anna"); strings.Contains(out, "Salary") || strings.Contains(out, "leaks") {
		t.Errorf("after the permission was revoked and a row deleted anna sees:\n%s", out)
	}
}
