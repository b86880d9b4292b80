// Command stages measures what a row costs in the stages alone: topic record →
// columns (decode), and topic record → columns → Parquet on a store → commit
// (parquet). It takes its rows from a Postgres table with the real source,
// encodes them once as they would lie on the topic, and reads those records
// over and over. The CPU is this process's; the S3 gateway is one of its own.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-data/sluice/ingest/postgres"
	"github.com/sluice-data/sluice/lake"
	"github.com/sluice-data/sluice/objects"
	"github.com/sluice-data/sluice/objects/gateway"
	"github.com/sluice-data/sluice/record"
)

const (
	partitions = 4    // as a topic has
	batchRows  = 4096 // decoded at once
	atLeast    = 3 * time.Second
	accessKey  = "bench"
	secretKey  = "bench-only-on-loopback"
)

func main() {
	url := flag.String("url", os.Getenv("SHOP_DB_URL"), "the database")
	table := flag.String("table", "public.orders_wide", "the table to take rows from")
	rows := flag.Int("rows", 100_000, "rows held in memory")
	dir := flag.String("dir", "", "an empty folder")
	profile := flag.String("profile", "", "write a CPU profile of each stage to this path with .STAGE behind it")
	rules := flag.Bool("rules", false, "compare the way to the table with six mapping rules to that of records that are mapped already; for orders_wide")
	serve := flag.Bool("gateway", false, "serve S3 from -dir until standard input ends")
	flag.Parse()
	run := func() error { return measure(*url, *table, *rows, *dir, *profile, *rules) }
	if *serve {
		run = func() error { return serveS3(*dir) }
	}
	if err := run(); err != nil {
		log.Fatalln("stages:", err)
	}
}

// serveS3 is the child: the gateway changes the working directory of its process.
func serveS3(dir string) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 2)
	go func() {
		done <- gateway.Run(ctx, gateway.Config{Dir: dir, AccessKey: accessKey, SecretKey: secretKey, Ready: func(addr string) { fmt.Println(addr) }})
	}()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		done <- nil // the parent is done; the gateway would wait for idle connections
	}()
	return <-done
}

func measure(url, table string, rows int, dir, profile string, rules bool) error {
	ctx := context.Background()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	in, err := take(ctx, url, table, rows)
	if err != nil {
		return err
	}
	in.profile = profile
	s3, err := startS3(filepath.Join(dir, "s3"))
	if err != nil {
		return err
	}
	defer s3.end()
	if !rules {
		err = in.stage("decode", table, s3.cmd.Process.Pid, func() error { return in.each(func(b *record.Batch) error { b.Release(); return nil }) })
	}
	if err != nil {
		return err
	}
	l, err := lake.Open(ctx, lake.Config{Pipeline: "bench", Owner: "lake", Warehouse: "s3://stages/wh", Dir: filepath.Join(dir, "local"),
		Catalog: lake.CatalogConfig{SQL: "sqlite:" + filepath.Join(dir, "catalog.db")}, Logger: slog.New(slog.DiscardHandler),
		S3: objects.Config{Endpoint: "http://" + s3.addr, Region: "us-east-1", AccessKey: accessKey, SecretKey: secretKey, PathStyle: true}})
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	if err := l.EnsureBucket(ctx); err != nil {
		return err
	}
	if rules {
		return in.compareRules(ctx, l, table)
	}
	t, err := l.Table(lake.TableConfig{Stream: in.schema.Stream, Topic: "stages", Table: "bench.stages", Mode: lake.Append})
	if err != nil {
		return err
	}
	defer func() { _ = t.Close() }()
	marks, err := t.Load(ctx, []int32{0, 1, 2, 3})
	if err != nil {
		return err
	}
	return in.stage("parquet", table, s3.cmd.Process.Pid, func() error {
		if err := in.each(func(b *record.Batch) error {
			if _, err := t.Write(ctx, b); err != nil {
				return err
			}
			p := b.Partition.Partition
			m := marks[p]
			m.Next, m.Last, m.TopicID, m.Cluster = in.next[p], record.Position{Epoch: 1, LSN: 1}, "stages", "stages"
			marks[p] = m
			return nil
		}); err != nil {
			return err
		}
		_, err := t.Flush(ctx, marks)
		return err
	})
}

// input is what would lie on a topic.
type input struct {
	profile string
	limit   int
	stop    context.CancelFunc
	mu      sync.Mutex
	schema  *record.Schema
	enc     *record.Encoder
	values  [][]byte
	next    [partitions]int64
	decode  *record.Decoder
	heads   record.HeadReader
	free    []*record.Batch
}

