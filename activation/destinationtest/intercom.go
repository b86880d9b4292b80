package destinationtest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

// intercom is contacts, companies and custom objects of API 2.14.
type intercom struct {
	s    *Simulator
	ties map[string]bool
}

func newIntercom(s *Simulator) *intercom {
	contacts := s.table("contacts", []string{"external_id", "email"}, delivery.Property{Name: "id", ReadOnly: true}, delivery.Property{Name: "external_id"}, delivery.Property{Name: "email"},
		delivery.Property{Name: "phone"}, delivery.Property{Name: "name"}, delivery.Property{Name: "avatar"}, delivery.Property{Name: "role", Type: "enum", Values: []string{"user", "lead"}},
		delivery.Property{Name: "signed_up_at", Type: "number"}, delivery.Property{Name: "last_seen_at", Type: "number"}, delivery.Property{Name: "owner_id", Type: "number"},
		delivery.Property{Name: "unsubscribed_from_emails", Type: "bool"}, delivery.Property{Name: "custom_attributes.seq", Type: "number"},
		delivery.Property{Name: "custom_attributes.note", MaxBytes: 255}, delivery.Property{Name: "custom_attributes.vip", Type: "bool"})
	contacts.fold = true
	s.table("companies", []string{"company_id"}, delivery.Property{Name: "company_id"}, delivery.Property{Name: "name"}, delivery.Property{Name: "plan"},
		delivery.Property{Name: "size", Type: "number"}, delivery.Property{Name: "website"}, delivery.Property{Name: "industry"},
		delivery.Property{Name: "monthly_spend", Type: "number"}, delivery.Property{Name: "remote_created_at", Type: "number"}, delivery.Property{Name: "custom_attributes.seq", Type: "number"})
	pets := s.table("pets", []string{"external_id"}, delivery.Property{Name: "external_id"})
	pets.open = []string{"custom_attributes."}
	return &intercom{s: s, ties: map[string]bool{}}
}

func (i *intercom) authorised(c *conversation) bool { return c.bearer() }

func (i *intercom) announce(c *conversation, left, limit int, reset time.Duration, _, _ int) {
	c.header.Set("X-RateLimit-Limit", strconv.Itoa(limit))
	c.header.Set("X-RateLimit-Remaining", strconv.Itoa(left))
	c.header.Set("X-RateLimit-Reset", strconv.FormatInt(i.s.o.Now().Add(reset).Unix(), 10))
}

func (i *intercom) fail(c *conversation, status int, code, message string) {
	c.json(status, map[string]any{"type": "error.list", "request_id": c.header.Get("X-Request-Id"), "errors": []any{map[string]any{"code": code, "message": message}}})
}

func (i *intercom) refuse(c *conversation, status int, _ bool) {
	switch status {
	case 401:
		i.fail(c, 401, "token_unauthorized", "Access Token Invalid")
	case 429:
		i.fail(c, 429, "rate_limit_exceeded", "You have exceeded the rate limit.")
	default:
		i.fail(c, status, "server_error", "Something went wrong")
	}
}

func (i *intercom) serve(c *conversation) {
	p, m := c.path, c.r.Method
	t := i.s.tables[p[0]]
	switch {
	case p[0] == "data_attributes":
		i.attributes(c, c.r.URL.Query().Get("model"))
	case p[0] == "custom_object_instances" && len(p) == 2:
		i.custom(c, i.s.tables[p[1]])
	case t == nil:
		i.fail(c, 404, "not_found", "Not found")
	case p[0] == "contacts" && len(p) == 2 && p[1] == "search":
		i.search(c, t)
	case p[0] == "contacts" && len(p) == 3 && p[1] == "find_by_external_id":
		i.answer(c, t, t.find("external_id", p[2]))
	case p[0] == "companies" && len(p) == 1 && m == "GET":
		i.answer(c, t, t.find("company_id", c.r.URL.Query().Get("company_id")))
	case len(p) == 1 && m == "POST":
		i.write(c, t, t.find("company_id", str(c.object()["company_id"])), p[0] == "companies")
	case len(p) == 2 && m == "GET":
		i.answer(c, t, t.get(p[1]))
	case len(p) == 2 && m == "PUT":
		if r := t.get(p[1]); r != nil {
			i.write(c, t, r, false)
			return
		}
		i.fail(c, 404, "not_found", "User Not Found")
	case len(p) == 2 && m == "DELETE", len(p) == 3 && p[2] == "archive":
		r := t.get(p[1])
		if r == nil {
			i.fail(c, 404, "not_found", "User Not Found")
			return
		}
		i.s.remove(t, r)
		c.json(200, map[string]any{"type": "contact", "id": r.ID, "external_id": r.Fields["external_id"], "deleted": true, "archived": true})
	case len(p) >= 3 && p[0] == "contacts" && p[2] == "companies":
		i.tie(c, p)
	default:
		i.fail(c, 404, "not_found", "Not found")
	}
}

func (i *intercom) show(t *table, r *Record) map[string]any {
	out := tree(r.Fields)
	for k, p := range t.fields {
		if v, ok := r.Fields[k]; ok && !strings.Contains(k, ".") {
			out[k] = typed(p.Type, v)
		}
	}
	own, custom := sub(out, "custom_attributes"), map[string]any{}
	for k, v := range own {
		kind := kindOf(t, "custom_attributes."+k)
		if kind == "json" {
			custom[k] = loose(str(v))
		} else {
			custom[k] = typed(kind, str(v))
		}
	}
	out["custom_attributes"] = custom
	out["type"], out["id"] = strings.TrimSuffix(t.name, "s"), r.ID
	out["created_at"], out["updated_at"] = r.Created.Unix(), r.Updated.Unix()
	return out
}

