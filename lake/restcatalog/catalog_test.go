package restcatalog

import (
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	_ "modernc.org/sqlite"
)

const metadata = `{"format-version":2,"table-uuid":"u","last-updated-ms":1700000000000,"big":12345678901234567890,"properties":{"a<b":"&"}}`

// fixture is a catalog made by hand; files are the metadata files.
type fixture struct {
	db    *sql.DB
	files map[string][]byte
	reads []string
	read  func(location string) // before each read
}

func packed(s string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.Bytes()
}

func newFixture(t *testing.T, typed bool) *fixture {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	kind, view := "", ""
	if typed {
		kind, view = ", iceberg_type VARCHAR", ", 'VIEW'"
	}
	statements := []string{
		`CREATE TABLE iceberg_tables (catalog_name VARCHAR NOT NULL, table_namespace VARCHAR NOT NULL, table_name VARCHAR NOT NULL,
			metadata_location VARCHAR, previous_metadata_location VARCHAR` + kind + `, PRIMARY KEY (catalog_name, table_namespace, table_name))`,
		`CREATE TABLE iceberg_namespace_properties (catalog_name VARCHAR NOT NULL, namespace VARCHAR NOT NULL, property_key VARCHAR NOT NULL,
			property_value VARCHAR, PRIMARY KEY (catalog_name, namespace, property_key))`,
		`INSERT INTO iceberg_namespace_properties VALUES ('shop','shop','exists','true'), ('shop','shop','owner','Zoë'),
			('shop','empty','exists','true'), ('shop','a.b','exists','true'), ('other','secret','exists','true'),
			('shop','__iceberg_namespace_v1__:["x.y","z"]','exists','true')`,
		`INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location) VALUES
			('shop','shop','orders','s3://lake/shop/orders/metadata/00001.metadata.json'),
			('shop','shop','customers','s3://lake/shop/customers/metadata/00001.gz.metadata.json'),
			('shop','shop','gone','s3://lake/shop/gone/metadata/00001.metadata.json'),
			('shop','shop','broken','s3://lake/shop/broken/metadata/00001.metadata.json'),
			('shop','a.b.c','odd name/%','s3://lake/odd.metadata.json'),
			('shop','__iceberg_namespace_v1__:["x.y","z"]','dotted','s3://lake/odd.metadata.json'),
			('other','secret','t','s3://lake/other.metadata.json')`,
	}
	if typed {
		statements = append(statements, `INSERT INTO iceberg_tables VALUES ('shop','shop','a_view','s3://lake/v.json',NULL`+view+`)`)
	}
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	return &fixture{db: db, files: map[string][]byte{
		"s3://lake/shop/orders/metadata/00001.metadata.json":       []byte(metadata),
		"s3://lake/shop/orders/metadata/00002.metadata.json":       []byte(`{"second":true}`),
		"s3://lake/shop/customers/metadata/00001.gz.metadata.json": packed(metadata),
		"s3://lake/shop/broken/metadata/00001.metadata.json":       []byte("<html>"),
		"s3://lake/odd.metadata.json":                              []byte(metadata),
	}}
}

