package vector_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/vector"
	"github.com/sluice-data/sluice/vector/embed"
	"github.com/sluice-data/sluice/vector/store"
)

// workload is a topic's worth of changes, the same for the same seed.
func workload(seed uint64, n int) []row {
	r := rand.New(rand.NewPCG(seed, 1))
	acls := []string{everybody, `{"allow":["user:a"]}`, `{"allow":["user:a","user:b"],"deny":["user:c"]}`, ""}
	var rows []row
	for i := range n {
		path := fmt.Sprintf("dir/%d.md", r.IntN(12))
		acl := acls[r.IntN(len(acls))]
		switch k := r.IntN(10); {
		case k < 4:
			rows = append(rows, put(path, long(fmt.Sprintf("topic%d", r.IntN(6)), 1+r.IntN(4)), acl))
		case k < 6: // the document that readers watch
			rows = append(rows, put("watched.md", edition(i), everybody))
		case k == 6:
			rows = append(rows, row{op: record.OpUpdate, values: map[string]any{"path": path, "acl": everybody}})
		case k == 7:
			rows = append(rows, gone(path))
		case k == 8:
			rows = append(rows, put(path, "\x00\x01\x02 no text", acl))
		default:
			rows = append(rows, put(path, fmt.Sprintf("short text %d", r.IntN(5)), acl))
		}
	}
	return rows
}

// edition is a text of 2 to 6 shares; every chunk says the number of the edition.
func edition(n int) string {
	var b strings.Builder
	for part := range 2 + n%5 {
		fmt.Fprintf(&b, "# Part %d\n\n%s\n\n", part, strings.Repeat(fmt.Sprintf("This is edition %d of it, share %d. ", n, part), 70))
	}
	return b.String()
}

// consume plays the consumer until all rows are done. The first error ends it.
func consume(ctx context.Context, url string, rows []row, hook func(string) error) error {
	x, err := vector.Open(ctx, vector.Config{Owner: "p.docs", Embedder: embed.NewHash(32), Maintain: time.Hour,
		Store: store.Config{URL: url, Hook: hook, Connections: 3}})
	if err != nil {
		return err
	}
	defer x.Close()
	schema := filesSchema()
	sink, err := x.Sink(vector.Stream{Name: schema.Stream, Topic: "t"})
	if err != nil {
		return err
	}
	defer sink.Close()
	marks, err := sink.Load(ctx, []int32{0})
	if err != nil {
		return err
	}
	next, counts := marks[0].Next, marks[0].Counts
	for batches := 1; next < int64(len(rows)); batches++ {
		n := min(int64(5), int64(len(rows))-next)
		rejects, err := sink.Write(ctx, batch(schema, 0, next, rows[next:next+n]...))
		if err != nil {
			return err
		}
		next += n
		counts.Read += n
		counts.Rejected += int64(len(rejects))
		if batches%3 == 0 || next == int64(len(rows)) {
			stored, err := sink.Flush(ctx, map[int32]record.Mark{0: {Next: next, TopicID: "id", Counts: counts}})
			if err != nil {
				return err
			}
			if counts = stored[0].Counts; !counts.Balanced() {
				return fmt.Errorf("records are unaccounted for: %+v", counts)
			}
		}
	}
	return nil
}

// undisturbed returns what a run without a fault leaves.
func undisturbed(t *testing.T, rows []row) string {
	t.Helper()
	url := database(t)
	if err := consume(context.Background(), url, rows, nil); err != nil {
		t.Fatal(err)
	}
	return picture(t, url)
}

// watch reads the watched document again and again, as any reader might, until the returned function is called.
func watch(t *testing.T, url string) (stop func() (reads int)) {
	t.Helper()
	conn := dial(t, url)
	var ended atomic.Bool
	var reads int
	var wg sync.WaitGroup
	wg.Go(func() {
		for !ended.Load() {
			var editions, chunks, shares, orphans int
			var edition, last *int
			err := conn.QueryRow(context.Background(), `select count(distinct n), min(n), count(*), max(ord), count(distinct share), count(*) filter (where not vector) from (
				select c.ord, substring(x.body from 'share (\d+)') as share, substring(x.body from 'edition (\d+)')::int as n, e.hash is not null as vector
				from rag.doc d join rag.chunk c on c.doc_pk = d.pk join rag.content x on x.hash = c.hash left join rag.emb_1 e on e.hash = c.hash
				where d.id = 'watched.md') q`).Scan(&editions, &edition, &chunks, &last, &shares, &orphans)
			if err != nil {
				if strings.Contains(err.Error(), "does not exist") {
					continue
				}
				t.Errorf("reader: %v", err)
				return
			}
			if chunks > 0 && (editions != 1 || orphans != 0 || *last+1 != chunks || shares != 2+*edition%5) {
				t.Errorf("a reader sees %d editions, %d shares, %d chunks, %d without a vector", editions, shares, chunks, orphans)
				return
			}
			reads++
		}
	})
	return func() int {
		ended.Store(true)
		wg.Wait()
		conn.Close(context.Background())
		return reads
	}
}

