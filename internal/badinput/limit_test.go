//go:build !linux

package badinput

import "testing"

// limitFiles needs a system call that only Linux has: the limit of another process.
func limitFiles(t *testing.T, _ int, _ uint64) {
	t.Helper()
	t.Fatal("the disk-full cases run on Linux only")
}
