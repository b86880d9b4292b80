//go:build sluicetest

package lake

func (u Unsafe) check() error { return nil }
