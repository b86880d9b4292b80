// Package spec turns declared destinations, YAML data, into ones that deliver:
// what varies between vendors is data and a few pure expressions, what must be
// right everywhere is in five drivers.
package spec

import (
	"regexp"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-data/sluice/activation/delivery"
)

// Spec is a destination as data. Load and Parse return checked ones only;
// they are not changed afterwards.
type Spec struct {
	Kind     string             `yaml:"kind" doc:"always destination"`
	Name     string             `yaml:"name" doc:"of the destination: hubspot"`
	Label    string             `yaml:"label" doc:"for people: HubSpot"`
	API      API                `yaml:"api" doc:"the version of the vendor's API that is spoken"`
	BaseURL  string             `yaml:"base_url" doc:"where requests go unless the login names another place"`
	Auth     []Login            `yaml:"auth" doc:"the ways to log in, one of which is used"`
	Headers  map[string]string  `yaml:"headers" doc:"sent with every request"`
	Request  []string           `yaml:"request_id" doc:"headers, or paths in the body, that name the request: X-Request-Id, body.correlationId"`
	Limits   Limits             `yaml:"limits" doc:"what the vendor allows an account"`
	Classify []*Rule            `yaml:"classify" doc:"what an answer means; the first rule that holds counts, then the defaults"`
	Rows     []*Rule            `yaml:"rows" doc:"what the refusal of one record means; otherwise it is rejected"`
	Objects  map[string]*Object `yaml:"objects" doc:"by name; * stands for all others"`
	Shared   yaml.Node          `yaml:"shared" doc:"a place for anchors that the objects refer to"`
	Scopes   []string           `yaml:"scopes" doc:"what the login must be allowed to do"`
	Notes    []string           `yaml:"notes" doc:"sentences for the page of the destination"`
}

// API is the version of a vendor's API.
type API struct {
	Version  string `yaml:"version" doc:"{version} in paths and headers"`
	Sunset   string `yaml:"sunset" doc:"day from which the vendor no longer serves it: 2028-07-15"`
	Verified string `yaml:"verified" doc:"month in which the spec was compared with the vendor's documents: 2026-11"`
}

// Login is a way to authenticate.
type Login struct {
	Type        string `yaml:"type" doc:"bearer, header, basic, oauth2_refresh, oauth2_client or jwt_bearer"`
	Header      string `yaml:"header" doc:"header: the name, otherwise Authorization"`
	Prefix      string `yaml:"prefix" doc:"text before the secret"`
	TokenURL    string `yaml:"token_url" doc:"where tokens come from; a path is below the base URL"`
	Audience    string `yaml:"audience" doc:"jwt_bearer: for whom the assertion is"`
	InstanceURL bool   `yaml:"instance_url" doc:"the answer's instance_url replaces the base URL"`
}

// Limits are the quotas of an account.
type Limits struct {
	Windows []Window      `yaml:"windows" doc:"quotas; the first is the one of bursts"`
	Headers []QuotaHeader `yaml:"headers" doc:"headers that say what is left"`
}

// Window is a quota: at most Requests in any period of Per.
type Window struct {
	Name     string        `yaml:"name" doc:"of the quota; the name of an endpoint limits that endpoint alone"`
	Requests int           `yaml:"requests" doc:"calls"`
	Per      time.Duration `yaml:"per" doc:"in any period of this length"`
}

// QuotaHeader says how to read what is left of a quota.
type QuotaHeader struct {
	Quota     string        `yaml:"quota" doc:"the window it speaks of"`
	Remaining string        `yaml:"remaining" doc:"header: calls left"`
	Limit     string        `yaml:"limit" doc:"header: calls in all"`
	Reset     string        `yaml:"reset" doc:"header: when the window ends"`
	Unit      string        `yaml:"unit" doc:"of reset: seconds, milliseconds or epoch (seconds since 1970)"`
	Used      string        `yaml:"used" doc:"header with used and limit, found by pattern"`
	Pattern   string        `yaml:"pattern" doc:"two groups: used and limit"`
	Per       time.Duration `yaml:"per" doc:"the period where reset is not said"`
	pattern   *regexp.Regexp
}

