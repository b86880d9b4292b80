package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-data/sluice/internal/binary"
)

// The built binary stands in for a vendor, shows what it holds, and ends on
// SIGTERM.
func TestSimulate(t *testing.T) {
	cmd := exec.Command(binary.Build(t), "simulate", "hubspot", "--json", "--faults", "lost=0,seed=7")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var up struct{ Result simulation }
	if err := json.Unmarshal([]byte(line), &up); err != nil || up.Result.URL == "" {
		t.Fatalf("%s: %v", line, err)
	}
	call := func(method, path, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(method, up.Result.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+up.Result.Token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if status, body := call("POST", "/crm/v3/objects/contacts", `{"properties":{"email":"ada@example.com"}}`); status != 201 {
		t.Errorf("%d %s", status, body)
	}
	if _, body := call("GET", "/_simulator/records/contacts", ""); !strings.Contains(body, "ada@example.com") {
		t.Errorf("records: %s", body)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("end: %v", err)
	}
	for _, args := range [][]string{{"simulate", "sugar"}, {"simulate", "hubspot", "--faults", "gremlins=1"}, {"simulate", "hubspot", "--listen", "0.0.0.0:0"}} {
		if code := execute(args, io.Discard, io.Discard); code != exitInvalid {
			t.Errorf("%v: exit %d", args, code)
		}
	}
}
