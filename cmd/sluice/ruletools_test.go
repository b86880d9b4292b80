package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/mappers"
	"github.com/sluice-data/sluice/record"
)

const ruleFile = `name: shop
kafka: { embedded: true }
sources:
  db:
    postgres: { url: "${env:SLUICE_TEST_URL}", tables: [public.people] }
    protect:
      public.people:
        - hash: { field: email, key: "${ring:keys/r}" }
        - drop: { fields: [phone] }
sinks:
  lake:
    iceberg: { catalog: { sql: "sqlite:data/catalog.db" }, warehouse: s3://lake/shop, s3: { embedded: true } }
    streams: [ { from: db.public.people, table: shop.people, shape: [ { filter: { where: "price > 1" } } ] } ]
tests:
`

const people1 = `  - name: %NAME%
    stream: db.public.people
    sink: lake
    columns: { id: int64, email: text, phone: text, price: "decimal(10,2)", tags: "text[]", doc: json, at: timestamptz, ok: bool }
    key: [id]
`

// TestRuleTests runs tests of a file that pass, fail in every way, and are wrong.
func TestRuleTests(t *testing.T) {
	row := `{ id: 1, email: a@b.c, phone: "+49", price: 1.5, tags: [x, "y"], doc: { b: 1, a: [1, null] }, at: "2024-02-29T12:00:00Z", ok: true }`
	want := `{ id: 1, email: { matches: "^[0-9a-f]{64}$" }, price: 1.50, tags: [x, y], doc: '{"a":[1,null],"b":1}', at: "2024-02-29T12:00:00.000000Z", ok: true }`
	for _, c := range []struct {
		name, body string
		code       int
		says       string
	}{
		{"passes", "    rows: [ " + row + " ]\n    want: [ " + want + " ]\n", exitOK, "1 test passed, 0 failed"},
		{"other value", "    rows: [ " + row + " ]\n    want: [ " + strings.Replace(want, "1.50", "1.51", 1) + " ]\n", exitFailure, "price: want 1.51, got 1.5"},
		{"no hash", "    rows: [ " + row + " ]\n    want: [ " + strings.Replace(want, "[0-9a-f]{64}", "a@b.c", 1) + " ]\n", exitFailure, "email: does not match"},
		{"dropped is wanted", "    rows: [ " + row + " ]\n    want: [ " + strings.Replace(want, "id: 1,", "id: 1, phone: x,", 1) + " ]\n", exitFailure, "phone is wanted and is no field"},
		{"field forgotten", "    rows: [ " + row + " ]\n    want: [ " + strings.Replace(want, ", ok: true", "", 1) + " ]\n", exitFailure, "ok is not wanted and came out"},
		{"row too many", "    rows: [ " + row + " ]\n", exitFailure, "+ { id: 1"},
		{"row too few", "    rows: []\n    want: [ " + want + " ]\n", exitFailure, "- { id: 1"},
		{"filtered", "    rows: [ " + strings.Replace(row, "1.5", "0.5", 1) + " ]\n    filtered: 1\n", exitOK, "1 test passed"},
		{"not filtered", "    rows: [ " + strings.Replace(row, "1.5", "0.5", 1) + " ]\n", exitFailure, "+ filtered: 1"},
		{"delete", "    rows: [ { _op: delete, id: 1, price: 2 } ]\n    want: [ { _op: delete, id: 1 } ]\n", exitOK, "1 test passed"},
		{"wrong type", "    rows: [ { id: one } ]\n", exitInvalid, "rows[0]"},
		{"no column", "    rows: [ { nope: 1 } ]\n", exitInvalid, "nope is no column"},
		{"missing field of a rule", "", exitInvalid, "email"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := ruleFile + strings.Replace(people1, "%NAME%", c.name, 1) + c.body
			if c.body == "" {
				text = strings.Replace(text, "email: text, ", "", 1) + "    rows: [ { id: 1 } ]\n"
			}
			path := writeFile(t, filepath.Join(t.TempDir(), "sluice.yaml"), text)
			code, out, errs := run("test", "-c", path)
			if code != c.code || !strings.Contains(out+errs, c.says) {
				t.Errorf("exit %d, want %d and %q\n%s%s", code, c.code, c.says, out, errs)
			}
			code, out, _ = run("test", "-c", path, "--json")
			var e envelope
			if err := json.Unmarshal([]byte(out), &e); code != c.code || err != nil {
				t.Errorf("--json: exit %d, %v\n%s", code, err, out)
			}
		})
	}
	path := writeFile(t, filepath.Join(t.TempDir(), "sluice.yaml"), strings.TrimSuffix(ruleFile, "tests:\n"))
	if code, _, errs := run("test", "-c", path); code != exitInvalid || !strings.Contains(errs, "no tests: section") {
		t.Errorf("without tests: exit %d\n%s", code, errs)
	}
	path = writeFile(t, path, ruleFile+"  - { name: a, stream: db.public.nobody, columns: {id: int64} }\n")
	if code, _, errs := run("test", "-c", path); code != exitInvalid || !strings.Contains(errs, "tests[0].stream") {
		t.Errorf("unknown stream: exit %d\n%s", code, errs)
	}
}

