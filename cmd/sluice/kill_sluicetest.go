//go:build sluicetest

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// killPoints says that this binary obeys SLUICE_KILL.
const killPoints = true

// killer returns a function that kills this process when it passes the point
// that SLUICE_KILL=point:n names for the n-th time; every process counts for
// itself. SLUICE_KILL=list prints the points as they are passed.
func killer() func(point string) {
	spec := os.Getenv("SLUICE_KILL")
	if spec == "" {
		return func(string) {}
	}
	if spec == "list" {
		return func(point string) { fmt.Fprintf(os.Stderr, "kill point %s\n", point) }
	}
	name, number, ok := strings.Cut(spec, ":")
	nth := int64(1)
	if ok {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			panic("SLUICE_KILL: want point:n")
		}
		nth = n
	}
	var passed atomic.Int64
	return func(point string) {
		if point == name && passed.Add(1) == nth {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // nothing after the point may run
		}
	}
}
