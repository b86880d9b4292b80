// Package destinationtest holds stateful, strict simulators of the vendors that
// activation delivers to. The suite that every destination must pass against
// its own is activation/conformance.
package destinationtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Token is what simulators take as a token, key or session unless Options say
// otherwise.
const Token = "test-token"

// maxBody bounds what a simulator reads of a request.
const maxBody = 64 << 20

// Options say how a simulator behaves.
type Options struct {
	Token    string           // accepted besides what its login gives out
	Faults   Faults           // what goes wrong on its own
	Lag      time.Duration    // of its search index
	Requests int              // of the quota of bursts; the vendor's unless said
	Window   time.Duration    // of that quota
	Daily    int              // calls of a day; the vendor's unless said
	Life     time.Duration    // of an access token; 30 min unless said
	Now      func() time.Time // time.Now unless said
}

// Simulator is a vendor with one account.
type Simulator struct {
	Name  string
	o     Options
	model vendor

	mu       sync.Mutex
	tables   map[string]*table
	journal  []Write
	requests int
	throttle int // answers of 429
	faults   *faultPlan
	quota    quota
	login    *loginServer
	late     int        // calls that are still to be carried out
	settled  *sync.Cond // told when late or running becomes less
	running  int        // calls under way
	ids      int
	onCall   func(n int) // told of every call before it is carried out; nil = nobody
}

// vendor is what differs between simulators. Its methods run under the lock.
type vendor interface {
	// serve answers a request that is authorised and inside the quotas.
	serve(c *conversation)
	// refuse writes the vendor's shape of a refusal that has nothing to do
	// with the request: 401, 429, 5xx.
	refuse(c *conversation, status int, daily bool)
	// authorised reports whether the request carries a token the login knows.
	authorised(c *conversation) bool
	// announce adds the headers that tell what is left of the quotas.
	announce(c *conversation, left, limit int, reset time.Duration, leftToday, today int)
}

// conversation is one request and its answer.
type conversation struct {
	s      *Simulator
	r      *http.Request
	path   []string // parts of the path
	raw    []byte
	body   any // decoded JSON
	status int
	header http.Header
	out    []byte
}

// Names are the vendors that can be simulated.
func Names() []string {
	return []string{"hubspot", "salesforce", "klaviyo", "intercom", "stripe", "http"}
}

// New makes the simulator of a vendor.
func New(name string, o Options) (*Simulator, error) {
	if o.Token == "" {
		o.Token = Token
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Life == 0 {
		o.Life = 30 * time.Minute
	}
	s := &Simulator{Name: name, o: o, tables: map[string]*table{}, faults: newFaultPlan(o.Faults), login: newLoginServer(o)}
	s.settled = sync.NewCond(&s.mu)
	limits := map[string][3]int{"hubspot": {190, 10, 650000}, "salesforce": {1000, 10, 100000}, "klaviyo": {75, 1, 1 << 30},
		"intercom": {1666, 10, 1 << 30}, "stripe": {100, 1, 1 << 30}, "http": {1 << 30, 1, 1 << 30}}
	l, ok := limits[name]
	if !ok {
		return nil, fmt.Errorf("no simulator of %q, known are %s", name, strings.Join(Names(), ", "))
	}
	s.quota = quota{max: l[0], per: time.Duration(l[1]) * time.Second, today: l[2]}
	if o.Requests > 0 {
		s.quota.max = o.Requests
	}
	if o.Window > 0 {
		s.quota.per = o.Window
	}
	if o.Daily > 0 {
		s.quota.today = o.Daily
	}
	switch name {
	case "hubspot":
		s.model = newHubSpot(s)
	case "salesforce":
		s.model = newSalesforce(s)
	case "klaviyo":
		s.model = newKlaviyo(s)
	case "intercom":
		s.model = newIntercom(s)
	case "stripe":
		s.model = newStripe(s)
	default:
		s.model = newReceiver(s)
	}
	return s, nil
}

// ServeHTTP answers as the vendor would, with the faults of the plan.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.run(1)
	defer s.run(-1)
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "body too large or cut off", http.StatusRequestEntityTooLarge)
		return
	}
	c := &conversation{s: s, r: r, raw: raw, status: 200, header: http.Header{}}
	c.path = strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if d := json.NewDecoder(bytes.NewReader(raw)); len(raw) > 0 {
		d.UseNumber()
		if d.Decode(&c.body) != nil {
			c.body = nil
		}
	}
	s.mu.Lock()
	s.requests++
	if s.onCall != nil {
		s.onCall(s.requests)
	}
	c.header.Set("X-Request-Id", "req-"+strconv.Itoa(s.requests))
	fault := s.begin(c)
	if fault == "delayed" {
		s.late++
		time.AfterFunc(s.faults.f.Delay, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.model.serve(c)
			s.late--
			s.settled.Broadcast()
		})
	}
	s.mu.Unlock()
	switch fault {
	case "delayed", "lost", "reset":
		panic(http.ErrAbortHandler) // ends the connection without an answer
	case "slow":
		select {
		case <-r.Context().Done():
		case <-time.After(s.faults.f.Delay):
		}
	}
	for k, v := range c.header {
		w.Header()[k] = v
	}
	if fault == "truncated" && len(c.out) > 1 {
		w.Header().Set("Content-Length", strconv.Itoa(len(c.out)))
		w.WriteHeader(c.status)
		_, _ = w.Write(c.out[:len(c.out)/2])
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(c.status)
	_, _ = w.Write(c.out) // a client that is gone needs no answer
}

