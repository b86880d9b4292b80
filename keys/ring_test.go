package keys

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// mask is a Service that keeps its promises: a wrapped key holds the name of
// the wrapping key and opens with no other.
type mask struct {
	away, refuse bool
	asked        int
}

func (m *mask) fails(op, name string) error {
	m.asked++
	if m.away || m.refuse {
		return &ServiceError{By: Vault, Op: op, Key: name, Refused: m.refuse, Msg: "as told"}
	}
	return nil
}

func (m *mask) Generate(ctx context.Context, name string) ([]byte, []byte, error) {
	key := bytes.Repeat([]byte{byte(m.asked + 1)}, RingBytes)
	wrapped, err := m.Wrap(ctx, name, key)
	return key, wrapped, err
}

func (m *mask) Wrap(_ context.Context, name string, key []byte) ([]byte, error) {
	return append([]byte(name+"\x00"), key...), m.fails("wrap", name)
}

func (m *mask) Unwrap(_ context.Context, name string, wrapped []byte) ([]byte, error) {
	if err := m.fails("unwrap", name); err != nil {
		return nil, err
	}
	key, ok := bytes.CutPrefix(wrapped, []byte(name+"\x00"))
	if !ok {
		return nil, &ServiceError{By: Vault, Op: "unwrap", Key: name, Refused: true, Msg: "not mine"}
	}
	return key, nil
}

