package postgres

import (
	"context"
	"errors"
)

func (s *Source) check(context.Context) ([]Finding, error) { return nil, errors.New("not connected") }

func (s *Source) run(context.Context, Output) error { return errors.New("not connected") }