// Object is a kind of record.
type Object struct {
	Label      string               `yaml:"label" doc:"for people"`
	Match      []string             `yaml:"match" doc:"fields that identify a record; * = any that the catalogue calls unique"`
	Fold       bool                 `yaml:"fold" doc:"the vendor compares the matching fields without regard to case"`
	Nested     bool                 `yaml:"nested" doc:"a dot in a field's name opens an object"`
	Values     string               `yaml:"values" doc:"json (as they are) or text (every value is a string)"`
	Join       string               `yaml:"join" doc:"text: separator between the values of a list"`
	Clear      string               `yaml:"clear" doc:"JSON that empties a field; null unless said"`
	Properties []Property           `yaml:"properties" doc:"the fields, where the vendor has no list of them; a name may end in *"`
	Discover   *Discover            `yaml:"discover" doc:"how the vendor lists the fields"`
	Operations map[string][]*Action `yaml:"operations" doc:"what can be done; of several ways the first that is possible"`
	Bulk       map[string]*Action   `yaml:"bulk" doc:"the vendor's jobs for many records"`
	Lookups    []*Lookup            `yaml:"lookups" doc:"how records are read"`
	References *References          `yaml:"references" doc:"how records are tied to others"`
	operations map[delivery.Operation][]*Action
	bulk       map[delivery.Operation]*Action
	clear      []byte
}

// Property is a field that the spec itself declares.
type Property struct {
	Name     string   `yaml:"name"`
	Type     string   `yaml:"type" doc:"text, number, bool, date, datetime, enum or json"`
	Required bool     `yaml:"required"`
	ReadOnly bool     `yaml:"read_only"`
	Values   []string `yaml:"values" doc:"of an enum"`
	MaxBytes int      `yaml:"max_bytes"`
}

// Discover says how a vendor lists the fields of an object.
type Discover struct {
	Path     string            `yaml:"path" doc:"GET; {object} is the object"`
	List     string            `yaml:"list" doc:"path of the list"`
	Name     string            `yaml:"name" doc:"path of a field's name"`
	Type     string            `yaml:"type" doc:"path of its type"`
	Types    map[string]string `yaml:"types" doc:"the vendor's type to ours; text otherwise"`
	Unique   []string          `yaml:"unique" doc:"paths, one of which is true where the field identifies a record"`
	ReadOnly []string          `yaml:"read_only" doc:"paths that are true where the field cannot be written; ! before a path negates it"`
	Required string            `yaml:"required" doc:"an expression over item"`
	Values   string            `yaml:"values" doc:"path of the list of an enum's values"`
	Value    string            `yaml:"value" doc:"path of the value in an element of values"`
	MaxBytes string            `yaml:"max_bytes" doc:"path of the greatest length"`
	Prefix   string            `yaml:"prefix" doc:"expression over item that gives text before the name"`
	required *expression
	prefix   *expression
}

// Action is one way to carry out an operation.
type Action struct {
	Driver      string            `yaml:"driver" doc:"json_batch, json_single, form, job_csv or job_json"`
	Needs       string            `yaml:"needs" doc:"id or match: what a change must have for this way"`
	Find        bool              `yaml:"find" doc:"look the record up by its match first; what is missing is skipped"`
	Method      string            `yaml:"method" doc:"POST unless said"`
	Path        string            `yaml:"path" doc:"may hold {object}, {version}, {match}, {value}, {id}, {ids}, {job}"`
	Endpoint    string            `yaml:"endpoint" doc:"the quota of its own that calls use up"`
	Headers     map[string]string `yaml:"headers"`
	Item        yaml.Node         `yaml:"item" doc:"a record in the body"`
	Body        yaml.Node         `yaml:"body" doc:"the body; $items is the list of records"`
	Batch       Batch             `yaml:"batch"`
	Idempotent  bool              `yaml:"idempotent" doc:"sending it again changes nothing more"`
	Idempotency string            `yaml:"idempotency" doc:"header for the key that makes a repeat harmless"`
	Replayed    string            `yaml:"replayed" doc:"header that marks the saved answer of an earlier attempt"`
	Response    Response          `yaml:"response"`
	Job         *Job              `yaml:"job" doc:"job_csv and job_json: the steps"`
	item, body  node
}

// Batch limits a request.
type Batch struct {
	Items  int  `yaml:"items" doc:"most records"`
	Bytes  int  `yaml:"bytes" doc:"most bytes of the body"`
	Unique bool `yaml:"unique" doc:"no two records may have the same match or id"`
}

