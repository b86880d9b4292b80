package state_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/internal/pgserver"
	"github.com/sluice-data/sluice/record"
	"pgregory.net/rapid"
)

// private is the Postgres server of this test run; it starts when one asks for it.
var private struct {
	start sync.Once
	dir   string
	srv   *pgserver.Server
	err   error
}

func postgres() (*pgserver.Server, error) {
	private.start.Do(func() {
		bin := os.Getenv("SLUICE_PG_BIN")
		if bin == "" {
			private.err = errors.New("no PostgreSQL server: SLUICE_PG_BIN=$(deploy/dev/postgres.sh) go test ./activation/state")
			return
		}
		if private.dir, private.err = os.MkdirTemp("", "sluice-activation-"); private.err != nil {
			return
		}
		if private.err = os.Chmod(private.dir, 0o755); private.err == nil { // another user may pass it
			private.srv, private.err = pgserver.Start(context.Background(), bin, filepath.Join(private.dir, "pg"), "fsync=off")
		}
	})
	return private.srv, private.err
}

func TestMain(m *testing.M) {
	code := m.Run()
	if private.srv != nil {
		private.srv.Stop()
	}
	if private.dir != "" {
		_ = os.RemoveAll(private.dir)
	}
	os.Exit(code)
}

// onBoth runs f on a file and on a real Postgres.
func onBoth(t *testing.T, f func(t *testing.T, address string)) {
	t.Run("sqlite", func(t *testing.T) { f(t, "sqlite:"+filepath.Join(t.TempDir(), "state.db")) })
	t.Run("postgres", func(t *testing.T) {
		p, err := postgres()
		if err != nil {
			t.Fatal(err)
		}
		f(t, p.URL)
	})
}

