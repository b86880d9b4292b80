package root

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

const (
	maxAnswerBytes = 64 << 20 // of one page of a listing
	maxPause       = 5 * time.Minute
	attempts       = 6
	dialTimeout    = 15 * time.Second
	headerTimeout  = time.Minute
)

// ErrPrivate: an address is of this machine or a private network.
var ErrPrivate = errors.New("the address is private; set allow_private if that is meant")

// shared are networks of no public host that netip does not name.
var shared = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"),
}

// Public reports whether ip is an address of the public internet.
func Public(ip netip.Addr) bool {
	ip = ip.Unmap()
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range shared {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

// Transport returns the connections of one place. Unless private is set it
// connects to public addresses only: the address is checked after its name was
// looked up, so that no name and no redirect leads to an inner service.
func Transport(private bool) *http.Transport {
	d := &net.Dialer{Timeout: dialTimeout}
	if !private {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil || !Public(ap.Addr()) {
				return ErrPrivate
			}
			return nil
		}
	}
	return &http.Transport{DialContext: d.DialContext, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute,
		TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: headerTimeout, ForceAttemptHTTP2: true}
}

// StatusError is an answer that was not hoped for. It holds no address: those
// may hold secrets.
type StatusError struct {
	Do     string
	Status int
	Code   string // the API's own, may be empty
}

// Error names what was tried and the answer.
func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s: the server answers %d", e.Do, e.Status)
	if e.Code != "" {
		s += " " + e.Code
	}
	switch e.Status {
	case http.StatusUnauthorized:
		s += "; check the credentials"
	case http.StatusForbidden:
		s += "; grant read access"
	}
	return s
}

// Client asks an HTTP server, again where waiting helps.
type Client struct {
	HTTP  *http.Client
	Pause func(ctx context.Context, d time.Duration) error // nil = time passes
	Code  func(body []byte) string                         // reads an API's own code of an error; nil = none

	// Retry reports whether an answer that says no (403) only means later.
	Retry func(status int, code string) bool
}

// Do sends one request without a body until it is answered; the answer has one
// of the statuses ok. do names the request in errors.
func (c *Client) Do(ctx context.Context, do, method, address string, header http.Header, ok ...int) (*http.Response, error) {
	pause := time.Second
	for try := 1; ; try++ {
		req, err := http.NewRequestWithContext(ctx, method, address, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: no valid address", do)
		}
		for k, v := range header {
			req.Header[k] = v
		}
		res, err := c.HTTP.Do(req)
		var failed error
		wait := pause
		switch {
		case err != nil && (ctx.Err() != nil || errors.Is(err, ErrPrivate) || refused(err)):
			return nil, fmt.Errorf("%s: %w", do, bare(err))
		case err != nil:
			failed = fmt.Errorf("%s: %w", do, bare(err))
		default:
			for _, s := range ok {
				if res.StatusCode == s {
					return res, nil
				}
			}
			text, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
			_ = res.Body.Close()
			e := &StatusError{Do: do, Status: res.StatusCode}
			if c.Code != nil {
				e.Code = c.Code(text)
			}
			if !retryable(res.StatusCode) && (c.Retry == nil || !c.Retry(e.Status, e.Code)) {
				return nil, e
			}
			failed, wait = e, max(pause, retryAfter(res.Header.Get("Retry-After"), time.Now()))
		}
		if try == attempts {
			return nil, failed
		}
		if err := c.pause(ctx, min(wait, maxPause)); err != nil {
			return nil, err
		}
		pause *= 2
	}
}

// JSON asks for address and reads the answer into out.
func (c *Client) JSON(ctx context.Context, do, address string, header http.Header, out any) error {
	res, err := c.Do(ctx, do, http.MethodGet, address, header, http.StatusOK)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := ReadAnswer(res.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", do, err)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s: the answer is no JSON of the form that was expected", do)
	}
	return nil
}

// ReadAnswer reads an answer of at most 64 MiB.
func ReadAnswer(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxAnswerBytes+1))
	if err != nil {
		return nil, bare(err)
	}
	if len(b) > maxAnswerBytes {
		return nil, errors.New("the answer has more than 64 MiB")
	}
	return b, nil
}

func (c *Client) pause(ctx context.Context, d time.Duration) error {
	if c.Pause != nil {
		return c.Pause(ctx, d)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// refused reports a login that waiting does not help.
func refused(err error) bool {
	var s *StatusError
	return errors.As(err, &s) && !retryable(s.Status)
}

func retryable(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryAfter reads seconds or a date; 0 for none.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// bare drops the address of a failed request: it may hold a secret or a name.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// OpenError turns the answers to a request for one file into the words of a root.
func OpenError(err error) error {
	var s *StatusError
	if !errors.As(err, &s) {
		return err
	}
	switch s.Status {
	case http.StatusNotFound, http.StatusGone, http.StatusPreconditionFailed:
		return ErrChanged
	case http.StatusForbidden:
		return Forbidden
	}
	return err
}
