package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// transit is a strict transit engine: what the real one refuses it refuses too.
type transit struct {
	mu       sync.Mutex
	token    string
	keys     map[string][][]byte // versions, by name
	minimum  int                 // min_decryption_version
	sealed   bool
	answers  []int // statuses of the next requests, before they are looked at
	requests []string
}

func (v *transit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.requests = append(v.requests, r.Method+" "+r.URL.Path)
	fail := func(status int, message string) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{message}})
	}
	if len(v.answers) > 0 {
		status := v.answers[0]
		if v.answers = v.answers[1:]; status != 0 {
			fail(status, "as told")
			return
		}
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
	var ask map[string]any
	switch {
	case v.sealed:
		fail(503, "Vault is sealed")
	case r.Header.Get("X-Vault-Request") != "true":
		fail(400, "missing X-Vault-Request")
	case r.Header.Get("X-Vault-Token") != v.token:
		fail(403, "permission denied")
	case r.Method != http.MethodPost:
		fail(405, "unsupported operation")
	case parts[0] != "transit" || len(parts) < 3:
		fail(404, "no handler for route")
	case json.NewDecoder(r.Body).Decode(&ask) != nil:
		fail(400, "error parsing JSON")
	default:
		v.do(w, fail, parts, ask)
	}
}

func (v *transit) do(w http.ResponseWriter, fail func(int, string), parts []string, ask map[string]any) {
	name := parts[len(parts)-1]
	versions := v.keys[name]
	data := map[string]any{}
	switch op := strings.Join(parts[1:len(parts)-1], "/"); {
	case versions == nil && op == "encrypt":
		fail(403, "permission denied") // upsert needs the create capability
		return
	case versions == nil:
		fail(400, "encryption key not found")
		return
	case op == "datakey/plaintext":
		if ask["bits"] != float64(256) {
			fail(400, "invalid bit length")
			return
		}
		key := make([]byte, 32)
		_, _ = rand.Read(key)
		data["plaintext"], data["ciphertext"] = base64.StdEncoding.EncodeToString(key), v.seal(versions, key)
	case op == "encrypt":
		plain, err := base64.StdEncoding.DecodeString(fmt.Sprint(ask["plaintext"]))
		if err != nil {
			fail(400, "failed to base64-decode plaintext")
			return
		}
		data["ciphertext"], data["key_version"] = v.seal(versions, plain), len(versions)
	case op == "decrypt":
		plain, err := v.open(versions, fmt.Sprint(ask["ciphertext"]))
		if err != nil {
			fail(400, err.Error())
			return
		}
		data["plaintext"] = base64.StdEncoding.EncodeToString(plain)
	default:
		fail(404, "no handler for route")
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"request_id": "r", "lease_id": "", "renewable": false, "data": data, "warnings": nil})
}

func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (v *transit) seal(versions [][]byte, plain []byte) string {
	n := len(versions)
	return fmt.Sprintf("vault:v%d:%s", n, base64.StdEncoding.EncodeToString(gcm(versions[n-1]).Seal(nil, nil, plain, nil)))
}

func (v *transit) open(versions [][]byte, text string) ([]byte, error) {
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 || parts[0] != "vault" {
		return nil, errors.New("invalid ciphertext: no prefix")
	}
	n, err := strconv.Atoi(strings.TrimPrefix(parts[1], "v"))
	if err != nil || n < 1 || n > len(versions) {
		return nil, errors.New("invalid ciphertext: version")
	}
	if n < v.minimum {
		return nil, errors.New("ciphertext or signature version is disallowed by policy (too old)")
	}
	body, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		return nil, errors.New("invalid ciphertext: could not decode base64")
	}
	return gcm(versions[n-1]).Open(nil, nil, body, nil)
}

// rotate is what an operator does at Vault.
func (v *transit) rotate(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	v.keys[name] = append(v.keys[name], key)
}

func startTransit(t *testing.T) (*transit, *vault, Services) {
	t.Helper()
	fake := &transit{token: "s.secret-token", keys: map[string][][]byte{}}
	fake.rotate("sluice")
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	client := &vault{pause: time.Microsecond, getenv: func(name string) string {
		return map[string]string{"VAULT_ADDR": server.URL, "VAULT_TOKEN": "s.secret-token"}[name]
	}}
	return fake, client, Services{Vault: client}
}

