package keys

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseRef(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Ref
		ok   bool
	}{
		{"${env:A_1}", Ref{Env, "A_1"}, true},
		{"env:A", Ref{Env, "A"}, true},
		{"${file:keys/email}", Ref{File, "keys/email"}, true},
		{"file:/abs/k:v", Ref{File, "/abs/k:v"}, true},
		{"${env:1A}", Ref{}, false},
		{"${env:}", Ref{}, false},
		{"${file:}", Ref{}, false},
		{"${env:A", Ref{}, false},
		{"${kms:A}", Ref{}, false},
		{"hunter2", Ref{}, false},
		{"", Ref{}, false},
		{"${env:A}x", Ref{}, false},
		{"${file:a}${file:b}", Ref{}, false},
	} {
		got, err := ParseRef(c.in)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("ParseRef(%q) = %v, %v; want %v, ok %v", c.in, got, err, c.want, c.ok)
		}
		if err != nil && c.in == "hunter2" && strings.Contains(err.Error(), c.in) {
			t.Errorf("the error repeats its input: %v", err)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	f.Add("${env:A}")
	f.Add("file:x/y")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRef(s)
		if err != nil {
			return
		}
		again, err := ParseRef(r.String())
		if err != nil || again != r {
			t.Fatalf("%q: %v becomes %v, %v", s, r, again, err)
		}
	})
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("k", "0123456789abcdef\n", 0o600)
	write("open", "short\r\n", 0o644)
	t.Setenv("SLUICE_TEST_KEY", "from the environment")
	k, open, env := Ref{File, "k"}, Ref{File, filepath.Join(dir, "open")}, Ref{Env, "SLUICE_TEST_KEY"}
	s, err := Load(context.Background(), []Ref{k, open, env, k}, dir)
	if err != nil {
		t.Fatal(err)
	}
	for r, want := range map[Ref]string{k: "0123456789abcdef", open: "short", env: "from the environment"} {
		if got, ok := s.Key(r); !ok || string(got) != want {
			t.Errorf("Key(%v) = %q, %v", r, got, ok)
		}
	}
	if _, ok := s.Key(Ref{Env, "OTHER"}); ok {
		t.Error("a key that was not loaded is there")
	}
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0], "chmod 600") {
		t.Errorf("warnings %q", w)
	}
	if sh := s.Short(); len(sh) != 1 || sh[0] != open {
		t.Errorf("short %v", sh)
	}
	got, _ := s.Key(k)
	got[0] = 'X'
	if again, _ := s.Key(k); again[0] != '0' {
		t.Error("a caller changed the snapshot")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if p := fmt.Sprintf(verb, s); strings.Contains(p, "0123") {
			t.Errorf("%s prints a key: %s", verb, p)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "empty"), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, MaxBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	refs := []Ref{{File, "none"}, {File, "empty"}, {File, "big"}, {File, "."}, {Env, "SLUICE_TEST_UNSET"}, {"kms", "x"}}
	s, err := Load(context.Background(), refs, dir)
	if s != nil || err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"no file", "is empty", "more than", "not a regular file", "not set", `scheme "kms"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: misses %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Load(ctx, refs, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