func (i *intercom) answer(c *conversation, t *table, r *Record) {
	if r == nil {
		i.fail(c, 404, "not_found", "User Not Found")
		return
	}
	c.json(200, i.show(t, r))
}

// write creates a record if r is nil; upsert says that the vendor finds it by
// itself.
func (i *intercom) write(c *conversation, t *table, r *Record, upsert bool) {
	if r != nil && t.name == "contacts" && c.r.Method == "POST" {
		r = nil
	}
	fields := flat("", c.object(), map[string]string{})
	for _, k := range sortedKeys(fields) {
		switch wrong := t.check(k, fields[k]); wrong {
		case "":
		case "unknown":
			i.fail(c, 400, "parameter_invalid", fmt.Sprintf("Custom attribute '%s' does not exist", strings.TrimPrefix(k, "custom_attributes.")))
			return
		default:
			i.fail(c, 400, "parameter_invalid", fmt.Sprintf("%s '%s' is invalid (%s)", k, fields[k], wrong))
			return
		}
	}
	if t.name == "contacts" && r == nil && fields["email"]+fields["external_id"] == "" && fields["role"] == "" {
		i.fail(c, 400, "parameter_not_found", "One of email, external_id or role is required")
		return
	}
	if upsert && r == nil && fields["company_id"] == "" {
		i.fail(c, 400, "parameter_not_found", "company_id is required")
		return
	}
	at := ""
	if r != nil {
		at = r.ID
	}
	if _, other := t.conflict(at, fields); other != nil {
		message := "A contact matching those details already exists"
		if i.s.searchable(other) { // the id is looked up in the same index that search uses
			message += " with id=" + other.ID
		}
		i.fail(c, 409, "conflict", message)
		return
	}
	if r == nil {
		at = i.s.newID("5ba682d23d7cf92bef87")
	}
	c.json(200, i.show(t, i.s.put(t, at, fields)))
}

func (i *intercom) search(c *conversation, t *table) {
	q := sub(c.object(), "query")
	rows := []any{}
	for _, id := range t.order {
		r := t.get(id)
		if r != nil && i.s.searchable(r) && str(q["operator"]) == "=" && r.Fields[str(q["field"])] != "" && t.norm(r.Fields[str(q["field"])]) == t.norm(str(q["value"])) {
			rows = append(rows, i.show(t, r))
		}
	}
	c.json(200, map[string]any{"type": "list", "data": rows, "total_count": len(rows), "pages": map[string]any{"type": "pages", "page": 1, "per_page": 50, "total_pages": 1}})
}

func (i *intercom) attributes(c *conversation, model string) {
	t := i.s.tables[map[string]string{"contact": "contacts", "company": "companies"}[model]]
	if t == nil {
		t = i.s.tables["contacts"]
	}
	rows := []any{}
	for n, k := range sortedKeys(t.fields) {
		p := t.fields[k]
		name, custom := strings.CutPrefix(k, "custom_attributes.")
		kind := map[string]string{"number": "integer", "bool": "boolean", "date": "date"}[p.Type]
		if kind == "" {
			kind = "string"
		}
		rows = append(rows, map[string]any{"type": "data_attribute", "id": n + 1, "model": model, "name": name, "full_name": k, "label": name, "data_type": kind,
			"api_writable": !p.ReadOnly, "custom": custom, "archived": false})
	}
	c.json(200, map[string]any{"type": "list", "data": rows})
}

func (i *intercom) custom(c *conversation, t *table) {
	if t == nil {
		i.fail(c, 404, "not_found", "Resource Not Found")
		return
	}
	id := c.r.URL.Query().Get("external_id")
	switch c.r.Method {
	case "POST":
		fields := map[string]string{"external_id": str(c.object()["external_id"])}
		if fields["external_id"] == "" {
			i.fail(c, 400, "parameter_not_found", "external_id is required")
			return
		}
		flat("custom_attributes.", sub(c.object(), "custom_attributes"), fields)
		r := t.find("external_id", fields["external_id"])
		at := ""
		if r == nil {
			at = i.s.newID("")
		} else {
			at = r.ID
		}
		c.json(200, i.show(t, i.s.put(t, at, fields)))
	case "GET":
		i.answer(c, t, t.find("external_id", id))
	default:
		r := t.find("external_id", id)
		if r == nil {
			i.fail(c, 404, "not_found", "Resource Not Found")
			return
		}
		i.s.remove(t, r)
		c.json(200, map[string]any{"object": t.name, "id": r.ID, "deleted": true})
	}
}

// tie attaches a contact to a company.
func (i *intercom) tie(c *conversation, p []string) {
	id := str(c.object()["id"])
	if len(p) == 4 {
		id = p[3]
	}
	contact, company := i.s.tables["contacts"].get(p[1]), i.s.tables["companies"].get(id)
	if contact == nil || company == nil {
		i.fail(c, 404, "company_not_found", "Company Not Found")
		return
	}
	key := strings.Join([]string{"contacts", p[1], "companies", id}, "/")
	if c.r.Method == "DELETE" {
		delete(i.ties, key)
	} else {
		i.ties[key] = true
	}
	c.json(200, i.show(i.s.tables["companies"], company))
}
