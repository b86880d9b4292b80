package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/objects"
)

// objectKeeper is the settings of a source whose records refer to objects of a store.
type objectKeeper interface {
	bodyStore() *s3Settings
}

// bodyRoots opens the folders that the claims of sources are below.
type bodyRoots struct{ open []*os.Root }

// of returns how the bodies of a source are read: from store if it is not nil, else from where the source says.
// embedded is the address of our own store.
func (r *bodyRoots) of(ctx context.Context, f *config.File, source string, store *s3Settings, embedded string) (objects.Bodies, error) {
	var b objects.Bodies
	for _, s := range f.Sources {
		if keeper, ok := s.Settings.(objectKeeper); ok && s.Name == source && store == nil {
			store = keeper.bodyStore()
		}
	}
	if store != nil {
		c, err := store.config(f, embedded)
		if err != nil {
			return b, fmt.Errorf("store of source %s: %w", source, err)
		}
		if b.S3, err = objects.New(ctx, c); err != nil {
			return b, fmt.Errorf("store of source %s: %w", source, err)
		}
	}
	for _, s := range f.Sources {
		keeper, ok := s.Settings.(bodyKeeper)
		if s.Name != source || !ok {
			continue
		}
		folder := keeper.bodyFolder(f)
		if folder == "" {
			continue
		}
		root, err := os.OpenRoot(folder)
		if err != nil {
			return b, fmt.Errorf("folder of source %s: %w", source, err)
		}
		r.open = append(r.open, root)
		b.Root = root
	}
	return b, nil
}

func (r *bodyRoots) close() error {
	var errs []error
	for _, root := range r.open {
		errs = append(errs, root.Close())
	}
	r.open = nil
	return errors.Join(errs...)
}

// bodyStore is the store of the s3: claims of the records; nil if there are none.
func (s *filesSettings) bodyStore() *s3Settings {
	switch {
	case s.Mode != "copy" && s.S3 != nil:
		return &s.S3.s3Settings
	case s.Store != nil:
		return &s.Store.s3Settings
	}
	return nil
}
