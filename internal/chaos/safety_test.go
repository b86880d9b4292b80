package chaos

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluice-data/sluice/internal/zombie"
)

// scenario is a crash that one safety line is there for.
type scenario struct {
	name string                                              // of the line, as SLUICE_UNSAFE knows it
	run  func(ctx context.Context, s *stage) *zombie.Process // which goes on as the next run of its folder
}

// stage is where one scenario is played, on its own Kafka and database.
type stage struct {
	*testing.T
	world *zombie.World
	kafka *kfake.Cluster
	p     zombie.Pipeline
	env   []string // SLUICE_UNSAFE
	off   bool     // the line is switched off
}

// TestEachSafetyLineIsNeeded plays each crash twice: with its safety line
// source and lake are equal, without it they are not. Nothing here is left to
// luck: the process kills or stops itself at a point, or a broker holds
// records back.
func TestEachSafetyLineIsNeeded(t *testing.T) {
	world := zombie.Start(t)
	for _, sc := range []scenario{
		{"no-marks", offsetsInTheCommit},
		{"no-pin", pinnedParent},
		{"gaps", contiguousAcknowledgement},
	} {
		for _, off := range []bool{false, true} {
			name := strings.ReplaceAll(sc.name, "-", "_") + map[bool]string{false: "_on", true: "_off"}[off]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
				defer cancel()
				s := newStage(t, world, "safety_"+name)
				if s.off = off; off {
					s.env = []string{"SLUICE_UNSAFE=" + sc.name}
				}
				s.judge(ctx, sc.run(ctx, s))
			})
		}
	}
}

func newStage(t *testing.T, w *zombie.World, name string) *stage {
	t.Helper()
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
	p := zombie.Pipeline{Name: name, Kafka: kafka.ListenAddrs()[0], Database: w.Database(t, name), Tables: "public.acct, public.item",
		Sinks: []zombie.Sink{
			{Name: "lake", Mode: "upsert", Streams: map[string]string{"public.acct": "acct", "public.item": "item"}},
			{Name: "log", Mode: "append", Streams: map[string]string{"public.acct": "acct_log"}},
		}}
	zombie.Exec(t, p.Database, zombie.Schema)
	return &stage{T: t, world: w, kafka: kafka, p: p}
}

func (s *stage) prepare(name string) *zombie.Process { return s.world.Prepare(s.T, s.p, name) }

func (s *stage) run(r *zombie.Process, env string, args ...string) {
	s.Helper()
	r.Run(s.T, append([]string{env}, s.env...), args...)
}

func (s *stage) exec(sql ...string) { s.Helper(); zombie.Exec(s.T, s.p.Database, sql...) }

// changes of acct, which the audit log knows.
const (
	firstChanges = `INSERT INTO acct SELECT i, nextval('version'), 'first' FROM generate_series(1, 50) i`
	moreChanges  = `INSERT INTO acct SELECT i, nextval('version'), 'more' FROM generate_series(51, 100) i`
	lastChanges  = `UPDATE acct SET v = nextval('version'), name = 'last' WHERE id % 3 = 0`
)

// start runs a process with everything until it follows the log of the still
// empty tables: all later changes must be in the changelog exactly once.
func (s *stage) start(ctx context.Context, r *zombie.Process, env string) {
	s.Helper()
	s.run(r, env)
	r.Streaming(ctx, s.T)
}

// judge has r bring everything to an end and compares: there must be
// differences exactly if the line is off.
func (s *stage) judge(ctx context.Context, r *zombie.Process) {
	s.Helper()
	s.run(r, "", "--until-caught-up")
	r.Succeeded(ctx, s.T)
	s.run(r, "", "--only", "lake,log")
	found, err := zombie.Differences(ctx, r.Catalog(ctx, s.T), s.p.Name, s.p.Database, "acct", "item")
	if err != nil {
		s.Fatal(err)
	}
	switch {
	case s.off && len(found) == 0:
		s.Error("the line is off and nobody notices: source and lake are equal")
	case s.off:
		s.Logf("without the line: %s", strings.Join(found, "; "))
	default:
		for _, f := range found {
			s.Error(f)
		}
	}
}

// offsetsInTheCommit kills the process once the rows are visible: where to go
// on, the table alone can say. A kill point would not do: how often something
// is committed before the first change depends on how soon that comes.
func offsetsInTheCommit(ctx context.Context, s *stage) *zombie.Process {
	r := s.prepare("a")
	s.start(ctx, r, "")
	s.exec(firstChanges, lastChanges)
	zombie.Until(ctx, s.T, "the changes are in the table", r.Log, func() bool { return s.world.Snapshot(ctx, s.p.Name, "acct_log") != 0 })
	r.Kill()
	s.exec(moreChanges)
	return r
}

