package destinationtest

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// RefreshToken is the first refresh token that the login of a simulator takes,
// for any client id and secret.
const RefreshToken = "refresh-0"

// loginServer gives out access tokens. Refresh tokens rotate: the old one works
// until the access token that replaced it is used for the first time; after
// that its use ends everything, as vendors that detect theft do.
type loginServer struct {
	o        Options
	valid    map[string]time.Time // access token → end
	refresh  string
	next     string // refresh token that takes over once its access token is used
	pending  string // that access token
	revoked  bool
	given    int
	replayed int
}

func newLoginServer(o Options) *loginServer {
	return &loginServer{o: o, valid: map[string]time.Time{}, refresh: RefreshToken}
}

// serve answers a call of the token endpoint.
func (l *loginServer) serve(c *conversation) bool {
	path := c.r.URL.Path
	if c.r.Method != http.MethodPost || !strings.HasSuffix(path, "/token") || !strings.Contains(path, "oauth") && !strings.Contains(path, "auth/") {
		return false
	}
	form, err := url.ParseQuery(string(c.raw))
	if err != nil {
		c.json(400, map[string]any{"error": "invalid_request"})
		return true
	}
	deny := func(reason string) bool {
		c.json(400, map[string]any{"error": reason, "error_description": "the grant is not valid"})
		return true
	}
	out := map[string]any{"token_type": "Bearer"}
	switch form.Get("grant_type") {
	case "refresh_token":
		given := form.Get("refresh_token")
		switch {
		case form.Get("client_id") == "" || form.Get("client_secret") == "":
			return deny("invalid_client")
		case l.revoked:
			return deny("invalid_grant")
		case given == l.refresh || given == l.next && given != "":
			l.refresh = given
		default:
			l.replayed++
			l.revoked = strings.HasPrefix(given, "refresh-")
			l.valid = map[string]time.Time{}
			return deny("invalid_grant")
		}
		l.next = "refresh-" + strconv.Itoa(l.given+1)
		out["refresh_token"] = l.next
	case "client_credentials":
		if form.Get("client_secret") == "" {
			return deny("invalid_client")
		}
	case "urn:ietf:params:oauth:grant-type:jwt-bearer":
		if strings.Count(form.Get("assertion"), ".") != 2 {
			return deny("invalid_grant")
		}
	default:
		return deny("unsupported_grant_type")
	}
	l.given++
	access := "access-" + strconv.Itoa(l.given)
	l.valid[access] = l.o.Now().Add(l.o.Life)
	l.pending = access
	out["access_token"] = access
	if c.s.Name == "salesforce" {
		out["instance_url"] = origin(c.r)
		out["id"] = origin(c.r) + "/id/00D000000000001/005000000000001"
		out["issued_at"] = strconv.FormatInt(l.o.Now().UnixMilli(), 10)
	} else {
		out["expires_in"] = int(l.o.Life / time.Second)
	}
	c.json(200, out)
	return true
}

func origin(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// takes reports whether token may be used, and makes what came with it count.
func (l *loginServer) takes(token string) bool {
	if token == l.o.Token {
		return true
	}
	end, ok := l.valid[token]
	if !ok || !l.o.Now().Before(end) {
		return false
	}
	if token == l.pending && l.next != "" {
		l.refresh, l.next, l.pending = l.next, "", ""
	}
	return true
}

func (l *loginServer) forget() { l.valid = map[string]time.Time{} }

// bearer reports whether a request's bearer token is valid.
func (c *conversation) bearer() bool {
	token, ok := strings.CutPrefix(c.r.Header.Get("Authorization"), "Bearer ")
	return ok && c.s.login.takes(token)
}
