package destinationtest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

// klaviyo is profiles, bulk imports and erasure of the API of 2026-07-15.
type klaviyo struct {
	s    *Simulator
	jobs map[string]*profileJob
}

type profileJob struct {
	profiles []any
	errors   []any
	looks    int
	done     int
}

func newKlaviyo(s *Simulator) *klaviyo {
	t := s.table("profiles", []string{"email", "phone_number", "external_id"}, delivery.Property{Name: "email"}, delivery.Property{Name: "phone_number"},
		delivery.Property{Name: "external_id"}, delivery.Property{Name: "anonymous_id"}, delivery.Property{Name: "first_name"}, delivery.Property{Name: "last_name"},
		delivery.Property{Name: "organization"}, delivery.Property{Name: "locale"}, delivery.Property{Name: "title"}, delivery.Property{Name: "image"},
		delivery.Property{Name: "created", Type: "datetime", ReadOnly: true}, delivery.Property{Name: "updated", Type: "datetime", ReadOnly: true})
	t.open, t.fold = []string{"properties.", "location."}, true
	return &klaviyo{s: s, jobs: map[string]*profileJob{}}
}

func (k *klaviyo) authorised(c *conversation) bool {
	key, ok := strings.CutPrefix(c.r.Header.Get("Authorization"), "Klaviyo-API-Key ")
	return ok && k.s.login.takes(key) || c.bearer()
}

func (k *klaviyo) announce(c *conversation, left, limit int, reset time.Duration, _, _ int) {
	c.header.Set("RateLimit-Limit", strconv.Itoa(limit))
	c.header.Set("RateLimit-Remaining", strconv.Itoa(left))
	c.header.Set("RateLimit-Reset", strconv.Itoa(int(reset/time.Second)+1))
}

func (k *klaviyo) fail(c *conversation, status int, code, detail, pointer string) {
	c.header.Set("Content-Type", "application/vnd.api+json")
	c.json(status, map[string]any{"errors": []any{k.error(c, status, code, detail, pointer)}})
}

func (k *klaviyo) error(c *conversation, status int, code, detail, pointer string) map[string]any {
	return map[string]any{"id": c.header.Get("X-Request-Id"), "status": status, "code": code, "title": "Invalid input.", "detail": detail, "source": map[string]any{"pointer": pointer}}
}

func (k *klaviyo) refuse(c *conversation, status int, _ bool) {
	switch status {
	case 401:
		k.fail(c, 401, "authentication_failed", "Incorrect authentication credentials.", "/data/")
	case 429:
		k.fail(c, 429, "throttled", "Request was throttled.", "/data/")
	default:
		k.fail(c, status, "internal_error", "A server error occurred.", "/data/")
	}
}

func (k *klaviyo) serve(c *conversation) {
	if c.r.Header.Get("revision") == "" {
		k.fail(c, 400, "invalid", "The revision header is required.", "/data/")
		return
	}
	if kind := c.r.Header.Get("Content-Type"); c.r.Method != "GET" && !strings.Contains(kind, "json") {
		k.fail(c, 415, "unsupported_media_type", "Unsupported media type in request.", "/data/")
		return
	}
	c.header.Set("Content-Type", "application/vnd.api+json")
	p, t := c.path, k.s.tables["profiles"]
	switch {
	case len(p) == 2 && p[1] == "profile-import":
		k.write(c, t, "", true)
	case len(p) == 2 && p[1] == "profiles" && c.r.Method == "POST":
		k.write(c, t, "", false)
	case len(p) == 2 && p[1] == "profiles":
		k.list(c, t)
	case len(p) == 3 && p[1] == "profiles" && c.r.Method == "PATCH":
		k.write(c, t, p[2], false)
	case len(p) == 3 && p[1] == "profiles":
		if r := t.get(p[2]); r != nil {
			c.json(200, map[string]any{"data": k.show(r)})
			return
		}
		k.fail(c, 404, "not_found", "A profile with the id does not exist.", "/data/id")
	case len(p) == 2 && p[1] == "profile-bulk-import-jobs" && c.r.Method == "POST":
		k.start(c, t)
	case len(p) >= 3 && p[1] == "profile-bulk-import-jobs":
		k.look(c, t, p[2], len(p) == 4)
	case len(p) == 2 && p[1] == "data-privacy-deletion-jobs":
		profile := sub(c.object(), "data", "attributes", "profile", "data")
		r := t.get(str(profile["id"]))
		if r == nil {
			r = t.find("email", str(sub(profile, "attributes")["email"]))
		}
		if r != nil {
			k.s.remove(t, r)
		}
		c.json(202, map[string]any{})
	default:
		k.fail(c, 404, "not_found", "Not found.", "/")
	}
}

