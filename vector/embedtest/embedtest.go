// Package embedtest is a strict embedding server for tests: it takes and refuses what OpenAI does, answers
// with deterministic vectors, and fails as it is told to.
package embedtest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options says how the server behaves. Zero values are OpenAI's limits.
type Options struct {
	Dims         int           // default 1536
	Delay        time.Duration // of each call
	Key          string        // that a request must carry; empty = any
	Model        string        // the only one there is; empty = any
	MaxInputs    int           // default 2048; a smaller one answers 413
	MaxInput     int           // tokens a text; default 8192
	MaxTokens    int           // tokens a request; default 300,000
	PerMinute    int           // requests a minute, as a bucket that starts full; 0 = any
	RetryAfterMs int           // of a 429; default 20
	FloatOnly    bool          // ignores base64
	Poison       string        // a text that holds it is refused with 400
	RefuseAll    bool          // 400 for everything
	Faults       []Fault       // by number of the call
	KeepTexts    bool          // remember every text, for Texts
}

// Fault is what happens to the call of the given number, from 1 on.
type Fault struct {
	Call   int
	Kind   string // status, drop, html, truncate, short, shuffle, duplicate, nan, zero, wide
	Status int
}

// Stats is what the server has seen.
type Stats struct {
	Calls, Refused, Inputs, Distinct, InFlight int // InFlight: the most at once
}

// Server is a running server; its address for a client is URL.
type Server struct {
	URL  string
	opts Options
	http *httptest.Server

	mu     sync.Mutex
	stats  Stats
	now    int
	seen   map[[32]byte]int
	texts  []string
	bucket float64
	filled time.Time
}

// Start runs a server until Close.
func Start(o Options) *Server {
	if o.Dims == 0 {
		o.Dims = 1536
	}
	if o.MaxInputs == 0 {
		o.MaxInputs = 2048
	}
	if o.MaxInput == 0 {
		o.MaxInput = 8192
	}
	if o.MaxTokens == 0 {
		o.MaxTokens = 300_000
	}
	if o.RetryAfterMs == 0 {
		o.RetryAfterMs = 20
	}
	s := &Server{opts: o, seen: map[[32]byte]int{}, bucket: float64(o.PerMinute), filled: time.Now()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/embeddings", s.embeddings)
	mux.HandleFunc("POST /v2/embed", s.cohere)
	mux.HandleFunc("POST /api/embed", s.ollama)
	mux.HandleFunc("POST /openai/deployments/{model}/embeddings", s.embeddings)
	s.http = httptest.NewServer(mux)
	s.URL = s.http.URL
	return s
}

// Close ends the server.
func (s *Server) Close() { s.http.Close() }

// Stats returns what the server has seen so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Distinct = len(s.seen)
	return st
}

// Texts returns every text that was embedded, in order of the calls.
func (s *Server) Texts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.texts...)
}

// Vector returns what the server answers for a text: a direction that its hash chooses.
func Vector(text string, dims int) []float32 {
	sum := sha256.Sum256([]byte(text))
	x := binary.LittleEndian.Uint64(sum[:]) | 1
	v := make([]float32, dims)
	var norm float64
	for i := range v {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		v[i] = float32(int32(x)) / (1 << 31)
		norm += float64(v[i]) * float64(v[i])
	}
	scale := float32(1 / math.Sqrt(norm))
	for i := range v {
		v[i] *= scale
	}
	return v
}

// refuse answers as OpenAI does.
func (s *Server) refuse(w http.ResponseWriter, status int, code, message string) {
	s.mu.Lock()
	s.stats.Refused++
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": message, "type": "invalid_request_error", "code": code}})
}

