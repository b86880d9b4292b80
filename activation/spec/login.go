package spec

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
)

// errCredentials says that the vendor does not take the credentials: asking
// again changes nothing.
var errCredentials = errors.New("the vendor does not accept the credentials")

// Credentials are what a user gives to log in. They are never printed.
type Credentials struct {
	Type         string // bearer, header, basic, oauth2_refresh, oauth2_client, jwt_bearer or none; empty = the first that the spec allows and the rest fits
	Token        string // bearer, header
	Header       string // header: its name, if the spec does not say
	User         string // basic; jwt_bearer: for whom the login is
	Password     string
	ClientID     string
	ClientSecret string
	RefreshToken string
	PrivateKey   string // jwt_bearer: PEM
	TokenURL     string // where tokens come from, if not where the spec says
}

// String hides everything.
func (Credentials) String() string { return "credentials" }

// GoString hides everything.
func (Credentials) GoString() string { return "credentials" }

// credentials are what one request carries.
type credentials struct {
	header, value string
	base          string // replaces the base URL
	stamp         string // tells one token from the next
}

func (c credentials) apply(h http.Header) {
	if c.header != "" {
		h.Set(c.header, c.value)
	}
}

// login gives the credentials of the next request.
type login interface {
	// current returns what to send; an error that is errCredentials is final
	// until somebody changes the credentials.
	current(ctx context.Context) (credentials, error)
	// invalidate says that the vendor refused used, and returns whether there
	// may be others.
	invalidate(used credentials) bool
}

// fixed never changes.
type fixed credentials

func (f fixed) current(context.Context) (credentials, error) { return credentials(f), nil }
func (f fixed) invalidate(credentials) bool                  { return false }

// newLogin finds the way to log in that the spec allows and c fits.
func newLogin(d *Destination, c Credentials, tokens TokenStore) (login, error) {
	ways := d.spec.Auth
	if len(ways) == 0 {
		ways = []Login{{Type: "none"}}
	}
	for _, w := range ways {
		if c.Type != "" && w.Type != c.Type || c.Type == "" && !c.fits(w.Type) {
			continue
		}
		if !c.fits(w.Type) {
			return nil, fmt.Errorf("auth: %s needs %s", w.Type, needs[w.Type])
		}
		switch w.Type {
		case "none":
			return fixed{}, nil
		case "bearer":
			return fixed{header: "Authorization", value: "Bearer " + c.Token}, nil
		case "header":
			header := w.Header
			if header == "" {
				header = c.Header
			}
			if header == "" {
				header = "Authorization"
			}
			return fixed{header: header, value: w.Prefix + c.Token}, nil
		case "basic":
			pair := base64.StdEncoding.EncodeToString([]byte(c.User + ":" + c.Password))
			return fixed{header: "Authorization", value: "Basic " + pair}, nil
		}
		return newOAuth(d, w, c, tokens)
	}
	allowed := ""
	for i, w := range ways {
		if i > 0 {
			allowed += ", or "
		}
		allowed += w.Type + " (" + needs[w.Type] + ")"
	}
	return nil, fmt.Errorf("auth: %s takes %s", d.spec.Name, allowed)
}

var needs = map[string]string{"none": "nothing", "bearer": "token", "header": "token", "basic": "user and password",
	"oauth2_refresh": "client_id, client_secret and refresh_token", "oauth2_client": "client_id and client_secret",
	"jwt_bearer": "client_id, user and private_key"}

func (c Credentials) fits(way string) bool {
	switch way {
	case "none":
		return c == Credentials{} || c == Credentials{Type: "none"}
	case "bearer", "header":
		return c.Token != ""
	case "basic":
		return c.User != "" && c.PrivateKey == ""
	case "oauth2_refresh":
		return c.ClientID != "" && c.ClientSecret != "" && c.RefreshToken != ""
	case "oauth2_client":
		return c.ClientID != "" && c.ClientSecret != "" && c.RefreshToken == ""
	case "jwt_bearer":
		return c.ClientID != "" && c.User != "" && c.PrivateKey != ""
	}
	return false
}
