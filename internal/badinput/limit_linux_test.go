package badinput

import (
	"testing"

	"golang.org/x/sys/unix"
)

// limitFiles lets no file that a process writes grow beyond size: to the
// process it is a full disk, and it needs no rights.
func limitFiles(t *testing.T, pid int, size uint64) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, nil, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: min(size, before.Max), Max: before.Max}, nil); err != nil {
		t.Fatal(err)
	}
}
