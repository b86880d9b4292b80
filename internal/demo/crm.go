package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sluice-data/sluice/progress"
)

// badCustomer gets a value that the CRM refuses, and then a better one.
const badCustomer = 3

// CRM is how the part of the demo about the CRM went.
type CRM struct {
	Source     int    `json:"source"`   // customers who want the newsletter
	Contacts   int    `json:"contacts"` // records that the CRM holds
	Equal      bool   `json:"equal"`    // all of them have the values of the source
	Difference string `json:"difference,omitempty"`
	Calls      int    `json:"calls"`     // requests that it took
	Throttled  int    `json:"throttled"` // of them refused for the quota
	Rejected   string `json:"rejected"`  // the code of the row with a wrong value
	Healed     bool   `json:"healed"`    // a newer value of it went through
	URL        string `json:"url"`       // of the simulator
}

func (c *CRM) ok() bool {
	return c.Equal && c.Contacts > 0 && c.Contacts == c.Source && c.Rejected != "" && c.Healed
}

// crmConfig is what the file of the demo has about the CRM; %s is its address.
const crmConfig = `  crm:                                      # a simulator with HubSpot's rules and quotas
    hubspot: { url: "%s", allow_private: true, auth: { token: "${env:HUBSPOT_TOKEN}" }, commit: { every: 1s } }
    streams:
      - from: shop-db.public.customers
        shape: [ filter: { where: newsletter } ]
        object: contacts
        match: crm_id
        fields: { crm_id: id, firstname: name, email_hash: email, country: country, lifecyclestage: segment }
`

// simulator is the stand-in for the CRM.
type simulator struct {
	cmd   *exec.Cmd
	done  chan struct{}
	url   string
	token string
}

