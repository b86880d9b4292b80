package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "rewrite the expected texts of testdata")

type testPostgres struct {
	URL     Secret   `yaml:"url" required:"true" secret:"url" doc:"address of the database"`
	Tables  []string `yaml:"tables" required:"true" doc:"tables to read"`
	Slot    string   `yaml:"slot" doc:"replication slot"`
	Readers int      `yaml:"readers" default:"4" min:"1" max:"64" doc:"readers of the first load"`
}

type testIceberg struct {
	Catalog struct {
		SQL  Secret `yaml:"sql" oneof:"catalog" secret:"url" doc:"address of a database"`
		REST *struct {
			URI   string `yaml:"uri" required:"true" doc:"address of the catalog"`
			Token Secret `yaml:"token"`
		} `yaml:"rest" oneof:"catalog"`
	} `yaml:"catalog" required:"true" doc:"where the tables are listed"`
	Warehouse string `yaml:"warehouse" required:"true" doc:"where the files lie, such as s3://lake/shop"`
	S3        struct {
		Embedded  bool   `yaml:"embedded" oneof:"store"`
		Endpoint  string `yaml:"endpoint" oneof:"store"`
		SecretKey Secret `yaml:"secret_key"`
	} `yaml:"s3"`
	Commit struct {
		Every time.Duration `yaml:"every" default:"10s" min:"100ms" doc:"longest wait"`
		Bytes Bytes         `yaml:"bytes" default:"64MiB" min:"1KiB" doc:"most bytes"`
	} `yaml:"commit"`
	Ratio  float64           `yaml:"ratio" default:"0.5" max:"1"`
	Labels map[string]string `yaml:"labels"`
}

type testStream struct {
	Table string   `yaml:"table" required:"true" doc:"namespace.table"`
	Mode  string   `yaml:"mode" default:"upsert" enum:"append,upsert"`
	Sort  []string `yaml:"sort_by"`
}

type testHash struct {
	Field  string  `yaml:"field" required:"true"`
	Method string  `yaml:"method" default:"hmac-sha256" enum:"sha256,hmac-sha256"`
	Key    testRef `yaml:"key"`
}

// testRef is what a room may bring along to hold a reference.
type testRef struct{ text string }

func (r *testRef) UnmarshalText(b []byte) error {
	r.text = string(b)
	if !strings.HasPrefix(r.text, "${") {
		return errors.New("not a reference; want ${env:NAME} or ${file:path}")
	}
	return nil
}

func (h *testHash) Check(report func(field, problem string)) {
	if strings.HasPrefix(h.Method, "hmac") && h.Key.text == "" {
		report("key", "an hmac needs a key")
	}
}

type testFields struct {
	Fields []string `yaml:"fields" required:"true" or:"type,tagged"`
}

func testRegistry() *Registry {
	return &Registry{
		Sources: []Kind{{Name: "postgres", New: func() any { return &testPostgres{} }, StreamsField: "tables",
			Streams: func(s any) []string { return s.(*testPostgres).Tables }}},
		Sinks: []Kind{{Name: "iceberg", New: func() any { return &testIceberg{} }, NewStream: func() any { return &testStream{} },
			Target: func(s any) string { return s.(*testStream).Table }}},
		Rules: []Kind{
			{Name: "hash", New: func() any { return &testHash{} }},
			{Name: "drop", New: func() any { return &testFields{} }},
			{Name: "rename", New: func() any { return &map[string]string{} }},
		},
		SplitStream: func(ref string) (string, string, error) {
			source, local, ok := strings.Cut(ref, ".")
			if !ok || source == "" || local == "" {
				return "", "", fmt.Errorf("stream %q: want source.schema.table", ref)
			}
			return source, local, nil
		},
	}
}

const good = `
name: shop
kafka: { embedded: true }
sources:
  shop-db:
    postgres: { url: "${env:SHOP_DB_URL}", tables: [public.customers, public.orders] }
    protect:
      public.customers:
        - hash: { field: email, method: hmac-sha256, key: "${file:keys/email}" }
        - drop: { fields: [phone] }
sinks:
  lake:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/${env:BUCKET_DIR}
      s3: { embedded: true }
      labels: { a: "${env:BUCKET_DIR}", b: "$${x}" }
    streams:
      - { from: shop-db.public.orders, table: shop.orders, sort_by: [id] }
      - { from: shop-db.public.customers, table: shop.customers, mode: append, shape: [ { rename: { notes: remarks } } ] }
`

