package destinationtest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

// hubspot is the CRM API v3, associations v4 and properties.
type hubspot struct {
	s    *Simulator
	ties map[string]bool // from/id/to/id
}

func newHubSpot(s *Simulator) *hubspot {
	own := []delivery.Property{{Name: "hs_object_id", ReadOnly: true}, {Name: "createdate", Type: "datetime", ReadOnly: true},
		{Name: "lastmodifieddate", Type: "datetime", ReadOnly: true}, {Name: "crm_id"}, {Name: "seq", Type: "number"}, {Name: "note"}}
	contacts := s.table("contacts", []string{"email", "crm_id"}, append(own, delivery.Property{Name: "email"}, delivery.Property{Name: "firstname"},
		delivery.Property{Name: "lastname"}, delivery.Property{Name: "phone"}, delivery.Property{Name: "company"}, delivery.Property{Name: "country"},
		delivery.Property{Name: "city"}, delivery.Property{Name: "vip", Type: "bool"}, delivery.Property{Name: "birthday", Type: "date"},
		delivery.Property{Name: "email_hash"}, delivery.Property{Name: "orders", Type: "number"},
		delivery.Property{Name: "lifecyclestage", Type: "enum", Values: []string{"subscriber", "lead", "customer", "other"}})...)
	contacts.fold = true
	s.table("companies", []string{"crm_id"}, append(own, delivery.Property{Name: "name"}, delivery.Property{Name: "domain"}, delivery.Property{Name: "city"})...)
	s.table("deals", []string{"crm_id"}, append(own, delivery.Property{Name: "dealname"}, delivery.Property{Name: "amount", Type: "number"})...)
	s.table("2-1001", []string{"crm_id"}, append(own, delivery.Property{Name: "name"})...).label = "pets"
	return &hubspot{s: s, ties: map[string]bool{}}
}

func (h *hubspot) authorised(c *conversation) bool { return c.bearer() }

func (h *hubspot) announce(c *conversation, left, limit int, reset time.Duration, leftToday, today int) {
	if strings.HasSuffix(c.r.URL.Path, "/search") {
		return
	}
	c.header.Set("X-HubSpot-RateLimit-Max", strconv.Itoa(limit))
	c.header.Set("X-HubSpot-RateLimit-Remaining", strconv.Itoa(left))
	c.header.Set("X-HubSpot-RateLimit-Interval-Milliseconds", strconv.Itoa(int(h.s.quota.per/time.Millisecond)))
	c.header.Set("X-HubSpot-RateLimit-Daily", strconv.Itoa(today))
	c.header.Set("X-HubSpot-RateLimit-Daily-Remaining", strconv.Itoa(leftToday))
}

func (h *hubspot) fail(c *conversation, status int, category, message string, context map[string]any) {
	v := map[string]any{"status": "error", "message": message, "correlationId": c.header.Get("X-Request-Id"), "category": category}
	if context != nil {
		v["context"] = context
	}
	c.json(status, v)
}

func (h *hubspot) refuse(c *conversation, status int, daily bool) {
	switch status {
	case 401:
		h.fail(c, 401, "INVALID_AUTHENTICATION", "Authentication credentials not found.", nil)
	case 429:
		policy, message := "TEN_SECONDLY_ROLLING", "You have reached your ten_secondly_rolling limit."
		if daily {
			policy, message = "DAILY", "You have reached your daily limit."
		}
		c.json(429, map[string]any{"status": "error", "message": message, "errorType": "RATE_LIMIT", "correlationId": c.header.Get("X-Request-Id"),
			"policyName": policy, "category": "RATE_LIMITS"})
	default:
		h.fail(c, status, "INTERNAL_ERROR", "There was a problem with the request.", nil)
	}
}

