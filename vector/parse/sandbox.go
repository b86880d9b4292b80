package parse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/klippa-app/go-pdfium"
	"github.com/klippa-app/go-pdfium/webassembly"
	"github.com/tetratelabs/wazero"
)

// sandbox runs the compiled PDF reader. Every file gets its own instance, with
// its own memory below a cap, without files, without network, without clock
// of the machine.
type sandbox struct {
	cfg   Config
	slots chan struct{}

	mu     sync.Mutex
	pool   pdfium.Pool
	cache  wazero.CompilationCache
	closed bool
}

// startError is not the file's fault.
type startError struct{ err error }

func (e *startError) Error() string { return "start the PDF reader: " + e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

func (s *sandbox) open() (pdfium.Pool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("the engine is closed")
	}
	if s.pool != nil {
		return s.pool, nil
	}
	const wasmPage = 64 << 10
	runtime := wazero.NewRuntimeConfig().WithCloseOnContextDone(true).
		WithMemoryLimitPages(uint32(min(s.cfg.Limits.PDFMemoryBytes/wasmPage, 65536)))
	if s.cfg.CacheDir != "" {
		cache, err := wazero.NewCompilationCacheWithDir(s.cfg.CacheDir)
		if err != nil {
			return nil, fmt.Errorf("open its cache: %w", err)
		}
		s.cache = cache
		runtime = runtime.WithCompilationCache(cache)
	}
	pool, err := webassembly.Init(webassembly.Config{
		MaxTotal: s.cfg.Workers, RuntimeConfig: runtime,
		FSConfig: wazero.NewFSConfig(), // without this the library shows it the whole file system
		Stdout:   io.Discard, Stderr: io.Discard,
	})
	if err != nil {
		return nil, err
	}
	s.pool = pool
	return pool, nil
}

// run gives do an instance of its own and ends it afterwards, or with ctx,
// whichever is first.
func (s *sandbox) run(ctx context.Context, do func(pdfium.Pdfium) error) (err error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	pool, err := s.open()
	if err != nil {
		return &startError{err}
	}
	instance, err := pool.GetInstanceWithContext(ctx)
	if err != nil {
		return &startError{fmt.Errorf("start an instance: %w", err)}
	}
	ended := make(chan struct{})
	kill := func() {
		defer close(ended)
		_ = instance.Kill() // its memory goes with it, there is nothing to save
	}
	stop := context.AfterFunc(ctx, kill)
	defer func() {
		if r := recover(); r != nil {
			err = reject(CodeBroken, "the PDF reader gave up")
		}
		if stop() {
			kill()
		}
		<-ended
		if err != nil && ctx.Err() != nil {
			err = ctx.Err()
		}
	}()
	err = do(instance)
	if err == nil {
		return nil
	}
	if _, ok := Rejected(err); !ok && ctx.Err() == nil {
		// A trap of the sandbox: memory at its cap, or a bug that the file found.
		err = reject(CodeBroken, "the PDF reader gave up")
	}
	return err
}

func (s *sandbox) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var err error
	if s.pool != nil {
		err = s.pool.Close()
	}
	if s.cache != nil {
		err = errors.Join(err, s.cache.Close(context.Background()))
	}
	return err
}

func newPDFParser(cfg Config) *pdfParser {
	set(&cfg.Workers, 2)
	cfg.Limits = cfg.Limits.WithDefaults()
	return &pdfParser{sandbox: sandbox{cfg: cfg, slots: make(chan struct{}, cfg.Workers)}}
}

func (p *pdfParser) close() error { return p.sandbox.close() }

// userCacheDir is where the shared engine keeps the compiled PDF reader.
func userCacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "sluice", "pdf")
}
