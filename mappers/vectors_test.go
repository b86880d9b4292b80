package mappers

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/sluice-data/sluice/record"
)

type vector struct{ Method, Key, Nonce, Text, Bound, Hex string }

// TestVectors compares digests and ciphers with other implementations; see testdata/vectors.py.
func TestVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ Digests, SIV, XAES, Legacy []vector }
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Digests) < 60 || len(v.SIV) < 20 || len(v.XAES) < 10 || len(v.Legacy) < 60 {
		t.Fatalf("too few vectors: %d, %d, %d", len(v.Digests), len(v.SIV), len(v.XAES))
	}
	s := schemaOf("id int64 key, x text")
	for _, d := range v.Digests {
		h := &Hash{Field: "x", Method: d.Method, Suffix: "_hashed"}
		if hashMethods[methodName(d.Method)].keyed {
			h.Key = ref("k")
		}
		b := record.NewBatch(s, nil)
		b.Ops, b.Pos, b.Time = []record.Op{record.OpInsert}, make([]record.Position, 1), make([]int64, 1)
		b.After[0].AppendInt64(1)
		b.After[1].AppendData([]byte(d.Text))
		out, _, _ := mustApply(t, mustCompile(t, s, Protect, Rule{Hash: h}), b)
		if got := string(out.After[1].Value(0)); got != d.Hex || out.Schema.Fields[1].Name != "x_hashed" {
			t.Errorf("%s of %q: got %s, want %s", d.Method, d.Text, got, d.Hex)
		}
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, d := range v.SIV {
		x := newSIV(unhex(d.Key))
		got, _ := x.seal(nil, []byte(d.Text), []byte(d.Bound))
		if hex.EncodeToString(got) != d.Hex {
			t.Errorf("siv of %q: got %x, want %s", d.Text, got, d.Hex)
		}
		if back, err := x.open(got, []byte(d.Bound)); err != nil || string(back) != d.Text {
			t.Errorf("siv of %q does not open: %v", d.Text, err)
		}
	}
	for _, d := range v.Legacy {
		random := bytes.NewReader(bytes.Repeat(unhex(d.Nonce), 128))
		sealed, _ := newLegacyAES(unhex(d.Key), random, d.Method == methodCTR).seal(nil, []byte(d.Text), nil)
		got := hex.EncodeToString(sealed)
		if got != d.Hex {
			t.Errorf("%s of %q: got %s, want %s", d.Method, d.Text, got, d.Hex)
		}
		if back, err := DecryptLegacy(d.Method, got, unhex(d.Key)); err != nil || string(back) != d.Text {
			t.Errorf("%s of %q does not open: %v", d.Method, d.Text, err)
		}
	}
	for _, d := range v.XAES {
		x := &xaes{key: unhex(d.Key), random: bytes.NewReader(unhex(d.Nonce))}
		x.begin()
		// The counter is the end of the nonce; begin at the vector's.
		x.count = uint32(unhex(d.Nonce)[20])<<24 | uint32(unhex(d.Nonce)[21])<<16 | uint32(unhex(d.Nonce)[22])<<8 | uint32(unhex(d.Nonce)[23])
		got, _ := x.seal(nil, []byte(d.Text), []byte(d.Bound))
		if want := d.Nonce + d.Hex; hex.EncodeToString(got) != want {
			t.Errorf("xaes of %q: got %x, want %s", d.Text, got, want)
		}
		if back, err := x.open(got, []byte(d.Bound)); err != nil || string(back) != d.Text {
			t.Errorf("xaes of %q does not open: %v", d.Text, err)
		}
	}
}

// TestLegacyNeverRepeatsAnIV: more values than are prepared at once.
func TestLegacyNeverRepeatsAnIV(t *testing.T) {
	s := schemaOf("id int64 key, x text")
	var rows []string
	for range 300 {
		rows = append(rows, "insert | 1, same", "update | 1, same | 1, same")
	}
	for _, method := range []string{methodCBC, methodCTR} {
		out, _, _ := mustApply(t, mustCompile(t, s, Protect, Rule{Encrypt: &Encrypt{Field: "x", Method: method, Key: ref("k")}}), batchOf(t, s, rows...))
		seen := map[string]bool{}
		for _, v := range []*record.Vector{out.After[1], out.Before[1]} {
			for i, st := range v.State {
				if st != record.Present {
					continue
				}
				sealed := string(v.Value(i))
				if seen[sealed[:32]] {
					t.Fatalf("%s: an IV was used twice", method)
				}
				seen[sealed[:32]] = true
				if back, err := DecryptLegacy(method, sealed, testRing["k"]); err != nil || string(back) != "same" {
					t.Fatalf("%s does not open: %v", method, err)
				}
			}
		}
		if len(seen) != 900 {
			t.Errorf("%s: %d values", method, len(seen))
		}
	}
}

func TestEncryptOpensInItsPlaceOnly(t *testing.T) {
	s := schemaOf("id text key, mail text, note text")
	for _, method := range []string{methodGCM, methodSIV} {
		c := mustCompile(t, s, Protect, Rule{Encrypt: &Encrypt{Field: "mail", Method: method, Key: ref("k"), Suffix: "_enc"}},
			Rule{Encrypt: &Encrypt{Field: "note", Method: method, Key: ref("k"), Domain: "notes"}},
			Rule{Encrypt: &Encrypt{Field: "id", Method: methodSIV, Key: ref("k")}})
		out, _, _ := mustApply(t, c, batchOf(t, s, "insert | 1, secret, secret", "insert | 1, secret, ", "update | 1, NULL, - | 1, secret, secret", "delete | 1, -, -"))
		mail, note := out.After[1], out.After[2]
		const place = "shop-db.public.t.mail"
		for _, c := range []struct {
			sealed, domain, want string
			key                  []byte
			ok                   bool
		}{
			{string(mail.Value(0)), place, "secret", testRing["k"], true},
			{string(note.Value(0)), "notes", "secret", testRing["k"], true},
			{string(note.Value(1)), "notes", "", testRing["k"], true},
			{string(out.Before[1].Value(2)), place, "secret", testRing["k"], true},
			{string(mail.Value(0)), "notes", "", testRing["k"], false},
			{string(mail.Value(0)), place, "", testRing["k64"], false},
			{string(mail.Value(0)) + "A", place, "", testRing["k"], false},
			{"plain", place, "", testRing["k"], false},
		} {
			got, err := Decrypt(c.sealed, c.key, c.domain)
			if (err == nil) != c.ok || string(got) != c.want {
				t.Errorf("%s: decrypt gave %q, %v; want %q, %v", method, got, err, c.want, c.ok)
			}
		}
		if id, ok := SealedKeyID(string(mail.Value(0))); !ok || id != KeyID(testRing["k"]) {
			t.Errorf("key id %q", id)
		}
		same := bytes.Equal(mail.Value(0), mail.Value(1))
		if same != (method == methodSIV) {
			t.Errorf("%s: equal values have equal ciphertexts: %v", method, same)
		}
		if id := out.After[0]; !bytes.Equal(id.Value(0), id.Value(3)) || out.Schema.Fields[0].Key != 1 {
			t.Errorf("%s: the key of the delete is not the key of the insert", method)
		}
	}
}
