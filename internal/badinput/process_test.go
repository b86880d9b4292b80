package badinput

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// contextFor bounds one poll of a topic.
func contextFor(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), time.Second)
}

// testProcess is about how sluice is started.
func testProcess(t *testing.T, w *world) {
	t.Run("second", func(t *testing.T) {
		t.Parallel()
		p := w.pipe(t, w.pg)
		p.start()
		p.delivered(rows)
		second := *p
		second.cmd = nil
		second.fails(exitEnvironment, "runs already", fmt.Sprintf("in process %d", p.cmd.Process.Pid), "stop it first, or run other parts with --only")
		second.start("--only", "lake")
		if code, out := second.exit(); code != exitEnvironment || !strings.Contains(out, "lake runs already") {
			t.Errorf("exit code %d: %s", code, out)
		}
		p.insert(rows+1, rows+5) // the first one did not notice
		p.delivered(rows + 5)
		if code, _ := p.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("yaml", func(t *testing.T) {
		t.Parallel()
		p := w.pipe(t, w.pg)
		good := p.text
		for _, c := range []struct{ old, new, want string }{
			{"kafka:", "kakfa:", `sluice.yaml:3:1: kakfa: unknown key; did you mean "kafka"?`},
			{"dir: data", "dir: [data", "sluice.yaml:"},
			{"mode: append", "mode: apend", `did you mean "append"?`},
			{"from: db.public.orders", "from: db.public.order", `did you mean "db.public.orders"?`},
			{"every: 200ms", "every: soon", "sinks.lake.iceberg.commit.every"},
			{`"${env:BAD_PG}"`, `"postgres://shop:` + wrongSecret + `@localhost/x"`, "sources.db.postgres.url"},
		} {
			p.text = good
			p.change(c.old, c.new)
			out := p.fails(exitInvalid, "nothing was changed", c.want)
			if strings.Count(out, "\n") > 4 {
				t.Errorf("%s: a long answer: %s", c.new, out)
			}
		}
		p.text = good
		delete(p.env, "BAD_PG")
		p.fails(exitEnvironment, "sources.db.postgres.url: ${env:BAD_PG}: the environment variable is not set")
		if _, err := os.Stat(filepath.Join(p.dir, "data")); err == nil || p.slots() != 0 {
			t.Error("something was changed")
		}
	})
	t.Run("kafka_refused", func(t *testing.T) {
		t.Parallel()
		p := w.pipe(t, w.pg)
		p.change(w.broker, closedPort(t))
		p.fails(exitEnvironment, "kafka", "connection refused")
		if p.slots() != 0 {
			t.Error("a slot was made")
		}
	})
	t.Run("folder", func(t *testing.T) {
		t.Parallel()
		p := w.pipe(t, w.pg)
		p.write("file", "")
		p.change("dir: data", "dir: file/data")
		p.fails(exitEnvironment, "make the folder of the pipeline", "not a directory")
	})
}
