package postgres

import (
	"context"
	"errors"
)

func (s *Source) run(context.Context, Output) error { return errors.New("not connected") }
