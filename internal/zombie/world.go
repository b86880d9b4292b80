package zombie

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/internal/binary"
	"github.com/sluice-data/sluice/internal/judge"
	"github.com/sluice-data/sluice/internal/pgserver"
	"github.com/sluice-data/sluice/objects"
)

// patience is how long a step may take on a busy machine.
const patience = 2 * time.Minute

const bucket = "lake"

// World is what the processes share beside Kafka.
type World struct {
	Postgres *pgserver.Server

	binary  string
	dir     string
	s3      objects.Config
	store   *objects.Client
	catalog string // address of its database
}

// Start starts a Postgres and an object store, which end with the test. The
// processes are built with the tag sluicetest.
func Start(t *testing.T) *World {
	t.Helper()
	bin := os.Getenv("SLUICE_PG_BIN")
	if bin == "" {
		t.Fatal("SLUICE_PG_BIN is not set: eval $(deploy/dev/up.sh)")
	}
	w := &World{binary: binary.Build(t, "sluicetest"), dir: workplace(t)}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	if w.Postgres, err = pgserver.Start(ctx, bin, filepath.Join(w.dir, "pg")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Postgres.Stop)
	w.catalog = w.Database(t, "catalog")
	w.startStore(ctx, t)
	return w
}

// workplace is a folder that a server running as another user can enter.
func workplace(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice-zombie-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("kept for you to look at: %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startStore runs the gateway of the binary as an object store for all.
func (w *World) startStore(ctx context.Context, t *testing.T) {
	t.Helper()
	dir := filepath.Join(w.dir, "store")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	log := new(tail)
	cmd := exec.Command(w.binary, "embedded-s3", "--dir", filepath.Join(dir, "s3"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	var server struct{ Port int }
	var keys struct{ Access, Secret string }
	Until(ctx, t, "the object store serves", log.String, func() bool {
		return readJSON(filepath.Join(dir, "s3.server.json"), &server) == nil && server.Port > 0
	})
	if err := readJSON(filepath.Join(dir, "s3.keys.json"), &keys); err != nil {
		t.Fatal(err)
	}
	w.s3 = objects.Config{Endpoint: fmt.Sprintf("http://127.0.0.1:%d", server.Port), Region: "us-east-1",
		AccessKey: keys.Access, SecretKey: keys.Secret, PathStyle: true}
	var err error
	if w.store, err = objects.New(ctx, w.s3); err != nil {
		t.Fatal(err)
	}
	if err := w.store.EnsureBucket(ctx, bucket); err != nil {
		t.Fatal(err)
	}
}

func readJSON(path string, into any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// Database creates a database and returns its address.
func (w *World) Database(t *testing.T, name string) string {
	t.Helper()
	Exec(t, w.Postgres.URL, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	u, err := url.Parse(w.Postgres.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// Exec runs statements, one transaction each, on the database at address.
func Exec(t *testing.T, address string, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// Until polls until ok; state is shown if it takes too long.
func Until(ctx context.Context, t *testing.T, what string, state func() string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s\n%s", what, state())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// metadata is the part of a table's metadata file that the tests look at.
type metadata struct {
	Snapshot   int64             `json:"current-snapshot-id"` // -1 or missing: none
	Properties map[string]string `json:"properties"`
}

// metadataOf returns where the metadata of a table is and what it says, read
// past all code of the lake; an empty place means that there is no such table.
func (w *World) metadataOf(ctx context.Context, namespace, table string) (location string, text []byte, err error) {
	conn, err := pgx.Connect(ctx, w.catalog)
	if err != nil {
		return "", nil, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT metadata_location FROM iceberg_tables WHERE table_namespace = $1 AND table_name = $2",
		namespace, table).Scan(&location)
	if err != nil {
		return "", nil, err
	}
	text, err = w.store.Get(ctx, bucket, location[len("s3://"+bucket+"/"):])
	if err == nil && bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
		var r *gzip.Reader
		if r, err = gzip.NewReader(bytes.NewReader(text)); err == nil {
			text, err = io.ReadAll(r)
		}
	}
	return location, text, err
}

// Properties returns the properties of a table, none if it does not exist yet.
func (w *World) Properties(ctx context.Context, namespace, table string) map[string]string {
	return w.look(ctx, namespace, table).Properties
}

// Snapshot returns the current snapshot of a table, 0 if there is none yet.
func (w *World) Snapshot(ctx context.Context, namespace, table string) int64 {
	return max(w.look(ctx, namespace, table).Snapshot, 0)
}

func (w *World) look(ctx context.Context, namespace, table string) metadata {
	_, text, err := w.metadataOf(ctx, namespace, table)
	var m metadata
	if err != nil || json.Unmarshal(text, &m) != nil {
		return metadata{}
	}
	return m
}

// SetProperty changes a property of a table as another engine would: new
// metadata, and a swap of the catalog's pointer to it.
func (w *World) SetProperty(ctx context.Context, t *testing.T, namespace, table, key, value string) {
	t.Helper()
	Until(ctx, t, "the pointer of "+table+" is swapped", func() string { return "" }, func() bool {
		old, text, err := w.metadataOf(ctx, namespace, table)
		if err != nil {
			return false
		}
		var m map[string]any
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		version, err := strconv.Atoi(path.Base(old)[:5])
		if err != nil {
			t.Fatal(err)
		}
		m["properties"].(map[string]any)[key] = value
		if text, err = json.Marshal(m); err != nil {
			t.Fatal(err)
		}
		location := fmt.Sprintf("%s/%05d-%s.metadata.json", old[:strings.LastIndexByte(old, '/')], version+1, uuid.NewString())
		if err := w.store.Put(ctx, bucket, location[len("s3://"+bucket+"/"):], text); err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.Connect(ctx, w.catalog)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		tag, err := conn.Exec(ctx, "UPDATE iceberg_tables SET metadata_location = $1, previous_metadata_location = $2 WHERE metadata_location = $2",
			location, old)
		return err == nil && tag.RowsAffected() == 1
	})
}

// judgeAt returns how an engine reads the tables that a process serves at uri.
func (w *World) judgeAt(uri string) judge.Catalog {
	return judge.Catalog{URI: uri, Endpoint: w.s3.Endpoint, AccessKey: w.s3.AccessKey, SecretKey: w.s3.SecretKey}
}