// enter counts a call and returns its fault, if any; leave ends it.
func (s *Server) enter() (f Fault, limited bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Calls++
	s.now++
	s.stats.InFlight = max(s.stats.InFlight, s.now)
	if s.opts.PerMinute > 0 {
		at := time.Now()
		s.bucket = min(float64(s.opts.PerMinute), s.bucket+at.Sub(s.filled).Minutes()*float64(s.opts.PerMinute))
		s.filled = at
		if s.bucket < 1 {
			return f, true
		}
		s.bucket--
	}
	for _, g := range s.opts.Faults {
		if g.Call == s.stats.Calls {
			return g, false
		}
	}
	return f, false
}

func (s *Server) leave() {
	s.mu.Lock()
	s.now--
	s.mu.Unlock()
}

// took remembers texts that are answered.
func (s *Server) took(texts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Inputs += len(texts)
	for _, t := range texts {
		s.seen[sha256.Sum256([]byte(t))]++
	}
	if s.opts.KeepTexts {
		s.texts = append(s.texts, texts...)
	}
}

// valid reports whether the texts may be embedded, and refuses them otherwise.
func (s *Server) valid(w http.ResponseWriter, texts []string) bool {
	o, tokens := s.opts, 0
	switch {
	case len(texts) == 0:
		s.refuse(w, 400, "invalid_request", "input is empty")
		return false
	case len(texts) > o.MaxInputs && o.MaxInputs < 2048:
		s.refuse(w, 413, "batch_too_large", fmt.Sprintf("batch size %d > maximum allowed batch size %d", len(texts), o.MaxInputs))
		return false
	case len(texts) > o.MaxInputs:
		s.refuse(w, 400, "array_above_max_length", "too many inputs")
		return false
	case o.RefuseAll:
		s.refuse(w, 400, "unsupported_parameter", "nothing is taken")
		return false
	}
	for _, t := range texts {
		n := (len(t) + 3) / 4
		tokens += n
		switch {
		case t == "":
			s.refuse(w, 400, "invalid_request", "an input is empty")
			return false
		case n > o.MaxInput:
			s.refuse(w, 400, "context_length_exceeded", "an input is too long")
			return false
		case o.Poison != "" && strings.Contains(t, o.Poison):
			s.refuse(w, 400, "content_filter", "refused: "+t) // services repeat what they were sent
			return false
		}
	}
	if tokens > o.MaxTokens {
		s.refuse(w, 400, "max_tokens_per_request", "too many tokens")
		return false
	}
	return true
}

