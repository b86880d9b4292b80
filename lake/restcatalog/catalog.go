// Package restcatalog serves an Iceberg SQL catalog as a read-only Iceberg
// REST catalog, so that engines which cannot open the database attach to it
// with one line.
package restcatalog

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Config says which catalog to serve.
type Config struct {
	DB        *sql.DB // SQLite or Postgres, opened and closed by the caller
	Catalog   string  // catalog_name in its tables; also the prefix that paths may carry
	Warehouse string  // root of the tables, such as s3://lake/shop

	// ReadMetadata returns a metadata file as it is stored.
	ReadMetadata func(ctx context.Context, location string) ([]byte, error)

	S3     S3
	Logger *slog.Logger // default: slog.Default()
}

// S3 is what readers are told about the object store. With keys, every reader
// that asks for delegated access gets them: they must be keys that can only
// read, and the handler must listen on loopback only.
type S3 struct {
	Endpoint  string // with scheme; empty: AWS
	Region    string
	PathStyle bool
	AccessKey string // empty: readers bring their own
	SecretKey string
}

// Larger metadata, as stored or unpacked, is refused.
const maxMetadataBytes = 512 << 20

type server struct {
	Config
	store store
	mux   *http.ServeMux
}

// New returns the handler. It needs the tables of the SQL catalog to exist.
func New(c Config) http.Handler {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	s := &server{Config: c, store: store{db: c.DB, catalog: c.Catalog}, mux: http.NewServeMux()}
	handle := func(pattern string, f func(*http.Request) (any, error)) {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer, err := f(r)
			s.reply(w, r, answer, err)
		})
	}
	handle("GET /v1/config", s.config)
	handle("GET /v1/namespaces", s.listNamespaces)
	handle("GET /v1/namespaces/{namespace}", s.getNamespace)
	handle("HEAD /v1/namespaces/{namespace}", s.headNamespace)
	handle("GET /v1/namespaces/{namespace}/tables", s.listTables)
	handle("HEAD /v1/namespaces/{namespace}/tables/{table}", s.headTable)
	handle("GET /v1/namespaces/{namespace}/views", s.listViews)
	handle("GET /v1/namespaces/{namespace}/views/{view}", s.getView)
	handle("POST /v1/namespaces/{namespace}/tables/{table}/metrics", s.takeMetrics)
	handle("POST /v1/oauth/tokens", func(*http.Request) (any, error) {
		return nil, notFound("NotFoundException", "this catalog needs no token: attach without credentials")
	})
	handle("/", s.refuse)
	s.mux.HandleFunc("GET /v1/namespaces/{namespace}/tables/{table}", s.loadTable)
	return s
}

// endpoints are advertised to clients, in the spelling of the specification.
var endpoints = []string{
	"GET /v1/{prefix}/namespaces",
	"GET /v1/{prefix}/namespaces/{namespace}",
	"HEAD /v1/{prefix}/namespaces/{namespace}",
	"GET /v1/{prefix}/namespaces/{namespace}/tables",
	"GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
	"HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
	"GET /v1/{prefix}/namespaces/{namespace}/views",
}

// ServeHTTP takes the optional prefix off the path.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	rest, versioned := strings.CutPrefix(path, "/v1/")
	prefix, after, more := strings.Cut(rest, "/")
	if versioned && more && !slices.Contains([]string{"namespaces", "oauth", "transactions"}, prefix) {
		name, err := url.PathUnescape(prefix)
		plain, err2 := url.PathUnescape("/v1/" + after)
		if err != nil || err2 != nil || name != s.Catalog {
			s.reply(w, r, nil, notFound("NotFoundException", "no catalog "+name+" here, only "+s.Catalog))
			return
		}
		r = r.Clone(r.Context())
		r.URL.Path, r.URL.RawPath = plain, "/v1/"+after
	}
	s.mux.ServeHTTP(w, r)
}

func (s *server) config(*http.Request) (any, error) {
	defaults := s.s3Settings()
	if s.Warehouse != "" {
		defaults["warehouse"] = s.Warehouse
	}
	return map[string]any{"defaults": defaults, "overrides": map[string]string{}, "endpoints": endpoints}, nil
}