var crashSteps = []string{"prepared", "embedded", "texts written", "documents before commit", "documents after commit", "marks before commit", "marks after commit"}

// A fault at any step, then a start from the marks: the tables are those of an undisturbed run, and no reader
// ever sees a document in two versions.
func TestAFaultAtAnyStepChangesNothing(t *testing.T) {
	rows := workload(1, 60)
	want := undisturbed(t, rows)
	steps := map[string]int{}
	for round := range 1 {
		url := database(t)
		stop := watch(t, url)
		fault := errors.New("fault")
		r := rand.New(rand.NewPCG(7, uint64(round)))
		faults := 0
		for attempt := 0; ; attempt++ {
			var calls atomic.Int64
			at, where := int64(1+r.IntN(2)), crashSteps[attempt%len(crashSteps)]
			if attempt > 2*len(crashSteps) {
				at = -1
			}
			err := consume(context.Background(), url, rows, func(step string) error {
				if step != where || calls.Add(1) != at {
					return nil
				}
				return fault
			})
			if err == nil {
				break
			}
			if !errors.Is(err, fault) {
				t.Fatal(err)
			}
			faults++
			steps[where]++
		}
		if reads := stop(); reads == 0 {
			t.Error("the reader has read nothing")
		}
		if got := picture(t, url); got != want {
			t.Fatalf("after %d faults the tables differ:\n%s", faults, difference(got, want))
		}
	}
	for _, step := range crashSteps {
		if steps[step] == 0 {
			t.Errorf("no fault at %q: %v", step, steps)
		}
	}
}

func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\n got %.300s\nwant %.300s", i, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, not %d", len(g), len(w))
}

// crashChild is the process that a test kills: it consumes and kills itself at a step.
func crashChild(args []string) {
	seed, _ := strconv.ParseUint(args[1], 10, 64)
	n, _ := strconv.Atoi(args[2])
	at, _ := strconv.ParseInt(args[3], 10, 64)
	var calls atomic.Int64
	err := consume(context.Background(), args[0], workload(seed, n), func(string) error {
		if calls.Add(1) == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // not one instruction more
		}
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// SIGKILL at steps of all kinds; SLUICE_VECTOR_KILLS=200 is the long proof.
func TestKillsChangeNothing(t *testing.T) {
	kills := 20
	if s := os.Getenv("SLUICE_VECTOR_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	const records = 60
	for seed, done := uint64(1), 0; done < kills; seed++ {
		rows := workload(seed, records)
		want := undisturbed(t, rows)
		url := database(t)
		stop := watch(t, url)
		r := rand.New(rand.NewPCG(seed, 99))
		for ended := false; !ended; {
			at := "-1"
			if done < kills {
				at = strconv.Itoa(1 + r.IntN(30))
			}
			cmd := exec.Command(os.Args[0], "crash-child", url, strconv.FormatUint(seed, 10), strconv.Itoa(records), at)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			switch {
			case err == nil:
				ended = true
			case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
				done++
			default:
				t.Fatalf("%v\n%s", err, out)
			}
		}
		stop()
		waitForBackends(t, url)
		if got := picture(t, url); got != want {
			t.Fatalf("seed %d: after %d kills the tables differ:\n%s", seed, done, difference(got, want))
		}
		x := open(t, url, func(c *vector.Config) { c.Embedder = embed.NewHash(32) })
		count(t, x) // no orphans
		x.Close()
	}
	t.Logf("%d kills", kills)
}

// waitForBackends waits until the connections of killed processes have ended.
func waitForBackends(t *testing.T, url string) {
	t.Helper()
	conn := dial(t, url)
	defer conn.Close(context.Background())
	for deadline := time.Now().Add(20 * time.Second); ; {
		var n int
		err := conn.QueryRow(context.Background(), `select count(*) from pg_stat_activity where datname = current_database() and application_name = 'sluice'`).Scan(&n)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections of killed processes are open", n)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
