package badinput

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
)

// testStore is about the object store.
func testStore(t *testing.T, w *world) {
	for _, c := range []struct {
		name  string
		spoil func(p *pipe)
		wants []string
	}{
		{"s3_secret", func(p *pipe) { p.env["S3_SECRET"] = wrongSecret },
			[]string{"sink=lake", "s3: ", "s3://lake/s3_secret/", "SignatureDoesNotMatch", "check access_key and secret_key"}},
		{"s3_access", func(p *pipe) { p.env["S3_ACCESS"] = "nobody" },
			[]string{"sink=lake", "s3://lake/s3_access/", "InvalidAccessKeyId", "check access_key and secret_key"}},
		{"s3_bucket", func(p *pipe) { p.change("s3://lake/", "s3://nowhere/") },
			[]string{"sink=lake", "s3://nowhere/s3_bucket/", "NoSuchBucket", "create the bucket or correct the warehouse address"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := w.pipe(t, w.pg)
			text, access, secret := p.text, p.env["S3_ACCESS"], p.env["S3_SECRET"]
			c.spoil(p)
			p.fails(exitEnvironment, c.wants...)
			p.text, p.env["S3_ACCESS"], p.env["S3_SECRET"] = text, access, secret
			if n := p.rows("orders"); n > 0 {
				t.Errorf("table orders has %d rows", n)
			}
			if code, _ := p.run("--until-caught-up"); code != 0 {
				t.Errorf("after the repair: exit code %d", code)
			}
			p.delivered(rows)
		})
	}
	t.Run("s3_refused", func(t *testing.T) {
		t.Parallel()
		p := w.pipe(t, w.pg)
		text := p.text
		p.change("http://"+w.s3, "http://"+closedPort(t))
		p.start()
		p.noted("sink db.public.orders", "s3://lake/s3_refused/", "connection refused", "check endpoint and network")
		p.stop()
		p.text = text
		if code, _ := p.run("--until-caught-up"); code != 0 {
			t.Errorf("after the repair: exit code %d", code)
		}
		p.delivered(rows)
	})
	t.Run("s3_overloaded", func(t *testing.T) {
		t.Parallel()
		p := w.pipe(t, w.pg)
		proxy := newFront(t, w.s3)
		p.change("http://"+w.s3, proxy.URL)
		p.start()
		p.delivered(rows)
		proxy.down.Store(true)
		p.insert(rows+1, rows+5)
		p.noted("sink db.public.orders", "s3://lake/s3_overloaded/", "SlowDown", "the store asks to slow down")
		p.insert(rows+6, rows+10) // the source goes on
		p.waitFor("source db.public.orders", "published", func(s stream) bool { return s.Delivered >= rows+10 })
		proxy.down.Store(false)
		p.delivered(rows + 10)
		p.waitFor("sink db.public.orders", "no note", func(s stream) bool { return s.Note == "" && s.State == "streaming" })
		if code, _ := p.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
}

// front stands before the object store and answers 503 while it is down.
type front struct {
	*httptest.Server
	down atomic.Bool
}

func newFront(t *testing.T, s3 string) *front {
	t.Helper()
	f := &front{}
	pass := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: s3})
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.down.Load() {
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`))
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}
