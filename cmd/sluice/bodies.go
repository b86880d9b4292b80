package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/objects"
)

// bodyRoots opens the folders that the claims of sources are below.
type bodyRoots struct{ open []*os.Root }

// of returns how the bodies of a source are read.
func (r *bodyRoots) of(f *config.File, source string, s3 *objects.Client) (objects.Bodies, error) {
	b := objects.Bodies{S3: s3}
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
