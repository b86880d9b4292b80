package destinationtest

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

// salesforce is the REST API: describe, records, collections, queries of one
// object, and Bulk 2.0.
type salesforce struct {
	s    *Simulator
	jobs map[string]*ingest
	n    int
}

// ingest is a Bulk 2.0 job.
type ingest struct {
	id, object, operation, external, state string
	data                                   []byte
	done, failed, left                     [][]string
}

func newSalesforce(s *Simulator) *salesforce {
	own := func(more ...delivery.Property) []delivery.Property {
		return append(more, delivery.Property{Name: "Id", ReadOnly: true}, delivery.Property{Name: "CreatedDate", Type: "datetime", ReadOnly: true},
			delivery.Property{Name: "Ext__c", MaxBytes: 255}, delivery.Property{Name: "Seq__c", Type: "number"}, delivery.Property{Name: "Note__c", MaxBytes: 255})
	}
	person := []delivery.Property{{Name: "LastName", Required: true, MaxBytes: 80}, {Name: "FirstName", MaxBytes: 40}, {Name: "Email", MaxBytes: 80},
		{Name: "Phone", MaxBytes: 40}, {Name: "Title", MaxBytes: 128}, {Name: "AccountId"}, {Name: "Vip__c", Type: "bool"},
		{Name: "Tier__c", Type: "enum", Values: []string{"gold", "silver"}}}
	s.table("Contact", []string{"Ext__c"}, own(person...)...).fold = true
	s.table("Lead", []string{"Ext__c"}, own(append(slices.Clone(person), delivery.Property{Name: "Company"})...)...).fold = true
	s.table("Account", []string{"Ext__c"}, own(delivery.Property{Name: "Name", Required: true, MaxBytes: 255}, delivery.Property{Name: "Industry"})...).fold = true
	return &salesforce{s: s, jobs: map[string]*ingest{}}
}

func (f *salesforce) newID(t *table) string {
	f.n++
	prefix := map[string]string{"Contact": "003", "Account": "001", "Lead": "00Q"}[t.name]
	return fmt.Sprintf("%s5g0000%06dAAA", prefix, f.n)
}

func (f *salesforce) authorised(c *conversation) bool {
	return c.bearer() || c.r.URL.Path == "/services/data"
}

func (f *salesforce) announce(c *conversation, _, _ int, _ time.Duration, leftToday, today int) {
	c.header.Set("Sforce-Limit-Info", fmt.Sprintf("api-usage=%d/%d", today-leftToday, today))
}

func (f *salesforce) fail(c *conversation, status int, code, message string) {
	c.json(status, []any{map[string]any{"errorCode": code, "message": message}})
}

