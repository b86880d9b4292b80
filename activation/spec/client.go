package spec

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

// maxAnswer bounds the body of an answer; results of a job may be larger.
const (
	maxAnswer  = 8 << 20
	maxResults = 64 << 20
)

// call is one exchange with the vendor.
type call struct {
	lane     delivery.Lane
	op       delivery.Operation
	endpoint string
	method   string
	url      string // whole, or a path below the base URL
	kind     string // media type of the body
	headers  map[string]string
	body     []byte
	signID   string // of a signed message
	limit    int64
}

// answer is what came back.
type answer struct {
	status     int
	header     http.Header
	body       []byte
	doc        any   // decoded JSON; nil if there is none or it is broken
	err        error // no answer, or not all of it
	sent       bool  // the vendor may have seen the request
	auth       bool  // err is about the credentials
	request    string
	retryAfter time.Duration
}

func (a *answer) flatHeaders() map[string]string {
	m := make(map[string]string, len(a.header))
	for k, v := range a.header {
		if len(v) > 0 {
			m[strings.ToLower(k)] = v[0]
		}
	}
	return m
}

// exchange makes a call inside the account's budget, with credentials that are
// renewed once if the vendor no longer takes them.
func (d *Destination) exchange(ctx context.Context, c call) *answer {
	for attempt := 0; ; attempt++ {
		if err := d.budget.Wait(ctx, c.lane, c.endpoint, 1); err != nil {
			return &answer{err: fmt.Errorf("wait for quota: %w", err)}
		}
		used, err := d.login.current(ctx)
		if err != nil {
			return &answer{err: err, auth: errors.Is(err, errCredentials)}
		}
		a := d.roundTrip(ctx, c, used)
		v := verdict{}
		if a.err == nil && (a.status < 200 || a.status > 299) {
			v = d.spec.judge(a, c.op)
		}
		d.observe(c.endpoint, a, v)
		if v.do != "auth" || attempt > 0 {
			return a
		}
		if renewed := d.login.invalidate(used); !renewed {
			return a
		}
	}
}

// roundTrip sends one request.
func (d *Destination) roundTrip(ctx context.Context, c call, used credentials) *answer {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	sent := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent = true }})
	target, err := d.resolve(c.url, used.base)
	if err != nil {
		return &answer{err: err}
	}
	var body io.Reader
	if c.body != nil {
		body = bytes.NewReader(c.body)
	}
	r, err := http.NewRequestWithContext(ctx, c.method, target, body)
	if err != nil {
		return &answer{err: fmt.Errorf("%s %s: the request cannot be built", c.method, c.endpoint)} // the error would hold the address
	}
	r.GetBody = nil // the transport repeats nothing on its own: every attempt is counted
	for k, v := range d.headers {
		r.Header.Set(k, v)
	}
	for k, v := range c.headers {
		r.Header.Set(k, v)
	}
	if c.body != nil {
		r.Header.Set("Content-Type", c.kind)
	}
	if d.sign != nil && c.signID != "" {
		d.sign.headers(r.Header, c.signID, d.now(), c.body)
	}
	used.apply(r.Header)
	resp, err := d.http.Do(r)
	if err != nil {
		return &answer{err: wireError(err), sent: sent}
	}
	defer resp.Body.Close()
	a := &answer{status: resp.StatusCode, header: resp.Header, sent: true, retryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), d.now())}
	limit := max(c.limit, maxAnswer)
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		a.err = wireError(err)
	case int64(len(a.body)) > limit:
		a.err = fmt.Errorf("the answer is larger than %d bytes", limit)
	case looksLikeJSON(a.body):
		a.doc = decode(a.body)
	}
	a.request = d.requestID(a)
	return a
}

// wireError takes the address out of err: its query may hold a value.
func wireError(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	for _, known := range []error{ErrPrivate, ErrPlain, context.Canceled} {
		if errors.Is(err, known) {
			return known
		}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer in time")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errors.New("the connection ended before the answer did")
	}
	return fmt.Errorf("connection: %w", err)
}

func looksLikeJSON(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n\ufeff")
	return len(b) > 0 && (b[0] == '{' || b[0] == '[')
}

// decode reads one whole JSON document, nil if it is none.
func decode(b []byte) any {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil || dec.More() {
		return nil
	}
	return v
}

func (d *Destination) requestID(a *answer) string {
	for _, at := range d.spec.Request {
		id := a.header.Get(at)
		if path, ok := strings.CutPrefix(at, "body."); ok {
			id = text(find(a.doc, path, ""))
		}
		if wellFormedID.MatchString(id) {
			return id
		}
	}
	return ""
}

// observe tells the budget what an answer says about the account's quotas:
// once per quota, with the status and a refusal in the last.
func (d *Destination) observe(endpoint string, a *answer, v verdict) {
	last := delivery.Answer{Endpoint: endpoint}
	for i := range d.spec.Limits.Headers {
		o := delivery.Answer{Endpoint: endpoint}
		if !d.spec.Limits.Headers[i].read(a.header, &o, d.now()) {
			continue
		}
		if last.Quota != "" {
			d.budget.Observe(last)
		}
		last = o
	}
	last.Status, last.Throttled = a.status, v.do == "throttle" || v.do == "throttle_daily"
	if last.Throttled {
		last.RetryAfter = v.wait
		if v.do == "throttle_daily" && last.RetryAfter == 0 {
			last.RetryAfter = untilMidnight(d.now())
		}
	}
	d.budget.Observe(last)
}

// untilMidnight is when vendors begin a new day if they do not say otherwise.
func untilMidnight(now time.Time) time.Duration {
	now = now.UTC()
	return now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)
}

// read fills o from the headers of an answer; false if they say nothing.
func (q *QuotaHeader) read(h http.Header, o *delivery.Answer, now time.Time) bool {
	if q.Used != "" {
		m := q.pattern.FindStringSubmatch(h.Get(q.Used))
		if m == nil {
			return false
		}
		used, _ := strconv.Atoi(m[1]) // the pattern may match other than digits: then it says 0
		limit, err := strconv.Atoi(m[2])
		if err != nil {
			return false
		}
		o.Quota, o.Remaining, o.Limit, o.Reset = q.Quota, max(limit-used, 0), limit, q.Per
		return true
	}
	remaining, err := strconv.Atoi(h.Get(q.Remaining))
	if err != nil || remaining < 0 {
		return false
	}
	o.Quota, o.Remaining, o.Reset = q.Quota, remaining, q.Per
	o.Limit, _ = strconv.Atoi(h.Get(q.Limit)) // not said is 0
	if n, err := strconv.ParseFloat(h.Get(q.Reset), 64); err == nil && n >= 0 {
		switch q.Unit {
		case "epoch":
			o.Reset = max(time.Unix(int64(n), 0).Sub(now), 0)
		case "milliseconds":
			o.Reset = time.Duration(n * float64(time.Millisecond))
		default:
			o.Reset = time.Duration(n * float64(time.Second))
		}
		o.Reset = min(o.Reset, 48*time.Hour)
	}
	return true
}
