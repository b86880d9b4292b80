package mappers

import (
	"strings"
	"testing"

	"github.com/sluice-data/sluice/keys"
)

// persons are keys of persons for tests.
type persons map[string][]byte

func (p persons) SubjectKey(_ keys.Ref, subject []byte) ([]byte, bool) {
	k, ok := p[string(subject)]
	return k, ok
}

// TestEncryptPer: every person's values open with their key alone, and a
// person without one is refused.
func TestEncryptPer(t *testing.T) {
	s := schemaOf("id int64 key, owner text, name text")
	one, two := []byte("abcdef0123456789abcdef0123456789"), []byte("fedcba9876543210fedcba9876543210")
	people := persons{"ann": one, "bob": two}
	rule := Rule{Encrypt: &Encrypt{Field: "name", Key: ref("k"), Per: "owner"}}
	chain, err := Scope{Phase: Protect, Keys: testRing, People: people}.Compile([]Rule{rule}, s)
	if err != nil {
		t.Fatal(err)
	}
	out, _, rejects := mustApply(t, chain, batchOf(t, s, "insert | 1, ann, Ann", "insert | 2, bob, Bob", "insert | 3, carl, Carl", "insert | 4, ann, NULL", "insert | 5, NULL, Nobody"))
	if len(rejects) != 2 || rejects[0].Row != 2 || rejects[1].Row != 4 || rejects[0].Code != codeNoSubject || strings.Contains(rejects[0].Reason, "Carl") {
		t.Errorf("rejects %+v", rejects)
	}
	if out.Len() != 3 {
		t.Fatalf("%d rows", out.Len())
	}
	const domain = "shop-db.public.t.name"
	for row, c := range []struct {
		key   []byte
		plain string
	}{{one, "Ann"}, {two, "Bob"}} {
		sealed := string(out.After[2].Value(row))
		if got, err := Decrypt(sealed, c.key, domain); err != nil || string(got) != c.plain {
			t.Errorf("row %d: %q, %v", row, got, err)
		}
		if _, err := Decrypt(sealed, testRing["k"], domain); err == nil {
			t.Error("the key of the rule opens it")
		}
	}
	delete(people, "ann")
	if _, _, rejects = mustApply(t, chain, batchOf(t, s, "insert | 6, ann, Ann")); len(rejects) != 1 {
		t.Error("an erased person is still encrypted for")
	}
	for name, r := range map[string]Rule{
		"no such field":  {Encrypt: &Encrypt{Field: "name", Key: ref("k"), Per: "owned"}},
		"legacy method":  {Encrypt: &Encrypt{Field: "name", Key: ref("k"), Per: "owner", Method: "aes-cbc"}},
		"part of a key":  {Encrypt: &Encrypt{Field: "id", Key: ref("k"), Per: "owner", Method: "aes-siv"}},
		"after a change": {Encrypt: &Encrypt{Field: "name", Key: ref("k"), Per: "owner"}},
	} {
		rules := []Rule{r}
		if name == "after a change" {
			rules = []Rule{{Hash: &Hash{Field: "owner", Key: ref("k")}}, r}
		}
		if _, err := (Scope{Phase: Protect, Keys: testRing, People: people}).Compile(rules, s); err == nil {
			t.Errorf("%s: compiles", name)
		}
	}
}
