package spec

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crypto"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/sluice-data/sluice/activation/delivery"
)

// open opens a destination of a user's own.
func open(t testing.TB, settings string, o Options) (*Destination, error) {
	t.Helper()
	var h HTTP
	if err := yaml.Unmarshal([]byte(settings), &h); err != nil {
		t.Fatal(err)
	}
	s, err := h.Spec()
	if err != nil {
		return nil, err
	}
	d, err := Open(s, o)
	if err == nil {
		t.Cleanup(func() { _ = d.Close() })
	}
	return d, err
}

func one() delivery.Request {
	return delivery.Request{Object: "people", Operation: delivery.Upsert, Changes: []delivery.Change{{Key: "k", Idempotency: "i",
		Match: delivery.Field{Name: "email", Value: []byte(`"ada@example.com"`)}, Fields: []delivery.Field{{Name: "name", Value: []byte(`"Ada Lovelace"`)}}}}}
}

// server answers every call with the same.
func server(t *testing.T, status int, body string) (*Destination, *[]http.Header, *[]string) {
	t.Helper()
	var headers []http.Header
	var bodies []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 1<<16)
		n, _ := r.Body.Read(b)
		headers, bodies = append(headers, r.Header), append(bodies, string(b[:n]))
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	d, err := open(t, `{url: "`+s.URL+`/{object}", idempotency_header: Idempotency-Key}`, Options{AllowPrivate: true, Sign: []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
		Now: func() time.Time { return time.Unix(1614265330, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	return d, &headers, &bodies
}

// The vector is the one that the Standard Webhooks specification's own
// libraries are tested with.
func TestSignature(t *testing.T) {
	s, err := newSigner([]string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"})
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	s.headers(h, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if got := h.Get("webhook-signature"); got != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("signature %s", got)
	}
	for _, bad := range []string{"whsec_short", "no base64 !!", "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 80))} {
		if _, err := newSigner([]string{bad}); err == nil || strings.Contains(err.Error(), bad) {
			t.Errorf("secret %q: %v", bad, err)
		}
	}
}

// Every attempt carries the same key, and a body that says what happened.
func TestOwnAPI(t *testing.T) {
	d, headers, bodies := server(t, 200, `{}`)
	for range 2 {
		if r := d.Send(t.Context(), one())[0]; r.Outcome != delivery.Applied {
			t.Fatalf("%+v", r)
		}
	}
	for _, h := range *headers {
		if h.Get("Idempotency-Key") != "i" || h.Get("webhook-id") != "i" || h.Get("webhook-signature") == "" {
			t.Errorf("headers %v", h)
		}
	}
	want := `{"type":"upsert","object":"people","id":"i","data":{"id":"","match":{"field":"email","value":"ada@example.com"},"fields":{"name":"Ada Lovelace"}}}`
	if (*bodies)[0] != want {
		t.Errorf("body %s", (*bodies)[0])
	}
}

// What a status means where nothing else is said.
func TestUsual(t *testing.T) {
	for status, want := range map[int]delivery.Outcome{200: delivery.Applied, 400: delivery.Rejected, 401: delivery.Auth, 403: delivery.Config, 404: delivery.Config,
		408: delivery.Retry, 422: delivery.Rejected, 423: delivery.Retry, 425: delivery.Retry, 429: delivery.Throttled, 500: delivery.Retry, 501: delivery.Config, 503: delivery.Retry, 302: delivery.Config} {
		d, _, _ := server(t, status, `{"code":"C_1","message":"no luck with Ada Lovelace, ada@example.com, 0049 170 1234567"}`)
		r := d.Send(t.Context(), one())[0]
		if r.Outcome != want {
			t.Errorf("%d: %s, want %s", status, r.Outcome, want)
		}
		if status >= 400 && (r.VendorCode != "C_1" || strings.Contains(r.Message, "Ada") || strings.Contains(r.Message, "ada@") || strings.Contains(r.Message, "1234567")) {
			t.Errorf("%d: %s %s", status, r.VendorCode, r.Message)
		}
	}
}

// An event that broke on the way may have been taken: nobody repeats it unasked.
func TestAppendIsNotRepeated(t *testing.T) {
	d, _, _ := server(t, 500, "")
	r := one()
	r.Operation = delivery.Append
	d.spec.Objects["*"].operations[delivery.Append][0].Idempotent = false
	if got := d.Send(t.Context(), r)[0]; got.Outcome != delivery.Unknown {
		t.Errorf("%+v", got)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{"7": 7 * time.Second, "0.5": 500 * time.Millisecond, now.Add(time.Minute).Format(http.TimeFormat): time.Minute,
		now.Add(-time.Minute).Format(http.TimeFormat): 0, "": 0, "soon": 0, "-4": 0, "1e300": 48 * time.Hour} {
		if got := parseRetryAfter(text, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// Invariant 7: no value that was sent is in what is kept of the vendor's words.
func TestScrubProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.StringMatching(`[a-zA-Z0-9äöü@. -]{4,40}`).Draw(t, "value")
		if strings.TrimSpace(value) == "" {
			return
		}
		message := rapid.String().Draw(t, "before") + value + rapid.String().Draw(t, "after")
		got := scrub(message, []*delivery.Change{{Fields: []delivery.Field{{Name: "f", Value: appendText(nil, value)}}}})
		if strings.Contains(got, value) {
			t.Fatalf("%q keeps %q", got, value)
		}
		if len(got) > maxMessage+4 {
			t.Fatalf("%d bytes", len(got))
		}
	})
}

func TestFind(t *testing.T) {
	doc := decode([]byte(`{"a":{"b":[{"c":1},{"c":"two"}],"x.y":5},"list":["one"],"n":12345678901234567890}`))
	for path, want := range map[string]string{"a.b.0.c": "1", "a.b.1.c": "two", "a.b.c": "1", "list": "one", "n": "12345678901234567890", "a.b.7.c": "", "nope.x": "", "a.$match": "5"} {
		if got := text(find(doc, path, "x.y")); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// A spec that is wrong is refused with the place; none makes the loader panic.
func TestParseRefuses(t *testing.T) {
	good := "kind: destination\nname: x\nbase_url: https://x\nobjects: {o: {operations: {upsert: [{driver: json_batch, path: /x, item: {a: $id}, body: $items}]}}}\n"
	if _, err := Parse([]byte(good), "x.yaml"); err != nil {
		t.Fatal(err)
	}
	for change, want := range map[string]string{
		"driver: json_batch|driver: ftp": "driver",
		"$id|$secret":                    "unknown variable $secret",
		"path: /x|path: '/{nope}'":       "unknown placeholder {nope}",
		"name: x|name: x\nclassify: [{when: 'status ==', do: retry}]":   "classify[0].when",
		"name: x|name: x\nclassify: [{when: 'statut == 1', do: retry}]": "classify[0].when",
		"name: x|name: x\nclassify: [{when: 'status', do: retry}]":      "gives int",
		"name: x|name: x\nclassify: [{when: 'true', do: dance}]":        "classify[0].do",
		"name: x|name: x\ncolour: red":                                  "colour",
		"upsert:|upsart:":                                               "unknown operation",
		"name: x|name: x\napi: {sunset: tomorrow}":                      "api.sunset",
	} {
		old, new, _ := strings.Cut(change, "|")
		_, err := Parse([]byte(strings.Replace(good, old, new, 1)), "x.yaml")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", change, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	s := &Spec{Name: "x", API: API{Version: "1", Sunset: "2027-02-16"}}
	for day, want := range map[string]int{"2026-01-01": 0, "2026-11-22": 1, "2027-03-01": 1} {
		now, err := time.Parse(time.DateOnly, day)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Warnings(now); len(got) != want {
			t.Errorf("%s: %v", day, got)
		}
	}
}

func wants(names ...string) []Want {
	var w []Want
	for _, n := range names {
		w = append(w, Want{Name: n})
	}
	return w
}

func TestCatalogueCheck(t *testing.T) {
	c := Catalogue{Destination: "hubspot", Objects: []delivery.Object{{Name: "contacts", Match: []string{"email", "metadata.*"}, Operations: []delivery.Operation{delivery.Upsert},
		Properties: []delivery.Property{{Name: "email"}, {Name: "first_name"}, {Name: "last", Required: true}, {Name: "id", ReadOnly: true}, {Name: "metadata.*"},
			{Name: "score", Type: "number"}, {Name: "stage", Type: "enum", Values: []string{"a", "b"}}}}}}
	if errs := c.Check(Mapping{Object: "contacts", Operation: delivery.Upsert, Match: "metadata.crm", Fields: wants("last", "metadata.x")}); errs != nil {
		t.Error(errs)
	}
	for want, m := range map[string]Mapping{
		"no object":                  {Object: "people"},
		"cannot delete":              {Object: "contacts", Operation: delivery.Delete},
		"identifies contacts by":     {Object: "contacts", Operation: delivery.Upsert, Match: "last", Fields: wants("last")},
		`did you mean "email"?`:      {Object: "contacts", Operation: delivery.Upsert, Match: "emial", Fields: wants("last")},
		`did you mean "first_name"?`: {Object: "contacts", Operation: delivery.Upsert, Fields: wants("firstname", "last")},
		"read-only":                  {Object: "contacts", Operation: delivery.Upsert, Fields: wants("id", "last")},
		"required":                   {Object: "contacts", Operation: delivery.Upsert, Fields: wants("email")},
		"is number, its values are":  {Object: "contacts", Operation: delivery.Upsert, Fields: []Want{{Name: "score", Type: "text"}}},
		"takes one of a, b":          {Object: "contacts", Operation: delivery.Upsert, Fields: []Want{{Name: "stage", Text: "c"}}},
	} {
		errs := c.Check(m)
		if !slices.ContainsFunc(errs, func(f Flaw) bool { return strings.Contains(f.Says, want) }) {
			t.Errorf("%s: %v", want, errs)
		}
	}
}

// The assertion is signed with the key, for the login, and short-lived.
func TestAssertion(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load("salesforce")
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(s, Options{Credentials: Credentials{ClientID: "app", User: "ada@example.com", PrivateKey: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := d.login.(*oauth).assertion()
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(text, ".")
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], signature); err != nil {
		t.Error(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(raw, &claims); err != nil || claims["aud"] != "https://login.salesforce.com" || claims["sub"] != "ada@example.com" || claims["iss"] != "app" {
		t.Errorf("claims %v, %v", claims, err)
	}
	if _, err := Open(s, Options{Credentials: Credentials{ClientID: "app", User: "u", PrivateKey: "hunter2"}}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a key that is none: %v", err)
	}
}

func TestFileTokens(t *testing.T) {
	f := FileTokens{Dir: filepath.Join(t.TempDir(), "tokens")}
	unlock, err := f.Lock(t.Context(), "a/b")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := f.Load(t.Context(), "a/b"); b != nil || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if err := f.Save(t.Context(), "a/b", []byte("sealed")); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		other, err := f.Lock(t.Context(), "a/b")
		if err == nil {
			other()
		}
		got <- err
	}()
	select {
	case <-got:
		t.Error("two hold the lock")
	default:
	}
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
	if b, err := f.Load(t.Context(), "a/b"); string(b) != "sealed" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// Whatever a vendor answers, nothing panics and every change has an outcome
// that is not success unless it was named.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{`{"results":[{"objectWriteTraceId":"0","id":"1"}]}`, `{"results":[{"objectWriteTraceId":"1"}],"errors":[{"context":{"objectWriteTraceId":["0"]}}]}`, `[{"success":true}]`, `[]`, `{`, "\xff", `{"results":{}}`} {
		f.Add(200, []byte(seed))
		f.Add(207, []byte(seed))
		f.Add(400, []byte(seed))
	}
	s, err := Load("hubspot")
	if err != nil {
		f.Fatal(err)
	}
	d, err := Open(s, Options{Credentials: Credentials{Token: "x"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		o := s.Object("contacts")
		results := make([]delivery.Result, 2)
		b := &batch{d: d, object: o, name: "contacts", op: delivery.Upsert, action: o.operations[delivery.Upsert][1]}
		for i := range results {
			b.entries = append(b.entries, &entry{change: delivery.Change{Match: delivery.Field{Name: "email", Value: []byte(`"a` + string(rune('0'+i)) + `"`)}}, result: &results[i]})
		}
		a := &answer{status: status, body: body, header: http.Header{}, sent: true}
		if looksLikeJSON(body) {
			a.doc = decode(body)
		}
		b.settleBatch(a)
		for i, r := range results {
			if !b.entries[i].done {
				t.Fatalf("record %d has no outcome", i)
			}
			if r.Outcome == delivery.Applied && !slices.Contains([]int{200, 201, 207}, status) {
				t.Fatalf("applied by %d", status)
			}
		}
	})
}

// References are tied after their record, and only what failed is told.
func TestFormBody(t *testing.T) {
	form, err := url.ParseQuery(string(formBody([]byte(`{"email":"a@x","metadata":{"k":"v","n":1},"list":[true,null],"big":12345678901234567890}`))))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"email": "a@x", "metadata[k]": "v", "metadata[n]": "1", "list[0]": "true", "list[1]": "", "big": "12345678901234567890"} {
		if got := form.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}