var day = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func newRing(t *testing.T, wrap Wrap, s Services) *Ring {
	t.Helper()
	r, err := NewRing(t.Context(), day, wrap, s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRingLife walks a ring through its life; what its file says is what it is.
func TestRingLife(t *testing.T) {
	for _, wrap := range []Wrap{{}, {Vault, "transit/sluice"}} {
		t.Run(wrap.String(), func(t *testing.T) {
			service := &mask{}
			services := Services{Vault: service}
			ctx := t.Context()
			r := newRing(t, wrap, services)
			first := r.Primary()
			rotate := func(stable bool) {
				t.Helper()
				n, err := r.Rotate(ctx, day.Add(time.Hour), stable, services)
				if err != nil {
					t.Fatal(err)
				}
				r = n
			}
			rotate(false)
			if r.Primary().ID == first.ID || r.Stable().ID != first.ID {
				t.Fatalf("a rotation moves the primary only: %s, %s", r.Primary().ID, r.Stable().ID)
			}
			if _, err := r.SetState(first.ID, Disabled); err == nil {
				t.Error("the stable version was disabled")
			}
			if _, err := r.SetState(r.Primary().ID, Disabled); err == nil {
				t.Error("the primary was disabled")
			}
			rotate(true)
			if r.Stable().ID != r.Primary().ID || len(r.Versions()) != 3 {
				t.Fatalf("after a stable rotation: %v", r.Versions())
			}
			disabled, err := r.SetState(first.ID, Disabled)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := disabled.Key(first.ID); ok {
				t.Error("a disabled version opens")
			}
			text, err := disabled.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if secret := bytes.Contains(text, []byte("wrapped_by")); secret == disabled.Secret() {
				t.Errorf("Secret() = %v of %s", disabled.Secret(), text)
			}
			again, err := ParseRing(ctx, text, services)
			if err != nil {
				t.Fatal(err)
			}
			if again.Primary().ID != r.Primary().ID || again.Stable().ID != r.Stable().ID || again.Versions()[0].State != Disabled {
				t.Errorf("the file gives %v", again.Versions())
			}
			if key, ok := again.Key(r.Primary().ID); !ok || !bytes.Equal(key, r.Primary().Value()) || len(key) != RingBytes {
				t.Error("the file gives another key")
			}
			enabled, err := again.SetState(first.ID, Enabled)
			if err != nil {
				t.Fatal(err)
			}
			text2, err := enabled.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			back, err := ParseRing(ctx, text2, services)
			if err != nil {
				t.Fatal(err)
			}
			if key, ok := back.Key(first.ID); !ok || !bytes.Equal(key, first.Value()) {
				t.Error("an enabled version does not open any more")
			}
			for _, verb := range []string{"%v", "%+v", "%#v"} {
				if p := fmt.Sprintf(verb, []any{r, r.Primary(), r.Versions()}); strings.Contains(p, string(first.Value())) || strings.Contains(p, fmt.Sprint(first.Value())) {
					t.Errorf("%s prints a key", verb)
				}
			}
		})
	}
}

func TestRewrap(t *testing.T) {
	services := Services{Vault: &mask{}}
	r := newRing(t, Wrap{}, nil)
	wrapped, err := r.Rewrap(t.Context(), Wrap{Vault, "transit/a"}, services)
	if err != nil {
		t.Fatal(err)
	}
	if r.Primary().ID != wrapped.Primary().ID || wrapped.Secret() || !r.Secret() {
		t.Errorf("rewrapped: %v", wrapped.Versions())
	}
	plain, err := wrapped.Rewrap(t.Context(), Wrap{}, services)
	if err != nil || !plain.Secret() || !bytes.Equal(plain.Primary().Value(), r.Primary().Value()) {
		t.Errorf("unwrapped: %v, %v", plain, err)
	}
	if _, err := r.Rewrap(t.Context(), Wrap{AWSKMS, "k"}, services); err == nil {
		t.Error("a service that is not there wraps")
	}
}

func TestParseRingRefuses(t *testing.T) {
	text, err := newRing(t, Wrap{}, nil).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	change := func(edit func(f map[string]any)) []byte {
		var f map[string]any
		if err := json.Unmarshal(text, &f); err != nil {
			t.Fatal(err)
		}
		edit(f)
		out, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := func(f map[string]any) map[string]any { return f["keys"].([]any)[0].(map[string]any) }
	for name, bad := range map[string][]byte{
		"not a key ring":        []byte("0123456789abcdef0123456789abcdef"),
		"follows":               append(slices.Clone(text), "{}"...),
		"format":                change(func(f map[string]any) { f["format"] = "x" }),
		"0 versions":            change(func(f map[string]any) { f["keys"] = []any{} }),
		"primary version":       change(func(f map[string]any) { f["primary"] = "00000000" }),
		"stable version":        change(func(f map[string]any) { f["stable"] = "" }),
		"state":                 change(func(f map[string]any) { first(f)["state"] = "old" }),
		"eight hexadecimal":     change(func(f map[string]any) { first(f)["id"] = "../../x" }),
		"base64":                change(func(f map[string]any) { first(f)["key"] = "?" }),
		"does not belong":       change(func(f map[string]any) { first(f)["key"] = "AAAA" }),
		"want aws-kms":          change(func(f map[string]any) { first(f)["wrapped_by"] = "vault:../sys/seal" }),
		"no way to ask":         change(func(f map[string]any) { first(f)["wrapped_by"] = "vault:transit/x" }),
		"not enabled":           change(func(f map[string]any) { first(f)["state"] = "disabled" }),
		"not a key ring; `slui": change(func(f map[string]any) { f["surplus"] = 1 }),
		"twice":                 change(func(f map[string]any) { f["keys"] = []any{first(f), first(f)} }),
	} {
		_, err := ParseRing(t.Context(), bad, nil)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "0123456789abcdef") {
			t.Errorf("the error repeats the text: %v", err)
		}
	}
}

func FuzzParseRing(f *testing.F) {
	r, err := NewRing(context.Background(), day, Wrap{}, nil)
	if err != nil {
		f.Fatal(err)
	}
	text, err := r.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"format":"sluice-keyring-1","keys":[{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseRing(context.Background(), text, Services{Vault: &mask{}})
		if err != nil {
			return
		}
		out, err := r.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseRing(context.Background(), out, Services{Vault: &mask{}})
		if err != nil || !again.equal(r) {
			t.Fatalf("%s becomes %v, %v", text, again, err)
		}
	})
}

// TestRingProperty: whatever is done to a ring, every version that was ever
// primary opens until it is disabled, and the stable one moves only when told.
func TestRingProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		r, err := NewRing(ctx, day, Wrap{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		live, stable := map[string][]byte{r.Primary().ID: r.Primary().Value()}, r.Stable().ID
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0, 1:
				move := rapid.Bool().Draw(t, "stable")
				if r, err = r.Rotate(ctx, day, move, nil); err != nil {
					t.Fatal(err)
				}
				live[r.Primary().ID] = r.Primary().Value()
				if move {
					stable = r.Primary().ID
				}
			case 2:
				vs := r.Versions()
				v := vs[rapid.IntRange(0, len(vs)-1).Draw(t, "version")]
				if n, err := r.SetState(v.ID, Disabled); err == nil {
					r = n
					delete(live, v.ID)
				} else if v.ID != r.Primary().ID && v.ID != stable {
					t.Fatal(err)
				}
			}
			if r.Stable().ID != stable {
				t.Fatal("the stable version moved")
			}
			for _, v := range r.Versions() {
				key, ok := r.Key(v.ID)
				if want, alive := live[v.ID]; ok != alive || !bytes.Equal(key, want) {
					t.Fatalf("version %s: opens %v, want %v", v.ID, ok, alive)
				}
			}
		}
	})
}