func open(t *testing.T, address string) *state.Store {
	t.Helper()
	s, err := state.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func lease(t *testing.T, s *state.Store, owner string) *state.Lease {
	t.Helper()
	c, err := s.Connection(t.Context(), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	return c.Lease(owner)
}

func key(n int) (k state.Key) { return state.Key([]byte(fmt.Sprintf("%016d", n))) }

func entry(n int, part int32) state.Entry {
	return state.Entry{Key: key(n), Match: key(n + 1e6), ID: fmt.Sprint("id", n), Owned: n%2 == 0, Row: 1<<63 + uint64(n),
		Fields: state.Hashes{}.Append(1, uint64(n)).Append(2, 1<<63), Part: part, Offset: int64(n), Pos: record.Position{Epoch: 3, LSN: 1 << 40, Seq: uint64(n)},
		Outcome: delivery.Applied, Code: "A12", Attempts: 2, Quarantine: time.UnixMicro(1700000000000001)}
}

func TestEntriesAndMarksAreReadBack(t *testing.T) {
	onBoth(t, func(t *testing.T, address string) {
		s := open(t, address)
		c := lease(t, s, "a")
		if _, err := c.Acquire(t.Context(), []int32{0, 1}, time.Minute); err != nil {
			t.Fatal(err)
		}
		want := map[state.Key]state.Entry{}
		var entries []state.Entry
		var keys []state.Key
		for n := range 331 {
			e := entry(n, int32(n%2))
			entries, want[e.Key] = append(entries, e), e
			keys = append(keys, e.Key)
		}
		mark := state.Mark{Mark: record.Mark{Next: 17, TopicID: "t", Counts: record.Counts{Read: 5, Delivered: 5}},
			Outcomes: state.Outcomes{Applied: 4, Unchanged: 1}, Loading: true}
		if err := c.Write(t.Context(), entries, map[int32]state.Mark{1: mark}); err != nil {
			t.Fatal(err)
		}
		changed := entries[7]
		changed.Gone, changed.Fields, changed.Match = true, state.Hashes{}, state.Key{}
		if err := c.Write(t.Context(), []state.Entry{changed}, nil); err != nil {
			t.Fatal(err)
		}
		want[changed.Key] = changed

		other := lease(t, s, "a") // as after a restart
		if string(other.Secret()) != string(c.Secret()) || len(c.Secret()) != 32 {
			t.Error("the secret of a connection is not what it was")
		}
		got := map[state.Key]state.Entry{}
		if err := other.Get(t.Context(), append(keys, key(999999)), func(e state.Entry) { got[e.Key] = e }); err != nil {
			t.Fatal(err)
		}
		if !maps.EqualFunc(got, want, equal) {
			t.Errorf("read back %d entries, want %d, or they differ", len(got), len(want))
		}
		if err := c.Announce(t.Context(), map[int32]int64{1: 23}); err != nil {
			t.Fatal(err)
		}
		taken, err := other.Acquire(t.Context(), []int32{1, 2}, time.Minute)
		if err != nil || taken.Wait != 0 || len(taken.Marks) != 1 || taken.Marks[1] != mark || taken.Sent[1] != 23 || taken.Sent[2] != -1 {
			t.Errorf("taken %+v, error %v", taken, err)
		}
		var owner state.Key
		if err := other.Owners(t.Context(), []state.Key{entries[9].Match, entries[7].Match}, func(e state.Entry) { owner = e.Key }); err != nil || owner != key(9) {
			t.Errorf("owner %v, error %v", owner, err)
		}
		if n, err := c.Known(t.Context()); err != nil || n != 330 {
			t.Errorf("%d known records, error %v; want 330", n, err)
		}
	})
}

func equal(a, b state.Entry) bool {
	fields := slices.Equal(a.Fields, b.Fields)
	times := a.Quarantine.Equal(b.Quarantine)
	a.Fields, b.Fields, a.Quarantine, b.Quarantine = nil, nil, time.Time{}, time.Time{}
	return fields && times && fmt.Sprint(a) == fmt.Sprint(b)
}

func TestTheEarlierOwnerIsFenced(t *testing.T) {
	onBoth(t, func(t *testing.T, address string) {
		a, b := lease(t, open(t, address), "a"), lease(t, open(t, address), "b")
		take := func(c *state.Lease, parts ...int32) time.Duration {
			t.Helper()
			taken, err := c.Acquire(t.Context(), parts, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			return taken.Wait
		}
		if wait := take(a, 0, 1); wait != 0 {
			t.Errorf("the first owner waits %v", wait)
		}
		if wait := take(b, 1); wait <= 50*time.Second || wait > time.Minute {
			t.Errorf("the second owner waits %v for requests of the first; want nearly a minute", wait)
		}
		if err := a.Write(t.Context(), []state.Entry{entry(1, 1)}, nil); !errors.Is(err, record.ErrFenced) {
			t.Errorf("a key of the lost partition: %v", err)
		}
		if err := a.Write(t.Context(), []state.Entry{entry(2, 0)}, map[int32]state.Mark{1: {}}); !errors.Is(err, record.ErrFenced) {
			t.Errorf("a mark of the lost partition: %v", err)
		}
		if err := a.Announce(t.Context(), map[int32]int64{1: 1}); !errors.Is(err, record.ErrFenced) {
			t.Errorf("announce for the lost partition: %v", err)
		}
		if err := a.Renew(t.Context(), time.Minute); !errors.Is(err, record.ErrFenced) {
			t.Errorf("renew: %v", err)
		}
		if err := a.Write(t.Context(), []state.Entry{entry(3, 0)}, nil); err != nil {
			t.Errorf("a key of the kept partition: %v", err)
		}
		n := 0
		if err := b.Get(t.Context(), []state.Key{key(1), key(2), key(3)}, func(state.Entry) { n++ }); err != nil || n != 1 {
			t.Errorf("%d entries are stored, error %v; want only the one that was not fenced", n, err)
		}
		if err := b.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if wait := take(a, 1); wait != 0 {
			t.Errorf("after a release the next owner waits %v", wait)
		}
		if err := b.Write(t.Context(), []state.Entry{entry(1, 1)}, nil); !errors.Is(err, record.ErrFenced) {
			t.Errorf("a write after the release: %v", err)
		}
	})
}

func TestSweepFindsWhatANewBackfillDidNot(t *testing.T) {
	onBoth(t, func(t *testing.T, address string) {
		c := lease(t, open(t, address), "a")
		if _, err := c.Acquire(t.Context(), []int32{0, 1}, time.Minute); err != nil {
			t.Fatal(err)
		}
		var entries []state.Entry
		for n := range 20 {
			e := entry(n, int32(n%2))
			e.Pos.Epoch = uint64(n % 4)
			e.Gone = n == 4
			entries = append(entries, e)
		}
		if err := c.Write(t.Context(), entries, nil); err != nil {
			t.Fatal(err)
		}
		var got []state.Key
		for after := (state.Key{}); ; after = got[len(got)-1] {
			n := len(got)
			if err := c.Older(t.Context(), 0, 2, after, 3, func(e state.Entry) { got = append(got, e.Key) }); err != nil {
				t.Fatal(err)
			}
			if len(got) == n {
				break
			}
		}
		if want := []state.Key{key(0), key(8), key(12), key(16)}; !slices.Equal(got, want) {
			t.Errorf("older keys %v, want %v", got, want)
		}
	})
}

func TestProcessesShareAnAccountAndItsSecret(t *testing.T) {
	onBoth(t, func(t *testing.T, address string) {
		s := open(t, address)
		account := t.Name()
		meet := func(owner string, ttl time.Duration, paused time.Time) (int, time.Time) {
			t.Helper()
			n, until, err := s.Meet(t.Context(), account, owner, ttl, paused)
			if err != nil {
				t.Fatal(err)
			}
			return n, until
		}
		pause := time.UnixMicro(1900000000000000)
		if n, until := meet("a", time.Minute, time.Time{}); n != 1 || !until.IsZero() {
			t.Errorf("alone: %d members, paused until %v", n, until)
		}
		if n, until := meet("b", time.Minute, pause); n != 2 || !until.Equal(pause) {
			t.Errorf("together: %d members, paused until %v", n, until)
		}
		if n, until := meet("a", -time.Second, time.Time{}); n != 2 || !until.Equal(pause) {
			t.Errorf("a sees %d members, paused until %v", n, until)
		}
		if n, _ := meet("b", time.Minute, time.Time{}); n != 1 {
			t.Errorf("%d members, want 1: a is silent", n)
		}
		if err := s.Part(t.Context(), account, "b"); err != nil {
			t.Fatal(err)
		}

		name := t.Name()
		if ok, err := s.SaveSecret(t.Context(), name, []byte("one"), 0); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if ok, err := s.SaveSecret(t.Context(), name, []byte("other"), 0); ok || err != nil {
			t.Error("two processes have both made the first version", err)
		}
		if ok, err := s.SaveSecret(t.Context(), name, []byte("two"), 1); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if v, n, err := s.Secret(t.Context(), name); string(v) != "two" || n != 2 || err != nil {
			t.Errorf("secret version %d, error %v", n, err)
		}
	})
}

func TestHashesAreAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model, h := map[uint32]uint64{}, state.Hashes{}
		for range rapid.IntRange(0, 50).Draw(t, "steps") {
			tag := uint32(rapid.IntRange(0, 8).Draw(t, "tag"))
			if rapid.Bool().Draw(t, "set") {
				v := rapid.Uint64().Draw(t, "hash")
				model[tag], h = v, h.With(tag, v)
			} else {
				delete(model, tag)
				h = h.Without(tag)
			}
		}
		if h.Len() != len(model) {
			t.Fatalf("%d fields, want %d", h.Len(), len(model))
		}
		for tag, want := range model {
			if got, ok := h.Lookup(tag); !ok || got != want {
				t.Fatalf("tag %d: %d, %v; want %d", tag, got, ok, want)
			}
		}
	})
}

