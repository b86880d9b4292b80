package files

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/sluice-data/sluice/ingest/files/drive"
	"github.com/sluice-data/sluice/ingest/files/drivetest"
	"github.com/sluice-data/sluice/ingest/files/graph"
	"github.com/sluice-data/sluice/ingest/files/root"
)

// follower is a session whose passes the test makes.
func (w *world) follower(place Root) (pass func()) {
	w.t.Helper()
	cfg := Config{Name: "docs", Dir: w.state, Open: func(context.Context) (Root, error) { return place, nil }, Permissions: true, MaxGone: 1}
	s, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	st, err := openState(w.t.Context(), w.state)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(st.close)
	ss := &session{s: s, out: w.brokers, st: st, root: place, began: time.Now().UnixMicro()}
	if err := ss.open(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return func() {
		w.t.Helper()
		if err := ss.pass(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
}

func openDrive(t *testing.T, tr *drivetest.Tree) Root {
	t.Helper()
	d, err := drive.Open(drive.Config{Folder: "top", ClientID: "app", ClientSecret: drivetest.Secret, RefreshToken: "r",
		API: tr.API(), TokenURL: tr.TokenURL(), Private: true})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func openGraph(t *testing.T, tr *drivetest.Tree) Root {
	t.Helper()
	d, err := graph.Open(graph.Config{Tenant: "t", ClientID: "app", ClientSecret: drivetest.Secret, Drive: "lib",
		API: tr.API(), TokenURL: tr.TokenURL(), Private: true})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDrives leads both drives through the same life.
func TestDrives(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name  string
		serve func(testing.TB) *drivetest.Tree
		open  func(*testing.T, *drivetest.Tree) Root
	}{{"google", drivetest.Google, openDrive}, {"microsoft", drivetest.Microsoft, openGraph}} {
		t.Run(kind.name, func(t *testing.T) { t.Parallel(); life(t, kind.serve(t), kind.open) })
	}
}

func life(t *testing.T, tr *drivetest.Tree, open func(*testing.T, *drivetest.Tree) Root) {
	tr.Put(drivetest.Node{ID: "f1", Name: "Reports", Folder: true})
	tr.Put(drivetest.Node{ID: "f2", Name: "2026", Folder: true, Parent: "f1"})
	tr.Put(drivetest.Node{ID: "a", Name: "a.txt", Content: "text a", MIME: "text/plain", Readers: []string{"user:Anna@x.example", "group:eng@x.example", "user:bob@x.example"}})
	tr.Put(drivetest.Node{ID: "b", Name: "b.txt", Parent: "f2", Content: "text b", MIME: "text/plain", Readers: []string{"anyone:"}})
	tr.Put(drivetest.Node{ID: "c", Name: "c.txt", Parent: "f2", Content: "text c", MIME: "text/plain"})
	tr.Put(drivetest.Node{ID: "h", Name: "hidden.txt", Content: "text h", MIME: "text/plain", Readers: []string{"anyone:"}})
	tr.Hide("h")
	tr.Throttle(1)
	w := newWorld(t, nil)
	pass := w.follower(open(t, tr))
	pass()
	w.want("read a.txt", "read Reports/2026/b.txt", "read Reports/2026/c.txt", "read hidden.txt")
	if tr.Asked["throttled"] != 1 {
		t.Errorf("throttled %d times", tr.Asked["throttled"])
	}
	for path, want := range map[string]string{"a.txt": `{"allow":["group:eng@x.example","user:anna@x.example","user:bob@x.example"],"deny":[]}`,
		"Reports/2026/b.txt": `{"allow":["public"],"deny":[]}`, "Reports/2026/c.txt": `{"allow":[],"deny":[]}`, "hidden.txt": ""} {
		if d := w.files()[path]; strings.ToLower(d.acl) != want || d.body == "" {
			t.Errorf("%s: %+v, want acl %s", path, d, want)
		}
	}
	lists, downloads := tr.Asked["list"], tr.Asked["download"]
	pass()
	w.want()
	tr.Edit("a", func(n *drivetest.Node) { n.Content = "changed" })
	tr.Put(drivetest.Node{ID: "n", Name: "new.txt", Parent: "f1", Content: "new", MIME: "text/plain", Readers: []string{"anyone:"}})
	pass()
	w.want("update a.txt", "insert Reports/new.txt")
	tr.Edit("b", func(n *drivetest.Node) { n.Readers = []string{"user:bob@x.example"} })
	pass()
	w.want("update Reports/2026/b.txt light")
	if got := w.files()["Reports/2026/b.txt"]; got.acl != `{"allow":["user:bob@x.example"],"deny":[]}` || got.body != "text b" {
		t.Errorf("after the permission was revoked: %+v", got)
	}
	tr.Edit("c", func(n *drivetest.Node) { n.Parent, n.Name = "f1", "moved.txt" })
	tr.Remove("n")
	pass()
	w.want("delete Reports/2026/c.txt", "insert Reports/moved.txt", "delete Reports/new.txt")
	if tr.Asked["list"] != lists || tr.Asked["download"] > downloads+5 {
		t.Errorf("%d listings after %d, %d downloads after %d", tr.Asked["list"], lists, tr.Asked["download"], downloads)
	}
	tr.Edit("f2", func(n *drivetest.Node) { n.Name = "2027" }) // its files move with it and are not told
	pass()
	w.want("delete Reports/2026/b.txt", "insert Reports/2027/b.txt")
	tr.Remove("h")
	tr.Forget()
	pass()
	w.want("delete hidden.txt")
	if len(w.files()) != 3 {
		t.Errorf("files: %v", w.files())
	}
}

// TestGoogleOwnDocuments are exported; two files of one name are told apart.
func TestGoogleOwnDocuments(t *testing.T) {
	tr := drivetest.Google(t)
	tr.Put(drivetest.Node{ID: "g", Name: "Plan", Google: true, Content: "exported", Readers: []string{"anyone:"}})
	tr.Put(drivetest.Node{ID: "x1", Name: "same.txt", Content: "one"})
	tr.Put(drivetest.Node{ID: "x2", Name: "same.txt", Content: "two"})
	tr.Put(drivetest.Node{ID: "odd", Name: "../up/..", Content: "odd"})
	w := newWorld(t, nil)
	pass := w.follower(openDrive(t, tr))
	pass()
	w.want("read Plan", "read same.txt", "read same (x2).txt", "read ..∕up∕..")
	if d := w.files()["Plan"]; d.body != "exported" || !strings.Contains(d.mime, "wordprocessingml") {
		t.Errorf("Plan: %+v", d)
	}
	tr.Edit("x2", func(n *drivetest.Node) { n.Content = "second" })
	pass()
	w.want("update same (x2).txt")
	if d := w.files()["same.txt"]; d.body != "one" {
		t.Errorf("same.txt: %+v", d)
	}
}

func TestDriveLoginHoldsNoSecret(t *testing.T) {
	tr := drivetest.Google(t)
	d, err := drive.Open(drive.Config{Folder: "top", ClientID: "app", ClientSecret: "wrong-s3cret", RefreshToken: "r3fresh", API: tr.API(),
		TokenURL: tr.TokenURL(), Private: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "invalid_client") {
		t.Errorf("want invalid_client, got %v", err)
	} else if s := err.Error(); strings.Contains(s, "wrong-s3cret") || strings.Contains(s, "r3fresh") || strings.Contains(s, tr.API()) {
		t.Errorf("the error tells too much: %s", s)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	form, err := root.AssertionForm("a@b", "k", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "", "s", "aud")
	if err != nil {
		t.Fatal(err)
	}
	v, err := form(time.Unix(0, 0))
	if err != nil || strings.Count(v.Get("assertion"), ".") != 2 {
		t.Errorf("assertion %q, %v", v.Get("assertion"), err)
	}
	account, _ := json.Marshal(map[string]string{"client_email": "a@b", "private_key": "none"})
	if _, err := drive.Open(drive.Config{Folder: "x", ServiceAccount: account}); err == nil {
		t.Error("a service account without a key was taken")
	}
}
