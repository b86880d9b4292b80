package keys

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// startKMS runs moto's KMS and points the AWS SDK to it.
func startKMS(t *testing.T) (stop func()) {
	t.Helper()
	program := os.Getenv("SLUICE_KMS_SERVER")
	if program == "" {
		t.Fatal("SLUICE_KMS_SERVER is not set; SLUICE_KMS_SERVER=$(deploy/dev/kms.sh)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_, port, _ := strings.Cut(addr, ":")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-H", "127.0.0.1", "-p", port)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(stop)
	for end := time.Now().Add(time.Minute); ; {
		resp, err := http.Get("http://" + addr + "/moto-api/")
		if err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("moto does not answer: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	for name, value := range map[string]string{"AWS_ENDPOINT_URL_KMS": "http://" + addr, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "id",
		"AWS_SECRET_ACCESS_KEY": "secret", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_MAX_ATTEMPTS": "2"} {
		t.Setenv(name, value)
	}
	return stop
}

// TestKMS wraps, unwraps and rotates with a KMS that answers, refuses and goes away.
func TestKMS(t *testing.T) {
	stop := startKMS(t)
	a := &awsKMS{}
	services := Services{AWSKMS: a}
	ctx := t.Context()
	client, err := a.client(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	made, err := client.CreateKey(ctx, &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	arn := *made.KeyMetadata.Arn
	r := newRing(t, Wrap{AWSKMS, arn}, services)
	if r, err = r.Rotate(ctx, day, false, services); err != nil {
		t.Fatal(err)
	}
	text, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseRing(ctx, text, services)
	if err != nil || !again.equal(r) || r.Secret() {
		t.Fatalf("%v, %v", again, err)
	}
	if again, err = r.Rewrap(ctx, Wrap{AWSKMS, *made.KeyMetadata.KeyId}, services); err != nil || !again.equal(r) {
		t.Fatalf("rewrapped: %v, %v", again, err)
	}
	// A ciphertext of the same key that was made for something else is refused.
	other, err := client.Encrypt(ctx, &kms.EncryptInput{KeyId: &arn, Plaintext: make([]byte, 32), EncryptionContext: map[string]string{"purpose": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Unwrap(ctx, arn, other.CiphertextBlob); !refused(err) {
		t.Errorf("another purpose: %v", err)
	}
	if _, _, err := a.Generate(ctx, "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-0000-0000-000000000000"); !refused(err) {
		t.Errorf("no such key: %v", err)
	}
	stop()
	_, err = ParseRing(ctx, text, services)
	var e *ServiceError
	if !errors.As(err, &e) || e.Refused || !strings.Contains(err.Error(), "is away") {
		t.Errorf("away: %v", err)
	}
}

func TestKMSRefuses(t *testing.T) {
	for code, want := range map[string]bool{"AccessDeniedException": true, "ThrottlingException": false, "KMSInternalException": false,
		"DependencyTimeoutException": false, string(types.KeyStateDisabled): false, "DisabledException": true} {
		if kmsRefuses(code) != want {
			t.Errorf("%s: %v", code, !want)
		}
	}
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	if _, err := (&awsKMS{}).Unwrap(t.Context(), "alias/x", []byte("x")); !refused(err) || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("no region: %v", err)
	}
	// moto knows no disabled keys and no throttling; the answers of the service are these.
	t.Setenv("AWS_REGION", "eu-central-1")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	for code, want := range map[string]bool{"DisabledException": true, "AccessDeniedException": true, "ThrottlingException": false} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"__type":%q,"message":"hunter2"}`, code)
		}))
		t.Setenv("AWS_ENDPOINT_URL_KMS", server.URL)
		_, err := (&awsKMS{}).Unwrap(t.Context(), "alias/x", []byte("x"))
		server.Close()
		if refused(err) != want || err == nil || !strings.Contains(err.Error(), code) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", code, err)
		}
	}
}
