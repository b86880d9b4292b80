package embed

import (
	"context"
	"strings"
)

// cohere speaks to Cohere's second API.
type cohere struct {
	cfg  Config
	http *retrying
}

func (c *cohere) Spec() Spec     { return c.cfg.spec() }
func (c *cohere) Limits() Limits { return c.cfg.Limits }

// Embed sends one request.
func (c *cohere) Embed(ctx context.Context, texts []string, use Use) ([][]float32, Usage, error) {
	in := map[string]any{"model": c.cfg.Model, "texts": texts, "input_type": "search_document", "embedding_types": []string{"float"}, "truncate": "NONE"}
	if use == Query {
		in["input_type"] = "search_query"
	}
	if strings.HasPrefix(c.cfg.Model, "embed-v4") {
		in["output_dimension"] = c.cfg.Dims
	}
	var out struct {
		Embeddings struct {
			Float [][]float32 `json:"float"`
		} `json:"embeddings"`
		Meta struct {
			Billed struct {
				InputTokens float64 `json:"input_tokens"`
			} `json:"billed_units"`
		} `json:"meta"`
	}
	if err := c.http.post(ctx, "cohere", strings.TrimSuffix(c.cfg.URL, "/")+"/v2/embed", c.cfg.Key, in, &out); err != nil {
		return nil, Usage{Calls: 1}, err
	}
	return out.Embeddings.Float, Usage{Calls: 1, Inputs: int64(len(texts)), Tokens: int64(out.Meta.Billed.InputTokens)}, nil
}

// ollama speaks to a model server on the own machine or network.
type ollama struct {
	cfg  Config
	http *retrying
}

func (o *ollama) Spec() Spec     { return o.cfg.spec() }
func (o *ollama) Limits() Limits { return o.cfg.Limits }

// Embed sends one request. The server must not cut a text that is too long: half a chunk would pass for it.
func (o *ollama) Embed(ctx context.Context, texts []string, _ Use) ([][]float32, Usage, error) {
	in := map[string]any{"model": o.cfg.Model, "input": texts, "truncate": false}
	var out struct {
		Embeddings [][]float32 `json:"embeddings"`
		Tokens     int64       `json:"prompt_eval_count"`
	}
	if err := o.http.post(ctx, "ollama", strings.TrimSuffix(o.cfg.URL, "/")+"/api/embed", o.cfg.Key, in, &out); err != nil {
		return nil, Usage{Calls: 1}, err
	}
	return out.Embeddings, Usage{Calls: 1, Inputs: int64(len(texts)), Tokens: out.Tokens}, nil
}
