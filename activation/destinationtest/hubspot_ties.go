package destinationtest

import (
	"strings"
)

// associations is the batch API v4.
func (h *hubspot) associations(c *conversation, from, to, action string) {
	a, b := h.lookup(from), h.lookup(to)
	inputs, ok := c.object()["inputs"].([]any)
	if a == nil || b == nil || !ok || len(inputs) > 2000 {
		h.fail(c, 400, "VALIDATION_ERROR", "Invalid association request", nil)
		return
	}
	var results, errs []any
	for _, in := range inputs {
		m, _ := in.(map[string]any)
		fromID := str(sub(m, "from")["id"])
		if action == "archive" || action == "labels/archive" {
			for _, one := range list(m["to"]) {
				delete(h.ties, strings.Join([]string{a.name, fromID, b.name, str(sub(map[string]any{"x": one}, "x")["id"])}, "/"))
			}
			continue
		}
		toID := str(sub(m, "to")["id"])
		if a.get(fromID) == nil || b.get(toID) == nil {
			errs = append(errs, map[string]any{"status": "error", "category": "OBJECT_NOT_FOUND", "message": "One or more of the objects do not exist", "links": map[string]any{},
				"context": map[string]any{"fromObjectId": []any{fromID}, "toObjectId": []any{toID}}, "errors": []any{}})
			continue
		}
		h.ties[strings.Join([]string{a.name, fromID, b.name, toID}, "/")] = true
		if action == "associate/default" {
			results = append(results, map[string]any{"from": map[string]any{"id": fromID}, "to": map[string]any{"id": toID},
				"associationSpec": map[string]any{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 1}})
			continue
		}
		results = append(results, map[string]any{"fromObjectTypeId": a.name, "fromObjectId": fromID, "toObjectTypeId": b.name, "toObjectId": toID, "labels": []any{}})
	}
	if action == "archive" || action == "labels/archive" {
		c.status = 204
		return
	}
	out, status := h.envelope(results), 201
	if action == "associate/default" {
		status = 200
	}
	if len(errs) > 0 {
		status, out["numErrors"], out["errors"] = 207, len(errs), errs
	}
	c.json(status, out)
}

func (h *hubspot) tie(c *conversation, from, fromID, to, toID string) {
	a, b := h.lookup(from), h.lookup(to)
	if a == nil || b == nil || a.get(fromID) == nil || b.get(toID) == nil {
		h.fail(c, 404, "OBJECT_NOT_FOUND", "Object not found.", nil)
		return
	}
	key := strings.Join([]string{a.name, fromID, b.name, toID}, "/")
	if c.r.Method == "DELETE" {
		delete(h.ties, key)
		c.status = 204
		return
	}
	h.ties[key] = true
	c.json(201, map[string]any{"fromObjectTypeId": a.name, "fromObjectId": fromID, "toObjectTypeId": b.name, "toObjectId": toID, "labels": []any{}})
}

// Tied reports whether two records are associated (HubSpot, Intercom).
func (s *Simulator) Tied(from, fromID, to, toID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := strings.Join([]string{from, fromID, to, toID}, "/")
	switch v := s.model.(type) {
	case *hubspot:
		return v.ties[key]
	case *intercom:
		return v.ties[key]
	}
	return false
}