// TestKeeper follows a file, an outage and a refusal.
func TestKeeper(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	service := &mask{}
	services := Services{Vault: service}
	wrapped, plain := newRing(t, Wrap{Vault, "transit/s"}, services), newRing(t, Wrap{}, nil)
	put := func(name string, r *Ring) {
		t.Helper()
		text, err := r.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		write(name, text)
	}
	put("wrapped", wrapped)
	put("plain", plain)
	write("key", []byte("0123456789abcdef\n"))
	v, p, k := Ref{Vault, "wrapped"}, Ref{RingFile, "plain"}, Ref{File, "key"}
	now := day
	var told []Change
	keeper, err := OpenKeeper(t.Context(), KeeperConfig{Refs: []Ref{v, p, k}, BaseDir: dir, Services: services, Start: time.Millisecond,
		now: func() time.Time { return now }, Changed: func(c Change) { told = append(told, c) }})
	if err != nil {
		t.Fatal(err)
	}
	first := keeper.Current()
	for _, r := range []Ref{v, p, k} {
		if err := first.Err(r); err != nil {
			t.Fatal(err)
		}
	}
	step := func(name string, swapped bool, want ...string) {
		t.Helper()
		before := keeper.Current()
		told = nil
		keeper.Refresh(t.Context())
		var got []string
		for _, c := range told {
			got = append(got, fmt.Sprintf("%s err=%v kept=%v", c.Ref.Name, c.Err != nil, c.Kept))
		}
		if !slices.Equal(got, want) || (keeper.Current() != before) != swapped {
			t.Errorf("%s: %q, swapped %v; want %q, %v", name, got, keeper.Current() != before, want, swapped)
		}
	}
	asked := service.asked
	step("nothing", false)
	if service.asked != asked {
		t.Error("the service is asked before it has to confirm")
	}
	n, err := plain.Rotate(t.Context(), day, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	put("plain", n)
	step("rotation", true, "plain err=false kept=false")
	if ring, _ := keeper.Current().Ring(p); ring.Primary().ID != n.Primary().ID {
		t.Error("the rotation is not there")
	}
	if ring, _ := first.Ring(p); ring.Primary().ID != plain.Primary().ID {
		t.Error("an old snapshot changed")
	}
	write("plain", []byte("{half"))
	step("half a file", false, "plain err=true kept=true")
	step("still", false)
	put("plain", n)
	step("whole again", false)
	if err := os.Remove(filepath.Join(dir, "key")); err != nil {
		t.Fatal(err)
	}
	step("file gone", false, "key err=true kept=true")
	write("key", []byte("0123456789abcdef"))
	step("file back", false)

	now, service.away = now.Add(6*time.Minute), true
	step("outage", false, "wrapped err=true kept=true")
	now = now.Add(40 * time.Minute)
	step("outage in its grace", false)
	now = now.Add(20 * time.Minute)
	step("grace over", true, "wrapped err=true kept=false")
	if _, ok := keeper.Current().Key(v); ok {
		t.Error("a key is used that nobody confirms")
	}
	now, service.away = now.Add(time.Minute), false
	step("service back", true, "wrapped err=false kept=false")
	now, service.refuse = now.Add(6*time.Minute), true
	step("refusal", true, "wrapped err=true kept=false")
	var e *ServiceError
	if err := keeper.Current().Err(v); !errors.As(err, &e) || !e.Refused {
		t.Errorf("refusal: %v", err)
	}
}

// TestSchemePromise: ${vault:path} refuses a ring with a key that Vault has not wrapped.
func TestSchemePromise(t *testing.T) {
	dir := t.TempDir()
	text, err := newRing(t, Wrap{}, nil).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "r"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	s := Open(t.Context(), []Ref{{Vault, "r"}, {RingFile, "r"}}, dir, Services{Vault: &mask{}})
	if err := s.Err(Ref{Vault, "r"}); err == nil || !strings.Contains(err.Error(), "is not wrapped by vault") {
		t.Errorf("vault: %v", err)
	}
	if err := s.Err(Ref{RingFile, "r"}); err != nil || len(s.Warnings()) != 1 {
		t.Errorf("ring: %v, warnings %q", err, s.Warnings())
	}
	if _, _, err := Read(Ref{RingFile, "r"}, dir); err == nil {
		t.Error("a ring is no secret of a setting")
	}
}
