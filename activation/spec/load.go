package spec

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"go.yaml.in/yaml/v3"
)

//go:embed *.yaml
var files embed.FS

// Names returns the destinations that come with the program.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil // an embedded folder can always be read
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Load returns the spec of a destination that comes with the program.
func Load(name string) (*Spec, error) {
	text, err := files.ReadFile(name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("no destination %q, known are %s", name, strings.Join(Names(), ", "))
	}
	return Parse(text, name+".yaml")
}

// maxSpecBytes bounds a spec that a user wrote.
const maxSpecBytes = 1 << 20

// Parse reads and checks a spec: unknown settings, templates, expressions and
// patterns are refused here and never while data flows. file is named in
// errors.
func Parse(text []byte, file string) (*Spec, error) {
	if len(text) > maxSpecBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes", file, maxSpecBytes)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	s := &Spec{}
	if err := dec.Decode(s); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := s.compile(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// compiler collects what is wrong with a spec.
type compiler struct {
	env  *cel.Env
	errs []error
}

func (c *compiler) add(place string, err error) {
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("%s: %w", place, err))
	}
}

func (c *compiler) condition(place, text string) *expression {
	return c.expression(place, text, false)
}

func (c *compiler) expression(place, text string, asText bool) *expression {
	if text == "" {
		return nil
	}
	e, err := compile(c.env, text, asText)
	c.add(place, err)
	return e
}

func (c *compiler) pattern(place, text string, groups int) *regexp.Regexp {
	if text == "" {
		return nil
	}
	re, err := regexp.Compile(text)
	if err == nil && re.NumSubexp() < groups {
		err = fmt.Errorf("pattern %q needs %d groups", text, groups)
	}
	c.add(place, err)
	return re
}

func (c *compiler) template(place string, y *yaml.Node) node {
	n, err := parseNode(y)
	c.add(place, err)
	return n
}

func (c *compiler) path(place, path string) {
	for _, part := range regexp.MustCompile(`\{([^}]*)\}`).FindAllStringSubmatch(path, -1) {
		if !slices.Contains(placeholders, part[1]) {
			c.add(place, fmt.Errorf("unknown placeholder {%s}, known are {%s}", part[1], strings.Join(placeholders, "}, {")))
		}
	}
}

func (c *compiler) oneOf(place, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		c.add(place, fmt.Errorf("%q is none of %s", value, strings.Join(allowed, ", ")))
	}
}

// compile checks the spec and prepares all that is evaluated later.
func (s *Spec) compile() error {
	env, err := newEnvironment()
	if err != nil {
		return err
	}
	c := &compiler{env: env}
	c.oneOf("kind", s.Kind, "destination")
	if s.Name == "" {
		c.add("name", errors.New("is missing"))
	}
	if s.API.Sunset != "" {
		_, err := time.Parse(time.DateOnly, s.API.Sunset)
		c.add("api.sunset", err)
	}
	for i := range s.Auth {
		c.oneOf(fmt.Sprintf("auth[%d].type", i), s.Auth[i].Type, "none", "bearer", "header", "basic", "oauth2_refresh", "oauth2_client", "jwt_bearer")
	}
	for i, w := range s.Limits.Windows {
		if w.Name == "" || w.Requests <= 0 || w.Per <= 0 {
			c.add(fmt.Sprintf("limits.windows[%d]", i), errors.New("name, requests and per are needed"))
		}
	}
	for i := range s.Limits.Headers {
		h := &s.Limits.Headers[i]
		h.pattern = c.pattern(fmt.Sprintf("limits.headers[%d].pattern", i), h.Pattern, 2)
	}
	c.rules("classify", s.Classify)
	c.rules("rows", s.Rows)
	for name, o := range s.Objects {
		c.object("objects."+name, o)
	}
	if len(s.Objects) == 0 {
		c.add("objects", errors.New("is empty"))
	}
	s.Shared = yaml.Node{}
	return errors.Join(c.errs...)
}

func (c *compiler) rules(place string, rules []*Rule) {
	for i, r := range rules {
		at := fmt.Sprintf("%s[%d]", place, i)
		r.when = c.condition(at+".when", r.When)
		if r.when == nil && r.When == "" {
			c.add(at+".when", errors.New("is missing"))
		}
		c.oneOf(at+".do", r.Do, verdicts...)
	}
}