// pinnedParent stops a process between the data files and the commit; another
// one takes over and commits the same rows. Another engine has set the
// table property that makes the library try a refused commit again on
// whatever is there: only the pin stands between it and the zombie's rows.
func pinnedParent(ctx context.Context, s *stage) *zombie.Process {
	source, a, b := s.prepare("source"), s.prepare("a"), s.prepare("b")
	s.run(source, "", "--only", "db")
	source.Streaming(ctx, s.T)
	s.exec(firstChanges)
	s.run(a, "", "--only", "log")
	written := func() bool { return s.world.Properties(ctx, s.p.Name, "acct_log") != nil }
	zombie.Until(ctx, s.T, "the first changes are in the table", a.Log, written)
	a.Stop(ctx, s.T)
	s.world.SetProperty(ctx, s.T, s.p.Name, "acct_log", "commit.retry.num-retries", "4")

	s.exec(moreChanges)
	s.run(a, "SLUICE_STOP=lake.after-data:1", "--only", "log")
	a.Stopped(ctx, s.T)
	before := s.world.Snapshot(ctx, s.p.Name, "acct_log")
	s.run(b, "", "--only", "log")
	zombie.Until(ctx, s.T, "the other one has taken over", b.Log, func() bool { return s.world.Snapshot(ctx, s.p.Name, "acct_log") != before })
	after := s.world.Snapshot(ctx, s.p.Name, "acct_log")
	b.Stop(ctx, s.T)
	a.Resume(s.T)
	if s.off {
		zombie.Until(ctx, s.T, "the zombie's commit has landed", a.Log, func() bool { return s.world.Snapshot(ctx, s.p.Name, "acct_log") != after })
	} else {
		a.Logged(ctx, s.T, "another writer has moved the offsets")
	}
	a.Kill()
	s.exec(lastChanges)
	source.Stop(ctx, s.T)
	return a
}

// contiguousAcknowledgement has the broker hold back the records of one table
// while it takes those of another, which are newer, and kills the process: the
// source may not have been told that it can forget the older ones.
func contiguousAcknowledgement(ctx context.Context, s *stage) *zombie.Process {
	r := s.prepare("a")
	s.start(ctx, r, "")
	held := hold(s.T, s.kafka, s.p.Name+".db.public.acct")
	s.exec(firstChanges)
	zombie.Until(ctx, s.T, "the broker holds the older records back", r.Log, func() bool { return held.refused.Load() > 0 })
	s.exec(`INSERT INTO item SELECT i, nextval('version'), 'newer' FROM generate_series(1, 50) i`)
	newer := s.logEnd(ctx)
	zombie.Until(ctx, s.T, "the newer records are in the lake", r.Log, func() bool { return s.world.Snapshot(ctx, s.p.Name, "item") != 0 })
	if s.off {
		zombie.Until(ctx, s.T, "the source forgets what no broker holds", r.Log, func() bool { return s.confirmed(ctx) >= newer })
	}
	r.Kill()
	held.off.Store(true)
	if !s.off && s.confirmed(ctx) >= newer {
		s.Error("the source was told that records are on the broker that are not")
	}
	return r
}

// logEnd returns the end of the database's log.
func (s *stage) logEnd(ctx context.Context) uint64 {
	return s.lsn(ctx, "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
}

// confirmed returns up to where the source has acknowledged the log.
func (s *stage) confirmed(ctx context.Context) uint64 {
	return s.lsn(ctx, "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = '"+s.p.Name+"'")
}

func (s *stage) lsn(ctx context.Context, sql string) uint64 {
	s.Helper()
	conn, err := pgx.Connect(ctx, s.p.Database)
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close(ctx)
	var lsn uint64
	if err := conn.QueryRow(ctx, sql).Scan(&lsn); err != nil {
		s.Fatal(err)
	}
	return lsn
}

// holder refuses records for a while, in a way that asks for another try.
type holder struct {
	off     atomic.Bool
	refused atomic.Int64
}

// hold returns a holder of the records of one topic. A request with records of
// other topics too is refused as a whole; the client sends those on their own
// while it waits to try the refused ones again.
func hold(t *testing.T, c *kfake.Cluster, topic string) *holder {
	t.Helper()
	info := c.TopicInfo(topic)
	if info == nil {
		t.Fatalf("no topic %s", topic)
	}
	h := new(holder)
	c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		produce := req.(*kmsg.ProduceRequest)
		if h.off.Load() || !slices.ContainsFunc(produce.Topics, func(rt kmsg.ProduceRequestTopic) bool {
			return rt.Topic == topic || rt.TopicID == info.TopicID // newer clients name no topic
		}) {
			return nil, nil, false
		}
		h.refused.Add(1)
		resp := produce.ResponseKind().(*kmsg.ProduceResponse)
		for _, rt := range produce.Topics {
			answer := kmsg.NewProduceResponseTopic()
			answer.Topic, answer.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition, p.ErrorCode = rp.Partition, kerr.NotEnoughReplicas.Code
				answer.Partitions = append(answer.Partitions, p)
			}
			resp.Topics = append(resp.Topics, answer)
		}
		return resp, nil, true
	})
	return h
}
