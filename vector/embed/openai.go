package embed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"

	openai "github.com/sashabaranov/go-openai"
)

// Config says which service embeds. Zero values are defaults.
type Config struct {
	Provider string // hash, openai, azure, cohere, ollama
	URL      string // of the service; default: the provider's own
	Key      string
	Model    string
	Dims     int    // default: what the model is known to give
	Revision string // whatever tells two versions of a model apart

	Kind           Kind // default: semantic, of hash: lexical
	DocumentPrefix string
	QueryPrefix    string
	Limits         Limits            // over the provider's own
	Transport      http.RoundTripper // for tests; nil = the network
}

// known models and their widths.
var known = map[string]int{
	"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536,
	"embed-english-v3.0": 1024, "embed-multilingual-v3.0": 1024, "embed-english-light-v3.0": 384, "embed-multilingual-light-v3.0": 384,
	"embed-v4.0": 1536, "nomic-embed-text": 768, "mxbai-embed-large": 1024, "all-minilm": 384,
}

// Open returns the embedder that cfg describes.
func Open(cfg Config) (Embedder, error) {
	if cfg.Provider == "" || cfg.Provider == "hash" {
		return NewHash(cfg.Dims), nil
	}
	if cfg.Model == "" {
		return nil, errors.New("embed: name the model")
	}
	if cfg.Dims == 0 {
		if cfg.Dims = known[strings.TrimSuffix(cfg.Model, ":latest")]; cfg.Dims == 0 {
			return nil, fmt.Errorf("embed: the width of model %s is not known; set dimensions", cfg.Model)
		}
	}
	if cfg.Kind == "" {
		cfg.Kind = Semantic
	}
	switch cfg.Provider {
	case "openai", "azure":
		return newOpenAI(cfg)
	case "cohere":
		cfg.Limits = cfg.Limits.over(Limits{Inputs: 96, Tokens: 128_000})
		if cfg.URL == "" {
			cfg.URL = "https://api.cohere.com"
		}
		return &cohere{cfg: cfg, http: newRetrying(cfg.Transport)}, nil
	case "ollama":
		cfg.Limits = cfg.Limits.over(Limits{Inputs: 64, Parallel: 2})
		if cfg.URL == "" {
			cfg.URL = "http://127.0.0.1:11434"
		}
		return &ollama{cfg: cfg, http: newRetrying(cfg.Transport)}, nil
	}
	return nil, fmt.Errorf("embed: unknown provider %s; there are hash, openai, azure, cohere, ollama", cfg.Provider)
}

// over returns l with the values that it does not set from d.
func (l Limits) over(d Limits) Limits {
	if l.Inputs == 0 {
		l.Inputs = d.Inputs
	}
	if l.Tokens == 0 {
		l.Tokens = d.Tokens
	}
	if l.Bytes == 0 {
		l.Bytes = d.Bytes
	}
	if l.Parallel == 0 {
		l.Parallel = d.Parallel
	}
	return l
}

func (c Config) spec() Spec {
	return Spec{Provider: c.Provider, Model: c.Model, Revision: c.Revision, Dims: c.Dims, DocumentPrefix: c.DocumentPrefix,
		QueryPrefix: c.QueryPrefix, Kind: c.Kind}
}

// openAI speaks to OpenAI, to Azure and to the many servers that answer as OpenAI does.
type openAI struct {
	cfg    Config
	client *openai.Client
	floats atomic.Bool // the server does not do base64
}

func newOpenAI(cfg Config) (*openAI, error) {
	var oc openai.ClientConfig
	switch {
	case cfg.Provider == "azure":
		if cfg.URL == "" {
			return nil, errors.New("embed: azure needs the address of the resource")
		}
		oc = openai.DefaultAzureConfig(cfg.Key, cfg.URL)
		oc.AzureModelMapperFunc = func(model string) string { return model } // the model is the deployment
		cfg.Limits = cfg.Limits.over(Limits{Inputs: 2048, Tokens: 300_000})
	default:
		oc = openai.DefaultConfig(cfg.Key)
		if cfg.URL != "" {
			oc.BaseURL = strings.TrimSuffix(cfg.URL, "/")
		}
		cfg.Limits = cfg.Limits.over(Limits{Inputs: 2048, Tokens: 300_000})
	}
	oc.HTTPClient = newRetrying(cfg.Transport)
	return &openAI{cfg: cfg, client: openai.NewClientWithConfig(oc)}, nil
}

func (o *openAI) Spec() Spec     { return o.cfg.spec() }
func (o *openAI) Limits() Limits { return o.cfg.Limits }

// Embed sends one request; base64 costs a seventh of the time that numbers take to read.
func (o *openAI) Embed(ctx context.Context, texts []string, _ Use) ([][]float32, Usage, error) {
	req := openai.EmbeddingRequestStrings{Input: texts, Model: openai.EmbeddingModel(o.cfg.Model), EncodingFormat: openai.EmbeddingEncodingFormatBase64}
	if strings.HasPrefix(o.cfg.Model, "text-embedding-3") {
		req.Dimensions = o.cfg.Dims // the others refuse it
	}
	if o.floats.Load() {
		req.EncodingFormat = openai.EmbeddingEncodingFormatFloat
	}
	resp, err := o.client.CreateEmbeddings(ctx, req)
	if isType := (*json.UnmarshalTypeError)(nil); errors.As(err, &isType) && !o.floats.Load() {
		o.floats.Store(true)
		req.EncodingFormat = openai.EmbeddingEncodingFormatFloat
		resp, err = o.client.CreateEmbeddings(ctx, req)
	}
	if err != nil {
		return nil, Usage{Calls: 1}, o.failure(err)
	}
	u := Usage{Calls: 1, Inputs: int64(len(texts)), Tokens: int64(resp.Usage.PromptTokens)}
	if u.Tokens <= 0 {
		for _, t := range texts {
			u.Tokens += int64(estimate(t))
		}
	}
	vs := make([][]float32, len(texts))
	for _, d := range resp.Data {
		if d.Index < 0 || d.Index >= len(vs) || vs[d.Index] != nil {
			return nil, u, &Error{Provider: o.cfg.Provider, Err: errors.New("the answer is not usable: its indexes are not those of the texts")}
		}
		vs[d.Index] = d.Embedding
	}
	if len(resp.Data) != len(texts) {
		return nil, u, &Error{Provider: o.cfg.Provider, Err: fmt.Errorf("the answer is not usable: %d vectors for %d texts", len(resp.Data), len(texts))}
	}
	return vs, u, nil
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// failure keeps of an error what cannot repeat a text or a key.
func (o *openAI) failure(err error) error {
	e := &Error{Provider: o.cfg.Provider}
	var api *openai.APIError
	var req *openai.RequestError
	switch {
	case errors.As(err, &api):
		e.Status = api.HTTPStatusCode
		if code, ok := api.Code.(string); ok && plainWord.MatchString(code) {
			e.Code = code
		} else if plainWord.MatchString(api.Type) {
			e.Code = api.Type
		}
	case errors.As(err, &req):
		e.Status = req.HTTPStatusCode
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Err = err
	default:
		e.Err = transportError(err)
	}
	e.Fix = fixOf(e.Status, e.Code)
	return e
}

// transportError names a failure of the network or of the answer's form without its content.
func transportError(err error) error {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &typ) {
		return errors.New("the answer is not the JSON that was asked for")
	}
	return err
}