// fail carries out a fault that replaces the answer.
func (s *Server) fail(w http.ResponseWriter, f Fault) bool {
	switch f.Kind {
	case "status":
		w.Header().Set("Retry-After-Ms", "5")
		s.refuse(w, f.Status, "server_error", "told to fail")
	case "drop":
		panic(http.ErrAbortHandler)
	case "html":
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write([]byte("<html>bad gateway</html>"))
	case "truncate":
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"object":"list","data":[{"ind`))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	default:
		return false
	}
	return true
}

// vectors are the answer, bent as the fault says.
func (s *Server) vectors(texts []string, dims int, f Fault) [][]float32 {
	vs := make([][]float32, len(texts))
	for i, t := range texts {
		vs[i] = Vector(t, dims)
	}
	switch f.Kind {
	case "short":
		vs = vs[:len(vs)-1]
	case "nan":
		vs[0][0] = float32(math.Inf(1))
	case "zero":
		clear(vs[0])
	case "wide":
		vs[0] = append(vs[0], 0)
	}
	return vs
}

func (s *Server) embeddings(w http.ResponseWriter, r *http.Request) {
	f, limited := s.enter()
	defer s.leave()
	if limited {
		w.Header().Set("Retry-After-Ms", fmt.Sprint(s.opts.RetryAfterMs))
		s.refuse(w, 429, "rate_limit_exceeded", "slow down")
		return
	}
	time.Sleep(s.opts.Delay)
	if s.fail(w, f) {
		return
	}
	key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if k := r.Header.Get("api-key"); k != "" {
		key = k
	}
	if s.opts.Key != "" && key != s.opts.Key {
		s.refuse(w, 401, "invalid_api_key", "incorrect key: "+key)
		return
	}
	var in struct {
		Input  []string `json:"input"`
		Model  string   `json:"model"`
		Format string   `json:"encoding_format"`
		Dims   int      `json:"dimensions"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<20)).Decode(&in); err != nil {
		s.refuse(w, 400, "invalid_json", "the body is not JSON")
		return
	}
	if s.opts.Model != "" && in.Model != s.opts.Model {
		s.refuse(w, 404, "model_not_found", "no such model")
		return
	}
	if !s.valid(w, in.Input) {
		return
	}
	dims := s.opts.Dims
	if in.Dims > 0 {
		dims = in.Dims
	}
	s.took(in.Input)
	s.answer(w, s.vectors(in.Input, dims, f), in.Format == "base64" && !s.opts.FloatOnly, f, in.Input)
}

// answer writes vectors as OpenAI does. It is written by hand: a benchmark shall measure its client, not this.
func (s *Server) answer(w http.ResponseWriter, vs [][]float32, encoded bool, f Fault, texts []string) {
	order := make([]int, len(vs))
	for i := range order {
		order[i] = i
	}
	if f.Kind == "shuffle" && len(vs) > 1 {
		order[0], order[len(vs)-1] = order[len(vs)-1], order[0]
	}
	out := append(make([]byte, 0, 6*s.opts.Dims*len(vs)+1024), `{"object":"list","data":[`...)
	var raw []byte
	for n, i := range order {
		index := i
		if f.Kind == "duplicate" && n == 1 {
			index = 0
		}
		if n > 0 {
			out = append(out, ',')
		}
		out = fmt.Appendf(out, `{"object":"embedding","index":%d,"embedding":`, index)
		switch {
		case encoded:
			raw = raw[:0]
			for _, x := range vs[i] {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
			}
			out = append(base64.StdEncoding.AppendEncode(append(out, '"'), raw), '"')
		case f.Kind == "nan":
			out = append(out, "[]"...) // JSON has no such number
		default:
			for k, x := range vs[i] {
				if k == 0 {
					out = append(out, '[')
				} else {
					out = append(out, ',')
				}
				out = strconv.AppendFloat(out, float64(x), 'g', -1, 32)
			}
			out = append(out, ']')
		}
		out = append(out, '}')
	}
	tokens := 0
	for _, t := range texts {
		tokens += (len(t) + 3) / 4
	}
	out = fmt.Appendf(out, `],"model":"mock","usage":{"prompt_tokens":%d,"total_tokens":%d}}`, tokens, tokens)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(out)
}

func (s *Server) cohere(w http.ResponseWriter, r *http.Request) {
	_, _ = s.enter()
	defer s.leave()
	var in struct {
		Texts []string `json:"texts"`
		Type  string   `json:"input_type"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<20)).Decode(&in); err != nil || in.Type == "" || len(in.Texts) > 96 {
		s.refuse(w, 400, "invalid_request", "the body is not what is asked for")
		return
	}
	if !s.valid(w, in.Texts) {
		return
	}
	s.took(in.Texts)
	_ = json.NewEncoder(w).Encode(map[string]any{"embeddings": map[string]any{"float": s.vectors(in.Texts, s.opts.Dims, Fault{})},
		"meta": map[string]any{"billed_units": map[string]int{"input_tokens": len(in.Texts)}}})
}

func (s *Server) ollama(w http.ResponseWriter, r *http.Request) {
	_, _ = s.enter()
	defer s.leave()
	var in struct {
		Input []string `json:"input"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<20)).Decode(&in); err != nil {
		s.refuse(w, 400, "invalid_request", "the body is not what is asked for")
		return
	}
	if !s.valid(w, in.Input) {
		return
	}
	s.took(in.Input)
	_ = json.NewEncoder(w).Encode(map[string]any{"embeddings": s.vectors(in.Input, s.opts.Dims, Fault{}), "prompt_eval_count": len(in.Input)})
}
