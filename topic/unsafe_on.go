//go:build sluicetest

package topic

func (u Unsafe) check() error { return nil }
