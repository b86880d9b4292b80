//go:build !sluicetest

package lake

import "errors"

func (u Unsafe) check() error {
	if u != (Unsafe{}) {
		return errors.New("lake: safety lines cannot be switched off in this build; build with -tags sluicetest")
	}
	return nil
}
