package destinationtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

// WebhookSecret is what the receiver checks signatures with, if there are any.
const WebhookSecret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

// receiver is an API of a user's own: POST / takes one change or a list of
// them, answers for each by its place, and remembers what it has had.
type receiver struct {
	s    *Simulator
	seen map[string][]byte
}

func newReceiver(s *Simulator) *receiver {
	t := s.table("contacts", []string{"key"}, delivery.Property{Name: "key"}, delivery.Property{Name: "seq", Type: "number"}, delivery.Property{Name: "note"},
		delivery.Property{Name: "email"})
	t.label = "contacts"
	return &receiver{s: s, seen: map[string][]byte{}}
}

func (v *receiver) authorised(c *conversation) bool { return c.bearer() }

func (v *receiver) announce(c *conversation, left, limit int, _ time.Duration, _, _ int) {
	if limit < 1<<30 {
		c.header.Set("X-RateLimit-Remaining", strconv.Itoa(left))
		c.header.Set("X-RateLimit-Limit", strconv.Itoa(limit))
	}
}

func (v *receiver) refuse(c *conversation, status int, _ bool) {
	c.json(status, map[string]any{"code": "refused", "message": "the request is refused"})
}

// signed checks a signature, if there is one.
func (v *receiver) signed(c *conversation) bool {
	id, at, signature := c.r.Header.Get("webhook-id"), c.r.Header.Get("webhook-timestamp"), c.r.Header.Get("webhook-signature")
	if signature == "" {
		return true
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil || math.Abs(float64(v.s.o.Now().Unix()-seconds)) > 300 || id == "" {
		return false
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(WebhookSecret, "whsec_"))
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(c.raw)
	return slices.Contains(strings.Fields(signature), "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

func (v *receiver) serve(c *conversation) {
	if !v.signed(c) {
		c.json(400, map[string]any{"code": "signature", "message": "the signature does not fit"})
		return
	}
	if c.path[0] == "find" {
		v.find(c)
		return
	}
	changes, batch := c.body.([]any)
	if !batch {
		if c.body == nil {
			c.json(400, map[string]any{"code": "malformed", "message": "no JSON"})
			return
		}
		changes = []any{c.body}
	}
	if len(changes) > 100 {
		c.json(413, map[string]any{"code": "too_many", "message": "at most 100"})
		return
	}
	key := c.r.Header.Get("Idempotency-Key")
	if old, ok := v.seen[key]; ok && key != "" {
		c.status, c.out = 200, old
		return
	}
	var done, failed []any
	for i, one := range changes {
		m, _ := one.(map[string]any)
		if e := v.apply(m); e != "" {
			failed = append(failed, map[string]any{"index": i, "code": e, "message": "the change is refused: " + str(sub(m, "data", "match")["value"])})
			continue
		}
		done = append(done, map[string]any{"index": i, "id": str(sub(m, "data", "match")["value"])})
	}
	switch {
	case !batch && len(failed) > 0:
		c.json(422, failed[0])
		return
	case len(failed) > 0:
		c.json(207, map[string]any{"results": append([]any{}, done...), "errors": failed})
	default:
		c.json(200, map[string]any{"results": append([]any{}, done...), "errors": []any{}})
	}
	if key != "" {
		v.seen[key] = c.out
	}
}

func (v *receiver) apply(m map[string]any) string {
	t := v.s.tables[str(m["object"])]
	if t == nil {
		return "no_object"
	}
	data := sub(m, "data")
	match := sub(data, "match")
	fields := map[string]string{str(match["field"]): str(match["value"])}
	for k, x := range sub(data, "fields") {
		fields[k] = str(x)
	}
	for k, x := range fields {
		if wrong := t.check(k, x); wrong != "" {
			return wrong
		}
	}
	r := t.find("key", fields["key"])
	if id := str(data["id"]); id != "" {
		if known := t.find("key", id); known != nil {
			r = known
		}
	}
	if str(m["type"]) == "delete" {
		if r != nil {
			v.s.remove(t, r)
		}
		return ""
	}
	id := ""
	if r != nil {
		id = r.ID
	} else {
		id = v.s.newID("r")
	}
	if _, other := t.conflict(id, fields); other != nil {
		return "conflict"
	}
	v.s.put(t, id, fields)
	return ""
}

func (v *receiver) find(c *conversation) {
	r := v.s.tables["contacts"].find("key", c.r.URL.Query().Get("key"))
	if r == nil {
		c.json(404, map[string]any{"code": "not_found", "message": "no such record"})
		return
	}
	out := map[string]any{"id": r.Fields["key"]}
	for k, x := range r.Fields {
		out[k] = typed(kindOf(v.s.tables["contacts"], k), x)
	}
	c.json(200, out)
}