func (f *salesforce) refuse(c *conversation, status int, _ bool) {
	switch status {
	case 401:
		f.fail(c, 401, "INVALID_SESSION_ID", "Session expired or invalid")
	case 429:
		c.header.Del("Retry-After")
		f.fail(c, 403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
	default:
		f.fail(c, status, "SERVER_UNAVAILABLE", "The server is temporarily unavailable")
	}
}

func (f *salesforce) serve(c *conversation) {
	p := c.path
	if len(p) == 2 {
		c.json(200, []any{map[string]any{"label": "Spring '26", "url": "/services/data/v66.0", "version": "66.0"}})
		return
	}
	if len(p) < 4 || p[0] != "services" || p[1] != "data" {
		f.fail(c, 404, "NOT_FOUND", "The requested resource does not exist")
		return
	}
	switch rest := p[3:]; {
	case rest[0] == "limits":
		c.json(200, map[string]any{"DailyApiRequests": map[string]any{"Max": f.s.quota.today, "Remaining": f.s.quota.leftToday()}})
	case rest[0] == "query":
		f.query(c)
	case len(rest) == 1 && rest[0] == "sobjects":
		all := []any{}
		for _, n := range sortedKeys(f.s.tables) {
			all = append(all, map[string]any{"name": n, "label": n, "createable": true, "updateable": true, "queryable": true})
		}
		c.json(200, map[string]any{"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": all})
	case rest[0] == "sobjects":
		f.sobject(c, rest[1:])
	case len(rest) >= 2 && rest[0] == "composite" && rest[1] == "sobjects":
		f.collection(c, rest[2:])
	case len(rest) >= 2 && rest[0] == "jobs" && rest[1] == "ingest":
		f.ingest(c, rest[2:])
	default:
		f.fail(c, 404, "NOT_FOUND", "The requested resource does not exist")
	}
}

func (f *salesforce) lookup(name string) *table {
	for _, t := range f.s.tables {
		if strings.EqualFold(t.name, name) {
			return t
		}
	}
	return nil
}

func (f *salesforce) describe(t *table) map[string]any {
	fields := []any{}
	for _, n := range sortedKeys(t.fields) {
		p := t.fields[n]
		kind := map[string]string{"text": "string", "number": "double", "bool": "boolean", "date": "date", "datetime": "datetime", "enum": "picklist"}[p.Type]
		values := []any{}
		for _, v := range p.Values {
			values = append(values, map[string]any{"value": v, "label": v, "active": true})
		}
		external := slices.Contains(t.unique, n)
		fields = append(fields, map[string]any{"name": n, "label": n, "type": kind, "custom": strings.HasSuffix(n, "__c"), "createable": !p.ReadOnly, "updateable": !p.ReadOnly, "nillable": !p.Required && n != "Id",
			"defaultedOnCreate": p.ReadOnly, "externalId": external, "unique": external, "idLookup": external || n == "Id", "byteLength": p.MaxBytes * 3, "length": p.MaxBytes, "picklistValues": values})
	}
	return map[string]any{"name": t.name, "label": t.label, "createable": true, "updateable": true, "fields": fields}
}

// save checks and carries out one record.
func (f *salesforce) save(t *table, id, external string, in map[string]any, op string) (*Record, bool, *rowError) {
	if f.s.faults.hits(f.s.faults.f.Lock) {
		return nil, false, &rowError{"UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record or 1 records: " + id, nil}
	}
	props := map[string]string{}
	for k, v := range in {
		if k == "attributes" || strings.EqualFold(k, "id") {
			continue
		}
		if m, nested := v.(map[string]any); nested { // relationship by external id
			target, field := f.lookup(k), ""
			for ext := range m {
				if ext != "attributes" {
					field = ext
				}
			}
			var r *Record
			if target != nil {
				r = target.find(field, str(m[field]))
			}
			if r == nil {
				return nil, false, &rowError{"INVALID_FIELD", fmt.Sprintf("Foreign key external ID: %s not found for field %s in entity %s", str(m[field]), field, k), nil}
			}
			props[k+"Id"] = r.ID
			continue
		}
		if _, isText := v.(string); v != nil && isText && kindOf(t, k) == "number" && op != "csv" {
			return nil, false, &rowError{"JSON_PARSER_ERROR", fmt.Sprintf("Cannot deserialize instance of double from VALUE_STRING value %s", str(v)), nil}
		}
		if wrong := t.check(k, str(v)); wrong != "" {
			code := map[string]string{"unknown": "INVALID_FIELD", "read_only": "INVALID_FIELD_FOR_INSERT_UPDATE", "enum": "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
				"email": "INVALID_EMAIL_ADDRESS", "length": "STRING_TOO_LONG", "type": "INVALID_TYPE_ON_FIELD_IN_RECORD"}[wrong]
			return nil, false, &rowError{code, fmt.Sprintf("%s: %s", k, str(v)), nil}
		}
		props[k] = str(v)
	}
	var r *Record
	switch {
	case id != "":
		if r = t.records[id]; r == nil {
			return nil, false, &rowError{"NOT_FOUND", "The requested resource does not exist", nil}
		}
		if r.Archived {
			return nil, false, &rowError{"ENTITY_IS_DELETED", "entity is deleted", nil}
		}
	case external != "":
		if props[external] == "" {
			return nil, false, &rowError{"MISSING_ARGUMENT", external + " not specified", nil}
		}
		r = t.find(external, props[external])
	}
	at, created := "", false
	if r != nil {
		at = r.ID
	}
	for n, p := range t.fields {
		v, given := props[n]
		if p.Required && (r == nil && v == "" || given && v == "") {
			return nil, false, &rowError{"REQUIRED_FIELD_MISSING", "Required fields are missing: [" + n + "]", nil}
		}
	}
	if field, other := t.conflict(at, props); other != nil {
		return nil, false, &rowError{"DUPLICATE_VALUE", fmt.Sprintf("duplicate value found: %s duplicates value on record with id: %s", field, other.ID), nil}
	}
	if r == nil {
		at, created = f.newID(t), true
	}
	return f.s.put(t, at, props), created, nil
}

// sobject is describe and the records one by one.
func (f *salesforce) sobject(c *conversation, p []string) {
	t := f.lookup(p[0])
	if t == nil {
		f.fail(c, 404, "NOT_FOUND", "The requested resource does not exist")
		return
	}
	id, external := "", ""
	switch {
	case len(p) == 2 && p[1] == "describe":
		c.json(200, f.describe(t))
		return
	case len(p) == 2:
		id = p[1]
	case len(p) == 3:
		external = p[1]
		if r := t.find(external, p[2]); r != nil {
			id = r.ID
		}
	}
	switch c.r.Method {
	case "POST", "PATCH":
		in := c.object()
		if external != "" {
			in[external] = p[2]
		}
		r, created, e := f.save(t, id, external, in, "json")
		switch {
		case e != nil && (e.category == "NOT_FOUND" || e.category == "ENTITY_IS_DELETED"):
			f.fail(c, 404, e.category, e.message)
		case e != nil:
			f.fail(c, 400, e.category, e.message)
		case c.r.Method == "POST" || created:
			c.json(201, map[string]any{"id": r.ID, "success": true, "errors": []any{}, "created": created})
		default:
			c.status = 204
		}
	case "DELETE", "GET":
		r := t.get(id)
		if r == nil {
			f.fail(c, 404, "NOT_FOUND", "The requested resource does not exist")
			return
		}
		if c.r.Method == "GET" {
			c.json(200, f.show(t, r, sortedKeys(t.fields)))
			return
		}
		f.s.remove(t, r)
		c.status = 204
	default:
		f.fail(c, 405, "METHOD_NOT_ALLOWED", "HTTP method not allowed")
	}
}

func (f *salesforce) show(t *table, r *Record, names []string) map[string]any {
	out := map[string]any{"attributes": map[string]any{"type": t.name, "url": "/services/data/v66.0/sobjects/" + t.name + "/" + r.ID}}
	for _, n := range names {
		out[n] = typed(kindOf(t, n), r.Fields[n])
		switch n {
		case "Id":
			out[n] = r.ID
		case "CreatedDate":
			out[n] = stamp(r.Created)
		}
	}
	return out
}

// typed is the JSON value of a text.
func typed(kind, v string) any {
	switch {
	case v == "":
		return nil
	case kind == "number":
		n, err := strconv.ParseFloat(v, 64)
		if err == nil {
			return n
		}
	case kind == "bool":
		return v == "true"
	}
	return v
}

// collection is up to 200 records, with an answer row for each, in order.
func (f *salesforce) collection(c *conversation, p []string) {
	if c.r.Method == "DELETE" {
		ids := strings.Split(c.r.URL.Query().Get("ids"), ",")
		if len(ids) > 200 {
			f.fail(c, 400, "EXCEEDED_ID_LIMIT", "record limit reached. cannot submit more than 200 records in this request")
			return
		}
		out := []any{}
		for _, id := range ids {
			var t *table
			for _, one := range f.s.tables {
				if one.records[id] != nil {
					t = one
				}
			}
			if t == nil || t.get(id) == nil {
				out = append(out, failedRow(&rowError{"ENTITY_IS_DELETED", "entity is deleted", nil}))
				continue
			}
			f.s.remove(t, t.get(id))
			out = append(out, map[string]any{"id": id, "success": true, "errors": []any{}})
		}
		c.json(200, out)
		return
	}
	records := list(c.object()["records"])
	if len(records) == 0 || len(records) > 200 {
		f.fail(c, 400, "INVALID_INPUT", "record limit reached. cannot submit more than 200 records in this request")
		return
	}
	external, only := "", ""
	if len(p) == 2 {
		only, external = p[0], p[1]
		if t := f.lookup(only); t == nil || !slices.Contains(t.unique, external) {
			f.fail(c, 400, "INVALID_FIELD", "Field name provided, "+external+" is not an External ID or indexed field for "+only)
			return
		}
	}
	if code, message := f.malformed(records); code != "" {
		f.fail(c, 400, code, message)
		return
	}
	counts := map[string]int{}
	for _, r := range records {
		counts[strings.ToLower(str(r.(map[string]any)[external]))]++
	}
	out := []any{}
	for _, one := range records {
		m := one.(map[string]any)
		t := f.lookup(str(sub(m, "attributes")["type"]))
		id := str(m["id"])
		if id == "" {
			id = str(m["Id"])
		}
		var e *rowError
		var r *Record
		created := false
		switch {
		case external != "" && id != "":
			e = &rowError{"INVALID_FIELD_FOR_INSERT_UPDATE", "cannot specify Id in an upsert", nil}
		case external != "" && counts[strings.ToLower(str(m[external]))] > 1:
			e = &rowError{"DUPLICATE_VALUE", "Duplicate external id specified: " + str(m[external]), nil}
		case c.r.Method == "PATCH" && external == "" && id == "":
			e = &rowError{"MISSING_ARGUMENT", "Id not specified in an update call", nil}
		default:
			r, created, e = f.save(t, id, external, m, "json")
		}
		if e != nil {
			out = append(out, failedRow(e))
			continue
		}
		row := map[string]any{"id": r.ID, "success": true, "errors": []any{}}
		if external != "" {
			row["created"] = created
		}
		out = append(out, row)
	}
	c.json(200, out)
}

// malformed finds what makes the vendor refuse the whole request.
func (f *salesforce) malformed(records []any) (code, message string) {
	for _, one := range records {
		m, ok := one.(map[string]any)
		t := f.lookup(str(sub(m, "attributes")["type"]))
		if !ok || t == nil {
			return "INVALID_TYPE", "sObject type is not supported"
		}
		for k, v := range m {
			if _, nested := v.(map[string]any); !nested && !strings.EqualFold(k, "id") && t.property(k) == nil {
				return "INVALID_FIELD", fmt.Sprintf("No such column '%s' on sobject of type %s", k, t.name)
			}
		}
	}
	return "", ""
}

func failedRow(e *rowError) map[string]any {
	return map[string]any{"success": false, "errors": []any{map[string]any{"statusCode": e.category, "message": e.message, "fields": []any{}}}}
}

var soql = regexp.MustCompile(`(?is)^\s*SELECT\s+(.+?)\s+FROM\s+(\w+)(?:\s+WHERE\s+(\w+)\s*(?:IN\s*\((.*)\)|=\s*('(?:[^'\\]|\\.)*')))?(?:\s+LIMIT\s+\d+)?\s*$`)

var soqlText = regexp.MustCompile(`'((?:[^'\\]|\\.)*)'`)

// query knows SELECT … FROM one object WHERE field IN (…) or = '…'.
func (f *salesforce) query(c *conversation) {
	m := soql.FindStringSubmatch(c.r.URL.Query().Get("q"))
	if m == nil {
		f.fail(c, 400, "MALFORMED_QUERY", "unexpected token")
		return
	}
	t := f.lookup(m[2])
	if t == nil {
		f.fail(c, 400, "INVALID_TYPE", "sObject type '"+m[2]+"' is not supported")
		return
	}
	var names []string
	for _, n := range strings.Split(m[1], ",") {
		n = strings.TrimSpace(n)
		if t.property(n) == nil || slices.Contains(names, n) {
			f.fail(c, 400, "INVALID_FIELD", "No such column, or duplicate, '"+n+"'")
			return
		}
		names = append(names, n)
	}
	wanted := map[string]bool{}
	for _, v := range soqlText.FindAllStringSubmatch(m[4]+m[5], -1) {
		wanted[t.norm(strings.NewReplacer(`\'`, `'`, `\\`, `\`).Replace(v[1]))] = true
	}
	rows := []any{}
	for _, id := range t.order {
		r := t.get(id)
		if r == nil {
			continue
		}
		v := r.Fields[m[3]]
		if m[3] == "Id" {
			v = r.ID
		}
		if m[3] == "" || wanted[t.norm(v)] {
			rows = append(rows, f.show(t, r, names))
		}
	}
	c.json(200, map[string]any{"totalSize": len(rows), "done": true, "records": rows})
}

// ingest is Bulk 2.0.
func (f *salesforce) ingest(c *conversation, p []string) {
	if len(p) == 0 {
		f.createJob(c)
		return
	}
	j := f.jobs[p[0]]
	if j == nil {
		f.fail(c, 404, "NOT_FOUND", "The requested resource does not exist")
		return
	}
	if len(p) == 1 {
		f.job(c, j)
		return
	}
	header := []string{"sf__Id", "sf__Created"}
	switch strings.ToLower(p[1]) {
	case "batches":
		if c.r.Method != "PUT" || j.state != "Open" || j.data != nil {
			f.fail(c, 400, "INVALIDJOBSTATE", "Uploading to the job is not allowed in its state")
			return
		}
		if !strings.HasPrefix(c.r.Header.Get("Content-Type"), "text/csv") {
			f.fail(c, 400, "InvalidBatch", "Content-Type is not text/csv")
			return
		}
		j.data = c.raw
		c.status = 201
	case "successfulresults":
		f.table(c, header, j, j.done)
	case "failedresults":
		f.table(c, []string{"sf__Id", "sf__Error"}, j, j.failed)
	case "unprocessedrecords":
		f.table(c, nil, j, j.left)
	default:
		f.fail(c, 404, "NOT_FOUND", "The requested resource does not exist")
	}
}

func (f *salesforce) createJob(c *conversation) {
	in := c.object()
	if c.r.Method == "GET" {
		all := []any{}
		for _, id := range sortedKeys(f.jobs) {
			all = append(all, f.jobs[id].info())
		}
		c.json(200, map[string]any{"done": true, "records": all})
		return
	}
	t := f.lookup(str(in["object"]))
	op, external := str(in["operation"]), str(in["externalIdFieldName"])
	switch {
	case t == nil:
		f.fail(c, 400, "INVALIDENTITY", "Entity is not supported")
		return
	case !slices.Contains([]string{"insert", "update", "upsert", "delete", "hardDelete"}, op):
		f.fail(c, 400, "API_ERROR", "Invalid operation")
		return
	case op == "upsert" && !slices.Contains(t.unique, external):
		f.fail(c, 400, "INVALIDJOB", "InvalidJob : Field name not found : "+external)
		return
	}
	f.n++
	j := &ingest{id: fmt.Sprintf("7505g0000%06dAAA", f.n), object: t.name, operation: op, external: external, state: "Open"}
	f.jobs[j.id] = j
	c.json(200, j.info())
}

func (j *ingest) info() map[string]any {
	return map[string]any{"id": j.id, "object": j.object, "operation": j.operation, "state": j.state, "externalIdFieldName": j.external, "contentType": "CSV",
		"apiVersion": 66.0, "lineEnding": "LF", "columnDelimiter": "COMMA", "concurrencyMode": "Parallel", "contentUrl": "services/data/v66.0/jobs/ingest/" + j.id + "/batches",
		"numberRecordsProcessed": len(j.done) + len(j.failed), "numberRecordsFailed": len(j.failed), "createdById": "0055g000000000001AAA", "createdDate": stamp(time.Unix(0, 0)),
		"systemModstamp": stamp(time.Unix(0, 0)), "jobType": "V2Ingest"}
}

// job shows or changes the state. A started job is in progress at the first
// look and done at the second.
func (f *salesforce) job(c *conversation, j *ingest) {
	switch c.r.Method {
	case "PATCH":
		want := str(c.object()["state"])
		if j.state != "Open" && !(want == "Aborted" && j.state == "InProgress") || want == "UploadComplete" && j.data == nil {
			f.fail(c, 400, "INVALIDJOBSTATE", "The job's state cannot be changed to "+want)
			return
		}
		j.state = want
	case "DELETE":
		delete(f.jobs, j.id)
		c.status = 204
		return
	default:
		switch j.state {
		case "UploadComplete":
			j.state = "InProgress"
		case "InProgress":
			f.work(j)
		}
	}
	c.json(200, j.info())
}

func (f *salesforce) work(j *ingest) {
	rows, err := csv.NewReader(bytes.NewReader(j.data)).ReadAll()
	if err != nil || len(rows) == 0 {
		j.state = "Failed"
		return
	}
	t, names, stop := f.lookup(j.object), rows[0], len(rows)
	j.state = "JobComplete"
	if f.s.faults.hits(f.s.faults.f.JobFails) {
		j.state, stop = "Failed", 1+(len(rows)-1)/2
	}
	for i, row := range rows[1:] {
		if i+1 >= stop {
			j.left = append(j.left, row)
			continue
		}
		in, id := map[string]any{}, ""
		for k, v := range row {
			switch {
			case strings.EqualFold(names[k], "id"):
				id = v
			case v == "#N/A":
				in[names[k]] = nil
			case v != "":
				if object, field, dotted := strings.Cut(names[k], "."); dotted {
					in[object] = map[string]any{field: v}
				} else {
					in[names[k]] = v
				}
			}
		}
		r, created, e := f.save(t, id, j.external, in, "csv")
		if e != nil {
			j.failed = append(j.failed, append([]string{id, e.category + ":" + e.message + ":--"}, row...))
			continue
		}
		j.done = append(j.done, append([]string{r.ID, strconv.FormatBool(created)}, row...))
	}
}

func (f *salesforce) table(c *conversation, header []string, j *ingest, rows [][]string) {
	if j.state != "JobComplete" && j.state != "Failed" && j.state != "Aborted" {
		f.fail(c, 400, "INVALIDJOBSTATE", "The job is not complete")
		return
	}
	names, err := csv.NewReader(bytes.NewReader(j.data)).Read()
	if err != nil {
		names = nil // aborted before anything was uploaded
	}
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	_ = w.Write(append(slices.Clone(header), names...)) // a buffer takes everything
	_ = w.WriteAll(rows)
	c.header.Set("Content-Type", "text/csv")
	c.status, c.out = 200, out.Bytes()
}
