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
// itself. SLUICE_STOP=point:n stops it there instead, until it gets SIGCONT.
// SLUICE_KILL=list prints the points as they are passed.
func killer() func(point string) {
	if os.Getenv("SLUICE_KILL") == "list" {
		return func(point string) { fmt.Fprintf(os.Stderr, "kill point %s\n", point) }
	}
	kill, stop := aimed("SLUICE_KILL"), aimed("SLUICE_STOP")
	return func(point string) {
		if kill(point) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // nothing after the point may run
		}
		if stop(point) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		}
	}
}

// aimed returns a function that says of each point passed whether it is the
// one that the environment variable names.
func aimed(variable string) func(point string) bool {
	spec := os.Getenv(variable)
	if spec == "" {
		return func(string) bool { return false }
	}
	name, number, ok := strings.Cut(spec, ":")
	nth := int64(1)
	if ok {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			panic(variable + ": want point:n")
		}
		nth = n
	}
	var passed atomic.Int64
	return func(point string) bool { return point == name && passed.Add(1) == nth }
}
