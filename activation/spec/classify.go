package spec

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
)

type operation = delivery.Operation

// verdicts are what a rule may decide.
var verdicts = []string{"applied", "retry", "throttle", "throttle_daily", "auth", "config", "reject", "reject_batch", "skip", "exists", "missing", "unknown"}

// propertyTypes are the types of a property.
var propertyTypes = []string{"text", "number", "bool", "date", "datetime", "enum", "json"}

// verdict is what an answer means as a whole.
type verdict struct {
	do   string
	wait time.Duration
}

// judge decides by the spec's rules, then by what statuses usually mean.
func (s *Spec) judge(a *answer, op operation) verdict {
	f := &facts{status: a.status, operation: op.String(), headers: a.flatHeaders(), body: a.doc}
	for _, r := range s.Classify {
		if r.when.holds(f) {
			return verdict{r.Do, max(a.retryAfter, waitIfUnsaid(r.Wait, a.retryAfter))}
		}
	}
	return verdict{usual(a.status), a.retryAfter}
}

func waitIfUnsaid(wait, said time.Duration) time.Duration {
	if said > 0 {
		return 0
	}
	return wait
}

// usual says what a status means where the spec does not.
func usual(status int) string {
	switch {
	case status == http.StatusTooManyRequests:
		return "throttle"
	case status == http.StatusUnauthorized:
		return "auth"
	case status == http.StatusConflict, status == http.StatusRequestTimeout, status == http.StatusLocked, status == http.StatusTooEarly, status == 477:
		return "retry"
	case status == http.StatusBadRequest, status == http.StatusUnprocessableEntity, status == http.StatusRequestEntityTooLarge:
		return "reject_batch"
	case status == http.StatusNotFound, status == http.StatusGone:
		return "missing"
	case status == http.StatusNotImplemented:
		return "config"
	case status >= 500:
		return "retry"
	case status >= 200 && status < 300:
		return "unknown"
	}
	return "config" // 403, 405, redirects: nothing that the next record would change
}

// judgeRow decides what the refusal of one record means.
func (s *Spec) judgeRow(status int, op operation, code, message string, item any) verdict {
	f := &facts{status: status, operation: op.String(), code: code, message: message, item: item}
	for _, r := range s.Rows {
		if r.when.holds(f) {
			return verdict{r.Do, r.Wait}
		}
	}
	return verdict{do: "reject"}
}

// outcome turns a verdict about one record into its outcome.
func (v verdict) outcome(op operation) delivery.Outcome {
	switch v.do {
	case "applied":
		return delivery.Applied
	case "retry":
		return delivery.Retry
	case "throttle", "throttle_daily":
		return delivery.Throttled
	case "auth":
		return delivery.Auth
	case "config":
		return delivery.Config
	case "reject", "reject_batch":
		return delivery.Rejected
	case "skip":
		return delivery.Skipped
	case "exists":
		if op == delivery.Insert {
			return delivery.Skipped
		}
		return delivery.Retry // two creates of one new key raced, or an index runs behind
	case "missing":
		switch op {
		case delivery.Delete, delivery.Archive:
			return delivery.Unchanged
		case delivery.Update:
			return delivery.Skipped
		}
		return delivery.Retry // the known id is gone: the engine's state is stale
	}
	return delivery.Unknown
}

// parseRetryAfter reads seconds or a date; what cannot be read says nothing.
func parseRetryAfter(h string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseFloat(strings.TrimSpace(h), 64); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, 86400*2) * float64(time.Second))
	}
	if at, err := http.ParseTime(h); err == nil {
		return min(max(at.Sub(now), 0), 48*time.Hour)
	}
	return 0
}

var (
	wellFormedCode = regexp.MustCompile(`^[A-Za-z0-9_.:/\- ]{1,80}$`)
	wellFormedID   = regexp.MustCompile(`^[A-Za-z0-9_.:+/=\-]{1,128}$`)
	address        = regexp.MustCompile(`[^\s@"'<>()\[\],]+@[^\s@"'<>()\[\],]+`)
	longNumber     = regexp.MustCompile(`\+?\d[\d \-]{5,}\d`)
)

// maxMessage is how much of the vendor's words is kept.
const maxMessage = 240

// scrub shortens a vendor's words and takes out the values that the changes
// hold: invariant 7.
func scrub(message string, changes []*delivery.Change) string {
	if message == "" {
		return ""
	}
	if len(message) > 4*maxMessage {
		message = message[:4*maxMessage]
	}
	message = strings.ToValidUTF8(message, "")
	message = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, message)
	var values []string
	for _, c := range changes {
		values = append(values, scalarText(c.Match.Value))
		for i := range c.Fields {
			values = append(values, scalarText(c.Fields[i].Value))
		}
	}
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) })
	for _, v := range slices.Compact(values) {
		message = hide(message, v)
	}
	message = address.ReplaceAllString(message, "***")
	message = longNumber.ReplaceAllString(message, "***")
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	return message
}

// hide replaces v in the message; a short value only where it stands quoted.
func hide(message, v string) string {
	if v == "" || v == "null" || v == "true" || v == "false" {
		return message
	}
	if len(v) >= 3 {
		lower, low := strings.ToLower(message), strings.ToLower(v)
		if len(lower) != len(message) || len(low) != len(v) {
			return strings.ReplaceAll(message, v, "***")
		}
		var b strings.Builder
		for {
			i := strings.Index(lower, low)
			if i < 0 {
				break
			}
			b.WriteString(message[:i])
			b.WriteString("***")
			message, lower = message[i+len(v):], lower[i+len(v):]
		}
		return b.String() + message
	}
	for _, q := range []string{`"%s"`, `'%s'`, `[%s]`, `(%s)`, `: %s`} {
		message = strings.ReplaceAll(message, fmt.Sprintf(q, v), fmt.Sprintf(q, "***"))
	}
	return message
}

// cleanCode keeps a vendor's code if it looks like one.
func cleanCode(code string) string {
	if wellFormedCode.MatchString(code) {
		return code
	}
	return ""
}
