//go:build !sluicetest

package topic

import "errors"

func (u Unsafe) check() error {
	if u != (Unsafe{}) {
		return errors.New("topic: safety lines cannot be switched off in this build; build with -tags sluicetest")
	}
	return nil
}
