package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluice-data/sluice/progress"
)

// endpoints are the addresses that a running sluice serves or uses.
type endpoints struct {
	Admin   string `json:"admin"`
	Kafka   string `json:"kafka,omitempty"`
	S3      string `json:"s3,omitempty"`
	Catalog string `json:"catalog,omitempty"`
}

// report is what GET /status answers.
type report struct {
	Name      string         `json:"name"`
	PID       int            `json:"pid"`
	Since     time.Time      `json:"since"`
	State     string         `json:"state"` // starting, running or draining
	Roles     []string       `json:"roles"`
	Endpoints endpoints      `json:"endpoints"`
	Streams   []progress.Row `json:"streams"`
}

// admin serves health, status and metrics on a loopback address.
type admin struct {
	addr   string
	server *http.Server
	ready  atomic.Bool

	control atomic.Pointer[control] // nil until the pipeline is there
}

// startAdmin listens at once; serve answers until stop.
func startAdmin(listen string, now func() report, board *progress.Board) (*admin, error) {
	l, err := listenLoopback(listen, 0)
	if err != nil {
		return nil, environment(fmt.Errorf("admin.listen: %w", err))
	}
	a := &admin{addr: l.Addr().String()}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(&boardMetrics{board: board})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		// A parked stream is no reason to restart the process: it is in /status.
		if !a.ready.Load() {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(now()) // the reader has gone away
	})
	mux.HandleFunc("POST /control/{verb}", func(w http.ResponseWriter, r *http.Request) {
		if c := a.control.Load(); c != nil {
			c.ServeHTTP(w, r)
			return
		}
		http.Error(w, "it is starting; try again in a moment", http.StatusServiceUnavailable)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	a.server = &http.Server{Handler: localOnly(mux), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := a.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.ready.Store(false)
		}
	}()
	return a, nil
}

// localOnly refuses requests that a web page of another origin makes a browser
// send here under a foreign host name.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "loopback only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *admin) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = a.server.Shutdown(ctx) // what is still open is closed with the process
}

// boardMetrics turns the board into metrics when it is asked: nothing is
// counted twice and nothing costs anything between two scrapes.
type boardMetrics struct{ board *progress.Board }

type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	side  progress.Side // "" = both
	value func(r progress.Row) float64
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_"+name, help, labels, nil)
}

func sourceMetric(name, help string, kind prometheus.ValueType, value func(r progress.Row) float64) metric {
	return metric{desc(name, help, "stream"), kind, progress.Source, value}
}

