// Package embed turns texts into vectors: through the APIs of model providers or by feature hashing,
// in packed requests whose answers are checked.
package embed

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
)

// Use says what a text is for: some models embed questions and documents differently.
type Use uint8

// The uses of a text.
const (
	Document Use = iota
	Query
)

// Kind says how far a model understands what it embeds; hybrid search weighs it by that.
type Kind string

// The kinds of models.
const (
	Lexical  Kind = "lexical"  // knows words only, as feature hashing does
	Weak     Kind = "weak"     // a small model
	Semantic Kind = "semantic" // a provider's model
)

// Weight is what the best match by vectors counts beside a best match by words of 1. A weak model with an equal
// vote makes a good ranking worse, so that only a semantic one has it.
func (k Kind) Weight() float64 {
	switch k {
	case Semantic:
		return 1
	case Weak:
		return 0.5
	default:
		return 0.4
	}
}

// Spec names a space of vectors: two vectors may be compared only if all of it is equal. Equal width says nothing.
type Spec struct {
	Provider       string `json:"provider"`
	Model          string `json:"model"`
	Revision       string `json:"revision,omitempty"`
	Dims           int    `json:"dims"`
	DocumentPrefix string `json:"document_prefix,omitempty"` // put before each document's text
	QueryPrefix    string `json:"query_prefix,omitempty"`    // put before each question
	Kind           Kind   `json:"kind"`
}

// Fingerprint identifies the space of s.
func (s Spec) Fingerprint() [32]byte {
	s.Kind = "" // how it is weighed does not change the vectors
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a struct of strings and a number always encodes
	}
	return sha256.Sum256(b)
}

// Limits is what one request may hold and how often one may be sent. Zero values mean no limit.
type Limits struct {
	Inputs    int     // texts a request
	Tokens    int     // tokens a request, as the server estimates them: a quarter of the bytes
	Bytes     int     // bytes of text a request
	Parallel  int     // requests at once; default 4
	PerMinute float64 // requests a minute of the account
	TokensPM  float64 // tokens a minute of the account
	Share     float64 // part of the account's quota that is ours, 0 to 1; 0 = all
}

// Usage is what requests have cost.
type Usage struct {
	Calls  int64 `json:"calls"`
	Inputs int64 `json:"inputs"`
	Tokens int64 `json:"tokens"`
}

// Add adds v to u.
func (u *Usage) Add(v Usage) {
	u.Calls += v.Calls
	u.Inputs += v.Inputs
	u.Tokens += v.Tokens
}

// Embedder sends one request. Its vectors come in the order of the texts and are not checked yet.
type Embedder interface {
	Spec() Spec
	Limits() Limits
	Embed(ctx context.Context, texts []string, use Use) ([][]float32, Usage, error)
}

// Reasons why a text has no vector, for errors.Is. They concern the text alone.
var (
	ErrEmpty   = errors.New("the text is empty")
	ErrRefused = errors.New("the embedding service refuses the text")
)

// Error is an answer of an embedding service that holds no vectors. It never holds what was sent or the
// service's own words, which may repeat it.
type Error struct {
	Provider string
	Status   int    // HTTP status; 0 = no usable answer
	Code     string // the service's code, if it is a plain word
	Fix      string // for people; may be empty
	Err      error
}

// Error names the service, the status and the fix.
func (e *Error) Error() string {
	s := "embed with " + e.Provider
	if e.Status != 0 {
		s += fmt.Sprintf(": status %d", e.Status)
	}
	if e.Code != "" {
		s += " " + e.Code
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// tooBig tells that fewer texts at once may do.
func (e *Error) tooBig() bool {
	return e.Status == 413 || e.Status == 400 && (e.Code == "max_tokens_per_request" || e.Code == "array_above_max_length")
}

// refused tells that something in the texts is not taken.
func (e *Error) refused() bool { return e.Status == 400 || e.Status == 422 }