// TestMadeUpKeys: rules of every method can be tested and explained without their keys.
func TestMadeUpKeys(t *testing.T) {
	for _, method := range []string{"aes-gcm", "aes-siv", "rsa-oaep", "rsa-hybrid", "aes-cbc", "aes-ctr"} {
		text := strings.Replace(ruleFile, `hash: { field: email, key: "${ring:keys/r}" }`, `encrypt: { field: email, key: "${file:keys/k}", method: `+method+" }", 1) +
			strings.Replace(people1, "%NAME%", method, 1) + "    rows: [ { id: 1, email: a@b.c, price: 2 } ]\n" +
			`    want: [ { id: 1, email: { matches: "^[-_.=+/0-9A-Za-z]{20,}$" }, price: 2.00, tags: null, doc: null, at: null, ok: null } ]` + "\n"
		path := writeFile(t, filepath.Join(t.TempDir(), "sluice.yaml"), text)
		if code, out, errs := run("test", "-c", path); code != exitOK {
			t.Errorf("%s: exit %d\n%s%s", method, code, out, errs)
		}
	}
}

// TestLiveChain: keys change between batches; without one nothing goes on.
func TestLiveChain(t *testing.T) {
	dir := t.TempDir()
	path := writeFile(t, filepath.Join(dir, "sluice.yaml"), strings.TrimSuffix(ruleFile, "tests:\n"))
	f, err := registry().Load(path)
	if err != nil {
		t.Fatal(err)
	}
	ref := keys.Ref{Scheme: keys.RingFile, Name: "keys/r"}
	now := keys.Fixed(map[keys.Ref][]byte{ref: []byte("0123456789abcdef0123456789abcdef")})
	c := chains{f: f, keys: func() *keys.Snapshot { return now }}
	s := (&record.Schema{Stream: record.StreamName{Source: "db", Namespace: "public", Name: "people"}, Fields: []record.Field{
		{Name: "id", Kind: record.Int64, Key: 1}, {Name: "email", Kind: record.Text, Nullable: true}, {Name: "phone", Kind: record.Text, Nullable: true}}}).Seal()
	batch := func() *record.Batch {
		b := record.NewBatch(s, nil)
		b.Ops, b.Pos, b.Time = append(b.Ops, record.OpRead), append(b.Pos, record.Position{}), append(b.Time, 0)
		b.After[0].AppendInt64(1)
		b.After[1].AppendData([]byte("canary"))
		b.After[2].AppendData([]byte("x"))
		return b
	}
	live, err := c.live("db.public.people", f.Sources[0].Protect[0].Rules, s, mappers.Protect)
	if err != nil {
		t.Fatal(err)
	}
	apply := func() (string, string) {
		t.Helper()
		out, _, _, err := live.Apply(batch())
		if err != nil {
			t.Fatal(err)
		}
		return string(out.After[1].Value(0)), out.Schema.Mapping
	}
	first, version := apply()
	if again, v := apply(); again != first || v != version || version == "" {
		t.Error("the same key gives something else")
	}
	now = keys.Fixed(map[keys.Ref][]byte{ref: []byte("another key, another hash, 32 by")})
	if other, v := apply(); other == first || v == version {
		t.Error("a new stable key is not used, or not told")
	}
	now = keys.Open(context.Background(), []keys.Ref{ref}, dir, nil)
	out, _, _, err := live.Apply(batch())
	if err == nil || out != nil || !strings.Contains(err.Error(), "keys/r") || strings.Contains(err.Error(), "canary") {
		t.Errorf("without its key: %v, %v", out, err)
	}
	if _, err := c.live("db.public.people", f.Sources[0].Protect[0].Rules, s, mappers.Protect); err == nil {
		t.Error("rules compile without their key")
	}
	var problems config.Problems
	if _, err := openKeys(context.Background(), f, keys.KeeperConfig{Start: 1}); !errors.As(err, &problems) || problems[0].Path != "sources.db.protect.public.people[0].hash.key" {
		t.Errorf("a missing file: %v", err)
	}
}