func TestGood(t *testing.T) {
	f, err := testRegistry().Parse("/etc/sluice/shop.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "shop" || f.Dir != "data" || f.Topics.Partitions != 4 || f.Local(f.Dir) != "/etc/sluice/data" || f.Topics.Retention != 168*time.Hour {
		t.Errorf("root: %+v", f)
	}
	pg := f.Sources[0].Settings.(*testPostgres)
	if pg.Readers != 4 || pg.URL.String() != "${env:SHOP_DB_URL}" || pg.URL.Value() != "" {
		t.Errorf("postgres: %+v", pg)
	}
	p := f.Sources[0].Protect[0]
	if p.Stream != "public.customers" || len(p.Rules) != 2 || p.Rules[0].Settings.(*testHash).Key.text != "${file:keys/email}" {
		t.Errorf("protect: %+v", p)
	}
	lake := f.Sinks[0].Settings.(*testIceberg)
	if lake.Commit.Every != 10*time.Second || lake.Commit.Bytes != 64<<20 || lake.Catalog.SQL.Value() != "sqlite:data/catalog.db" {
		t.Errorf("iceberg: %+v", lake)
	}
	s := f.Sinks[0].Streams[1]
	if s.Source != "shop-db" || s.Local != "public.customers" || s.Settings.(*testStream).Mode != "append" || len(s.Shape) != 1 {
		t.Errorf("stream: %+v", s)
	}
	want := []string{"env:SHOP_DB_URL", "env:BUCKET_DIR"}
	if got := f.References(); !reflect.DeepEqual(got, want) {
		t.Errorf("references %v, want %v", got, want)
	}
	values := map[string]string{"env:SHOP_DB_URL": "postgres://u:hunter2@h/db", "env:BUCKET_DIR": "dir"}
	if err := f.Resolve(func(target string) (string, error) { return values[target], nil }); err != nil {
		t.Fatal(err)
	}
	if pg.URL.Value() != values["env:SHOP_DB_URL"] || lake.Warehouse != "s3://lake/dir" {
		t.Errorf("resolved: %q %q", pg.URL.Value(), lake.Warehouse)
	}
	if lake.Labels["a"] != "dir" || lake.Labels["b"] != "${x}" {
		t.Errorf("labels: %v", lake.Labels)
	}
	if got := f.SecretValues(); !reflect.DeepEqual(got, []string{"hunter2", "postgres://u:hunter2@h/db"}) {
		t.Errorf("secrets %v", got)
	}
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "url", pg.URL, "all", pg)
	asJSON, _ := json.Marshal(pg)
	asYAML, _ := yaml.Marshal(pg)
	for _, printed := range []string{fmt.Sprintf("%v %+v %#v %s %q", pg.URL, pg, pg, pg.URL, pg.URL), logged.String(), string(asJSON), string(asYAML)} {
		if strings.Contains(printed, "hunter2") {
			t.Errorf("a secret is printed: %s", printed)
		}
	}
}

