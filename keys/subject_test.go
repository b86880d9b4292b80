package keys

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openSubjects(t *testing.T, path string, r *Ring) *Subjects {
	t.Helper()
	s, err := OpenSubjects(path, r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSubjects: two processes make, share, lose and never get back keys.
func TestSubjects(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subjects", "k.keys")
	ring := newRing(t, Wrap{}, nil)
	a, b := openSubjects(t, path, ring), openSubjects(t, path, ring)
	anna, bob := []byte("anna@example.com"), []byte("bob")
	ensure := func(s *Subjects, who ...[]byte) {
		t.Helper()
		if err := s.Ensure(who); err != nil {
			t.Fatal(err)
		}
	}
	ensure(a, anna, bob, anna)
	ensure(b, bob, anna)
	key, ok := a.Key(anna)
	other, _ := b.Key(anna)
	if !ok || !bytes.Equal(key, other) || len(key) != RingBytes {
		t.Fatal("two processes have different keys")
	}
	if got, ok := b.ByID(ID(key)); !ok || !bytes.Equal(got, key) {
		t.Error("a key is not found by its id")
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(text), "anna") || strings.Contains(string(text), "bob") || bytes.Count(text, []byte("\n")) != 2 {
		t.Fatalf("%v\n%s", err, text)
	}
	lines := strings.Split(string(text), "\n")

	// A rotation of the ring changes no name, and a cut line is no line.
	rotated, err := ring.Rotate(t.Context(), day, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(text, lines[0][:20]...), 0o600); err != nil {
		t.Fatal(err)
	}
	c := openSubjects(t, path, rotated)
	ensure(c, []byte("carl"))
	if got, ok := c.Key(anna); !ok || !bytes.Equal(got, key) {
		t.Error("a rotation lost a key")
	}
	ensure(b, anna)
	d := openSubjects(t, path, rotated)
	if live, gone := d.Len(); live != 3 || gone != 0 {
		t.Errorf("%d live, %d erased", live, gone)
	}

	if found, err := d.Erase(anna); !found || err != nil {
		t.Fatal(found, err)
	}
	if found, err := d.Erase(anna); found || err != nil {
		t.Error("erased twice", err)
	}
	ensure(c, anna, bob)
	for _, s := range []*Subjects{c, d, openSubjects(t, path, rotated)} {
		if _, ok := s.Key(anna); ok {
			t.Error("an erased person has a key")
		}
		if _, ok := s.ByID(ID(key)); ok {
			t.Error("an erased key is found by its id")
		}
		if _, ok := s.Key(bob); !ok {
			t.Error("another person lost their key")
		}
	}
	if text, err = os.ReadFile(path); err != nil || strings.Contains(string(text), lines[0][strings.Index(lines[0], `"k"`):]) || !strings.Contains(string(text), "erased") {
		t.Errorf("%v\n%s", err, text)
	}
	// A line that comes back, from a backup, does not raise the dead.
	if err := os.WriteFile(path, append(text, lines[0]+"\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := openSubjects(t, path, rotated).Key(anna); ok {
		t.Error("an erased person came back")
	}
	strange := openSubjects(t, path, newRing(t, Wrap{}, nil))
	if _, ok := strange.Key(bob); ok {
		t.Error("another ring opens the keys")
	}
	// A ring that is a rotation behind says so for whom it concerns.
	if err := b.Ensure([][]byte{[]byte("carl")}); err == nil {
		t.Error("a key that cannot be opened is taken for none")
	}
}
