package spec

import (
	"encoding/json"
	"strconv"
	"strings"
)

// find walks v along a dotted path; a number is a place in a list, and a name
// in a list looks into its first element. The empty path is v itself.
func find(v any, path, match string) any {
	for path != "" {
		var part string
		part, path, _ = strings.Cut(path, ".")
		if part == "$match" {
			part = match
		}
		if list, ok := v.([]any); ok {
			at, err := strconv.Atoi(part)
			if err != nil {
				if at, path = 0, rest(part, path); len(list) == 0 {
					return nil
				}
			}
			if at < 0 || at >= len(list) {
				return nil
			}
			v = list[at]
			continue
		}
		object, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = object[part]
	}
	return v
}

func rest(part, path string) string {
	if path == "" {
		return part
	}
	return part + "." + path
}

// text returns a scalar as text; a list of one is its element.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	case []any:
		if len(v) > 0 {
			return text(v[0])
		}
	}
	return ""
}

// number returns a whole number, and whether v is one.
func number(v any) (int, bool) {
	n, err := strconv.Atoi(text(v))
	return n, err == nil
}