func TestResolveReportsAll(t *testing.T) {
	f, err := testRegistry().Parse("f.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	err = f.Resolve(func(target string) (string, error) { return "", fmt.Errorf("${%s} is not set", target) })
	want := `f.yaml:6:22: sources.shop-db.postgres.url: ${env:SHOP_DB_URL} is not set
f.yaml:15:18: sinks.lake.iceberg.warehouse: ${env:BUCKET_DIR} is not set
f.yaml:17:20: sinks.lake.iceberg.labels.a: ${env:BUCKET_DIR} is not set`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// TestBroken holds every message against its golden text.
func TestBroken(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d broken files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = testRegistry().Parse(filepath.Base(file), data)
			if err == nil {
				t.Fatal("the file is taken")
			}
			got, golden := err.Error()+"\n", strings.TrimSuffix(file, "yaml")+"txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || got != string(want) {
				t.Errorf("got\n%swant\n%s%v", got, want, err)
			}
			if strings.Contains(got, "hunter2") {
				t.Error("the message repeats a secret")
			}
		})
	}
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := testRegistry().JSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("sluice.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("sluice.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestJSONSchema(t *testing.T) {
	s := compileSchema(t)
	var v any
	if err := yaml.Unmarshal([]byte(good), &v); err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("the good file: %v", err)
	}
	// These mistakes are within reach of a schema.
	for _, name := range []string{"unknown-key", "missing", "wrong-types", "bad-sizes", "kind-unknown", "kinds-two", "kinds-none",
		"rule-unknown", "rule-two", "oneof-both", "oneof-none", "enum", "limits", "names", "secret-key"} {
		data, err := os.ReadFile("testdata/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := yaml.Unmarshal(data, &v); err != nil {
			t.Fatal(err)
		}
		if s.Validate(v) == nil {
			t.Errorf("%s: the schema takes it", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("a: &a [*a]\nb: *a\n"))
	f.Add([]byte("name: &x {<<: *x}\n"))
	f.Add([]byte("sources: {a: {postgres: {url: ${env:X}, tables: 1}}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := testRegistry().Parse("f.yaml", data)
		if (file == nil) == (err == nil) {
			t.Fatalf("file %v, error %v", file, err)
		}
	})
}

func TestSuggest(t *testing.T) {
	for _, c := range []struct{ word, want string }{
		{"kakfa", "kafka"}, {"sink", "sinks"}, {"Topics", "topics"}, {"zzz", ""}, {"topcis", "topics"}, {"a", ""},
	} {
		if got := nearest(c.word, []string{"kafka", "topics", "sinks", "sources"}); got != c.want {
			t.Errorf("nearest(%q) = %q, want %q", c.word, got, c.want)
		}
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{"64MiB": 64 << 20, "1.5GB": 1_500_000_000, "0B": 0, "512 KiB": 512 << 10, "3B": 3} {
		got, err := ParseBytes(text)
		if err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v", text, got, err)
		}
		if back, err := ParseBytes(got.String()); err != nil || back != got {
			t.Errorf("%d prints as %q", got, got.String())
		}
	}
	for _, text := range []string{"", "64", "MiB", "-1B", "1e300GiB", "64 MB/s", "NaNB"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("ParseBytes(%q) = %d", text, got)
		}
	}
}

// TestSelectors: a mapping may stand in the place of a text, and tags belong to tables.
func TestSelectors(t *testing.T) {
	text := strings.Replace(good, "drop: { fields: [phone] }", "drop: { fields: {tagged: pii} }\n        - drop: { fields: [phone, {type: json}] }", 1)
	text = strings.Replace(text, "    protect:", "    tags: { public.customers: { email: [pii, contact] } }\n    protect:", 1)
	f, err := testRegistry().Parse("shop.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	rules := f.Sources[0].Protect[0].Rules
	if a, b := rules[1].Settings.(*testFields).Fields, rules[2].Settings.(*testFields).Fields; !slices.Equal(a, []string{"tagged:pii"}) || !slices.Equal(b, []string{"phone", "type:json"}) {
		t.Errorf("%q %q", a, b)
	}
	if got := f.Sources[0].Tags["public.customers"]["email"]; !slices.Equal(got, []string{"pii", "contact"}) || f.Sources[0].Columns != Hold {
		t.Errorf("tags %q", got)
	}
	for _, bad := range []string{"{name: x}", "{tagged: [a]}", "{}", "{tagged: a, type: b}"} {
		if _, err := testRegistry().Parse("shop.yaml", []byte(strings.Replace(text, "{tagged: pii}", bad, 1))); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	if _, err := testRegistry().Parse("shop.yaml", []byte(strings.Replace(text, "public.customers: { email", "public.custmers: { email", 1))); err == nil || !strings.Contains(err.Error(), "did you mean") {
		t.Error(err)
	}
}

// A file with very many mistakes is answered: reporting one does not look through all others.
func TestVeryManyMistakes(t *testing.T) {
	text := "name: shop\n" + "tests:\n" + strings.Repeat("  - { name: x, stream: y, stray: 1 }\n", 20_000)
	_, err := testRegistry().Parse("many.yaml", []byte(text))
	var problems Problems
	if !errors.As(err, &problems) || len(problems) < 40_000 {
		t.Errorf("%d problems", len(problems))
	}
}