func (k *klaviyo) show(r *Record) map[string]any {
	a := tree(r.Fields)
	for name, v := range sub(a, "properties") {
		sub(a, "properties")[name] = loose(str(v))
	}
	a["created"], a["updated"] = stamp(r.Created), stamp(r.Updated)
	return map[string]any{"type": "profile", "id": r.ID, "attributes": a, "links": map[string]any{"self": "https://a.klaviyo.com/api/profiles/" + r.ID + "/"}}
}

// loose is a value without a declared type: a number stays one.
func loose(v string) any {
	if n := json.Number(v); v != "" && (v[0] == '-' || v[0] >= '0' && v[0] <= '9') && json.Valid([]byte(v)) {
		return n
	}
	return v
}

// fields checks the attributes of a profile.
func (k *klaviyo) fields(t *table, attributes map[string]any, pointer string) (map[string]string, string, string) {
	fields := flat("", attributes, map[string]string{})
	for _, name := range sortedKeys(fields) {
		at := pointer + "/attributes/" + strings.ReplaceAll(name, ".", "/")
		switch t.check(name, fields[name]) {
		case "":
		case "unknown":
			return nil, fmt.Sprintf("'%s' is not a valid field for the resource 'profile'.", name), at
		case "read_only":
			return nil, fmt.Sprintf("'%s' cannot be written.", name), at
		default:
			return nil, fmt.Sprintf("Invalid value %s for '%s'.", fields[name], name), at
		}
		if name == "phone_number" && fields[name] != "" && !regexp.MustCompile(`^\+[1-9]\d{6,14}$`).MatchString(fields[name]) {
			return nil, "Invalid phone number format (Example of a valid format: +12345678901)", at
		}
	}
	return fields, "", ""
}

func (k *klaviyo) identify(t *table, fields map[string]string) *Record {
	for _, u := range t.unique {
		if r := t.find(u, fields[u]); r != nil {
			return r
		}
	}
	return nil
}

func (k *klaviyo) write(c *conversation, t *table, id string, merge bool) {
	data := sub(c.object(), "data")
	if str(data["type"]) != "profile" {
		k.fail(c, 400, "invalid", "'profile' is the only type here.", "/data/type")
		return
	}
	fields, wrong, at := k.fields(t, sub(data, "attributes"), "/data")
	if wrong != "" {
		k.fail(c, 400, "invalid", wrong, at)
		return
	}
	var r *Record
	switch {
	case id != "":
		if r = t.get(id); r == nil {
			k.fail(c, 404, "not_found", "A profile with the id does not exist.", "/data/id")
			return
		}
	case merge:
		if r = k.identify(t, fields); r == nil && fields["email"]+fields["phone_number"]+fields["external_id"]+fields["anonymous_id"] == "" {
			k.fail(c, 400, "invalid", "One of email, phone_number, external_id is needed.", "/data/attributes")
			return
		}
	}
	at = ""
	if r != nil {
		at = r.ID
	}
	if _, other := t.conflict(at, fields); other != nil {
		e := k.error(c, 409, "duplicate_profile", "A profile already exists with one of these identifiers.", "/data/attributes")
		e["meta"] = map[string]any{"duplicate_profile_id": other.ID}
		c.json(409, map[string]any{"errors": []any{e}})
		return
	}
	status := 200
	if r == nil {
		at, status = k.s.newID("01KLV"), 201
	}
	r = k.s.put(t, at, fields)
	c.json(status, map[string]any{"data": k.show(r)})
}

var anyFilter = regexp.MustCompile(`^(any|equals)\((\w+),(.*)\)$`)