// TestMasked: nothing long stays readable.
func TestMasked(t *testing.T) {
	for in, want := range map[string]string{"": "", "null": "null", "1042": "•••", "anna@example.com": "a•••@ex•••.com", "+49 171 5550123": "+4•••", "ab@c": "•••"} {
		if got := masked(in); got != want {
			t.Errorf("masked(%q) = %q, want %q", in, got, want)
		}
	}
	if got := shortened("a\x1b[31mb"); strings.Contains(got, "\x1b") {
		t.Errorf("a value steers the terminal: %q", got)
	}
}

// TestKeysCommand: no output of any command has a key.
func TestKeysCommand(t *testing.T) {
	dir := t.TempDir()
	path := writeFile(t, filepath.Join(dir, "sluice.yaml"), strings.TrimSuffix(ruleFile, "tests:\n"))
	ring := filepath.Join(dir, "keys", "r")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"keys", "verify"}, exitEnvironment, "no file"},
		{[]string{"keys", "new", ring, "--wrap", "nobody"}, exitInvalid, "want aws-kms:KEY"},
		{[]string{"keys", "new", ring}, exitOK, "${ring:keys/r}"},
		{[]string{"keys", "new", ring}, exitEnvironment, "there already"},
		{[]string{"keys", "rotate", ring}, exitOK, "primary"},
		{[]string{"keys", "disable", ring, "00000000"}, exitEnvironment, "no version"},
		{[]string{"keys", "rewrap", ring, "--wrap", "x"}, exitInvalid, "--wrap"},
		{[]string{"keys", "list"}, exitOK, "stable"},
		{[]string{"keys", "verify"}, exitOK, "1 key"},
		{[]string{"decrypt"}, exitInvalid, "--key"},
		{[]string{"decrypt", "--stream", "db.public.people", "--field", "email"}, exitInvalid, "no encrypt rule"},
		{[]string{"erase", "x"}, exitInvalid, "no rule"},
		{[]string{"explain", "db.public.nobody"}, exitInvalid, "there are db.public.people"},
	} {
		code, out, errs := run(append(c.args, "-c", path)...)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("sluice %q: exit %d, want %d and %q\n%s%s", c.args, code, c.code, c.says, out, errs)
		}
		text, err := os.ReadFile(ring)
		if err != nil {
			continue
		}
		var file struct{ Keys []struct{ Key string } }
		if err := json.Unmarshal(text, &file); err != nil {
			t.Fatal(err)
		}
		for _, k := range file.Keys {
			if strings.Contains(out+errs, k.Key) {
				t.Errorf("sluice %q shows a key", c.args)
			}
		}
	}
	info, err := os.Stat(ring)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the ring: %v, %v", info, err)
	}
}

// TestDocumentedTests: the tests in the documentation pass.
func TestDocumentedTests(t *testing.T) {
	text, err := os.ReadFile("../../docs/changing-rules.md")
	if err != nil {
		t.Fatal(err)
	}
	m := fence.FindSubmatch(text)
	if m == nil {
		t.Fatal("no example")
	}
	path := writeFile(t, filepath.Join(t.TempDir(), "sluice.yaml"), string(m[1]))
	if code, out, errs := run("test", "-c", path); code != exitOK {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}
