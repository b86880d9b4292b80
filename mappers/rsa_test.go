package mappers

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/record"
)

// pairs is a ring of private keys.
type pairs map[string][]byte

func (p pairs) Key(id string) ([]byte, bool) {
	k, ok := p[id]
	return k, ok
}

// TestRSA opens what another implementation has encrypted, see
// testdata/rsa.py, and what the rules encrypt for its key.
func TestRSA(t *testing.T) {
	text, err := os.ReadFile("testdata/rsa.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Private, Public string
		PublicHex       string `json:"public_hex"`
		Sealed          []struct{ Text, Domain, Sealed string }
		ECB             []struct{ Key, Text, Hex string }
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	id, err := RSAKeyID([]byte(v.Private))
	if err != nil || len(v.Sealed) < 10 || len(v.ECB) < 15 {
		t.Fatal(err, len(v.Sealed), len(v.ECB))
	}
	opens := pairs{id: []byte(v.Private)}
	for _, s := range v.Sealed {
		got, err := Open(s.Sealed, s.Domain, opens)
		if err != nil || string(got) != s.Text {
			t.Errorf("%.20s… of %d bytes: %v", s.Sealed, len(s.Text), err)
		}
		if _, err := Open(s.Sealed, "elsewhere", opens); err == nil {
			t.Errorf("%.20s… opens in another place", s.Sealed)
		}
		if _, err := Open(s.Sealed, s.Domain, pairs{}); err == nil {
			t.Error("opens without a key")
		}
	}
	for _, e := range v.ECB {
		key, _ := hex.DecodeString(e.Key)
		if got, err := DecryptLegacy(methodECB, e.Hex, key); err != nil || string(got) != e.Text {
			t.Errorf("aes-ecb of %q: %q, %v", e.Text, got, err)
		}
	}
	s := schemaOf("id int64 key, x text")
	long := strings.Repeat("z", 500)
	for method, public := range map[string]string{methodRSA: v.Public, methodHybrid: v.PublicHex} {
		c, err := Compile([]Rule{{Encrypt: &Encrypt{Field: "x", Method: method, Key: ref("p")}}}, s, ring{"p": []byte(public)}, Protect)
		if err != nil {
			t.Fatal(err)
		}
		out, _, rejects := mustApply(t, c, batchOf(t, s, "insert | 1, secret", "insert | 2, secret", "insert | 3, "+long, "update | 1, other | 1, secret"))
		if wantRejects := map[string]int{methodRSA: 1}[method]; len(rejects) != wantRejects {
			t.Fatalf("%s: rejects %v", method, rejects)
		}
		seen := map[string]bool{}
		for _, v := range []*record.Vector{out.After[1], out.Before[1]} {
			for i, st := range v.State {
				if st != record.Present {
					continue
				}
				got, err := Open(string(v.Value(i)), "shop-db.public.t.x", opens)
				if err != nil || string(got) != "secret" && string(got) != "other" && string(got) != long {
					t.Errorf("%s row %d does not open: %v", method, i, err)
				}
				if seen[string(v.Value(i))] {
					t.Errorf("%s: a ciphertext came twice", method)
				}
				seen[string(v.Value(i))] = true
			}
		}
	}
}

func TestEncryptKeysThatDoNotFit(t *testing.T) {
	s := schemaOf("id int64 key, x text")
	for _, c := range []struct {
		e    Encrypt
		code string
	}{
		{Encrypt{Field: "x", Method: methodECB, Key: ref("k")}, CodeRule},
		{Encrypt{Field: "x", Method: methodRSA, Key: ref("k")}, CodeSecret},
		{Encrypt{Field: "x", Method: methodHybrid, Key: ref("none")}, CodeSecret},
		{Encrypt{Field: "id", Method: methodHybrid, Key: ref("p")}, CodeKeyField},
	} {
		public, _ := os.ReadFile("testdata/rsa.json")
		var v struct{ Public string }
		_ = json.Unmarshal(public, &v)
		_, err := Compile([]Rule{{Encrypt: &c.e}}, s, ring{"k": testRing["k"], "p": []byte(v.Public)}, Protect)
		var list Errors
		if !errors.As(err, &list) || list[0].Code != c.code {
			t.Errorf("%s: %v", c.e.Method, err)
		}
	}
}

// TestRotation: what is encrypted anew takes the newest key, equal values keep
// their ciphertexts, and the ring opens all.
func TestRotation(t *testing.T) {
	ctx := t.Context()
	old, err := keys.NewRing(ctx, time.Unix(0, 0), keys.Wrap{}, keys.Services{})
	if err != nil {
		t.Fatal(err)
	}
	rotated, err := old.Rotate(ctx, time.Unix(0, 0), false, keys.Services{})
	if err != nil {
		t.Fatal(err)
	}
	s := schemaOf("id int64 key, a text, b text")
	rules := []Rule{{Encrypt: &Encrypt{Field: "a", Key: ref("r")}}, {Encrypt: &Encrypt{Field: "b", Method: methodSIV, Key: ref("r")}}}
	var sealed [2][2]string
	for i, r := range []*keys.Ring{old, rotated} {
		c, err := Compile(rules, s, oneRing{r}, Protect)
		if err != nil {
			t.Fatal(err)
		}
		out, _, _ := mustApply(t, c, batchOf(t, s, "insert | 1, x, x"))
		for k, name := range []string{"a", "b"} {
			sealed[i][k] = string(out.After[k+1].Value(0))
			if got, err := Open(sealed[i][k], "shop-db.public.t."+name, rotated); err != nil || string(got) != "x" {
				t.Errorf("%s after %d rotations: %q, %v", name, i, got, err)
			}
		}
	}
	first, _ := SealedKeyID(sealed[0][0])
	second, _ := SealedKeyID(sealed[1][0])
	if first == second || second != rotated.Primary().ID || sealed[0][1] != sealed[1][1] {
		t.Errorf("key ids %s and %s; joinable values stay equal: %v", first, second, sealed[0][1] == sealed[1][1])
	}
}

type oneRing struct{ r *keys.Ring }

func (o oneRing) Key(keys.Ref) ([]byte, bool)      { return o.r.Stable().Value(), true }
func (o oneRing) Ring(keys.Ref) (*keys.Ring, bool) { return o.r, true }
