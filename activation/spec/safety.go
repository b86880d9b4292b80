package spec

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// ErrPrivate is the refusal of an address inside a private network.
var ErrPrivate = errors.New("the address is private, loopback or link-local; set allow_private: true if that is meant")

// ErrPlain is the refusal of http:// to an address outside private networks.
var ErrPlain = errors.New("http:// is refused outside private networks; use https://")

// cloud networks that netip does not call private but that belong to nobody
// outside: carrier NAT, benchmarks, protocol assignments, and the prefix that
// carries IPv4 addresses inside IPv6.
var reserved = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("64:ff9b:1::/48")}

// private reports whether ip is not an address of the open network.
func private(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return true
	}
	for _, p := range reserved {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// guard refuses connections by the address that was resolved, at the moment of
// the dial: a name that changes its address in between gains nothing.
func guard(allowPrivate, plain bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("dial: %w", err)
		}
		switch inside := private(at.Addr()); {
		case inside && !allowPrivate:
			return ErrPrivate
		case plain && !inside:
			return ErrPlain
		}
		return nil
	}
}

// plainHTTP keeps the connections of http:// apart from those of https://.
type transports struct {
	secure, plain *http.Transport
}

func newTransports(allowPrivate bool, tlsConfig *tls.Config, timeout time.Duration) *transports {
	make := func(plain bool) *http.Transport {
		dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: guard(allowPrivate, plain)}
		return &http.Transport{
			Proxy:                  nil, // a proxy would be dialled in place of the address that is checked
			DialContext:            dialer.DialContext,
			TLSClientConfig:        tlsConfig,
			TLSHandshakeTimeout:    10 * time.Second,
			ResponseHeaderTimeout:  timeout,
			MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConnsPerHost:    16,
			IdleConnTimeout:        60 * time.Second,
			ForceAttemptHTTP2:      true,
		}
	}
	return &transports{secure: make(false), plain: make(true)}
}

// RoundTrip sends r.
func (t *transports) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" {
		return t.plain.RoundTrip(r)
	}
	return t.secure.RoundTrip(r)
}

func (t *transports) close() {
	t.secure.CloseIdleConnections()
	t.plain.CloseIdleConnections()
}

// sameOrigin lets a read follow a redirect inside its own origin only:
// credentials go to no other host, and a write is never repeated elsewhere.
func sameOrigin(r *http.Request, via []*http.Request) error {
	first := via[0]
	if len(via) > 3 || first.Method != http.MethodGet || r.URL.Scheme != first.URL.Scheme || r.URL.Host != first.URL.Host {
		return http.ErrUseLastResponse
	}
	return nil
}

// checkURL refuses what is no plain http or https address.
func checkURL(text string, allowPrivate bool) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("not a URL")
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("not a URL that begins with https://")
	case u.User != nil:
		return nil, errors.New("a URL may not hold a password; use auth")
	case u.Scheme == "http" && !allowPrivate:
		return nil, errors.New("http:// sends everything readable; use https://, or allow_private: true inside a private network")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && private(ip) && !allowPrivate {
		return nil, ErrPrivate
	}
	return u, nil
}
