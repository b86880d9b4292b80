package objects

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

const (
	// Six attempts outlive a short 503 phase (about 20 s) and stay below a
	// commit's deadline.
	attempts = 6

	defaultRegion         = "us-east-1"
	defaultRequestTimeout = 2 * time.Minute

	// As many idle connections as one process ever uses at once, so that none
	// is opened twice.
	idleConnections = 64
)

// Config says where the objects are and who asks for them.
type Config struct {
	Endpoint  string // http://127.0.0.1:7070; empty = AWS
	Region    string // empty = the AWS configuration's, else us-east-1
	AccessKey string // both keys empty = the default AWS chain
	SecretKey string
	PathStyle bool // bucket in the path, not in the host name; always so with an Endpoint on an IP address

	// RequestTimeout bounds one call with all its retries; 0 = 2 minutes.
	RequestTimeout time.Duration

	// Overwrite allows an existing object to be replaced. It is for stores
	// that refuse If-None-Match; without it a name clash is an error.
	Overwrite bool

	// Transport replaces the network, for tests; nil = the real one.
	Transport http.RoundTripper

	maxBackoff time.Duration // between two attempts; 0 = 5 s
}

// Validate reports what is wrong with c, without its secrets.
func (c Config) Validate() error {
	if (c.AccessKey == "") != (c.SecretKey == "") {
		return errors.New("s3: access_key and secret_key belong together: give both or neither")
	}
	return nil
}

// Client talks to one object store. Its methods may be called from several
// goroutines at once.
type Client struct {
	s3        *s3.Client
	timeout   time.Duration
	overwrite bool
}

// New returns a client. It does not connect.
func New(ctx context.Context, c Config) (*Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	opts := []func(*config.LoadOptions) error{
		config.WithHTTPClient(httpClient()),
		config.WithRetryer(func() aws.Retryer { return newRetryer(c.maxBackoff) }),
		// A checksum travels with every upload: a flipped bit is refused by the store.
		config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenSupported),
		config.WithResponseChecksumValidation(aws.ResponseChecksumValidationWhenRequired),
	}
	if c.Region != "" {
		opts = append(opts, config.WithRegion(c.Region))
	}
	if c.AccessKey != "" {
		opts = append(opts, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, "")))
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("load the AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		cfg.Region = defaultRegion
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if c.Endpoint != "" {
			o.BaseEndpoint = aws.String(c.Endpoint)
		}
		if c.Transport != nil {
			o.HTTPClient = &http.Client{Transport: c.Transport}
		}
		o.UsePathStyle = c.PathStyle
		o.DisableLogOutputChecksumValidationSkipped = true
	})
	timeout := c.RequestTimeout
	if timeout <= 0 {
		timeout = defaultRequestTimeout
	}
	return &Client{s3: client, timeout: timeout, overwrite: c.Overwrite}, nil
}

func httpClient() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConns, t.MaxIdleConnsPerHost = idleConnections, idleConnections
	})
}

// newRetryer replaces the SDK's retry token bucket: shared by all calls, it
// ends every retry of the process after one bad phase of the store.
func newRetryer(maxBackoff time.Duration) aws.Retryer {
	if maxBackoff <= 0 {
		maxBackoff = 5 * time.Second
	}
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = attempts
		o.MaxBackoff = maxBackoff
		o.RateLimiter = ratelimit.None
	})
}

// call bounds one request with its retries.
func (c *Client) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.timeout)
}
