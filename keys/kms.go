package keys

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
)

// kmsContext is bound to every wrapped key: a ciphertext of the same KMS key
// that was made for something else does not open as a key of a ring.
var kmsContext = map[string]string{"purpose": "sluice-keyring"}

// awsKMS is AWS Key Management Service, reached as the AWS tools reach it.
type awsKMS struct {
	mu      sync.Mutex
	clients map[string]*kms.Client // by region; "" = that of the environment
}

// client returns the client of the region that the ARN of a key names.
func (a *awsKMS) client(ctx context.Context, name string) (*kms.Client, error) {
	region := ""
	if parts := strings.Split(name, ":"); len(parts) >= 6 && parts[0] == "arn" {
		region = parts[3]
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.clients[region]; c != nil {
		return c, nil
	}
	var options []func(*config.LoadOptions) error
	if region != "" {
		options = append(options, config.WithRegion(region))
	}
	settings, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, err
	}
	if settings.Region == "" {
		return nil, &aws.MissingRegionError{}
	}
	if a.clients == nil {
		a.clients = map[string]*kms.Client{}
	}
	a.clients[region] = kms.NewFromConfig(settings)
	return a.clients[region], nil
}

// Generate makes a data key.
func (a *awsKMS) Generate(ctx context.Context, name string) (key, wrapped []byte, err error) {
	err = a.call(ctx, "generate", name, func(ctx context.Context, c *kms.Client) error {
		out, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: &name, KeySpec: types.DataKeySpecAes256, EncryptionContext: kmsContext})
		if err != nil {
			return err
		}
		key, wrapped = out.Plaintext, out.CiphertextBlob
		return nil
	})
	return key, wrapped, err
}

// Wrap encrypts a key.
func (a *awsKMS) Wrap(ctx context.Context, name string, key []byte) (wrapped []byte, err error) {
	err = a.call(ctx, "wrap", name, func(ctx context.Context, c *kms.Client) error {
		out, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &name, Plaintext: key, EncryptionContext: kmsContext})
		if err != nil {
			return err
		}
		wrapped = out.CiphertextBlob
		return nil
	})
	return wrapped, err
}

// Unwrap decrypts a key, which only the named key may have encrypted.
func (a *awsKMS) Unwrap(ctx context.Context, name string, wrapped []byte) (key []byte, err error) {
	err = a.call(ctx, "unwrap", name, func(ctx context.Context, c *kms.Client) error {
		out, err := c.Decrypt(ctx, &kms.DecryptInput{KeyId: &name, CiphertextBlob: wrapped, EncryptionContext: kmsContext})
		if err != nil {
			return err
		}
		key = out.Plaintext
		return nil
	})
	return key, err
}

func (a *awsKMS) call(ctx context.Context, op, name string, do func(context.Context, *kms.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, serviceTime)
	defer cancel()
	c, err := a.client(ctx, name)
	if err == nil {
		err = do(ctx, c)
	}
	if err == nil {
		return nil
	}
	e := &ServiceError{By: AWSKMS, Op: op, Key: name, Msg: "no answer", Err: err}
	var missing *aws.MissingRegionError
	var answer smithy.APIError
	switch {
	case errors.As(err, &answer):
		// Messages of the service may name accounts, never a key.
		e.Refused, e.Msg = kmsRefuses(answer.ErrorCode()), answer.ErrorCode()
	case errors.As(err, &missing):
		e.Refused, e.Msg = true, "no region; set AWS_REGION or name the key by its ARN"
	case strings.Contains(err.Error(), "failed to refresh cached credentials"), strings.Contains(err.Error(), "get identity"):
		e.Msg = "no credentials; set them as for the AWS tools"
	}
	return e
}

// kmsRefuses reports whether an answer of KMS is a decision.
func kmsRefuses(code string) bool {
	switch code {
	case "AccessDeniedException", "DisabledException", "NotFoundException", "KMSInvalidStateException", "InvalidCiphertextException",
		"IncorrectKeyException", "InvalidKeyUsageException", "InvalidArnException", "ValidationException", "InvalidGrantTokenException",
		"UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredTokenException":
		return true
	}
	return false
}
