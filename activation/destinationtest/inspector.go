package destinationtest

import (
	"encoding/json"
	"net/http"
	"strings"
)

// Inspector shows a person what a simulator holds: /records/OBJECT, /journal,
// /calls below any path. It is no part of the vendor's API.
func (s *Simulator) Inspector() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var v any
		switch path := r.URL.Path; {
		case strings.Contains(path, "/records/"):
			v = s.Records(path[strings.Index(path, "/records/")+len("/records/"):])
		case strings.HasSuffix(path, "/journal"):
			v = s.Journal()
		case strings.HasSuffix(path, "/calls"):
			all, throttled := s.Requests()
			v = map[string]int{"calls": all, "throttled": throttled}
		default:
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		_ = e.Encode(v) // a client that is gone needs no answer
	})
}
