//go:build !sluicetest

package main

// killPoints says that this binary obeys SLUICE_KILL; a release never does.
const killPoints = false

// killer returns a function that does nothing: only test binaries kill themselves.
func killer() func(point string) { return nil }