func TestJobsAreWrittenDownByTheOwner(t *testing.T) {
	onBoth(t, func(t *testing.T, address string) {
		a, b := lease(t, open(t, address), "a"), lease(t, open(t, address), "b")
		if _, err := a.Acquire(t.Context(), []int32{0, 1}, time.Minute); err != nil {
			t.Fatal(err)
		}
		j := state.Job{Name: "one", Rows: []state.JobRow{
			{Key: key(1), Match: key(2), Row: 1 << 63, Fields: state.Hashes{}.Append(1, 2).Append(3, 1<<63), Part: 1, Offset: 1 << 40, Pos: record.Position{Epoch: 1, LSN: 2, Seq: 3}},
			{Key: key(4), Part: 0, Fields: state.Hashes{}}}}
		if err := a.OpenJob(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		if err := a.NameJob(t.Context(), j, "v1"); err != nil {
			t.Fatal(err)
		}
		got, err := b.Jobs(t.Context())
		if err != nil || len(got) != 1 || got[0].Vendor != "v1" || got[0].At.IsZero() || fmt.Sprint(got[0].Rows) != fmt.Sprint(j.Rows) {
			t.Fatalf("read back %+v, error %v", got, err)
		}
		if _, err := b.Acquire(t.Context(), []int32{1}, time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := a.NameJob(t.Context(), j, "v2"); !errors.Is(err, record.ErrFenced) {
			t.Errorf("a job of a lost partition is named: %v", err)
		}
		if err := a.OpenJob(t.Context(), state.Job{Name: "two", Rows: j.Rows}); !errors.Is(err, record.ErrFenced) {
			t.Errorf("a job of a lost partition is written down: %v", err)
		}
		if err := b.CloseJob(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
		if got, err := b.Jobs(t.Context()); len(got) != 0 || err != nil {
			t.Errorf("%d jobs are left, error %v", len(got), err)
		}
	})
}

func TestAddressesStaySecret(t *testing.T) {
	for _, address := range []string{"postgres://u:hunter2@127.0.0.1:1/db?connect_timeout=1", "postgres://u:hunter2@%zz/", "mysql://u:hunter2@h/d", ""} {
		_, err := state.Open(t.Context(), address)
		if err == nil {
			t.Fatalf("%q was opened", address)
		}
		if s := err.Error(); len(s) == 0 || strings.Contains(s, "hunter2") {
			t.Errorf("error tells the password: %s", s)
		}
	}
}
