package embed

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// defaultParallel is how many requests are under way at once unless the limits say otherwise.
const defaultParallel = 4

// minInputs is the least that a request is made smaller to.
const minInputs = 100

// Client packs texts into requests, within the limits, and checks the answers.
type Client struct {
	e      Embedder
	spec   Spec
	limits Limits

	requests, tokens *rate.Limiter // nil = no limit
	inputs           atomic.Int64  // texts a request, lowered when the service says that they were too many
	probed           atomic.Bool   // the service is known to take a text

	mu    sync.Mutex
	usage Usage
}

// NewClient returns a client of e.
func NewClient(e Embedder) *Client {
	c := &Client{e: e, spec: e.Spec(), limits: e.Limits()}
	if c.limits.Parallel <= 0 {
		c.limits.Parallel = defaultParallel
	}
	share := c.limits.Share
	if share <= 0 || share > 1 {
		share = 1
	}
	c.requests = limiter(c.limits.PerMinute*share, 1)
	c.tokens = limiter(c.limits.TokensPM*share, float64(max(c.limits.Tokens, 1)))
	c.inputs.Store(int64(c.limits.Inputs))
	if c.limits.Inputs <= 0 {
		c.inputs.Store(math.MaxInt32)
	}
	return c
}

// limiter allows perMinute; burst is the most that one request takes, or a second's worth.
func limiter(perMinute, burst float64) *rate.Limiter {
	if perMinute <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perMinute/60), int(max(burst, perMinute/60, 1)))
}

// Spec returns the space of the vectors.
func (c *Client) Spec() Spec { return c.spec }

// Usage returns what all requests so far have cost.
func (c *Client) Usage() Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usage
}

// Vectors is what became of texts: each has a vector of unit length or a reason.
type Vectors struct {
	Of   [][]float32
	Errs []error // per text: nil, ErrEmpty or ErrRefused
}

// Query returns the vector of a question.
func (c *Client) Query(ctx context.Context, text string) ([]float32, error) {
	vs, err := c.embed(ctx, []string{text}, Query)
	if err != nil {
		return nil, err
	}
	return vs.Of[0], vs.Errs[0]
}

// Documents returns the vectors of texts. An error concerns all of them; trying again later may help.
func (c *Client) Documents(ctx context.Context, texts []string) (*Vectors, error) {
	return c.embed(ctx, texts, Document)
}

func (c *Client) embed(ctx context.Context, texts []string, use Use) (*Vectors, error) {
	out := &Vectors{Of: make([][]float32, len(texts)), Errs: make([]error, len(texts))}
	var todo []int
	for i, t := range texts {
		if strings.TrimSpace(t) == "" {
			out.Errs[i] = ErrEmpty
			continue
		}
		todo = append(todo, i)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.limits.Parallel)
	// What fits one request still goes in several at once: a service answers them side by side.
	even := max(minInputs, (len(todo)+c.limits.Parallel-1)/c.limits.Parallel)
	for len(todo) > 0 {
		n := min(c.fits(texts, todo), even)
		batch := todo[:n]
		todo = todo[n:]
		g.Go(func() error { return c.request(ctx, texts, batch, use, out) })
	}
	return out, g.Wait()
}

// fits returns how many of the texts one request takes: at least one.
func (c *Client) fits(texts []string, todo []int) int {
	most := min(len(todo), int(c.inputs.Load()))
	tokens, bytes := 0, 0
	for n, i := range todo[:most] {
		tokens += estimate(texts[i])
		bytes += len(texts[i])
		over := c.limits.Tokens > 0 && tokens > c.limits.Tokens || c.limits.Bytes > 0 && bytes > c.limits.Bytes
		if over && n > 0 {
			return n
		}
	}
	return max(most, 1)
}

// estimate is how OpenAI's servers count the tokens of a request before they read it.
func estimate(text string) int { return len(text)/4 + 1 }

// request embeds one batch, in halves if the service does not take it whole.
func (c *Client) request(ctx context.Context, texts []string, batch []int, use Use, out *Vectors) error {
	in := make([]string, len(batch))
	tokens := 0
	prefix := c.spec.DocumentPrefix
	if use == Query {
		prefix = c.spec.QueryPrefix
	}
	for k, i := range batch {
		in[k] = prefix + texts[i]
		tokens += estimate(in[k])
	}
	if err := c.wait(ctx, tokens); err != nil {
		return err
	}
	vs, u, err := c.e.Embed(ctx, in, use)
	c.mu.Lock()
	c.usage.Add(u)
	c.mu.Unlock()
	var refusal *Error
	switch {
	case err == nil:
		c.probed.Store(true)
		if err := check(c.spec, vs, len(in)); err != nil {
			return err
		}
		for k, i := range batch {
			out.Of[i] = vs[k]
		}
		return nil
	case !errors.As(err, &refusal) || !refusal.tooBig() && !refusal.refused():
		return err
	case len(batch) > 1:
		if refusal.tooBig() {
			c.inputs.Store(min(c.inputs.Load(), int64(len(batch)/2)))
		} else if err := c.probe(ctx, use); err != nil {
			return err
		}
		half := len(batch) / 2
		if err := c.request(ctx, texts, batch[:half], use, out); err != nil {
			return err
		}
		return c.request(ctx, texts, batch[half:], use, out)
	}
	if err := c.probe(ctx, use); err != nil {
		return err
	}
	out.Errs[batch[0]] = fmt.Errorf("%w: %w", ErrRefused, err)
	return nil
}

// probe makes sure, once, that the service takes any text at all: if not, it is not the texts' fault.
func (c *Client) probe(ctx context.Context, use Use) error {
	if c.probed.Load() {
		return nil
	}
	if err := c.wait(ctx, 1); err != nil {
		return err
	}
	_, u, err := c.e.Embed(ctx, []string{"probe"}, use)
	c.mu.Lock()
	c.usage.Add(u)
	c.mu.Unlock()
	if err == nil {
		c.probed.Store(true)
	}
	return err
}

// wait holds a request back until the quota allows it.
func (c *Client) wait(ctx context.Context, tokens int) error {
	if c.requests != nil {
		if err := c.requests.Wait(ctx); err != nil {
			return err
		}
	}
	if c.tokens != nil {
		return c.tokens.WaitN(ctx, min(tokens, c.tokens.Burst()))
	}
	return nil
}

// check makes sure that the answer is n vectors of the declared width, and brings them to unit length. The
// client libraries take anything.
func check(spec Spec, vs [][]float32, n int) error {
	bad := func(format string, args ...any) error {
		return &Error{Provider: spec.Provider, Err: fmt.Errorf("the answer is not usable: "+format, args...)}
	}
	if len(vs) != n {
		return bad("%d vectors for %d texts", len(vs), n)
	}
	for _, v := range vs {
		if len(v) != spec.Dims {
			e := bad("a vector is %d wide, not %d", len(v), spec.Dims).(*Error)
			e.Fix = "set dimensions to what the model gives"
			return e
		}
		var sum float64
		for _, x := range v {
			sum += float64(x) * float64(x)
		}
		if math.IsNaN(sum) || math.IsInf(sum, 0) {
			return bad("a vector is not finite")
		}
		if sum == 0 {
			return bad("a vector is zero")
		}
		if scale := 1 / math.Sqrt(sum); math.Abs(scale-1) > 1e-6 {
			for i := range v {
				v[i] = float32(float64(v[i]) * scale)
			}
		}
	}
	return nil
}
