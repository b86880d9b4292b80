package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	childStart = 30 * time.Second // for a child to answer; a broker reads its log first
	childStop  = 10 * time.Second // between SIGTERM and SIGKILL
	childPoll  = 500 * time.Millisecond
)

// childKind is one of the embedded servers.
type childKind struct {
	name    string // in run.json, of its folder and of its log file
	command string // hidden subcommand
	answers func(ctx context.Context, addr string) error
}

var (
	brokerChild = childKind{"kafka", "embedded-broker", kafkaAnswers}
	s3Child     = childKind{"s3", "embedded-s3", s3Answers}
)

// children starts, watches and ends the embedded servers of one folder. They
// are processes of their own: a killed sluice leaves them running, and the
// next one goes on with them.
type children struct {
	dir string
	log *slog.Logger
}

// ensure returns the address of a running child of kind k: one that is there
// already, else a new one on the port it had before.
func (c *children) ensure(ctx context.Context, k childKind) (addr string, err error) {
	err = editRun(c.dir, func(r *runFile) error {
		have := r.Children[k.name]
		if have != nil && alive(have.PID, have.Started) {
			addr = loopback(have.Port)
			err := c.wait(ctx, k, have, nil)
			if err == nil {
				return nil
			}
			// It lives but does not answer: it would hold its folder for ever.
			c.log.Warn("embedded server does not answer, starting it anew", "server", k.name, "pid", have.PID, "error", err)
			c.end(have)
		}
		fresh, err := c.start(ctx, k, have)
		if err != nil {
			return err
		}
		r.Children[k.name] = fresh
		addr = loopback(fresh.Port)
		return nil
	})
	return addr, err
}

// incumbent returns the child that holds the folder of k, nil if none does.
// One that is still starting is waited for.
func (c *children) incumbent(ctx context.Context, k childKind) *child {
	for deadline := time.Now().Add(childStart); ctx.Err() == nil && time.Now().Before(deadline); time.Sleep(30 * time.Millisecond) {
		if own, err := readServer(c.dir, k.name); err == nil && alive(own.PID, own.Started) {
			return own
		}
		free, err := lock(serverLock(filepath.Join(c.dir, k.name)), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			free()
			return nil
		}
	}
	return nil
}

// start starts a child, on the port of the one before if that is still free.
func (c *children) start(ctx context.Context, k childKind, before *child) (*child, error) {
	var last error
	for attempt := range 3 {
		// A sluice that was killed just after it had started the child could
		// not write it down; the child has, or will, and may have won against ours.
		if own := c.incumbent(ctx, k); own != nil {
			return own, c.wait(ctx, k, own, nil)
		}
		port := 0
		if before != nil && attempt == 0 {
			port = before.Port
		}
		if port == 0 {
			var err error
			if port, err = freePort(); err != nil {
				return nil, err
			}
		}
		fresh, err := c.startOn(ctx, k, port)
		if err == nil {
			return fresh, nil
		}
		if last = err; ctx.Err() != nil {
			break
		}
	}
	return nil, last
}

func (c *children) startOn(ctx context.Context, k childKind, port int) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start embedded %s: %w", k.name, err)
	}
	dir := filepath.Join(c.dir, k.name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("start embedded %s: %w", k.name, err)
	}
	logPath := filepath.Join(c.dir, k.name+".log")
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start embedded %s: %w", k.name, err)
	}
	defer logFile.Close()
	cmd := exec.Command(self, k.command, "--dir", dir, "--port", strconv.Itoa(port))
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.Dir = dir
	// A session of its own: Ctrl-C at the terminal is for sluice, not for its children.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start embedded %s: %w", k.name, err)
	}
	gone := make(chan struct{})
	go func() { // ends with the child; as long as it lives it must be reaped by somebody
		_ = cmd.Wait()
		close(gone)
	}()
	fresh := &child{PID: cmd.Process.Pid, Started: startTime(cmd.Process.Pid), Port: port}
	if err := c.wait(ctx, k, fresh, gone); err != nil {
		c.end(fresh)
		return nil, fmt.Errorf("%w; its log: %s%s", err, logPath, lastLine(logPath))
	}
	c.log.Info("embedded server started", "server", k.name, "pid", fresh.PID, "addr", loopback(port))
	return fresh, nil
}

// wait returns once the child gives a real answer.
func (c *children) wait(ctx context.Context, k childKind, ch *child, gone <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, childStart)
	defer cancel()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		try, cancelTry := context.WithTimeout(ctx, 2*time.Second)
		err := k.answers(try, loopback(ch.Port))
		cancelTry()
		// An answer counts only from the child that has said it serves: the port may be another's.
		own, ownErr := readServer(c.dir, k.name)
		if err == nil && ownErr == nil && own.PID == ch.PID && alive(ch.PID, ch.Started) {
			return nil
		}
		err = errors.Join(err, ownErr)
		select {
		case <-gone:
			return fmt.Errorf("embedded %s on port %d ended at once", k.name, ch.Port)
		case <-ctx.Done():
			return fmt.Errorf("embedded %s on port %d does not answer: %w", k.name, ch.Port, errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// end stops a child: politely, then by force.
func (c *children) end(ch *child) {
	if ch == nil || !alive(ch.PID, ch.Started) {
		return
	}
	_ = syscall.Kill(ch.PID, syscall.SIGTERM)
	for deadline := time.Now().Add(childStop); alive(ch.PID, ch.Started); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(ch.PID, syscall.SIGKILL)
			deadline = deadline.Add(time.Minute)
		}
	}
}

// endAll stops the children of r and keeps their ports for the next start.
func (c *children) endAll(r *runFile) {
	for _, ch := range r.Children {
		c.end(ch)
		ch.PID, ch.Started = 0, ""
	}
}

// watch starts a child anew when it has died, until ctx ends.
func (c *children) watch(ctx context.Context, k childKind) error {
	tick := time.NewTicker(childPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		r, err := readRun(c.dir)
		if err != nil {
			return err
		}
		ch := r.Children[k.name]
		if ch != nil && alive(ch.PID, ch.Started) {
			continue
		}
		c.log.Warn("embedded server is gone, starting it again"+lastLine(filepath.Join(c.dir, k.name+".log")), "server", k.name)
		if _, err := c.ensure(ctx, k); err != nil && ctx.Err() == nil {
			// The disk may be full or the port taken: both can pass.
			c.log.Error("embedded server does not start", "server", k.name, "error", err)
		}
	}
}

// serverLock is held by the embedded server whose data is in dir.
func serverLock(dir string) string { return dir + ".lock" }

// serverFile is where an embedded server writes down that it serves.
func serverFile(dir, name string) string { return filepath.Join(dir, name+".server.json") }

// readServer returns what the last embedded server of that name has written down.
func readServer(dir, name string) (*child, error) {
	text, err := os.ReadFile(serverFile(dir, name))
	if err != nil {
		return nil, err
	}
	ch := &child{}
	if err := json.Unmarshal(text, ch); err != nil {
		return nil, fmt.Errorf("read %s: %w", serverFile(dir, name), err)
	}
	return ch, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// lastLine returns "; last line: …" of a log file.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 4096 {
		_, _ = f.Seek(-4096, io.SeekEnd)
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return ""
	}
	line := ""
	for _, l := range splitLines(string(text)) {
		if l != "" {
			line = l
		}
	}
	if line == "" {
		return ""
	}
	return "; last line: " + line
}

// kafkaAnswers asks for the broker's versions: a TCP connect alone would be
// answered by anything that listens.
func kafkaAnswers(ctx context.Context, addr string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	const apiVersions, correlation = 18, 0x51
	request := binary.BigEndian.AppendUint32(nil, 10) // size of what follows
	request = binary.BigEndian.AppendUint16(request, apiVersions)
	request = binary.BigEndian.AppendUint16(request, 0) // version
	request = binary.BigEndian.AppendUint32(request, correlation)
	request = binary.BigEndian.AppendUint16(request, 0xffff) // no client id
	if _, err := conn.Write(request); err != nil {
		return err
	}
	var head [10]byte // size, correlation, error code
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(head[4:]) != correlation || binary.BigEndian.Uint16(head[8:]) != 0 {
		return errors.New("the answer is not Kafka's")
	}
	return nil
}

// s3Answers sends a request without a signature; S3 refuses it with an XML error.
func s3Answers(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("the answer is %s", resp.Status)
	}
	return nil
}

// s3Keys are the accounts of the embedded S3.
type s3Keys struct {
	Access       string `json:"access"`
	Secret       string `json:"secret"`
	ReaderAccess string `json:"reader_access"` // may only read: the loopback catalog hands it to engines
	ReaderSecret string `json:"reader_secret"`
}

// embeddedKeys returns the accounts of the embedded S3 below dir, made at the
// first call. The gateway reads the same file: no key is on a command line.
func embeddedKeys(dir string) (s3Keys, error) {
	path := filepath.Join(dir, "s3.keys.json")
	var k s3Keys
	text, err := os.ReadFile(path)
	if err == nil {
		if err := json.Unmarshal(text, &k); err != nil || k.Secret == "" {
			return k, fmt.Errorf("read %s: not the keys of an embedded S3", path)
		}
		return k, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return k, fmt.Errorf("read keys of the embedded S3: %w", err)
	}
	k = s3Keys{Access: "sluice" + randomHex(7), Secret: randomHex(20), ReaderAccess: "reader" + randomHex(7), ReaderSecret: randomHex(20)}
	if text, err = json.Marshal(k); err != nil {
		return k, fmt.Errorf("write keys of the embedded S3: %w", err)
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return k, fmt.Errorf("write keys of the embedded S3: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return k, fmt.Errorf("write keys of the embedded S3: %w", err)
	}
	return k, nil
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: it ends the process instead
	return hex.EncodeToString(b)
}
