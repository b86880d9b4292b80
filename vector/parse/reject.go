package parse

import (
	"errors"
	"fmt"
)

// Code names why a file, or a part of it, was refused. Codes are stable: they
// are shown to people and counted in metrics.
type Code string

// The codes of a Reject.
const (
	CodeEmpty       Code = "empty"         // no bytes, or no text in them
	CodeUnsupported Code = "unsupported"   // a format that is not read: pictures, programs, old Office files
	CodeEncrypted   Code = "encrypted"     // needs a password
	CodeBroken      Code = "broken"        // not what its first bytes promise
	CodeTruncated   Code = "truncated"     // ends too early
	CodeTooLarge    Code = "too_large"     // Limits.InputBytes
	CodeTextTooLong Code = "text_too_long" // Limits.TextBytes
	CodeBomb        Code = "expands"       // Limits.ExpandedBytes
	CodeTooManyPage Code = "too_many_pages"
	CodeTooDeep     Code = "too_deep" // nested deeper than Limits.Depth
	CodeTooSlow     Code = "too_slow" // Limits.Duration
	CodeMemory      Code = "memory"   // Limits.PDFMemoryBytes
	CodeNeedsOCR    Code = "needs_ocr"
	CodeBadEncoding Code = "bad_encoding"
	CodeEntity      Code = "entities" // declares XML entities
)

// The codes that occur in warnings only.
const (
	WarnAttachment  Code = "attachment_left_out"
	WarnBadPage     Code = "page_unreadable"
	WarnNeedsOCR    Code = "page_needs_ocr"
	WarnRowsCut     Code = "rows_left_out"
	WarnReplaced    Code = "characters_replaced"
	WarnBadRow      Code = "row_unreadable"
	WarnPartMissing Code = "part_unreadable"
)

// Reject is a file that cannot become a document: the same bytes are refused
// again, so that the caller must not retry.
type Reject struct {
	Code   Code
	Reason string // for people; Invariant 7: holds numbers and names of formats, never content of the file
}

// Error is the code and the reason.
func (r *Reject) Error() string { return string(r.Code) + ": " + r.Reason }

// Rejected returns the Reject of err, if it is one.
func Rejected(err error) (*Reject, bool) {
	var r *Reject
	ok := errors.As(err, &r)
	return r, ok
}

func reject(code Code, format string, args ...any) *Reject {
	return &Reject{Code: code, Reason: fmt.Sprintf(format, args...)}
}
