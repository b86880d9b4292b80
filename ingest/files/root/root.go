// Package root says what the places that files are read from have in common:
// the entries of a listing, their access lists and why one is not read.
package root

import (
	"errors"
	"fmt"
	"mime"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxPath is the most bytes of a path: it is the key of a record.
const MaxPath = 1024

// What went wrong, for errors.Is.
var (
	// ErrChanged: the file is another version than the one that was listed.
	// The next listing shows the new one.
	ErrChanged = errors.New("the file was changed since it was listed")

	// ErrExpired: the place does not know a token of changes any more: list everything.
	ErrExpired = errors.New("the token of changes has expired")

	// ErrUnreadable: this file cannot be read, others can.
	ErrUnreadable = errors.New("the file cannot be read")
)

// Entry is one file of a listing.
type Entry struct {
	Path     string    // below the root, slash-separated; the key of its record
	ID       string    // stays the same when the file is moved; empty if the place has none
	ETag     string    // version of the content; two versions never share one
	Weak     bool      // the ETag is made of times: a write within two seconds may keep it
	Size     int64     // bytes; -1 = unknown before it is read
	Modified time.Time // zero = unknown
	MIME     string    // empty: told by name and content
	Title    string    // may be empty
	URI      string    // where people find the file
	Metadata string    // a JSON object, or empty
	Object   string    // the claim by which the body can be read as it is; empty if only Open can
	SHA256   []byte    // if the place tells it
	ACL      *ACL      // nil = unknown: nobody may see the file
	Skip     *Reason   // the file exists but is not read
	Ref      string    // what Open needs beside Path, such as an address; may be empty
}

// ACL says who may see a file. A principal is user:name, group:name or public;
// deny wins.
type ACL struct {
	Allow []string `json:"allow" yaml:"allow"`
	Deny  []string `json:"deny" yaml:"deny"`
}

// Normal returns a sorted without doubles, so that equal lists are equal text.
func (a ACL) Normal() ACL {
	normal := func(list []string) []string {
		list = append([]string{}, list...)
		slices.Sort(list)
		return slices.Compact(list)
	}
	return ACL{Allow: normal(a.Allow), Deny: normal(a.Deny)}
}

// Group is a named set of principals.
type Group struct {
	Name    string // group:name, as it stands in an ACL
	Members []string
}

// Reason is why a file is not read: it goes to the dead letters.
type Reason struct {
	Code string // stable and short: special_file
	Text string // for people; names no file
}

// Error lets a Reason be returned as an error of Open: it is of this file alone.
func (r *Reason) Error() string { return r.Text }

// Is makes every Reason an ErrUnreadable.
func (r *Reason) Is(target error) bool { return target == ErrUnreadable }

// Reasons that several places have.
var (
	Special     = &Reason{"special_file", "a device, pipe, socket or other special file is not read"}
	LinkOutside = &Reason{"symlink_outside", "a symbolic link that leaves the root, or leads nowhere, is not followed"}
	LinkFolder  = &Reason{"symlink_folder", "a symbolic link to a folder is not followed"}
	BadName     = &Reason{"bad_name", "the name is no UTF-8 text, too long, or has parts such as .. that could leave the root"}
	Forbidden   = &Reason{"forbidden", "the file may not be read; grant read access"}
)

// CheckPath returns nil for a path that is safe as a key and below a folder.
func CheckPath(p string) *Reason {
	if p == "" || len(p) > MaxPath || !utf8.ValidString(p) || strings.ContainsRune(p, 0) {
		return BadName
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == "" || part == "." || part == ".." {
			return BadName
		}
	}
	if strings.Contains(p, `\..\`) || strings.HasPrefix(p, `..\`) {
		return BadName
	}
	return nil
}

// Printable returns p as the key of a refused file: always UTF-8 and bounded.
func Printable(p string) string {
	if !utf8.ValidString(p) {
		p = strings.Trim(fmt.Sprintf("%+q", p), `"`)
	}
	p = strings.ReplaceAll(p, "\x00", `\x00`)
	if p == "" {
		return "?"
	}
	for len(p) > MaxPath || !utf8.ValidString(p) {
		p = p[:min(len(p)-1, MaxPath)]
	}
	return p
}

// types are the media types that matter for text, the same on every machine.
var types = map[string]string{
	".md": "text/markdown", ".markdown": "text/markdown", ".txt": "text/plain", ".text": "text/plain", ".log": "text/plain",
	".csv": "text/csv", ".tsv": "text/tab-separated-values", ".json": "application/json", ".jsonl": "application/x-ndjson",
	".ndjson": "application/x-ndjson", ".yaml": "application/yaml", ".yml": "application/yaml", ".xml": "application/xml",
	".html": "text/html", ".htm": "text/html", ".pdf": "application/pdf", ".eml": "message/rfc822", ".rtf": "application/rtf",
	".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
	".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	".go":   "text/x-go", ".py": "text/x-python", ".js": "text/javascript", ".ts": "text/x-typescript", ".java": "text/x-java",
	".c": "text/x-c", ".h": "text/x-c", ".rs": "text/x-rust", ".sh": "text/x-shellscript", ".sql": "text/x-sql",
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".zip": "application/zip", ".parquet": "application/vnd.apache.parquet",
}

// TypeByName returns the media type that the ending of a name stands for,
// empty if none is known.
func TypeByName(name string) string {
	return types[strings.ToLower(path.Ext(name))]
}

// BareType returns a media type of a server without its parameters, empty for
// what says nothing.
func BareType(s string) string {
	t, _, err := mime.ParseMediaType(s)
	if err != nil || t == "application/octet-stream" || t == "binary/octet-stream" {
		return ""
	}
	return t
}
