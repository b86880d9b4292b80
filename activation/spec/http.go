package spec

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"

	"go.yaml.in/yaml/v3"
)

// HTTP are a user's settings for an API that no spec speaks of.
type HTTP struct {
	URL         string                `yaml:"url" doc:"where changes go; its path may hold {object}, {match}, {value} and {id}"`
	Method      string                `yaml:"method" doc:"POST unless said"`
	Headers     map[string]string     `yaml:"headers" doc:"sent with every request; secrets belong into auth"`
	Driver      string                `yaml:"driver" doc:"json_single (a request per change, the default), json_batch or form"`
	Item        yaml.Node             `yaml:"item" doc:"a change in the body, made of $id, $match.name, $match.value, $fields, $operation, $object and $idempotency"`
	Body        yaml.Node             `yaml:"body" doc:"json_batch: the body around $items; the list alone unless said"`
	Batch       Batch                 `yaml:"batch" doc:"json_batch: most records and bytes of a request"`
	Operations  map[string]HTTPRoute  `yaml:"operations" doc:"another method or address for an operation; naming some refuses the others"`
	Idempotency string                `yaml:"idempotency_header" doc:"header for a key that is the same for every attempt"`
	Response    Response              `yaml:"response" doc:"how an answer speaks of the records; a success is one for all unless said"`
	Classify    []*Rule               `yaml:"classify" doc:"what an answer means, before the usual meaning of its status"`
	Rows        []*Rule               `yaml:"rows" doc:"what the refusal of one record means"`
	Limits      []Window              `yaml:"limits" doc:"requests in a period"`
	Headroom    []QuotaHeader         `yaml:"limit_headers" doc:"headers that say what is left"`
	Lookup      *Lookup               `yaml:"lookup" doc:"how records are read, if they can be"`
	Nested      bool                  `yaml:"nested" doc:"a dot in a field's name opens an object"`
	Objects     map[string][]Property `yaml:"objects" doc:"the fields of each object, to check mappings against"`
}

// HTTPRoute is where one operation goes.
type HTTPRoute struct {
	Method string `yaml:"method" doc:"as above unless said"`
	URL    string `yaml:"url" doc:"as above unless said"`
}

// defaultItem is what a receiver gets if nothing else is asked for.
const defaultItem = `
type: $operation
object: $object
id: $idempotency
data: {id: $id, match: {field: $match.name, value: $match.value}, fields: $fields}
`

// Spec makes a spec of the settings. All its errors are a user's to mend.
func (h HTTP) Spec() (*Spec, error) {
	base, path, err := splitURL(h.URL)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	s := &Spec{Kind: "destination", Name: "http", Label: "HTTP", BaseURL: base, Headers: h.Headers, Classify: h.Classify, Rows: h.Rows,
		Request: []string{"X-Request-Id", "Request-Id"}, Limits: Limits{Windows: h.Limits, Headers: h.Headroom},
		Auth: []Login{{Type: "none"}, {Type: "bearer"}, {Type: "header"}, {Type: "basic"}, {Type: "oauth2_client"}, {Type: "oauth2_refresh"}}}
	if h.Driver == "" {
		h.Driver = "json_single"
	}
	if h.Driver != "json_single" && h.Driver != "json_batch" && h.Driver != "form" {
		return nil, fmt.Errorf("driver: %q is none of json_single, json_batch, form", h.Driver)
	}
	if h.Item.IsZero() {
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(defaultItem), &doc); err != nil {
			return nil, fmt.Errorf("item: %w", err)
		}
		h.Item = *doc.Content[0]
	}
	if h.Driver == "json_batch" {
		if h.Batch.Items == 0 {
			h.Batch.Items = 100
		}
		if h.Batch.Bytes == 0 {
			h.Batch.Bytes = 1 << 20
		}
		if h.Body.IsZero() {
			h.Body = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "$items"}
		}
		if h.Response.Applied == nil && h.Response.Rejected == nil && h.Response.Counts == nil && h.Response.Unnamed == "" {
			h.Response.Unnamed = "applied" // a receiver that knows no partial success
		}
	} else {
		h.Batch.Items = 1
	}
	routes := maps.Clone(h.Operations)
	if len(routes) == 0 {
		routes = map[string]HTTPRoute{}
		for name := range operationByName {
			routes[name] = HTTPRoute{}
		}
	}
	o := Object{Match: []string{"*"}, Nested: h.Nested, Operations: map[string][]*Action{}}
	if h.Lookup != nil {
		o.Lookups = []*Lookup{h.Lookup}
	}
	for name, r := range routes {
		a := &Action{Driver: h.Driver, Method: h.Method, Path: path, Item: h.Item, Body: h.Body, Batch: h.Batch, Idempotency: h.Idempotency, Response: h.Response}
		a.Idempotent = name != "append" && name != "insert" || h.Idempotency != ""
		if r.Method != "" {
			a.Method = r.Method
		}
		if r.URL != "" {
			other, at, err := splitURL(r.URL)
			if err != nil || other != base {
				return nil, fmt.Errorf("operations.%s.url: must be at %s", name, base)
			}
			a.Path = at
		}
		o.Operations[name] = []*Action{a}
	}
	s.Objects = map[string]*Object{}
	for name, properties := range h.Objects {
		one := o
		one.Properties = properties
		one.Match = nil
		for _, p := range properties {
			one.Match = append(one.Match, p.Name)
		}
		s.Objects[name] = &one
	}
	if len(h.Objects) == 0 {
		o.Properties = []Property{{Name: "*"}}
		s.Objects["*"] = &o
	}
	if err := s.compile(); err != nil {
		return nil, err
	}
	return s, nil
}

// splitURL separates the origin, to which credentials go, from what data may
// fill in.
func splitURL(text string) (base, path string, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return "", "", errors.New("not a URL of the form https://host/path")
	}
	base = u.Scheme + "://" + u.Host
	if len(text) < len(base) || text[:len(base)] != base || slices.ContainsFunc([]byte(u.Host), func(c byte) bool { return c == '{' || c == '}' }) {
		return "", "", errors.New("the host may hold no placeholder, and is written in lower case")
	}
	if path = text[len(base):]; path == "" {
		path = "/"
	}
	return base, path, nil
}
