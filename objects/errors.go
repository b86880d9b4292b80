package objects

import (
	"errors"
	"io/fs"
	"net/http"
	"strings"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// What went wrong, for errors.Is.
var (
	ErrNotFound  = errors.New("no such object or bucket") // also fs.ErrNotExist
	ErrForbidden = errors.New("access denied")
	ErrThrottled = errors.New("the store is overloaded")
	ErrExists    = errors.New("the object exists already")
	ErrChanged   = errors.New("the object is another version than the one asked for")
)

// Error is a failed call: what was tried on what, the store's own code, and
// what to do about it.
type Error struct {
	Op     string // put, get, list, delete, head, create bucket
	Bucket string
	Key    string // empty for calls on a bucket
	Status int    // HTTP status; 0 = no answer
	Code   string // the store's code: NoSuchKey; may be empty
	Fix    string // for people; may be empty
	Err    error
}

// Error names operation, object, cause and fix.
func (e *Error) Error() string {
	s := "s3: " + e.Op + " s3://" + e.Bucket
	if e.Key != "" {
		s += "/" + e.Key
	}
	s += ": "
	if e.Code != "" {
		s += e.Code + ": "
	}
	s += e.Err.Error()
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches the sentinels of this package and fs.ErrNotExist.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrNotFound, fs.ErrNotExist:
		return e.Status == http.StatusNotFound
	case ErrForbidden:
		return e.Status == http.StatusForbidden || e.Status == http.StatusUnauthorized
	case ErrThrottled:
		return e.Status == http.StatusServiceUnavailable || e.Status == http.StatusTooManyRequests
	case ErrChanged:
		return e.Status == http.StatusPreconditionFailed && (e.Op == "get" || strings.HasPrefix(e.Op, "copy"))
	case ErrExists:
		return e.Status == http.StatusPreconditionFailed || e.Status == http.StatusConflict
	}
	return false
}

// wrap makes an Error of what the SDK answered; nil stays nil.
func wrap(op, bucket, key string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Op: op, Bucket: bucket, Key: key, Err: err}
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) {
		e.Status = response.HTTPStatusCode()
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		e.Code = api.ErrorCode()
		if m := api.ErrorMessage(); m != "" {
			e.Err = &cause{text: m, err: err}
		}
	}
	e.Fix = fix(e.Status, e.Code)
	return e
}

// cause shortens the SDK's text, which repeats operation and request ids, and
// keeps the chain.
type cause struct {
	text string
	err  error
}

func (c *cause) Error() string { return c.text }
func (c *cause) Unwrap() error { return c.err }

func fix(status int, code string) string {
	switch {
	case code == "NoSuchBucket":
		return "create the bucket or correct the warehouse address"
	case code == "InvalidAccessKeyId", code == "SignatureDoesNotMatch":
		return "check access_key and secret_key"
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return "grant s3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket and s3:AbortMultipartUpload on the bucket"
	case status == http.StatusServiceUnavailable, status == http.StatusTooManyRequests:
		return "the store asks to slow down: use fewer, larger commits"
	case status == 0:
		return "check endpoint and network"
	}
	return ""
}