// run counts the calls under way.
func (s *Simulator) run(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running += n
	s.settled.Broadcast()
}

// begin decides and, unless it is for later, carries out a request.
func (s *Simulator) begin(c *conversation) (fault string) {
	if s.login.serve(c) {
		return ""
	}
	now := s.o.Now()
	left, ok, wait, daily := s.quota.take(now)
	s.model.announce(c, left, s.quota.max, s.quota.reset(now), s.quota.leftToday(), s.quota.today)
	if !ok {
		s.throttle++
		if !s.faults.f.NoRetryAfter {
			c.header.Set("Retry-After", strconv.Itoa(max(1, int(wait/time.Second))))
		}
		s.model.refuse(c, http.StatusTooManyRequests, daily)
		return ""
	}
	if !s.model.authorised(c) {
		s.model.refuse(c, http.StatusUnauthorized, false)
		return ""
	}
	switch fault = s.faults.next(c.r); fault {
	case "throttle", "throttle_date":
		s.throttle++
		after := "1"
		if fault == "throttle_date" {
			after = now.Add(time.Second).UTC().Format(http.TimeFormat)
		}
		if !s.faults.f.NoRetryAfter {
			c.header.Set("Retry-After", after)
		}
		s.model.refuse(c, http.StatusTooManyRequests, false)
	case "daily":
		s.model.refuse(c, http.StatusTooManyRequests, true)
	case "unauthorized":
		s.login.forget()
		s.model.refuse(c, http.StatusUnauthorized, false)
	case "broken":
		s.model.refuse(c, http.StatusServiceUnavailable, false)
	case "html":
		c.status, c.out = http.StatusBadGateway, []byte("<html><body>Bad Gateway</body></html>")
		c.header.Set("Content-Type", "text/html")
	case "reset", "delayed":
	case "broken_after":
		s.model.serve(c)
		c.header.Del("Content-Type")
		s.model.refuse(c, http.StatusInternalServerError, false)
	case "empty":
		s.model.serve(c)
		c.empty()
	case "shuffled":
		s.model.serve(c)
		c.shuffle(s.faults)
	default:
		s.model.serve(c)
	}
	return fault
}

// json answers with v.
func (c *conversation) json(status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = 500, []byte(`{}`)
	}
	c.status, c.out = status, b
	if c.header.Get("Content-Type") == "" {
		c.header.Set("Content-Type", "application/json")
	}
}

// empty leaves a success that names nobody.
func (c *conversation) empty() {
	var v map[string]any
	if c.status > 299 || json.Unmarshal(c.out, &v) != nil {
		return
	}
	for _, list := range []string{"results", "errors", "data"} {
		if _, ok := v[list].([]any); ok {
			v[list] = []any{}
		}
	}
	c.json(c.status, v)
}

// shuffle puts the rows of an answer, where their order means nothing, into
// another one.
func (c *conversation) shuffle(p *faultPlan) {
	var v map[string]any
	if c.status > 299 || json.Unmarshal(c.out, &v) != nil {
		return
	}
	for _, name := range []string{"results", "errors"} {
		if list, ok := v[name].([]any); ok {
			p.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		}
	}
	c.json(c.status, v)
}

// Inject makes the next writes go wrong, one fault each; see Faults for their
// names, besides which "daily", "empty", "html", "throttle_date" and "none" may
// be asked for.
func (s *Simulator) Inject(faults ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.queue = append(s.faults.queue, faults...)
}

// SetFaults replaces the plan.
func (s *Simulator) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = newFaultPlan(f)
}

// Settle waits until what is delayed has been carried out.
func (s *Simulator) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.late+s.running > 0 {
		s.settled.Wait()
	}
}

// Requests returns how many calls came in, and how many of them were over the
// quota.
func (s *Simulator) Requests() (all, throttled int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests, s.throttle
}

// Logins returns how often the login gave out tokens, and how often a refresh
// token was used that had been replaced.
func (s *Simulator) Logins() (given, replayed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.login.given, s.login.replayed
}

// ForgetTokens ends all access tokens that the login gave out.
func (s *Simulator) ForgetTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.login.forget()
}

// object returns a request's body as an object, never nil.
func (c *conversation) object() map[string]any {
	m, _ := c.body.(map[string]any)
	if m == nil {
		m = map[string]any{}
	}
	return m
}

// sub returns the object at name in m, never nil.
func sub(m map[string]any, names ...string) map[string]any {
	for _, n := range names {
		m, _ = m[n].(map[string]any)
	}
	if m == nil {
		m = map[string]any{}
	}
	return m
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// str is a scalar as text.
func str(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		return v.String()
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// AtCall has f called in the middle of the n-th call from now; nil takes back
// what was asked for.
func (s *Simulator) AtCall(n int, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.requests + n
	s.onCall = nil
	if f != nil {
		s.onCall = func(call int) {
			if call == at {
				f()
			}
		}
	}
}
