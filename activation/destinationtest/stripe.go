package destinationtest

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

// stripe is customers. Several of them may have one e-mail address.
type stripe struct {
	s     *Simulator
	saved map[string]*savedAnswer // by idempotency key
}

type savedAnswer struct {
	request string
	status  int
	out     []byte
}

func newStripe(s *Simulator) *stripe {
	t := s.table("customers", nil, delivery.Property{Name: "email", MaxBytes: 512}, delivery.Property{Name: "name", MaxBytes: 256}, delivery.Property{Name: "phone", MaxBytes: 20},
		delivery.Property{Name: "description", MaxBytes: 350}, delivery.Property{Name: "balance", Type: "number"},
		delivery.Property{Name: "tax_exempt", Type: "enum", Values: []string{"none", "exempt", "reverse"}})
	t.open, t.fold = []string{"metadata.", "address.", "shipping."}, true
	return &stripe{s: s, saved: map[string]*savedAnswer{}}
}

func (t *stripe) authorised(c *conversation) bool {
	if c.bearer() {
		return true
	}
	pair, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(c.r.Header.Get("Authorization"), "Basic "))
	user, _, _ := strings.Cut(string(pair), ":")
	return err == nil && t.s.login.takes(user)
}

func (t *stripe) announce(*conversation, int, int, time.Duration, int, int) {}

func (t *stripe) fail(c *conversation, status int, kind, code, message, param string) {
	e := map[string]any{"type": kind, "message": message}
	if code != "" {
		e["code"] = code
	}
	if param != "" {
		e["param"] = param
	}
	c.json(status, map[string]any{"error": e})
}

// refuse leaves a broken answer behind for the key of a request that was
// carried out: repeats get the same.
func (t *stripe) refuse(c *conversation, status int, _ bool) {
	c.header.Set("Request-Id", c.header.Get("X-Request-Id"))
	switch status {
	case 401:
		t.fail(c, 401, "invalid_request_error", "", "Invalid API Key provided", "")
	case 429:
		t.fail(c, 429, "invalid_request_error", "rate_limit", "Too many requests hit the API too quickly.", "")
	default:
		t.fail(c, status, "api_error", "", "An unknown error occurred", "")
		if key := c.r.Header.Get("Idempotency-Key"); key != "" && status == 500 && t.saved[key] != nil {
			t.saved[key].status, t.saved[key].out = status, c.out
		}
	}
}

func (t *stripe) serve(c *conversation) {
	c.header.Set("Request-Id", c.header.Get("X-Request-Id"))
	key := c.r.Header.Get("Idempotency-Key")
	if c.r.Method == "POST" && key != "" {
		if len(key) > 255 {
			t.fail(c, 400, "invalid_request_error", "", "Idempotency key is too long", "")
			return
		}
		request := c.r.URL.Path + "?" + string(c.raw)
		if old := t.saved[key]; old != nil {
			if old.request != request {
				t.fail(c, 400, "idempotency_error", "", "Keys for idempotent requests can only be used with the same parameters they were first used with.", "")
				return
			}
			c.header.Set("Idempotent-Replayed", "true")
			c.header.Set("Content-Type", "application/json")
			c.status, c.out = old.status, old.out
			return
		}
		defer func() {
			if c.status < 400 { // what was refused before it began is not kept
				t.saved[key] = &savedAnswer{request, c.status, c.out}
			}
		}()
	}
	customers, p := t.s.tables["customers"], c.path
	if len(p) < 2 || p[0] != "v1" || p[1] != "customers" {
		t.fail(c, 404, "invalid_request_error", "", "Unrecognized request URL", "")
		return
	}
	switch {
	case len(p) == 2 && c.r.Method == "POST":
		t.write(c, customers, "")
	case len(p) == 2:
		t.list(c, customers)
	case p[2] == "search":
		t.search(c, customers)
	case customers.get(p[2]) == nil:
		t.fail(c, 404, "invalid_request_error", "resource_missing", "No such customer: '"+p[2]+"'", "id")
	case c.r.Method == "POST":
		t.write(c, customers, p[2])
	case c.r.Method == "DELETE":
		t.s.remove(customers, customers.get(p[2]))
		c.json(200, map[string]any{"id": p[2], "object": "customer", "deleted": true})
	default:
		c.json(200, t.show(customers.get(p[2])))
	}
}