// Response says how an answer speaks of the records of its request.
type Response struct {
	OK       []int     `yaml:"ok" doc:"statuses whose body is correlated"`
	Applied  *Rows     `yaml:"applied" doc:"records that the destination has"`
	Rejected *Rows     `yaml:"rejected" doc:"records that it refused"`
	Refused  *Rows     `yaml:"refused" doc:"of a refused batch: the culprits; the others are sent again"`
	Unnamed  string    `yaml:"unnamed" doc:"outcome of a record that the answer does not name: unknown, or applied where the vendor names failures only"`
	Counts   *Counts   `yaml:"counts" doc:"the answer holds numbers only"`
	ID       string    `yaml:"id" doc:"json_single and form: path of the record's id"`
	Created  string    `yaml:"created" doc:"json_single and form: path that is true, or expression over status and body, when the record is new"`
	Conflict *Conflict `yaml:"conflict" doc:"what to do when the record exists already"`
	created  *expression
}

// Rows finds the records that an answer names.
type Rows struct {
	Path    string   `yaml:"path" doc:"of the list; empty = the body is the list"`
	Status  []int    `yaml:"status" doc:"statuses it holds for; all of ok unless said"`
	By      string   `yaml:"by" doc:"trace_id, index, order or key_value"`
	At      []string `yaml:"at" doc:"path in a row of what it is correlated by; $match is the name of the matching field"`
	Pattern string   `yaml:"pattern" doc:"a group that finds the index or key in the text at that path"`
	When    string   `yaml:"when" doc:"expression over item: the rows that count"`
	ID      string   `yaml:"id" doc:"path of the destination's id"`
	Created string   `yaml:"created" doc:"path that is true when the record is new"`
	Code    string   `yaml:"code" doc:"path of the vendor's code"`
	Message string   `yaml:"message" doc:"path of the vendor's words"`
	Else    *Rows    `yaml:"else" doc:"tried for a row that cannot be correlated"`
	when    *expression
	pattern *regexp.Regexp
}

// Counts is an answer that holds numbers only: all records or nobody knows.
type Counts struct {
	Applied string `yaml:"applied" doc:"path of the number of records that were taken"`
	Failed  string `yaml:"failed" doc:"path of the number that was not"`
}

// Conflict says how a create that meets an existing record goes on: with an
// update of that one.
type Conflict struct {
	ID      string `yaml:"id" doc:"path of a text that names the existing record"`
	Pattern string `yaml:"pattern" doc:"a group that finds the id in it"`
	pattern *regexp.Regexp
}

// Job is the life of an asynchronous job.
type Job struct {
	Create  *Step       `yaml:"create" doc:"makes the job; job_json: with the records"`
	ID      string      `yaml:"id" doc:"path of its id in the answer"`
	Upload  *Step       `yaml:"upload" doc:"job_csv: takes the records"`
	Close   *Step       `yaml:"close" doc:"job_csv: starts the work"`
	Abort   *Step       `yaml:"abort" doc:"gives up a job that was not started"`
	Poll    *Step       `yaml:"poll"`
	State   string      `yaml:"state" doc:"path of the state in the answer of poll"`
	Open    []string    `yaml:"open" doc:"states of a job that will never be worked on unless it is closed"`
	Done    []string    `yaml:"done" doc:"states with results"`
	Failed  []string    `yaml:"failed" doc:"states with results and records that were not worked on"`
	Results *JobResults `yaml:"results"`
	Null    string      `yaml:"null" doc:"job_csv: cell that empties a field"`
}

// JobResults are the three lists of a finished job.
type JobResults struct {
	Applied     *Step  `yaml:"applied" doc:"job_csv: file of the records that were taken"`
	Rejected    *Step  `yaml:"rejected" doc:"records that were refused, a file or a list"`
	Unprocessed *Step  `yaml:"unprocessed" doc:"job_csv: file of the records that were not worked on: sent again"`
	ID          string `yaml:"id" doc:"job_csv: column of the destination's id"`
	Created     string `yaml:"created" doc:"job_csv: column that is true for a new record"`
	Error       string `yaml:"error" doc:"job_csv: column of code:words"`
	Rows        *Rows  `yaml:"rows" doc:"job_json: how rejected names records"`
	Total       string `yaml:"total" doc:"job_json: path, in the answer of poll, of the number of records"`
	Completed   string `yaml:"completed" doc:"job_json: path of the number taken"`
	Failed      string `yaml:"failed" doc:"job_json: path of the number refused"`
	Next        string `yaml:"next" doc:"job_json: path of the next page's address"`
}

