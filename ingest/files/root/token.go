package root

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Tokens gets OAuth2 access tokens and keeps them while they are valid.
type Tokens struct {
	HTTP *http.Client
	URL  string                                  // of the token endpoint
	Form func(now time.Time) (url.Values, error) // what is posted there

	mu    sync.Mutex
	token string
	until time.Time
}

// Get returns a token that is valid for a minute more. Errors hold no secret.
func (t *Tokens) Get(ctx context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.token != "" && now.Add(time.Minute).Before(t.until) {
		return t.token, nil
	}
	form, err := t.Form(now)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", errors.New("get an access token: no valid address of the token endpoint")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := t.HTTP.Do(req)
	if err != nil {
		return "", fmt.Errorf("get an access token: %w", bare(err))
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	var out struct {
		Token   string  `json:"access_token"`
		Expires float64 `json:"expires_in"`
		Error   string  `json:"error"`
	}
	jsonErr := json.Unmarshal(b, &out)
	if err == nil && (res.StatusCode != http.StatusOK || jsonErr != nil || out.Token == "") {
		err = &StatusError{Do: "get an access token", Status: res.StatusCode, Code: PrintableCode(out.Error)}
	}
	if err != nil {
		return "", err
	}
	if out.Expires <= 0 {
		out.Expires = 300
	}
	t.token, t.until = out.Token, now.Add(time.Duration(min(out.Expires, 86400))*time.Second)
	return t.token, nil
}

func (t *Tokens) drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.token = ""
}

// PrintableCode returns an error code of an API if it looks like one: it may
// be printed.
func PrintableCode(s string) string {
	if len(s) > 64 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") != "" {
		return ""
	}
	return s
}

// Authorized adds the token to requests to the hosts of one API: an address
// that the API redirects to gets none.
type Authorized struct {
	Tokens *Tokens
	Base   http.RoundTripper
	Host   string
}

// RoundTrip sends one request.
func (a *Authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != a.Host {
		return a.Base.RoundTrip(r)
	}
	token, err := a.Tokens.Get(r.Context())
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := a.Base.RoundTrip(r)
	if err == nil && res.StatusCode == http.StatusUnauthorized {
		a.Tokens.drop() // revoked before its time: the next try gets a new one
	}
	return res, err
}

// NewAPI returns a client of an API at address that logs in with tokens.
func NewAPI(address string, tokens *Tokens, private bool) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !(private && u.Scheme == "http") {
		return nil, errors.New("address of the API: want https://host/path")
	}
	plain := Transport(private)
	tokens.HTTP = &http.Client{Transport: plain, Timeout: headerTimeout}
	return &Client{HTTP: &http.Client{Transport: &Authorized{tokens, plain, u.Host}}}, nil
}

// AssertionForm returns the form of a service account that logs in with a
// token signed by its own RSA key.
func AssertionForm(email, keyID, pemKey, subject, scope, audience string) (func(time.Time) (url.Values, error), error) {
	block, _ := pem.Decode([]byte(pemKey))
	if block == nil {
		return nil, errors.New("the private key is no PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return nil, errors.New("the private key is no RSA key")
	}
	return func(now time.Time) (url.Values, error) {
		claims := map[string]any{"iss": email, "scope": scope, "aud": audience, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
		if subject != "" {
			claims["sub"] = subject
		}
		head, _ := json.Marshal(map[string]string{"alg": "RS256", "typ": "JWT", "kid": keyID})
		body, _ := json.Marshal(claims)
		text := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(body)
		sum := sha256.Sum256([]byte(text))
		sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			return nil, errors.New("sign the login of the service account: the key is not usable")
		}
		return url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"},
			"assertion": {text + "." + base64.RawURLEncoding.EncodeToString(sig)}}, nil
	}, nil
}

// Body asks for the bytes at address from offset on.
func (c *Client) Body(ctx context.Context, do, address string, offset int64) (io.ReadCloser, error) {
	h := http.Header{"Accept-Encoding": {"identity"}}
	want := http.StatusOK
	if offset > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		want = http.StatusPartialContent
	}
	res, err := c.Do(ctx, do, http.MethodGet, address, h, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return nil, OpenError(err)
	}
	switch {
	case res.StatusCode == want:
		return res.Body, nil
	case offset > 0: // a server without ranges sends all
		if _, err := io.CopyN(io.Discard, res.Body, offset); err == nil {
			return res.Body, nil
		}
	}
	_ = res.Body.Close()
	return nil, ErrChanged
}