// serve routes; /crm/objects/2026-03/ is the same as /crm/v3/objects/.
func (h *hubspot) serve(c *conversation) {
	p := c.path
	switch {
	case len(p) >= 4 && p[0] == "crm" && (p[1] == "v3" && p[2] == "objects" || p[1] == "objects" && p[2] == "2026-03"):
		h.objects(c, p[3], p[4:])
	case len(p) >= 4 && p[0] == "crm" && (p[1] == "v3" && p[2] == "properties" || p[1] == "properties" && p[2] == "2026-03"):
		h.properties(c, p[3])
	case len(p) >= 6 && p[0] == "crm" && p[1] == "v4" && p[2] == "associations" && p[5] == "batch":
		h.associations(c, p[3], p[4], strings.Join(p[6:], "/"))
	case len(p) >= 8 && p[1] == "v4" && p[2] == "objects" && p[5] == "associations" && (c.r.Method == "PUT" || c.r.Method == "DELETE"):
		h.tie(c, p[3], p[4], p[6], p[7])
	default:
		h.fail(c, 404, "OBJECT_NOT_FOUND", "No such route", nil)
	}
}

func (h *hubspot) lookup(name string) *table {
	if t := h.s.tables[name]; t != nil {
		return t
	}
	for _, t := range h.s.tables {
		if t.label == name || t.name == map[string]string{"contact": "contacts", "company": "companies", "deal": "deals", "0-1": "contacts", "0-2": "companies", "0-3": "deals"}[name] {
			return t
		}
	}
	return nil
}

func (h *hubspot) objects(c *conversation, object string, rest []string) {
	t := h.lookup(object)
	if t == nil {
		h.fail(c, 400, "VALIDATION_ERROR", "Unable to infer object type from: "+object, nil)
		return
	}
	switch action := strings.Join(rest, "/"); {
	case action == "" && c.r.Method == "POST":
		h.one(c, t, "", "create")
	case action == "" && c.r.Method == "GET":
		h.page(c, t)
	case action == "search":
		h.search(c, t)
	case action == "gdpr-delete":
		if r := t.get(str(c.object()["objectId"])); r != nil {
			h.s.remove(t, r)
		} else if r := t.find(str(c.object()["idProperty"]), str(c.object()["objectId"])); r != nil {
			h.s.remove(t, r)
		}
		c.status = 204
	case len(rest) == 2 && rest[0] == "batch":
		h.batch(c, t, rest[1])
	case len(rest) == 1:
		h.one(c, t, rest[0], c.r.Method)
	default:
		h.fail(c, 404, "OBJECT_NOT_FOUND", "No such route", nil)
	}
}

