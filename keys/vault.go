package keys

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// maxVaultAnswer bounds an answer of Vault; a wrapped key is far smaller.
const maxVaultAnswer = 1 << 20

// vaultTries is how often Vault is asked before it counts as away.
const vaultTries = 3

// vault is the transit engine of HashiCorp Vault or OpenBao. A wrapping key is
// named as mount/key, such as transit/sluice.
type vault struct {
	getenv func(string) string
	pause  time.Duration // between tries; default 200 ms, doubled each time

	mu     sync.Mutex
	client *http.Client
}

// Generate makes a data key.
func (v *vault) Generate(ctx context.Context, name string) (key, wrapped []byte, err error) {
	var data struct{ Plaintext, Ciphertext string }
	if err := v.call(ctx, "generate", name, "datakey/plaintext", map[string]any{"bits": 8 * RingBytes}, &data); err != nil {
		return nil, nil, err
	}
	if key, err = base64.StdEncoding.DecodeString(data.Plaintext); err != nil || len(key) != RingBytes || data.Ciphertext == "" {
		return nil, nil, v.strange("generate", name)
	}
	return key, []byte(data.Ciphertext), nil
}

// Wrap encrypts a key.
func (v *vault) Wrap(ctx context.Context, name string, key []byte) (wrapped []byte, err error) {
	var data struct{ Ciphertext string }
	if err := v.call(ctx, "wrap", name, "encrypt", map[string]any{"plaintext": base64.StdEncoding.EncodeToString(key)}, &data); err != nil {
		return nil, err
	}
	if data.Ciphertext == "" {
		return nil, v.strange("wrap", name)
	}
	return []byte(data.Ciphertext), nil
}

// Unwrap decrypts a key.
func (v *vault) Unwrap(ctx context.Context, name string, wrapped []byte) (key []byte, err error) {
	var data struct{ Plaintext string }
	if err := v.call(ctx, "unwrap", name, "decrypt", map[string]any{"ciphertext": string(wrapped)}, &data); err != nil {
		return nil, err
	}
	if key, err = base64.StdEncoding.DecodeString(data.Plaintext); err != nil || len(key) == 0 {
		return nil, v.strange("unwrap", name)
	}
	return key, nil
}

func (v *vault) strange(op, name string) error {
	return &ServiceError{By: Vault, Op: op, Key: name, Msg: "the answer is none of the transit engine; is VAULT_ADDR right?"}
}

// call asks the transit engine, again while it is away.
func (v *vault) call(ctx context.Context, op, name, path string, ask map[string]any, into any) error {
	ctx, cancel := context.WithTimeout(ctx, serviceTime)
	defer cancel()
	pause := v.pause
	if pause == 0 {
		pause = 200 * time.Millisecond
	}
	for try := 1; ; try++ {
		err := v.once(ctx, name, path, ask, into)
		if err == nil {
			return nil
		}
		var e *ServiceError
		if !errors.As(err, &e) {
			e = &ServiceError{Msg: err.Error(), Refused: true} // a setting of ours is wrong
		}
		e.By, e.Op, e.Key = Vault, op, name
		if e.Refused || try == vaultTries {
			return e
		}
		select {
		case <-ctx.Done():
			return e
		case <-time.After(pause):
		}
		pause *= 2
	}
}

func (v *vault) once(ctx context.Context, name, path string, ask map[string]any, into any) error {
	request, err := v.request(ctx, name, path, ask)
	if err != nil {
		return err
	}
	client, err := v.connect()
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err // without the address, which may hold a user
		}
		return &ServiceError{Msg: "no answer", Err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxVaultAnswer+1))
	switch {
	case err != nil || len(body) > maxVaultAnswer:
		return &ServiceError{Msg: "the answer ended early or is too long", Err: err}
	case response.StatusCode != http.StatusOK:
		return vaultRefusal(response.StatusCode, body)
	}
	var answer struct {
		Data json.RawMessage `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil || json.Unmarshal(answer.Data, into) != nil {
		return &ServiceError{Msg: "the answer is no JSON of Vault; is VAULT_ADDR right?"}
	}
	return nil
}

func (v *vault) request(ctx context.Context, name, path string, ask map[string]any) (*http.Request, error) {
	mount, key, ok := cutLast(name, "/")
	if !ok || mount == "" || key == "" {
		return nil, errors.New("want a wrapping key as mount/key, such as transit/sluice")
	}
	address := v.getenv("VAULT_ADDR")
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("VAULT_ADDR is not set or no address; want https://host:8200")
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, errors.New("VAULT_ADDR has no TLS, which is only for this machine; want https://")
	}
	token, err := v.token()
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	u = u.JoinPath("v1", mount, path, key)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("VAULT_ADDR makes no valid address")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Vault-Token", token)
	request.Header.Set("X-Vault-Request", "true")
	if namespace := v.getenv("VAULT_NAMESPACE"); namespace != "" {
		request.Header.Set("X-Vault-Namespace", namespace)
	}
	return request, nil
}

// token is read for every request: an agent may renew the file.
func (v *vault) token() (string, error) {
	if path := v.getenv("VAULT_TOKEN_FILE"); path != "" {
		text, _, err := readFile(Ref{File, path}, "")
		if err != nil {
			return "", fmt.Errorf("VAULT_TOKEN_FILE: %w", err)
		}
		return strings.TrimSpace(string(text)), nil
	}
	if token := v.getenv("VAULT_TOKEN"); token != "" {
		return token, nil
	}
	return "", errors.New("no token; set VAULT_TOKEN or VAULT_TOKEN_FILE")
}

func (v *vault) connect() (*http.Client, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.client != nil {
		return v.client, nil
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if path := v.getenv("VAULT_CACERT"); path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("VAULT_CACERT: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("VAULT_CACERT holds no PEM certificate")
		}
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: settings, TLSHandshakeTimeout: 5 * time.Second,
		ResponseHeaderTimeout: 10 * time.Second, MaxIdleConns: 2, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}
	v.client = &http.Client{Transport: transport, Timeout: serviceTime,
		// A token is not carried to where an answer points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return v.client, nil
}

// vaultRefusal tells a decision of Vault from an outage.
func vaultRefusal(status int, body []byte) error {
	switch status {
	case http.StatusBadRequest:
		return &ServiceError{Refused: true, Msg: "it did not wrap this key, or the wrapping key's old version is no longer allowed (400)"}
	case http.StatusForbidden:
		return &ServiceError{Refused: true, Msg: "the token is not valid or its policy does not allow this (403)"}
	case http.StatusNotFound:
		return &ServiceError{Refused: true, Msg: "there is no such transit engine or key (404)"}
	case http.StatusTooManyRequests:
		return &ServiceError{Msg: "its quota is used up (429)"}
	case http.StatusServiceUnavailable:
		var answer struct{ Errors []string }
		if json.Unmarshal(body, &answer) == nil && strings.Contains(strings.ToLower(strings.Join(answer.Errors, " ")), "sealed") {
			return &ServiceError{Msg: "it is sealed (503)"}
		}
		return &ServiceError{Msg: "it is in maintenance or a standby (503)"}
	}
	return &ServiceError{Refused: status >= 400 && status < 500, Msg: fmt.Sprintf("its answer is %d", status)}
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+len(sep):], true
}

func loopback(host string) bool { return host == "localhost" || host == "127.0.0.1" || host == "::1" }