// Step is one call of a job.
type Step struct {
	Method   string    `yaml:"method"`
	Path     string    `yaml:"path"`
	Endpoint string    `yaml:"endpoint"`
	Type     string    `yaml:"type" doc:"media type of the body"`
	Body     yaml.Node `yaml:"body"`
	body     node
}

// Lookup is one way to read records.
type Lookup struct {
	Match    []string  `yaml:"match" doc:"fields it works for; * = all, id = the destination's id"`
	Method   string    `yaml:"method" doc:"GET unless said"`
	Path     string    `yaml:"path" doc:"may hold {object}, {match}, {value}, {values}, {fields}"`
	Endpoint string    `yaml:"endpoint"`
	Item     yaml.Node `yaml:"item"`
	Body     yaml.Node `yaml:"body"`
	Items    int       `yaml:"items" doc:"most records of a call"`
	List     string    `yaml:"list" doc:"path of the records; empty = the body is the record"`
	At       string    `yaml:"at" doc:"path of the matching value in a record"`
	ID       string    `yaml:"id" doc:"path of its id"`
	Fields   string    `yaml:"fields" doc:"path of the object with its fields; empty = the record"`
	Missing  []int     `yaml:"missing" doc:"statuses that mean: there is none"`
	OK       []int     `yaml:"ok"`
	Lagging  bool      `yaml:"lagging" doc:"an index that runs behind: a miss proves nothing"`
	Quote    string    `yaml:"quote" doc:"how a value is written in {values}: soql"`
	item     node
	body     node
}

// References says how a record is tied to another one.
type References struct {
	Field  bool    `yaml:"field" doc:"the reference is a field that holds the other record's id"`
	Add    *Action `yaml:"add"`
	Plain  *Action `yaml:"plain" doc:"adds a reference without a type"`
	Remove *Action `yaml:"remove"`
}

// Rule says what an answer or a refused record means.
type Rule struct {
	When string        `yaml:"when" doc:"expression over status, body, headers, code, message, item and operation"`
	Do   string        `yaml:"do" doc:"applied, retry, throttle, throttle_daily, auth, config, reject, reject_batch, skip, exists or unknown"`
	Wait time.Duration `yaml:"wait" doc:"where the answer does not say how long"`
	Note string        `yaml:"note" doc:"for the page of the destination"`
	when *expression
}

// operationByName finds the operations of a spec.
var operationByName = map[string]delivery.Operation{"insert": delivery.Insert, "update": delivery.Update, "upsert": delivery.Upsert,
	"delete": delivery.Delete, "archive": delivery.Archive, "append": delivery.Append}

// Quotas returns what the vendor allows an account.
func (s *Spec) Quotas() []delivery.Quota {
	q := make([]delivery.Quota, 0, len(s.Limits.Windows))
	for _, w := range s.Limits.Windows {
		q = append(q, delivery.Quota{Name: w.Name, Requests: w.Requests, Window: w.Per})
	}
	return q
}

// Warnings says what about the spec will stop working, as of now: the vendor's
// end of the API version from half a year before.
func (s *Spec) Warnings(now time.Time) []string {
	if s.API.Sunset == "" {
		return nil
	}
	day, err := time.Parse(time.DateOnly, s.API.Sunset)
	if err != nil {
		return nil // Parse has refused it
	}
	switch left := day.Sub(now); {
	case left <= 0:
		return []string{s.Name + ": the vendor ended API version " + s.API.Version + " on " + s.API.Sunset + "; update sluice or its spec"}
	case left < 183*24*time.Hour:
		return []string{s.Name + ": the vendor ends API version " + s.API.Version + " on " + s.API.Sunset + "; update sluice or its spec before"}
	}
	return nil
}

// Object returns the declaration of the object called name, which may be the
// one for all others, or nil.
func (s *Spec) Object(name string) *Object {
	if o, ok := s.Objects[name]; ok && name != "*" {
		return o
	}
	return s.Objects["*"]
}
