package gateway

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend"
)

// accounts knows the root account and, when its key is set, the reader.
type accounts struct {
	auth.IAMService
	reader auth.Account
}

// GetUserAccount returns the account of an access key.
func (a accounts) GetUserAccount(access string) (auth.Account, error) {
	if access != "" && access == a.reader.Access {
		return a.reader, nil
	}
	account, err := a.IAMService.GetUserAccount(access)
	if err != nil {
		return auth.Account{}, auth.ErrNoSuchUser
	}
	return account, nil
}

// readable gives every bucket a policy that lets the reader list and get.
// The root account is above policies, so nothing changes for it.
type readable struct {
	backend.Backend
	reader string
}

// GetBucketPolicy returns the reader's policy of an existing bucket.
func (r readable) GetBucketPolicy(_ context.Context, bucket string) ([]byte, error) {
	policy, err := json.Marshal(map[string]any{
		"Version": "2012-10-17",
		"Statement": []any{map[string]any{
			"Effect":    "Allow",
			"Principal": map[string]any{"AWS": []string{r.reader}},
			"Action":    []string{"s3:GetObject", "s3:GetObjectAttributes", "s3:ListBucket", "s3:GetBucketLocation"},
			"Resource":  []string{"arn:aws:s3:::" + bucket, "arn:aws:s3:::" + bucket + "/*"},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("policy of bucket %s: %w", bucket, err)
	}
	return policy, nil
}