func (k *klaviyo) list(c *conversation, t *table) {
	q := c.r.URL.Query()
	var wanted []string
	m := anyFilter.FindStringSubmatch(q.Get("filter"))
	if q.Get("filter") != "" {
		if m == nil {
			k.fail(c, 400, "invalid", "Invalid filter provided.", "/filter")
			return
		}
		text := m[3]
		if m[1] == "equals" {
			text = "[" + text + "]"
		}
		if json.Unmarshal([]byte(text), &wanted) != nil {
			k.fail(c, 400, "invalid", "Invalid filter provided.", "/filter")
			return
		}
	}
	rows := []any{}
	for _, id := range t.order {
		r := t.get(id)
		if r == nil || len(rows) >= 100 {
			continue
		}
		if m != nil {
			v := r.Fields[m[2]]
			if m[2] == "id" {
				v = r.ID
			}
			if v == "" || !slices.ContainsFunc(wanted, func(w string) bool { return t.norm(w) == t.norm(v) }) {
				continue
			}
		}
		rows = append(rows, k.show(r))
	}
	c.json(200, map[string]any{"data": rows, "links": map[string]any{"self": c.r.URL.String(), "next": nil, "prev": nil}})
}

// start takes a job, unless one profile is not valid: then none is taken.
func (k *klaviyo) start(c *conversation, t *table) {
	profiles := list(sub(c.object(), "data", "attributes", "profiles")["data"])
	switch {
	case len(profiles) == 0 || len(profiles) > 10000:
		k.fail(c, 400, "invalid", "Between 1 and 10000 profiles are needed.", "/data/attributes/profiles/data")
		return
	case len(c.raw) > 5_000_000:
		k.fail(c, 413, "payload_too_large", "The payload may not exceed 5 MB.", "/data")
		return
	}
	var errs []any
	for i, one := range profiles {
		m, _ := one.(map[string]any)
		if _, wrong, at := k.fields(t, sub(m, "attributes"), fmt.Sprintf("/data/attributes/profiles/data/%d", i)); wrong != "" {
			errs = append(errs, k.error(c, 400, "invalid", wrong, at))
		}
	}
	if len(errs) > 0 {
		c.json(400, map[string]any{"errors": errs})
		return
	}
	id := k.s.newID("job-")
	k.jobs[id] = &profileJob{profiles: profiles}
	c.json(202, map[string]any{"data": k.job(id, k.jobs[id])})
}

func (k *klaviyo) job(id string, j *profileJob) map[string]any {
	status := []string{"queued", "processing", "complete"}[min(j.looks, 2)]
	return map[string]any{"type": "profile-bulk-import-job", "id": id, "links": map[string]any{"self": "https://a.klaviyo.com/api/profile-bulk-import-jobs/" + id},
		"attributes": map[string]any{"status": status, "created_at": stamp(k.s.o.Now()), "total_count": len(j.profiles), "completed_count": j.done,
			"failed_count": len(j.errors), "started_at": nil, "completed_at": nil, "expires_at": nil}}
}

// look shows a job, which moves on by one state with every look; its work is
// done with the second.
func (k *klaviyo) look(c *conversation, t *table, id string, failures bool) {
	j := k.jobs[id]
	if j == nil {
		k.fail(c, 404, "not_found", "The job does not exist.", "/data/id")
		return
	}
	if failures {
		size, from := 20, 0
		if n, err := strconv.Atoi(c.r.URL.Query().Get("page[cursor]")); err == nil && n > 0 {
			from = n
		}
		to := min(from+size, len(j.errors))
		links := map[string]any{"self": c.r.URL.Path, "next": nil, "prev": nil}
		if to < len(j.errors) {
			links["next"] = origin(c.r) + c.r.URL.Path + "?page[cursor]=" + strconv.Itoa(to)
		}
		c.json(200, map[string]any{"data": append([]any{}, j.errors[min(from, to):to]...), "links": links})
		return
	}
	if j.looks++; j.looks == 2 {
		for i, one := range j.profiles {
			fields, _, _ := k.fields(t, sub(one.(map[string]any), "attributes"), "")
			r := k.identify(t, fields)
			at := ""
			if r != nil {
				at = r.ID
			}
			if _, other := t.conflict(at, fields); other != nil || fields["email"]+fields["phone_number"]+fields["external_id"] == "" {
				j.errors = append(j.errors, map[string]any{"type": "import-error", "id": strconv.Itoa(i), "attributes": map[string]any{"code": "duplicate_profile", "title": "Conflict",
					"detail": "The identifiers belong to different profiles.", "source": map[string]any{"pointer": fmt.Sprintf("/data/attributes/profiles/data/%d", i)}}})
				continue
			}
			if r == nil {
				at = k.s.newID("01KLV")
			}
			k.s.put(t, at, fields)
			j.done++
		}
	}
	c.json(200, map[string]any{"data": k.job(id, j)})
}