// startSimulator runs "sluice simulate hubspot" and returns when it answers.
func startSimulator(ctx context.Context, binary, dir string) (*simulator, error) {
	log, err := os.Create(filepath.Join(dir, "simulator.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(binary, "simulate", "hubspot", "--json")
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // like sluice itself: it outlives the demo with --keep
	out := filepath.Join(dir, "simulator.json")
	answer, err := os.Create(out)
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	cmd.Stdout = answer
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the simulator: %w", err)
	}
	s := &simulator{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(s.done)
	}()
	deadline := time.Now().Add(startLimit)
	for {
		var up struct {
			Result struct {
				URL   string `json:"url"`
				Token string `json:"token"`
			} `json:"result"`
		}
		if text, err := os.ReadFile(out); err == nil && json.Unmarshal(text, &up) == nil && up.Result.URL != "" {
			s.url, s.token = up.Result.URL, up.Result.Token
			return s, nil
		}
		select {
		case <-s.done:
			return nil, fmt.Errorf("the simulator of the CRM ended; its log: %s", log.Name())
		case <-ctx.Done():
			s.stop()
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.stop()
			return nil, errors.New("the simulator of the CRM does not come up")
		}
	}
}

func (s *simulator) pid() int { return s.cmd.Process.Pid }

func (s *simulator) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(5 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// ask reads what the simulator shows to people.
func (s *simulator) ask(ctx context.Context, path string, into any) error {
	return getJSON(ctx, http.DefaultClient, s.url+"/_simulator/"+path, into)
}

// contact is what the CRM is to hold of a customer.
type contact struct{ name, email, country, segment string }

// wanted returns the contacts that the source asks for, by id.
func (d *demo) wanted(ctx context.Context) (map[string]contact, error) {
	rows, err := d.conn.Query(ctx, "SELECT id::text, name, "+hmacSQL(d.key, "email")+", country, segment FROM customers WHERE newsletter")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	want := map[string]contact{}
	for rows.Next() {
		var id string
		var c contact
		if err := rows.Scan(&id, &c.name, &c.email, &c.country, &c.segment); err != nil {
			return nil, err
		}
		want[id] = c
	}
	return want, rows.Err()
}

// contacts returns what the CRM holds, by the shop's id.
func (d *demo) contacts(ctx context.Context) (map[string]contact, error) {
	var records []struct {
		Fields map[string]any `json:"Fields"`
	}
	if err := d.simulator.ask(ctx, "records/contacts", &records); err != nil {
		return nil, fmt.Errorf("contacts of the simulator: %w", err)
	}
	got := map[string]contact{}
	for _, r := range records {
		text := func(field string) string { s, _ := r.Fields[field].(string); return s }
		got[text("crm_id")] = contact{text("firstname"), text("email_hash"), text("country"), text("lifecyclestage")}
	}
	if len(got) != len(records) {
		return nil, fmt.Errorf("the CRM holds %d contacts for %d customers", len(records), len(got))
	}
	return got, nil
}

// difference says where the two differ, "" if nowhere. It names no value.
func difference(want, got map[string]contact) string {
	for id, w := range want {
		switch g, ok := got[id]; {
		case !ok:
			return fmt.Sprintf("customer %s is no contact", id)
		case g != w:
			return fmt.Sprintf("contact %s has other values", id)
		}
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d contacts, want %d", len(got), len(want))
	}
	return ""
}

// crm waits until the CRM holds every customer who wants the newsletter, gives
// one of them a value that it refuses, and then a better one.
func (d *demo) crm(ctx context.Context, report *Report) error {
	ctx, cancel := context.WithTimeoutCause(ctx, loadLimit, errors.New("the CRM takes too long"))
	defer cancel()
	r := &CRM{URL: d.simulator.url}
	report.CRM = r
	if err := d.sameContacts(ctx, r); err != nil {
		return err
	}
	set := func(segment string) error {
		_, err := d.conn.Exec(ctx, "UPDATE customers SET segment = $1 WHERE id = $2", segment, badCustomer)
		return err
	}
	if err := set("no such stage"); err != nil {
		return err
	}
	for r.Rejected == "" {
		if err := d.sluice.pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		status, err := d.sluice.status(ctx)
		if err != nil {
			return err
		}
		if status.row(progress.Sink, "crm", "customers").Rejected == 0 {
			continue
		}
		if r.Rejected, err = d.refused(ctx); err != nil {
			return err
		}
	}
	if err := set("customer"); err != nil {
		return err
	}
	if err := d.sameContacts(ctx, r); err != nil {
		return err
	}
	r.Healed = r.Equal
	var calls struct{ Calls, Throttled int }
	if err := d.simulator.ask(ctx, "calls", &calls); err != nil {
		return err
	}
	r.Calls, r.Throttled = calls.Calls, calls.Throttled
	d.screen.line("crm          %s for %s who want the newsletter, equal: %s · %s, %d refused for the quota",
		count(r.Contacts, "contact"), count(r.Source, "customer"), yesNo(r.Equal), count(r.Calls, "call"), r.Throttled)
	d.screen.line("             a wrong value was refused: %s (sluice dlq ls); a newer one healed it: %s", r.Rejected, yesNo(r.Healed))
	return nil
}

// sameContacts waits until source and CRM are equal.
func (d *demo) sameContacts(ctx context.Context, r *CRM) error {
	want, err := d.wanted(ctx)
	if err != nil {
		return fmt.Errorf("customers for the CRM: %w", err)
	}
	for {
		got, err := d.contacts(ctx)
		if err != nil {
			return err
		}
		r.Source, r.Contacts, r.Difference = len(want), len(got), difference(want, got)
		if r.Equal = r.Difference == ""; r.Equal {
			return nil
		}
		if err := d.sluice.pause(ctx, 200*time.Millisecond); err != nil {
			return fmt.Errorf("%s: %w", r.Difference, err)
		}
	}
}

// refused returns the code of a dead letter of the CRM, as the command lists them.
func (d *demo) refused(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, d.Binary, "dlq", "ls", "--sink", "crm", "-c", d.configPath(), "--json")
	out, err := cmd.Output()
	var answer struct {
		Result struct {
			Letters []struct {
				Code string `json:"code"`
			} `json:"letters"`
		} `json:"result"`
	}
	if err == nil {
		err = json.Unmarshal(out, &answer)
	}
	if err != nil {
		return "", fmt.Errorf("sluice dlq ls: %w", err)
	}
	for _, l := range answer.Result.Letters {
		return l.Code, nil
	}
	return "", nil
}
