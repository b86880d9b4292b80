package search

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
)

func serve(t testing.TB, in string) string {
	t.Helper()
	var out bytes.Buffer
	if err := (&Server{Version: "test"}).Serve(context.Background(), strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestTheProtocolIsKept(t *testing.T) {
	cases := []struct{ in, want string }{
		{`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26"}}`, `"protocolVersion":"2025-03-26"`},
		{`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"1999-01-01"}}`, `"protocolVersion":"2025-06-18"`},
		{`{"jsonrpc":"2.0","id":"a","method":"ping"}`, `"id":"a","result":{}`},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, `"readOnlyHint":true`},
		{`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete"}}`, `-32602`},
		{`{"jsonrpc":"2.0","id":1,"method":"resources/list"}`, `-32601`},
		{`{`, `-32700`},
		{`{"jsonrpc":"2.0","method":"notifications/initialized"}`, ``},
		{``, ``},
	}
	for _, c := range cases {
		if got := serve(t, c.in+"\n"); !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: %s", c.in, got)
		}
	}
}

func TestUsers(t *testing.T) {
	if as, err := Users("anna", "user:bob"); err != nil || strings.Join(as, " ") != "user:anna user:bob" {
		t.Errorf("%v, %v", as, err)
	}
	for _, bad := range []string{"group:staff", "user:", "", "x:y"} {
		if as, err := Users(bad); err == nil {
			t.Errorf("%q is %v", bad, as)
		}
	}
}

// Whatever comes in, each line that goes out is one message, and nothing panics.
func FuzzServe(f *testing.F) {
	f.Add(`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`)
	f.Add(`{"id":[],"method":"tools/call","params":{"name":"fetch","arguments":{"id":"x"}}}`)
	f.Fuzz(func(t *testing.T, in string) {
		if strings.Contains(in, "tools/call") || strings.Contains(in, `\u`) {
			return // these need a database
		}
		for _, line := range strings.Split(strings.TrimSpace(serve(t, in)), "\n") {
			if line != "" && !json.Valid([]byte(line)) {
				t.Fatalf("%q", line)
			}
		}
	})
}