func TestVault(t *testing.T) {
	fake, _, services := startTransit(t)
	wrap := Wrap{Vault, "transit/sluice"}
	r := newRing(t, wrap, services)
	if fake.requests[0] != "POST /v1/transit/datakey/plaintext/sluice" {
		t.Errorf("requests %q", fake.requests)
	}
	fake.rotate("sluice")
	text, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseRing(t.Context(), text, services)
	if err != nil || !again.equal(r) {
		t.Fatalf("after a rotation at Vault: %v, %v", again, err)
	}
	rewrapped, err := again.Rewrap(t.Context(), wrap, services)
	if err != nil {
		t.Fatal(err)
	}
	fake.minimum = 2
	if _, err := ParseRing(t.Context(), text, services); !refused(err) || !strings.Contains(err.Error(), "no longer allowed") {
		t.Errorf("too old: %v", err)
	}
	if text, err = rewrapped.Marshal(); err != nil {
		t.Fatal(err)
	}
	if again, err := ParseRing(t.Context(), text, services); err != nil || !again.equal(r) {
		t.Errorf("rewrapped: %v, %v", again, err)
	}
}

func TestVaultFails(t *testing.T) {
	for _, c := range []struct {
		name    string
		spoil   func(f *transit, v *vault)
		key     string
		refused bool
		says    string
		asked   int
	}{
		{"sealed", func(f *transit, _ *vault) { f.sealed = true }, "transit/sluice", false, "sealed", vaultTries},
		{"standby", func(f *transit, _ *vault) { f.answers = []int{503, 503, 503} }, "transit/sluice", false, "standby", vaultTries},
		{"quota", func(f *transit, _ *vault) { f.answers = []int{429, 429, 429} }, "transit/sluice", false, "429", vaultTries},
		{"broken", func(f *transit, _ *vault) { f.answers = []int{500, 502, 500} }, "transit/sluice", false, "500", vaultTries},
		{"token", func(f *transit, _ *vault) { f.token = "another" }, "transit/sluice", true, "403", 1},
		{"no key", func(*transit, *vault) {}, "transit/other", true, "400", 1},
		{"no engine", func(*transit, *vault) {}, "nowhere/sluice", true, "404", 1},
		{"redirect", func(f *transit, _ *vault) { f.answers = []int{307, 307, 307} }, "transit/sluice", false, "307", vaultTries},
		{"no slash", func(*transit, *vault) {}, "sluice", true, "mount/key", 0},
		{"no address", func(_ *transit, v *vault) { v.getenv = func(string) string { return "" } }, "transit/sluice", true, "VAULT_ADDR", 0},
		{"no TLS", func(_ *transit, v *vault) {
			v.getenv = func(n string) string { return map[string]string{"VAULT_ADDR": "http://vault.example:8200"}[n] }
		}, "transit/sluice", true, "https", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake, client, _ := startTransit(t)
			wrapped, err := client.Wrap(t.Context(), "transit/sluice", make([]byte, RingBytes))
			if err != nil {
				t.Fatal(err)
			}
			fake.requests = nil
			c.spoil(fake, client)
			_, err = client.Unwrap(t.Context(), c.key, wrapped)
			var e *ServiceError
			if !errors.As(err, &e) || e.Refused != c.refused || !strings.Contains(err.Error(), c.says) || len(fake.requests) != c.asked {
				t.Errorf("%v, asked %d times", err, len(fake.requests))
			}
			if err != nil && strings.Contains(err.Error(), "secret-token") {
				t.Errorf("the error holds the token: %v", err)
			}
		})
	}
	t.Run("back", func(t *testing.T) {
		fake, client, _ := startTransit(t)
		fake.answers = []int{503, 429}
		if _, _, err := client.Generate(t.Context(), "transit/sluice"); err != nil {
			t.Error(err)
		}
	})
	t.Run("no answer", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
		defer server.Close()
		client := &vault{pause: time.Microsecond, getenv: func(n string) string {
			return map[string]string{"VAULT_ADDR": strings.Replace(server.URL, "//", "//user:hunter2@", 1), "VAULT_TOKEN": "t"}[n]
		}}
		_, err := client.Unwrap(t.Context(), "transit/x", []byte("x"))
		var e *ServiceError
		if !errors.As(err, &e) || e.Refused || strings.Contains(err.Error(), "hunter2") {
			t.Error(err)
		}
	})
	t.Run("endless", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.CopyN(w, zeros{}, 4<<20)
		}))
		defer server.Close()
		client := &vault{pause: time.Microsecond, getenv: func(n string) string { return map[string]string{"VAULT_ADDR": server.URL, "VAULT_TOKEN": "t"}[n] }}
		if _, err := client.Unwrap(t.Context(), "transit/x", []byte("x")); err == nil || !strings.Contains(err.Error(), "too long") {
			t.Error(err)
		}
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestVaultTokenFile: an agent writes a new token, and the next request has it.
func TestVaultTokenFile(t *testing.T) {
	fake, client, _ := startTransit(t)
	path := filepath.Join(t.TempDir(), "token")
	address := client.getenv("VAULT_ADDR")
	client.getenv = func(n string) string { return map[string]string{"VAULT_ADDR": address, "VAULT_TOKEN_FILE": path}[n] }
	for _, token := range []string{"one", "two"} {
		fake.token = token
		if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := client.Generate(t.Context(), "transit/sluice"); err != nil {
			t.Error(err)
		}
	}
}