func (s *server) s3Settings() map[string]string {
	m := map[string]string{}
	if s.S3.Endpoint != "" {
		m["s3.endpoint"] = s.S3.Endpoint
	}
	if s.S3.Region != "" {
		m["s3.region"], m["client.region"] = s.S3.Region, s.S3.Region
	}
	if s.S3.PathStyle {
		m["s3.path-style-access"] = "true"
	}
	return m
}

func (s *server) listNamespaces(r *http.Request) (any, error) {
	all, err := s.store.namespaces(r.Context())
	if err != nil {
		return nil, err
	}
	var parent namespace
	if p := r.URL.Query().Get("parent"); p != "" {
		parent = parseNamespace(p)
		if !slices.ContainsFunc(all, func(n namespace) bool { return n.within(parent) }) {
			return nil, noNamespace(parent)
		}
	}
	children := []namespace{}
	for _, n := range all {
		if n.within(parent) && len(n) > len(parent) {
			child := n[:len(parent)+1]
			if !slices.ContainsFunc(children, func(c namespace) bool { return slices.Equal(c, child) }) {
				children = append(children, child)
			}
		}
	}
	slices.SortFunc(children, func(a, b namespace) int { return slices.Compare(a, b) })
	return map[string]any{"namespaces": children}, nil
}

// findNamespace returns the namespace of the path, if it or one below exists.
func (s *server) findNamespace(r *http.Request) (namespace, error) {
	n := parseNamespace(r.PathValue("namespace"))
	all, err := s.store.namespaces(r.Context())
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(all, func(m namespace) bool { return m.within(n) }) {
		return nil, noNamespace(n)
	}
	return n, nil
}

func (s *server) getNamespace(r *http.Request) (any, error) {
	n, err := s.findNamespace(r)
	if err != nil {
		return nil, err
	}
	properties, err := s.store.properties(r.Context(), n)
	if err != nil {
		return nil, err
	}
	return map[string]any{"namespace": n, "properties": properties}, nil
}

func (s *server) headNamespace(r *http.Request) (any, error) {
	_, err := s.findNamespace(r)
	return nil, err
}

type identifier struct {
	Namespace namespace `json:"namespace"`
	Name      string    `json:"name"`
}

func (s *server) listTables(r *http.Request) (any, error) {
	n, err := s.findNamespace(r)
	if err != nil {
		return nil, err
	}
	names, err := s.store.tables(r.Context(), n)
	if err != nil {
		return nil, err
	}
	list := []identifier{}
	for _, name := range names {
		list = append(list, identifier{n, name})
	}
	return map[string]any{"identifiers": list}, nil
}

func (s *server) headTable(r *http.Request) (any, error) {
	_, err := s.store.location(r.Context(), parseNamespace(r.PathValue("namespace")), r.PathValue("table"))
	return nil, err
}

func (s *server) listViews(r *http.Request) (any, error) {
	_, err := s.findNamespace(r)
	return map[string]any{"identifiers": []identifier{}}, err
}

func (s *server) getView(r *http.Request) (any, error) {
	return nil, notFound("NoSuchViewException", "no view "+parseNamespace(r.PathValue("namespace")).String()+"."+r.PathValue("view"))
}

// takeMetrics accepts what readers report about their scans and forgets it.
func (s *server) takeMetrics(r *http.Request) (any, error) {
	_, err := io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20))
	return nil, err
}

func (s *server) refuse(r *http.Request) (any, error) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return nil, notFound("NotFoundException", "no such address: "+r.URL.Path)
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return nil, &apiError{http.StatusForbidden, "ForbiddenException",
			"this catalog is read-only: its tables are written by sluice"}
	}
	return nil, &apiError{http.StatusMethodNotAllowed, "MethodNotAllowedException", "method " + r.Method + " is not known here"}
}

