package activation

import (
	"fmt"
	"strings"
)

// Code is the number of an outcome in the catalogue; empty where nothing is wrong.
type Code string

// The codes. Numbers are never used again for something else.
const (
	CodeNoMatch          Code = "A01"
	CodeNoKey            Code = "A02"
	CodeMatchConflict    Code = "A03"
	CodeReferenceMissing Code = "A04"
	CodeNeedsFullRow     Code = "A05"
	CodeNoConsent        Code = "A06"
	CodeNotOurs          Code = "A07"
	CodeNotThere         Code = "A08"
	CodeExists           Code = "A09"
	CodeValue            Code = "A10"
	CodeIgnoredDelete    Code = "A11"
	CodeRefused          Code = "A20"
	CodeAttempts         Code = "A21"
	CodeUnknown          Code = "A22"
	CodeThrottled        Code = "A30"
	CodeUnavailable      Code = "A31"
	CodeAuth             Code = "A40"
	CodeConfig           Code = "A41"
	CodeDeleteGuard      Code = "A50"
	CodeRejectGuard      Code = "A51"
	CodeTruncateGuard    Code = "A52"
	CodeShrinkGuard      Code = "A53"
)

// Cause explains a code.
type Cause struct {
	Code           Code
	Name           string // rejected, skipped, paused, waits
	Cause, Remedy  string
	HealsByItself  bool // a newer value of the key is tried again
	StopsTheStream bool // until somebody resumes it
}

// Catalogue returns every code with its cause and remedy, in order.
func Catalogue() []Cause {
	rejected := func(c Code, cause, remedy string) Cause {
		return Cause{Code: c, Name: "rejected", Cause: cause, Remedy: remedy, HealsByItself: true}
	}
	skipped := func(c Code, cause, remedy string) Cause {
		return Cause{Code: c, Name: "skipped", Cause: cause, Remedy: remedy}
	}
	waits := func(c Code, cause, remedy string) Cause {
		return Cause{Code: c, Name: "waits", Cause: cause, Remedy: remedy, HealsByItself: true}
	}
	paused := func(c Code, cause, remedy string) Cause {
		return Cause{Code: c, Name: "paused", Cause: cause, Remedy: remedy, StopsTheStream: true}
	}
	return []Cause{
		rejected(CodeNoMatch, "the field by which the destination finds the record is null or missing", "fill it at the source, or match by another field"),
		rejected(CodeNoKey, "the row has no key", "give the table a primary key"),
		rejected(CodeMatchConflict, "another row has the same match value, and its record exists already", "make the match field unique at the source, or set conflict: latest_wins"),
		rejected(CodeReferenceMissing, "the record that this one refers to is not in the destination", "deliver the other stream first, or set the reference's missing: omit"),
		rejected(CodeNeedsFullRow, "the source has left out a value that the destination never acknowledged", "change that column, or run a new backfill of the stream"),
		skipped(CodeNoConsent, "the consent field is not true", "nothing: this is what the consent rule is for"),
		skipped(CodeNotOurs, "the row was deleted, but its record was not created by this connection", "nothing: records of others are never deleted"),
		skipped(CodeNotThere, "update or delete of a record that the destination does not have", "use upsert to create missing records"),
		skipped(CodeExists, "insert of a record that the destination has already", "use upsert to change existing records"),
		rejected(CodeValue, "a value cannot be written as the destination's type", "shape it by a rule of the stream"),
		skipped(CodeIgnoredDelete, "the row was deleted, and on_delete is ignore", "set on_delete to delete or archive records with their rows"),
		rejected(CodeRefused, "the destination refused the record; its own code and words say why", "correct the row at the source: the newer value is tried by itself"),
		rejected(CodeAttempts, "the destination failed for this record again and again while it took others", "look at the vendor's message; then sluice dlq retry"),
		rejected(CodeUnknown, "the destination never said what became of the record, and it cannot be read or sent again safely", "look at the record in the destination; then sluice dlq retry or drop"),
		waits(CodeThrottled, "the account is over its quota", "nothing: it goes on by itself; lower other use of the account or the share if it is often"),
		waits(CodeUnavailable, "the destination does not answer, or answers with server errors", "nothing: it goes on by itself; see the vendor's status page"),
		paused(CodeAuth, "the credentials are not accepted", "renew the key or the grant of the account, then sluice resume"),
		paused(CodeConfig, "a scope, object or property is wrong for all records", "correct the account or the mapping, then sluice resume"),
		paused(CodeDeleteGuard, "more records would be deleted than guards.delete_ratio allows", "check the source; sluice resume goes on with the deletes"),
		paused(CodeRejectGuard, "more records were refused than guards.reject_ratio allows", "correct what is refused, then sluice resume"),
		paused(CodeTruncateGuard, "the table was truncated", "check the source; sluice resume deletes the records of this connection"),
		paused(CodeShrinkGuard, "a backfill brought far fewer rows than the destination has", "check the source; sluice resume deletes what was not found"),
	}
}

// CatalogueMarkdown returns the catalogue as a page of the documentation.
func CatalogueMarkdown() string {
	var b strings.Builder
	b.WriteString("# Outcomes of activation\n\nEvery record that is not simply delivered carries one of these codes: in the activation log, on the dead-letter topic and in `sluice status`.\n\n")
	b.WriteString("| code | | cause | remedy |\n|---|---|---|---|\n")
	for _, c := range Catalogue() {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.Code, c.Name, c.Cause, c.Remedy)
	}
	b.WriteString("\n*rejected*: on the dead-letter topic; a newer value of the same key is tried by itself. *skipped*: counted as filtered. *waits*: no record is lost and no attempt is counted. *paused*: the stream stops until `sluice resume`.\n")
	return b.String()
}

// about returns the cause of a code in one line.
func about(c Code) string {
	for _, x := range Catalogue() {
		if x.Code == c {
			return x.Cause + "; " + x.Remedy
		}
	}
	return string(c)
}

// StopError stops a connection until somebody resumes its stream.
type StopError struct {
	Connection string
	Code       Code
	Detail     string // holds no row value
}

// Error names the code, the cause and the remedy.
func (e *StopError) Error() string {
	s := fmt.Sprintf("%s: %s: %s", e.Connection, e.Code, about(e.Code))
	if e.Detail != "" {
		s += " (" + e.Detail + ")"
	}
	return s
}

// Park returns why the stream must stop: a consumer parks it instead of trying again.
func (e *StopError) Park() string { return e.Error() }