func (c *compiler) object(place string, o *Object) {
	if o == nil {
		c.add(place, errors.New("is empty"))
		return
	}
	if o.Values == "" {
		o.Values = "json"
	}
	c.oneOf(place+".values", o.Values, "json", "text")
	o.clear = []byte("null")
	if o.Clear != "" {
		if o.clear = []byte(o.Clear); !json.Valid(o.clear) {
			c.add(place+".clear", fmt.Errorf("%q is no JSON", o.Clear))
		}
	}
	for i := range o.Properties {
		p := &o.Properties[i]
		if p.Type == "" {
			p.Type = "text"
		}
		c.oneOf(fmt.Sprintf("%s.properties[%d].type", place, i), p.Type, propertyTypes...)
	}
	if d := o.Discover; d != nil {
		c.path(place+".discover.path", d.Path)
		d.required, d.prefix = c.condition(place+".discover.required", d.Required), c.expression(place+".discover.prefix", d.Prefix, true)
	}
	o.operations, o.bulk = nil, nil
	for name, actions := range o.Operations {
		op, ok := operationByName[name]
		if !ok {
			c.add(place+".operations", fmt.Errorf("unknown operation %q", name))
		}
		if o.operations == nil {
			o.operations = map[operation][]*Action{}
		}
		o.operations[op] = actions
		for i, a := range actions {
			c.action(fmt.Sprintf("%s.operations.%s[%d]", place, name, i), a)
		}
	}
	for name, a := range o.Bulk {
		op, ok := operationByName[name]
		if !ok || a == nil || a.Job == nil {
			c.add(place+".bulk."+name, errors.New("is no operation with a job"))
			continue
		}
		if o.bulk == nil {
			o.bulk = map[operation]*Action{}
		}
		o.bulk[op] = a
		c.action(place+".bulk."+name, a)
	}
	for i, l := range o.Lookups {
		c.lookup(fmt.Sprintf("%s.lookups[%d]", place, i), l)
	}
	if r := o.References; r != nil {
		for name, a := range map[string]*Action{"add": r.Add, "plain": r.Plain, "remove": r.Remove} {
			if a != nil {
				c.action(place+".references."+name, a)
			}
		}
	}
}

func (c *compiler) action(place string, a *Action) {
	if a == nil {
		c.add(place, errors.New("is empty"))
		return
	}
	c.oneOf(place+".driver", a.Driver, "json_batch", "json_single", "form", "job_csv", "job_json")
	c.oneOf(place+".needs", a.Needs, "", "id", "match")
	c.path(place+".path", a.Path)
	if a.Method == "" {
		a.Method = "POST"
	}
	a.item, a.body = c.template(place+".item", &a.Item), c.template(place+".body", &a.Body)
	r := &a.Response
	if len(r.OK) == 0 {
		r.OK = []int{200, 201, 202, 204}
	}
	if r.Unnamed == "" {
		r.Unnamed = "unknown"
	}
	c.oneOf(place+".response.unnamed", r.Unnamed, "unknown", "applied")
	c.rows(place+".response.applied", r.Applied)
	c.rows(place+".response.rejected", r.Rejected)
	c.rows(place+".response.refused", r.Refused)
	if strings.ContainsAny(r.Created, "=!<>( ") {
		r.created = c.condition(place+".response.created", r.Created)
	}
	if r.Conflict != nil {
		r.Conflict.pattern = c.pattern(place+".response.conflict.pattern", r.Conflict.Pattern, 1)
	}
	if strings.HasPrefix(a.Driver, "job_") != (a.Job != nil) {
		c.add(place+".job", errors.New("belongs to job_csv and job_json, and to them alone"))
	}
	if a.Job != nil {
		c.job(place+".job", a.Job, a.Driver)
	}
}

func (c *compiler) rows(place string, r *Rows) {
	if r == nil {
		return
	}
	c.oneOf(place+".by", r.By, "trace_id", "index", "order", "key_value")
	if r.By != "order" && len(r.At) == 0 {
		c.add(place+".at", errors.New("is needed to correlate by "+r.By))
	}
	r.when, r.pattern = c.condition(place+".when", r.When), c.pattern(place+".pattern", r.Pattern, 1)
	c.rows(place+".else", r.Else)
}

func (c *compiler) job(place string, j *Job, driver string) {
	steps := map[string]*Step{"create": j.Create, "upload": j.Upload, "close": j.Close, "abort": j.Abort, "poll": j.Poll}
	if j.Results == nil {
		c.add(place+".results", errors.New("is missing"))
		j.Results = &JobResults{}
	}
	steps["results.applied"], steps["results.rejected"], steps["results.unprocessed"] = j.Results.Applied, j.Results.Rejected, j.Results.Unprocessed
	needed := []string{"create", "poll", "results.rejected"}
	if driver == "job_csv" {
		needed = append(needed, "upload", "close", "results.applied", "results.unprocessed")
	}
	for _, name := range needed {
		if steps[name] == nil {
			c.add(place+"."+name, errors.New("is missing"))
		}
	}
	for name, s := range steps {
		if s == nil {
			continue
		}
		c.path(place+"."+name+".path", s.Path)
		if s.Method == "" {
			s.Method = "GET"
		}
		s.body = c.template(place+"."+name+".body", &s.Body)
	}
	c.rows(place+".results.rows", j.Results.Rows)
	if j.ID == "" || j.State == "" || len(j.Done) == 0 {
		c.add(place, errors.New("id, state and done are needed"))
	}
}

func (c *compiler) lookup(place string, l *Lookup) {
	c.path(place+".path", l.Path)
	if l.Method == "" {
		l.Method = "GET"
	}
	if l.Items == 0 {
		l.Items = 1
	}
	if len(l.OK) == 0 {
		l.OK = []int{200}
	}
	l.item, l.body = c.template(place+".item", &l.Item), c.template(place+".body", &l.Body)
}
