package limit

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"pgregory.net/rapid"
)

func account(t interface {
	Helper()
	Fatal(...any)
}, c Config) *Account {
	t.Helper()
	a, err := NewAccount(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 0.5 ": 500 * time.Millisecond, "-3": 0, "0": 0, "soon": 0, "NaN": 0, "1e300": 24 * time.Hour,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
		now.Add(999 * time.Hour).Format(http.TimeFormat):  24 * time.Hour,
	} {
		if got := RetryAfter(value, now); got != want {
			t.Errorf("RetryAfter(%q) = %v, want %v", value, got, want)
		}
	}
}

// TestNoWindowHoldsMoreThanOurShare asks at random moments and looks at every
// rolling window afterwards.
func TestNoWindowHoldsMoreThanOurShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 60).Draw(t, "limit")
		members := rapid.IntRange(1, 3).Draw(t, "members")
		a := account(t, Config{Share: 1, Quotas: []delivery.Quota{{Requests: limit, Window: 10 * time.Second}}})
		a.members = members
		now := time.Unix(1_700_000_000, rapid.Int64Range(0, 1e9).Draw(t, "start"))
		var taken []time.Time
		for range 300 {
			now = now.Add(time.Duration(rapid.IntRange(0, 900).Draw(t, "ms")) * time.Millisecond)
			if a.take(now, delivery.Stream, "", 1) == 0 {
				taken = append(taken, now)
			}
		}
		for i := range taken {
			n := 0
			for _, at := range taken[i:] {
				if at.Sub(taken[i]) < 10*time.Second {
					n++
				}
			}
			if n > max(limit/members, 1) {
				t.Fatalf("%d calls in a window, %d are ours", n, limit/members)
			}
		}
	})
}

// TestWhatIsAskedForLaterIsGranted: whoever waits as long as told gets a call.
func TestWhatIsAskedForLaterIsGranted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := account(t, Config{Quotas: []delivery.Quota{{Requests: rapid.IntRange(1, 50).Draw(t, "limit"), Window: 10 * time.Second}, {Requests: 500, Window: 24 * time.Hour}},
			Endpoints: map[string][]delivery.Quota{"search": {{Requests: 5, Window: time.Second}}}})
		now := time.Unix(1_700_000_000, 0)
		for range 100 {
			lane := delivery.Lane(rapid.IntRange(0, 1).Draw(t, "lane"))
			endpoint := rapid.SampledFrom([]string{"", "search"}).Draw(t, "endpoint")
			granted := false
			for range 1000 {
				d := a.take(now, lane, endpoint, 1)
				if d == 0 {
					granted = true
					break
				}
				now = now.Add(d)
			}
			if !granted {
				t.Fatal("a call was never granted")
			}
		}
	})
}

func TestADayKeepsAReserveForTheStream(t *testing.T) {
	a := account(t, Config{Share: 0.5, Stream: 0.2, Quotas: []delivery.Quota{{Name: "daily", Requests: 1000, Window: 24 * time.Hour}}})
	now := time.Unix(1_700_000_000, 0)
	a.now = func() time.Time { return now }
	made := [2]int{}
	for _, lane := range []delivery.Lane{delivery.Backfill, delivery.Stream} {
		for a.take(now, lane, "", 1) == 0 {
			made[lane]++
		}
	}
	if made != [2]int{delivery.Stream: 100, delivery.Backfill: 400} {
		t.Errorf("stream %d, backfill %d calls; want 100 and 400 of 500", made[delivery.Stream], made[delivery.Backfill])
	}
	if left, ours := a.Today(); left != 0 || ours != 500 {
		t.Errorf("today %d of %d left", left, ours)
	}
	now = now.Add(25 * time.Hour)
	if left, _ := a.Today(); left != 500 {
		t.Errorf("the next day %d are left", left)
	}
}

func TestARefusalPausesTheAccount(t *testing.T) {
	a := account(t, Config{Quotas: []delivery.Quota{{Requests: 100, Window: 10 * time.Second}}})
	now := time.Unix(1_700_000_000, 0)
	a.observe(now, delivery.Answer{Status: 429, Throttled: true, RetryAfter: 7 * time.Second})
	if d := a.take(now, delivery.Stream, "anything", 1); d != 7*time.Second {
		t.Errorf("wait %v, want 7 s", d)
	}
	a.observe(now, delivery.Answer{Status: 429, Throttled: true}) // names nothing: must not shorten
	if d := a.take(now, delivery.Stream, "", 1); d != 7*time.Second {
		t.Errorf("wait %v, want 7 s", d)
	}
	if d := a.take(now.Add(7*time.Second), delivery.Stream, "", 1); d != 0 {
		t.Errorf("after the pause: wait %v", d)
	}
	later := now.Add(time.Hour)
	a.Share(2, later)
	if d := a.take(now.Add(time.Minute), delivery.Stream, "", 1); d != 59*time.Minute {
		t.Errorf("what another process has seen: wait %v", d)
	}
}

func TestTheStreamGoesFirst(t *testing.T) {
	a := account(t, Config{Share: 1, Quotas: []delivery.Quota{{Requests: 20, Window: time.Second}}})
	ctx, cancel := context.WithCancel(t.Context())
	backfill := make(chan int)
	go func() {
		n := 0
		for a.Wait(ctx, delivery.Backfill, "", 1) == nil {
			n++
		}
		backfill <- n
	}()
	for range 8 {
		if err := a.Wait(t.Context(), delivery.Stream, "", 1); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if n := <-backfill; n > 4 {
		t.Errorf("%d calls of the backfill passed 8 of the stream", n)
	}
	if err := a.Wait(ctx, delivery.Stream, "", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("wait after the end: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []Config{{Share: 2}, {Reserve: -1}, {Quotas: []delivery.Quota{{Requests: 0, Window: time.Second}}},
		{Endpoints: map[string][]delivery.Quota{"e": {{Requests: 1}}}}} {
		if _, err := NewAccount(c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}