var bracket = regexp.MustCompile(`\[([^\]]*)\]`)

func (t *stripe) write(c *conversation, customers *table, id string) {
	form, err := url.ParseQuery(string(c.raw))
	if err != nil || !strings.HasPrefix(c.r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") && len(c.raw) > 0 {
		t.fail(c, 400, "invalid_request_error", "", "Invalid request body", "")
		return
	}
	fields, keys := map[string]string{}, 0
	for _, name := range sortedKeys(form) {
		field := bracket.ReplaceAllString(name, ".$1")
		v := form.Get(name)
		if leaf, ok := strings.CutPrefix(field, "metadata."); ok {
			keys++
			if len(leaf) > 40 || len(v) > 500 || keys > 50 {
				t.fail(c, 400, "invalid_request_error", "", "Metadata values can have up to 500 characters", name)
				return
			}
		}
		switch customers.check(field, v) {
		case "":
		case "unknown":
			t.fail(c, 400, "invalid_request_error", "parameter_unknown", "Received unknown parameter: "+name, name)
			return
		case "email":
			t.fail(c, 400, "invalid_request_error", "email_invalid", "Invalid email address: "+v, name)
			return
		default:
			t.fail(c, 400, "invalid_request_error", "parameter_invalid_string", "Invalid value "+v+" for "+name, name)
			return
		}
		fields[field] = v
	}
	if id == "" {
		id = t.s.newID("cus_")
	}
	c.json(200, t.show(t.s.put(customers, id, fields)))
}

func (t *stripe) show(r *Record) map[string]any {
	out := tree(r.Fields)
	for _, name := range []string{"email", "name", "phone", "description", "address", "shipping"} {
		if _, ok := out[name]; !ok {
			out[name] = nil
		}
	}
	if _, ok := out["metadata"]; !ok {
		out["metadata"] = map[string]any{}
	}
	out["balance"] = typed("number", r.Fields["balance"])
	if out["balance"] == nil {
		out["balance"] = 0
	}
	out["id"], out["object"], out["created"], out["livemode"] = r.ID, "customer", r.Created.Unix(), false
	return out
}

func (t *stripe) list(c *conversation, customers *table) {
	email, rows := c.r.URL.Query().Get("email"), []any{}
	for i := len(customers.order) - 1; i >= 0 && len(rows) < 100; i-- { // newest first
		if r := customers.get(customers.order[i]); r != nil && (email == "" || r.Fields["email"] == email) {
			rows = append(rows, t.show(r))
		}
	}
	more := false
	if c.r.URL.Query().Get("limit") == "1" && len(rows) > 1 {
		rows, more = rows[:1], true
	}
	c.json(200, map[string]any{"object": "list", "url": "/v1/customers", "has_more": more, "data": rows})
}

var searchQuery = regexp.MustCompile(`^(?:metadata\['([^']+)'\]|(email))\s*:\s*'((?:[^'\\]|\\.)*)'$`)

func (t *stripe) search(c *conversation, customers *table) {
	m := searchQuery.FindStringSubmatch(c.r.URL.Query().Get("query"))
	if m == nil {
		t.fail(c, 400, "invalid_request_error", "", "We were unable to parse your search query.", "query")
		return
	}
	field := "metadata." + m[1]
	if m[2] != "" {
		field = "email"
	}
	want, rows := strings.NewReplacer(`\'`, `'`, `\\`, `\`).Replace(m[3]), []any{}
	for i := len(customers.order) - 1; i >= 0; i-- {
		if r := customers.get(customers.order[i]); r != nil && t.s.searchable(r) && r.Fields[field] == want {
			rows = append(rows, t.show(r))
		}
	}
	c.json(200, map[string]any{"object": "search_result", "url": "/v1/customers/search", "has_more": false, "data": rows, "next_page": nil})
}
