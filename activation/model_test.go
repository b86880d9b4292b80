package activation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-data/sluice/record"
)

// TestEveryFaultAndCrash delivers a log of changes to a destination that loses
// answers, applies requests late, refuses batches as a whole, throttles, fails
// and answers too little, while the worker is stopped without warning at any
// moment. In the end each record has the last value of its key, none was
// created twice, no older value came after a newer one (the fake looks), and
// every record of the log has exactly one outcome.
//
// SLUICE_ACTIVATION_KEYS and SLUICE_ACTIVATION_CRASHES make it as long as one likes.
func TestEveryFaultAndCrash(t *testing.T) {
	keys, crashes := int64(number("SLUICE_ACTIVATION_KEYS", 150)), number("SLUICE_ACTIVATION_CRASHES", 4)
	for _, c := range []struct {
		name   string
		faults faults
		unread bool
		crash  bool
	}{
		{"lost and late answers", faults{lost: 10, delayed: 10}, false, true},
		{"lost answers of what cannot be read", faults{lost: 10, delayed: 10}, true, true},
		{"refused batches", faults{wholeBatch: true, retry: 5, throttled: 5, down: 5}, false, false},
		{"everything", faults{lost: 5, delayed: 5, down: 10, throttled: 10, short: 5, retry: 5, wholeBatch: true}, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(number("SLUICE_ACTIVATION_SEED", 1))
			f := newFake(t, seed)
			f.faults, f.unread = c.faults, c.unread
			f.poison["13"], f.poison["57"] = true, true
			cfg := contacts()
			cfg.OnDelete = DeleteRecord
			cfg.Guards = Guards{DeleteRatio: 1, RejectRatio: 1, ShrinkRatio: 1}
			cfg.Ambiguous, cfg.BatchItems = 150*time.Millisecond, 10
			rnd := rand.New(rand.NewPCG(seed, 99))
			log := history(rnd, keys)
			w := newWorld(t, cfg, f)
			if c.crash {
				run(t, w, rnd, log, crashes)
			} else {
				run(t, w, rnd, log, 0)
			}
			check(t, w, log)
		})
	}
}

func number(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

// history is the log of two partitions: keys are on the partition of their
// parity, values rise, and keys come and go.
func history(rnd *rand.Rand, keys int64) [2][]row {
	var log [2][]row
	there := map[int64]bool{}
	for v := int64(1); v <= 8*keys; v++ {
		id := rnd.Int64N(keys)
		r := update(id, v)
		r.lsn = uint64(v)
		switch {
		case there[id] && rnd.IntN(12) == 0:
			r = row{op: record.OpDelete, id: id, lsn: uint64(v), oldMail: r.email}
			delete(there, id)
		case !there[id]:
			r.op = record.OpInsert
			there[id] = true
		default:
			if r.note = "?"; rnd.IntN(3) > 0 {
				r.note = fmt.Sprint("note", rnd.IntN(4))
			}
		}
		log[id%2] = append(log[id%2], r)
	}
	return log
}

// run feeds the log to the sink in pieces, from its marks, and stops it without
// warning now and then.
func run(t *testing.T, w *world, rnd *rand.Rand, log [2][]row, crashes int) {
	ctx := context.Background()
	taken := map[int32]record.Mark{0: w.marks[0], 1: w.marks[1]}
	var before [2]int64 // taken before the last crash: a consumer reads on to there before its next flush is due
	restart := func() {
		before = [2]int64{max(before[0], taken[0].Next), max(before[1], taken[1].Next)}
		_ = w.s.Close()
		w.sink()
		taken = map[int32]record.Mark{0: w.marks[0], 1: w.marks[1]}
	}
	for taken[0].Next < int64(len(log[0])) || taken[1].Next < int64(len(log[1])) {
		p := int32(rnd.IntN(2))
		m := taken[p]
		n := min(int64(1+rnd.IntN(60)), int64(len(log[p]))-m.Next)
		if n <= 0 {
			continue
		}
		rejects, err := w.s.Write(ctx, batchOf(p, m.Next, log[p][m.Next:m.Next+n]...))
		if err != nil {
			t.Log("write: ", err)
			restart()
			continue
		}
		m.Next += n
		m.Counts.Read += n
		m.Counts.Rejected += int64(len(rejects))
		for _, r := range rejects {
			w.letters.Store(fmt.Sprintf("%d/%d", p, m.Next-n+int64(r.Row)), r.Code)
		}
		taken[p] = m
		switch {
		case crashes > 0 && rnd.IntN(10) == 0:
			crashes--
			before = [2]int64{max(before[0], taken[0].Next), max(before[1], taken[1].Next)}
			time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond) // any moment of what is under way
			w.crash()
			w.sink()
			taken = map[int32]record.Mark{0: w.marks[0], 1: w.marks[1]}
		case rnd.IntN(6) == 0 && taken[0].Next >= before[0] && taken[1].Next >= before[1], taken[0].Next+taken[1].Next == int64(len(log[0])+len(log[1])):
			w.marks = taken
			if err := w.tryFlush(); err != nil {
				if errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "lease") { // of a slow disk: as in life, it starts again
					t.Errorf("flush: %v", err)
				}
				restart()
				continue
			}
			taken = map[int32]record.Mark{0: w.marks[0], 1: w.marks[1]}
		}
	}
	w.marks = taken
}

// crash ends the sink as SIGKILL does: nothing more is stored, its lease is not
// given back. Requests that are under way may still have effect.
func (w *world) crash() {
	s := w.s
	s.mu.Lock()
	s.fail(record.ErrFenced) // stores nothing any more
	s.closed = true
	s.mu.Unlock()
	s.done.Wait()
}

// check compares the destination with the log.
func check(t *testing.T, w *world, log [2][]row) {
	w.fake.late.Wait()
	w.fake.mu.Lock()
	defer w.fake.mu.Unlock()
	want := map[string]row{}
	poisoned := map[int64]bool{}
	for _, part := range log {
		for _, r := range part {
			mail := fmt.Sprintf("c%d@x.io", r.id)
			if r.op == record.OpDelete {
				delete(want, mail)
				continue
			}
			if old, ok := want[mail]; ok && r.note == "?" {
				r.note = old.note
			}
			poisoned[r.id] = w.fake.poison[fmt.Sprint(r.v)]
			want[mail] = r
		}
	}
	for mail, r := range want {
		got := w.fake.records[mail]
		if poisoned[r.id] {
			continue
		}
		if got == nil {
			t.Errorf("%s is missing", mail)
			continue
		}
		if got.fields["v"] != fmt.Sprint(r.v) {
			t.Errorf("%s has v %s, want %d", mail, got.fields["v"], r.v)
		}
	}
	extra := 0
	for mail := range w.fake.records {
		if _, ok := want[mail]; !ok {
			extra++
		}
	}
	// A record whose creation was never confirmed is not ours to delete.
	if extra > 0 && w.fake.faults.lost == 0 {
		t.Errorf("%d records of deleted rows are left", extra)
	}
	read := int64(len(log[0]) + len(log[1]))
	if o := w.outcomes(); o.Total() != read { // Invariant 5
		t.Errorf("outcomes %+v are %d in all, want %d", o, o.Total(), read)
	}
	t.Logf("%s; outcomes %+v; letters %v; %d records of deleted rows left", w.fake, w.outcomes(), w.letterCodes(), extra)
}