// loadTable answers with the metadata file as it is stored, so that readers
// see every field the writer wrote.
func (s *server) loadTable(w http.ResponseWriter, r *http.Request) {
	n, table := parseNamespace(r.PathValue("namespace")), r.PathValue("table")
	config, credentials, err := s.delegate(r)
	if err != nil {
		s.reply(w, r, nil, err)
		return
	}
	location, err := s.store.location(r.Context(), n, table)
	if err != nil {
		s.reply(w, r, nil, err)
		return
	}
	tag := etag(location, credentials != nil)
	w.Header().Set("Vary", delegationHeader)
	w.Header().Set("ETag", tag)
	if slices.Contains(strings.Split(r.Header.Get("If-None-Match"), ", "), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	metadata, err := s.readMetadata(r.Context(), location)
	if err != nil {
		// A commit may have replaced the file since its name was read.
		if again, e := s.store.location(r.Context(), n, table); e == nil && again != location {
			location = again
			w.Header().Set("ETag", etag(location, credentials != nil))
			metadata, err = s.readMetadata(r.Context(), location)
		}
	}
	if err != nil {
		w.Header().Del("ETag")
		s.reply(w, r, nil, fmt.Errorf("metadata of %s.%s: %w", n, table, err))
		return
	}
	answer := struct {
		Location    string              `json:"metadata-location"`
		Config      map[string]string   `json:"config"`
		Credentials []storageCredential `json:"storage-credentials,omitempty"`
	}{location, config, credentials}
	head, err := json.Marshal(answer)
	if err != nil {
		s.reply(w, r, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// The metadata goes in last and unchanged: it may be many megabytes.
	_, _ = w.Write(append(head[:len(head)-1], `,"metadata":`...))
	_, _ = w.Write(metadata)
	_, _ = w.Write([]byte("}"))
}

func etag(location string, keys bool) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%v %s", keys, location))
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

const delegationHeader = "X-Iceberg-Access-Delegation"

type storageCredential struct {
	Prefix string            `json:"prefix"`
	Config map[string]string `json:"config"`
}

// delegate returns the settings for the reader's S3 client. The keys in them
// are the one exception to invariant 7: they are read-only, and they go only
// to a reader that asks for them.
func (s *server) delegate(r *http.Request) (map[string]string, []storageCredential, error) {
	config := s.s3Settings()
	asked := false
	for _, v := range r.Header.Values(delegationHeader) {
		asked = asked || strings.Contains(v, "vended-credentials")
	}
	if !asked || s.S3.AccessKey == "" {
		return config, nil, nil
	}
	// A web page can point a name of its own at this address, but not an IP.
	if !ownHost(r.Host) {
		return nil, nil, &apiError{http.StatusForbidden, "ForbiddenException",
			"keys are given only to readers that address this catalog as localhost or by IP"}
	}
	config["s3.access-key-id"], config["s3.secret-access-key"] = s.S3.AccessKey, s.S3.SecretKey
	prefix := s.Warehouse
	if u, err := url.Parse(s.Warehouse); err == nil && u.Host != "" {
		prefix = u.Scheme + "://" + u.Host
	}
	return config, []storageCredential{{Prefix: prefix, Config: config}}, nil
}

func ownHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	return host == "localhost" || net.ParseIP(host) != nil
}

// readMetadata returns the JSON of a metadata file, packed or not.
func (s *server) readMetadata(ctx context.Context, location string) ([]byte, error) {
	b, err := s.ReadMetadata(ctx, location)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("unpack %s: %w", location, err)
		}
		if b, err = io.ReadAll(io.LimitReader(z, maxMetadataBytes+1)); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", location, err)
		}
	}
	if len(b) > maxMetadataBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", location, maxMetadataBytes)
	}
	if !json.Valid(b) {
		return nil, fmt.Errorf("%s is not JSON", location)
	}
	return b, nil
}

// apiError is an error in the form of the specification.
type apiError struct {
	code    int
	kind    string
	message string
}

func (e *apiError) Error() string { return e.message }

func notFound(kind, message string) error { return &apiError{http.StatusNotFound, kind, message} }

func noNamespace(n namespace) error {
	return notFound("NoSuchNamespaceException", "no namespace "+n.String())
}

// reply writes an answer, or an error in the form of the specification.
func (s *server) reply(w http.ResponseWriter, r *http.Request, answer any, err error) {
	if err == nil && (answer == nil || r.Method == http.MethodHead) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	code := http.StatusOK
	if err != nil {
		var e *apiError
		if !errors.As(err, &e) {
			s.Logger.Warn("catalog request failed", "path", r.URL.Path, "error", err)
			e = &apiError{http.StatusServiceUnavailable, "ServiceUnavailableException", err.Error()}
		}
		code = e.code
		answer = map[string]any{"error": map[string]any{"message": e.message, "type": e.kind, "code": e.code}}
		if code == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", "GET, HEAD")
		}
	}
	b, err := json.Marshal(answer)
	if err != nil {
		http.Error(w, "answer cannot be written as JSON", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b)
}
