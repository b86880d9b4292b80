package keys

import (
	"context"
	"fmt"
	"time"
)

// serviceTime bounds one call of a key service, its retries included.
const serviceTime = 15 * time.Second

// Service is a key management service that wraps keys with one that never
// leaves it. Its errors are of type *ServiceError. Several goroutines may use it.
type Service interface {
	// Generate makes a key of RingBytes and wraps it with the named key.
	Generate(ctx context.Context, name string) (key, wrapped []byte, err error)
	Wrap(ctx context.Context, name string, key []byte) (wrapped []byte, err error)
	Unwrap(ctx context.Context, name string, wrapped []byte) (key []byte, err error)
}

// Services are the key services by the scheme of the references that use them.
type Services map[Scheme]Service

// NewServices returns AWS KMS and Vault as the process's environment describes
// them: what the AWS tools read, and VAULT_ADDR, VAULT_TOKEN or VAULT_TOKEN_FILE,
// VAULT_NAMESPACE and VAULT_CACERT. Nothing is asked before the first key.
func NewServices(getenv func(string) string) Services {
	return Services{AWSKMS: &awsKMS{}, Vault: &vault{getenv: getenv}}
}

func (s Services) of(w Wrap) (Service, error) {
	if service := s[w.By]; service != nil {
		return service, nil
	}
	return nil, fmt.Errorf("%s has wrapped the key, and there is no way to ask it here", w)
}

// ServiceError is a key service that did not do what it was asked.
type ServiceError struct {
	By  Scheme
	Op  string // generate, wrap or unwrap
	Key string // the wrapping key
	// Refused says that the service has decided: no access, a key that is
	// disabled or gone, a text it did not make. Otherwise it is away, and may
	// come back by itself.
	Refused bool
	Msg     string // holds no key and no token
	Err     error
}

// Error names the service, the wrapping key and what happened.
func (e *ServiceError) Error() string {
	state := "is away"
	if e.Refused {
		state = "refuses"
	}
	return fmt.Sprintf("%s key with %s:%s: the service %s: %s", e.Op, e.By, e.Key, state, e.Msg)
}

// Unwrap returns the cause, nil if the service itself has answered.
func (e *ServiceError) Unwrap() error { return e.Err }