func sinkMetric(name, help string, kind prometheus.ValueType, value func(r progress.Row) float64) metric {
	return metric{desc(name, help, "sink", "stream"), kind, progress.Sink, value}
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

var boardDescs = []metric{
	sourceMetric("records_read_total", "Records read from the source.", counter, func(r progress.Row) float64 { return float64(r.Read) }),
	sourceMetric("records_published_total", "Records that the brokers hold.", counter, func(r progress.Row) float64 { return float64(r.Delivered) }),
	sourceMetric("source_records_filtered_total", "Records that protect rules filtered away.", counter, func(r progress.Row) float64 { return float64(r.Filtered) }),
	sourceMetric("source_lag_seconds", "From the commit in the source to now, 0 when caught up.", gauge, func(r progress.Row) float64 { return r.Behind }),
	sinkMetric("records_mapped_total", "Records taken from the topic and through the shape rules.", counter, func(r progress.Row) float64 { return float64(r.Read) }),
	sinkMetric("records_delivered_total", "Records written by the sink.", counter, func(r progress.Row) float64 { return float64(r.Delivered) }),
	sinkMetric("records_filtered_total", "Records that shape rules filtered away.", counter, func(r progress.Row) float64 { return float64(r.Filtered) }),
	sinkMetric("records_superseded_total", "Records made moot by a newer one of their key.", counter, func(r progress.Row) float64 { return float64(r.Superseded) }),
	sinkMetric("records_duplicate_total", "Records that had been applied before.", counter, func(r progress.Row) float64 { return float64(r.Duplicate) }),
	sinkMetric("sink_lag_seconds", "From the commit in the source of the newest row done to now, 0 when caught up.", gauge, func(r progress.Row) float64 { return r.Behind }),
	sinkMetric("commits_total", "Commits of the sink, such as snapshots of a table.", counter, func(r progress.Row) float64 { return float64(r.Commits) }),
	sinkMetric("files_written_total", "Data files that the sink has written.", counter, func(r progress.Row) float64 { return float64(r.Files) }),
	sinkMetric("iceberg_commit_conflicts_total", "Commits that another writer was faster than.", counter, func(r progress.Row) float64 { return float64(r.Conflicts) }),
	sinkMetric("iceberg_commit_unknown_total", "Commits that had landed though an error said otherwise.", counter, func(r progress.Row) float64 { return float64(r.Unknown) }),
	sinkMetric("last_commit_age_seconds", "Since the last commit of the sink.", gauge, func(r progress.Row) float64 { return r.CommitAge }),
}

var (
	stateDesc   = desc("stream_state", "1 for the state that a stream is in.", "side", "name", "stream", "state")
	blockedDesc = desc("protect_blocked_streams", "Streams of sources that are parked or failed.")
	// Counted since the process began, unlike the other records, which the sinks count for good.
	rejectedDesc       = desc("records_rejected_total", "Records that became dead letters.", "sink", "stream", "reason")
	sourceRejectedDesc = desc("source_records_rejected_total", "Records that became dead letters before they reached their topic.", "stream", "reason")
	commitDesc         = desc("iceberg_commit_duration_seconds", "From the first try of a commit until it is known to have landed.", "sink", "stream")
	freshnessDesc      = desc("e2e_freshness_seconds", "At each commit: from the commit in the source of the oldest row in it until it is visible.", "sink", "stream")

	buildDesc = desc("build_info", "1; the labels say what runs.", "version", "revision", "go")
)

// Describe sends what Collect can send.
func (m *boardMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range boardDescs {
		out <- d.desc
	}
	for _, d := range []*prometheus.Desc{stateDesc, blockedDesc, rejectedDesc, sourceRejectedDesc, commitDesc, freshnessDesc, buildDesc} {
		out <- d
	}
}

// Collect sends the board as it is now.
func (m *boardMetrics) Collect(out chan<- prometheus.Metric) {
	blocked := 0
	for _, r := range m.board.Rows(time.Now()) {
		labels := []string{r.Stream}
		if r.Side == progress.Sink {
			labels = []string{r.Owner, r.Stream}
		} else if r.State == progress.Parked || r.State == progress.Failed {
			blocked++
		}
		for _, d := range boardDescs {
			if d.side == r.Side {
				out <- prometheus.MustNewConstMetric(d.desc, d.kind, d.value(r), labels...)
			}
		}
		collectMore(out, r, labels)
		out <- prometheus.MustNewConstMetric(stateDesc, gauge, 1, string(r.Side), r.Owner, r.Stream, string(r.State))
	}
	out <- prometheus.MustNewConstMetric(blockedDesc, gauge, float64(blocked))
	b := thisBuild()
	out <- prometheus.MustNewConstMetric(buildDesc, gauge, 1, b.Version, b.Revision, b.Go)
}

// collectMore sends what has buckets or a label of its own.
func collectMore(out chan<- prometheus.Metric, r progress.Row, labels []string) {
	rejected := rejectedDesc
	if r.Side == progress.Source {
		rejected = sourceRejectedDesc
	}
	for reason, n := range r.Reasons {
		out <- prometheus.MustNewConstMetric(rejected, counter, float64(n), append(slices.Clone(labels), reason)...)
	}
	if r.Side == progress.Source {
		return
	}
	for _, h := range []struct {
		desc *prometheus.Desc
		d    progress.Distribution
	}{{commitDesc, r.CommitTime}, {freshnessDesc, r.Freshness}} {
		if h.d.Count == 0 {
			continue
		}
		buckets := make(map[float64]uint64, len(progress.Bounds))
		for i, b := range progress.Bounds {
			buckets[b] = uint64(h.d.Buckets[i])
		}
		out <- prometheus.MustNewConstHistogram(h.desc, uint64(h.d.Count), h.d.Sum, buckets, labels...)
	}
}