// take reads the first rows that the source brings of a table, then removes its slot.
func take(ctx context.Context, url, table string, rows int) (*input, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	in := &input{limit: rows, stop: stop}
	s, err := postgres.New(postgres.Config{Name: "stages", URL: url, Tables: []string{table}, Slot: "bench_stages", UntilCaughtUp: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	if err := s.Run(ctx, in); err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	if len(in.values) == 0 {
		return nil, fmt.Errorf("%s has no rows", table)
	}
	in.decode = record.NewDecoder(in.schema)
	return in, nil
}

// Publish encodes the rows of b.
func (in *input) Publish(_ context.Context, b *record.Batch) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	defer b.Release()
	if _, control := b.Control(); control || len(in.values) >= in.limit {
		return nil
	}
	if in.enc == nil {
		in.schema = b.Schema
		in.enc = record.NewEncoder(b.Schema, record.Origin{Connector: "postgresql", Name: "bench.stages", Database: "postgres"})
	}
	for i := range b.Len() {
		in.values = append(in.values, in.enc.AppendValue(nil, b, i))
	}
	if len(in.values) >= in.limit {
		in.stop()
	}
	return nil
}

// Barrier, Flush and the checkpoint are of no use here.
func (in *input) Barrier(done func())                                    { done() }
func (in *input) Flush(context.Context) error                            { return nil }
func (in *input) LoadCheckpoint(context.Context, string) ([]byte, error) { return nil, nil }
func (in *input) SaveCheckpoint(context.Context, string, []byte) error   { return nil }

// each decodes all records once and hands them over batch by batch, in turn to
// each partition.
func (in *input) each(use func(*record.Batch) error) error {
	for k, n := 0, 0; k < len(in.values); n++ {
		b := in.reuse()
		if b == nil {
			b = record.NewBatch(in.schema, in.recycle)
		}
		p := int32(n % partitions)
		b.Partition = record.TopicPartition{Topic: "stages", Partition: p}
		for _, value := range in.values[k:min(k+batchRows, len(in.values))] {
			if _, err := in.heads.Read(value); err != nil {
				return err
			}
			if err := in.decode.Append(b, nil, value, nil); err != nil {
				return err
			}
			b.Offsets = append(b.Offsets, in.next[p])
			in.next[p]++
		}
		k += b.Len()
		if err := use(b); err != nil {
			return err
		}
	}
	return nil
}

// recycle takes a batch back; the lake may call it from any goroutine.
func (in *input) recycle(b *record.Batch) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.free = append(in.free, b)
}

func (in *input) reuse() *record.Batch {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := len(in.free)
	if n == 0 {
		return nil
	}
	b := in.free[n-1]
	in.free = in.free[:n-1]
	b.Reset()
	return b
}

// stage repeats pass for atLeast of CPU and prints one line of JSON.
func (in *input) stage(name, table string, s3 int, pass func() error) error {
	if err := pass(); err != nil { // warm
		return fmt.Errorf("%s: %w", name, err)
	}
	if in.profile != "" {
		f, err := os.Create(in.profile + "." + name)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	busy, own, gate, began, rows := machineCPU(), cpu(), processCPU(s3), time.Now(), 0
	for rows == 0 || cpu()-own < atLeast {
		if err := pass(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		rows += len(in.values)
	}
	used, gateUsed, all := cpu()-own, processCPU(s3)-gate, machineCPU()-busy
	foreign := 0.0
	if all > 0 {
		foreign = max(0, 1-(used+gateUsed).Seconds()/all.Seconds())
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"stage": name, "table": table, "rows": rows, "wall_s": time.Since(began).Seconds(),
		"cpu_s": used.Seconds(), "s3_cpu_s": gateUsed.Seconds(), "anon_mb": anonymous(), "foreign_share": foreign})
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const tick = 10 * time.Millisecond // of /proc

// machineCPU is what all processes of the machine have used.
func machineCPU() time.Duration {
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	var sum int64
	for i, f := range strings.Fields(line) {
		switch i { // user, nice, system, irq, softirq
		case 1, 2, 3, 6, 7:
			n, _ := strconv.ParseInt(f, 10, 64)
			sum += n
		}
	}
	return time.Duration(sum) * tick
}

func processCPU(pid int) time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * tick
}

// anonymous is this process's memory in MB that no file backs: the records
// held in memory are part of it.
func anonymous() float64 {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "RssAnon:" {
			kb, _ := strconv.ParseFloat(f[1], 64)
			return kb * 1024 / 1e6
		}
	}
	return 0
}

// store is the S3 gateway.
type store struct {
	cmd  *exec.Cmd
	in   io.Closer
	addr string
}

func startS3(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	cmd := exec.Command(os.Args[0], "-gateway", "-dir", dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &store{cmd: cmd, in: in}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		s.end()
		return nil, fmt.Errorf("the S3 gateway does not start: %w", err)
	}
	s.addr = strings.TrimSpace(line)
	return s, nil
}

func (s *store) end() {
	_ = s.in.Close()
	_ = s.cmd.Wait()
}
