package spec

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// signer signs messages as the Standard Webhooks specification says. Several
// secrets give several signatures, so that a receiver can change its secret.
type signer struct {
	secrets [][]byte
}

// newSigner reads secrets in the form whsec_ + base64.
func newSigner(secrets []string) (*signer, error) {
	s := &signer{}
	for _, text := range secrets {
		b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whsec_"))
		if err != nil {
			return nil, errors.New("sign: a secret is whsec_ and 24 to 64 bytes in base64")
		}
		if len(b) < 24 || len(b) > 64 {
			return nil, errors.New("sign: a secret holds 24 to 64 bytes")
		}
		s.secrets = append(s.secrets, b)
	}
	return s, nil
}

// headers adds the message's id, time and signatures.
func (s *signer) headers(h http.Header, id string, now time.Time, body []byte) {
	at := strconv.FormatInt(now.Unix(), 10)
	var all []string
	for _, secret := range s.secrets {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(id + "." + at + "."))
		mac.Write(body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", at)
	h.Set("webhook-signature", strings.Join(all, " "))
}
