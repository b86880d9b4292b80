package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Pos is a place in the file, both counted from 1; columns count characters.
type Pos struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

// Problem is one mistake in a file.
type Problem struct {
	File string `json:"file"`
	Pos
	Path    string `json:"path,omitempty"` // such as sinks.lake.streams[1].from; empty for the file itself
	Message string `json:"message"`        // what is wrong and what would be right
}

// Place returns file:line:column.
func (p Problem) Place() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// String returns file:line:column: path: message.
func (p Problem) String() string {
	if p.Path == "" {
		return p.Place() + ": " + p.Message
	}
	return p.Place() + ": " + p.Path + ": " + p.Message
}

// Problems are all mistakes of a file, ordered by place. It is the error that
// Load, Parse and Resolve return for a file that can be read but not used.
type Problems []Problem

// Error returns one line per problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

func (p Problems) sort() {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Path, b.Path))
	})
}
