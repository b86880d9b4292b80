package spec

import (
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// TokenStore keeps the tokens of an account where all its processes find them.
// What it is given is sealed: it never sees a token.
type TokenStore interface {
	// Lock makes the caller the only one, over all processes, that renews the
	// tokens of account, until unlock is called.
	Lock(ctx context.Context, account string) (unlock func(), err error)
	// Load returns what was saved last, nil if nothing.
	Load(ctx context.Context, account string) ([]byte, error)
	// Save replaces it and returns once it is durable.
	Save(ctx context.Context, account string, sealed []byte) error
}

// early is how long before its end a token is renewed.
const early = time.Minute

// token is what a token endpoint gave.
type token struct {
	Access  string    `json:"access"`
	Refresh string    `json:"refresh,omitempty"`
	Base    string    `json:"base,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	Seed    string    `json:"seed"` // hash of the configured credentials: others begin anew
}

// oauth renews access tokens: in one place at a time, over all processes, and
// a rotated refresh token is durable before the access token that came with it
// is used.
type oauth struct {
	d      *Destination
	way    Login
	given  Credentials
	key    *rsa.PrivateKey
	store  TokenStore
	seal   cipher.AEAD
	seed   string
	turn   chan struct{} // holds one: whoever has it may touch what follows
	have   token
	refuse error // the vendor's final word on the credentials
}

func newOAuth(d *Destination, way Login, c Credentials, store TokenStore) (*oauth, error) {
	o := &oauth{d: d, way: way, given: c, store: store, turn: make(chan struct{}, 1)}
	if store == nil {
		if way.Type == "oauth2_refresh" {
			return nil, errors.New("auth: oauth2_refresh needs a place that keeps rotated tokens")
		}
		o.store = &MemoryTokens{}
	}
	if way.Type == "jwt_bearer" {
		var err error
		if o.key, err = parseKey(c.PrivateKey); err != nil {
			return nil, err
		}
	}
	secret := sha256.Sum256([]byte(strings.Join([]string{"sluice tokens", c.ClientID, c.ClientSecret, c.RefreshToken, c.PrivateKey}, "\x00")))
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	if o.seal, err = cipher.NewGCM(block); err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	seed := sha256.Sum256(append([]byte("seed"), secret[:]...))
	o.seed = hex.EncodeToString(seed[:8])
	return o, nil
}

func parseKey(text string) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("auth: private_key is no PEM")
	}
	if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	rsaKey, ok := k.(*rsa.PrivateKey)
	if err != nil || !ok {
		return nil, errors.New("auth: private_key is no RSA key")
	}
	return rsaKey, nil
}

func (o *oauth) current(ctx context.Context) (credentials, error) {
	select {
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-ctx.Done():
		return credentials{}, ctx.Err()
	}
	if o.refuse != nil {
		return credentials{}, o.refuse
	}
	if !o.valid(o.have) {
		if err := o.renew(ctx); err != nil {
			return credentials{}, err
		}
	}
	return credentials{header: "Authorization", value: "Bearer " + o.have.Access, base: o.have.Base, stamp: o.have.Access}, nil
}

func (o *oauth) valid(t token) bool {
	return t.Access != "" && t.Seed == o.seed && (t.Expires.IsZero() || o.d.now().Before(t.Expires.Add(-early)))
}

// invalidate forgets the token of used, once: another caller may have renewed
// it already.
func (o *oauth) invalidate(used credentials) bool {
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	if o.have.Access == used.stamp {
		o.have.Expires = o.d.now().Add(-time.Hour)
	}
	return true
}

// renew gets a token, unless another process has just done so.
func (o *oauth) renew(ctx context.Context) error {
	unlock, err := o.store.Lock(ctx, o.d.account)
	if err != nil {
		return fmt.Errorf("lock tokens of %s: %w", o.d.account, err)
	}
	defer unlock()
	saved, err := o.load(ctx)
	if err != nil {
		return err
	}
	if saved.Access != o.have.Access && o.valid(saved) {
		o.have = saved
		return nil
	}
	fresh, err := o.ask(ctx, saved)
	if err != nil {
		if errors.Is(err, errCredentials) {
			o.refuse = err
		}
		return err
	}
	fresh.Seed = o.seed
	if fresh.Refresh == "" {
		fresh.Refresh = saved.Refresh
	}
	// The vendor drops the old refresh token once the new access token is
	// used: until the new ones are durable nobody may use them.
	if err := o.save(ctx, fresh); err != nil {
		return err
	}
	o.have = fresh
	return nil
}

func (o *oauth) load(ctx context.Context) (token, error) {
	sealed, err := o.store.Load(ctx, o.d.account)
	if err != nil {
		return token{}, fmt.Errorf("load tokens of %s: %w", o.d.account, err)
	}
	n := o.seal.NonceSize()
	if len(sealed) < n {
		return token{}, nil
	}
	text, err := o.seal.Open(nil, sealed[:n], sealed[n:], []byte(o.d.account))
	if err != nil {
		return token{}, nil // sealed under other credentials: those count no more
	}
	var t token
	if err := json.Unmarshal(text, &t); err != nil || t.Seed != o.seed {
		return token{}, nil
	}
	return t, nil
}

func (o *oauth) save(ctx context.Context, t token) error {
	text, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("save tokens of %s: %w", o.d.account, err)
	}
	nonce := make([]byte, o.seal.NonceSize())
	if _, err := io.ReadFull(rand.Reader, nonce); err != nil {
		return fmt.Errorf("save tokens of %s: %w", o.d.account, err)
	}
	if err := o.store.Save(ctx, o.d.account, o.seal.Seal(nonce, nonce, text, []byte(o.d.account))); err != nil {
		return fmt.Errorf("save tokens of %s: %w", o.d.account, err)
	}
	return nil
}

// ask calls the token endpoint.
func (o *oauth) ask(ctx context.Context, saved token) (token, error) {
	form := url.Values{"client_id": {o.given.ClientID}}
	switch o.way.Type {
	case "jwt_bearer":
		assertion, err := o.assertion()
		if err != nil {
			return token{}, err
		}
		form = url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
	case "oauth2_client":
		form.Set("grant_type", "client_credentials")
		form.Set("client_secret", o.given.ClientSecret)
	default:
		form.Set("grant_type", "refresh_token")
		form.Set("client_secret", o.given.ClientSecret)
		form.Set("refresh_token", saved.Refresh)
		if saved.Refresh == "" {
			form.Set("refresh_token", o.given.RefreshToken)
		}
	}
	a := o.d.roundTrip(ctx, call{method: http.MethodPost, url: o.tokenURL(), kind: "application/x-www-form-urlencoded", body: []byte(form.Encode()), endpoint: "token"}, credentials{})
	if a.err != nil {
		return token{}, fmt.Errorf("renew token: %w", a.err)
	}
	access := text(find(a.doc, "access_token", ""))
	if a.status != http.StatusOK || access == "" {
		reason := cleanCode(text(find(a.doc, "error", "")))
		err := fmt.Errorf("renew token: status %d %s", a.status, reason)
		if a.status >= 400 && a.status < 500 && a.status != 408 && a.status != 429 {
			err = fmt.Errorf("%w: %w", err, errCredentials)
		}
		return token{}, err
	}
	t := token{Access: access, Refresh: text(find(a.doc, "refresh_token", ""))}
	if seconds, ok := number(find(a.doc, "expires_in", "")); ok && seconds > 0 {
		t.Expires = o.d.now().Add(time.Duration(min(seconds, 86400*365)) * time.Second)
	}
	if o.way.InstanceURL {
		t.Base = text(find(a.doc, "instance_url", ""))
		if _, err := checkURL(t.Base, o.d.allowPrivate); err != nil {
			return token{}, fmt.Errorf("renew token: instance_url: %w", err)
		}
	}
	return t, nil
}

func (o *oauth) tokenURL() string {
	if o.given.TokenURL != "" {
		return o.given.TokenURL
	}
	return o.way.TokenURL
}

// assertion signs who we are, valid for three minutes.
func (o *oauth) assertion() (string, error) {
	audience := o.way.Audience
	if audience == "" || o.d.base != o.d.spec.BaseURL {
		audience = o.d.base
	}
	claims, err := json.Marshal(map[string]any{"iss": o.given.ClientID, "sub": o.given.User, "aud": audience, "exp": o.d.now().Add(3 * time.Minute).Unix()})
	if err != nil {
		return "", fmt.Errorf("sign assertion: %w", err)
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + enc.EncodeToString(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, o.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign assertion: %w", err)
	}
	return signed + "." + enc.EncodeToString(signature), nil
}
