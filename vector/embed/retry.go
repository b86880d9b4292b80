package embed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Bounds of what comes from outside and of how long one request is tried.
const (
	maxAnswerBytes = 256 << 20
	requestTimeout = 2 * time.Minute
	maxAttempts    = 8
	maxPause       = time.Minute // a longer Retry-After is the caller's to wait for
)

// retrying sends a request until it is answered for good. The client libraries neither retry nor show the
// headers that say when to.
type retrying struct {
	http  *http.Client
	sleep func(context.Context, time.Duration) error
}

func newRetrying(transport http.RoundTripper) *retrying {
	return &retrying{http: &http.Client{Transport: transport, Timeout: requestTimeout,
		// A redirect would carry the key and the texts elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		sleep: func(ctx context.Context, d time.Duration) error {
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-t.C:
				return nil
			}
		}}
}

// Do sends req, again and again while that may help.
func (r *retrying) Do(req *http.Request) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		if attempt > 1 && req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			req.Body = body
		}
		resp, err := r.http.Do(req)
		if err == nil {
			err = readWhole(resp)
		}
		if attempt == maxAttempts || req.Context().Err() != nil || err == nil && !passing(resp) {
			if err != nil {
				return nil, err
			}
			return resp, nil
		}
		pause := backoff(attempt)
		if err == nil {
			if asked, ok := retryAfter(resp.Header, time.Now()); ok {
				if asked > maxPause {
					return resp, nil
				}
				pause = asked
			}
		}
		if err := r.sleep(req.Context(), pause); err != nil {
			return nil, err
		}
	}
}

// readWhole puts the body into memory: an answer that breaks off is tried again as one that never came.
func readWhole(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return err
}

// passing reports whether the answer may be another one later. It leaves the body readable.
func passing(resp *http.Response) bool {
	switch s := resp.StatusCode; {
	case s == http.StatusTooManyRequests:
		// An account without money answers 429 too, for ever.
		body, err := io.ReadAll(resp.Body)
		resp.Body = io.NopCloser(bytes.NewReader(body))
		return err != nil || !bytes.Contains(body, []byte("insufficient_quota"))
	case s == http.StatusRequestTimeout, s == http.StatusConflict, s >= 500:
		return true
	}
	return false
}

// backoff doubles from 200 ms to 20 s, half of it by chance.
func backoff(attempt int) time.Duration {
	d := min(200*time.Millisecond<<(attempt-1), 20*time.Second)
	return d/2 + rand.N(d/2)
}

// retryAfter reads when the service wants to be asked again.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil && ms >= 0 && ms < 1e9 {
		return time.Duration(ms * float64(time.Millisecond)), true
	}
	v := strings.TrimSpace(h.Get("Retry-After"))
	if s, err := strconv.ParseFloat(v, 64); err == nil && s >= 0 && s < 1e6 {
		return time.Duration(s * float64(time.Second)), true
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(at.Sub(now), 0), true
	}
	return 0, false
}

// post sends a JSON request of the services that no library speaks for and reads the answer into out.
func (r *retrying) post(ctx context.Context, provider, url, key string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return &Error{Provider: provider, Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return &Error{Provider: provider, Err: errors.New("the address is not one")}
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := r.Do(req)
	if err != nil {
		return &Error{Provider: provider, Err: err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &Error{Provider: provider, Status: resp.StatusCode, Fix: fixOf(resp.StatusCode, "")}
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return &Error{Provider: provider, Err: errors.New("the answer is not the JSON that was asked for")}
	}
	return nil
}

// fixOf says what people can do about a status.
func fixOf(status int, code string) string {
	switch {
	case code == "insufficient_quota":
		return "the account has no credit left"
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return "check the key"
	case status == http.StatusNotFound:
		return "check the address and the name of the model"
	case status == http.StatusTooManyRequests:
		return "lower requests_per_minute or tokens_per_minute"
	}
	return ""
}