func (h *hubspot) show(t *table, r *Record, names []any, extra map[string]any) map[string]any {
	all := map[string]any{"hs_object_id": r.ID, "createdate": stamp(r.Created), "lastmodifieddate": stamp(r.Updated)}
	if names == nil {
		for k, v := range r.Fields {
			all[k] = v
		}
	}
	for _, n := range names {
		name := str(n)
		if t.property(name) == nil || all[name] != nil {
			continue
		}
		if v, ok := r.Fields[name]; ok {
			all[name] = v
		} else {
			all[name] = nil
		}
	}
	out := map[string]any{"id": r.ID, "properties": all, "createdAt": stamp(r.Created), "updatedAt": stamp(r.Updated), "archived": r.Archived}
	for k, v := range extra {
		out[k] = v
	}
	return out
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// rowError is why one record is refused.
type rowError struct {
	category, message string
	context           map[string]any
}

// write checks and carries out one input.
func (h *hubspot) write(t *table, action string, in map[string]any) (r *Record, created bool, e *rowError) {
	props := map[string]string{}
	for _, k := range sortedKeys(sub(in, "properties")) {
		v := sub(in, "properties")[k]
		if v == nil {
			continue // null changes nothing
		}
		text := str(v)
		switch v.(type) {
		case map[string]any, []any:
			return nil, false, &rowError{"VALIDATION_ERROR", fmt.Sprintf("Invalid input JSON: property %q must be a string", k), nil}
		}
		if wrong := t.check(k, text); wrong != "" {
			code := map[string]string{"unknown": "PROPERTY_DOESNT_EXIST", "read_only": "READ_ONLY_VALUE", "enum": "INVALID_OPTION", "email": "INVALID_EMAIL",
				"type": "INVALID_" + strings.ToUpper(kindOf(t, k)), "length": "INVALID_LENGTH"}[wrong]
			return nil, false, &rowError{"VALIDATION_ERROR", fmt.Sprintf(`Property values were not valid: [{"isValid":false,"message":"%q was not valid for property \"%s\"","error":"%s","name":"%s"}]`, text, k, code, k), nil}
		}
		props[k] = text
	}
	id, idProperty := str(in["id"]), str(in["idProperty"])
	if idProperty != "" && idProperty != "hs_object_id" {
		if !slices.Contains(t.unique, idProperty) {
			return nil, false, &rowError{"VALIDATION_ERROR", fmt.Sprintf("Property %q is not a unique identifier", idProperty), nil}
		}
		if wrong := t.check(idProperty, id); wrong != "" || id == "" {
			return nil, false, &rowError{"VALIDATION_ERROR", fmt.Sprintf("%q is not valid for %s: INVALID_EMAIL", id, idProperty), nil}
		}
		r = t.find(idProperty, id)
		if _, ok := props[idProperty]; !ok && r == nil {
			props[idProperty] = id
		}
	} else if action != "create" {
		r = t.get(id)
	}
	switch action {
	case "update":
		if r == nil {
			return nil, false, &rowError{"OBJECT_NOT_FOUND", "Could not get some records, they may be deleted or not exist", map[string]any{"ids": []any{id}}}
		}
	case "upsert":
		if idProperty == "" || idProperty == "hs_object_id" {
			return nil, false, &rowError{"VALIDATION_ERROR", "idProperty is required for upsert", nil}
		}
	}
	at := ""
	if r != nil {
		at = r.ID
	}
	if field, other := t.conflict(at, props); other != nil {
		return nil, false, &rowError{"CONFLICT", fmt.Sprintf("A record with that %s already exists. Existing ID: %s", field, other.ID), nil}
	}
	if r == nil {
		at, created = h.s.newID(""), true
	}
	return h.s.put(t, at, props), created, nil
}

// batch is create, update, upsert, read and archive of up to 100 records.
func (h *hubspot) batch(c *conversation, t *table, action string) {
	inputs, ok := c.object()["inputs"].([]any)
	if !ok {
		if action == "upsert" || action == "update" || action == "create" { // the vendor takes it for an empty batch
			c.json(200, h.envelope(nil))
			return
		}
		h.fail(c, 400, "VALIDATION_ERROR", "Some required fields were not set: [inputs]", nil)
		return
	}
	if len(inputs) > 100 {
		h.fail(c, 400, "VALIDATION_ERROR", "The maximum number of inputs supported in a batch request is 100", nil)
		return
	}
	if h.duplicates(c, inputs, action) {
		return
	}
	switch action {
	case "read":
		h.read(c, t, inputs)
	case "archive":
		for _, in := range inputs {
			if r := t.get(str(in.(map[string]any)["id"])); r != nil {
				h.s.remove(t, r)
			}
		}
		c.status = 204
	case "create", "update", "upsert":
		h.writeAll(c, t, action, inputs)
	default:
		h.fail(c, 404, "OBJECT_NOT_FOUND", "No such route", nil)
	}
}

// duplicates refuses a batch in which a record occurs twice.
func (h *hubspot) duplicates(c *conversation, inputs []any, action string) bool {
	seen, twice := map[string]bool{}, []any{}
	for _, in := range inputs {
		m, ok := in.(map[string]any)
		if !ok {
			h.fail(c, 400, "VALIDATION_ERROR", "Invalid input JSON", nil)
			return true
		}
		id := strings.ToLower(str(m["id"]))
		if action == "create" {
			id = strings.ToLower(str(sub(m, "properties")["email"]))
		}
		if id != "" && seen[id] {
			twice = append(twice, id)
		}
		seen[id] = true
	}
	if len(twice) == 0 || action == "read" {
		return false
	}
	h.fail(c, 400, "VALIDATION_ERROR", fmt.Sprintf("Duplicate IDs found in batch input: %v. IDs must be unique", twice), map[string]any{"ids": twice})
	return true
}

func (h *hubspot) envelope(results []any) map[string]any {
	now := stamp(h.s.o.Now())
	if results == nil {
		results = []any{}
	}
	return map[string]any{"status": "COMPLETE", "results": results, "startedAt": now, "completedAt": now}
}

// writeAll answers 207 for some failures if every input has a trace id of its
// own; otherwise one failure refuses all.
func (h *hubspot) writeAll(c *conversation, t *table, action string, inputs []any) {
	traced, traces := true, map[string]bool{}
	for _, in := range inputs {
		id := str(in.(map[string]any)["objectWriteTraceId"])
		if id == "" || traces[id] {
			traced = false
		}
		traces[id] = true
	}
	if !traced { // all or nothing: look first
		for _, in := range inputs {
			if e := h.tryOut(t, action, in.(map[string]any)); e != nil {
				status := 400
				if e.category == "CONFLICT" {
					status = 409
				}
				h.fail(c, status, e.category, e.message, e.context)
				return
			}
		}
	}
	var results, errs []any
	for _, in := range inputs {
		m := in.(map[string]any)
		r, created, e := h.write(t, action, m)
		if e != nil {
			context := map[string]any{"objectWriteTraceId": []any{str(m["objectWriteTraceId"])}}
			for k, v := range e.context {
				context[k] = v
			}
			errs = append(errs, map[string]any{"status": "error", "category": e.category, "message": e.message, "context": context, "errors": []any{}, "links": map[string]any{}})
			continue
		}
		extra := map[string]any{}
		if action == "upsert" {
			extra["new"] = created
		}
		if traced {
			extra["objectWriteTraceId"] = m["objectWriteTraceId"]
		}
		results = append(results, h.show(t, r, nil, extra))
	}
	out := h.envelope(results)
	status := 200
	if action == "create" {
		status = 201
	}
	if len(errs) > 0 {
		status, out["numErrors"], out["errors"] = 207, len(errs), errs
	}
	c.json(status, out)
}

// tryOut is write without a trace of it.
func (h *hubspot) tryOut(t *table, action string, in map[string]any) *rowError {
	probe := &Simulator{o: h.s.o, tables: map[string]*table{}}
	shadow := *t
	shadow.records, shadow.by, shadow.order = cloneRecords(t), cloneIndex(t), slices.Clone(t.order)
	_, _, e := (&hubspot{s: probe}).write(&shadow, action, in)
	return e
}

func cloneRecords(t *table) map[string]*Record {
	out := make(map[string]*Record, len(t.records))
	for k, r := range t.records {
		c := *r
		c.Fields = map[string]string{}
		for f, v := range r.Fields {
			c.Fields[f] = v
		}
		out[k] = &c
	}
	return out
}

func cloneIndex(t *table) map[string]map[string]string {
	out := map[string]map[string]string{}
	for f, index := range t.by {
		out[f] = map[string]string{}
		for k, v := range index {
			out[f][k] = v
		}
	}
	return out
}

func (h *hubspot) read(c *conversation, t *table, inputs []any) {
	var results, errs []any
	idProperty := str(c.object()["idProperty"])
	for _, in := range inputs {
		id := str(in.(map[string]any)["id"])
		r := t.get(id)
		if idProperty != "" && idProperty != "hs_object_id" {
			r = t.find(idProperty, id)
		}
		if r == nil {
			errs = append(errs, map[string]any{"status": "error", "category": "OBJECT_NOT_FOUND", "message": "Could not get some records", "context": map[string]any{"ids": []any{id}}})
			continue
		}
		names := list(c.object()["properties"])
		if names == nil {
			names = []any{}
		}
		results = append(results, h.show(t, r, names, nil))
	}
	out, status := h.envelope(results), 200
	if len(errs) > 0 {
		status, out["numErrors"], out["errors"] = 207, len(errs), errs
	}
	c.json(status, out)
}

// one is the single-record API.
func (h *hubspot) one(c *conversation, t *table, id, action string) {
	if idProperty := c.r.URL.Query().Get("idProperty"); idProperty != "" {
		if r := t.find(idProperty, id); r != nil {
			id = r.ID
		}
	}
	switch action {
	case "create", "PATCH":
		in := map[string]any{"properties": c.object()["properties"], "id": id}
		name, status := "create", 201
		if action == "PATCH" {
			name, status = "update", 200
		}
		r, _, e := h.write(t, name, in)
		switch {
		case e == nil:
			c.json(status, h.show(t, r, nil, nil))
		case e.category == "CONFLICT":
			h.fail(c, 409, e.category, e.message, e.context)
		case e.category == "OBJECT_NOT_FOUND":
			h.fail(c, 404, e.category, e.message, e.context)
		default:
			h.fail(c, 400, e.category, e.message, e.context)
		}
	case "GET":
		r := t.get(id)
		if r == nil {
			h.fail(c, 404, "OBJECT_NOT_FOUND", "Object not found.", nil)
			return
		}
		c.json(200, h.show(t, r, nil, nil))
	case "DELETE":
		if r := t.get(id); r != nil {
			h.s.remove(t, r)
		}
		c.status = 204
	default:
		h.fail(c, 405, "METHOD_NOT_ALLOWED", "Method not allowed", nil)
	}
}

func (h *hubspot) page(c *conversation, t *table) {
	limit, err := strconv.Atoi(c.r.URL.Query().Get("limit"))
	if err != nil || limit <= 0 || limit > 100 {
		limit = 10
	}
	after := c.r.URL.Query().Get("after")
	results, next := []any{}, ""
	for _, id := range t.order {
		r := t.get(id)
		if r == nil || after != "" && len(id) <= len(after) && id <= after {
			continue
		}
		if len(results) == limit {
			next = results[limit-1].(map[string]any)["id"].(string)
			break
		}
		results = append(results, h.show(t, r, nil, nil))
	}
	out := map[string]any{"results": results}
	if next != "" {
		out["paging"] = map[string]any{"next": map[string]any{"after": next, "link": c.r.URL.Path + "?after=" + next}}
	}
	c.json(200, out)
}

// search knows EQ and IN; its index runs behind.
func (h *hubspot) search(c *conversation, t *table) {
	results := []any{}
	for _, id := range t.order {
		r := t.get(id)
		if r == nil || !h.s.searchable(r) {
			continue
		}
		groups := list(c.object()["filterGroups"])
		hit := len(groups) == 0
		for _, g := range groups {
			all := true
			group, _ := g.(map[string]any)
			for _, f := range list(group["filters"]) {
				m, _ := f.(map[string]any)
				v := t.norm(r.Fields[str(m["propertyName"])])
				switch str(m["operator"]) {
				case "EQ":
					all = all && v == t.norm(str(m["value"]))
				case "IN":
					all = all && slices.ContainsFunc(list(m["values"]), func(x any) bool { return t.norm(str(x)) == v })
				default:
					all = false
				}
			}
			hit = hit || all
		}
		if hit && len(results) < 200 {
			results = append(results, h.show(t, r, nil, nil))
		}
	}
	c.json(200, map[string]any{"total": len(results), "results": results})
}

func (h *hubspot) properties(c *conversation, object string) {
	t := h.lookup(object)
	if t == nil {
		h.fail(c, 400, "VALIDATION_ERROR", "Unable to infer object type from: "+object, nil)
		return
	}
	if c.r.Method == "POST" {
		name := str(c.object()["name"])
		if name == "" || t.fields[name] != nil {
			h.fail(c, 409, "OBJECT_ALREADY_EXISTS", "Property already exists", nil)
			return
		}
		kind := map[string]string{"number": "number", "bool": "bool", "date": "date", "datetime": "datetime", "enumeration": "enum"}[str(c.object()["type"])]
		if kind == "" {
			kind = "text"
		}
		t.fields[name] = &delivery.Property{Name: name, Type: kind}
		if c.object()["hasUniqueValue"] == true {
			t.unique = append(t.unique, name)
			t.by[name] = map[string]string{}
		}
		c.json(201, h.property(t, name))
		return
	}
	results := []any{}
	for _, name := range sortedKeys(t.fields) {
		results = append(results, h.property(t, name))
	}
	c.json(200, map[string]any{"results": results})
}

func (h *hubspot) property(t *table, name string) map[string]any {
	p := t.fields[name]
	kind := map[string]string{"text": "string", "number": "number", "bool": "bool", "date": "date", "datetime": "datetime", "enum": "enumeration"}[p.Type]
	options := []any{}
	for i, v := range p.Values {
		options = append(options, map[string]any{"label": v, "value": v, "displayOrder": i, "hidden": false})
	}
	return map[string]any{"name": name, "label": name, "type": kind, "fieldType": "text", "description": "", "groupName": "info", "options": options,
		"hasUniqueValue": slices.Contains(t.unique, name), "calculated": false, "hidden": false, "formField": true, "archived": false, "displayOrder": -1,
		"modificationMetadata": map[string]any{"readOnlyValue": p.ReadOnly, "archivable": true, "readOnlyDefinition": false}}
}

func kindOf(t *table, name string) string {
	if p := t.property(name); p != nil {
		return p.Type
	}
	return "value"
}