func (f *fixture) handler() http.Handler {
	return New(Config{
		DB: f.db, Catalog: "shop", Warehouse: "s3://lake/shop",
		ReadMetadata: func(_ context.Context, location string) ([]byte, error) {
			if f.read != nil {
				f.read(location)
			}
			f.reads = append(f.reads, location)
			if b, ok := f.files[location]; ok {
				return b, nil
			}
			return nil, errors.New("no such object")
		},
		S3:     S3{Endpoint: "http://127.0.0.1:9000", Region: "us-east-1", PathStyle: true, AccessKey: "READER", SecretKey: "hush"},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
}

func do(h http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://127.0.0.1:8181"+target, strings.NewReader("{}"))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAnswers(t *testing.T) {
	for _, typed := range []bool{false, true} {
		h := newFixture(t, typed).handler()
		for _, c := range []struct {
			method, target string
			code           int
			body           string // "" is none
		}{
			{"GET", "/v1/namespaces", 200, `{"namespaces":[["a"],["empty"],["shop"],["x.y"]]}`},
			{"GET", "/v1/shop/namespaces", 200, `{"namespaces":[["a"],["empty"],["shop"],["x.y"]]}`},
			{"GET", "/v1/namespaces?parent=a", 200, `{"namespaces":[["a","b"]]}`},
			{"GET", "/v1/namespaces?parent=a%1Fb", 200, `{"namespaces":[["a","b","c"]]}`},
			{"GET", "/v1/namespaces?parent=shop", 200, `{"namespaces":[]}`},
			{"GET", "/v1/namespaces?parent=nope", 404, `{"error":{"code":404,"message":"no namespace nope","type":"NoSuchNamespaceException"}}`},
			{"GET", "/v1/namespaces/shop", 200, `{"namespace":["shop"],"properties":{"owner":"Zoë"}}`},
			{"GET", "/v1/namespaces/a", 200, `{"namespace":["a"],"properties":{}}`},
			{"GET", "/v1/namespaces/secret", 404, `{"error":{"code":404,"message":"no namespace secret","type":"NoSuchNamespaceException"}}`},
			{"HEAD", "/v1/namespaces/shop", 204, ``},
			{"HEAD", "/v1/namespaces/nope", 404, `*`},
			{"GET", "/v1/namespaces/empty/tables", 200, `{"identifiers":[]}`},
			{"GET", "/v1/namespaces/shop/tables", 200, `{"identifiers":[{"namespace":["shop"],"name":"broken"},{"namespace":["shop"],"name":"customers"},{"namespace":["shop"],"name":"gone"},{"namespace":["shop"],"name":"orders"}]}`},
			{"GET", "/v1/namespaces/a%1Fb%1Fc/tables", 200, `{"identifiers":[{"namespace":["a","b","c"],"name":"odd name/%"}]}`},
			{"GET", "/v1/namespaces/x.y%1Fz/tables", 200, `{"identifiers":[{"namespace":["x.y","z"],"name":"dotted"}]}`},
			{"GET", "/v1/namespaces/nope/tables", 404, `{"error":{"code":404,"message":"no namespace nope","type":"NoSuchNamespaceException"}}`},
			{"HEAD", "/v1/namespaces/shop/tables/orders", 204, ``},
			{"HEAD", "/v1/shop/namespaces/shop/tables/orders", 204, ``},
			{"HEAD", "/v1/namespaces/a%1Fb%1Fc/tables/odd%20name%2F%25", 204, ``},
			{"HEAD", "/v1/shop/namespaces/a%1Fb%1Fc/tables/odd%20name%2F%25", 204, ``},
			{"HEAD", "/v1/namespaces/shop/tables/a_view", 404, `*`},
			{"GET", "/v1/namespaces/shop/tables/nope", 404, `{"error":{"code":404,"message":"no table shop.nope","type":"NoSuchTableException"}}`},
			{"GET", "/v1/namespaces/secret/tables/t", 404, `{"error":{"code":404,"message":"no table secret.t","type":"NoSuchTableException"}}`},
			{"GET", "/v1/namespaces/shop/tables/gone", 503, `{"error":{"code":503,"message":"metadata of shop.gone: no such object","type":"ServiceUnavailableException"}}`},
			{"GET", "/v1/namespaces/shop/tables/broken", 503, `{"error":{"code":503,"message":"metadata of shop.broken: s3://lake/shop/broken/metadata/00001.metadata.json is not JSON","type":"ServiceUnavailableException"}}`},
			{"GET", "/v1/namespaces/shop/views", 200, `{"identifiers":[]}`},
			{"GET", "/v1/namespaces/shop/views/v", 404, `{"error":{"code":404,"message":"no view shop.v","type":"NoSuchViewException"}}`},
			{"POST", "/v1/namespaces/shop/tables/orders/metrics", 204, ``},
			{"POST", "/v1/namespaces/shop/tables/orders", 403, `*read-only`},
			{"POST", "/v1/namespaces", 403, `*read-only`},
			{"DELETE", "/v1/namespaces/shop/tables/orders", 403, `*read-only`},
			{"POST", "/v1/transactions/commit", 403, `*read-only`},
			{"POST", "/v1/shop/transactions/commit", 403, `*read-only`},
			{"PROPFIND", "/v1/namespaces", 405, `*PROPFIND`},
			{"POST", "/v1/oauth/tokens", 404, `*no token`},
			{"GET", "/v1/prod/namespaces", 404, `*no catalog prod here, only shop`},
			{"GET", "/v2/x", 404, `*no such address`},
			{"GET", "/", 404, `*no such address`},
		} {
			w := do(h, c.method, c.target)
			got := w.Body.String()
			part, loose := strings.CutPrefix(c.body, "*")
			if w.Code != c.code || !loose && got != c.body || !strings.Contains(got, part) {
				t.Errorf("%s %s: %d %s", c.method, c.target, w.Code, got)
			}
			if c.code >= 400 && !strings.Contains(got, `"type":`) {
				t.Errorf("%s %s: %s is no Iceberg error", c.method, c.target, got)
			}
		}
	}
}

func TestConfig(t *testing.T) {
	w := do(newFixture(t, true).handler(), "GET", "/v1/config?warehouse=any", delegationHeader, "vended-credentials")
	var got struct {
		Defaults, Overrides map[string]string
		Endpoints           []string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
		t.Fatal(w.Code, err)
	}
	want := map[string]string{"warehouse": "s3://lake/shop", "s3.endpoint": "http://127.0.0.1:9000", "s3.region": "us-east-1",
		"client.region": "us-east-1", "s3.path-style-access": "true"}
	if !reflect.DeepEqual(got.Defaults, want) || got.Overrides == nil || len(got.Endpoints) != len(endpoints) {
		t.Fatalf("%+v", got)
	}
	if strings.Contains(w.Body.String(), "hush") {
		t.Fatal("keys in the configuration")
	}
}

type loaded struct {
	Location    string              `json:"metadata-location"`
	Metadata    json.RawMessage     `json:"metadata"`
	Config      map[string]string   `json:"config"`
	Credentials []storageCredential `json:"storage-credentials"`
}

func load(t *testing.T, w *httptest.ResponseRecorder) loaded {
	t.Helper()
	var l loaded
	if err := json.Unmarshal(w.Body.Bytes(), &l); err != nil || w.Code != 200 {
		t.Fatal(w.Code, w.Body.String(), err)
	}
	return l
}

func TestLoadTable(t *testing.T) {
	h := newFixture(t, true).handler()
	for _, table := range []string{"orders", "customers"} {
		l := load(t, do(h, "GET", "/v1/namespaces/shop/tables/"+table+"?snapshots=all"))
		if string(l.Metadata) != metadata || !strings.Contains(l.Location, table) {
			t.Errorf("%s: %s %s", table, l.Location, l.Metadata)
		}
		if l.Config["s3.endpoint"] == "" || l.Config["s3.secret-access-key"] != "" || l.Credentials != nil {
			t.Errorf("%s: %v %v", table, l.Config, l.Credentials)
		}
	}
}

func TestKeysOnlyForThoseWhoAsk(t *testing.T) {
	f := newFixture(t, true)
	h := f.handler()
	const target = "/v1/namespaces/shop/tables/orders"
	l := load(t, do(h, "GET", target, delegationHeader, "vended-credentials,remote-signing"))
	if l.Config["s3.access-key-id"] != "READER" || l.Config["s3.secret-access-key"] != "hush" {
		t.Fatal(l.Config)
	}
	if len(l.Credentials) != 1 || l.Credentials[0].Prefix != "s3://lake" || !reflect.DeepEqual(l.Credentials[0].Config, l.Config) {
		t.Fatal(l.Credentials)
	}
	if l := load(t, do(h, "GET", target, delegationHeader, "remote-signing")); l.Config["s3.secret-access-key"] != "" {
		t.Fatal(l.Config)
	}
	for host, code := range map[string]int{"localhost:1": 200, "[::1]:1": 200, "::1": 200, "10.0.0.1": 200, "evil.example:8181": 403, "": 403} {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		r.Host = host
		r.Header.Set(delegationHeader, "vended-credentials")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != code || code != 200 && strings.Contains(w.Body.String(), "hush") {
			t.Errorf("host %q: %d", host, w.Code)
		}
	}
}

func TestUnchangedTableIsNotSentAgain(t *testing.T) {
	f := newFixture(t, true)
	h := f.handler()
	const target = "/v1/namespaces/shop/tables/orders"
	tag := do(h, "GET", target).Header().Get("ETag")
	if w := do(h, "GET", target, "If-None-Match", tag); w.Code != 304 || w.Body.Len() != 0 {
		t.Fatal(w.Code)
	}
	if w := do(h, "GET", target, "If-None-Match", tag, delegationHeader, "vended-credentials"); w.Code != 200 {
		t.Fatal(w.Code)
	}
	f.commit(t)
	if w := do(h, "GET", target, "If-None-Match", tag); w.Code != 200 || w.Header().Get("ETag") == tag {
		t.Fatal(w.Code)
	}
}

func (f *fixture) commit(t *testing.T) {
	t.Helper()
	_, err := f.db.Exec(`UPDATE iceberg_tables SET metadata_location = 's3://lake/shop/orders/metadata/00002.metadata.json' WHERE table_name = 'orders'`)
	if err != nil {
		t.Error(err)
	}
}

// A commit may delete the metadata file between the two reads of a load.
func TestMetadataReplacedWhileLoading(t *testing.T) {
	f := newFixture(t, true)
	f.read = func(location string) {
		if strings.Contains(location, "00001") {
			f.commit(t)
			delete(f.files, location)
		}
	}
	l := load(t, do(f.handler(), "GET", "/v1/namespaces/shop/tables/orders"))
	if string(l.Metadata) != `{"second":true}` || !strings.Contains(l.Location, "00002") {
		t.Fatal(l.Location, string(l.Metadata), f.reads)
	}
}

func TestDatabaseGone(t *testing.T) {
	f := newFixture(t, true)
	h := f.handler()
	f.db.Close()
	for _, target := range []string{"/v1/namespaces", "/v1/namespaces/shop/tables", "/v1/namespaces/shop/tables/orders"} {
		if w := do(h, "GET", target); w.Code != 503 || !strings.Contains(w.Body.String(), "read catalog shop") {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}

func TestNamespaceKeys(t *testing.T) {
	for _, n := range []namespace{{"a"}, {"a", "b"}, {"a.b"}, {"a.b", "c"}, {encodedNamespace + "x"}, {"ä", "\x1e"}} {
		if got := namespaceOfKey(n.key()); !reflect.DeepEqual(got, n) {
			t.Errorf("%q: %q: %q", n, n.key(), got)
		}
	}
}

func FuzzPath(f *testing.F) {
	h := New(Config{Catalog: "c", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	f.Add("/v1/c/config")
	f.Add("/v1/%zz/x")
	f.Add("//v1/../c")
	f.Fuzz(func(t *testing.T, path string) {
		r := httptest.NewRequest(http.MethodPut, "/", nil)
		r.URL.Path, r.URL.RawPath = path, path
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code < 300 || w.Code >= 500 {
			t.Fatal(fmt.Sprint(w.Code, path))
		}
	})
}
