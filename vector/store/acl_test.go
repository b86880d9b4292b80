package store

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-data/sluice/record"
)

func TestOnlyAWholeACLPermits(t *testing.T) {
	cases := []struct {
		raw         string
		allow, deny string
		unknown     bool
	}{
		{raw: `{"allow":["public"]}`, allow: "public"},
		{raw: `{"allow":["user:a","group:g","nobody"],"deny":["group:out"]}`, allow: "user:a group:src/g", deny: "group:src/out"},
		{raw: `{"allow":[]}`},
		{raw: `{"allow":["user:a"],"deny":["who"]}`, unknown: true},
		{raw: `{"allow":null}`, unknown: true}, {raw: `{}`, unknown: true}, {raw: `null`, unknown: true}, {raw: ``, unknown: true},
		{raw: `{"allow":"public"}`, unknown: true}, {raw: `["public"]`, unknown: true}, {raw: `{"allow":["public"]`, unknown: true},
	}
	for _, c := range cases {
		a := ParseACL([]byte(c.raw), "src")
		if (a.Allow == nil) != c.unknown || strings.Join(a.Allow, " ") != c.allow || strings.Join(a.Deny, " ") != c.deny {
			t.Errorf("%s: %+v", c.raw, a)
		}
	}
}

func TestVersionsAreOrderedAsPositions(t *testing.T) {
	ordered := []Version{{}, VersionOf(record.Position{}, 7), VersionOf(record.Position{Epoch: 1, LSN: 1 << 40, Seq: 9}, 1), VersionOf(record.Position{Epoch: 2}, 0),
		VersionOf(record.Position{Epoch: 2, LSN: 5}, 300), VersionOf(record.Position{Epoch: 2, LSN: 5, Seq: 2}, 2), VersionOf(record.Position{Epoch: 2, LSN: 256}, 1)}
	if !slices.IsSortedFunc(ordered, func(a, b Version) int { return slices.Compare(a[:], b[:]) }) {
		t.Error("the order of versions is not that of positions")
	}
}

func TestKeysOfDifferentPartsDiffer(t *testing.T) {
	if Key("", "a", "bc") == Key("", "ab", "c") || Key("t", "a", "b") == Key("", "ta", "b") {
		t.Error("two documents have one key")
	}
}

func FuzzParseACL(f *testing.F) {
	f.Add([]byte(`{"allow":["user:a"],"deny":["group:x"]}`), "src")
	f.Fuzz(func(t *testing.T, raw []byte, identity string) {
		a := ParseACL(raw, identity)
		allow, deny, of := a.columns()
		if a.Allow == nil && (allow != nil || len(deny) > 0 || len(of) > 0) {
			t.Fatal("an unknown ACL says something")
		}
	})
}

func FuzzCleanJSON(f *testing.F) {
	f.Add([]byte(`{"a":"\u0000\ud800"}`))
	f.Add([]byte(`"\\u0000"`))
	f.Add([]byte(`"\u0000"`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := cleanJSON(raw)
		if s == nil {
			return
		}
		var v any
		if err := json.Unmarshal([]byte(*s), &v); err != nil {
			t.Fatal(err)
		}
		if text, ok := v.(string); ok && strings.ContainsRune(text, 0) {
			t.Fatal("NUL is left")
		}
	})
}
