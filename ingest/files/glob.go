package files

import (
	"fmt"
	"path"
	"strings"
)

// maxStars bounds the ** of one pattern: each may try every part of a path.
const maxStars = 8

// Glob is a pattern of paths: * and ? within a part, ** for any number of
// parts, and [a-z] for one sign. A pattern without a slash is of the last part.
type Glob struct{ parts []string }

// ParseGlob reads a pattern.
func ParseGlob(s string) (Glob, error) {
	if s == "" {
		return Glob{}, fmt.Errorf("glob %q: it is empty", s)
	}
	if !strings.Contains(s, "/") {
		s = "**/" + s
	}
	parts := strings.Split(strings.TrimPrefix(s, "/"), "/")
	if parts[len(parts)-1] == "" {
		parts[len(parts)-1] = "**" // folder/ is everything below it
	}
	stars := 0
	for _, p := range parts {
		if p == "**" {
			stars++
			continue
		}
		if _, err := path.Match(p, ""); err != nil {
			return Glob{}, fmt.Errorf("glob %q: %w", s, err)
		}
	}
	if stars > maxStars {
		return Glob{}, fmt.Errorf("glob %q: more than %d **", s, maxStars)
	}
	return Glob{parts}, nil
}

// Match reports whether the whole of p fits the pattern.
func (g Glob) Match(p string) bool { return match(g.parts, strings.Split(p, "/")) }

func match(pattern, parts []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for len(pattern) > 1 && pattern[1] == "**" {
				pattern = pattern[1:]
			}
			if len(pattern) == 1 {
				return len(parts) > 0
			}
			for i := range parts {
				if match(pattern[1:], parts[i:]) {
					return true
				}
			}
			return false
		}
		if len(parts) == 0 {
			return false
		}
		if ok, err := path.Match(pattern[0], parts[0]); err != nil || !ok {
			return false
		}
		pattern, parts = pattern[1:], parts[1:]
	}
	return len(parts) == 0
}

func matchAny(globs []Glob, p string) bool {
	for _, g := range globs {
		if g.Match(p) {
			return true
		}
	}
	return false
}
