package embed_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sluice-data/sluice/vector/embed"
	"github.com/sluice-data/sluice/vector/embedtest"
)

func client(t *testing.T, o embedtest.Options, l embed.Limits) (*embed.Client, *embedtest.Server) {
	t.Helper()
	if o.Dims == 0 {
		o.Dims = 32
	}
	s := embedtest.Start(o)
	t.Cleanup(s.Close)
	e, err := embed.Open(embed.Config{Provider: "openai", URL: s.URL + "/v1", Key: "k1", Model: "m", Dims: o.Dims, Limits: l})
	if err != nil {
		t.Fatal(err)
	}
	return embed.NewClient(e), s
}

func texts(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("text number %d", i)
	}
	return out
}

func same(a, b []float32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > 1e-5 {
			return false
		}
	}
	return true
}

func wantVectors(t *testing.T, in []string, got *embed.Vectors, dims int) {
	t.Helper()
	for i := range in {
		if got.Errs[i] != nil || !same(got.Of[i], embedtest.Vector(in[i], dims)) {
			t.Fatalf("text %d has another text's vector, or none: %v", i, got.Errs[i])
		}
	}
}

func TestRequestsArePackedToTheLimits(t *testing.T) {
	c, s := client(t, embedtest.Options{Delay: 30 * time.Millisecond}, embed.Limits{Inputs: 100})
	in := texts(950)
	got, err := c.Documents(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	wantVectors(t, in, got, 32)
	if st := s.Stats(); st.Calls != 10 || st.Inputs != 950 || st.InFlight < 2 {
		t.Errorf("950 texts took %+v", st)
	}
	if u := c.Usage(); u.Calls != 10 || u.Inputs != 950 || u.Tokens == 0 {
		t.Errorf("usage is %+v", u)
	}
}

func TestALimitThatIsNotKnownIsLearned(t *testing.T) {
	for _, o := range []embedtest.Options{{MaxInputs: 32}, {MaxTokens: 300}} {
		c, s := client(t, o, embed.Limits{})
		in := texts(500)
		got, err := c.Documents(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		wantVectors(t, in, got, 32)
		if _, err := c.Documents(context.Background(), in); err != nil {
			t.Fatal(err)
		}
		if st := s.Stats(); st.Inputs != 1000 {
			t.Errorf("1000 texts were embedded %d times", st.Inputs)
		}
	}
}

func TestFaultsAreHealedOrSeen(t *testing.T) {
	healed := []embedtest.Fault{{Call: 1, Kind: "status", Status: 500}, {Call: 1, Kind: "status", Status: 429}, {Call: 1, Kind: "drop"},
		{Call: 1, Kind: "html"}, {Call: 1, Kind: "truncate"}, {Call: 1, Kind: "shuffle"}}
	for _, f := range healed {
		c, _ := client(t, embedtest.Options{Faults: []embedtest.Fault{f}}, embed.Limits{})
		got, err := c.Documents(context.Background(), texts(5))
		if err != nil {
			t.Errorf("%s %d: %v", f.Kind, f.Status, err)
			continue
		}
		wantVectors(t, texts(5), got, 32)
	}
	for _, kind := range []string{"short", "duplicate", "nan", "zero", "wide"} {
		c, _ := client(t, embedtest.Options{Faults: []embedtest.Fault{{Call: 1, Kind: kind}}}, embed.Limits{})
		if _, err := c.Documents(context.Background(), texts(5)); err == nil {
			t.Errorf("an answer that is %s passes", kind)
		}
	}
}

func TestAServerWithoutBase64IsAskedForNumbers(t *testing.T) {
	c, s := client(t, embedtest.Options{FloatOnly: true}, embed.Limits{Parallel: 1, Inputs: 5})
	in := texts(20)
	got, err := c.Documents(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	wantVectors(t, in, got, 32)
	if st := s.Stats(); st.Calls != 5 {
		t.Errorf("%d calls for 4 requests: base64 is asked for once", st.Calls)
	}
}

func TestOneRefusedTextCostsOnlyItself(t *testing.T) {
	c, _ := client(t, embedtest.Options{Poison: "number 77 "}, embed.Limits{})
	in := texts(200)
	in[77] += " secret"
	in[5] = "  "
	got, err := c.Documents(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	for i := range in {
		switch i {
		case 77:
			if !errors.Is(got.Errs[i], embed.ErrRefused) || strings.Contains(got.Errs[i].Error(), "secret") {
				t.Errorf("the refused text: %v", got.Errs[i])
			}
		case 5:
			if !errors.Is(got.Errs[i], embed.ErrEmpty) {
				t.Errorf("the empty text: %v", got.Errs[i])
			}
		default:
			if got.Errs[i] != nil {
				t.Errorf("text %d: %v", i, got.Errs[i])
			}
		}
	}
}

func TestAServiceThatTakesNothingIsNotTheTextsFault(t *testing.T) {
	c, s := client(t, embedtest.Options{RefuseAll: true}, embed.Limits{})
	if _, err := c.Documents(context.Background(), texts(100)); err == nil {
		t.Fatal("no error")
	}
	if n := s.Stats().Calls; n > 2 {
		t.Errorf("%d calls to find out", n)
	}
	c, _ = client(t, embedtest.Options{Key: "another"}, embed.Limits{})
	_, err := c.Documents(context.Background(), texts(2))
	if err == nil || !strings.Contains(err.Error(), "check the key") || strings.Contains(err.Error(), "k1") {
		t.Errorf("a wrong key: %v", err)
	}
}

func TestTheQuotaIsShared(t *testing.T) {
	c, s := client(t, embedtest.Options{PerMinute: 60000}, embed.Limits{PerMinute: 60000, Share: 0.5, Inputs: 1, Parallel: 4})
	if _, err := c.Documents(context.Background(), texts(20)); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Refused != 0 {
		t.Errorf("%d refused", st.Refused)
	}
}

func TestOtherServices(t *testing.T) {
	s := embedtest.Start(embedtest.Options{Dims: 16, Key: "k"})
	t.Cleanup(s.Close)
	for _, cfg := range []embed.Config{{Provider: "cohere"}, {Provider: "ollama"}, {Provider: "azure"}} {
		cfg.URL, cfg.Key, cfg.Model, cfg.Dims = s.URL, "k", "m", 16
		e, err := embed.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		c, in := embed.NewClient(e), texts(150)
		got, err := c.Documents(context.Background(), in)
		if err != nil {
			t.Fatalf("%s: %v", cfg.Provider, err)
		}
		wantVectors(t, in, got, 16)
		if v, err := c.Query(context.Background(), in[0]); err != nil || !same(v, got.Of[0]) {
			t.Errorf("%s: a question: %v", cfg.Provider, err)
		}
	}
}

func TestHashFindsWords(t *testing.T) {
	c := embed.NewClient(embed.NewHash(0))
	in := []string{"replication slots keep the log", "cats and dogs", "ログを保存する", "", "!!!"}
	got, err := c.Documents(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	q, _ := c.Query(context.Background(), "a replication slot")
	j, _ := c.Query(context.Background(), "ログの保存")
	dot := func(a, b []float32) (s float64) {
		for i := range a {
			s += float64(a[i]) * float64(b[i])
		}
		return s
	}
	if dot(q, got.Of[0]) < 0.3 || dot(q, got.Of[1]) > 0.2 || dot(j, got.Of[2]) < 0.3 {
		t.Errorf("%.2f %.2f %.2f", dot(q, got.Of[0]), dot(q, got.Of[1]), dot(j, got.Of[2]))
	}
	if !errors.Is(got.Errs[3], embed.ErrEmpty) || got.Errs[4] != nil {
		t.Errorf("%v, %v", got.Errs[3], got.Errs[4])
	}
}

func TestSpacesOfEqualWidthDiffer(t *testing.T) {
	a := embed.Spec{Provider: "openai", Model: "a", Dims: 1536}
	b := embed.Spec{Provider: "openai", Model: "b", Dims: 1536}
	if a.Fingerprint() == b.Fingerprint() {
		t.Error("two models are one space")
	}
}

func FuzzHash(f *testing.F) {
	f.Add("one two", 64)
	f.Add("\xff\xfe字", 8)
	f.Fuzz(func(t *testing.T, s string, dims int) {
		if dims > 4096 {
			return
		}
		if strings.TrimSpace(s) == "" {
			return
		}
		got, err := embed.NewClient(embed.NewHash(dims)).Documents(context.Background(), []string{s})
		if err != nil || got.Errs[0] != nil {
			t.Fatal(err, got.Errs[0])
		}
	})
}
