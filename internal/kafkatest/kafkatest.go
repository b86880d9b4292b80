// Package kafkatest runs a private Apache Kafka broker for tests.
//
// It starts the programs of SLUICE_KAFKA_HOME, which deploy/dev/kafka.sh gets,
// and knows no Kafka client: what it asks the broker it asks in raw bytes.
package kafkatest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// readyLimit is how long a broker may take on a busy machine; 5 s is usual.
const readyLimit = 90 * time.Second

// Broker is one Apache Kafka process and its data.
type Broker struct {
	Addr string // 127.0.0.1:port, the same after every Restart
	dir  string
	home string
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// Start runs a broker with an empty log and stops it when the test ends.
// Extra lines are added to its properties, such as "message.max.bytes=16777216".
func Start(t testing.TB, extra ...string) *Broker {
	t.Helper()
	home := os.Getenv("SLUICE_KAFKA_HOME")
	if home == "" {
		t.Fatal("SLUICE_KAFKA_HOME is not set: run make test, or export the lines that deploy/dev/up.sh prints")
	}
	b := &Broker{dir: t.TempDir(), home: home}
	if err := b.format(extra); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	b.start(t)
	return b
}

// Kill ends the broker as a power cut of the process would: SIGKILL.
func (b *Broker) Kill() { b.end(syscall.SIGKILL) }

// Stop ends the broker in order. Calling it twice is fine.
func (b *Broker) Stop() { b.end(syscall.SIGTERM) }

// Pause stops the broker's process where it is, until Resume.
func (b *Broker) Pause() error { return b.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused broker go on.
func (b *Broker) Resume() error { return b.cmd.Process.Signal(syscall.SIGCONT) }

// Restart starts a broker that Kill or Stop ended, on the same data and address.
func (b *Broker) Restart(t testing.TB) {
	t.Helper()
	b.start(t)
}

// Pid returns the process id of the running broker.
func (b *Broker) Pid() int { return b.cmd.Process.Pid }

func (b *Broker) end(sig syscall.Signal) {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Signal(sig)
	if sig == syscall.SIGTERM {
		_ = b.cmd.Process.Signal(syscall.SIGCONT) // a paused process would never see it
		select {
		case <-b.done:
		case <-time.After(20 * time.Second):
			_ = b.cmd.Process.Kill()
		}
	}
	<-b.done
	b.cmd = nil
}

func (b *Broker) java(args ...string) *exec.Cmd {
	cmd := exec.Command("java", append([]string{"-Xms128m", "-Xmx512m", "-XX:+UseSerialGC",
		"-Dlog4j2.configurationFile=" + filepath.Join(b.home, "log4j2.properties"),
		"-cp", filepath.Join(b.home, "libs", "*")}, args...)...)
	cmd.Dir = b.dir
	return cmd
}

func (b *Broker) format(extra []string) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	b.Addr = fmt.Sprintf("127.0.0.1:%d", ports[0])
	text := properties(b.dir, ports[0], ports[1]) + strings.Join(extra, "\n") + "\n"
	if err := os.WriteFile(b.properties(), []byte(text), 0o600); err != nil {
		return err
	}
	id := base64.RawURLEncoding.EncodeToString([]byte("sluice-testing.."))
	out, err := b.java("kafka.tools.StorageTool", "format", "-t", id, "-c", b.properties()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("format the log of Kafka: %w\n%s", err, out)
	}
	return nil
}

func (b *Broker) properties() string { return filepath.Join(b.dir, "server.properties") }

// properties configures one node that is broker and controller. The short
// session is what makes a restart after SIGKILL quick: the controller refuses
// the new incarnation until the old one's session has ended.
func properties(dir string, port, controller int) string {
	return fmt.Sprintf(`process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:%[2]d,CONTROLLER://127.0.0.1:%[3]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[2]d
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:%[3]d
log.dirs=%[1]s/log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
controlled.shutdown.enable=false
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
`, dir, port, controller)
}

func (b *Broker) start(t testing.TB) {
	t.Helper()
	if b.cmd != nil {
		t.Fatal("the broker runs already")
	}
	log, err := os.OpenFile(filepath.Join(b.dir, "broker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := b.java("kafka.Kafka", b.properties())
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start Kafka: %v", err)
	}
	done := make(chan struct{})
	b.cmd, b.done = cmd, done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), readyLimit)
	defer cancel()
	if err := b.ready(ctx); err != nil {
		text, _ := os.ReadFile(filepath.Join(b.dir, "broker.log"))
		t.Fatalf("Kafka does not answer: %v\n%s", err, tail(text, 4000))
	}
}

// ready waits until the broker names itself in a Metadata answer: a connect
// and ApiVersions succeed while it still refuses work.
func (b *Broker) ready(ctx context.Context) error {
	for {
		n, err := brokers(ctx, b.Addr)
		if err == nil && n > 0 {
			return nil
		}
		select {
		case <-b.done:
			return errors.New("the process ended")
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// brokers asks Metadata version 1 for no topic and returns the number of brokers in the answer.
func brokers(ctx context.Context, addr string) (int, error) {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	const client = "kafkatest"
	var req bytes.Buffer
	for _, field := range []any{int32(8 + 2 + len(client) + 4), int16(3), int16(1), int32(1), int16(len(client)), []byte(client), int32(0)} {
		_ = binary.Write(&req, binary.BigEndian, field)
	}
	if _, err := conn.Write(req.Bytes()); err != nil {
		return 0, err
	}
	var head struct{ Size, Correlation, Brokers int32 }
	if err := binary.Read(io.LimitReader(conn, 12), binary.BigEndian, &head); err != nil {
		return 0, err
	}
	return int(head.Brokers), nil
}

func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("free port: %w", err)
		}
		defer l.Close() // held until all are found, so that they differ
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }
