package spec

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// MemoryTokens keeps tokens for one process; they are gone with it.
type MemoryTokens struct {
	mu    sync.Mutex
	turns map[string]chan struct{}
	saved map[string][]byte
}

// Lock waits for its turn.
func (m *MemoryTokens) Lock(ctx context.Context, account string) (func(), error) {
	m.mu.Lock()
	if m.turns == nil {
		m.turns = map[string]chan struct{}{}
	}
	turn := m.turns[account]
	if turn == nil {
		turn = make(chan struct{}, 1)
		m.turns[account] = turn
	}
	m.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Load returns what was saved last.
func (m *MemoryTokens) Load(_ context.Context, account string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saved[account], nil
}

// Save keeps sealed.
func (m *MemoryTokens) Save(_ context.Context, account string, sealed []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.saved == nil {
		m.saved = map[string][]byte{}
	}
	m.saved[account] = sealed
	return nil
}

// FileTokens keeps tokens in a folder, for all processes of one machine.
type FileTokens struct {
	Dir string
}

func (f FileTokens) path(account, ending string) string {
	return filepath.Join(f.Dir, url.PathEscape(account)+ending)
}

// Lock takes a lock of the file system, which ends with its process.
func (f FileTokens) Lock(ctx context.Context, account string) (func(), error) {
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of tokens: %w", err)
	}
	file, err := os.OpenFile(f.path(account, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of tokens: %w", err)
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			file.Close()
			return nil, fmt.Errorf("lock tokens: %w", err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Load reads the file.
func (f FileTokens) Load(_ context.Context, account string) ([]byte, error) {
	b, err := os.ReadFile(f.path(account, ".token"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// Save replaces the file; it is on the disk when Save returns.
func (f FileTokens) Save(_ context.Context, account string, sealed []byte) error {
	tmp, err := os.CreateTemp(f.Dir, "token-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already if all went well
	_, err = tmp.Write(sealed)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), f.path(account, ".token")); err != nil {
		return err
	}
	dir, err := os.Open(f.Dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
