package spec

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

func TestPrivateAddresses(t *testing.T) {
	for _, inside := range []string{"127.0.0.1", "::1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "fe80::1%eth0", "fd00::1", "0.0.0.0", "::",
		"::ffff:127.0.0.1", "::ffff:169.254.169.254", "100.64.0.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "64:ff9b::7f00:1", "2002:7f00:1::"} {
		if !private(netip.MustParseAddr(inside)) {
			t.Errorf("%s counts as public", inside)
		}
	}
	for _, outside := range []string{"8.8.8.8", "2606:4700::1111", "104.16.0.1"} {
		if private(netip.MustParseAddr(outside)) {
			t.Errorf("%s counts as private", outside)
		}
	}
}

// A name that resolves to a private address is refused when it is dialled,
// whatever it resolved to before.
func TestDialIsGuarded(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a private address was reached") }))
	defer server.Close()
	d, err := open(t, `url: "https://localhost:`+server.URL[strings.LastIndexByte(server.URL, ':')+1:]+`/"`, Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := d.Send(t.Context(), one())[0]
	if r.Outcome != delivery.Retry || !strings.Contains(r.Message, "allow_private") {
		t.Errorf("%+v", r)
	}
	for _, address := range []string{"http://example.com/", "https://127.0.0.1/", "https://[::1]/", "https://user:secret@example.com/", "ftp://example.com/", "https://{object}.example.com/"} {
		_, err := open(t, `url: "`+address+`"`, Options{})
		if err == nil {
			t.Errorf("%s is accepted", address)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
}

// http:// leaves no private network even if that is allowed.
func TestPlainStaysInside(t *testing.T) {
	check := guard(true, true)
	if err := check("tcp", "127.0.0.1:80", nil); err != nil {
		t.Error(err)
	}
	if err := check("tcp", "8.8.8.8:80", nil); !errors.Is(err, ErrPlain) {
		t.Errorf("http:// to the open network: %v", err)
	}
	if err := guard(false, false)("tcp", "8.8.8.8:443", nil); err != nil {
		t.Error(err)
	}
}

// A redirect takes credentials to no other host, and repeats no write.
func TestRedirectsCarryNothing(t *testing.T) {
	thief := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the other host got a request with Authorization %q", r.Header.Get("Authorization"))
	}))
	defer thief.Close()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	d, err := open(t, `url: "`+server.URL+`/"
lookup: {match: [email], path: "/find", id: id}`, Options{AllowPrivate: true, Credentials: Credentials{Token: "secret"}, TLS: &tls.Config{RootCAs: roots}})
	if err != nil {
		t.Fatal(err)
	}
	if r := d.Send(t.Context(), one())[0]; r.Outcome != delivery.Config || r.Status != 307 {
		t.Errorf("%+v", r)
	}
	if _, err := d.Read(t.Context(), "people", "email", []string{"a"}, nil); err == nil {
		t.Error("a read followed a redirect to another host")
	}
}

func TestAnswersAreBounded(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		for range 20 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	d, err := open(t, `url: "`+server.URL+`/"`, Options{AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	if r := d.Send(t.Context(), one())[0]; r.Outcome != delivery.Unknown || !strings.Contains(r.Message, "larger than") {
		t.Errorf("%+v", r)
	}
}

func TestDeadline(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer server.Close()
	defer close(hang)
	d, err := open(t, `url: "`+server.URL+`/?token=x"`, Options{AllowPrivate: true, Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if r := d.Send(context.Background(), one())[0]; r.Outcome != delivery.Unknown || strings.Contains(r.Message, "token=") {
		t.Errorf("%+v", r)
	}
}
